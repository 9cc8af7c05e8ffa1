"""Batches of frames made by hand, a decoder of what becomes of them, and what other programs say of it."""

import gzip
import io
import json
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcptrace.model import FINDING, Clock, PacketBatch, Totals, TraceInfo
from tcptrace.records import DIRECTION_UNKNOWN, PACKET_RECORD, CaptureInterface, Frames
from tcptrace.sinks.capture_writer import CaptureWriter

START_NS = 1_700_000_000_123_456_789
ETHERNET = 1
RAW_IP = 101
ETH0 = CaptureInterface("eth0", None, ETHERNET, 0)

needs_tshark = pytest.mark.skipif(
    not (shutil.which("tshark") and shutil.which("capinfos")), reason="tshark is not installed"
)


@dataclass(frozen=True)
class Packet:
    """A record and its frame.  original_bytes, frame_bytes: None is as long as the frame."""

    data: bytes = bytes(60)
    time_ns: int = START_NS
    direction: int = DIRECTION_UNKNOWN
    segments: int = 1
    note: int = 0
    original_bytes: int | None = None
    frame_bytes: int | None = None
    interface: int = 0


def batch_of(packets: Sequence[Packet]) -> PacketBatch:
    """With some bytes before each frame, which belong to none."""
    records = np.zeros(len(packets), PACKET_RECORD)
    original = [len(p.data) if p.original_bytes is None else p.original_bytes for p in packets]
    for name in ("time_ns", "direction", "segments", "note"):
        records[name] = [getattr(p, name) for p in packets]
    records["frame_bytes"] = [
        length if p.frame_bytes is None else p.frame_bytes for p, length in zip(packets, original, strict=True)
    ]
    lengths = np.array([len(p.data) for p in packets], "u4")
    frames = Frames(
        data=np.frombuffer(b"".join(b"gap" + p.data for p in packets), "u1"),
        starts=np.cumsum(lengths + 3, dtype="i8") - lengths,
        captured_bytes=lengths,
        original_bytes=np.array(original, "u4"),
        interfaces=np.array([p.interface for p in packets], "u2"),
    )
    return PacketBatch(records, np.zeros(len(packets), FINDING), frames)


@dataclass
class HandView:
    """The end of an interval."""

    counters: dict[str, int] = field(default_factory=dict)
    time_ns: int = START_NS + 10**9
    start_ns: int = START_NS - 10**6

    @property
    def totals(self) -> Totals:
        return Totals(counters=self.counters)


def live_info(interfaces: Sequence[CaptureInterface] = (ETH0,), **fields: Any) -> TraceInfo:
    known = {"hook": "tc", "filter": None, "clock": Clock(0), "version": "1.2.3"} | fields
    return TraceInfo(interface="eth0", interfaces=interfaces, **known)


def file_info(files: Sequence[str], interfaces: Sequence[CaptureInterface] = (ETH0,)) -> TraceInfo:
    return TraceInfo(None, None, None, Clock(0), "1.2.3", tuple(files), interfaces)


def write(
    target: Path,
    *batches: Sequence[Packet],
    info: TraceInfo | None = None,
    view: HandView | None = None,
    **options: Any,
) -> None:
    """A whole trace."""
    writer = CaptureWriter(str(target), **options)
    writer.open(info or live_info())
    for packets in batches:
        writer.packets(batch_of(packets))
    writer.close(view or HandView())


# --- A decoder that knows the formats from their descriptions alone; machines of the tests are little-endian.


@dataclass
class Decoded:
    """A pcapng section: bodies of options by code."""

    header: dict[int, list[bytes]] = field(default_factory=dict)
    interfaces: list[tuple[int, int, dict[int, list[bytes]]]] = field(default_factory=list)
    packets: list[tuple[int, int, bytes, int, dict[int, list[bytes]]]] = field(default_factory=list)
    """Interface, time, bytes, original length, options."""
    statistics: list[tuple[int, int, dict[int, list[bytes]]]] = field(default_factory=list)


def decode(raw: bytes) -> Decoded:
    """Every block of one section; raises where something is not as it should be."""
    section, at = Decoded(), 0
    while at < len(raw):
        kind, size = struct.unpack_from("<II", raw, at)
        assert size % 4 == 0
        assert struct.unpack_from("<I", raw, at + size - 4) == (size,)
        body = raw[at + 8 : at + size - 4]
        assert (kind == 0x0A0D0D0A) == (at == 0)
        if kind == 0x0A0D0D0A:
            assert struct.unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
            section.header = decode_options(body[16:])
        elif kind == 1:
            link_type, reserved, snaplen = struct.unpack_from("<HHI", body)
            assert reserved == 0
            section.interfaces.append((link_type, snaplen, decode_options(body[8:])))
        elif kind == 6:
            interface, high, low, captured, original = struct.unpack_from("<IIIII", body)
            assert interface < len(section.interfaces)
            end = 20 + captured + -captured % 4
            assert body[20 + captured : end] == bytes(-captured % 4)
            options = decode_options(body[end:])
            section.packets.append((interface, high << 32 | low, body[20 : 20 + captured], original, options))
        elif kind == 5:
            interface, high, low = struct.unpack_from("<III", body)
            section.statistics.append((interface, high << 32 | low, decode_options(body[12:])))
        else:
            raise AssertionError(f"block type {kind}")
        at += size
    assert at == len(raw)
    return section


def decode_options(raw: bytes) -> dict[int, list[bytes]]:
    options: dict[int, list[bytes]] = {}
    at = 0
    while at < len(raw):
        code, size = struct.unpack_from("<HH", raw, at)
        if code == 0:
            assert (size, at + 4) == (0, len(raw))
            return options
        options.setdefault(code, []).append(raw[at + 4 : at + 4 + size])
        assert len(options[code][-1]) == size
        at += 4 + size + -size % 4
    assert not raw, "options without their end"
    return options


def decode_pcap(raw: bytes) -> tuple[int, int, list[tuple[int, bytes, int]]]:
    """Snaplen, link type, and of each packet time, bytes and original length."""
    magic, major, minor, zone, accuracy, snaplen, link_type = struct.unpack_from("<IHHiIII", raw)
    assert (magic, major, minor, zone, accuracy) == (0xA1B23C4D, 2, 4, 0, 0)
    packets, at = [], 24
    while at < len(raw):
        time_s, time_ns, captured, original = struct.unpack_from("<IIII", raw, at)
        assert time_ns < 10**9
        packets.append((time_s * 10**9 + time_ns, raw[at + 16 : at + 16 + captured], original))
        assert len(packets[-1][1]) == captured
        at += 16 + captured
    return snaplen, link_type, packets


def uncompressed(path: Path) -> bytes:
    """A file's content; raises if a compressed one does not end as it should."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(raw)
    if path.suffix == ".zst":
        import zstandard

        decompressor = zstandard.ZstdDecompressor().decompressobj()
        content: bytes = decompressor.decompress(raw)
        assert decompressor.eof or not raw
        assert not decompressor.unused_data
        return content
    return raw


def packet_count(path: Path) -> int:
    """How many whole packets there are, all of it being whole."""
    content = uncompressed(path)
    return len(decode_pcap(content)[2]) if ".pcap" in path.suffixes else len(decode(content).packets)


# --- What others say.


def tshark(path: Path, *fields: str, options: Sequence[str] = ()) -> list[list[str]]:
    """Fields of every packet; nothing may be complained about."""
    wanted = [part for name in fields for part in ("-e", name)]
    done = run("tshark", *options, "-n", "-r", str(path), "-T", "fields", "-E", "aggregator=;", *wanted)
    return [line.split("\t") for line in done.splitlines()]


def blocks(path: Path, kind: str) -> list[dict[str, Any]]:
    """All fields of pcapng blocks of a kind, as Wireshark's dissector of the file itself sees them."""
    done = run(
        "tshark", "-X", "read_format:MIME Files Format", "-n", "-r", str(path), "-T", "json", "--no-duplicate-keys"
    )
    found = json.load(io.StringIO(done))[0]["_source"]["layers"]["file-pcapng"]["pcapng.block"]
    return [block for block in found if block["pcapng.block.type"] == kind]


def capinfos(path: Path) -> dict[str, str]:
    """Its lines by what is before the colon or equal sign."""
    lines = [line.replace(" = ", ": ", 1).split(":", 1) for line in run("capinfos", "-M", str(path)).splitlines()]
    return {line[0].strip(): line[1].strip() for line in lines if len(line) == 2}


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    assert (done.returncode, complaints) == (0, [])
    return done.stdout
