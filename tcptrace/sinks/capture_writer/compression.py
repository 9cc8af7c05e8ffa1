"""Compressed files, in pieces: what is cut off after one of them can still be made a whole file.

gzip: each piece is a member (RFC 1952 section 2.2).  zstd: a frame for the whole file, each piece some of its blocks
(RFC 8878 section 3.1.1), because Wireshark 4.0 cannot read a second frame.
"""

import importlib
import zlib
from typing import Any, Final, Protocol

from tcptrace.errors import MissingFeatureError

GZIP_LEVEL: Final = 1
"""The fastest."""
ZSTD_LEVEL: Final = 3
_GZIP_WBITS: Final = 31
"""zlib's window of 32 KiB, with gzip's header and trailer."""
_ZSTD_LAST_RAW_BLOCK: Final = 1
"""Block header, RFC 8878 section 3.1.1.2: the last one, its bytes as they are; their number is above three bits."""
_ZSTD_BLOCK_MAX_BYTES: Final = 128 << 10


class Compression(Protocol):
    """Of one file."""

    def piece(self, data: memoryview) -> bytes:
        """The next piece; not to be used any more after one of them was not written."""
        ...

    def end(self) -> bytes:
        """What ends the file after all pieces."""
        ...

    def end_after_cut(self, data: bytes) -> bytes:
        """`data` and what ends the file after any piece, without use of those that came before."""
        ...


class Gzip:
    """Members."""

    def piece(self, data: memoryview) -> bytes:
        """A member."""
        return zlib.compress(data, GZIP_LEVEL, _GZIP_WBITS)

    def end(self) -> bytes:
        """Nothing: each member is complete."""
        return b""

    def end_after_cut(self, data: bytes) -> bytes:
        """A member more."""
        return self.piece(memoryview(data)) if data else b""


class Zstd:
    """A frame."""

    def __init__(self, zstandard: Any) -> None:
        self._flush_block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        self._flush_finish = zstandard.COMPRESSOBJ_FLUSH_FINISH
        self._stream = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=False).compressobj()

    def piece(self, data: memoryview) -> bytes:
        """Blocks."""
        compressed: bytes = self._stream.compress(data) + self._stream.flush(self._flush_block)
        return compressed

    def end(self) -> bytes:
        """The last block, empty."""
        last: bytes = self._stream.flush(self._flush_finish)
        return last

    def end_after_cut(self, data: bytes) -> bytes:
        """The last block, not compressed."""
        if len(data) > _ZSTD_BLOCK_MAX_BYTES:
            data = b""
        return (_ZSTD_LAST_RAW_BLOCK | len(data) << 3).to_bytes(3, "little") + data


class Compressions:
    """One for each file.  name: of target.COMPRESSIONS or None.  MissingFeatureError where its library is missing."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        # Here and not later: what is imported may not be readable any more once privileges are dropped.
        self._zstandard = _import_zstandard() if name == "zst" else None

    def begin(self) -> Compression | None:
        """For the next file; None: as it is."""
        if self._zstandard is not None:
            return Zstd(self._zstandard)
        return Gzip() if self._name == "gz" else None


def _import_zstandard() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise MissingFeatureError("writing .zst needs the Python package zstandard: pip install zstandard") from error
