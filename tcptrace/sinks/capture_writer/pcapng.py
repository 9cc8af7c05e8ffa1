"""The pcapng format (draft-ietf-opsawg-pcapng) but for the packets, which packets.pyx makes."""

import platform
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy.typing as npt

from tcptrace.records import CaptureInterface
from tcptrace.sinks.capture_writer.form import Fitting, Statistics, kept_bytes
from tcptrace.sinks.capture_writer.packets import PacketEncoder

# Block types, section 4.
_SECTION_HEADER: Final = 0x0A0D0D0A
_INTERFACE_DESCRIPTION: Final = 1
_INTERFACE_STATISTICS: Final = 5
_ENHANCED_PACKET: Final = 6

_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_LENGTH_UNKNOWN: Final = -1
_OPTION_MAX_BYTES: Final = 0xFFFF
_RESOLUTION_NS: Final = b"\x09"
"""if_tsresol: 10 ** -9 s."""
_FILTER_TEXT: Final = b"\x00"
"""if_filter: a filter as libpcap takes it follows."""

# Options of the section header (4.1), interface description (4.2) and interface statistics block (4.6).
_SHB_HARDWARE: Final = 2
_SHB_OS: Final = 3
_SHB_APPLICATION: Final = 4
_IF_NAME: Final = 2
_IF_DESCRIPTION: Final = 3
_IF_TSRESOL: Final = 9
_IF_FILTER: Final = 11
_IF_OS: Final = 12
_ISB_START_TIME: Final = 2
_ISB_END_TIME: Final = 3
_ISB_IFRECV: Final = 4
_ISB_FILTER_ACCEPT: Final = 6
_ISB_OS_DROP: Final = 7
_ISB_DELIVERED: Final = 8

_STATISTICS_BYTES: Final = 24 + 6 * 12 + 4
"""The most that an interface statistics block takes: itself, six options of eight bytes, the options' end."""

Option = tuple[int, bytes | str | None]


class Pcapng:
    """Writes sections with an interface description for each interface.

    live: the interfaces are this machine's.
    """

    def __init__(self, snaplen: int, application: str, packet_filter: str | None, *, live: bool) -> None:
        self._snaplen = snaplen
        self._application = application
        self._filter = packet_filter
        self._system = f"{platform.system()} {platform.release()}"
        self._live = live
        self._described = 0

    def encode(
        self, packets: PacketEncoder, out: bytearray, used: int, limit: int, start: int, stop: int
    ) -> tuple[int, int]:
        """See PacketEncoder.pcapng()."""
        return packets.pcapng(out, used, limit, start, stop)

    def begin_file(self) -> bytes:
        """The section header."""
        self._described = 0
        body = struct.pack("=IHHq", _BYTE_ORDER_MAGIC, 1, 0, _LENGTH_UNKNOWN)
        options: list[Option] = [
            (_SHB_HARDWARE, platform.machine() or None),
            (_SHB_OS, self._system),
            (_SHB_APPLICATION, self._application),
        ]
        return _block(_SECTION_HEADER, body, options)

    def introduce(self, interfaces: Sequence[CaptureInterface], first: int | None) -> bytes:
        """Descriptions of the interfaces that this file does not have yet."""
        fresh = interfaces[self._described :]
        self._described = len(interfaces)
        return b"".join(map(self._describe, fresh))

    def _describe(self, interface: CaptureInterface) -> bytes:
        body = struct.pack("=HHI", interface.link_type, 0, kept_bytes(interface.snaplen, self._snaplen))
        options: list[Option] = [
            (_IF_NAME, interface.name),
            (_IF_DESCRIPTION, interface.description),
            (_IF_TSRESOL, _RESOLUTION_NS),
            (_IF_FILTER, None if self._filter is None else _FILTER_TEXT + self._filter.encode()),
            (_IF_OS, self._system if self._live else None),
        ]
        return _block(_INTERFACE_DESCRIPTION, body, options)

    def fitting(
        self, interfaces: Sequence[CaptureInterface], used: npt.NDArray[Any], wall_ns: npt.NDArray[Any]
    ) -> Fitting:
        """Everything can be said."""
        return Fitting(len(used), None)

    @property
    def end_bytes(self) -> int:
        """What end_file() takes at most."""
        return _STATISTICS_BYTES * self._described

    def end_file(self, statistics: Statistics | None) -> bytes:
        """A statistics block for each interface.  What is counted for all of them together is said of a single one."""
        if statistics is None:
            return b""
        counters = statistics.counters if self._described == 1 else {}
        return b"".join(self._statistics(index, statistics, counters) for index in range(self._described))

    def _statistics(self, index: int, statistics: Statistics, counters: Mapping[str, int]) -> bytes:
        frames = counters.get("frames")
        accepted = None
        if frames is not None and "filtered" in counters:
            accepted = frames - counters["filtered"] - counters.get("filter_out_of_reach", 0)
        options: list[Option] = [
            (_ISB_START_TIME, _time(statistics.start_ns)),
            (_ISB_END_TIME, _time(statistics.end_ns)),
            (_ISB_IFRECV, _count(frames)),
            (_ISB_FILTER_ACCEPT, _count(accepted)),
            (_ISB_OS_DROP, _count(counters.get("records_lost"))),
            (_ISB_DELIVERED, _count(statistics.packets[index])),
        ]
        return _block(_INTERFACE_STATISTICS, struct.pack("=I", index) + _time(statistics.end_ns), options)

    def whole_packets(self, data: memoryview) -> tuple[int, Counter[int]]:
        """Where the last whole block in `data` ends, and how many packets of each interface there are until then."""
        end, packets = 0, Counter[int]()
        while end + 8 <= len(data):
            kind, size = struct.unpack_from("=II", data, end)
            if end + size > len(data):
                break
            if kind == _ENHANCED_PACKET:
                packets[struct.unpack_from("=I", data, end + 8)[0]] += 1
            end += size
        return end, packets


def _block(kind: int, body: bytes, options: Sequence[Option]) -> bytes:
    """A block: its length before and after what is in it (section 3.1)."""
    inner = body + b"".join(_option(code, value) for code, value in options if value is not None) + bytes(4)
    size = struct.pack("=I", len(inner) + 12)
    return struct.pack("=I", kind) + size + inner + size


def _option(code: int, value: bytes | str) -> bytes:
    """Code, length and value, filled up to a multiple of four (section 3.5); a text too long is cut."""
    raw = value if isinstance(value, bytes) else cut_text(value)
    raw = raw[:_OPTION_MAX_BYTES]
    return struct.pack("=HH", code, len(raw)) + raw + bytes(-len(raw) % 4)


def cut_text(text: str) -> bytes:
    """UTF-8 that fits an option, cut between characters."""
    raw = text.encode("utf-8", "replace")
    return raw if len(raw) <= _OPTION_MAX_BYTES else raw[:_OPTION_MAX_BYTES].decode("utf-8", "ignore").encode()


def _time(time_ns: int) -> bytes:
    """The upper half first, each in the section's byte order."""
    return struct.pack("=II", time_ns >> 32 & 0xFFFF_FFFF, time_ns & 0xFFFF_FFFF)


def _count(value: int | None) -> bytes | None:
    return None if value is None else struct.pack("=Q", value)
