"""Records lost on the way: counts stay exact, and nothing is said that would not have been said without the loss."""

import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tcptrace.engine.table import Table
from tcptrace.model import ANALYSIS, FINDING
from tcptrace.records import (
    FLAG_ACK,
    FLAG_FIN,
    FLAG_RST,
    FLAG_SYN,
    FLOW_COUNT,
    FLOW_KEY,
    NOTE_BEHIND,
    NOTE_COUNTED,
    PACKET_RECORD,
)

from ..unit.conversation import SECOND
from .stacks import Segment, conversation
from .wireshark import START_S, merge, records_of

COUNT = int(os.environ.get("TCPTRACE_CONVERSATIONS", "600"))
SEED = int(os.environ.get("TCPTRACE_SEED", "0"))
SEEDS = int(os.environ.get("TCPTRACE_SEEDS", "7"))
RECORD = 2**32

ZERO_WINDOW, ZERO_WINDOW_PROBE, ZERO_WINDOW_PROBE_ACK, PREVIOUS_NOT_CAPTURED, ACKED_UNSEEN, PORT_REUSE = (
    1 << ANALYSIS.index(name)
    for name in (
        "zero_window",
        "zero_window_probe",
        "zero_window_probe_ack",
        "previous_segment_not_captured",
        "acked_unseen_segment",
        "port_reuse",
    )
)

# A byte that the tap has missed may have been a probe's.
UNTOLD_AT_A_HOLE = ACKED_UNSEEN | ZERO_WINDOW_PROBE | ZERO_WINDOW_PROBE_ACK

Records = np.ndarray


class Kernel:
    """Counts what is lost as bpf/flows.c does, in plain Python."""

    def __init__(self) -> None:
        self.flows: dict[tuple[Any, ...], dict[str, Any]] = {}

    def lose(self, record: Any) -> None:
        """A record that has been written, or is left out."""
        flow, x = self._find(record, begin=True)
        assert flow is not None
        end = flow["ends"][x]
        take_sequence(end, record)
        end["count"] += RECORD + int(record["segments"])
        end["bytes"] += int(record["frame_bytes"])
        end["payload_bytes"] += int(record["payload_bytes"])

    def tell(self, record: Any) -> None:
        """Into a record that is written after a loss."""
        record["note"] |= NOTE_COUNTED
        flow, x = self._find(record, begin=False)
        if flow is None:
            return
        end, peer = flow["ends"][x], flow["ends"][1 - x]
        if take_sequence(end, record):
            record["note"] |= NOTE_BEHIND
        record["flow_count"], record["flow_bytes"] = end["count"], end["bytes"]
        record["flow_payload_bytes"] = end["payload_bytes"]
        record["reverse_records"] = peer["count"] // RECORD
        record["flow_since"] = flow["since_ns"] >> 24 & 0xFFFFFFFF

    def _find(self, record: Any, *, begin: bool) -> tuple[dict[str, Any] | None, int]:
        """What is counted of the record's connection, and which of its ends sent it."""
        ends = [(int(record[f"{end}_port"]), words(record[f"{end}_addr"])) for end in ("src", "dst")]
        x, key, now_ns = int(ends[0] > ends[1]), (min(ends), max(ends)), int(record["time_ns"])
        flow = self.flows.get(key)
        if flow is None and begin:
            flow = self.flows[key] = new_flow(now_ns)
        elif flow is not None and starts_anew(flow, x, record):
            flow = self.flows[key] = new_flow(max(now_ns, flow["since_ns"] + 2**24))
        return flow, x

    def map(self) -> tuple[np.ndarray, np.ndarray]:
        """As user space reads it."""
        keys, counts = np.zeros(len(self.flows), FLOW_KEY), np.zeros(len(self.flows), FLOW_COUNT)
        for place, ((lower, higher), flow) in enumerate(self.flows.items()):
            keys[place]["ip_version"] = 4
            counts[place]["since_ns"] = flow["since_ns"]
            for name, (port, address), end in zip(("lower", "higher"), (lower, higher), flow["ends"], strict=True):
                keys[place][f"{name}_port"] = port
                keys[place][f"{name}_addr"] = np.array(address, "<u8").view("u1")
                for field, value in end.items():
                    counts[place][f"from_{name}"][field] = value
        return keys, counts


def new_flow(since_ns: int) -> dict[str, Any]:
    names = FLOW_COUNT["from_lower"].names
    return {"ends": [dict.fromkeys(names, 0) for _ in range(2)], "since_ns": since_ns}


def starts_anew(flow: dict[str, Any], x: int, record: Any) -> bool:
    end = flow["ends"][x]
    if int(record["flags"]) & (FLAG_SYN | FLAG_ACK | FLAG_RST) != FLAG_SYN or record["time_ns"] <= flow["since_ns"]:
        return False
    if not end["passed"]:
        return False
    seq = int(record["seq"])
    return seq != end["base_seq"] if end["has_syn"] else signed(seq - end["next_seq"]) >= 0


def take_sequence(end: dict[str, int], record: Any) -> bool:
    """Whether it is behind."""
    seq, flags, passed = int(record["seq"]), int(record["flags"]), end["passed"]
    end["passed"] += 1
    length = int(record["payload_bytes"]) + bool(flags & FLAG_SYN) + bool(flags & FLAG_FIN)
    if flags & FLAG_RST and passed:
        return False
    if not passed or (end["has_syn"] and flags & FLAG_SYN and seq != end["base_seq"]):
        end["has_syn"], end["base_seq"] = int(flags & FLAG_SYN > 0), seq
        end["next_seq"] = (seq + length) % RECORD
        return False
    ahead = signed(seq - end["next_seq"])
    if ahead + length > 0:
        end["next_seq"] = (seq + length) % RECORD
    return ahead < 0


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


@dataclass
class Part:
    """Records that a tracer gets before it has read the counts."""

    records: Records
    unsure_ns: int | None
    flows: tuple[np.ndarray, np.ndarray]


def here_and_there(dice: random.Random, records: Records) -> tuple[np.ndarray, list[Part]]:
    """Some are left out, one by one or in a row: the kernel knows at once.  Which came, and what is told of them."""
    kernel, lost = Kernel(), np.zeros(len(records), bool)
    share, run = dice.choice([0.02, 0.1, 0.5, 0.9]), dice.choice([1, 1, 4, 32])
    for start in range(0, len(records), run):
        if dice.random() < share:
            lost[start : start + run] = True
    for place, record in enumerate(records):
        if lost[place]:
            kernel.lose(record)
        else:
            kernel.tell(record)
    return ~lost, [Part(records[~lost], START_S * SECOND, kernel.map())]


class Cpus:
    """Two CPUs that hand over batches; one that is lost is counted when its last record has been written."""

    def __init__(self, dice: random.Random, records: Records, numbers: np.ndarray) -> None:
        self.dice, self.records = dice, records
        self.size, self.share = dice.choice([1, 3, 16, 64]), dice.choice([0.02, 0.1, 0.5])
        moved = np.array([dice.random() < 0.02 for _ in records])
        self.cpus = ((numbers + (records["src_port"] > records["dst_port"]) + moved) % 2).tolist()
        self.now_ns = records["time_ns"].tolist()
        self.lost = np.zeros(len(records), bool)
        self.parts: list[Part] = []
        self.begin = 0
        self._begin_bout()

    def _begin_bout(self) -> None:
        self.kernel, self.windows = Kernel(), []
        self.pending: list[list[int]] = [[], []]
        self.handed_over = [self.now_ns[self.begin]] * 2
        self.is_losing = [False, False]
        self.is_told = False

    def write(self, place: int, *, may_lose: bool) -> None:
        cpu, batch = self.cpus[place], self.pending[self.cpus[place]]
        if self.is_told:
            self.kernel.tell(self.records[place])
        if not batch and self.is_losing[cpu]:
            self.windows.append((self.handed_over[cpu], self.now_ns[place]))
            self.is_losing[cpu] = False
        batch.append(place)
        if len(batch) < self.size:
            return
        if may_lose and self.dice.random() < self.share:
            self.lost[batch] = self.is_told = self.is_losing[cpu] = True
            for one in batch:
                self.kernel.lose(self.records[one])
        else:
            self.handed_over[cpu] = self.now_ns[place]
        batch.clear()

    def read(self, end: int) -> None:
        """The counts, all records before `end` having been handed over."""
        part, until_ns = self.records[self.begin : end], self.now_ns[max(end - 1, 0)]
        self.windows += [(self.handed_over[cpu], until_ns) for cpu in range(2) if self.is_losing[cpu]]
        for since_ns, until_ns in self.windows:
            inside = (part["time_ns"] >= since_ns) & (part["time_ns"] <= until_ns)
            part["note"][inside] &= ~np.uint8(NOTE_COUNTED)
        unsure_ns = min((since_ns for since_ns, _ in self.windows), default=None)
        self.parts.append(Part(part[~self.lost[self.begin : end]], unsure_ns, self.kernel.map()))
        self.begin = min(end, len(self.records) - 1)
        self._begin_bout()


def in_batches(dice: random.Random, records: Records, numbers: np.ndarray) -> tuple[np.ndarray, list[Part]]:
    """Twice there are losses for a time, and some time later the counts are read; no record tells after that."""
    ends = sorted(dice.randrange(1, len(records)) for _ in range(4))
    cpus = Cpus(dice, records, numbers)
    for place in range(len(records)):
        if place in (ends[1], ends[3]):
            cpus.read(place)
        cpus.write(place, may_lose=place < ends[0] or ends[1] <= place < ends[2])
    cpus.read(len(records))
    return ~cpus.lost, cpus.parts


@pytest.fixture(scope="module")
def traffic() -> tuple[Records, np.ndarray]:
    """Records, and which conversation each is of."""
    talks: list[list[Segment]] = [conversation(SEED + n, wild=0) for n in range(COUNT)]
    merged = merge(talks)
    return records_of(merged), np.array([number for number, _ in merged])


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("loss", ["here and there", "in batches"])
def test_nothing_is_made_up(traffic: tuple[Records, np.ndarray], loss: str, seed: int) -> None:
    """What is found about a record that came is what is found of it when all come, or less."""
    records, numbers = traffic
    whole_table = new_table(len(records))
    whole, ended = process(whole_table, records)
    whole_rows = rows_of(whole_table, ended)
    dice, copy = random.Random(seed), records.copy()
    is_here, parts = here_and_there(dice, copy) if loss == "here and there" else in_batches(dice, copy, numbers)
    found, rows = analysed(new_table(len(records)), parts)
    lost = ~is_here

    came, single = np.flatnonzero(is_here), of_one_connection(records, numbers, whole)
    assert len(single) > COUNT / 2
    more = found["analysis"] & ~whole["analysis"][came]
    more &= ~np.where(whole["analysis"][came] & ZERO_WINDOW_PROBE, ZERO_WINDOW, 0).astype("u4")
    more &= ~np.where(has_hole(whole["analysis"], numbers)[came], UNTOLD_AT_A_HOLE, 0).astype("u4")
    where = np.flatnonzero((more != 0) & np.isin(numbers[came], list(single)))
    assert not len(where), [
        (int(numbers[came][at]), int(came[at]), names(more[at]), names(whole["analysis"][came][at])) for at in where[:5]
    ]
    measured = ~np.isnan(found["rtt_us"]) & np.isin(numbers[came], list(single))
    assert measured.any() or len(came) < len(records) / 4  # with nine in ten lost there may be no answer to time
    assert (found["rtt_us"][measured] == whole["rtt_us"][came][measured]).all()

    by_client, whole_by_client = by_address(rows), by_address(whole_rows)
    for number in single:
        client = client_of(number)
        row, other = by_client[client], whole_by_client[client]
        assert row["records_lost"] == np.count_nonzero(lost & (numbers == number))
        for name in ("packets", "bytes", "payload_bytes"):
            ends = sorted(int(row[side][name]) for side in ("sent", "received"))
            assert ends == sorted(int(other[side][name]) for side in ("sent", "received"))
        if loss == "here and there" and not row["records_lost"]:
            assert row_without_id(row) == row_without_id(other)


def analysed(table: Table, parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Findings of all records that came, and rows."""
    findings, rows = [], []
    for part in parts:
        table.expect_gaps(part.unsure_ns)
        found, ended = process(table, part.records)
        findings.append(found)
        rows += ended
        read_ns = int(part.records["time_ns"][-1]) if len(part.records) else START_S * SECOND
        keys, counts = part.flows
        assert table.process_flows(keys, counts, read_ns) == len(keys)
        rows.append(table.take_ended())
        table.expect_gaps(None)
    return np.concatenate(findings), rows_of(table, rows)


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


def all_lost() -> tuple[Records, np.ndarray, np.ndarray]:
    """Records of one conversation, and what the kernel has of them."""
    records, kernel = records_of(merge([conversation(SEED)])), Kernel()
    for record in records:
        kernel.lose(record)
    return records, *kernel.map()


def test_all_records_lost_but_counted() -> None:
    """A flow of which nothing came is a connection all the same."""
    records, keys, counts = all_lost()
    table = new_table(9)
    assert table.process_flows(keys, counts, int(records["time_ns"][-1])) == len(keys)
    (row,) = table.rows_view()
    assert row["records_lost"] == len(records)
    assert row["sent"]["packets"] + row["received"]["packets"] == len(records)
    assert row["start_ns"] == records["time_ns"][0]


def test_a_connection_without_records_stays_as_long_as_others() -> None:
    """An idle time from when it was counted."""
    records, keys, counts = all_lost()
    table = Table(9, 300 * SECOND, 60 * SECOND, START_S * SECOND, 1)
    now_ns = int(records["time_ns"][-1]) + 1_000 * SECOND
    table.process_flows(keys, counts, now_ns)
    assert table.expire(now_ns + 299 * SECOND)
    assert len(table.take_ended()) == 0
    assert table.expire(now_ns + 300 * SECOND)
    (ended,) = table.take_ended()
    assert ended["records_lost"] == len(records)
    assert table.process_flows(keys, counts, now_ns + 301 * SECOND) == len(keys)
    assert table.totals().connections == 0


def test_a_flow_that_lost_nothing_makes_no_connection() -> None:
    """The kernel follows it because others did."""
    _, keys, counts = all_lost()
    for name in ("from_lower", "from_higher"):
        counts[name]["count"] = 0
    table = new_table(9)
    assert table.process_flows(keys, counts, START_S * SECOND) == len(keys)
    assert table.totals().connections == 0


def test_dtype() -> None:
    """What the plain Python above writes is all that the kernel writes."""
    assert PACKET_RECORD.names is not None
    counts = [name for name in PACKET_RECORD.names if name.startswith(("flow_", "reverse_"))]
    assert counts == ["flow_count", "flow_bytes", "flow_payload_bytes", "reverse_records", "flow_since"]
