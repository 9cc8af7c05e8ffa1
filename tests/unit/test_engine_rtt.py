"""Round-trip times: the handshake's, and that of data until the ACK that covers it."""

import itertools
import math
import statistics

import numpy as np
import pytest

from tcptrace.records import FLAG_ACK, FLAG_SYN, NOTE_SENT_BEFORE

from .conversation import Conversation, counts, only_row, table_of

MANY = 3_000_000_000
"""A sequence number past the middle, where signed and unsigned part ways."""


def samples(talk: Conversation, direction: str = "sent") -> tuple[int, float]:
    """How many, and the last one."""
    return counts(talk.row(), direction, "rtt_count", "rtt_last_us")


def opened(**options: int) -> Conversation:
    """After the handshake, which gives each direction one sample."""
    talk = Conversation(**options)
    talk.handshake()
    return talk


# --- Handshake.


def test_handshake_rtt_is_from_the_syn_to_the_ack_of_the_syn_ack() -> None:
    talk = Conversation(step_us=0)
    talk.client.syn()
    talk.wait(30_000)
    talk.server.syn_ack()
    talk.wait(50)
    talk.client.ack()
    row = talk.row()
    assert row["handshake_rtt_us"] == 30_050.0
    assert counts(row, "sent", "rtt_count", "rtt_last_us") == (1, 30_000.0)
    assert counts(row, "received", "rtt_count", "rtt_last_us") == (1, 50.0)


def test_handshake_may_end_with_data() -> None:
    talk = Conversation()
    talk.client.syn()
    talk.server.syn_ack()
    talk.client.data(100)
    assert talk.row()["handshake_rtt_us"] == 2_000.0


@pytest.mark.parametrize("twice", ["syn", "syn_ack"])
def test_no_handshake_rtt_when_a_syn_was_sent_twice(twice: str) -> None:
    talk = Conversation()
    talk.client.syn()
    if twice == "syn":
        talk.client.syn(seq=1_000)
    talk.server.syn_ack()
    if twice == "syn_ack":
        talk.server.syn_ack(seq=5_000)
    talk.client.ack()
    row = talk.row()
    assert math.isnan(row["handshake_rtt_us"])
    assert row["sent" if twice == "syn" else "received"]["rtt_count"] == 0


@pytest.mark.parametrize("missing", ["syn", "syn_ack"])
def test_no_handshake_rtt_without_both_syns(missing: str) -> None:
    talk = Conversation()
    if missing == "syn":
        talk.client.unseen(1)
        talk.server.syn_ack()
    else:
        talk.client.syn()
        talk.server.unseen(1)
    talk.client.ack()
    talk.client.data(10)
    talk.server.ack()
    assert math.isnan(talk.row()["handshake_rtt_us"])


def test_handshake_rtt_wraps() -> None:
    talk = Conversation(client_seq=2**32 - 1, server_seq=2**32 - 1)
    talk.handshake()
    assert talk.row()["handshake_rtt_us"] == 2_000.0


# --- Data.


def test_data_until_its_ack() -> None:
    talk = opened()
    talk.client.data(100)
    talk.wait(19_000)
    talk.server.ack()
    assert samples(talk) == (2, 20_000.0)
    talk.server.data(100)
    talk.wait(2_000)
    talk.client.ack()
    assert samples(talk, "received") == (2, 3_000.0)
    assert samples(talk) == (2, 20_000.0)


def test_ack_may_ride_on_data() -> None:
    talk = opened()
    talk.client.data(100)
    talk.server.data(100)
    talk.client.data(100)
    assert samples(talk) == (2, 1_000.0)
    assert samples(talk, "received") == (2, 1_000.0)


def test_delayed_ack_counts_from_the_newest_segment_it_covers() -> None:
    talk = opened()
    talk.client.data(100)
    talk.wait(10_000)
    talk.client.data(100)
    talk.wait(4_000)
    talk.server.ack()
    assert samples(talk) == (2, 5_000.0)


def test_each_segment_gives_a_sample_when_each_is_acknowledged() -> None:
    talk = opened()
    for _ in range(3):
        talk.client.data(100)
    for covered in (200, 100, 0):
        talk.server.ack(talk.client.next_seq - covered)
    assert samples(talk) == (4, 3_000.0)


def test_ack_inside_a_segment_gives_no_sample_for_it() -> None:
    talk = opened()
    talk.client.data(100)
    talk.server.ack(talk.client.next_seq - 1)
    assert samples(talk)[0] == 1
    talk.server.ack()
    assert samples(talk) == (2, 2_000.0)


def test_repeated_acks_give_no_sample() -> None:
    talk = opened()
    talk.client.data(100)
    talk.server.ack()
    talk.server.ack()
    talk.server.data(10)
    assert samples(talk)[0] == 2


def test_old_ack_gives_no_sample() -> None:
    talk = opened()
    talk.client.data(100)
    talk.client.data(100)
    talk.server.ack()
    talk.server.ack(talk.client.next_seq - 100)
    assert samples(talk)[0] == 2


def test_fin_gives_a_sample() -> None:
    talk = opened()
    talk.client.fin()
    talk.wait(6_000)
    talk.server.ack()
    assert samples(talk) == (2, 7_000.0)


def test_pure_acks_and_keep_alives_are_not_measured() -> None:
    talk = opened()
    talk.client.ack()
    talk.client.ack(seq=talk.client.next_seq - 1)
    talk.wait(40_000)
    talk.server.ack()
    assert samples(talk)[0] == 1


def test_middle_of_a_connection() -> None:
    talk = Conversation()
    talk.client.data(100)
    talk.server.ack()
    talk.client.data(100)
    talk.server.ack()
    assert samples(talk) == (2, 1_000.0)


def test_connection_that_never_acknowledges() -> None:
    talk = opened()
    for _ in range(5):
        talk.client.data(100, ack=5_001)
    assert samples(talk)[0] == 1


# --- Karn's algorithm (RFC 6298 section 3).


def test_no_sample_from_a_retransmitted_segment() -> None:
    talk = opened()
    talk.client.data(100)
    talk.client.again(100)
    talk.server.ack()
    assert samples(talk)[0] == 1
    talk.client.data(100)
    talk.server.ack()
    assert samples(talk) == (2, 1_000.0)


def test_no_sample_when_an_ack_covers_old_and_retransmitted() -> None:
    """The receiver had the rest already: its ACK waited for what was missing."""
    talk = opened()
    for _ in range(4):
        talk.client.data(100)
    talk.wait(50_000)
    talk.client.again(100, back=400)
    talk.server.ack()
    assert samples(talk)[0] == 1


def test_no_sample_of_what_was_under_way_during_a_retransmission() -> None:
    """Two holes at the receiver: the first ACK ends at the second one, the next ACK waited for that."""
    talk = opened()
    for _ in range(4):
        talk.client.data(100)
    talk.client.again(100, back=400)
    talk.client.again(100, back=200)
    talk.server.ack(talk.client.next_seq - 200)
    talk.wait(100_000)
    talk.server.ack()
    assert samples(talk)[0] == 1


def test_lower_range_sent_again_later_keeps_the_higher_one_out() -> None:
    talk = opened()
    for _ in range(4):
        talk.client.data(100)
    talk.client.again(100, back=200)
    talk.client.again(100, back=400)
    talk.server.ack(talk.client.next_seq - 300)
    talk.wait(100_000)
    talk.server.ack(talk.client.next_seq - 100)
    assert samples(talk)[0] == 1


def test_no_sample_when_an_ack_covers_a_hole_filled_late() -> None:
    """Near the receiver the first copy is never seen; what followed was acknowledged only after the second."""
    talk = opened()
    missing = talk.client.next_seq
    talk.client.unseen(100)
    talk.client.data(100)
    talk.client.data(100)
    talk.server.ack(missing)
    talk.wait(80_000)
    talk.client.data(100, seq=missing)
    talk.server.ack()
    assert samples(talk)[0] == 1


def test_segment_that_is_partly_new_gives_no_sample() -> None:
    talk = opened()
    talk.client.data(100)
    talk.client.data(200, seq=talk.client.next_seq - 100)
    talk.server.ack()
    assert samples(talk)[0] == 1


def test_ack_of_what_was_not_captured_gives_no_sample() -> None:
    talk = opened()
    talk.client.data(100)
    talk.client.unseen(100)
    talk.server.ack()
    assert samples(talk)[0] == 1


def test_retransmission_after_the_ack_spoils_nothing_later() -> None:
    talk = opened()
    talk.client.data(100)
    talk.server.ack()
    talk.client.again(100)
    talk.server.ack()
    talk.client.data(100)
    talk.server.ack()
    assert samples(talk) == (3, 1_000.0)


# --- Statistics.

ROUND_TRIPS_US = [10_000.0, 12_500.0, 9_000.25, 30_000.0, 11_000.0, 11_000.0, 250.5, 1_000_000.0, 8.0]


def test_statistics_against_the_definitions() -> None:
    talk = Conversation(step_us=0)
    for rtt_us in ROUND_TRIPS_US:
        talk.client.data(100)
        talk.wait(rtt_us)
        talk.server.ack()
    row = talk.row()
    smoothed, jitter = ROUND_TRIPS_US[0], 0.0  # RFC 6298 section 2, RFC 3550 section 6.4.1
    for before, now in itertools.pairwise(ROUND_TRIPS_US):
        smoothed = smoothed * 7 / 8 + now / 8
        jitter = jitter + (abs(now - before) - jitter) / 16
    names = ("rtt_count", "rtt_last_us", "rtt_min_us", "rtt_max_us", "rtt_mean_us", "rtt_smoothed_us", "rtt_jitter_us")
    assert counts(row, "sent", *names) == pytest.approx(
        (
            len(ROUND_TRIPS_US),
            ROUND_TRIPS_US[-1],
            min(ROUND_TRIPS_US),
            max(ROUND_TRIPS_US),
            statistics.fmean(ROUND_TRIPS_US),
            smoothed,
            jitter,
        )
    )


def test_one_sample_has_no_jitter_yet() -> None:
    talk = Conversation()
    talk.client.data(100)
    talk.server.ack()
    row = talk.row()
    assert counts(row, "sent", "rtt_min_us", "rtt_max_us", "rtt_mean_us", "rtt_smoothed_us") == (1_000.0,) * 4
    assert math.isnan(row["sent"]["rtt_jitter_us"])


@pytest.mark.parametrize("seq", [2**32 - 350, 2**31 - 350, MANY])
def test_sequence_numbers_wrap(seq: int) -> None:
    talk = Conversation(client_seq=seq, server_seq=seq)
    talk.handshake()
    for size in (100, 200, 300, 400):
        talk.client.data(size)
        talk.server.data(size)
        talk.client.ack()
        talk.server.ack()
    row = only_row(table_of(talk))
    for direction in ("sent", "received"):
        assert counts(row, direction, "rtt_count", "rtt_max_us", "retransmissions", "gaps") == (5, 1_000.0, 0, 0)


def test_long_transfer_wraps_more_than_once() -> None:
    talk = Conversation()
    talk.handshake()
    size = 2**30
    for _ in range(9):
        talk.client.data(size)
        talk.server.ack()
    row = talk.row()
    assert counts(row, "sent", "payload_bytes", "rtt_count", "retransmissions", "gaps") == (9 * size, 10, 0, 0)
    assert not np.isnan(row["handshake_rtt_us"])


# --- What the capture, not the network, did to the order.


def test_bytes_acknowledged_before_those_that_came_late_have_a_sample() -> None:
    """The ACK of the first segment waited for nothing; that of the others waited for the one overtaken."""
    talk = opened()
    first = talk.client.next_seq
    talk.client.data(100)
    talk.client.unseen(100)
    talk.client.data(100)
    talk.client.data(100, seq=first + 100)
    talk.server.ack(ack=first + 100)
    assert samples(talk) == (2, 3_000.0)
    talk.server.ack(ack=first + 200)
    assert samples(talk) == (3, 2_000.0)
    talk.server.ack(ack=first + 300)
    assert samples(talk) == (3, 2_000.0)


def twice_captured(**changed: int) -> Conversation:
    """A mirror port copies every packet on its way in and on its way out, 10 us apart; `changed` in the copies."""
    talk = Conversation(step_us=0)
    for end, flags, payload, pause_us in [
        (talk.client, FLAG_SYN, 0, 30_000),
        (talk.server, FLAG_SYN | FLAG_ACK, 0, 50),
        (talk.client, FLAG_ACK, 0, 0),
        (talk.client, FLAG_ACK, 100, 31_000),
        (talk.server, FLAG_ACK, 0, 1_000),
        (talk.server, FLAG_ACK, 200, 70),
        (talk.client, FLAG_ACK, 0, 0),
    ]:
        seq = end.next_seq
        end.send(flags, payload, ip_id=7)
        talk.wait(10)
        end.send(flags, payload, **{"ip_id": 7, "seq": seq, **changed})
        talk.wait(pause_us)
    return talk


def test_packets_captured_twice_keep_their_round_trip_times() -> None:
    row = twice_captured().row()
    assert row["handshake_rtt_us"] == 30_010.0 + 60.0
    assert counts(row, "sent", "retransmissions", "rtt_count", "rtt_min_us", "rtt_max_us") == (2, 2, 30_010, 31_010)
    assert counts(row, "received", "retransmissions", "rtt_count", "rtt_min_us", "rtt_max_us") == (2, 2, 60, 80)


@pytest.mark.parametrize("changed", [{"ip_id": 8}, {"note": NOTE_SENT_BEFORE}])
def test_another_packet_with_the_same_bytes_was_sent_again(changed: dict[str, int]) -> None:
    row = twice_captured(**changed).row()
    assert math.isnan(row["handshake_rtt_us"])
    assert (row["sent"]["rtt_count"], row["received"]["rtt_count"]) == (0, 0)
