"""Order and loss, by the definitions of Wireshark's user's guide, chapter "TCP Analysis"."""

import pytest

from tcptrace.records import FLAG_ACK, FLAG_RST, FLAG_SYN

from .conversation import Conversation, counts

RETRANSMISSION, OUT_OF_ORDER, DUPLICATE = {"retransmission"}, {"out_of_order"}, {"duplicate_ack"}
ZERO, KEEP_ALIVE, GAP = {"zero_window"}, {"keep_alive"}, {"previous_segment_not_captured"}
NOTHING: set[str] = set()
NAMES = ("retransmissions", "out_of_order", "duplicate_acks", "zero_windows", "keep_alives", "gaps")


def opened(**options: int) -> Conversation:
    """A handshake of 2 ms: that is how late a segment that was only overtaken may be."""
    talk = Conversation(**options)
    talk.handshake()
    return talk


def test_undisturbed_conversation_has_no_findings() -> None:
    talk = opened()
    for size in (1, 100, 1_460):
        talk.client.data(size)
        talk.server.data(size)
        talk.server.data(size)
        talk.client.ack()
    talk.close()
    assert talk.findings() == [NOTHING] * len(talk.packets)
    row = talk.row()
    assert counts(row, "sent", *NAMES) == counts(row, "received", *NAMES) == (0,) * 6


# --- Sent again.


def test_retransmission() -> None:
    talk = opened()
    talk.client.data(100)
    talk.wait(200_000)
    talk.client.again(100)
    assert talk.findings()[3:] == [NOTHING, RETRANSMISSION]
    assert counts(talk.row(), "sent", "retransmissions", "retransmitted_bytes") == (1, 100)
    assert counts(talk.row(), "received", *NAMES) == (0,) * 6


def test_bytes_seen_before_are_a_retransmission_however_soon() -> None:
    """Here Wireshark goes by time alone and may say out of order."""
    talk = opened()
    talk.client.data(100)
    talk.client.data(100)
    talk.wait(-999)
    talk.client.again(100, back=200)
    assert talk.findings()[-1] == RETRANSMISSION


def test_fast_retransmission_is_a_retransmission() -> None:
    talk = opened()
    for _ in range(4):
        talk.client.data(100)
    for _ in range(4):
        talk.server.ack(talk.client.next_seq - 400)
    talk.client.again(100, back=400)
    talk.server.ack()
    assert talk.findings()[3:] == [NOTHING] * 4 + [DUPLICATE] * 4 + [RETRANSMISSION, NOTHING]


def test_spurious_retransmission_is_a_retransmission() -> None:
    talk = opened()
    talk.client.data(100)
    talk.server.ack()
    talk.client.again(100)
    assert talk.findings()[-1] == RETRANSMISSION


def test_retransmission_cut_into_other_segments() -> None:
    talk = opened()
    talk.client.data(300)
    talk.client.again(150, back=300)
    talk.client.again(150, back=150)
    assert talk.findings()[4:] == [RETRANSMISSION] * 2
    assert talk.row()["sent"]["retransmitted_bytes"] == 300


def partial() -> Conversation:
    """100 bytes again, 50 new ones behind them."""
    talk = opened()
    talk.client.data(100)
    talk.client.data(150, seq=talk.client.next_seq - 100)
    talk.client.data(10)
    return talk


def test_partial_retransmission() -> None:
    talk = partial()
    assert talk.findings()[3:] == [NOTHING, RETRANSMISSION, NOTHING]
    assert counts(talk.row(), "sent", "retransmissions", "payload_bytes") == (1, 260)


def test_retransmitted_bytes_are_those_sent_again() -> None:
    assert partial().row()["sent"]["retransmitted_bytes"] == 100


def test_retransmission_of_syn_and_syn_ack() -> None:
    talk = Conversation()
    talk.client.syn()
    talk.client.syn(seq=1_000)
    talk.server.syn_ack()
    talk.server.syn_ack(seq=5_000)
    talk.client.ack()
    assert talk.findings() == [NOTHING, RETRANSMISSION, NOTHING, RETRANSMISSION, NOTHING]
    assert talk.row()["sent"]["retransmitted_bytes"] == 0


def test_retransmission_of_fin() -> None:
    talk = opened()
    talk.client.fin()
    talk.client.fin(seq=talk.client.next_seq - 1)
    assert talk.findings()[3:] == [NOTHING, RETRANSMISSION]


def test_retransmission_of_one_byte() -> None:
    """Looks like a keep-alive, but the byte waits for its ACK."""
    talk = opened()
    talk.client.data(1)
    talk.client.again(1)
    assert talk.findings()[3:] == [NOTHING, RETRANSMISSION]


def test_reset_is_no_retransmission() -> None:
    talk = opened()
    talk.client.data(100)
    talk.client.send(FLAG_RST | FLAG_ACK, seq=talk.client.next_seq - 100)
    assert talk.findings()[-1] == NOTHING


# --- Overtaken.


def overtaken(late_us: float, **options: int) -> Conversation:
    """The second segment first, the first one `late_us` behind it."""
    talk = opened(**options)
    first = talk.client.next_seq
    talk.client.unseen(100)
    talk.client.data(100)
    talk.wait(late_us - talk.step_us)
    talk.client.data(100, seq=first)
    return talk


@pytest.mark.parametrize("late_us", [1, 1_000, 1_999])
def test_out_of_order_within_a_round_trip(late_us: float) -> None:
    talk = overtaken(late_us)
    assert talk.findings()[3:] == [GAP, OUT_OF_ORDER]
    assert counts(talk.row(), "sent", "out_of_order", "retransmissions", "retransmitted_bytes", "gaps") == (1, 0, 0, 1)


@pytest.mark.parametrize("late_us", [2_000, 10_000])
def test_retransmission_after_a_round_trip(late_us: float) -> None:
    """The first copy was lost before the capture: too late for having been overtaken."""
    talk = overtaken(late_us)
    assert talk.findings()[3:] == [GAP, RETRANSMISSION]
    assert talk.row()["sent"]["retransmitted_bytes"] == 100


@pytest.mark.parametrize(("late_us", "finding"), [(2_999, OUT_OF_ORDER), (3_000, RETRANSMISSION)])
def test_three_milliseconds_where_the_round_trip_is_not_known(late_us: float, finding: set[str]) -> None:
    talk = Conversation()
    talk.client.data(100)
    first = talk.client.next_seq
    talk.client.unseen(100)
    talk.client.data(100)
    talk.wait(late_us - talk.step_us)
    talk.client.data(100, seq=first)
    assert talk.findings()[1:] == [GAP, finding]


def test_hole_filled_bit_by_bit() -> None:
    """From the middle, the left and the right: each byte once, so nothing was sent again; the second time it was."""
    talk = opened(step_us=100)
    hole = talk.client.next_seq
    talk.client.unseen(400)
    talk.client.data(100)
    for offset in (100, 0, 300, 200):
        talk.client.data(100, seq=hole + offset)
    for offset in (100, 0, 300, 200):
        talk.client.data(100, seq=hole + offset)
    found = talk.findings()
    assert found[3] == GAP
    # The handshake took 200 us: the third piece is already late.
    assert found[4:8] == [OUT_OF_ORDER, RETRANSMISSION, RETRANSMISSION, RETRANSMISSION]
    assert found[8:] == [RETRANSMISSION] * 4


def test_several_holes() -> None:
    talk = opened()
    talk.wait(-1)
    talk.step_us = 10
    holes = []
    for _ in range(5):
        holes.append(talk.client.next_seq)
        talk.client.unseen(100)
        talk.client.data(100)
    for hole in (holes[2], holes[0], holes[4], holes[3], holes[1]):
        talk.client.data(100, seq=hole)
    assert talk.findings()[3:] == [GAP] * 5 + [OUT_OF_ORDER] * 5
    talk.client.again(1_000)
    assert talk.findings()[-1] == RETRANSMISSION


def test_hole_that_was_acknowledged_is_filled_by_a_retransmission() -> None:
    """The receiver had it, so what comes now is a second copy."""
    talk = opened(step_us=10)
    hole = talk.client.next_seq
    talk.client.unseen(100)
    talk.client.data(100)
    talk.server.ack()
    talk.client.data(100, seq=hole)
    assert talk.findings()[-1] == RETRANSMISSION


def test_more_holes_than_are_followed_count_as_retransmissions() -> None:
    talk = opened(step_us=1)
    holes = []
    for _ in range(100):
        holes.append(talk.client.next_seq)
        talk.client.unseen(10)
        talk.client.data(10)
    talk.step_us = 0
    for hole in holes:
        talk.client.data(10, seq=hole)
    row = talk.row()
    assert counts(row, "sent", "packets", "gaps") == (202, 100)
    assert row["sent"]["retransmissions"] + row["sent"]["out_of_order"] == 100


# --- Not captured.


def test_previous_segment_not_captured() -> None:
    talk = opened()
    talk.client.unseen(100)
    talk.client.data(100)
    talk.client.data(100)
    assert talk.findings()[3:] == [GAP, NOTHING]
    assert talk.row()["sent"]["gaps"] == 1


def test_first_segment_of_an_end_has_no_previous_one() -> None:
    talk = Conversation()
    talk.client.data(100)
    talk.server.data(100)
    assert talk.findings() == [NOTHING, NOTHING]


def test_pure_ack_beyond_the_next_byte_shows_a_gap() -> None:
    """Wireshark compares the sequence number of any segment but a reset."""
    talk = opened()
    talk.client.unseen(100)
    talk.client.ack()
    assert talk.findings()[3:] == [GAP]


def test_acked_unseen_segment() -> None:
    """What the peer acknowledges was sent; the data that follows it is neither late nor early."""
    talk = opened()
    talk.client.data(100)
    talk.client.unseen(100)
    talk.server.ack()
    talk.client.unseen(100)
    talk.client.data(100)
    assert talk.findings()[3:] == [NOTHING, NOTHING, GAP]


def test_gap_is_a_gap_also_when_its_ack_came_first() -> None:
    """Wireshark: ACKed unseen segment, then previous segment not captured."""
    talk = opened()
    talk.client.data(100)
    talk.client.unseen(100)
    talk.server.ack()
    talk.client.data(100)
    assert talk.findings()[3:] == [NOTHING, NOTHING, GAP]


def test_data_overtaken_by_its_own_ack_was_not_sent_again() -> None:
    """A tap can show the two directions out of step."""
    talk = opened()
    talk.server.ack(talk.client.next_seq + 100)
    talk.client.data(100)
    assert talk.findings()[3:] == [NOTHING, NOTHING]


def test_one_wild_ack_does_not_make_all_that_follows_retransmissions() -> None:
    """RFC 9293 section 3.10.7.4: an ACK of something not yet sent is dropped."""
    talk = opened()
    talk.server.ack(talk.client.next_seq + 2**30)
    for _ in range(10):
        talk.client.data(100)
        talk.server.ack()
    assert talk.row()["sent"]["retransmissions"] == 0


# --- Duplicate ACKs.


def test_duplicate_acks() -> None:
    talk = opened()
    talk.client.data(100)
    talk.server.ack()
    for _ in range(3):
        talk.server.ack()
    assert talk.findings()[4:] == [NOTHING] + [DUPLICATE] * 3
    assert counts(talk.row(), "received", "duplicate_acks") == (3,)
    assert counts(talk.row(), "sent", "duplicate_acks") == (0,)


@pytest.mark.parametrize("change", ["window", "ack", "data", "seq", "fin", "rst"])
def test_not_a_duplicate_ack(change: str) -> None:
    """The window moved, more was acknowledged, it carries data, or comes at another place."""
    talk = opened()
    talk.client.data(100)
    talk.client.data(100)
    talk.server.ack(talk.client.next_seq - 100)
    if change == "window":
        talk.server.ack(talk.client.next_seq - 100, window=999)
    elif change == "ack":
        talk.server.ack()
    elif change == "data":
        talk.server.data(10, ack=talk.client.next_seq - 100)
    elif change == "seq":
        talk.server.ack(talk.client.next_seq - 100, seq=talk.server.next_seq - 10)
    elif change == "fin":
        talk.server.fin(ack=talk.client.next_seq - 100)
    else:
        talk.server.rst(ack=talk.client.next_seq - 100)
    assert "duplicate_ack" not in talk.findings()[-1]


def test_window_update_is_the_measure_of_the_next_duplicate() -> None:
    talk = opened()
    talk.server.ack(window=999)
    talk.server.ack(window=999)
    talk.server.ack(window=1_000)
    assert talk.findings()[3:] == [NOTHING, DUPLICATE, NOTHING]


def test_first_ack_of_an_end_is_no_duplicate() -> None:
    talk = Conversation()
    talk.client.ack()
    talk.server.ack()
    assert talk.findings() == [NOTHING, NOTHING]


# --- Zero window, keep-alive.


def test_zero_window() -> None:
    talk = opened()
    talk.server.ack(window=0)
    talk.server.ack(window=0)
    talk.server.data(10, window=0)
    talk.server.ack(window=10)
    assert talk.findings()[3:] == [ZERO, ZERO, ZERO, NOTHING]
    assert counts(talk.row(), "received", "zero_windows", "duplicate_acks") == (3, 0)


def test_zero_window_on_syn_fin_and_reset_does_not_count() -> None:
    talk = Conversation()
    talk.client.window = talk.server.window = 0
    talk.client.syn()
    talk.server.syn_ack()
    talk.client.fin()
    talk.client.rst()
    assert talk.findings() == [NOTHING] * 4


@pytest.mark.parametrize("payload", [0, 1])
def test_keep_alive_and_its_ack(payload: int) -> None:
    """RFC 9293 section 3.8.4: the ACK of a keep-alive looks like a duplicate, and is none."""
    talk = opened()
    talk.client.data(100)
    talk.server.ack()
    for _ in range(2):
        talk.wait(1_000_000)
        talk.client.data(payload, seq=talk.client.next_seq - 1)
        talk.server.ack()
    assert talk.findings()[5:] == [KEEP_ALIVE, NOTHING] * 2
    row = talk.row()
    assert counts(row, "sent", "keep_alives", "retransmissions") == (2, 0)
    assert counts(row, "received", "duplicate_acks") == (0,)
    assert row["sent"]["payload_bytes"] == 100 + 2 * payload


def test_keep_alives_of_both_ends() -> None:
    talk = opened()
    talk.server.ack(seq=talk.server.next_seq - 1)
    talk.client.ack()
    talk.client.ack(seq=talk.client.next_seq - 1)
    talk.server.ack()
    assert talk.findings()[3:] == [KEEP_ALIVE, NOTHING, KEEP_ALIVE, NOTHING]


def test_second_answer_to_a_keep_alive_is_no_duplicate_either() -> None:
    """It is the peer's last segment that counts."""
    talk = opened()
    talk.server.ack()
    talk.client.ack(seq=talk.client.next_seq - 1)
    talk.server.ack()
    talk.server.ack()
    talk.client.data(10)
    talk.server.ack(talk.client.next_seq - 10)
    assert talk.findings()[3:] == [DUPLICATE, KEEP_ALIVE, NOTHING, NOTHING, NOTHING, DUPLICATE]


@pytest.mark.parametrize("flags", [FLAG_SYN | FLAG_ACK, FLAG_RST])
def test_keep_alive_has_neither_syn_nor_reset(flags: int) -> None:
    talk = opened()
    talk.client.send(flags, seq=talk.client.next_seq - 1)
    assert "keep_alive" not in talk.findings()[-1]


def test_probe_of_a_zero_window_does_not_count_as_sent() -> None:
    """RFC 9293 section 3.8.6.1: one byte past the window, again and again.  "ZeroWindowProbe", no retransmission."""
    talk = opened()
    talk.client.data(100)
    talk.server.ack(window=0)
    next_seq = talk.client.next_seq
    for _ in range(3):
        talk.client.data(1, seq=next_seq)
        talk.server.ack(next_seq, window=0)
    talk.server.ack(next_seq, window=5_000)
    talk.client.data(500, seq=next_seq)
    assert talk.row()["sent"]["retransmissions"] == 0


def test_linux_probes_a_zero_window_like_a_keep_alive() -> None:
    talk = opened()
    talk.client.data(100)
    talk.server.ack(window=0)
    for _ in range(2):
        talk.client.ack(seq=talk.client.next_seq - 1)
        talk.server.ack(window=0)
    assert talk.findings()[5:] == [KEEP_ALIVE, ZERO] * 2


# --- Wrap.


@pytest.mark.parametrize("seq", [2**32 - 151, 2**31 - 151, 2**32 - 1])
def test_sequence_numbers_wrap(seq: int) -> None:
    talk = Conversation(client_seq=seq)
    talk.handshake()
    for _ in range(3):
        talk.client.data(100)
    talk.client.again(300)
    hole = talk.client.next_seq
    talk.client.unseen(50)
    talk.client.data(50)
    talk.client.data(50, seq=hole)
    talk.server.ack()
    talk.server.ack()
    talk.client.ack(seq=talk.client.next_seq - 1)
    found = talk.findings()[3:]
    assert found == [NOTHING] * 3 + [RETRANSMISSION, GAP, OUT_OF_ORDER, NOTHING, DUPLICATE, KEEP_ALIVE]
