"""source -> engine -> sinks: the only loop.  Knows none of the concrete classes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from tcptrace.errors import TcptraceError
from tcptrace.model import FINDING, Clock, PacketBatch, Rows, Sink, Totals
from tcptrace.records import Frames

# How long a read may wait: as long as the kernel side keeps a packet back (a tick), and a Ctrl-C goes unnoticed.
READ_TIMEOUT_S: Final = 0.02


class Source(Protocol):
    """Where records come from.  Times are the trace's clock, nanoseconds."""

    clock: Clock
    start_ns: int  # records begin here

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

    def stop(self) -> None:
        """Nothing that happens from now on is wanted; what happened before is still read."""
        ...

    @property
    def finished(self) -> bool: ...

    def check(self) -> str | None:
        """Once an interval: a warning, if any.  Raises TcptraceError when there can be no more records."""
        ...

    def fill_totals(self, totals: Totals) -> None:
        """Add what only the source knows."""
        ...

    def cpu_ns(self) -> int: ...


class Engine(Protocol):
    """The analysis: engine.table.Table."""

    def process(self, records: npt.NDArray[Any], findings: npt.NDArray[Any] | None = None) -> int: ...
    def expire(self, now_ns: int) -> bool: ...
    def take_ended(self) -> Rows: ...
    def refresh(self, now_ns: int) -> float: ...
    def rows_view(self) -> Rows: ...
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

    def table(self) -> Rows:
        return self.rows


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
    _packets: int = field(default=0, init=False)
    _packet_sinks: list[Sink] = field(default_factory=list, init=False)

    def run(self) -> None:
        """Until a limit, a request to stop or the end of the source; then the final output.

        Raises TcptraceError after the final output if the source broke off.
        """
        started_ns = self.source.start_ns
        self._cpu_ns, self._cpu_since = self.source.cpu_ns(), time.perf_counter_ns()
        broken: TcptraceError | None = None
        self._packet_sinks = [sink for sink in self.sinks if sink.wants_packets]
        interval_ns = int(self.interval_s * 1e9) if self.interval_s is not None else None
        due_ns = started_ns + (interval_ns or 0)
        shown = False
        while not self._is_over(started_ns):
            self._take(self.source.read(READ_TIMEOUT_S))
            now_ns = self.source.now_ns()
            if interval_ns is None:
                self._expire(self.source.complete_ns())
                continue
            # The first packets are shown at once, not after a first interval.
            if now_ns < due_ns and (shown or not self._packets):
                continue
            shown = shown or self._packets > 0
            due_ns = now_ns + interval_ns
            try:
                self._end_interval()
            except TcptraceError as error:
                broken = error
                break
        self._finish()
        if broken is not None:
            raise broken

    def _is_over(self, started_ns: int) -> bool:
        if self.stop_requested() or self.source.finished:
            return True
        if self.limits.packets is not None and self._packets >= self.limits.packets:
            return True
        duration_s = self.limits.duration_s
        return duration_s is not None and self.source.now_ns() >= started_ns + duration_s * 1e9

    def _take(self, records: npt.NDArray[Any]) -> None:
        """Records to the engine and to the sinks that want them."""
        records = self._up_to_limit(records)
        if not len(records):
            return
        self._packets += int(records["segments"].sum(dtype=np.int64))
        findings = np.empty(len(records), FINDING) if self._packet_sinks else None
        taken = 0
        while taken < len(records):
            taken += self.engine.process(records[taken:], None if findings is None else findings[taken:])
            self._hand_on_ended()
        if findings is None:
            return
        frames = self.source.frames()
        batch = PacketBatch(records, findings, None if frames is None else frames.first(len(records)))
        for sink in self._packet_sinks:
            sink.packets(batch)

    def _up_to_limit(self, records: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Not more than reach the limit of packets; a super-packet is not divided."""
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

    def _end_interval(self) -> None:
        complete_ns = self.source.complete_ns()
        self._expire(complete_ns)
        view = self._view(complete_ns)
        for sink in self.sinks:
            sink.update(view)
        self.engine.clear_changed()
        warning = self.source.check()
        if warning:
            self.warn(warning)

    def _view(self, now_ns: int) -> IntervalView:
        interval_s = self.engine.refresh(now_ns)
        totals = self.engine.totals()
        self.source.fill_totals(totals)
        cpu_ns, since = self.source.cpu_ns(), time.perf_counter_ns()
        cpu_percent = 100 * (cpu_ns - self._cpu_ns) / max(since - self._cpu_since, 1)
        self._cpu_ns, self._cpu_since = cpu_ns, since
        return IntervalView(now_ns, self.source.start_ns, interval_s, cpu_percent, totals, self.engine.rows_view())

    def _finish(self) -> None:
        """What was under way when the end came still counts.  Raises TcptraceError after the final output."""
        trouble: TcptraceError | None = None
        try:
            self.source.stop()
        except TcptraceError as error:
            trouble = error
        while not self.source.finished:
            self._take(self.source.read(READ_TIMEOUT_S))
        while len(records := self.source.read(0)):
            self._take(records)
        view = self._view(self.source.complete_ns())
        for sink in self.sinks:
            sink.close(view)
        if trouble is not None:
            raise trouble
