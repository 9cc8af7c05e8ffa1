"""Capture files, from bytes on disk to records in time order: pipeline.Source."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.errors import UsageError
from tcptrace.model import Clock, Totals
from tcptrace.records import SOCKET_RECORD, CaptureInterface, Frames
from tcptrace.sources.capture_file.chunk import COUNTER_NAMES, Chunk
from tcptrace.sources.capture_file.filter_programs import programs_for
from tcptrace.sources.capture_file.interfaces import Interfaces
from tcptrace.sources.capture_file.merge import Merge
from tcptrace.sources.capture_file.opening import STDIN, open_capture
from tcptrace.sources.capture_file.reading import Reading

# Records handed on at once: 1.4 MB, so that the CPU's cache still has most of them, and seldom enough for Python.
READ_RECORDS: Final = 8192
# Of each of many files fewer are read ahead.
_READ_AHEAD_MIN_RECORDS: Final = 256
# Bytes of frames handed on at once: what 8192 records of half the ordinary size have.
_ARENA_BYTES: Final = 4 << 20


class CaptureSource:
    """The packets of capture files (pcap, pcapng; also in gzip, zstd or xz), merged by time.

    `paths`: files, "-" is standard input; `expression`: a filter (pcap-filter(7)), None for none;
    `keep_frames`: frames() is wanted.  Waits for the first frame of each file.
    `start_ns` is the time of the first frame of any kind, 0 where there is none.
    Raises UsageError for a bad filter, TcptraceError and its kinds for a file that cannot be read at all; what breaks
    later ends that file alone, and check() tells.
    """

    is_recorded = True

    def __init__(self, paths: Sequence[str], expression: str | None, *, keep_frames: bool) -> None:
        if paths.count(STDIN) > 1:
            raise UsageError("standard input can be read only once")
        self.clock = Clock(0)
        self._interfaces = Interfaces()
        self.interfaces: Sequence[CaptureInterface] = self._interfaces.found
        """Of the frames, as records.Frames numbers them; some may be added while files are read."""
        self._readings: list[Reading] = []
        self._merge = Merge(len(paths))
        self._counters: Counter[str] = Counter(dict.fromkeys((*COUNTER_NAMES, "cut_off"), 0))
        self._unordered = 0
        self._warnings: list[str] = []
        self._stopped = False
        self._open_files = set(range(len(paths)))
        arena_bytes = _ARENA_BYTES if keep_frames else 0
        self._out = Chunk(READ_RECORDS, arena_bytes)  # of several files
        self._handed_on = self._out, 0, 0
        try:
            self._open(paths, expression, arena_bytes)
        except BaseException:
            self.stop()
            raise
        starts = [reading.chunk.first_ns for reading in self._readings if reading.chunk.frames]
        self.start_ns = self._now_ns = min(starts, default=0)

    def _open(self, paths: Sequence[str], expression: str | None, arena_bytes: int) -> None:
        programs = programs_for(expression)
        chunk_records = max(_READ_AHEAD_MIN_RECORDS, READ_RECORDS // max(len(paths), 1))
        for number, path in enumerate(paths):
            file = open_capture(path)
            reading = Reading(
                number, file, self._interfaces, programs, chunk_records=chunk_records, arena_bytes=arena_bytes
            )
            self._readings.append(reading)
            # One after the other, so that interfaces have the same numbers each time.
            reading.wait_for_first_frame()
            self._merge.put(number, reading.chunk)

    def now_ns(self) -> int:
        """Time of the last record handed on, or of a later frame that was none."""
        return self._now_ns

    def complete_ns(self) -> int:
        """The same, or start_ns: what comes next in the files is later, as far as they are in order."""
        return max(self._now_ns, self.start_ns)

    def read(self, timeout_s: float) -> npt.NDArray[Any]:
        """The next records, possibly none after `timeout_s` (a slow stream); valid until the next call."""
        deadline = time.monotonic() + timeout_s
        if len(self._readings) == 1:
            self._read_one(deadline)
        else:
            self._read_merged(deadline)
        chunk, first, end = self._handed_on
        return chunk.records[first:end]

    def _read_one(self, deadline: float) -> None:
        """The only file's records are in order where they are: no copy of them is made."""
        first = self._handed_on[2] if self._handed_on[0] is self._readings[0].chunk else 0
        while not self.finished:
            reading = self._readings[0]
            while not reading.chunk.done and (left_s := deadline - time.monotonic()) > 0:
                reading.wait(left_s)
            chunk, done, last_ns = reading.chunk, reading.chunk.done, reading.chunk.last_ns
            end = len(chunk)
            self._handed_on = chunk, first, end
            if end > first:
                self._now_ns = int(chunk.records["time_ns"][end - 1])
                return
            self._now_ns = last_ns or self._now_ns
            if not done:
                return
            self._next_chunk(0)
            first = 0
        self._handed_on = self._out, 0, 0

    def _read_merged(self, deadline: float) -> None:
        self._out.clear()
        while not self.finished and (file := self._merge_more()) >= 0:
            if self._go_on_with(file):
                continue
            left_s = deadline - time.monotonic()
            if len(self._out) or left_s <= 0:
                break
            self._readings[file].wait(left_s)
        self._handed_on = self._out, 0, len(self._out)

    def _merge_more(self) -> int:
        """The number of the file without which it does not go on; negative: enough for now."""
        before = len(self._out)
        file = self._merge.merge(self._out)
        if len(self._out) > before:
            self._now_ns = int(self._out.records["time_ns"][len(self._out) - 1])
        return file

    def _go_on_with(self, file: int) -> bool:
        """Whether there is more of the file now, or it has ended."""
        reading = self._readings[file]
        done, last_ns = reading.chunk.done, reading.chunk.last_ns
        if not self._merge.is_used_up(file):
            return True
        if len(self._open_files) == 1 and last_ns:
            self._now_ns = last_ns
        if not done:
            return False
        self._merge.put(file, self._next_chunk(file))
        return True

    def _next_chunk(self, file: int) -> Chunk | None:
        """After the file's chunk is done and used up; None if the file has ended."""
        reading = self._readings[file]
        self._counters.update(reading.chunk.counters())
        self._unordered += reading.chunk.unordered
        following = reading.next_chunk()
        if following is None:
            self._end(file)
        return following

    def _end(self, file: int) -> None:
        self._open_files.discard(file)
        self._counters["cut_off"] += self._readings[file].is_broken
        self._warnings += self._readings[file].warnings()

    def frames(self) -> Frames | None:
        """The frames of the records that the last read() returned; None unless they are kept."""
        chunk, first, end = self._handed_on
        kept = chunk.kept_frames()
        return None if kept is None else kept.part(first, end)

    def read_sockets(self) -> npt.NDArray[Any]:
        """None: a file knows nothing of sockets."""
        return np.zeros(0, SOCKET_RECORD)

    def ask_sockets(self, keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """None of them: the host that runs this need not be the one of the capture."""
        return np.zeros(0, SOCKET_RECORD)

    def stop(self) -> None:
        """No more is wanted: read() has nothing more to give."""
        self._stopped = True
        for reading in self._readings:
            reading.stop()

    def close(self) -> None:
        """Give the files back."""
        self.stop()

    @property
    def finished(self) -> bool:
        """All files have been read to their ends, or stop() was called."""
        return self._stopped or not self._open_files

    def unsure_ns(self) -> None:
        """No record of a file is lost."""

    def take_flow_counts(self) -> None:
        """A file has no counts of its own."""

    def check(self) -> str | None:
        """The next line that says what could not be read of a file and why."""
        return self._warnings.pop(0) if self._warnings else None

    def fill_totals(self, totals: Totals) -> None:
        """Counts of the frames up to where records were handed on, to a few thousand frames."""
        counters = self._counters.copy()
        unordered = self._unordered
        for file in self._open_files:
            chunk = self._readings[file].chunk
            counters.update(chunk.counters())
            unordered += chunk.unordered
        totals.counters = dict(counters)
        totals.unordered = unordered

    def cpu_ns(self) -> int:
        """CPU time of this process so far."""
        return time.process_time_ns()

    def progress(self) -> tuple[int, int | None]:
        """Bytes read of the files as they are, and of how many; None where that is not known."""
        parts = [reading.progress() for reading in self._readings]
        sizes = [size for _, size in parts if size is not None]
        return sum(done for done, _ in parts), sum(sizes) if len(sizes) == len(parts) else None
