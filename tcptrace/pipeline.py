"""source -> engine -> sinks: the only loop.  Knows none of the concrete classes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from tcptrace.errors import TcptraceError
from tcptrace.model import FINDING, Clock, Indices, PacketBatch, Rows, Sink, SocketBatch, SocketEventSink, Totals
from tcptrace.records import SOCKET_FOUND, SOCKET_RETRANSMISSION, SOCKET_STATE, Frames

# How long a read may wait, and a Ctrl-C goes unnoticed: a wake costs others more than its own time takes.
READ_TIMEOUT_S: Final = 0.1
# … where packets or sockets' events are shown as they come.
READ_TIMEOUT_SHOWN_S: Final = 0.05
# So long, a tick, the kernel side may keep a packet back: before an interval's end there is no use in waiting less.
READ_TIMEOUT_MIN_S: Final = 0.02
# Sockets asked for at the end of an interval: about 5 us each.
ASKED_SOCKETS: Final = 2000


class Source(Protocol):
    """Where records come from.  Times are the trace's clock, nanoseconds."""

    clock: Clock
    start_ns: int  # records begin here
    is_recorded: bool  # time passes with the records, not by itself: capture files

    def now_ns(self) -> int: ...

    def complete_ns(self) -> int:
        """All records up to this time have been handed on, or will be by the next read."""
        ...

    def read(self, timeout_s: float) -> npt.NDArray[Any]:
        """The next records in time order (records.PACKET_RECORD), possibly none after `timeout_s`."""
        ...

    def frames(self) -> Frames | None:
        """The frames of the records that the last read() returned, where the source was asked to keep them."""
        ...

    def read_sockets(self) -> npt.NDArray[Any]:
        """What the kernel said of sockets (records.SOCKET_RECORD, in time order) up to the packets read so far."""
        ...

    def ask_sockets(self, keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the kernel holds now of these sockets (records.SOCKET_KEY), as far as there are such."""
        ...

    def unsure_ns(self) -> int | None:
        """Since when records without records.NOTE_COUNTED may have lost ones before them; None: none have."""
        ...

    def take_flow_counts(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int] | None:
        """What had been lost of each flow (records.FLOW_KEY, FLOW_COUNT) at a time that all records have been handed
        on up to; None while there is no news of lost records.
        """
        ...

    def stop(self) -> None:
        """Nothing that happens from now on is wanted; what happened before is still read."""
        ...

    @property
    def finished(self) -> bool: ...

    def check(self) -> str | None:
        """At least once an interval, until there is none: the next warning.

        Raises TcptraceError when there can be no more records.
        """
        ...

    def fill_totals(self, totals: Totals) -> None:
        """Add what only the source knows."""
        ...

    def cpu_ns(self) -> int: ...


class Engine(Protocol):
    """The analysis: engine.table.Table."""

    def process(self, records: npt.NDArray[Any], findings: npt.NDArray[Any] | None = None) -> int: ...
    def expect_gaps(self, since_ns: int | None) -> None: ...
    def process_flows(self, keys: npt.NDArray[Any], counts: npt.NDArray[Any], now_ns: int) -> int: ...
    def process_sockets(self, records: npt.NDArray[Any], ids: npt.NDArray[Any] | None = None) -> int: ...
    def stale_sockets(self, limit: int) -> npt.NDArray[Any]: ...
    def expire(self, now_ns: int) -> bool: ...
    def take_ended(self) -> Rows: ...
    def refresh(self, now_ns: int) -> float: ...
    def rows_view(self) -> Rows: ...
    def touched_rows(self) -> Indices: ...
    def clear_changed(self) -> None: ...
    def totals(self) -> Totals: ...


@dataclass(frozen=True)
class Limits:
    """When the trace ends by itself: seconds and wire packets, None for never."""

    duration_s: float | None = None
    packets: int | None = None


@dataclass
class IntervalView:
    """model.View: what the sinks see at the end of an interval."""

    time_ns: int
    start_ns: int
    interval_s: float
    cpu_percent: float
    totals: Totals
    rows: Rows
    touched_rows: Callable[[], Indices]

    def table(self) -> Rows:
        return self.rows

    def touched(self) -> Indices:
        return self.touched_rows()


@dataclass
class Pipeline:
    """One trace.  `stop_requested` is asked before each read; `warn` takes a line for the user.

    interval_s: time between updates by the trace's clock; None for none but the final output.
    """

    source: Source
    engine: Engine
    sinks: Sequence[Sink]
    interval_s: float | None
    limits: Limits
    stop_requested: Callable[[], bool]
    warn: Callable[[str], None]
    socket_event_sinks: Sequence[SocketEventSink] = ()
    progress: Callable[[], None] = lambda: None  # called often
    at_end: Callable[[], None] = lambda: None  # called before the final output
    _packets: int = field(default=0, init=False)
    _packet_sinks: list[Sink] = field(default_factory=list, init=False)
    _shown: bool = field(default=False, init=False)
    _due_ns: int = field(default=0, init=False)
    _last_ns: int = field(default=0, init=False)  # of the last record taken
    _broken: TcptraceError | None = field(default=None, init=False)

    def run(self) -> None:
        """Until a limit, a request to stop or the end of the source; then the final output.

        Raises TcptraceError after the final output if the source or an output broke off.
        """
        self._packet_sinks = [sink for sink in self.sinks if sink.wants_packets]
        self._cpu_ns, self._cpu_since = self.source.cpu_ns(), time.perf_counter_ns()
        self._due_ns = self.source.start_ns + self._interval_ns()
        step = self._recorded_step if self.source.is_recorded else self._live_step
        try:
            if not self.source.is_recorded:
                self._take_open_sockets()
            while not self._is_over():
                step()
                self.progress()
        except TcptraceError as error:
            self._broken = error
        self._finish()
        if self._broken is not None:
            raise self._broken

    def _interval_ns(self) -> int:
        return round((self.interval_s or 0) * 1e9)

    def _take_open_sockets(self) -> None:
        """Their connections are older than the first packet.  They are shown at once, not after a first interval."""
        records = self.source.read_sockets()
        self._take_sockets(records)
        if (records["event"] == SOCKET_FOUND).any():
            self._end_interval(self.source.start_ns)

    def _live_step(self) -> None:
        """What the source has now; an interval ends by the clock."""
        records = self.source.read(self._timeout_s(self.source.now_ns()))
        self._take_all(records)
        self._take_sockets(self.source.read_sockets())
        self._take_flow_counts()
        now_ns = self.source.now_ns()
        # The first packets are shown at once, not after a first interval.
        if now_ns >= self._due_ns or (self._packets and not self._shown):
            self._shown = self._shown or self._packets > 0
            self._due_ns = now_ns + self._interval_ns()
            self._end_interval(self.source.complete_ns())

    def _timeout_s(self, now_ns: int) -> float:
        """How long to wait for records: not past the interval's end, or the trace's."""
        end_ns = self._end_ns()
        due_ns = self._due_ns if end_ns is None else min(self._due_ns, end_ns)
        return min(self._most_s(), max(READ_TIMEOUT_MIN_S, (due_ns - now_ns) / 1e9))

    def _most_s(self) -> float:
        return READ_TIMEOUT_SHOWN_S if self._packet_sinks or self.socket_event_sinks else READ_TIMEOUT_S

    def _recorded_step(self) -> None:
        """The next records of a file; an interval ends before the first record past it."""
        records = self.source.read(READ_TIMEOUT_S)
        done = 0
        while self.interval_s is not None:
            later = np.flatnonzero(records["time_ns"][done:] >= self._due_ns)
            if not len(later):
                break
            self._take(records, done, done + int(later[0]))
            done += int(later[0])
            self._end_interval(self._due_ns)
            self._due_ns = max(self._due_ns + self._interval_ns(), int(records["time_ns"][done]))
        self._take(records, done, len(records))
        self._heed_warning()

    def _is_over(self) -> bool:
        if self.stop_requested() or self.source.finished:
            return True
        if self.limits.packets is not None and self._packets >= self.limits.packets:
            return True
        end_ns = self._end_ns()
        return end_ns is not None and self.source.now_ns() >= end_ns

    def _end_ns(self) -> int | None:
        """When the time that the user gave is over, by the trace's clock."""
        return None if self.limits.duration_s is None else self.source.start_ns + round(self.limits.duration_s * 1e9)

    def _take_all(self, records: npt.NDArray[Any]) -> None:
        self._take(records, 0, len(records))

    def _take(self, records: npt.NDArray[Any], start: int, stop: int) -> None:
        """Records start to stop, as returned by the last read, to the engine and to the sinks that want them."""
        part = self._within_limits(records[start:stop])
        if not len(part):
            return
        self.engine.expect_gaps(self.source.unsure_ns())
        # How many exactly matters to a limit alone, and the sum goes through memory that nobody has touched yet.
        self._packets += len(part) if self.limits.packets is None else int(part["segments"].sum(dtype=np.int64))
        self._last_ns = int(part["time_ns"][-1])
        findings = np.empty(len(part), FINDING) if self._packet_sinks else None
        taken = 0
        while taken < len(part):
            taken += self.engine.process(part[taken:], None if findings is None else findings[taken:])
            self._hand_on_ended()
        if findings is None:
            return
        frames = self.source.frames()
        batch = PacketBatch(part, findings, None if frames is None else frames.part(start, start + len(part)))
        for sink in self._packet_sinks:
            sink.packets(batch)

    def _take_flow_counts(self) -> None:
        """What was lost counts all the same, but not past the limit of packets."""
        counted = self.source.take_flow_counts()
        if counted is None or (self.limits.packets is not None and self._packets >= self.limits.packets):
            return
        keys, counts, time_ns = counted
        taken = 0
        while taken < len(keys):
            taken += self.engine.process_flows(keys[taken:], counts[taken:], time_ns)
            self._hand_on_ended()

    def _take_sockets(self, records: npt.NDArray[Any]) -> None:
        """What the kernel said of sockets joins the connections that packets have made."""
        ids = np.zeros(len(records), "u8") if self.socket_event_sinks and len(records) else None
        taken = 0
        while taken < len(records):
            taken += self.engine.process_sockets(records[taken:], None if ids is None else ids[taken:])
            self._hand_on_ended()
        if ids is None:
            return
        # Of the namespace's sockets some have their packets on other interfaces, or filtered out.
        told = (records["event"] == SOCKET_RETRANSMISSION) | (records["event"] == SOCKET_STATE)
        events = np.flatnonzero(told & (ids != 0))
        if len(events):
            batch = SocketBatch(records[events], ids[events])
            for sink in self.socket_event_sinks:
                sink.socket_events(batch)

    def _within_limits(self, records: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Not more than reach the limits of time and packets; a super-packet is not divided."""
        end_ns = self._end_ns()
        if end_ns is not None and self.source.is_recorded and len(records):
            late = records["time_ns"] >= end_ns
            records = records[: int(late.argmax())] if late.any() else records
        if self.limits.packets is None or not len(records):
            return records
        wanted = self.limits.packets - self._packets
        if wanted <= 0:
            return records[:0]
        return records[: int(np.searchsorted(np.cumsum(records["segments"], dtype=np.int64), wanted)) + 1]

    def _hand_on_ended(self) -> None:
        rows = self.engine.take_ended()
        if len(rows):
            for sink in self.sinks:
                sink.ended(rows)

    def _expire(self, now_ns: int) -> None:
        while not self.engine.expire(now_ns):
            self._hand_on_ended()
        self._hand_on_ended()

    def _end_interval(self, now_ns: int) -> None:
        """All records before now_ns have been taken."""
        self._expire(now_ns)
        self._ask_sockets()
        view = self._view(now_ns)
        for sink in self.sinks:
            sink.update(view)
        self.engine.clear_changed()
        self._heed_warning()

    def _ask_sockets(self) -> None:
        """The kernel tells of a socket ten times a second at most: what has changed since then is asked for."""
        if not self.source.is_recorded:
            self._take_sockets(self.source.ask_sockets(self.engine.stale_sockets(ASKED_SOCKETS)))

    def _heed_warning(self) -> None:
        while warning := self.source.check():
            self.warn(warning)

    def _view(self, now_ns: int) -> IntervalView:
        interval_s = self.engine.refresh(now_ns)
        totals = self.engine.totals()
        self.source.fill_totals(totals)
        cpu_ns, since = self.source.cpu_ns(), time.perf_counter_ns()
        cpu_percent = 100 * (cpu_ns - self._cpu_ns) / max(since - self._cpu_since, 1)
        self._cpu_ns, self._cpu_since = cpu_ns, since
        rows, touched_rows = self.engine.rows_view(), self.engine.touched_rows
        return IntervalView(now_ns, self.source.start_ns, interval_s, cpu_percent, totals, rows, touched_rows)

    def _finish(self) -> None:
        """What was under way when the end came still counts; then the final output, of as many sinks as can."""
        self._attempt(self.source.stop)
        self._attempt(self._take_rest)
        self.at_end()
        view = self._view(self._complete_ns())
        for sink in self.sinks:
            self._attempt(lambda: sink.close(view))  # noqa: B023, called at once

    def _complete_ns(self) -> int:
        """Up to when the trace goes: of files not beyond the limit that ended it, however far they have been read."""
        complete_ns = self.source.complete_ns()
        if not self.source.is_recorded:
            return complete_ns
        if self.limits.packets is not None and self._packets >= self.limits.packets:
            return max(self._last_ns, self.source.start_ns)
        end_ns = self._end_ns()
        return complete_ns if end_ns is None else min(complete_ns, end_ns)

    def _take_rest(self) -> None:
        while not self.source.finished:
            self._take_all(self.source.read(self._most_s()))
        while len(records := self.source.read(0)):
            self._take_all(records)
        for _ in range(2):  # one that waits, and the last one
            self._take_flow_counts()
        if not self.source.is_recorded:
            self._take_sockets(self.source.read_sockets())
            while len(keys := self.engine.stale_sockets(ASKED_SOCKETS)):
                self._take_sockets(self.source.ask_sockets(keys))
        self._heed_warning()

    def _attempt(self, step: Callable[[], None]) -> None:
        """The first error is what the user is told; it does not keep the others from their end."""
        try:
            step()
        except TcptraceError as error:
            self._broken = self._broken or error
