"""States of both ends (RFC 9293 section 3.3.2), from what they were seen to send.

An end is in a state once its own segments show it, so a FIN or SYN counts as received when it is acknowledged.
"""

from collections.abc import Callable

import pytest

from tcptrace.model import STATES
from tcptrace.records import DIRECTION_EGRESS, DIRECTION_INGRESS, FLAG_ACK, FLAG_RST

from .conversation import Conversation, feed, live_rows, new_table, only_row, states_of, table_of

UNKNOWN = None
SYN_SENT, SYN_RECEIVED, ESTABLISHED = "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED"
FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT = "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT"
CLOSING, LAST_ACK, TIME_WAIT, CLOSED = "CLOSING", "LAST-ACK", "TIME-WAIT", "CLOSED"


Part = Callable[[Conversation], None]


def test_every_state_is_met_here() -> None:
    met = {state for name, state in globals().items() if name.isupper() and isinstance(state, str)}
    assert met == set(filter(None, STATES))


def test_three_way_handshake() -> None:
    """RFC 9293 figure 6."""
    talk = Conversation()
    talk.handshake()
    assert talk.states() == [(SYN_SENT, UNKNOWN), (SYN_SENT, SYN_RECEIVED), (ESTABLISHED, ESTABLISHED)]


def test_simultaneous_open() -> None:
    """RFC 9293 figure 7."""
    talk = Conversation()
    client, server = talk.client, talk.server
    client.syn()
    server.syn()
    client.syn_ack(seq=1_000)
    server.syn_ack(seq=5_000)
    client.ack()
    assert talk.states() == [
        (SYN_SENT, UNKNOWN),
        (SYN_SENT, SYN_SENT),
        (SYN_RECEIVED, SYN_SENT),
        (ESTABLISHED, ESTABLISHED),
        (ESTABLISHED, ESTABLISHED),
    ]


def test_normal_close() -> None:
    """RFC 9293 figure 12."""
    talk = Conversation()
    talk.handshake()
    talk.close()
    assert talk.states()[3:] == [
        (FIN_WAIT_1, ESTABLISHED),
        (FIN_WAIT_2, CLOSE_WAIT),
        (FIN_WAIT_2, LAST_ACK),
        (TIME_WAIT, CLOSED),
    ]


def test_close_by_the_server() -> None:
    talk = Conversation()
    talk.handshake()
    talk.server.fin()
    talk.client.ack()
    talk.client.fin()
    talk.server.ack()
    assert talk.states()[3:] == [
        (ESTABLISHED, FIN_WAIT_1),
        (CLOSE_WAIT, FIN_WAIT_2),
        (LAST_ACK, FIN_WAIT_2),
        (CLOSED, TIME_WAIT),
    ]


def test_close_in_three_segments() -> None:
    """The second FIN carries the ACK of the first."""
    talk = Conversation()
    talk.handshake()
    talk.client.fin()
    talk.server.fin()
    talk.client.ack()
    assert talk.states()[3:] == [(FIN_WAIT_1, ESTABLISHED), (FIN_WAIT_2, LAST_ACK), (TIME_WAIT, CLOSED)]


def test_simultaneous_close() -> None:
    """RFC 9293 figure 13."""
    talk = Conversation()
    talk.handshake()
    client, server = talk.client, talk.server
    client.fin()
    server.fin(ack=client.next_seq - 1)
    client.ack()
    server.ack()
    assert talk.states()[3:] == [
        (FIN_WAIT_1, ESTABLISHED),
        (FIN_WAIT_1, FIN_WAIT_1),
        (CLOSING, FIN_WAIT_2),
        (TIME_WAIT, TIME_WAIT),
    ]


def test_half_close_lets_the_other_end_go_on() -> None:
    talk = Conversation()
    talk.handshake()
    talk.client.fin()
    talk.server.ack()
    for _ in range(3):
        talk.server.data(100)
        talk.client.ack()
    assert talk.states()[4:] == [(FIN_WAIT_2, CLOSE_WAIT)] * 7
    row = talk.row()
    assert row["received"]["payload_bytes"] == 300


def test_fin_with_data() -> None:
    """The FIN is acknowledged by what covers the data and one more."""
    talk = Conversation()
    talk.handshake()
    talk.client.fin(payload=100)
    talk.server.ack(talk.client.next_seq - 1)
    talk.server.ack()
    assert talk.states()[3:] == [(FIN_WAIT_1, ESTABLISHED), (FIN_WAIT_1, ESTABLISHED), (FIN_WAIT_2, CLOSE_WAIT)]


def test_fin_sent_twice() -> None:
    talk = Conversation()
    talk.handshake()
    talk.client.fin()
    talk.client.fin(seq=talk.client.next_seq - 1)
    talk.server.ack()
    talk.server.fin()
    talk.server.fin(seq=talk.server.next_seq - 1)
    talk.client.ack()
    talk.client.ack()
    assert talk.states()[3:] == [
        (FIN_WAIT_1, ESTABLISHED),
        (FIN_WAIT_1, ESTABLISHED),
        (FIN_WAIT_2, CLOSE_WAIT),
        (FIN_WAIT_2, LAST_ACK),
        (FIN_WAIT_2, LAST_ACK),
        (TIME_WAIT, CLOSED),
        (TIME_WAIT, CLOSED),
    ]


def test_syn_sent_twice() -> None:
    talk = Conversation()
    talk.client.syn()
    talk.client.syn(seq=1_000)
    talk.server.syn_ack()
    talk.server.syn_ack(seq=5_000)
    talk.client.ack()
    assert talk.states() == [
        (SYN_SENT, UNKNOWN),
        (SYN_SENT, UNKNOWN),
        (SYN_SENT, SYN_RECEIVED),
        (SYN_SENT, SYN_RECEIVED),
        (ESTABLISHED, ESTABLISHED),
    ]


def test_sequence_numbers_wrap_in_handshake_and_close() -> None:
    talk = Conversation(client_seq=2**32 - 1, server_seq=2**32 - 2)
    talk.handshake()
    talk.close()
    assert talk.states()[2] == (ESTABLISHED, ESTABLISHED)
    assert talk.states()[-1] == (TIME_WAIT, CLOSED)


def test_fin_overtaken_by_its_own_acknowledgment() -> None:
    """A tap can show the two directions out of step."""
    talk = Conversation()
    talk.handshake()
    talk.server.ack(talk.client.next_seq + 1)
    talk.client.fin()
    assert talk.states()[-1] == (FIN_WAIT_2, CLOSE_WAIT)


# --- Resets.


def opened(talk: Conversation) -> None:
    talk.handshake()


def syn_only(talk: Conversation) -> None:
    talk.client.syn()


def syn_and_syn_ack(talk: Conversation) -> None:
    talk.client.syn()
    talk.server.syn_ack()


def one_fin(talk: Conversation) -> None:
    talk.handshake()
    talk.client.fin()


def half_closed(talk: Conversation) -> None:
    one_fin(talk)
    talk.server.ack()


def closing(talk: Conversation) -> None:
    one_fin(talk)
    talk.server.fin(ack=talk.client.next_seq - 1)
    talk.client.ack()


def last_ack(talk: Conversation) -> None:
    half_closed(talk)
    talk.server.fin()


def closed(talk: Conversation) -> None:
    talk.handshake()
    talk.close()


def middle(talk: Conversation) -> None:
    talk.client.data(100)
    talk.server.ack()


@pytest.mark.parametrize(
    "before",
    [opened, syn_and_syn_ack, one_fin, half_closed, closing, last_ack, closed, middle],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("who", ["client", "server"])
def test_reset_closes_in_every_state(before: Part, who: str) -> None:
    talk = Conversation()
    before(talk)
    getattr(talk, who).rst()
    assert talk.states()[-1] == (CLOSED, CLOSED)


def test_refused() -> None:
    """RFC 9293 section 3.5.2, group 1: RST with the ACK of the SYN and sequence number 0."""
    talk = Conversation()
    talk.client.syn()
    talk.server.send(FLAG_RST | FLAG_ACK, seq=0)
    assert talk.states() == [(SYN_SENT, UNKNOWN), (CLOSED, CLOSED)]
    table = table_of(talk)
    table.expire(talk.now_ns + 61_000_000_000)
    assert table.take_ended()["end_reason"].tolist() == [2]


def test_syn_given_up() -> None:
    """The client that sent the SYN takes it back."""
    talk = Conversation()
    talk.client.syn()
    talk.client.rst()
    assert talk.states()[-1] == (CLOSED, CLOSED)


def test_reset_first() -> None:
    talk = Conversation()
    talk.server.rst()
    assert talk.states() == [(CLOSED, CLOSED)]


def test_reset_below_the_window_is_ignored() -> None:
    """RFC 9293 section 3.10.7.4: outside of the window it is dropped."""
    talk = Conversation()
    talk.handshake()
    talk.client.data(500)
    talk.server.ack()
    talk.client.rst(seq=talk.client.next_seq - 100)
    assert talk.states()[-1] == (ESTABLISHED, ESTABLISHED)


@pytest.mark.parametrize("offset", [1_001, 100_000, 2**30])
def test_reset_above_the_window_is_ignored(offset: int) -> None:
    talk = Conversation()
    talk.handshake()
    talk.client.data(500)
    talk.server.ack()
    talk.client.rst(seq=talk.client.next_seq + offset)
    assert talk.states()[-1] == (ESTABLISHED, ESTABLISHED)


@pytest.mark.parametrize(
    ("flags", "ack"),
    [
        (FLAG_RST | FLAG_ACK, 1_002),
        pytest.param(FLAG_RST | FLAG_ACK, 1_000),
        pytest.param(FLAG_RST | FLAG_ACK, 900),
        pytest.param(FLAG_RST, 0),
    ],
)
def test_reset_that_does_not_acknowledge_the_syn_is_ignored(flags: int, ack: int) -> None:
    """RFC 9293 section 3.10.7.3: in SYN-SENT only a reset with an acceptable ACK counts."""
    talk = Conversation()
    talk.client.syn()
    talk.server.send(flags, ack=ack, seq=0)
    assert talk.states() == [(SYN_SENT, UNKNOWN), (SYN_SENT, UNKNOWN)]


def test_data_after_a_reset_does_not_open_it_again() -> None:
    talk = Conversation()
    talk.handshake()
    talk.server.rst()
    talk.client.data(10)
    assert talk.states()[-1] == (CLOSED, CLOSED)
    assert talk.row()["sent"]["payload_bytes"] == 10


# --- What the capture did not see.


def test_starts_in_the_middle() -> None:
    talk = Conversation()
    talk.client.data(100)
    talk.server.ack()
    assert talk.states() == [(ESTABLISHED, UNKNOWN), (ESTABLISHED, ESTABLISHED)]
    assert talk.row()["initiator_known"] == 0


def test_starts_with_the_syn_ack() -> None:
    talk = Conversation()
    talk.client.unseen(1)
    talk.server.syn_ack()
    talk.client.ack()
    assert talk.states() == [(UNKNOWN, SYN_RECEIVED), (ESTABLISHED, ESTABLISHED)]
    row = talk.row()
    assert row["initiator_known"] == 1
    assert (row["src_port"], row["dst_port"]) == (40_000, 80)


def test_starts_with_the_close() -> None:
    talk = Conversation()
    talk.close()
    assert talk.states() == [
        (FIN_WAIT_1, UNKNOWN),
        (FIN_WAIT_2, CLOSE_WAIT),
        (FIN_WAIT_2, LAST_ACK),
        (TIME_WAIT, CLOSED),
    ]


def test_syn_ack_not_captured() -> None:
    talk = Conversation()
    talk.client.syn()
    talk.server.unseen(1)
    talk.client.ack()
    talk.server.data(100)
    talk.client.ack()
    assert talk.states()[-1] == (ESTABLISHED, ESTABLISHED)


def test_one_direction_only_that_of_the_client() -> None:
    """An ACK after its SYN says that it got the SYN-ACK."""
    talk = Conversation()
    talk.client.syn()
    talk.client.ack(5_001)
    talk.client.data(100, ack=5_001)
    talk.client.fin(ack=5_001)
    assert talk.states() == [(SYN_SENT, UNKNOWN), (ESTABLISHED, UNKNOWN), (ESTABLISHED, UNKNOWN), (FIN_WAIT_1, UNKNOWN)]


def test_one_direction_only_that_of_the_server() -> None:
    talk = Conversation()
    talk.client.unseen(1)
    talk.server.syn_ack()
    talk.server.data(100)
    talk.server.fin()
    assert talk.states() == [(UNKNOWN, SYN_RECEIVED), (UNKNOWN, ESTABLISHED), (UNKNOWN, FIN_WAIT_1)]


# --- The connection's state.


@pytest.mark.parametrize(
    ("direction", "state"), [(DIRECTION_EGRESS, FIN_WAIT_2), (DIRECTION_INGRESS, CLOSE_WAIT), (None, FIN_WAIT_2)]
)
def test_connection_has_the_state_of_the_near_end(direction: int | None, state: str) -> None:
    """Of the end on this side of the interface; without one, the initiator's."""
    talk = Conversation()
    half_closed(talk)
    records = talk.records
    if direction is not None:
        records["direction"] = [direction if port == 40_000 else 1 - direction for port in records["src_port"]]
    table = new_table()
    feed(table, records)
    assert STATES[only_row(table)["state"]] == state


def test_connection_has_the_state_that_is_known() -> None:
    talk = Conversation()
    talk.client.syn(direction=DIRECTION_INGRESS)
    talk.client.syn(direction=DIRECTION_INGRESS, seq=1_000)
    assert STATES[talk.row()["state"]] == SYN_SENT


def test_settled_connections_are_counted_by_state() -> None:
    one, two = Conversation(), Conversation(client=("10.0.0.3", 1_234))
    closed(one)
    opened(two)
    table = table_of(one, two)
    table.refresh(two.now_ns)
    assert table.totals().connections_by_state == {TIME_WAIT: 1, ESTABLISHED: 1}
    assert [states_of(row) for row in live_rows(table)] == [(TIME_WAIT, CLOSED), (ESTABLISHED, ESTABLISHED)]
