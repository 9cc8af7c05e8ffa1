"""A thread that puts a stream into a pipe, for who reads from file descriptors."""

import contextlib
import fcntl
import os
import signal
import threading
from typing import Final

from tcptrace.sources.capture_file.decompression import Compressed, DamagedError

# As much as users may ask for without privileges.
_PIPE_BYTES: Final = 1 << 20


class Feeder:
    """`source`, by way of a pipe; `error` says why it ended early, once the pipe is at its end."""

    def __init__(self, source: Compressed) -> None:
        self._source = source
        self._head = b""
        self.error: str | None = None

    def head(self, count: int) -> bytes:
        """The first `count` bytes, fewer where there are not as many; they come through the pipe all the same.

        Raises DamagedError where damaged data come before them, OSError.
        """
        while len(self._head) < count and (more := self._source.read()):
            self._head += more
        return self._head[:count]

    def _next(self) -> bytes:
        try:
            return self._source.read()
        except DamagedError as error:
            self.error = str(error)
        except OSError as error:
            self.error = error.strerror or str(error)
        return b""

    def start(self) -> int:
        """The end of the pipe to read from, which is the caller's."""
        reading, writing = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        threading.Thread(target=self._run, args=(writing,), name="capture feeder", daemon=True).start()
        return reading

    def _run(self, writing: int) -> None:
        # The main thread takes signals.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            data = self._head
            while data:
                _write_all(writing, data)
                data = self._next()
        except BrokenPipeError:
            pass  # nobody wants more
        finally:
            self._source.close()
            os.close(writing)

    @property
    def bytes_read(self) -> int:
        """Of the file, before decompression."""
        return self._source.bytes_read


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
