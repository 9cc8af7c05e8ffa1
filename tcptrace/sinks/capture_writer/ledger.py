"""What a file's statistics say: when it was written, what was counted meanwhile."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from tcptrace.model import Clock, View
from tcptrace.sinks.capture_writer.form import Statistics


class Ledger:
    """Of one trace, file by file.

    live: what the source counts happened on the interface, and the trace's beginning and end are those of its files.
    Of a capture file only the packets' own times are known: what its interface counted is not what its reader did.

    Counts are told once an interval, so those of a file that is not the last are what was told while it was written;
    added up over all files they are those of the trace.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._is_first = True
        self._start_ns: int | None = None
        self._end_ns: int | None = None
        self._told: Mapping[str, int] | None = None
        self._told_before: Mapping[str, int] = {}

    def begin_file(self) -> None:
        """The next file: what was told is the last one's."""
        if self._told is not None:
            self._told_before, self._told = self._told, None
        self._is_first = self._is_first and self._start_ns is None
        self._start_ns = self._end_ns = None

    def follow(self, times_ns: npt.NDArray[Any]) -> None:
        """Packets of this file, by the trace's clock."""
        first_ns, last_ns = int(times_ns.min()), int(times_ns.max())
        self._start_ns = first_ns if self._start_ns is None else min(first_ns, self._start_ns)
        self._end_ns = last_ns if self._end_ns is None else max(last_ns, self._end_ns)

    def note(self, view: View) -> None:
        """The end of an interval."""
        if not self._live:
            return
        self._told = dict(view.totals.counters)
        if self._is_first:
            self._start_ns = view.start_ns

    def close(self, view: View) -> None:
        """The end of the trace."""
        self.note(view)
        if self._live:
            self._start_ns = view.time_ns if self._start_ns is None else self._start_ns
            self._end_ns = max(view.time_ns, self._end_ns or 0)

    def statistics(self, clock: Clock, packets: Counter[int]) -> Statistics | None:
        """Of this file; None if there is nothing to say."""
        if self._start_ns is None:
            return None
        end_ns = self._start_ns if self._end_ns is None else self._end_ns
        counters = {name: count - self._told_before.get(name, 0) for name, count in (self._told or {}).items()}
        return Statistics(clock.wall_ns(self._start_ns), clock.wall_ns(end_ns), packets, counters)
