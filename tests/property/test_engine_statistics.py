"""Percentiles against numpy, memory in the face of hostile round-trip times, and what must not change any result."""

import random
import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcptrace.engine.table import Table
from tcptrace.model import FINDING
from tcptrace.records import FLAG_ACK, PACKET_RECORD

from ..unit.conversation import Conversation, live_rows, new_table, plain, raw_address
from .stacks import conversation
from .wireshark import merge, records_of

ACCURACY = 0.004
LONGEST_NS = 10**15

round_trips = st.one_of(
    st.lists(st.integers(0, LONGEST_NS), min_size=1, max_size=150),
    st.lists(st.integers(0, 1_000), min_size=1, max_size=150),
    st.lists(st.integers(10_000_000, 11_000_000), min_size=1, max_size=150),
    st.lists(st.sampled_from([0, 1, 127, 128, 255, 256, 2**32 - 1, 2**32, LONGEST_NS]), min_size=1, max_size=150),
)


def measured(round_trips_ns: list[int]) -> Conversation:
    talk = Conversation(step_us=0)
    for rtt_ns in round_trips_ns:
        talk.client.data(100)
        talk.now_ns += rtt_ns
        talk.server.ack()
    return talk


def ranked(values: np.ndarray, percent: int) -> float:
    """The smallest that as many percent are not above."""
    return float(np.sort(values)[(len(values) * percent + 99) // 100 - 1])


@settings(max_examples=200)
@given(round_trips_ns=round_trips)
def test_percentiles_are_numpys(round_trips_ns: list[int]) -> None:
    sent = measured(round_trips_ns).row_told()["sent"]
    values_us = np.array(round_trips_ns) / 1_000
    assert sent["rtt_count"] == len(values_us)
    assert sent["rtt_p50_us"] == pytest.approx(np.median(values_us), rel=ACCURACY, abs=1e-9)
    assert sent["rtt_p90_us"] == pytest.approx(ranked(values_us, 90), rel=ACCURACY, abs=1e-9)
    assert sent["rtt_p99_us"] == pytest.approx(ranked(values_us, 99), rel=ACCURACY, abs=1e-9)
    assert sent["rtt_min_us"] <= sent["rtt_p50_us"] <= sent["rtt_p90_us"] <= sent["rtt_p99_us"] <= sent["rtt_max_us"]
    assert sent["rtt_mean_us"] == pytest.approx(np.mean(values_us), rel=1e-9, abs=1e-9)
    if len(values_us) > 1:
        spread = np.std(values_us, ddof=1)
        assert sent["rtt_stddev_us"] == pytest.approx(spread, rel=1e-6, abs=1e-9 * np.max(values_us) + 1e-9)


# --- Memory.


KEPT_ONE_BY_ONE = 60
"""So many samples; then they are counted by buckets."""


def shortest_and_longest(connections: int, samples: int, first_port: int, start_ns: int) -> np.ndarray:
    """Samples of what the client sends: 1 ns each, and at last eleven days."""
    records = np.zeros((2 * samples, connections), PACKET_RECORD)
    for place, row in enumerate(records):
        here, there = ("src", "dst") if place % 2 == 0 else ("dst", "src")
        row["time_ns"] = start_ns + place
        row[f"{here}_addr"], row[f"{there}_addr"] = raw_address("10.0.0.1"), raw_address("10.0.0.2")
        row[f"{here}_port"], row[f"{there}_port"] = first_port + np.arange(connections), 443
        # A hole before each segment.
        row["seq"] = 200 * (place // 2) + 100 if place % 2 == 0 else 0
        row["ack"] = 0 if place % 2 == 0 else 200 * (place // 2) + 200
        row["payload_bytes"] = 100 if place % 2 == 0 else 0
        row["flags"] = FLAG_ACK
    records["time_ns"][-1] = records["time_ns"][-2] + LONGEST_NS
    records["segments"], records["frame_bytes"], records["ip_version"] = 1, 154, 4
    return records.reshape(-1)


def test_few_samples_take_little_memory() -> None:
    """However far they are apart."""
    count = 20_000
    table = new_table(max_connections=count)
    records = shortest_and_longest(count, 2, 1_000, 10**12)
    assert table.process(records) == len(records)
    table.refresh(2 * LONGEST_NS)
    assert (live_rows(table)["sent"]["rtt_p50_us"] == (LONGEST_NS + 1) / 2_000).all()
    assert table.totals().rtt_percentiles_dropped == 0


def test_memory_of_percentiles_is_bounded() -> None:
    """Each histogram as wide as it can be: 32 MiB hold a few thousand; of the others the percentiles are not known."""
    count, samples = 7_000, KEPT_ONE_BY_ONE + 1
    table = new_table(max_connections=2 * count, idle_s=1)
    records = shortest_and_longest(count, samples, 1_000, 10**12)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert table.process(records) == len(records)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    table.refresh(2 * LONGEST_NS)
    rows = live_rows(table)["sent"]
    assert (rows["rtt_count"] == samples).all()
    assert (rows["rtt_max_us"] == LONGEST_NS / 1_000).all()
    known = ~np.isnan(rows["rtt_p50_us"])
    assert 1_000 < known.sum() < count
    assert table.totals().rtt_percentiles_dropped == count - known.sum()
    assert (rows["rtt_p50_us"][known] == 0.001).all()
    assert (rows["rtt_p99_us"][known] == LONGEST_NS / 1_000).all()
    assert not np.isnan(rows["rtt_stddev_us"]).any()

    # All leave; their memory serves the next ones.
    while not table.expire(4 * LONGEST_NS):
        table.take_ended()
    table.take_ended()
    few = shortest_and_longest(1_000, samples, 1_000, 5 * LONGEST_NS)
    assert table.process(few) == len(few)
    table.refresh(9 * LONGEST_NS)
    assert not np.isnan(live_rows(table)["sent"]["rtt_p50_us"]).any()
    assert table.totals().rtt_percentiles_dropped == count - known.sum()


def one_sample_each(connections: int, place: int, start_ns: int, rtt_ns: int) -> np.ndarray:
    """Of each connection the how manyth sample of what the client sends."""
    records = np.zeros((2, connections), PACKET_RECORD)
    for row, here, there in ((0, "src", "dst"), (1, "dst", "src")):
        records[f"{here}_addr"][row], records[f"{there}_addr"][row] = raw_address("10.0.0.1"), raw_address("10.0.0.2")
        records[f"{here}_port"][row], records[f"{there}_port"][row] = 1_000 + np.arange(connections), 443
    records["time_ns"] = [[start_ns], [start_ns + rtt_ns]]
    records["seq"][0], records["payload_bytes"][0], records["ack"][1] = 100 * place, 100, 100 * place + 100
    records["flags"], records["segments"], records["frame_bytes"], records["ip_version"] = FLAG_ACK, 1, 154, 4
    return records.reshape(-1)


def test_memory_of_wide_counts_is_bounded() -> None:
    """Wide apart, then so many alike that counts need two bytes: 32 MiB hold the narrow ones, not all of the wide."""
    count, alike = 3_500, 256
    table = new_table(max_connections=2 * count, idle_s=1)
    now_ns, known_before = 10**12, None
    for _ in range(2):  # their memory serves the next ones
        for place in range(1 + KEPT_ONE_BY_ONE + alike):
            rtt_ns = LONGEST_NS if place == 0 else 1
            records = one_sample_each(count, place, now_ns, rtt_ns)
            assert table.process(records) == len(records)
            now_ns += rtt_ns + 1
        table.refresh(now_ns)
        rows = live_rows(table)["sent"]
        assert (rows["rtt_count"] == 1 + KEPT_ONE_BY_ONE + alike).all()
        known = ~np.isnan(rows["rtt_p50_us"])
        assert 1_000 < known.sum() < count
        assert (rows["rtt_p50_us"][known] == 0.001).all()
        assert known_before in (None, known.sum())
        known_before = known.sum()
        assert table.totals().rtt_percentiles_dropped >= count - known_before
        while not table.expire(now_ns + 2 * LONGEST_NS):
            table.take_ended()
        table.take_ended()
        now_ns += 3 * LONGEST_NS


def test_holes_of_one_connection_are_bounded() -> None:
    """100,000 segments with a hole before each of them; then as many that come late, in any order."""
    count = 100_000
    records = np.zeros(2 * count, PACKET_RECORD)
    records["time_ns"] = 10**9 + np.arange(2 * count) * 100
    records["src_addr"], records["dst_addr"] = raw_address("10.0.0.1"), raw_address("10.0.0.2")
    records["src_port"], records["dst_port"] = 40_000, 443
    records["seq"][:count] = np.arange(count) * 10
    records["seq"][count:] = np.random.default_rng(1).permutation(count) * 10 + 4
    records["payload_bytes"] = 2
    records["flags"], records["segments"], records["frame_bytes"], records["ip_version"] = FLAG_ACK, 1, 56, 4
    table = new_table()
    assert table.process(records) == len(records)
    sent = live_rows(table)[0]["sent"]
    assert sent["gaps"] == count  # none before the first segment, but the last of the late ones begins past the end
    assert sent["retransmissions"] + sent["out_of_order"] == count - 1
    assert table.totals().rtt_samples_dropped > 0


# --- What changes no result.


def several(seed: int) -> np.ndarray:
    return records_of(merge([conversation(seed + number, wild=0.5) for number in range(4)]))


def taken_in(records: np.ndarray, sizes: list[int], findings: bool, rows: int = 1_000) -> tuple[list[str], bytes]:
    """All rows as text, and the findings."""
    table = Table(rows, 10**12, 10**12, 0, 1)
    found = np.zeros(len(records), FINDING)
    ended, at = [], 0
    for size in [*sizes, len(records)]:
        stop = min(at + size, len(records))
        while at < stop:
            at += table.process(records[at:stop], found[at:stop] if findings else None)
            ended.append(table.take_ended())
    table.refresh(2**61)
    texts = [plain(np.concatenate(ended)) if ended else "", plain(live_rows(table))]
    return texts, found.tobytes() if findings else b""


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(0, 40), max_size=20))
def test_batches_and_findings_change_nothing(seed: int, sizes: list[int]) -> None:
    records = several(seed)
    rows, found = taken_in(records, [], findings=True)
    assert taken_in(records, sizes, findings=True) == (rows, found)
    assert taken_in(records, [1] * len(records), findings=True) == (rows, found)
    assert taken_in(records, sizes, findings=False)[0] == rows


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_findings_add_up_to_the_counts(seed: int) -> None:
    """Each segment's bits, counted per direction of each connection."""
    records = several(seed)
    table = new_table()
    found = np.zeros(len(records), FINDING)
    dice = random.Random(seed)
    ended, at = [], 0
    while at < len(records):
        stop = at + dice.randint(1, 30)
        at += table.process(records[at:stop], found[at:stop])
        ended.append(table.take_ended())
    rows = np.concatenate([*ended, live_rows(table)])
    for bit, name in COUNTED.items():
        for received, direction in enumerate(("sent", "received")):
            for row in rows:
                mine = (found["connection_id"] == row["id"]) & (found["received"] == received)
                assert (found["analysis"][mine] >> bit & 1).sum() == row[direction][name], name


COUNTED = {
    0: "retransmissions",
    1: "fast_retransmissions",
    2: "spurious_retransmissions",
    3: "out_of_order",
    4: "gaps",
    5: "duplicate_acks",
    6: "acked_unseen_segments",
    7: "window_updates",
    8: "windows_full",
    9: "zero_windows",
    10: "zero_window_probes",
    11: "zero_window_probe_acks",
    12: "keep_alives",
    13: "keep_alive_acks",
    15: "duplicate_sacks",
}
"""Bit of model.ANALYSIS and the count of it, for segments that are no super-packets."""
