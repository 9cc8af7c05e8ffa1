"""Order and loss, by the definitions of Wireshark's user's guide, chapter "TCP Analysis"."""

import pytest

from tcptrace.model import DIRECTION
from tcptrace.records import FLAG_ACK, FLAG_RST, FLAG_SYN, NOTE_FIRST_SEND, NOTE_SENT_BEFORE

from .conversation import Conversation, counts

RETRANSMISSION, OUT_OF_ORDER, DUPLICATE = {"retransmission"}, {"out_of_order"}, {"duplicate_ack"}
FAST, SPURIOUS = RETRANSMISSION | {"fast_retransmission"}, RETRANSMISSION | {"spurious_retransmission"}
ZERO, KEEP_ALIVE, KEEP_ALIVE_ACK = {"zero_window"}, {"keep_alive"}, {"keep_alive_ack"}
PROBE, PROBE_ACK, FULL, UPDATE = {"zero_window_probe"}, {"zero_window_probe_ack"}, {"window_full"}, {"window_update"}
GAP, UNSEEN = {"previous_segment_not_captured"}, {"acked_unseen_segment"}
NOTHING: set[str] = set()
NAMES = ("retransmissions", "out_of_order", "duplicate_acks", "zero_windows", "keep_alives", "gaps")
ALL_NAMES = (
    "retransmissions",
    "retransmitted_bytes",
    "fast_retransmissions",
    "spurious_retransmissions",
    "local_drops",
    "out_of_order",
    "duplicate_acks",
    "acked_unseen_segments",
    "window_updates",
    "windows_full",
    "zero_windows",
    "zero_window_probes",
    "zero_window_probe_acks",
    "keep_alives",
    "keep_alive_acks",
    "gaps",
    "sacks",
    "duplicate_sacks",
    "ecn_ce",
    "ecn_ece",
    "ecn_cwr",
)


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
    assert counts(row, "sent", *ALL_NAMES) == counts(row, "received", *ALL_NAMES) == (0,) * len(ALL_NAMES)


def test_every_count_of_findings_is_met_here() -> None:
    names = list(DIRECTION.names or ())
    assert names[names.index("retransmissions") : names.index("rtt_stddev_us")] == list(ALL_NAMES)


# --- Sent again.


def test_retransmission() -> None:
    talk = opened()
    talk.client.data(100)
    talk.wait(200_000)
    talk.client.again(100)
    assert talk.findings()[3:] == [NOTHING, RETRANSMISSION]
    assert counts(talk.row(), "sent", "retransmissions", "retransmitted_bytes") == (1, 100)
    assert counts(talk.row(), "received", *NAMES) == (0,) * 6


@pytest.mark.parametrize(("note", "finding"), [(0, OUT_OF_ORDER), (NOTE_SENT_BEFORE, RETRANSMISSION)])
def test_bytes_seen_before_so_soon_may_have_been_overtaken(note: int, finding: set[str]) -> None:
    """They were always a retransmission; now time decides, as in Wireshark, unless the sender's socket knows better."""
    talk = opened()
    talk.client.data(100)
    talk.client.data(100)
    talk.wait(-999)
    talk.client.again(100, back=200, note=note)
    assert talk.findings()[-1] == finding


def test_bytes_that_end_at_the_next_one_were_sent_again_however_soon() -> None:
    """The newest segment cannot have been overtaken."""
    talk = opened()
    talk.client.data(100)
    talk.client.data(100)
    talk.wait(-999)
    talk.client.again(100)
    assert talk.findings()[-1] == RETRANSMISSION


def asked_again(asked: int, wait_us: float = 0, back: int = 400) -> Conversation:
    """Four segments; `asked` duplicate ACKs ask for the first; 1 ms and `wait_us` later something comes again."""
    talk = opened()
    for _ in range(4):
        talk.client.data(100)
    for _ in range(asked):
        talk.server.ack(talk.client.next_seq - 400)
    talk.wait(wait_us)
    talk.client.again(100, back=back)
    talk.server.ack()
    return talk


def test_fast_retransmission() -> None:
    """A kind of retransmission now, as in Wireshark; it counts as both."""
    talk = asked_again(4)
    assert talk.findings()[3:] == [NOTHING] * 4 + [DUPLICATE] * 4 + [FAST, NOTHING]
    row = talk.row()
    assert counts(row, "sent", "retransmissions", "retransmitted_bytes", "fast_retransmissions") == (1, 100, 1)
    assert counts(row, "sent", "spurious_retransmissions", "out_of_order") == (0, 0)


@pytest.mark.parametrize(("asked", "finding"), [(1, RETRANSMISSION), (2, FAST), (3, FAST)])
def test_two_duplicate_acks_make_it_fast(asked: int, finding: set[str]) -> None:
    """RFC 5681 asks for three; one may be missing from the trace."""
    assert asked_again(asked, wait_us=2_000).findings()[-2] == finding


@pytest.mark.parametrize(("wait_us", "finding"), [(18_999, FAST), (19_000, RETRANSMISSION)])
def test_fast_within_20_ms_of_the_last_duplicate_ack(wait_us: float, finding: set[str]) -> None:
    assert asked_again(3, wait_us).findings()[-2] == finding


def test_what_was_not_asked_for_is_not_fast() -> None:
    assert asked_again(3, wait_us=2_000, back=300).findings()[-2] == RETRANSMISSION


def test_fast_comes_before_out_of_order() -> None:
    """Duplicate ACKs ask for what then comes within a round trip."""
    talk = opened(step_us=10)
    missing = talk.client.next_seq
    talk.client.unseen(100)
    talk.client.data(100)
    talk.server.ack(missing)
    talk.server.ack(missing)
    talk.client.data(100, seq=missing)
    assert talk.findings()[-1] == FAST


def test_spurious_retransmission() -> None:
    """A kind of retransmission now: the receiver had acknowledged all of it; it counts as both."""
    talk = opened()
    talk.client.data(100)
    talk.server.ack()
    talk.client.again(100)
    assert talk.findings()[-1] == SPURIOUS
    names = ("retransmissions", "retransmitted_bytes", "spurious_retransmissions", "fast_retransmissions")
    assert counts(talk.row(), "sent", *names) == (1, 100, 1, 0)


@pytest.mark.parametrize(("back", "finding"), [(101, SPURIOUS), (100, SPURIOUS), (99, RETRANSMISSION)])
def test_spurious_only_if_all_of_it_was_acknowledged(back: int, finding: set[str]) -> None:
    talk = opened()
    talk.client.data(100)
    talk.client.data(100)
    talk.server.ack(talk.client.next_seq - 50)
    talk.wait(10_000)
    talk.client.again(50, back=back)
    assert talk.findings()[-1] == finding


def test_it_is_the_last_acknowledgment_that_makes_it_spurious() -> None:
    """Wireshark's; an older ACK may have come late."""
    talk = opened()
    talk.client.data(100)
    talk.server.ack()
    talk.server.ack(talk.client.next_seq - 100)
    talk.client.again(100)
    assert talk.findings()[-1] == RETRANSMISSION


def test_retransmission_cut_into_other_segments() -> None:
    talk = opened()
    talk.client.data(300)
    talk.wait(10_000)
    talk.client.again(150, back=300)
    talk.client.again(150, back=150)
    assert talk.findings()[4:] == [RETRANSMISSION] * 2
    assert talk.row()["sent"]["retransmitted_bytes"] == 300


def partial() -> Conversation:
    """100 bytes again, 50 new ones behind them, later than a round trip."""
    talk = opened()
    talk.client.data(100)
    talk.wait(10_000)
    talk.client.data(150, seq=talk.client.next_seq - 100)
    talk.client.data(10)
    return talk


def test_partial_retransmission() -> None:
    talk = partial()
    assert talk.findings()[3:] == [NOTHING, RETRANSMISSION, NOTHING]
    assert counts(talk.row(), "sent", "retransmissions", "payload_bytes") == (1, 260)


def test_retransmitted_bytes_are_those_sent_again() -> None:
    assert partial().row()["sent"]["retransmitted_bytes"] == 100


@pytest.mark.parametrize(("old", "packets"), [(1, 1), (99, 1), (100, 1), (101, 2), (1_000, 10)])
def test_of_a_super_packet_the_segments_with_old_bytes_count(old: int, packets: int) -> None:
    """Ten segments of 100 bytes."""
    talk = opened()
    talk.client.data(1_000, segments=10)
    talk.wait(10_000)
    talk.client.data(1_000, seq=talk.client.next_seq - old, segments=10)
    names = ("retransmissions", "retransmitted_bytes")
    # One old byte alone, before more new ones, may have been a probe of a shut window.
    assert counts(talk.row(), "sent", *names) == ((packets, old) if old > 1 else (0, 0))


def test_all_of_a_super_packet_counts_as_fast_or_spurious() -> None:
    talk = opened()
    talk.client.data(1_000, segments=10)
    for _ in range(2):
        talk.server.ack(talk.client.next_seq - 1_000)
    talk.client.again(200, back=1_000, segments=2)
    talk.server.ack()
    talk.client.again(300, back=1_000, segments=3)
    names = ("retransmissions", "retransmitted_bytes", "fast_retransmissions", "spurious_retransmissions")
    assert counts(talk.row(), "sent", *names) == (5, 500, 2, 3)


def test_more_than_one_byte_at_the_last_one_is_nothing() -> None:
    """The last byte may have been a zero-window probe, and now goes on."""
    talk = opened()
    talk.client.data(100)
    talk.wait(10_000)
    talk.client.data(100, seq=talk.client.next_seq - 1)
    assert talk.findings()[-1] == NOTHING
    assert talk.client.next_seq == 1_001 + 199


@pytest.mark.parametrize("pieces", [1, 2])
def test_local_drop(pieces: int) -> None:
    """This host's queue had refused two segments: what begins before `next` and is sent for the first time tells."""
    talk = opened()
    start = talk.client.next_seq
    talk.client.data(100, note=NOTE_FIRST_SEND)
    talk.client.data(200, note=NOTE_FIRST_SEND, segments=2)
    for piece in range(pieces):
        talk.client.data(200 // pieces, seq=start + 100 + 200 // pieces * piece, note=NOTE_FIRST_SEND)
    assert talk.findings()[3:] == [NOTHING, NOTHING, {"local_drop"}, *[NOTHING] * (pieces - 1)]
    assert counts(talk.row(), "sent", "local_drops", "retransmissions") == (2, 0)


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
    """Looks like a keep-alive, and counts as one unless the sender's own socket knows better; it gives no RTT."""
    talk = opened()
    talk.client.data(1)
    talk.client.again(1)
    talk.server.ack()
    assert talk.findings()[3:5] == [NOTHING, KEEP_ALIVE]
    assert talk.row()["sent"]["rtt_count"] == 1  # the SYN's
    known = opened()
    known.client.data(1)
    known.client.again(1, note=NOTE_SENT_BEFORE)
    assert known.findings()[3:] == [NOTHING, RETRANSMISSION]


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
    talk = Conversation()
    talk.server.window = 5_000  # not full before the end
    talk.handshake()
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
    assert talk.findings()[3:] == [GAP, UNSEEN, SPURIOUS]


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
    """What the peer acknowledges was sent; it is a finding of its own now."""
    talk = opened()
    talk.client.data(100)
    talk.client.unseen(100)
    talk.server.ack()
    talk.client.unseen(100)
    talk.client.data(100)
    assert talk.findings()[3:] == [NOTHING, UNSEEN, GAP]
    assert counts(talk.row(), "received", "acked_unseen_segments") == (1,)
    assert counts(talk.row(), "sent", "acked_unseen_segments") == (0,)


def test_gap_is_a_gap_also_when_its_ack_came_first() -> None:
    talk = opened()
    talk.client.data(100)
    talk.client.unseen(100)
    talk.server.ack()
    talk.client.data(100)
    assert talk.findings()[3:] == [NOTHING, UNSEEN, GAP]


def test_acked_hole() -> None:
    """The hole was never filled, so the receiver has what was not captured: a finding once."""
    talk = opened()
    hole = talk.client.next_seq
    talk.client.unseen(100)
    talk.client.data(100)
    talk.server.ack(hole)
    talk.server.ack()
    talk.client.data(100)
    talk.server.ack()
    assert talk.findings()[3:] == [GAP, DUPLICATE, UNSEEN, NOTHING, NOTHING]


def test_hole_that_was_filled_is_not_unseen() -> None:
    talk = opened(step_us=10)
    hole = talk.client.next_seq
    talk.client.unseen(100)
    talk.client.data(100)
    talk.client.data(100, seq=hole)
    talk.server.ack()
    assert talk.findings()[3:] == [GAP, OUT_OF_ORDER, NOTHING]


def test_silent_end_is_told_once() -> None:
    """Only one way is captured, but for a beginning: each ACK is past what was seen, and the first one says so."""
    talk = opened()
    for _ in range(3):
        talk.client.unseen(100)
        talk.server.ack()
    assert talk.findings()[3:] == [UNSEEN, NOTHING, NOTHING]


def test_silent_end_is_told_again_after_it_acknowledged_more() -> None:
    talk = opened()
    talk.client.unseen(100)
    talk.server.ack()
    talk.server.data(10)
    talk.client.ack(seq=talk.client.next_seq - 100)
    talk.client.unseen(100)
    talk.server.ack()
    talk.server.ack()
    assert talk.findings()[3:] == [UNSEEN, NOTHING, NOTHING, UNSEEN, DUPLICATE]


def test_first_segment_of_an_end_leaves_nothing_unseen() -> None:
    talk = Conversation()
    talk.server.ack()
    talk.client.data(100)
    talk.server.ack()
    assert talk.findings() == [NOTHING] * 3


def test_data_overtaken_by_its_own_ack_counts_as_spurious() -> None:
    """A tap can show the two directions out of step.  Not so where the sender's own socket sends for the first time."""
    for note, finding in ((0, SPURIOUS), (NOTE_FIRST_SEND, NOTHING)):
        talk = opened()
        talk.server.ack(talk.client.next_seq + 100)
        talk.client.data(100, note=note)
        assert talk.findings()[3:] == [UNSEEN, finding]


def test_one_wild_ack_does_not_make_all_that_follows_retransmissions() -> None:
    """RFC 9293 section 3.10.7.4: an ACK of something not yet sent is dropped."""
    talk = opened()
    talk.server.ack(talk.client.next_seq + 2**30)
    for _ in range(10):
        talk.client.data(100)
        talk.server.ack()
    assert talk.row()["sent"]["retransmissions"] == 1  # what came before the next ACK, as in Wireshark


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
    assert talk.findings()[3:] == [UPDATE, DUPLICATE, UPDATE]
    assert counts(talk.row(), "received", "window_updates", "duplicate_acks") == (2, 1)


@pytest.mark.parametrize("change", ["ack", "data", "seq", "zero", "fin"])
def test_not_a_window_update(change: str) -> None:
    """It has nothing but another window, which is open."""
    talk = opened()
    talk.client.data(100)
    talk.client.data(100)
    half = talk.client.next_seq - 100
    talk.server.ack(half)
    talk.server.window = 0 if change == "zero" else 2_000
    if change == "ack":
        talk.server.ack()
    elif change == "data":
        talk.server.data(10, ack=half)
    elif change == "seq":
        talk.server.ack(half, seq=talk.server.next_seq - 10)
    elif change == "fin":
        talk.server.fin(ack=half)
    else:
        talk.server.ack(half)
    assert "window_update" not in talk.findings()[-1]


def test_window_update_begins_no_new_count() -> None:
    """Duplicate ACKs are numbered in a row until the acknowledgment moves."""
    talk = opened()
    talk.client.data(100)
    for window in (1_000, 1_000, 900, 900):
        talk.server.ack(talk.client.next_seq - 100, window=window)
    talk.server.ack()
    talk.server.ack()
    assert talk.findings()[4:] == [DUPLICATE, DUPLICATE, UPDATE, DUPLICATE, NOTHING, DUPLICATE]
    assert talk.duplicate_ack_numbers()[4:] == [1, 2, 0, 3, 0, 1]


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
    assert talk.findings()[3:] == [ZERO, ZERO, ZERO, UPDATE]
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
    """RFC 9293 section 3.8.4: its ACK looks like a duplicate, and is none, but a finding of its own now."""
    talk = opened()
    talk.client.data(100)
    talk.server.ack()
    for _ in range(2):
        talk.wait(1_000_000)
        talk.client.data(payload, seq=talk.client.next_seq - 1)
        talk.server.ack()
    assert talk.findings()[5:] == [KEEP_ALIVE, KEEP_ALIVE_ACK] * 2
    row = talk.row()
    assert counts(row, "sent", "keep_alives", "retransmissions") == (2, 0)
    assert counts(row, "received", "duplicate_acks", "keep_alive_acks") == (0, 2)
    assert row["sent"]["payload_bytes"] == 100 + 2 * payload


def test_keep_alives_of_both_ends() -> None:
    talk = opened()
    talk.server.ack(seq=talk.server.next_seq - 1)
    talk.client.ack()
    talk.client.ack(seq=talk.client.next_seq - 1)
    talk.server.ack()
    assert talk.findings()[3:] == [KEEP_ALIVE, KEEP_ALIVE_ACK] * 2


def test_second_answer_to_a_keep_alive_is_no_duplicate_either() -> None:
    """It is the peer's last segment that counts."""
    talk = opened()
    talk.server.ack()
    talk.client.ack(seq=talk.client.next_seq - 1)
    talk.server.ack()
    talk.server.ack()
    talk.client.data(10)
    talk.server.ack(talk.client.next_seq - 10)
    assert talk.findings()[3:] == [DUPLICATE, KEEP_ALIVE, KEEP_ALIVE_ACK, KEEP_ALIVE_ACK, NOTHING, DUPLICATE]


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
    assert talk.findings()[4:] == [ZERO, *[PROBE, ZERO | PROBE_ACK] * 3, UPDATE, NOTHING]
    assert counts(talk.row(), "sent", "zero_window_probes", "retransmissions") == (3, 0)
    assert counts(talk.row(), "received", "zero_windows", "zero_window_probe_acks", "duplicate_acks") == (4, 3, 0)


def test_byte_of_a_probe_that_was_taken_counts_as_sent() -> None:
    """Else what follows it would be a gap (and is, in Wireshark)."""
    talk = opened()
    talk.client.data(100)
    talk.server.ack(window=0)
    talk.client.data(1)
    talk.server.ack(window=5_000)
    talk.client.data(100)
    assert talk.findings()[-1] == NOTHING


@pytest.mark.parametrize(("window", "payload", "back"), [(1, 1, 0), (0, 2, 0), (0, 1, 5)])
def test_not_a_probe(window: int, payload: int, back: int) -> None:
    """An open window, two bytes, or another place."""
    talk = opened()
    talk.client.data(100)
    talk.server.ack(window=window)
    talk.client.data(payload, seq=talk.client.next_seq - back)
    assert "zero_window_probe" not in talk.findings()[-1]


def test_probe_into_a_window_that_was_never_seen() -> None:
    talk = Conversation()
    talk.client.ack()
    talk.client.data(1)
    assert talk.findings() == [NOTHING, NOTHING]


def test_probe_whose_own_window_is_shut_is_a_probe_alone() -> None:
    talk = opened()
    talk.server.ack(window=0)
    talk.client.data(1, window=0)
    assert talk.findings()[3:] == [ZERO, PROBE]


@pytest.mark.parametrize(("short", "finding"), [(0, FULL), (1, NOTHING), (-1, NOTHING)])
def test_window_full(short: int, finding: set[str]) -> None:
    """The server's window of 1,000 bytes shifted by 2."""
    talk = Conversation()
    talk.handshake(client_scale=0, server_scale=2)
    talk.server.ack()
    talk.client.data(4_000 - short)
    assert talk.findings()[-1] == finding
    assert counts(talk.row(), "sent", "windows_full") == (int(short == 0),)


def test_window_of_the_syn_ack_is_not_scaled() -> None:
    talk = Conversation()
    talk.handshake(client_scale=0, server_scale=2)
    talk.client.data(1_000)
    assert talk.findings()[-1] == FULL


def test_window_that_is_not_known_is_not_full() -> None:
    """Without the SYNs its scale is not known."""
    talk = Conversation()
    talk.server.ack()
    talk.client.data(1_000)
    assert talk.findings() == [NOTHING, NOTHING]


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


@pytest.mark.parametrize("seq", [2**32 - 151, 2**32 - 101, 2**31 - 151])
def test_kinds_and_windows_wrap(seq: int) -> None:
    """Every number passes 0 somewhere between the handshake and the end."""
    talk = Conversation(client_seq=seq, server_seq=seq)
    talk.handshake()
    talk.client.data(100)
    talk.client.data(100)
    for _ in range(2):
        talk.server.ack(talk.client.next_seq - 200)
    talk.client.again(100, back=200)
    talk.server.ack()
    talk.client.again(100)
    talk.client.unseen(100)
    talk.server.ack(window=0)
    talk.client.ack()
    talk.client.data(1)
    talk.server.ack(talk.client.next_seq - 1, window=0)
    talk.server.ack(talk.client.next_seq - 1, window=300)
    talk.client.data(300, seq=talk.client.next_seq - 1)
    assert talk.findings()[3:] == [
        *[NOTHING] * 2,
        *[DUPLICATE] * 2,
        FAST,
        NOTHING,
        SPURIOUS,
        UNSEEN | ZERO,
        GAP,
        PROBE,
        UNSEEN | ZERO | PROBE_ACK,  # once more, now that the gap has shown itself
        UPDATE,
        FULL,
    ]
