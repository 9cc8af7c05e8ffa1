"""When a capture goes on in the next file, and which files stay."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tcptrace.errors import UsageError


class Rotation:
    """max_bytes: of a file on the disk; period_s: from the first packet on, by the trace's clock; keep: files.

    None is no limit.  UsageError if there is nothing that `keep` could count.
    """

    def __init__(self, max_bytes: int | None, period_s: float | None, keep: int | None) -> None:
        if keep is not None and max_bytes is None and period_s is None:
            raise UsageError("a number of files to keep needs a size or a time after which the next one begins")
        for limit in (max_bytes, period_s, keep):
            if limit is not None and limit <= 0:
                raise UsageError(f"{limit:g} is no limit for a file: it must be more than 0")
        self.max_bytes = max_bytes
        self._keep = keep
        self._period_ns = None if period_s is None else max(1, round(period_s * 1e9))
        self._due_ns: int | None = None

    @property
    def is_on(self) -> bool:
        """There may be more than one file."""
        return self.max_bytes is not None or self._period_ns is not None

    def is_due(self, time_ns: int) -> bool:
        """A packet of this time goes to the next file.  The first packet ever sets when that begins."""
        if self._period_ns is None:
            return False
        if self._due_ns is None:
            self._due_ns = time_ns + self._period_ns
        if time_ns < self._due_ns:
            return False
        self._due_ns += ((time_ns - self._due_ns) // self._period_ns + 1) * self._period_ns
        return True

    def packets_before(self, times_ns: npt.NDArray[Any]) -> int:
        """How many of these go to the same file as the first, after is_due() of that one."""
        if self._due_ns is None:
            return len(times_ns)
        later = times_ns >= self._due_ns
        return int(np.argmax(later)) if later.any() else len(times_ns)

    def leaves(self, number: int) -> int | None:
        """The file that is deleted when file `number` begins."""
        return number - self._keep if self._keep is not None and number > self._keep else None
