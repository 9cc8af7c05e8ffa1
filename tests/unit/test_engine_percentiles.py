"""Percentiles and standard deviation of round-trip times: exact ranks, values to 0.4 %."""

import math
import statistics

import pytest

from .conversation import Conversation, counts

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
