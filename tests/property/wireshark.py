"""What tshark and the engine say of the same segments, side by side."""

import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tcptrace.engine.table import Table
from tcptrace.model import ANALYSIS, FINDING
from tcptrace.records import (
    DIRECTION_UNKNOWN,
    FLAG_ACK,
    FLAG_SYN,
    OPTION_MSS,
    OPTION_SACK,
    OPTION_SACK_PERMITTED,
    OPTION_TIMESTAMPS,
    OPTION_WINDOW_SCALE,
    PACKET_RECORD,
)

from ..unit.conversation import HEADER_BYTES, SECOND, raw_address
from .stacks import Segment

TSHARK = shutil.which("tshark")
START_S = 1_600_000_000
LINKTYPE_RAW = 101

FLAGS = {
    "retransmission": "retransmission",
    "fast_retransmission": "fast_retransmission",
    "spurious_retransmission": "spurious_retransmission",
    "out_of_order": "out_of_order",
    "lost_segment": "previous_segment_not_captured",
    "duplicate_ack": "duplicate_ack",
    "ack_lost_segment": "acked_unseen_segment",
    "window_update": "window_update",
    "window_full": "window_full",
    "zero_window": "zero_window",
    "zero_window_probe": "zero_window_probe",
    "zero_window_probe_ack": "zero_window_probe_ack",
    "keep_alive": "keep_alive",
    "keep_alive_ack": "keep_alive_ack",
    "reused_ports": "port_reuse",
}
"""tshark's tcp.analysis.… and the engine's name for it."""
NUMBERS = ("duplicate_ack_num", "initial_rtt", "ack_rtt", "acks_frame")


@dataclass
class Verdict:
    """Of one segment."""

    stream: int  # counts from 0 within the conversation
    flags: frozenset[str]
    duplicate_ack_number: int = 0
    ack_rtt_ns: int | None = None
    acks_place: int | None = None  # of the segment that the RTT is of, within the conversation


@dataclass
class Opinion:
    """Of one conversation: its segments, and the initial RTT of each of its connections."""

    verdicts: list[Verdict] = field(default_factory=list)
    initial_rtt_ns: dict[int, int] = field(default_factory=dict)
    shown: set[int] = field(default_factory=set)  # streams of which tshark could show it after the handshake


def client_of(number: int) -> tuple[str, int]:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 40_000


SERVER = ("172.16.0.1", 80)


def merge(conversations: Sequence[Sequence[Segment]]) -> list[tuple[int, Segment]]:
    """By time, but each conversation keeps its own order."""
    keyed = []
    for number, segments in enumerate(conversations):
        highest = 0
        for place, segment in enumerate(segments):
            highest = max(highest, segment.time_ns)
            keyed.append((highest, number, place, segment))
    keyed.sort(key=lambda key: key[:3])
    return [(number, segment) for _, number, _, segment in keyed]


# --- tshark.


def options_of(segment: Segment) -> bytes:
    data = b""
    if segment.mss is not None:
        data += struct.pack(">BBH", 2, 4, segment.mss)
    if segment.scale is not None:
        data += struct.pack(">BBBB", 1, 3, 3, segment.scale)
    if segment.sack_permitted:
        data += b"\1\1\4\2"
    if segment.timestamps:
        data += struct.pack(">BBBBII", 1, 1, 8, 10, *segment.timestamps)
    if segment.sack:
        data += struct.pack(">BBBB", 1, 1, 5, 2 + 8 * len(segment.sack))
        data += b"".join(struct.pack(">II", *block) for block in segment.sack)
    return data


def write_pcap(path: Path, merged: list[tuple[int, Segment]]) -> None:
    """Headers only; times in nanoseconds."""
    server = raw_address(SERVER[0])[12:].tobytes()
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, LINKTYPE_RAW)]
    for number, segment in merged:
        address, port = client_of(number)
        client = bytes(map(int, address.split(".")))
        ends = [(client, port), (server, SERVER[1])]
        (src, src_port), (dst, dst_port) = ends if segment.end == 0 else ends[::-1]
        options = options_of(segment)
        offset = (20 + len(options)) // 4 << 12
        headers = (
            struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(options) + segment.payload, 0, 0, 64, 6, 0) + src + dst
            + struct.pack(">HHIIHHHH", src_port, dst_port, segment.seq, segment.ack, offset | segment.flags,
                          segment.window, 0, 0)
            + options
        )  # fmt: skip
        seconds, rest = divmod(segment.time_ns, SECOND)
        parts.append(struct.pack("<IIII", START_S + seconds, rest, len(headers), len(headers) + segment.payload))
        parts.append(headers)
    path.write_bytes(b"".join(parts))


def nanoseconds(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    seconds, _, rest = text.lstrip("-").partition(".")
    return sign * (int(seconds) * SECOND + int(rest.ljust(9, "0")[:9]))


def ask_tshark(conversations: Sequence[Sequence[Segment]], path: Path) -> list[Opinion]:
    assert TSHARK
    merged = merge(conversations)
    write_pcap(path, merged)
    fields = ["tcp.stream", *(f"tcp.analysis.{name}" for name in (*NUMBERS, *FLAGS))]
    command = [TSHARK, "-n", "-r", str(path), "-d", "tcp.port==0-65535,data", "-T", "fields"]
    command += [part for name in fields for part in ("-e", name)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    lines = output.splitlines()
    assert len(lines) == len(merged)
    opinions = [Opinion() for _ in conversations]
    streams: list[dict[str, int]] = [{} for _ in conversations]
    places: list[int] = []
    syns: dict[tuple[int, int], int] = {}
    for (number, segment), line in zip(merged, lines, strict=True):
        stream, duplicate, initial, rtt, acks_frame, *flags = line.split("\t")
        places.append(len(opinions[number].verdicts))
        relative = streams[number].setdefault(stream, len(streams[number]))
        found = frozenset(name for name, value in zip(FLAGS.values(), flags, strict=True) if value)
        rtt_ns = nanoseconds(rtt) if rtt else None
        acks_place = places[int(acks_frame) - 1] if acks_frame else None
        opinions[number].verdicts.append(Verdict(relative, found, int(duplicate or 0), rtt_ns, acks_place))
        if segment.flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN:
            syns[number, relative] = segment.time_ns
        answers = segment.flags & (FLAG_SYN | FLAG_ACK) == FLAG_ACK
        if answers and (rtt or found) and segment.time_ns > syns.get((number, relative), 0):
            opinions[number].shown.add(relative)
        if initial:
            opinions[number].initial_rtt_ns[relative] = nanoseconds(initial)
    return opinions


# --- The engine.


def records_of(merged: list[tuple[int, Segment]]) -> np.ndarray:
    records = np.zeros(len(merged), PACKET_RECORD)
    segments = [segment for _, segment in merged]
    numbers = np.array([number for number, _ in merged], dtype=">u4")
    ends = np.array([segment.end for segment in segments])
    records["time_ns"] = [START_S * SECOND + segment.time_ns for segment in segments]
    for name in ("seq", "ack", "flags", "window"):
        records[name] = [getattr(segment, name) for segment in segments]
    records["payload_bytes"] = [segment.payload for segment in segments]
    records["frame_bytes"] = HEADER_BYTES + records["payload_bytes"]
    records["segments"] = 1
    records["ip_version"] = 4
    records["direction"] = DIRECTION_UNKNOWN
    clients = np.tile(raw_address("10.0.0.0"), (len(merged), 1))
    clients[:, 13:] = numbers.view("u1").reshape(-1, 4)[:, 1:]
    servers = np.tile(raw_address(SERVER[0]), (len(merged), 1))
    out = (ends == 0)[:, None]
    records["src_addr"], records["dst_addr"] = np.where(out, clients, servers), np.where(out, servers, clients)
    records["src_port"] = np.where(ends == 0, client_of(0)[1], SERVER[1])
    records["dst_port"] = np.where(ends == 0, SERVER[1], client_of(0)[1])
    for record, segment in zip(records, segments, strict=True):
        options = 0
        if segment.mss is not None:
            options |= OPTION_MSS
            record["mss"] = segment.mss
        if segment.scale is not None:
            options |= OPTION_WINDOW_SCALE
            record["window_scale"] = segment.scale
        if segment.sack_permitted:
            options |= OPTION_SACK_PERMITTED
        if segment.timestamps:
            options |= OPTION_TIMESTAMPS
            record["ts_value"], record["ts_echo"] = segment.timestamps
        if segment.sack:
            options |= OPTION_SACK
            record["sack_count"] = len(segment.sack)
            for place, (left, right) in enumerate(segment.sack):
                record["sack_left"][place], record["sack_right"][place] = left, right
        record["options"] = options
    return records


def ask_engine(conversations: Sequence[Sequence[Segment]]) -> list[Opinion]:
    merged = merge(conversations)
    records = records_of(merged)
    table = Table(len(merged) + 1, 10**18, 10**18, 0, 1)
    findings = np.zeros(len(records), FINDING)
    ended, at = [], 0
    while at < len(records):
        at += table.process(records[at:], findings[at:])
        ended.append(table.take_ended())
    rows = table.rows_view()
    rows = np.concatenate([*ended, rows[rows["in_use"] == 1]])
    initial: dict[int, Any] = dict(zip(rows["id"].tolist(), rows["initial_rtt_us"].tolist(), strict=True))
    opinions = [Opinion() for _ in conversations]
    streams: list[dict[int, int]] = [{} for _ in conversations]
    for (number, _), found in zip(merged, findings, strict=True):
        identity = int(found["connection_id"])
        relative = streams[number].setdefault(identity, len(streams[number]))
        bits = int(found["analysis"])
        names = frozenset(name for bit, name in enumerate(ANALYSIS) if bits >> bit & 1)
        rtt_us = float(found["rtt_us"])
        rtt_ns = None if np.isnan(rtt_us) else round(rtt_us * 1_000)
        verdict = Verdict(relative, names & frozenset(FLAGS.values()), int(found["duplicate_ack_number"]), rtt_ns)
        opinions[number].verdicts.append(verdict)
        if not np.isnan(initial[identity]):
            opinions[number].initial_rtt_ns[relative] = round(initial[identity] * 1_000)
    return opinions
