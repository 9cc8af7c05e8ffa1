"""Percentiles and standard deviation of round-trip times: exact ranks, values to 0.4 %."""

import math
import statistics

import numpy as np
import pytest

from tcptrace.records import FLAG_ACK, PACKET_RECORD

from .conversation import Conversation, counts, live_rows, new_table, raw_address

PERCENTILES = ("rtt_p50_us", "rtt_p90_us", "rtt_p99_us")
ACCURACY = 1 / 256


def measured(*round_trips_us: float) -> Conversation:
    """One sample each of what the client sends."""
    talk = Conversation(step_us=0)
    for rtt_us in round_trips_us:
        talk.client.data(100)
        talk.wait(rtt_us)
        talk.server.ack()
    return talk


@pytest.mark.parametrize(
    ("round_trips_us", "expected"),
    [
        ([7_000.0], (7_000.0, 7_000.0, 7_000.0)),
        ([7_000.0, 9_000.0], (8_000.0, 9_000.0, 9_000.0)),
        ([9_000.0, 1_000.0, 5_000.0], (5_000.0, 9_000.0, 9_000.0)),
        ([4_000.0, 1_000.0, 2_000.0, 3_000.0], (2_500.0, 4_000.0, 4_000.0)),
        ([100.0 * n for n in range(10, 0, -1)], (550.0, 900.0, 1_000.0)),
        ([10.0 * n for n in range(1, 101)], (505.0, 900.0, 990.0)),
        ([10.0 * n for n in range(1, 201)], (1_005.0, 1_800.0, 1_980.0)),
        ([0.0, 0.0, 0.0], (0.0, 0.0, 0.0)),
        ([0.001 * n for n in range(100)], (0.0495, 0.089, 0.098)),  # single nanoseconds
        ([1e12], (1e12, 1e12, 1e12)),  # twelve days
    ],
)
def test_percentiles(round_trips_us: list[float], expected: tuple[float, ...]) -> None:
    """The smallest value that as many percent are not above; the 50th is the mean of the two in the middle."""
    row = measured(*round_trips_us).row_told()
    assert counts(row, "sent", *PERCENTILES) == pytest.approx(expected, rel=ACCURACY)
    assert row["sent"]["rtt_count"] == len(round_trips_us)


def test_first_and_last_rank_are_exact() -> None:
    row = measured(12_345.678, 98_765.432).row_told()
    assert row["sent"]["rtt_p50_us"] == (12_345.678 + 98_765.432) / 2
    assert row["sent"]["rtt_p90_us"] == row["sent"]["rtt_p99_us"] == 98_765.432


@pytest.mark.parametrize("direction", ["sent", "received"])
def test_without_samples_nothing_is_known(direction: str) -> None:
    talk = Conversation()
    talk.client.data(100)
    assert all(math.isnan(value) for value in counts(talk.row_told(), direction, *PERCENTILES, "rtt_stddev_us"))


def test_standard_deviation_is_that_of_a_sample() -> None:
    round_trips_us = [10_000.0, 12_500.0, 9_000.25, 30_000.0, 11_000.0, 250.5, 1_000_000.0, 8.0]
    row = measured(*round_trips_us).row_told()
    assert row["sent"]["rtt_stddev_us"] == pytest.approx(statistics.stdev(round_trips_us))


def test_standard_deviation_of_large_values_near_each_other() -> None:
    """Sums of squares would lose all of it."""
    row = measured(*[1e9 + n % 2 for n in range(1_000)]).row_told()
    assert row["sent"]["rtt_stddev_us"] == pytest.approx(statistics.stdev([n % 2 for n in range(1_000)]), rel=1e-6)


def test_one_sample_has_no_standard_deviation() -> None:
    assert math.isnan(measured(5_000.0).row_told()["sent"]["rtt_stddev_us"])


def test_directions_have_percentiles_of_their_own() -> None:
    talk = Conversation(step_us=0)
    for rtt_us in (1_000.0, 2_000.0, 3_000.0):
        talk.client.data(10)
        talk.wait(rtt_us)
        talk.server.data(10)
        talk.wait(100 * rtt_us)
        talk.client.ack()
    row = talk.row_told()
    assert row["sent"]["rtt_p50_us"] == pytest.approx(2_000.0, rel=ACCURACY)
    assert row["received"]["rtt_p50_us"] == pytest.approx(200_000.0, rel=ACCURACY)


def many(rtts_ns: np.ndarray) -> np.ndarray:
    """One sample after the other of what the client sends, as records: a Conversation would take minutes."""
    records = np.zeros((len(rtts_ns), 2), PACKET_RECORD)
    data, ack = records[:, 0], records[:, 1]
    data["time_ns"] = np.cumsum(rtts_ns) - rtts_ns + 10**9
    ack["time_ns"] = data["time_ns"] + rtts_ns
    for sent, here, there in ((data, "src", "dst"), (ack, "dst", "src")):
        sent[f"{here}_addr"], sent[f"{there}_addr"] = raw_address("10.0.0.1"), raw_address("10.0.0.2")
        sent[f"{here}_port"], sent[f"{there}_port"] = 40_000, 443
    data["seq"], data["payload_bytes"] = 100 * np.arange(len(rtts_ns)), 100
    ack["ack"] = data["seq"] + 100
    records["flags"], records["segments"], records["frame_bytes"], records["ip_version"] = FLAG_ACK, 1, 54, 4
    return records.reshape(-1)


@pytest.mark.parametrize("times", [254, 255, 256, 65_534, 65_535, 65_536])
@pytest.mark.parametrize("more_of", [2_000, 3_000])
def test_a_count_outgrows_a_byte_and_two(times: int, more_of: int) -> None:
    """One sample more decides which of two values is in the middle."""
    records = many(np.array([2_000_000, 3_000_000] * times + [more_of * 1_000]))
    table = new_table()
    assert table.process(records) == len(records)
    table.refresh(10**15)
    [row] = live_rows(table)
    assert row["sent"]["rtt_count"] == 2 * times + 1
    assert row["sent"]["rtt_p50_us"] == pytest.approx(more_of, rel=ACCURACY)
    assert (row["sent"]["rtt_min_us"], row["sent"]["rtt_max_us"]) == (2_000, 3_000)
