"""What the kernel has counted of flows whose records were lost: it is read as those may be the last ones of a flow."""

import ctypes
import errno
import os
import platform
import re
import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.errors import MissingFeatureError
from tcptrace.records import FLOW_COUNT, FLOW_KEY
from tcptrace.sources.live.bcc_loader import import_bcc

FlowCounts = tuple[npt.NDArray[Any], npt.NDArray[Any], int]
"""FLOW_KEY and FLOW_COUNT arrays of one length, and the time that they are of (CLOCK_MONOTONIC, ns)."""

# The kernel hands over whole buckets of its hash table: room for one that is much fuller than they are.
_BUCKET_ROOM: Final = 1024


# Since this release whoever holds a map's file descriptor may read it.
_READ_BY_ANYONE: Final = (5, 19)
# Twenty thousand flows take about 10 ms.
_READ_EVERY_NS: Final = 500_000_000


def may_read_counts() -> bool:
    """Whether this kernel lets a process read them that has given its privileges up."""
    numbers = re.match(r"(\d+)\.(\d+)", platform.release())
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _READ_BY_ANYONE


class FlowCounter:
    """Reads BPF map `map_fd` of FLOW_KEY -> FLOW_COUNT with up to `size` entries."""

    def __init__(self, map_fd: int, size: int) -> None:
        self._fd = map_fd
        self._room = size + _BUCKET_ROOM
        self._lib = import_bcc().lib

    def read(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """All flows.

        Raises MissingFeatureError where the kernel does not let us: before Linux 5.19 only root may, and what traces
        has given that up.
        """
        keys, counts = np.zeros(self._room, FLOW_KEY), np.zeros(self._room, FLOW_COUNT)
        position, amount = ctypes.create_string_buffer(8), ctypes.c_uint32(self._room)
        where = ctypes.cast(position, ctypes.POINTER(ctypes.c_uint32))
        pointers = keys.ctypes.data_as(ctypes.c_void_p), counts.ctypes.data_as(ctypes.c_void_p)
        result = self._lib.bpf_lookup_batch(self._fd, None, where, *pointers, ctypes.byref(amount))
        if result < 0 and ctypes.get_errno() != errno.ENOENT:  # which says that these are all
            raise MissingFeatureError(f"the kernel's counts cannot be read: {os.strerror(ctypes.get_errno())}")
        return keys[: amount.value], counts[: amount.value]


class LostAndCounted:
    """Decides when to read, and hands the counts on once all records up to then have been read."""

    def __init__(self, counter: FlowCounter) -> None:
        self._counter = counter
        self._lost = 0  # of which the counts have been read
        self._read_ns = 0
        self._waiting: FlowCounts | None = None
        self._problem: str | None = None  # why there are none any more
        self._is_told = False

    def take(self, lost: int, complete_ns: int, *, finished: bool) -> FlowCounts | None:
        """Counts that records cannot add to any more, if `lost` has risen since the last ones; else None.

        complete_ns: up to when all records have been handed on; finished: there will be no more.
        """
        if self._waiting is not None:
            if not finished and complete_ns < self._waiting[2]:
                return None
            taken, self._waiting = self._waiting, None
            return taken
        if lost != self._lost and self._problem is None and (finished or self._is_due()):
            self._read(lost)
            return self.take(lost, complete_ns, finished=True) if finished and self._waiting else None
        return None

    def _is_due(self) -> bool:
        return time.monotonic_ns() - self._read_ns >= _READ_EVERY_NS

    def _read(self, lost: int) -> None:
        try:
            keys, counts = self._counter.read()
            self._read_ns = time.monotonic_ns()
            self._waiting = keys, counts, self._read_ns
            self._lost = lost
        except MissingFeatureError as error:
            self._problem = str(error)

    def take_problem(self) -> str | None:
        """Once: why what is lost at the end of a connection is not counted."""
        if self._problem is None or self._is_told:
            return None
        self._is_told = True
        return (
            f"records were lost, and {self._problem}: packets after the last one seen of a connection are not counted"
        )
