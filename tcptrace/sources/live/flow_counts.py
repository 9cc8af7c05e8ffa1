"""What the kernel has counted of flows that lost records: read for those that no later record tells of."""

import ctypes
import errno
import os
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

# Twenty thousand flows take about 10 ms.
_READ_EVERY_NS: Final = 500_000_000
# A program that finds the ring full has counted what it lost by then.
_COUNTED_WITHIN_NS: Final = 250_000_000
# Of bpf/flows.c: enum loss_time.
_LOSSES_UNTIL_NS, _COUNTS_READ_NS, _LOSS_BOUT = 0, 1, 2


class FlowCounter:
    """Reads BPF map `flows_fd` of FLOW_KEY -> FLOW_COUNT with up to `size` entries, and says so in map `times_fd`."""

    def __init__(self, flows_fd: int, times_fd: int, size: int) -> None:
        self._flows_fd, self._times_fd = flows_fd, times_fd
        self._room = size + _BUCKET_ROOM
        self._bout = 0
        self._lib = import_bcc().lib

    def read(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """All flows that were followed since note_read().

        Raises MissingFeatureError where the kernel does not let us: before Linux 5.19 only root may, and what traces
        has given that up.
        """
        keys, counts = np.zeros(self._room, FLOW_KEY), np.zeros(self._room, FLOW_COUNT)
        position, amount = ctypes.create_string_buffer(8), ctypes.c_uint32(self._room)
        where = ctypes.cast(position, ctypes.POINTER(ctypes.c_uint32))
        pointers = keys.ctypes.data_as(ctypes.c_void_p), counts.ctypes.data_as(ctypes.c_void_p)
        result = self._lib.bpf_lookup_batch(self._flows_fd, None, where, *pointers, ctypes.byref(amount))
        if result < 0 and ctypes.get_errno() != errno.ENOENT:  # which says that these are all
            raise MissingFeatureError(f"the kernel's counts cannot be read: {os.strerror(ctypes.get_errno())}")
        keys, counts = keys[: amount.value], counts[: amount.value]
        current = keys["bout"] == self._bout & 0xFFFF
        return keys[current], counts[current]

    def note_read(self, keys: npt.NDArray[Any], time_ns: int) -> bool:
        """All that was lost up to `time_ns` has been taken in, `keys` as read last: the kernel need not tell of it.

        False, and nothing done, if there were losses since, or the kernel does not let us.
        """
        until_ns = ctypes.c_uint64()
        place = ctypes.c_uint32(_LOSSES_UNTIL_NS)
        found = self._lib.bpf_lookup_elem(self._times_fd, ctypes.byref(place), ctypes.byref(until_ns))
        if found != 0 or until_ns.value > time_ns:
            return False
        if not self._set(_LOSS_BOUT, self._bout + 1):
            return False
        self._bout += 1
        self._set(_COUNTS_READ_NS, time_ns)
        self._remove(keys)
        return True

    def _set(self, place: int, value: int) -> bool:
        key, number = ctypes.c_uint32(place), ctypes.c_uint64(value)
        return int(self._lib.bpf_update_elem(self._times_fd, ctypes.byref(key), ctypes.byref(number), 0)) == 0

    def _remove(self, keys: npt.NDArray[Any]) -> None:
        """Of a bout that is over: nobody looks for them any more."""
        amount = ctypes.c_uint32(len(keys))
        if len(keys):
            keys = np.ascontiguousarray(keys)
            self._lib.bpf_delete_batch(self._flows_fd, keys.ctypes.data_as(ctypes.c_void_p), ctypes.byref(amount))


class LostAndCounted:
    """Decides when to read, and hands the counts on once all records up to then have been read."""

    def __init__(self, counter: FlowCounter) -> None:
        self._counter = counter
        self._lost = 0  # of which the counts have been read
        self._read_ns = 0
        self._known_ns = 0  # what was lost up to then is known
        self._waiting: FlowCounts | None = None
        self._problem: str | None = None  # why there are none
        self._is_told = False

    def take(self, lost: int, lost_ns: int, complete_ns: int, *, finished: bool) -> FlowCounts | None:
        """Counts that records cannot add to any more, if there is news of `lost`; else None.

        lost_ns: up to when they are; complete_ns: up to when all records have been handed on; finished: there will be
        no more.
        """
        if self._waiting is not None:
            if not finished and complete_ns < self._waiting[2]:
                return None
            return self._hand_on(self._waiting, lost, lost_ns)
        is_news = lost != self._lost or (lost > 0 and lost_ns >= self._known_ns and not finished)
        if is_news and (finished or self._is_due()):
            self._read(lost)
            if finished and self._waiting is not None:
                return self._hand_on(self._waiting, lost, lost_ns)
        return None

    def _is_due(self) -> bool:
        return time.monotonic_ns() - self._read_ns >= _READ_EVERY_NS

    def _read(self, lost: int) -> None:
        self._read_ns = time.monotonic_ns()
        try:
            keys, counts = self._counter.read()
            self._waiting = keys, counts, time.monotonic_ns()
            self._lost, self._problem = lost, None
        except MissingFeatureError as error:
            self._problem = str(error)

    def _hand_on(self, counts: FlowCounts, lost: int, lost_ns: int) -> FlowCounts:
        self._waiting = None
        known_ns = self._read_ns - _COUNTED_WITHIN_NS
        if lost == self._lost and lost_ns < known_ns and self._counter.note_read(counts[0], known_ns):
            self._known_ns = known_ns
        return counts

    @property
    def known_ns(self) -> int:
        """What was lost up to then has been handed on."""
        return self._known_ns

    def take_problem(self) -> str | None:
        """Once: why what is lost at the end of a connection is not counted."""
        if self._problem is None or self._is_told:
            return None
        self._is_told = True
        return (
            f"records were lost, and {self._problem}: packets after the last one seen of a connection are not counted"
        )
