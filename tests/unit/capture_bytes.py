"""Capture files made byte by byte, and what the source makes of them."""

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcptrace.model import Totals
from tcptrace.records import Frames
from tcptrace.sources.capture_file.source import CaptureSource

from .test_parse import ethernet, ipv4

ETHERNET, RAW_IP, RADIOTAP = 1, 101, 127
START_S = 1_700_000_000
MICROS, NANOS = 0xA1B2C3D4, 0xA1B23C4D

Packet = tuple[int, int, bytes]
"""Seconds, fraction in the file's unit, frame."""


def segment(seq: int, payload: bytes = b"") -> bytes:
    """A TCP segment without options; its sequence number says which one it is."""
    return struct.pack("!HHIIHHHH", 40_000, 443, seq, 1, 5 << 12 | 0x18, 0xFFFE, 0, 0) + payload


def frame(seq: int, payload: bytes = b"", tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    """An Ethernet frame with that segment."""
    return ethernet(ipv4(segment(seq, payload)), tags=tags)


def udp_frame() -> bytes:
    return ethernet(ipv4(struct.pack("!HHHH", 1000, 53, 8, 0), protocol=17))


def pcap(
    packets: Sequence[Packet],
    *,
    order: str = "<",
    magic: int = MICROS,
    link_type: int = ETHERNET,
    snaplen: int = 262144,
) -> bytes:
    """A pcap file."""
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type)
    return head + b"".join(pcap_record(*packet, order=order) for packet in packets)


def pcap_record(seconds: int, fraction: int, data: bytes, *, order: str = "<", extra: bytes = b"") -> bytes:
    return struct.pack(order + "IIII", seconds, fraction, len(data), len(data)) + extra + data


def numbered(count: int, *, start_s: int = START_S, first: int = 0, step: int = 1) -> list[Packet]:
    """Segments `first`, `first` + `step`, …, a microsecond apart for each number."""
    return [(start_s, number, frame(number)) for number in range(first, first + count * step, step)]


# --- pcapng


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str = "<", version: int = 1) -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, version, 0, -1), order)


def interface(link_type: int = ETHERNET, options: bytes = b"", order: str = "<", snaplen: int = 0) -> bytes:
    end = option(0, b"", order) if options else b""
    return block(1, struct.pack(order + "HHI", link_type, 0, snaplen) + options + end, order)


def enhanced(units: int, data: bytes, options: bytes = b"", order: str = "<", place: int = 0) -> bytes:
    head = struct.pack(order + "IIIII", place, units >> 32, units & 0xFFFFFFFF, len(data), len(data))
    end = option(0, b"", order) if options else b""
    return block(6, head + data + bytes(-len(data) % 4) + options + end, order)


# --- Reading


@dataclass
class Reading:
    """All that a source gave."""

    source: CaptureSource
    records: np.ndarray
    frames: list[bytes]
    interfaces: list[int]
    totals: Totals
    warning: str | None

    @property
    def seqs(self) -> list[int]:
        return [int(seq) for seq in self.records["seq"]]

    @property
    def times_ns(self) -> list[int]:
        return [int(time_ns) for time_ns in self.records["time_ns"]]

    @property
    def counted(self) -> dict[str, int]:
        return {name: count for name, count in self.totals.counters.items() if count}


def frame_bytes(frames: Frames) -> list[bytes]:
    ends = zip(frames.starts, frames.captured_bytes, strict=True)
    return [frames.data[start : start + count].tobytes() for start, count in ends]


def read_all(*paths: Path | str, expression: str | None = None, keep_frames: bool = False) -> Reading:
    source = CaptureSource([str(path) for path in paths], expression, keep_frames=keep_frames)
    records, kept, interfaces = [], [], []
    while not source.finished:
        records.append(source.read(1).copy())
        frames = source.frames()
        assert (frames is not None) == keep_frames
        if frames is not None:
            kept += frame_bytes(frames)
            interfaces += [int(i) for i in frames.interfaces]
    totals = Totals()
    source.fill_totals(totals)
    warnings = "\n".join(iter(source.check, None))
    return Reading(source, np.concatenate(records), kept, interfaces, totals, warnings or None)


def given(folder: Path, data: bytes, name: str = "a.pcap") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# --- Judges


def needs(*programs: str) -> Any:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


def run(*command: str | Path) -> str:
    """What another program says; LC_ALL=C."""
    environment = {**os.environ, "LC_ALL": "C"}
    words = [str(word) for word in command]
    return subprocess.run(words, check=True, capture_output=True, text=True, env=environment, timeout=60).stdout


def shark_times_ns(path: Path) -> list[int]:
    """frame.time_epoch of every frame, as tshark has it."""
    lines = run("tshark", "-r", path, "-T", "fields", "-e", "frame.time_epoch").split()
    return [int(seconds) * 10**9 + int(fraction) for seconds, fraction in (line.split(".") for line in lines)]


Maker = Callable[..., Path]
