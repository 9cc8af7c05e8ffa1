"""The values of the fields, judged by tshark: on frames put together here and on captures, where they are."""

import os
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcptrace import records as r
from tcptrace.model import FINDING
from tcptrace.sinks.layers.dissect import dissect
from tcptrace.sinks.layers.memory import Memory
from tcptrace.sinks.layers.parts import Layer, Scene

from .test_layers import (
    ACK,
    ACK_OPTIONS,
    CLIENT6,
    ETHERNET,
    IPV4_TYPE,
    IPV6_TYPE,
    RAW,
    SERVER6,
    SYN,
    SYN_OPTIONS,
    VLAN_TYPE,
    ethernet,
    ipv4,
    ipv6,
    tcp,
)

pytestmark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")

CAPTURES = Path(os.environ.get("TCPTRACE_CAPTURES", Path(__file__).parents[3] / "shared/captures"))
FILES = sorted(
    path for path in CAPTURES.glob("*/*") if path.parent.name != "truth" and not path.name.lower().startswith("readme")
)
TIMEOUT_S = 120
LITTLE, BIG = "<", ">"
MAGICS = {
    b"\xd4\xc3\xb2\xa1": LITTLE,
    b"M<\xb2\xa1": LITTLE,
    b"\xa1\xb2\xc3\xd4": BIG,
    b"\xa1\xb2<M": BIG,
}
OPTIONS = (
    "tcp.check_checksum:TRUE",
    "ip.check_checksum:TRUE",
    "ip.defragment:FALSE",
    "ipv6.defragment:FALSE",
    "tcp.relative_sequence_numbers:FALSE",
    "tcp.desegment_tcp_streams:FALSE",
)
STATUS = {"correct": {"1"}, "wrong": {"0"}, "not verified": {"2"}, "not computed": {"0", "2"}}
"""Ours and tshark's words for a checksum; for tshark what is left to the card is bad, or cut off."""


@dataclass
class Capture:
    """A link type and its frames: what was captured and how long they were."""

    link_type: int
    frames: list[tuple[bytes, int]] = field(default_factory=list)

    @staticmethod
    def read(path: Path) -> "Capture":
        raw = path.read_bytes()
        order = MAGICS[raw[:4]]
        capture = Capture(struct.unpack(f"{order}I", raw[20:24])[0] & 0xFFFF)
        at = 24
        while at + 16 <= len(raw):
            kept, original = struct.unpack(f"{order}II", raw[at + 8 : at + 16])
            if at + 16 + kept > len(raw):
                break
            capture.frames.append((raw[at + 16 : at + 16 + kept], original))
            at += 16 + kept
        return capture

    def write(self, path: Path) -> Path:
        head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, self.link_type)
        packets = (struct.pack("<IIII", 1, 0, len(data), original) + data for data, original in self.frames)
        path.write_bytes(head + b"".join(packets))
        return path

    def layers(self, number: int) -> list[Layer]:
        data, original = self.frames[number]
        return dissect(data, self.link_type, Scene(original_bytes=max(len(data), original)))


def tshark(path: Path, names: list[str], *more: str) -> list[dict[str, list[str]]]:
    """All occurrences of the fields in each frame."""
    options = [word for option in OPTIONS for word in ("-o", option)]
    fields = [word for name in names for word in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), *options, "-d", "tcp.port==0-65535,data", *more]
    done = subprocess.run(
        [*command, "-T", "fields", "-E", "separator=;", "-E", "occurrence=a", "-E", "aggregator=,", *fields],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    lines = done.stdout.splitlines()
    return [
        {name: text.split(",") if text else [] for name, text in zip(names, line.split(";"), strict=True)}
        for line in lines
    ]


# --- Our fields in tshark's words.


def number_in(text: str) -> str:
    """The first number of a value: 1,460 bytes, CS0 (0), 0x1234 correct."""
    word = text.rsplit("(", 1)[-1].rstrip(")") if "(" in text else text.split(" ")[0]
    return str(int(word.replace(",", ""), 0))


def as_number(text: str) -> str:
    return str(int(text, 0)) if text else text


def flags_in(text: str) -> str:
    return str(sum(bit for name, bit in (("reserved", 4), ("DF", 2), ("MF", 1)) if name in text.split()))


def status_in(text: str) -> str:
    return text.split(" ", 1)[1]


Reading = Callable[[str], str]
JUDGED: list[tuple[str, str, str, Reading]] = [
    ("Ethernet II", "destination", "eth.dst", str),
    ("Ethernet II", "source", "eth.src", str),
    ("VLAN tag", "VLAN", "vlan.id", number_in),
    ("VLAN tag", "priority", "vlan.priority", number_in),
    ("VLAN tag", "drop eligible", "vlan.dei", number_in),
    ("MPLS label", "label", "mpls.label", number_in),
    ("MPLS label", "TTL", "mpls.ttl", number_in),
    ("PPPoE", "session", "pppoe.session_id", number_in),
    ("IPv4", "header length", "ip.hdr_len", number_in),
    ("IPv4", "DSCP", "ip.dsfield.dscp", number_in),
    ("IPv4", "ECN", "ip.dsfield.ecn", number_in),
    ("IPv4", "total length", "ip.len", number_in),
    ("IPv4", "identification", "ip.id", number_in),
    ("IPv4", "flags", "ip.flags", flags_in),
    ("IPv4", "fragment offset", "ip.frag_offset", number_in),
    ("IPv4", "TTL", "ip.ttl", number_in),
    ("IPv4", "protocol", "ip.proto", number_in),
    ("IPv4", "header checksum", "ip.checksum", number_in),
    ("IPv4", "source", "ip.src", str),
    ("IPv4", "destination", "ip.dst", str),
    ("IPv6", "flow label", "ipv6.flow", number_in),
    ("IPv6", "payload length", "ipv6.plen", number_in),
    ("IPv6", "next header", "ipv6.nxt", number_in),
    ("IPv6", "hop limit", "ipv6.hlim", number_in),
    ("IPv6", "source", "ipv6.src", str),
    ("IPv6", "destination", "ipv6.dst", str),
    ("TCP", "source port", "tcp.srcport", number_in),
    ("TCP", "destination port", "tcp.dstport", number_in),
    ("TCP", "sequence number", "tcp.seq_raw", number_in),
    ("TCP", "acknowledgment", "tcp.ack_raw", number_in),
    ("TCP", "data offset", "tcp.hdr_len", number_in),
    ("TCP", "flags", "tcp.flags", number_in),
    ("TCP", "window", "tcp.window_size_value", number_in),
    ("TCP", "checksum", "tcp.checksum", number_in),
    ("TCP", "urgent pointer", "tcp.urgent_pointer", number_in),
    ("TCP", "  MSS", "tcp.options.mss_val", number_in),
    ("TCP", "  window scale", "tcp.options.wscale.shift", number_in),
    ("TCP", "  timestamp", "tcp.options.timestamp.tsval", number_in),
    ("TCP", "    echo", "tcp.options.timestamp.tsecr", number_in),
    ("payload", "length", "tcp.len", number_in),
]
CHECKSUMS = [("IPv4", "header checksum", "ip.checksum.status"), ("TCP", "checksum", "tcp.checksum.status")]
NAMES = [
    *dict.fromkeys(name for _, _, name, _ in JUDGED),
    *(name for _, _, name in CHECKSUMS),
    "tcp.option_kind",
    "tcp.options.sack_le",
    "tcp.options.sack_re",
    "ip.flags.mf",
    "_ws.malformed",
    "frame.protocols",
]


def ours(layers: list[Layer], layer: str, name: str) -> list[str]:
    return [field.value for each in layers if each.name == layer for field in each.fields if field.name == name]


def kinds(layers: list[Layer], data: bytes) -> list[str]:
    """The kinds of the TCP options, read where our fields say that they are."""
    found = []
    for layer in layers:
        for each in layer.fields if layer.name == "TCP" else ():
            if each.name.startswith("  ") and not each.name.startswith("   ") and each.offset >= layer.offset + 20:
                found += list(data[each.offset : each.offset + (each.length if each.name == "  NOP" else 1)])
    return list(map(str, found))


def sack_edges(layers: list[Layer]) -> tuple[list[str], list[str]]:
    blocks = [block.split("–") for value in ours(layers, "TCP", "  SACK") for block in value.split()]
    return [left for left, _ in blocks], [right for _, right in blocks]


def compare(layers: list[Layer], data: bytes, told: dict[str, list[str]], seen: Counter[str]) -> None:
    """All fields of one frame that both have read whole."""
    whole = not told["_ws.malformed"] and not any(
        f.name.strip() in ("malformed", "cut off here") for x in layers for f in x.fields
    )

    def equal(what: str, mine: list[str], theirs: list[str]) -> None:
        if not whole:  # each gives up at a place of its own; so far, they agree
            length = min(len(mine), len(theirs))
            mine, theirs = mine[:length], theirs[:length]
        assert mine == theirs, (what, mine, theirs)
        seen[what] += len(mine)

    for layer, name, theirs, reading in JUDGED:
        expected = told[theirs]
        if theirs not in ("eth.dst", "eth.src", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst"):
            expected = list(map(as_number, expected))
        if theirs == "tcp.len":
            expected = [length for length in expected if length != "0"]
        if theirs == "tcp.flags":  # tshark takes the reserved bits in
            expected = [str(int(number) & 0x1FF) for number in expected]
        if theirs == "ip.dst" and ours(layers, "IPv4", "  loose route"):  # where tshark names the route's end
            continue
        if theirs == "tcp.len" and "1" in told["ip.flags.mf"]:  # tshark has no length for a fragment
            continue
        equal(theirs, list(map(reading, ours(layers, layer, name))), expected)
    for layer, name, theirs in CHECKSUMS:
        mine = [status_in(value) for value in ours(layers, layer, name)]
        if whole:
            assert len(mine) == len(told[theirs]), theirs
        for status, theirs_status in zip(mine, told[theirs], strict=False):
            assert theirs_status in STATUS[status], (theirs, status, theirs_status)
            seen[f"{layer} {status}"] += 1
    left, right = sack_edges(layers)
    equal("tcp.options.sack_le", left, told["tcp.options.sack_le"])
    equal("tcp.options.sack_re", right, told["tcp.options.sack_re"])
    mine = kinds(layers, data)
    if "0" in mine:  # tshark lists the padding behind it one by one
        told["tcp.option_kind"] = told["tcp.option_kind"][: len(mine)]
    equal("tcp.option_kind", mine, told["tcp.option_kind"])


UNREAD = {"icmp", "icmpv6", "gtp", "teredo", "nflog", "sflow"}
"""What tshark looks into and the layers do not."""


def judge(capture: Capture, told: list[dict[str, list[str]]]) -> Counter[str]:
    """Compares all frames in which TCP is the innermost of what both read; returns how many values agreed."""
    seen: Counter[str] = Counter()
    assert len(told) == len(capture.frames)
    for number, (data, _) in enumerate(capture.frames):
        layers = capture.layers(number)
        protocols = set(told[number]["frame.protocols"][0].split(":"))
        has_tcp = any(layer.name == "TCP" for layer in layers)
        if "tcp" in protocols and not protocols & UNREAD:
            assert has_tcp, (number + 1, protocols)
        if has_tcp and not protocols & UNREAD:
            try:
                compare(layers, data, told[number], seen)
            except AssertionError as error:
                raise AssertionError(f"frame {number + 1}") from error
            seen["frames"] += 1
    return seen


# --- Frames put together here.


def crafted() -> Iterator[bytes]:
    segment = tcp(101, 501, ACK | r.FLAG_PSH, b"hello", ACK_OPTIONS)
    sack = bytes.fromhex("0101 0512 00000100 00000200 00000300 00000400")
    route = bytes.fromhex("830704c0000209 00")
    final = bytes.fromhex("20010db80000000000000000000000ff")
    yield ethernet(ipv4(tcp(100, 0, SYN | 0x1C0, options=SYN_OPTIONS, window=64240)))
    yield ethernet(ipv4(tcp(100, 0, SYN, options=SYN_OPTIONS, offload=True), id=0, ttl=128))
    yield ethernet(ipv4(segment, traffic_class=0xBB, fragment=0))
    yield ethernet(ipv4(tcp(1, 1, ACK | r.FLAG_URG, b"x", urgent=1, window=0)) + bytes(6))
    yield ethernet(ipv4(tcp(1, 1, ACK, options=sack + b"\0\0\0\0"[:0])))
    yield ethernet(ipv4(tcp(1, 1, ACK, b"y", options=bytes.fromhex("00000000"))))
    yield ethernet(ipv4(tcp(1, 1, 0x014), ttl=1)[:-1] + b"\x01")
    yield ethernet(ipv4(tcp(1, 1, ACK, b"x" * 16), fragment=0x2000))
    yield ethernet(ipv4(tcp(1, 1, ACK, ends=(bytes([192, 168, 1, 10]), bytes([192, 0, 2, 9]))), options=route))
    yield ethernet(ipv4(b"x" * 24, fragment=0x4))
    yield ethernet(struct.pack("!HH", 0xB064, IPV4_TYPE) + ipv4(segment), VLAN_TYPE)
    yield ethernet(struct.pack("!HHHH", 5, VLAN_TYPE, 0x1FFE, IPV4_TYPE) + ipv4(segment), VLAN_TYPE)
    yield ethernet(struct.pack("!II", 1000 << 12 | 63, 17 << 12 | 0x1FE) + ipv4(segment), 0x8847)
    yield ethernet(struct.pack("!BBHHH", 0x11, 0, 77, 2 + len(ipv4(segment)), 0x21) + ipv4(segment), 0x8864)
    yield ethernet(ipv6(tcp(7, 9, ACK, b"hi", ends=(CLIENT6, SERVER6)), hop_limit=3, traffic_class=0x81), IPV6_TYPE)
    options = bytes.fromhex("3c00 0502 0000 0100") + bytes.fromhex("0600 0104 00000000")
    yield ethernet(ipv6(options + tcp(7, 9, ACK, ends=(CLIENT6, SERVER6)), 0), IPV6_TYPE)
    routing = bytes([6, 2, 4, 1, 0, 0, 0, 0]) + final
    yield ethernet(ipv6(routing + tcp(7, 9, ACK, ends=(CLIENT6, final)), 43), IPV6_TYPE)
    fragment = bytes([6, 0, 0, 0, 0, 0, 0, 9])
    yield ethernet(ipv6(fragment + tcp(7, 9, ACK, ends=(CLIENT6, SERVER6)), 44), IPV6_TYPE)
    yield ethernet(ipv4(struct.pack("!HHI", 0x2000, IPV4_TYPE, 5) + ipv4(segment), 47))
    yield ethernet(ipv4(ipv6(tcp(1, 1, ACK, ends=(CLIENT6, SERVER6))), 41))
    for kept in ("ac0b000001000002000003", "2206aabbccdd", "1e0410200000", "1c048005", "fd04f989", "c8040102"):
        body = bytes.fromhex(kept)
        yield ethernet(ipv4(tcp(1, 1, ACK, options=body + b"\x01" * (-len(body) % 4))))


def test_frames_put_together_here(tmp_path: Path) -> None:
    capture = Capture(ETHERNET, [(frame, len(frame)) for frame in crafted()])
    told = tshark(capture.write(tmp_path / "crafted.pcap"), NAMES)
    seen = judge(capture, told)
    assert seen["frames"] == len(capture.frames) - 1  # the later fragment is not TCP's to read
    assert seen["TCP correct"] == 22
    assert seen["TCP wrong"] == seen["TCP not computed"] == seen["TCP not verified"] == 1
    assert seen["vlan.id"] == 3
    assert seen["mpls.label"] == 2
    assert seen["tcp.option_kind"] > 20


@pytest.mark.parametrize("kept", [20, 40, 54, 60, 66, 70])
def test_frames_cut_off(tmp_path: Path, kept: int) -> None:
    capture = Capture(ETHERNET, [(frame[:kept], len(frame)) for frame in crafted()])
    told = tshark(capture.write(tmp_path / "cut.pcap"), NAMES)
    assert sum(judge(capture, told).values()) > 100 or kept < 40


@pytest.mark.parametrize(
    ("link_type", "head"),
    [(RAW, ""), (0, "02000000"), (108, "00000002"), (113, "0004 0001 0006 00163ea1b2c3 0000 0800"),
     (276, "0800 0000 00000002 0001 04 06 00163ea1b2c30000"), (9, "ff03 0021"), (104, "0f00 0800"), (228, "")],
)  # fmt: skip
def test_link_types(tmp_path: Path, link_type: int, head: str) -> None:
    packet = bytes.fromhex(head) + ipv4(tcp(1, 2, ACK, b"abc", ACK_OPTIONS))
    capture = Capture(link_type, [(packet, len(packet))])
    seen = judge(capture, tshark(capture.write(tmp_path / "link.pcap"), NAMES))
    assert seen["frames"] == seen["TCP correct"] == seen["IPv4 correct"] == 1


# --- Captures.


def classic(path: Path, folder: Path) -> Path:
    """As a pcap file with one link type, which is quickly read; skips what has several."""
    target = folder / "classic.pcap"
    subprocess.run(["editcap", "-F", "nsecpcap", path, target], capture_output=True, timeout=TIMEOUT_S, check=False)
    if not target.exists() or target.stat().st_size < 24:
        pytest.skip("editcap cannot make a pcap file of it")
    return target


@pytest.mark.skipif(not FILES, reason="no captures folder")
@pytest.mark.skipif(not shutil.which("editcap"), reason="editcap is not installed")
@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}/{path.name}" for path in FILES])
def test_captures(path: Path, tmp_path: Path) -> None:
    target = classic(path, tmp_path)
    capture = Capture.read(target)
    seen = judge(capture, tshark(target, NAMES))
    if seen["frames"]:
        assert seen["tcp.srcport"] >= seen["frames"]


@pytest.mark.skipif(not FILES, reason="no captures folder")
@pytest.mark.parametrize("name", ["bro/206_example_b.pcap", "nDPI/rtsp.pcap", "markofu-pcaps/ftp-uploadfailed.pcap"])
def test_relative_numbers_and_scaled_windows(name: str, tmp_path: Path) -> None:
    """tshark counts from the first segment it sees: the same where that is the SYN."""
    path = CAPTURES / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    names = [
        "tcp.stream", "tcp.srcport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.options.wscale.shift",
        "tcp.seq", "tcp.ack", "tcp.window_size", "tcp.window_size_scalefactor", "tcp.window_size_value", "tcp.len",
    ]  # fmt: skip
    memory, firsts, compared = Memory(), dict[str, str](), 0
    for told in tshark(path, names, "-o", "tcp.relative_sequence_numbers:TRUE", "-Y", "tcp and not icmp"):
        one = {name: values[0] if values else "" for name, values in told.items()}
        stream = memory.stream(*record_and_finding(one, firsts))
        flags = int(one["tcp.flags"], 0)
        if stream.first_seq is None or stream.first_ack is None or not flags & ACK:
            continue
        compared += 1
        assert (int(one["tcp.seq_raw"]) - stream.first_seq) % 2**32 == int(one["tcp.seq"])
        assert (int(one["tcp.ack_raw"]) - stream.first_ack) % 2**32 == int(one["tcp.ack"])
        if stream.window_shift is not None and not flags & SYN:
            assert int(one["tcp.window_size_value"]) << stream.window_shift == int(one["tcp.window_size"])
    assert compared > 300


def record_and_finding(one: dict[str, str], firsts: dict[str, str]) -> tuple[Any, Any]:
    """What the memory reads of a record and a finding, from tshark's fields."""
    record, finding = np.zeros(1, r.PACKET_RECORD), np.zeros(1, FINDING)
    record["seq"], record["ack"] = int(one["tcp.seq_raw"]), int(one["tcp.ack_raw"])
    record["flags"], record["payload_bytes"] = int(one["tcp.flags"], 0), int(one["tcp.len"] or 0)
    if one["tcp.options.wscale.shift"]:
        record["options"], record["window_scale"] = r.OPTION_WINDOW_SCALE, int(one["tcp.options.wscale.shift"])
    finding["connection_id"] = int(one["tcp.stream"]) + 1
    finding["received"] = firsts.setdefault(one["tcp.stream"], one["tcp.srcport"]) != one["tcp.srcport"]
    return record[0], finding[0]
