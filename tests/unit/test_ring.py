"""The ring's reader, on memory that a kernel might have written: which records cannot know what other CPUs had lost."""

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tcptrace.records import COUNTERS, NOTE_COUNTED, OPTION_MSS, OPTION_TIMESTAMPS, PACKET_RECORD, Frames
from tcptrace.sources.live import ring as ring_module
from tcptrace.sources.live.ring import Ring

MS = 1_000_000
PAGE = 4096
RING_BYTES = 1 << 20
# Of linux/perf_event.h: the type of a sample, and where data_head is in struct perf_event_mmap_page.
SAMPLE, DATA_HEAD_AT = 9, 1024
# Of bpf/records.h.
BATCH_RECORDS, BATCH_WITHOUT_COUNTERS, SHORT_RECORD_BYTES = 64, 0x8000_0000, 96
ROOM = 10_000
START_NS = 1_000_000 * MS


def at(time_ms: float) -> int:
    """CLOCK_MONOTONIC, ns."""
    return START_NS + int(time_ms * MS)


class Cpus:
    """Rings of two CPUs, and what is written into them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, snaplen: int) -> None:
        self.maps: list[mmap.mmap] = []
        self.heads = [0, 0]
        self.out = np.zeros(ROOM, PACKET_RECORD)
        monkeypatch.setattr(ring_module, "open_ring", self._open)
        self.ring = Ring([0, 1], RING_BYTES, START_NS, snaplen)
        self.frames = Frames(*(np.zeros(size, kind) for size, kind in self._frame_arrays())) if snaplen else None

    @staticmethod
    def _frame_arrays() -> tuple[tuple[int, str], ...]:
        return (4 << 20, "u1"), (ROOM, "i8"), (ROOM, "u4"), (ROOM, "u4"), (ROOM, "u2")

    def _open(self, cpu: int, size: int) -> tuple[int, mmap.mmap]:
        self.maps.append(mmap.mmap(-1, size + PAGE))
        return os.open(os.devnull, os.O_RDONLY), self.maps[-1]

    def _write(self, cpu: int, data: bytes) -> bool:
        """Whether there is room."""
        padding = bytes(-(12 + len(data)) % 8)
        event = struct.pack("=IHHI", SAMPLE, 0, 12 + len(data) + len(padding), len(data)) + data + padding
        if self.heads[cpu] + len(event) > RING_BYTES:
            return False
        place = PAGE + self.heads[cpu]
        self.maps[cpu][place : place + len(event)] = event
        self.heads[cpu] += len(event)
        self.maps[cpu][DATA_HEAD_AT : DATA_HEAD_AT + 8] = struct.pack("=Q", self.heads[cpu])
        return True

    def batch(self, cpu: int, times_ms: list[float], *, lost: int = 0, end_ms: float | None = None) -> bool:
        """Records that tell of losses, of those times, and how many were lost before."""
        end_ms = times_ms[-1] if end_ms is None else end_ms
        return self.sample(cpu, records(times_ms).tobytes(), len(times_ms), end_ms, lost)

    def sample(self, cpu: int, data: bytes, count: int, end_ms: float, lost: int = 0) -> bool:
        """A batch of `count` records, as these bytes."""
        counters = [lost if name == "records_lost" else 0 for name in COUNTERS]
        head = struct.pack("=QII", at(end_ms), count, 0) + struct.pack(f"={len(COUNTERS)}Q", *counters)
        return self._write(cpu, head + data)

    def frame(self, cpu: int, time_ms: float, *, lost: int) -> bool:
        """A record with much of its frame."""
        head = struct.pack("=QII", at(time_ms), 1 | BATCH_WITHOUT_COUNTERS, lost)
        return self._write(cpu, head + records([time_ms]).tobytes() + struct.pack("=II", 60, 60) + bytes(60))

    def read(self, now_ms: float) -> dict[float, bool]:
        """Of each record handed on, by its time: whether it knows of what was lost before."""
        known = {}
        is_first = True
        while is_first or self.ring.has_more:
            is_first = False
            count = self.ring.read(self.out, at(now_ms), self.frames)
            times, notes = self.out["time_ns"][:count].tolist(), self.out["note"][:count].tolist()
            known |= {(ns - START_NS) / MS: bool(note & NOTE_COUNTED) for ns, note in zip(times, notes, strict=True)}
        assert list(known) == sorted(known)
        return known


def records(times_ms: list[float]) -> np.ndarray[Any, Any]:
    made = np.zeros(len(times_ms), PACKET_RECORD)
    made["time_ns"] = [at(time_ms) for time_ms in times_ms]
    made["note"], made["segments"] = NOTE_COUNTED, 1
    return made


@pytest.fixture
def cpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cpus]]:
    made: list[Cpus] = []

    def make(snaplen: int = 0) -> Cpus:
        made.append(Cpus(monkeypatch, snaplen))
        return made[-1]

    yield make
    for one in made:
        one.ring.close()


def some_of_each_length(times_ms: list[float]) -> tuple[np.ndarray[Any, Any], list[bytes]]:
    """Records, and what a ring has of each: the rest of those that have nothing there is zero when they come out."""
    made = np.frombuffer(np.random.default_rng(1).bytes(len(times_ms) * PACKET_RECORD.itemsize), PACKET_RECORD).copy()
    made["time_ns"], made["note"], made["options"] = records(times_ms)["time_ns"], 0, 0
    made["vlan_count"] = np.arange(len(made)) % 7 == 3
    made["note"][2::5] = NOTE_COUNTED
    made["options"][1::3] = OPTION_TIMESTAMPS
    made["options"][4::11] |= OPTION_MSS
    is_whole = (made["vlan_count"] > 0) | (made["note"] > 0) | (made["options"] & OPTION_MSS > 0)
    assert 0 < is_whole.sum() < len(made)
    lengths = np.where(is_whole, PACKET_RECORD.itemsize, SHORT_RECORD_BYTES).tolist()
    pieces = [record.tobytes()[:length] for record, length in zip(made, lengths, strict=True)]
    made.view("u1").reshape(len(made), -1)[~is_whole, SHORT_RECORD_BYTES:] = 0
    return made, pieces


def test_short_records_and_whole_ones(cpus: Any) -> None:
    both = cpus()
    times_ms = [1 + place / 100 for place in range(61)]
    made, pieces = some_of_each_length(times_ms)
    both.out.view("u1")[:] = 0xAA
    both.sample(0, b"".join(pieces), len(made), 2)
    both.batch(1, [], end_ms=3)
    assert both.ring.read(both.out, at(4)) == len(made)
    assert both.out[: len(made)].tobytes() == made.tobytes()


@pytest.mark.parametrize("missing", [1, SHORT_RECORD_BYTES, SHORT_RECORD_BYTES + 1, PACKET_RECORD.itemsize])
def test_a_batch_that_ends_too_early(cpus: Any, missing: int) -> None:
    """What is whole of it comes out, and the batch after it."""
    both = cpus()
    made, pieces = some_of_each_length([1 + place / 100 for place in range(61)])
    data = b"".join(pieces)[:-missing]
    whole = sum(sum(map(len, pieces[: place + 1])) <= len(data) for place in range(len(pieces)))
    both.sample(0, data, len(made), 2)
    both.batch(0, [3])
    both.batch(1, [], end_ms=4)
    assert both.ring.read(both.out, at(5)) == whole + 1
    assert both.out[:whole].tobytes() == made[:whole].tobytes()


def test_nothing_is_unsure_without_losses(cpus: Any) -> None:
    both = cpus()
    both.batch(0, [1, 2, 5])
    both.batch(1, [3, 4, 6])
    assert both.read(7) == dict.fromkeys([1, 2, 3, 4, 5], True)
    assert both.ring.unsure_ns() is None


def test_what_was_written_while_another_cpu_was_losing_does_not_know(cpus: Any) -> None:
    both = cpus()
    both.batch(0, [1, 10])
    both.batch(0, [20, 21], lost=2)  # two from between 10 and 20
    both.batch(1, [5, 15, 25])
    both.batch(0, [], lost=2, end_ms=30)
    both.batch(1, [], end_ms=30)
    known = both.read(31)
    assert known == {1: True, 5: True, 10: False, 15: False, 20: False, 21: True, 25: True}
    assert both.ring.unsure_ns() == at(10)
    assert both.ring.lost() == 2


def test_until_the_counts_have_been_read(cpus: Any) -> None:
    both = cpus()
    both.batch(0, [1])
    both.batch(0, [20], lost=2)
    both.batch(1, [], end_ms=30)
    both.read(31)
    both.ring.note_counts_read(at(20))
    assert both.ring.unsure_ns() is not None
    both.ring.note_counts_read(at(20) + 1)
    assert both.ring.unsure_ns() is None


def fill(both: Cpus, cpu: int) -> float:
    """As many batches as there is room for, one a millisecond; the time of the last."""
    time_ms = 1.0
    while both.batch(cpu, [time_ms + place / BATCH_RECORDS for place in range(BATCH_RECORDS)]):
        time_ms += 1
    return time_ms - 1 / BATCH_RECORDS


def test_a_full_ring_may_have_lost_what_nobody_has_told_of_yet(cpus: Any) -> None:
    """The reader was away; the CPU has been silent since, so others are not held up by it."""
    both = cpus()
    last_ms = fill(both, 0)
    both.batch(1, [last_ms - 0.5, last_ms + 5])
    known = both.read(5_000)
    assert known[last_ms - 0.5]
    assert not known[last_ms + 5]
    unsure_ns = both.ring.unsure_ns()
    assert unsure_ns is not None
    assert unsure_ns <= at(last_ms + 5)
    assert both.ring.lost() == 0


def test_a_full_ring_is_taken_out_some_at_a_time(cpus: Any) -> None:
    both = cpus()
    last_ms = fill(both, 0)
    both.batch(1, [last_ms + 5])
    counts, is_known = [], []
    while not counts or both.ring.has_more:
        counts.append(both.ring.read(both.out, at(last_ms + 6)))
        is_known.append(both.ring.complete_ns(at(last_ms + 6)) >= at(last_ms))
    assert counts[:-1] == [1024] * 6
    assert sum(counts) == 6 * 1024 + counts[-1] == round(last_ms * BATCH_RECORDS) - BATCH_RECORDS + 1
    assert is_known == [False] * 6 + [True]  # not while some of them are in the ring


def test_a_capture_has_one_loss_told_once(cpus: Any) -> None:
    """A tick has room where a frame had none, and tells first; what comes after it is no further loss."""
    both = cpus(snaplen=1_500)
    both.frame(0, 1, lost=0)
    both.batch(0, [], lost=5, end_ms=20)
    both.batch(1, [], end_ms=40)
    both.read(21)
    assert both.ring.unsure_ns() == at(1)
    both.ring.note_counts_read(at(22))
    both.frame(0, 30, lost=5)
    assert both.read(41) == {30: True}
    assert both.ring.unsure_ns() is None


def test_nor_when_the_frame_tells_first(cpus: Any) -> None:
    both = cpus(snaplen=1_500)
    both.frame(0, 1, lost=0)
    both.frame(0, 10, lost=5)
    both.batch(0, [], lost=5, end_ms=20)
    both.frame(1, 15, lost=0)
    both.batch(1, [], end_ms=40)
    assert both.read(21) == {1: False, 10: False, 15: True}
    assert both.ring.lost_ns() == at(10)
