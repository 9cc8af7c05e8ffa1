"""The pcap format with nanoseconds (draft-ietf-opsawg-pcap) but for the packets, which packets.pyx makes."""

import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.records import CaptureInterface
from tcptrace.sinks.capture_writer.form import Fitting, Statistics
from tcptrace.sinks.capture_writer.packets import PacketEncoder

_MAGIC_NS: Final = 0xA1B23C4D
_VERSION: Final = (2, 4)
_PACKET_HEADER_BYTES: Final = 16
_LINKTYPE_ETHERNET: Final = 1
"""Of a file without a packet, of which nothing else is known."""
_TIME_END_NS: Final = 2**32 * 10**9
"""Seconds have 32 bits: until February 2106."""


class Pcap:
    """One link type, that of the first packet; no directions, no interfaces."""

    def __init__(self, snaplen: int) -> None:
        self._snaplen = snaplen
        self._link_type: int | None = None
        self._begun = False

    def encode(
        self, packets: PacketEncoder, out: bytearray, used: int, limit: int, start: int, stop: int
    ) -> tuple[int, int]:
        """See PacketEncoder.pcap()."""
        return packets.pcap(out, used, limit, start, stop)

    def begin_file(self) -> bytes:
        """Nothing: the header has the link type, so it waits for the first packet."""
        self._begun = False
        return b""

    def introduce(self, interfaces: Sequence[CaptureInterface], first: int | None) -> bytes:
        """The file's header, unless it is there or its link type still unknown."""
        if self._link_type is None and first is not None:
            self._link_type = interfaces[first].link_type
        if self._begun or self._link_type is None:
            return b""
        return self._header()

    def _header(self) -> bytes:
        self._begun = True
        link_type = _LINKTYPE_ETHERNET if self._link_type is None else self._link_type
        return struct.pack("=IHHiIII", _MAGIC_NS, *_VERSION, 0, 0, self._snaplen, link_type)

    def fitting(
        self, interfaces: Sequence[CaptureInterface], used: npt.NDArray[Any], wall_ns: npt.NDArray[Any]
    ) -> Fitting:
        """Up to the first frame of a second link type, or time that does not fit."""
        link_types = np.array([interface.link_type for interface in interfaces])[used]
        expected = link_types[0] if self._link_type is None else self._link_type
        other, late = link_types != expected, wall_ns >= _TIME_END_NS
        if not (other | late).any():
            return Fitting(len(used), None)
        at = int(np.argmax(other | late))
        if other[at]:
            trouble = f"frames of link types {expected} and {link_types[at]}, and .pcap holds one: use .pcapng"
        else:
            trouble = "a time after the year 2105, and .pcap holds none: use .pcapng"
        return Fitting(at, trouble)

    @property
    def end_bytes(self) -> int:
        """Nothing comes last."""
        return 0

    def end_file(self, statistics: Statistics | None) -> bytes:
        """The header where no packet came, so that it is a capture file all the same."""
        return b"" if self._begun else self._header()

    def whole_packets(self, data: memoryview) -> tuple[int, Counter[int]]:
        """Where the last whole packet in `data` ends, and how many there are until then."""
        end, count = 0, 0
        while end + _PACKET_HEADER_BYTES <= len(data):
            size = _PACKET_HEADER_BYTES + struct.unpack_from("=I", data, end + 8)[0]
            if end + size > len(data):
                break
            end, count = end + size, count + 1
        return end, Counter({0: count})
