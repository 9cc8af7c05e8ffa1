"""Records lost on the way: counts stay exact, and nothing is said that would not have been said without the loss."""

import os
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tcptrace.engine.table import Table
from tcptrace.model import ANALYSIS, FINDING
from tcptrace.records import FLAG_ACK, FLAG_FIN, FLAG_RST, FLAG_SYN, FLOW_COUNT, FLOW_KEY, NOTE_BEHIND, PACKET_RECORD

from ..unit.conversation import SECOND
from .stacks import Segment, conversation
from .wireshark import START_S, merge, records_of

COUNT = int(os.environ.get("TCPTRACE_CONVERSATIONS", "600"))
SEED = int(os.environ.get("TCPTRACE_SEED", "0"))
RECORD = 2**32

ZERO_WINDOW, ZERO_WINDOW_PROBE, PREVIOUS_NOT_CAPTURED, ACKED_UNSEEN, PORT_REUSE = (
    1 << ANALYSIS.index(name)
    for name in (
        "zero_window",
        "zero_window_probe",
        "previous_segment_not_captured",
        "acked_unseen_segment",
        "port_reuse",
    )
)

Records = np.ndarray


class Kernel:
    """Counts as bpf/flows.c does, in plain Python."""

    def __init__(self) -> None:
        self.flows: dict[tuple[Any, ...], dict[str, Any]] = {}

    def take(self, record: Any) -> None:
        ends = [(int(record[f"{end}_port"]), words(record[f"{end}_addr"])) for end in ("src", "dst")]
        x = int(ends[0] > ends[1])
        key = (min(ends), max(ends))
        flow = self.flows.get(key)
        seq, flags = int(record["seq"]), int(record["flags"])
        opens = flags & (FLAG_SYN | FLAG_ACK | FLAG_RST) == FLAG_SYN
        if flow is None or (opens and flow["ends"][x][0] and seq != flow["ends"][x][4]):
            flow = self.flows[key] = {"ends": [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]], "since_ns": int(record["time_ns"])}
        end, peer = flow["ends"][x], flow["ends"][1 - x]
        length = int(record["payload_bytes"]) + bool(flags & FLAG_SYN) + bool(flags & FLAG_FIN)
        if not flags & FLAG_RST or not end[0]:
            ahead = signed(seq - end[3])
            begins = not end[0] or (flags & FLAG_SYN and seq != end[4])
            if begins:
                end[4] = seq if flags & FLAG_SYN else (seq - 1) % RECORD
            elif ahead < 0:
                record["note"] |= NOTE_BEHIND
            if begins or ahead + length > 0:
                end[3] = (seq + length) % RECORD
        end[0] += RECORD + int(record["segments"])
        end[1] += int(record["frame_bytes"])
        end[2] += int(record["payload_bytes"])
        record["flow_count"], record["flow_bytes"], record["flow_payload_bytes"] = end[:3]
        record["reverse_records"] = peer[0] // RECORD
        record["flow_since"] = flow["since_ns"] >> 24 & 0xFFFFFFFF

    def map(self) -> tuple[np.ndarray, np.ndarray]:
        """As user space reads it."""
        keys, counts = np.zeros(len(self.flows), FLOW_KEY), np.zeros(len(self.flows), FLOW_COUNT)
        for place, ((lower, higher), flow) in enumerate(self.flows.items()):
            keys[place]["ip_version"] = 4
            counts[place]["since_ns"] = flow["since_ns"]
            for name, (port, address), end in zip(("lower", "higher"), (lower, higher), flow["ends"], strict=True):
                keys[place][f"{name}_port"] = port
                keys[place][f"{name}_addr"] = np.array(address, "<u8").view("u1")
                for field, value in zip(("count", "bytes", "payload_bytes"), end, strict=False):
                    counts[place][f"from_{name}"][field] = value
        return keys, counts


def words(address: np.ndarray) -> tuple[int, int]:
    low, high = np.ascontiguousarray(address).view("<u8").tolist()
    return int(low), int(high)


def signed(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def process(table: Table, records: Records) -> tuple[np.ndarray, list[np.ndarray]]:
    findings, ended, at = np.zeros(len(records), FINDING), [], 0
    while at < len(records):
        at += table.process(records[at:], findings[at:])
        ended.append(table.take_ended())
    return findings, ended


def rows_of(table: Table, ended: Sequence[np.ndarray]) -> np.ndarray:
    rows = table.rows_view()
    return np.concatenate([*ended, rows[rows["in_use"] == 1]])


def new_table(size: int) -> Table:
    return Table(size + 1, 10**18, 10**18, START_S * SECOND, 1)


def lose(dice: random.Random, amount: int) -> np.ndarray:
    """Which records are lost: some here and there, some in a row."""
    share = dice.choice([0.02, 0.1, 0.5, 0.9])
    run = dice.choice([1, 1, 4, 32])
    lost = np.zeros(amount, bool)
    for start in range(0, amount, run):
        if dice.random() < share:
            lost[start : start + run] = True
    return lost


@pytest.fixture(scope="module")
def traffic() -> tuple[Records, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Counted records, which conversation each is of, and what the kernel has in the end."""
    talks: list[list[Segment]] = [conversation(SEED + n, wild=0) for n in range(COUNT)]
    merged = merge(talks)
    records = records_of(merged)
    kernel = Kernel()
    for record in records:
        kernel.take(record)
    return records, np.array([number for number, _ in merged]), *kernel.map()


@pytest.mark.parametrize("seed", range(7))
def test_nothing_is_made_up(traffic: tuple[Any, ...], seed: int) -> None:
    """What is found about a record that came is what is found of it when all come, or less."""
    records, numbers, keys, counts = traffic
    whole_table = new_table(len(records))
    whole, ended = process(whole_table, records)
    whole_rows = rows_of(whole_table, ended)
    lost = lose(random.Random(seed), len(records))
    table = new_table(len(records))
    table.expect_gaps(int(records["time_ns"].max()) + 1)
    found, ended = process(table, records[~lost])
    assert table.process_flows(keys, counts, int(records["time_ns"][-1])) == len(keys)
    rows = rows_of(table, [*ended, table.take_ended()])

    came, single = np.flatnonzero(~lost), of_one_connection(records, numbers, whole)
    assert len(single) > COUNT / 2
    more = found["analysis"] & ~whole["analysis"][came]
    more &= ~np.where(whole["analysis"][came] & ZERO_WINDOW_PROBE, ZERO_WINDOW, 0).astype("u4")
    more &= ~np.where(has_hole(whole["analysis"], numbers)[came], ACKED_UNSEEN, 0).astype("u4")
    where = np.flatnonzero((more != 0) & np.isin(numbers[came], list(single)))
    assert not len(where), [
        (int(numbers[came][at]), int(came[at]), names(more[at]), names(whole["analysis"][came][at])) for at in where[:5]
    ]
    measured = ~np.isnan(found["rtt_us"]) & np.isin(numbers[came], list(single))
    assert measured.any()
    assert (found["rtt_us"][measured] == whole["rtt_us"][came][measured]).all()

    by_client, whole_by_client = by_address(rows), by_address(whole_rows)
    for number in single:
        client = client_of(number)
        row, other = by_client[client], whole_by_client[client]
        assert row["records_lost"] == np.count_nonzero(lost & (numbers == number))
        for name in ("packets", "bytes", "payload_bytes"):
            ends = sorted(int(row[side][name]) for side in ("sent", "received"))
            assert ends == sorted(int(other[side][name]) for side in ("sent", "received"))
        if not row["records_lost"]:
            assert row_without_id(row) == row_without_id(other)


def names(bits: Any) -> list[str]:
    return [name for place, name in enumerate(ANALYSIS) if int(bits) >> place & 1]


def of_one_connection(records: Records, numbers: np.ndarray, whole: np.ndarray) -> set[int]:
    """Those whose ports are not used again: where they are, what is late of the old one may be put in the new."""
    pairs = set(zip(numbers.tolist(), whole["connection_id"].tolist(), strict=True))
    amounts = Counter(number for number, _ in pairs)
    reused = set(numbers[(whole["analysis"] & PORT_REUSE) != 0].tolist())
    return {number for number, amount in amounts.items() if amount == 1} - reused


def has_hole(analysis: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Of each record: whether the tap itself has missed some of its conversation by then."""
    holes = np.zeros(len(numbers), bool)
    seen: set[int] = set()
    for at, (bits, number) in enumerate(zip(analysis.tolist(), numbers.tolist(), strict=True)):
        if bits & (PREVIOUS_NOT_CAPTURED | ACKED_UNSEEN):
            seen.add(number)
        holes[at] = number in seen
    return holes


def client_of(number: int) -> bytes:
    return bytes([10, number >> 16 & 255, number >> 8 & 255, number & 255])


def by_address(rows: np.ndarray) -> dict[bytes, Any]:
    """By the client's address, whichever end it was taken for."""
    found = {}
    for row in rows:
        ends = [row[name].tobytes()[12:] for name in ("src_addr", "dst_addr")]
        found[next(end for end in ends if end[0] == 10)] = row
    return found


def row_without_id(row: Any) -> str:
    copy = row.copy()
    copy["id"] = 0
    return str({name: copy[name] for name in copy.dtype.names})


def test_all_records_lost_but_counted() -> None:
    """A flow of which nothing came is a connection all the same."""
    talk = conversation(SEED)
    records = records_of(merge([talk]))
    kernel = Kernel()
    for record in records:
        kernel.take(record)
    table = new_table(9)
    keys, counts = kernel.map()
    assert table.process_flows(keys, counts, int(records["time_ns"][-1])) == len(keys)
    (row,) = table.rows_view()
    assert row["records_lost"] == len(records)
    assert row["sent"]["packets"] + row["received"]["packets"] == len(records)
    assert row["start_ns"] == records["time_ns"][0]


def test_a_connection_without_records_stays_as_long_as_others() -> None:
    """An idle time from when it was counted."""
    records = records_of(merge([conversation(SEED)]))
    kernel = Kernel()
    for record in records:
        kernel.take(record)
    table = Table(9, 300 * SECOND, 60 * SECOND, START_S * SECOND, 1)
    now_ns = int(records["time_ns"][-1]) + 1_000 * SECOND
    keys, counts = kernel.map()
    table.process_flows(keys, counts, now_ns)
    assert table.expire(now_ns + 299 * SECOND)
    assert len(table.take_ended()) == 0
    assert table.expire(now_ns + 300 * SECOND)
    (ended,) = table.take_ended()
    assert ended["records_lost"] == len(records)
    assert table.process_flows(keys, counts, now_ns + 301 * SECOND) == len(keys)
    assert table.totals().connections == 0


def test_dtype() -> None:
    """What the plain Python above writes is all that the kernel writes."""
    assert PACKET_RECORD.names[-5:] == (
        "flow_count",
        "flow_bytes",
        "flow_payload_bytes",
        "reverse_records",
        "flow_since",
    )
