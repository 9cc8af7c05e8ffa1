"""The interfaces of all files of a trace: one list, which grows while they are read."""

import threading
from typing import Final

from tcptrace.records import CaptureInterface

# records.Frames has 16 bits for them.
INTERFACES_MAX: Final = 1 << 16


class Interfaces:
    """`found` only grows.  The files' threads add to it."""

    def __init__(self) -> None:
        self.found: list[CaptureInterface] = []
        self._indices: dict[tuple[int, int, CaptureInterface], int] = {}
        self._lock = threading.Lock()

    def add(self, file: int, place: int, interface: CaptureInterface) -> int:
        """Its index: that of the interface at the same place of an earlier section of the file if it is like it.

        Raises OverflowError when there are INTERFACES_MAX.
        """
        key = (file, place, interface)
        with self._lock:
            if key not in self._indices:
                if len(self.found) >= INTERFACES_MAX:
                    raise OverflowError("too many interfaces")
                self._indices[key] = len(self.found)
                self.found.append(interface)
            return self._indices[key]
