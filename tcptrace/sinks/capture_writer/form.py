"""What a capture format has to say, whichever it is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy.typing as npt

from tcptrace.records import CaptureInterface
from tcptrace.sinks.capture_writer.packets import PacketEncoder

LARGEST_FRAME_BYTES: Final = 262_144
"""MAXIMUM_SNAPLEN of tcpdump and libpcap, which take a longer frame for a broken file; so does Wireshark."""


def kept_bytes(*limits: int) -> int:
    """The smallest of snapshot lengths, of which 0 is none."""
    return min([*filter(None, limits), LARGEST_FRAME_BYTES])


class Fitting(NamedTuple):
    """How many of the next packets the format can hold, and why not the one after them."""

    packets: int
    trouble: str | None


@dataclass(frozen=True)
class Statistics:
    """What is known of one file at its end; times are UTC."""

    start_ns: int
    end_ns: int
    packets: Counter[int]  # written, by interface
    counters: Mapping[str, int]  # the source's while this file was written, by records.COUNTERS; empty: not known


class Format(Protocol):
    """pcap.Pcap or pcapng.Pcapng: bytes of the file, one file after the other."""

    def encode(
        self, packets: PacketEncoder, out: bytearray, used: int, limit: int, start: int, stop: int
    ) -> tuple[int, int]:
        """PacketEncoder's method of this format."""
        ...

    def begin_file(self) -> bytes:
        """What comes first."""
        ...

    def introduce(self, interfaces: Sequence[CaptureInterface], first: int | None) -> bytes:
        """What must come before the next packet, whose interface is the `first` of `interfaces` (None: no packet)."""
        ...

    def fitting(
        self, interfaces: Sequence[CaptureInterface], used: npt.NDArray[Any], wall_ns: npt.NDArray[Any]
    ) -> Fitting:
        """How many packets with these interfaces (indices) and times can be written."""
        ...

    @property
    def end_bytes(self) -> int:
        """Room to keep for end_file()."""
        ...

    def end_file(self, statistics: Statistics | None) -> bytes:
        """What comes last; None: nothing is known."""
        ...

    def whole_packets(self, data: memoryview) -> tuple[int, Counter[int]]:
        """Where the last whole packet or block in `data` ends, and how many packets of each interface are before."""
        ...
