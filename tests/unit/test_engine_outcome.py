"""How a connection was opened and closed, its sender's clocks, SACK, ECN, bytes in flight, and ports used again."""

import math
from collections.abc import Callable

import pytest

from tcptrace.engine.table import Table
from tcptrace.model import CLOSE_KINDS, CLOSED_BY, HANDSHAKES
from tcptrace.records import (
    FLAG_ACK,
    FLAG_CWR,
    FLAG_ECE,
    FLAG_RST,
    FLAG_SYN,
    OPTION_SACK,
    OPTION_TIMESTAMPS,
)

from .conversation import Conversation, End, counts, feed, live_rows, new_table, only_row, table_of

Part = Callable[[Conversation], None]


def opening(talk: Conversation) -> str | None:
    return HANDSHAKES[talk.row_told()["handshake"]]


def closing(talk: Conversation) -> tuple[str | None, str | None, float | None]:
    """Who closed, how, and the time half closed in us."""
    row = talk.row_told()
    half_us = float(row["half_closed_us"])
    return CLOSED_BY[row["closed_by"]], CLOSE_KINDS[row["close_kind"]], None if math.isnan(half_us) else half_us


def opened(**options: int) -> Conversation:
    talk = Conversation(**options)
    talk.handshake()
    return talk


# --- The handshake.


def middle(talk: Conversation) -> None:
    talk.client.data(10)
    talk.server.ack()


def whole(talk: Conversation) -> None:
    talk.handshake()


def without_syn(talk: Conversation) -> None:
    talk.client.unseen(1)
    talk.server.syn_ack()
    talk.client.ack()


def without_syn_ack(talk: Conversation) -> None:
    talk.client.syn()
    talk.server.unseen(1)
    talk.client.ack()


def simultaneous(talk: Conversation) -> None:
    talk.client.syn()
    talk.server.syn()
    talk.server.syn_ack(seq=5_000)
    talk.client.syn_ack(seq=1_000)


def without_ack(talk: Conversation) -> None:
    talk.client.syn()
    talk.server.syn_ack()


def syn_ack_alone(talk: Conversation) -> None:
    talk.client.unseen(1)
    talk.server.syn_ack()


def given_up(talk: Conversation) -> None:
    talk.client.syn()
    talk.client.rst()


def refused(talk: Conversation) -> None:
    talk.client.syn()
    talk.server.send(FLAG_RST | FLAG_ACK, seq=0)


def refused_and_tried_again(talk: Conversation) -> None:
    refused(talk)
    talk.client.syn(seq=1_000)
    talk.server.syn_ack()
    talk.client.ack()


def refused_wrongly(talk: Conversation) -> None:
    """RFC 9293 section 3.10.7.3: its ACK is not the SYN's."""
    talk.client.syn()
    talk.server.send(FLAG_RST | FLAG_ACK, seq=0, ack=900)


def syn_alone(talk: Conversation) -> None:
    talk.client.syn()
    talk.client.syn(seq=1_000)


@pytest.mark.parametrize(
    ("part", "handshake"),
    [
        (middle, None),
        (whole, "complete"),
        (without_syn, "complete"),
        (without_syn_ack, "complete"),
        (simultaneous, "complete"),
        (without_ack, "half_open"),
        (syn_ack_alone, "half_open"),
        (refused, "refused"),
        (refused_and_tried_again, "complete"),
        (refused_wrongly, "unanswered"),
        (given_up, "unanswered"),
        (syn_alone, "unanswered"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.parametrize("client_seq", [1_000, 2**32 - 1])
def test_handshake(part: Part, handshake: str | None, client_seq: int) -> None:
    talk = Conversation(client_seq=client_seq)
    part(talk)
    if client_seq == 1_000 or part not in (simultaneous, refused_and_tried_again, syn_alone):  # which name the number
        assert opening(talk) == handshake


# --- The close.


def nobody(talk: Conversation) -> None:
    talk.client.data(10)


def client_first(talk: Conversation) -> None:
    talk.close()


def server_first(talk: Conversation) -> None:
    talk.server.fin()
    talk.client.ack()
    talk.wait(7_000)
    talk.client.fin()
    talk.server.ack()


def both_at_once(talk: Conversation) -> None:
    talk.client.fin()
    talk.server.fin(ack=talk.client.next_seq - 1)
    talk.client.ack()
    talk.server.ack()


def half(talk: Conversation) -> None:
    talk.client.fin()
    talk.server.ack()
    talk.wait(3_000)
    talk.server.data(10)


def reset_by_the_server(talk: Conversation) -> None:
    talk.server.rst()


def reset_after_one_fin(talk: Conversation) -> None:
    talk.client.fin()
    talk.server.rst()


def reset_after_both_fins(talk: Conversation) -> None:
    talk.close()
    talk.client.rst()


def reset_that_does_not_count(talk: Conversation) -> None:
    """RFC 9293 section 3.10.7.4: out of the window."""
    talk.client.rst(seq=talk.client.next_seq + 2**30)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (nobody, (None, None, None)),
        (client_first, ("src", "fin", 2_000.0)),
        (server_first, ("dst", "fin", 9_000.0)),
        (both_at_once, ("both", "fin", 1_000.0)),
        (half, ("src", "fin", 5_000.0)),
        (reset_by_the_server, ("dst", "reset", None)),
        (reset_after_one_fin, ("src", "reset", 1_000.0)),
        (reset_after_both_fins, ("src", "fin", 2_000.0)),
        (reset_that_does_not_count, (None, None, None)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("seq", [1_000, 2**32 - 2, 2**32 - 1])
def test_close(part: Part, expected: tuple[str | None, str | None, float | None], seq: int) -> None:
    """half_closed_us goes to the other end's FIN, or to the last packet."""
    talk = opened(client_seq=seq, server_seq=seq)
    part(talk)
    assert closing(talk) == expected


def test_refused_connection_was_closed_by_who_refused_it() -> None:
    talk = Conversation()
    refused(talk)
    assert closing(talk) == ("dst", "reset", None)


def test_connection_that_was_tried_again_is_not_closed() -> None:
    talk = Conversation()
    refused_and_tried_again(talk)
    assert closing(talk) == (None, None, None)


def test_fin_sent_again_is_not_a_later_one() -> None:
    talk = opened()
    talk.client.fin()
    talk.wait(10_000)
    talk.client.fin(seq=talk.client.next_seq - 1)
    talk.server.fin()
    assert closing(talk) == ("src", "fin", 12_000.0)


def test_rows_that_end_are_complete_too() -> None:
    talk = opened()
    talk.close()
    table = table_of(talk)
    assert table.expire(talk.now_ns + 10**12)
    (row,) = table.take_ended()
    assert HANDSHAKES[row["handshake"]] == "complete"
    assert (CLOSED_BY[row["closed_by"]], CLOSE_KINDS[row["close_kind"]]) == ("src", "fin")
    assert row["half_closed_us"] == 2_000.0
    assert row["sent"]["rtt_p50_us"] == 1_000.0


# --- The initial RTT.


def test_initial_rtt_is_from_the_syn_to_the_first_ack() -> None:
    assert opened().row()["initial_rtt_us"] == 2_000.0


def test_initial_rtt_is_from_the_last_syn() -> None:
    """handshake_rtt_us is unknown then."""
    talk = Conversation()
    talk.client.syn()
    talk.client.syn(seq=1_000)
    talk.server.syn_ack()
    talk.client.ack()
    row = talk.row()
    assert row["initial_rtt_us"] == 2_000.0
    assert math.isnan(row["handshake_rtt_us"])


def test_whoever_acknowledges_ends_the_initial_rtt() -> None:
    talk = Conversation()
    talk.client.syn()
    talk.server.unseen(1)
    talk.server.data(10)
    talk.client.ack()
    assert talk.row()["initial_rtt_us"] == 1_000.0


def test_refusal_ends_the_initial_rtt() -> None:
    talk = Conversation()
    refused(talk)
    row = talk.row()
    assert row["initial_rtt_us"] == 1_000.0
    assert counts(row, "sent", "rtt_count", "rtt_last_us") == (1, 1_000.0)


def test_giving_up_does_not() -> None:
    talk = Conversation()
    talk.client.syn()
    talk.client.send(FLAG_RST | FLAG_ACK, ack=0)
    assert math.isnan(talk.row()["initial_rtt_us"])


def test_without_a_syn_there_is_no_initial_rtt() -> None:
    talk = Conversation()
    without_syn(talk)
    assert math.isnan(talk.row()["initial_rtt_us"])


def test_no_time_is_no_initial_rtt() -> None:
    """A clock of 10 ms: the next segment with ACK is taken, as in Wireshark."""
    talk = opened(step_us=0)
    talk.client.data(10)
    talk.wait(10_000)
    talk.server.ack()
    assert talk.row()["initial_rtt_us"] == 10_000.0


def test_initial_rtt_of_a_clock_set_back_is_not_known() -> None:
    talk = Conversation()
    talk.client.syn()
    talk.wait(-10_000)
    talk.server.syn_ack()
    talk.client.ack()
    talk.wait(400_000)
    talk.client.data(10)
    table = new_table()
    feed(table, talk.records)  # in their own order, not that of their times
    assert math.isnan(only_row(table)["initial_rtt_us"])
    assert counts(only_row(table), "sent", "rtt_count") == (0,)


# --- Ports used again.


@pytest.mark.parametrize("seq", [1_000, 0, 2**32 - 1])
def test_port_reuse(seq: int) -> None:
    talk = opened(client_seq=seq)
    talk.close()
    talk.client.syn(seq=seq + 5_000)
    talk.server.syn_ack(seq=9_000)
    table = new_table()
    ended = feed(table, talk.records)
    assert ended["port_reuse"].tolist() == [0]
    assert only_row(table)["port_reuse"] == 1
    assert [bool("port_reuse" in found) for found in talk.findings()] == [False] * 7 + [True, False]


@pytest.mark.parametrize(
    ("part", "number"),
    [
        (lambda talk: talk.client.syn(), 1_000),
        (lambda talk: talk.client.data(10), 999),  # one before the first number seen
        (lambda talk: talk.server.ack(), 999),  # one before what the other end acknowledged
    ],
    ids=["syn", "data", "acknowledged"],
)
@pytest.mark.parametrize("offset", [0, 1, -1, 2**31])
def test_syn_with_the_number_that_it_began_with_goes_on(part: Part, number: int, offset: int) -> None:
    talk = Conversation()
    part(talk)
    talk.client.syn(seq=number + offset)
    table = table_of(talk)
    assert len(table.take_ended()) == 0
    assert live_rows(table)["id"].tolist() == ([1] if offset == 0 else [2])


def test_syn_ack_of_another_connection_is_a_finding_but_begins_none() -> None:
    """Wireshark's; and each further copy of it is none."""
    talk = opened()
    talk.server.syn_ack(seq=77_000)
    talk.server.syn_ack(seq=77_000)
    found = talk.findings()
    assert "port_reuse" in found[3]
    assert "port_reuse" not in found[4]
    row = talk.row()
    assert (row["id"], row["port_reuse"]) == (1, 0)


# --- SACK.


def sack(end: End, *blocks: tuple[int, int], **fields: int) -> None:
    """Blocks relative to the peer's first byte."""
    base = end.peer.talk.bases[end.peer]
    padded = [*blocks, *[(0, 0)] * (3 - len(blocks))]
    end.ack(
        options=OPTION_SACK,
        sack_count=len(blocks),
        sack_left=[(base + left) % 2**32 if right else 0 for left, right in padded],
        sack_right=[(base + right) % 2**32 if right else 0 for _, right in padded],
        **fields,
    )


class Sacked(Conversation):
    """1,000 bytes from the client; the server has the first 400 of them in order."""

    def __init__(self, seq: int = 1_000) -> None:
        super().__init__(client_seq=seq, server_seq=seq)
        self.handshake()
        self.bases = {self.client: self.client.next_seq, self.server: self.server.next_seq}
        for _ in range(10):
            self.client.data(100)
        self.next = self.client.next_seq

    def report(self, *blocks: tuple[int, int]) -> None:
        sack(self.server, *blocks, ack=self.bases[self.client] + 400)


sequence_numbers = pytest.mark.parametrize("seq", [1_000, 2**32 - 451, 2**32 - 501, 2**31 - 451])


@sequence_numbers
@pytest.mark.parametrize(
    ("blocks", "duplicate"),
    [
        ([(500, 600)], False),
        ([(500, 600), (700, 800)], False),
        ([(700, 800), (500, 600)], False),
        ([(100, 200)], True),  # below the ACK
        ([(300, 400)], True),
        ([(300, 400), (500, 600)], True),
        ([(500, 550), (500, 600)], True),  # within the second block
        ([(550, 600), (500, 600)], True),
        ([(450, 550), (500, 600)], False),
    ],
)
def test_duplicate_sack(seq: int, blocks: list[tuple[int, int]], duplicate: bool) -> None:
    """RFC 2883 section 4."""
    talk = Sacked(seq)
    talk.report(*blocks)
    assert ("duplicate_sack" in talk.findings()[-1]) == duplicate
    assert counts(talk.row(), "received", "sacks", "duplicate_sacks") == (1, int(duplicate))
    assert counts(talk.row(), "sent", "sacks", "duplicate_sacks") == (0, 0)


def test_sack_permitted_is_no_sack() -> None:
    talk = Conversation()
    talk.client.syn(options=4)
    assert counts(talk.row(), "sent", "sacks") == (0,)


# --- In flight.


@sequence_numbers
@pytest.mark.parametrize(
    ("blocks", "in_flight"),
    [
        ([(500, 600)], 700 - 100),
        ([(500, 600), (700, 900)], 700 - 300),
        ([(500, 600), (700, 800), (900, 1_000)], 700 - 300),
        ([(100, 200), (500, 600)], 700 - 100),  # the first is of bytes received twice
    ],
)
def test_in_flight_without_what_sack_reports(seq: int, blocks: list[tuple[int, int]], in_flight: int) -> None:
    talk = Sacked(seq)
    talk.report(*blocks)
    talk.client.data(100)
    found = talk.all_findings()
    assert found["in_flight_bytes"].tolist() == [-1, -1, -1, *range(100, 1_001, 100), -1, in_flight]
    assert counts(talk.row(), "sent", "in_flight_bytes", "in_flight_max_bytes") == (in_flight, 1_000)


def test_sack_is_of_the_last_acknowledgment() -> None:
    talk = Sacked()
    talk.report((500, 600))
    talk.server.ack(talk.bases[talk.client] + 400)
    talk.client.data(100)
    assert talk.all_findings()["in_flight_bytes"][-1] == 700


def test_acknowledged_bytes_are_not_in_flight() -> None:
    talk = opened()
    talk.client.data(100)
    talk.client.data(200)
    talk.server.ack(talk.client.next_seq - 150)
    assert counts(talk.row(), "sent", "in_flight_bytes", "in_flight_max_bytes") == (150, 300)
    talk.server.ack()
    assert counts(talk.row(), "sent", "in_flight_bytes", "in_flight_max_bytes") == (0, 300)


def test_in_flight_is_not_known_before_the_other_ends_first_ack() -> None:
    talk = Conversation()
    talk.client.data(100)
    talk.client.data(100)
    assert talk.all_findings()["in_flight_bytes"].tolist() == [-1, -1]
    assert counts(talk.row(), "sent", "in_flight_bytes", "in_flight_max_bytes") == (-1, -1)
    talk.server.ack(talk.client.next_seq - 100)
    talk.client.data(100)
    assert counts(talk.row(), "sent", "in_flight_bytes", "in_flight_max_bytes") == (200, 200)


def test_what_was_sent_again_is_not_twice_in_flight() -> None:
    talk = opened()
    talk.client.data(100)
    talk.client.again(100)
    assert talk.all_findings()["in_flight_bytes"].tolist()[3:] == [100, 100]


# --- ECN (RFC 3168).


def test_ecn_counts_packets() -> None:
    talk = Conversation()
    talk.client.send(FLAG_SYN | FLAG_ECE | FLAG_CWR)
    talk.server.send(FLAG_SYN | FLAG_ACK | FLAG_ECE)
    talk.client.ack()
    for traffic_class in (0, 1, 2, 3, 0xFF):
        talk.client.data(100, traffic_class=traffic_class)
    talk.client.data(1_000, segments=10, traffic_class=3)
    talk.server.send(FLAG_ACK | FLAG_ECE)
    talk.client.send(FLAG_ACK | FLAG_CWR, 300, segments=3)
    row = talk.row()
    assert counts(row, "sent", "ecn_ce", "ecn_ece", "ecn_cwr") == (12, 0, 3)
    assert counts(row, "received", "ecn_ce", "ecn_ece", "ecn_cwr") == (0, 1, 0)


def test_marked_syn_counts_as_marked() -> None:
    talk = Conversation()
    talk.client.syn(traffic_class=3)
    assert counts(talk.row(), "sent", "ecn_ce", "ecn_ece", "ecn_cwr") == (1, 0, 0)


# --- Timestamp clocks (RFC 7323 section 5.4).


def stamped(ticks: list[tuple[float, int]]) -> Conversation:
    """ACKs of the client at these seconds, with these timestamps."""
    talk = Conversation(step_us=0)
    start_ns = talk.now_ns
    for seconds, value in ticks:
        talk.now_ns = start_ns + round(seconds * 1e9)
        talk.client.ack(options=OPTION_TIMESTAMPS, ts_value=value % 2**32)
    return talk


@pytest.mark.parametrize("first", [0, 2**32 - 1, 2**32 - 500, 2**31 - 500])
@pytest.mark.parametrize("hz", [1, 10, 100, 250, 1_000, 1_000_000])
def test_timestamp_clock(first: int, hz: int) -> None:
    talk = stamped([(0, first), (0.3, first), (2, first + 2 * hz)])
    assert talk.row_told()["sent"]["timestamp_hz"] == hz


@pytest.mark.parametrize(("seconds", "known"), [(0.499_999_999, False), (0.5, True)])
def test_timestamp_clock_needs_half_a_second(seconds: float, known: bool) -> None:
    row = stamped([(0, 7), (seconds, 507)]).row_told()
    assert math.isnan(row["sent"]["timestamp_hz"]) != known
    assert math.isnan(row["received"]["timestamp_hz"])


def test_timestamp_clock_goes_by_segments_with_timestamps() -> None:
    talk = stamped([(0, 1_000), (1, 2_000)])
    talk.wait(9_000_000)
    talk.client.ack()
    assert talk.row_told()["sent"]["timestamp_hz"] == 1_000


def test_a_table_shows_outcomes_only_of_what_is_refreshed() -> None:
    """They are worked out at each interval, of the connections that had a packet."""
    talk = opened()
    table: Table = table_of(talk)
    assert HANDSHAKES[only_row(table)["handshake"]] is None
    table.refresh(talk.now_ns)
    assert HANDSHAKES[only_row(table)["handshake"]] == "complete"
