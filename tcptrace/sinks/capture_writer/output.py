"""One capture file on its way to the disk: buffered, compressed, and cut to what is whole when a write fails."""

import os
import select
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tcptrace.sinks.capture_writer.compression import Compression

BUFFER_BYTES: Final = 1 << 20
"""Written at once; larger than any block.  Compressed, it is one piece."""
_PIECES: Final = 8
"""Of a compressed file of limited size, at least: as much as one of them may be missing from its size."""

WholePackets = Callable[[memoryview], tuple[int, Counter[int]]]
"""form.Format.whole_packets."""


class Output:
    """A file descriptor that whole blocks are written to.  Methods raise OSError.

    When one did, the file ends after the last whole block (compressed: piece), `packets` are those in it, and
    end_after_error() is all that may follow.  max_bytes: what the file may take on disk, None for any.
    """

    def __init__(
        self, fd: int, whole_packets: WholePackets, compression: Compression | None, max_bytes: int | None
    ) -> None:
        self.buffer = bytearray(BUFFER_BYTES)
        self.used = 0
        self.packets = Counter[int]()
        """By interface: on the disk."""
        self._waiting = Counter[int]()  # in the buffer
        self._latest = Counter[int]()  # in the latest piece,
        self._latest_bytes = 0  # which is so long
        self._written_bytes = 0
        self._lead_bytes = 0
        self._fd = fd
        self._whole_packets = whole_packets
        self._compression = compression
        self._max_bytes = max_bytes

    @property
    def has_packets(self) -> bool:
        """On the disk or in the buffer."""
        return bool(self.packets or self._waiting)

    @property
    def is_regular(self) -> bool:
        """A file on a disk, where a write does not wait for a reader."""
        return stat.S_ISREG(os.fstat(self._fd).st_mode)

    def room(self, end_bytes: int) -> int:
        """How far the buffer may be filled so that `end_bytes` still fit the file."""
        if self._max_bytes is None:
            return BUFFER_BYTES
        left = self._max_bytes - self._written_bytes - end_bytes
        if self._compression is None:
            return min(BUFFER_BYTES, left)
        # How small it gets is known afterwards: not larger than it is, so that much must be left.
        piece = min(BUFFER_BYTES, self._max_bytes // _PIECES)
        return piece if left >= piece else 0

    def append(self, blocks: bytes) -> None:
        """Blocks without packets."""
        if self.used + len(blocks) > BUFFER_BYTES:
            self.flush()
        self.buffer[self.used : self.used + len(blocks)] = blocks
        if self.used == self._written_bytes == 0:
            self._lead_bytes = len(blocks)
        self.used += len(blocks)

    def filled(self, used: int, packets: Counter[int]) -> None:
        """The buffer has been filled up to `used` with packets, so many of each interface."""
        self.used = used
        self._waiting += packets

    def flush(self) -> None:
        """Write what is buffered."""
        data = memoryview(self.buffer)[: self.used]
        waiting, self._waiting, self.used = self._waiting, Counter[int](), 0
        if not data:
            return
        self._write(data if self._compression is None else memoryview(self._compression.piece(data)))
        self._latest = waiting
        self.packets += waiting

    def end(self, blocks: bytes) -> None:
        """Write the rest and the last blocks, and close."""
        self.append(blocks)
        self.flush()
        if self._compression is not None:
            self._write(memoryview(self._compression.end()))
        self._close()

    def end_after_error(self, blocks: bytes) -> None:
        """Close; with the last blocks, if they fit.  Raises nothing."""
        with suppress(OSError):
            if self._written_bytes == 0:
                pass  # without the file's head nothing else makes sense
            elif self._compression is None:
                self._try(blocks)
            elif not self._try(self._compression.end_after_cut(blocks)):
                self._end_compressed(self._compression.end_after_cut(b""))
        self.discard()

    def discard(self) -> None:
        """Close, and forget what is buffered.  Raises nothing."""
        with suppress(OSError):
            self._close()

    def _end_compressed(self, ending: bytes) -> None:
        """The few bytes that end it, in place of the latest piece if there is no other."""
        if not self._try(ending) and self._written_bytes > self._latest_bytes:
            self._cut(self._latest_bytes)
            self.packets -= self._latest
            self._try(ending)

    def _try(self, data: bytes) -> bool:
        """Write it, or not."""
        try:
            self._write(memoryview(data), may_be_part=False)
        except OSError:
            return False
        return True

    def _write(self, data: memoryview, *, may_be_part: bool = True) -> None:
        """All of it, or what is whole of it."""
        done = 0
        try:
            while done < len(data):
                done += self._write_some(data[done:])
        except OSError:
            whole, packets = self._whole(data[:done]) if may_be_part else (0, Counter[int]())
            self._cut(done - whole)
            self._written_bytes += whole
            self.packets += packets
            raise
        self._written_bytes += done
        self._latest_bytes = done

    def _write_some(self, data: memoryview) -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:  # a pipe that whoever made it has set not to wait
                select.select([], [self._fd], [])

    def _whole(self, data: memoryview) -> tuple[int, Counter[int]]:
        """How much of what was written is whole."""
        lead = self._lead_bytes if self._written_bytes == 0 else 0
        if self._compression is not None or len(data) < lead:
            return 0, Counter()
        end, packets = self._whole_packets(data[lead:])
        return lead + end, packets

    def _cut(self, excess_bytes: int) -> None:
        """Take the last bytes off the file, where it is one."""
        with suppress(OSError):
            end = os.lseek(self._fd, 0, os.SEEK_CUR) - excess_bytes
            os.ftruncate(self._fd, end)
            os.lseek(self._fd, end, os.SEEK_SET)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
