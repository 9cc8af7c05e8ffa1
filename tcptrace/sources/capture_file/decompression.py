"""gzip, zstd and xz, told by their first bytes and not by a name.

Memory stays bounded whatever the data say: what is put out at once, and the windows that files may ask for.
"""

import gzip
import io
import lzma
import os
import zlib
from typing import Any, Final, Protocol

_MAGIC: Final = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\0"}
# What is read and put out at once.
PIECE_BYTES: Final = 1 << 18
# A kilobyte of zstd can become 32 MB, and its library knows no limit.
_ZSTD_STEP_BYTES: Final = 1 << 10
# What the zstd command takes without being asked, and more than xz -9 needs.
_ZSTD_WINDOW_MAX_BYTES: Final = 128 << 20
_XZ_MEMORY_MAX_BYTES: Final = 256 << 20
# xz streams are padded to multiples of four by zeros.
_PADDING: Final = b"\0"


class DamagedError(Exception):
    """The compressed data are damaged or end too early: one line that says which."""


class _Stream(Protocol):
    def read1(self, size: int, /) -> bytes:
        """At most about `size` bytes, none at the end."""
        ...


def compression_of(head: bytes) -> str | None:
    """Name of what a file with these first bytes is compressed with."""
    return next((name for name, magic in _MAGIC.items() if head.startswith(magic)), None)


class _Raw(io.RawIOBase):
    """A file descriptor, with the bytes that were already read from it in front; closes it."""

    def __init__(self, fd: int, head: bytes) -> None:
        self._fd = fd
        self._head = head
        self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._head or os.read(self._fd, len(buffer))
        data, self._head = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(data)] = data
        self.bytes_read += len(data)
        return len(data)

    def read1(self, size: int, /) -> bytes:
        return self.read(size) or b""

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class _Xz:
    """lzma.LZMAFile, but with a limit to the memory."""

    def __init__(self, raw: _Raw) -> None:
        self._raw = raw
        self._decompressor: lzma.LZMADecompressor | None = self._new()

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=_XZ_MEMORY_MAX_BYTES)

    def read1(self, size: int, /) -> bytes:
        while True:
            if self._decompressor is None or self._decompressor.eof:
                rest = b"" if self._decompressor is None else self._decompressor.unused_data
                rest = (rest or self._raw.read1(PIECE_BYTES)).lstrip(_PADDING)
                if not rest:
                    self._decompressor = None
                    if not (rest := self._raw.read1(PIECE_BYTES)):
                        return b""
                self._decompressor = self._new()
            elif self._decompressor.needs_input:
                if not (rest := self._raw.read1(PIECE_BYTES)):
                    raise EOFError
            else:
                rest = b""
            if data := self._decompressor.decompress(rest, size):
                return data


class _Zstd:
    """Frame after frame, and an error where one is cut off."""

    def __init__(self, raw: _Raw) -> None:
        import zstandard  # late: few captures need it

        self._input = io.BufferedReader(raw, PIECE_BYTES)
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX_BYTES)
        self._error_kind = zstandard.ZstdError
        self._damage: Exception | None = None
        self._frame: Any = None
        self._rest = b""

    def read1(self, size: int, /) -> bytes:
        if self._damage is not None:
            raise self._damage
        pieces: list[bytes] = []
        left = size
        while left > 0 and (data := self._rest or self._input.read(_ZSTD_STEP_BYTES)):
            if self._frame is None:
                self._frame = self._context.decompressobj()
            try:
                pieces.append(self._frame.decompress(data))
            except self._error_kind as error:
                if not any(pieces):
                    raise
                self._damage = error  # what came before it is good
                break
            left -= len(pieces[-1])
            self._rest = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        if not pieces and self._frame is not None:
            raise EOFError
        return b"".join(pieces) or (self.read1(size) if pieces else b"")


class Compressed:
    """What is behind `fd`, which is taken over, decompressed; `head` was already read from it.

    `compression` is what compression_of() said; None passes everything on as it is.
    """

    def __init__(self, fd: int, head: bytes, compression: str | None) -> None:
        self._raw = _Raw(fd, head)
        self._compression = compression
        self._stream: _Stream | None = None

    def _open(self) -> _Stream:
        match self._compression:
            case "gzip":
                return gzip.GzipFile(fileobj=io.BufferedReader(self._raw, PIECE_BYTES))
            case "xz":
                return _Xz(self._raw)
            case "zstd":
                return _Zstd(self._raw)
            case _:
                return self._raw

    def read(self) -> bytes:
        """Some bytes, none at the end.  Raises DamagedError, OSError."""
        try:
            if self._stream is None:
                self._stream = self._open()
            return self._stream.read1(PIECE_BYTES)
        except EOFError:
            raise DamagedError(f"the {self._compression} data are cut off") from None
        except (zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise DamagedError(f"the {self._compression} data are damaged ({error})") from None
        except Exception as error:
            if self._compression == "zstd" and not isinstance(error, OSError):
                raise DamagedError(f"the zstd data are damaged ({error})") from None
            raise

    @property
    def bytes_read(self) -> int:
        """Of what is behind the descriptor, before decompression."""
        return self._raw.bytes_read

    def close(self) -> None:
        """May be called twice."""
        self._raw.close()
