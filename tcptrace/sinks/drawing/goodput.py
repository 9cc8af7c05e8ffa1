"""Which bytes of each segment had not been sent before."""

from bisect import bisect_left, bisect_right
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace import records as r
from tcptrace.sinks.drawing.sequence_numbers import payload_begins

Array = npt.NDArray[Any]

_LOWEST: Final = int(np.iinfo(np.int64).min)


def new_bytes(packets: Array, seq: Array, direction: int) -> Array:
    """Of each packet sent in `direction`: payload bytes that no earlier one carried; 0 for the other packets.

    PACKET records in the order of the trace and their relative numbers.  Each byte counts once, wherever it came late.
    """
    carries = (packets["received"] == direction) & (packets["payload_bytes"] > 0)
    carries &= packets["flags"] & r.FLAG_RST == 0  # numbers of a reset may be made up
    found = np.zeros(len(packets), np.int64)
    if not carries.any():
        return found
    begin = payload_begins(packets, seq)[carries]
    end = begin + packets["payload_bytes"][carries]
    before = np.concatenate([begin[:1], np.maximum.accumulate(end)[:-1]])
    fresh = np.maximum(end - np.maximum(begin, before), 0)
    gaps = _Gaps()
    gaps.add(_LOWEST, int(begin[0]))
    unordered = np.flatnonzero(begin != before)
    ranges = zip(begin[unordered].tolist(), end[unordered].tolist(), before[unordered].tolist(), strict=True)
    for index, (first, stop, highest) in zip(unordered.tolist(), ranges, strict=True):
        if first > highest:
            gaps.add(highest, first)
        else:
            fresh[index] += gaps.fill(first, min(stop, highest))
    found[carries] = fresh
    return found


class _Gaps:
    """Ranges below the highest byte that were not sent yet, in order."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []

    def add(self, begin: int, end: int) -> None:
        """One above all others."""
        self._begins.append(begin)
        self._ends.append(end)

    def fill(self, begin: int, end: int) -> int:
        """How many bytes from `begin` to `end` were missing; they are not any more."""
        first, last = bisect_right(self._ends, begin), bisect_left(self._begins, end)
        if first >= last:
            return 0
        cut = list(zip(self._begins[first:last], self._ends[first:last], strict=True))
        left = [(low, min(high, begin)) for low, high in cut if low < begin]
        left += [(max(low, end), high) for low, high in cut if high > end]
        self._begins[first:last] = [low for low, _ in left]
        self._ends[first:last] = [high for _, high in left]
        return sum(min(high, end) - max(low, begin) for low, high in cut)
