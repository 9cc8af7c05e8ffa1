"""A path -> a file descriptor on which a capture begins, whatever it is compressed with and wherever it comes from."""

import os
import stat
import sys
from dataclasses import dataclass
from typing import Final

from tcptrace.errors import NotPermittedError, TcptraceError, UsageError
from tcptrace.sources.capture_file.decompression import Compressed, DamagedError, compression_of
from tcptrace.sources.capture_file.feeder import Feeder

STDIN: Final = "-"
# pcap's file header; a pcapng section header is longer.
HEAD_BYTES: Final = 24
_PCAPNG: Final = bytes.fromhex("0a0d0d0a")


@dataclass(frozen=True)
class PcapVariant:
    """What a pcap file's magic number tells; libpcap's savefile.c knows the same ones."""

    record_header_bytes: int
    micros: bool  # else nanoseconds


_VARIANTS: Final = {
    0xA1B2C3D4: PcapVariant(16, micros=True),
    0xA1B23C4D: PcapVariant(16, micros=False),
    0xA1B2CD34: PcapVariant(24, micros=True),  # Kuznetzov's
}


@dataclass(frozen=True)
class PcapHead:
    """pcap's file header, as far as it is needed beside libpcap."""

    variant: PcapVariant
    link_type: int
    snaplen: int  # bytes

    @staticmethod
    def of(head: bytes) -> "PcapHead | None":
        """None if this is not pcap."""
        for order in ("little", "big"):
            variant = _VARIANTS.get(int.from_bytes(head[:4], order))
            if variant is not None:
                # The upper half of the link type's word says how long frame check sequences are.
                link_type = int.from_bytes(head[20:24], order) & 0xFFFF
                return PcapHead(variant, link_type, int.from_bytes(head[16:20], order))
        return None


@dataclass
class OpenedFile:
    """A capture from its first byte on, behind a file descriptor."""

    name: str  # for messages
    fd: int
    pcap: PcapHead | None  # None: it is pcapng
    feeder: Feeder | None  # None: `fd` is the file itself
    total_bytes: int | None  # of the file as it is, compressed or not; None: nobody knows


def open_capture(path: str) -> OpenedFile:
    """`path`, or "-" for standard input.

    Raises TcptraceError, NotPermittedError or UsageError, each with the name of the file in its message.
    """
    name = "standard input" if path == STDIN else path
    try:
        return _opened(name, _open(path))
    except PermissionError as error:
        raise NotPermittedError(f"{name}: {error.strerror}") from None
    except OSError as error:
        raise TcptraceError(f"{name}: {error.strerror or error}") from None
    except DamagedError as error:
        raise TcptraceError(f"{name}: {error}") from None


def _open(path: str) -> int:
    if path != STDIN:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if sys.__stdin__ is None:  # descriptor 0 is something else by now, if anything
        raise TcptraceError("standard input is closed")
    if os.isatty(0):
        raise UsageError("standard input is a terminal: give a file, or pipe a capture in")
    return os.dup(0)


def _opened(name: str, fd: int) -> OpenedFile:
    try:
        status = os.fstat(fd)
        total_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
        head = _read_head(fd)
        compression = compression_of(head)
        if compression is None and total_bytes is not None:
            pcap = _check(name, head)
            os.lseek(fd, -len(head), os.SEEK_CUR)
            return OpenedFile(name, fd, pcap, None, total_bytes)
    except BaseException:
        os.close(fd)
        raise
    source = Compressed(fd, head, compression)
    try:
        feeder = Feeder(source)
        pcap = _check(name, feeder.head(HEAD_BYTES))
        return OpenedFile(name, feeder.start(), pcap, feeder, total_bytes)
    except BaseException:
        source.close()
        raise


def _read_head(fd: int) -> bytes:
    head = b""
    while len(head) < HEAD_BYTES and (more := os.read(fd, HEAD_BYTES - len(head))):
        head += more
    return head


def _check(name: str, head: bytes) -> PcapHead | None:
    """None: pcapng.  Raises TcptraceError for what is neither."""
    if not head:
        raise TcptraceError(f"{name}: the file is empty")
    pcap = PcapHead.of(head)
    if pcap is None and head[:4] != _PCAPNG:
        raise TcptraceError(
            f"{name}: not a capture file (pcap or pcapng, as they are or in gzip, zstd or xz): "
            f"it begins with {head[:4].hex(' ')}"
        )
    if len(head) < HEAD_BYTES:
        raise TcptraceError(f"{name}: cut off in its file header, after {len(head)} bytes")
    return pcap
