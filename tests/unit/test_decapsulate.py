"""Frames of every link type made by hand, and headers that are cut or wrong: judged by tshark."""

import struct
from pathlib import Path

import pytest

from tcptrace.records import NOTE_ETHERNET, NOTE_FIRST_FRAGMENT, OPTION_MSS

from .decapsulator import (
    Decapsulator,
    Seen,
    cut_everywhere,
    decapsulate,
    decapsulator_folder,
    tshark_sees,
    we_see,
)
from .test_parse import (
    ALL_OPTIONS,
    DST4,
    DST6,
    DST_MAC,
    IPV4_TYPE,
    IPV6_TYPE,
    SRC4,
    SRC6,
    SRC_MAC,
    ethernet,
    ipv4,
    ipv6,
    mapped,
    tcp,
)

__all__ = ["decapsulate", "decapsulator_folder"]

# --- Frames.

SEGMENT = tcp(b"payload", options=ALL_OPTIONS)
INNER4, INNER6 = ipv4(SEGMENT), ipv6(SEGMENT)
WHOLE: Seen = (40_000, 443, 0xDEADBEEF, 7)
"""What is to be seen of SEGMENT."""


def snap(payload: bytes, kind: int = IPV4_TYPE) -> bytes:
    return b"\xaa\xaa\x03" + bytes(3) + struct.pack("!H", kind) + payload


def nflog(family: int, *attributes: tuple[int, bytes]) -> bytes:
    body = b""
    for kind, value in attributes:
        body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    return bytes([family, 0, 0, 0]) + body


def pflog(family: int, packet: bytes, length: int = 61) -> bytes:
    return bytes([length, family]) + bytes(62) + packet


def sll2(kind: int, payload: bytes, hardware: int = 1) -> bytes:
    return struct.pack("!HHIHBB8x", kind, 0, 1, hardware, 0, 6) + payload


def sll(kind: int, payload: bytes, hardware: int = 1) -> bytes:
    return struct.pack("!HHH8xH", 0, hardware, 6, kind) + payload


NFLOG = 239
TOKEN_RING = b"\x10\x40" + DST_MAC
ARCNET = b"\x01\x02"
IEEE1394 = bytes(16)
FRAME_RELAY = b"\x18\x41"
GRH = bytes(40)

LINKS: dict[str, tuple[int, bytes]] = {
    "null, little-endian": (0, struct.pack("<I", 2) + INNER4),
    "null, big-endian": (0, struct.pack(">I", 2) + INNER4),
    "null, NetBSD": (0, struct.pack("<I", 24) + INNER6),
    "null, FreeBSD": (0, struct.pack("<I", 28) + INNER6),
    "null, macOS": (0, struct.pack(">I", 30) + INNER6),
    "null, ethertype": (0, struct.pack("<I", IPV6_TYPE) + INNER6),
    "null, PPP": (0, b"\xff\x03\x00\x21" + INNER4),
    "loop": (108, struct.pack(">I", 2) + INNER4),
    "loop, IPv6": (108, struct.pack(">I", 24) + INNER6),
    "Ethernet": (1, ethernet(INNER4)),
    "Ethernet, IPv6": (1, ethernet(INNER6, IPV6_TYPE)),
    "802.3": (1, ethernet(snap(INNER4) + b"trailer", len(snap(INNER4)))),
    "802.3, LLC": (1, ethernet(b"\x06\x06\x03" + INNER4, 3 + len(INNER4))),
    "802.3, IPv6": (1, ethernet(snap(INNER6, IPV6_TYPE), len(snap(INNER6)))),
    "ISL": (1, bytes.fromhex("01000c000003 020000000001") + struct.pack("!H", 112) + bytes(12) + ethernet(INNER4)),
    "FabricPath": (1, ethernet(bytes(2) + ethernet(INNER4) + b"FCS.", 0x8903)),
    "FabricPath, tagged": (1, ethernet(bytes(2) + ethernet(INNER4) + b"FCS.", 0x8903, ((0x8100, 1),))),
    "Token Ring": (6, TOKEN_RING + SRC_MAC + snap(INNER4)),
    "Token Ring, routed": (6, TOKEN_RING + b"\x82" + SRC_MAC[1:] + b"\x06\x30abcd" + snap(INNER4)),
    "ARCNET": (7, ARCNET + b"\xd4\x00\x00\x01" + INNER4),
    "ARCNET, exception": (7, ARCNET + b"\xd4\xff\x00\x00\xd4\x00\x00\x01" + INNER4),
    "ARCNET, RFC 1051": (7, ARCNET + b"\xf0" + INNER4),
    "ARCNET, IPv6": (7, ARCNET + b"\xc4\x00\x00\x01" + INNER6),
    "ARCNET, Linux": (129, ARCNET + b"\x00\x00\xd4\x00\x00\x01" + INNER4),
    "PPP": (9, b"\xff\x03\x00\x21" + INNER4),
    "PPP, fields compressed": (9, b"\x21" + INNER4),
    "PPP, IPv6": (9, b"\xff\x03\x00\x57" + INNER6),
    "PPP, Cisco": (9, b"\x0f\x00\x08\x00" + INNER4),
    "PPP in HDLC": (50, b"\xff\x03\x21" + INNER4),
    "PPP with direction": (204, b"\x00\xff\x03\x00\x21" + INNER4),
    "PPPoE": (51, b"\x11\x00\x00\x01" + struct.pack("!H", 2 + len(INNER4)) + b"\x00\x21" + INNER4 + b"pad"),
    "FDDI": (10, b"\x50" + DST_MAC + SRC_MAC + snap(INNER4)),
    "raw": (101, INNER4),
    "raw, IPv6": (101, INNER6),
    "raw, PPP": (101, b"\xff\x03\x00\x57" + INNER6),
    "Symantec": (99, bytes(6) + b"\x08\x00" + bytes(36) + INNER4),
    "Symantec 3": (99, bytes(10) + b"\x86\xdd" + bytes(44) + INNER6),
    "ATM": (100, snap(INNER4)),
    "ATM, bridged": (100, b"\xaa\xaa\x03\x00\x80\xc2\x00\x07\x00\x00" + ethernet(INNER4)),
    "Cisco HDLC": (104, b"\x0f\x00\x08\x00" + INNER4),
    "Cisco HDLC, IPv6": (104, b"\x8f\x00\x86\xdd" + INNER6),
    "classical IP over ATM": (106, INNER4),
    "Frame Relay": (107, FRAME_RELAY + b"\x03\xcc" + INNER4),
    "Frame Relay, padded": (107, FRAME_RELAY + b"\x03\x00\x8e" + INNER6),
    "Frame Relay, SNAP": (107, FRAME_RELAY + b"\x03\x00\x80\x00\x00\x00\x08\x00" + INNER4),
    "Frame Relay, bridged": (107, FRAME_RELAY + b"\x03\x00\x80\x00\x80\xc2\x00\x07" + ethernet(INNER4)),
    "Frame Relay, PPP": (107, FRAME_RELAY + b"\x03\xcf\x00\x21" + INNER4),
    "Frame Relay, Cisco": (107, FRAME_RELAY + b"\x08\x00" + INNER4),
    "Frame Relay, long address": (107, b"\x18\x40\x02\x41\x03\xcc" + INNER4),
    "enc": (109, struct.pack("<I", 2) + bytes(8) + INNER4),
    "enc, IPv6": (109, struct.pack(">I", 24) + bytes(8) + INNER6),
    "cooked": (113, sll(IPV4_TYPE, INNER4)),
    "cooked, IPv6": (113, sll(IPV6_TYPE, INNER6)),
    "cooked, VLAN": (113, sll(0x8100, struct.pack("!HH", 5, IPV4_TYPE) + INNER4)),
    "cooked, LLC": (113, sll(4, snap(INNER4))),
    "cooked, Ethernet": (113, sll(3, ethernet(INNER4))),
    "cooked, PPP": (113, sll(7, b"\xff\x03\x00\x21" + INNER4)),
    "cooked, GRE": (113, sll(0x6558, ethernet(INNER4), 778)),
    "cooked, Frame Relay": (113, sll(0, FRAME_RELAY + b"\x03\xcc" + INNER4, 770)),
    "cooked 2": (276, sll2(IPV4_TYPE, INNER4)),
    "cooked 2, IPv6": (276, sll2(IPV6_TYPE, INNER6)),
    "cooked 2, GRE": (276, sll2(IPV6_TYPE, INNER6, 778)),
    "pflog": (117, pflog(2, INNER4)),
    "pflog, OpenBSD": (117, pflog(24, INNER6)),
    "pflog, FreeBSD": (117, pflog(28, INNER6, 64)),
    "Fibre Channel": (122, bytes(16) + snap(INNER4)),
    "TZSP": (128, b"\x01\x00\x00\x01\x00\x0a\x01x\x01" + ethernet(INNER4)),
    "IEEE 1394": (138, IEEE1394 + b"\x08\x00" + INNER4),
    "PPI": (192, struct.pack("<BBHI", 0, 0, 8, 1) + ethernet(INNER4)),
    "IPv4": (228, INNER4),
    "IPv6": (229, INNER6),
    "nflog": (239, nflog(2, (1, b"\x08\x00\x00\x00"), (10, b"prefix\0"), (9, INNER4))),
    "nflog, no protocol": (239, nflog(10, (9, INNER6))),
    "IPoIB": (242, GRH + b"\x08\x00\x00\x00" + INNER4),
    "PKTAP": (258, struct.pack("<III", 108, 1, 1) + bytes(96) + ethernet(INNER4)),
}
UNKNOWN_TO_TSHARK: dict[str, tuple[int, bytes]] = {
    "MPLS": (219, struct.pack("!I", 16 << 12 | 0x1FF) + INNER4),
    "raw as on some systems": (12, INNER4),
    "raw as on OpenBSD": (14, INNER6),
    "null, Linux": (0, struct.pack("<I", 10) + INNER6),
}
IN_ETHERNET = ("Ethernet", "802.3", "ISL", "FabricPath", "bridged", "PPI", "PKTAP", "TZSP")


@pytest.mark.parametrize("name", LINKS | UNKNOWN_TO_TSHARK)
def test_link_types(decapsulate: Decapsulator, name: str) -> None:
    link, frame = (LINKS | UNKNOWN_TO_TSHARK)[name]
    verdict, record, _, original, ip = decapsulate(frame, link)
    six = record["ip_version"] == 6
    assert (verdict, original, ip) == ("tcp", len(ip), INNER6 if six else INNER4)
    assert tuple(record[field] for field in ("src_port", "dst_port", "seq", "payload_bytes")) == WHOLE
    assert (record["src_addr"], record["dst_addr"]) == ((SRC6, DST6) if six else (mapped(SRC4), mapped(DST4)))
    assert (record["mss"], record["ts_value"], record["tcp_header_bytes"], record["ttl"]) == (1460, 1, 40, 61)
    assert bool(record["note"] & NOTE_ETHERNET) == any(part in name for part in IN_ETHERNET if "GRE" not in name) or (
        name == "cooked, GRE"
    )


@pytest.mark.parametrize("link", sorted({link for link, _ in LINKS.values()}))
def test_link_types_as_tshark_sees_them(decapsulate: Decapsulator, tmp_path: Path, link: int) -> None:
    """Whole, and cut off at every length: but of NFLOG tshark wants to show all before it looks on."""
    whole = [frame for number, frame in LINKS.values() if number == link]
    frames = [(frame, len(frame)) for frame in whole] + cut_everywhere(whole if link != NFLOG else [])
    seen = we_see(decapsulate, link, frames)
    assert {seen.get(at) for at in range(len(whole))} == {WHOLE}
    assert seen == tshark_sees(tmp_path / "frames.pcap", link, frames)


@pytest.mark.parametrize("link", [105, 119, 127, 163, 147, 3, 143, 195, 9999])
def test_unsupported_link_types(decapsulate: Decapsulator, link: int) -> None:
    assert decapsulate(ethernet(INNER4), link).verdict == "unsupported_link"


# --- Headers that are cut, or wrong.


def test_options_as_far_as_they_are_there(decapsulate: Decapsulator) -> None:
    frame = ethernet(INNER4)
    for kept in range(50, len(frame) + 1):
        verdict, record, *_ = decapsulate(frame[:kept], original=len(frame))
        assert (verdict, record["payload_bytes"], record["tcp_header_bytes"]) == ("tcp", 7, 40)
        assert bool(record["options"] & OPTION_MSS) == (kept >= 14 + 20 + 20 + 4)
        assert not record["options"] & 0x80  # none of them malformed
    for kept in range(1, 50):
        assert decapsulate(frame[:kept], original=len(frame)).verdict == "need_more"


WRONG = {
    "IPv4 longer than the frame": ethernet(ipv4(SEGMENT, total_bytes=1500)),
    "IPv4 without a length": ethernet(ipv4(SEGMENT, total_bytes=0)),
    "IPv4 of a length below its header": ethernet(ipv4(SEGMENT, total_bytes=19)),
    "IPv4 of just its header": ethernet(ipv4(SEGMENT, total_bytes=20)),
    "IPv4 that ends in the TCP header": ethernet(ipv4(SEGMENT, total_bytes=37)),
    "IPv4 that ends in the TCP options": ethernet(ipv4(SEGMENT, total_bytes=44)),
    "IPv4 with a short header": ethernet(ipv4(SEGMENT, first=0x44)),
    "IPv4 of version 6": ethernet(INNER6),
    "IPv4 of version 5": ethernet(ipv4(SEGMENT, first=0x55)),
    "IPv6 of version 4": ethernet(INNER4, IPV6_TYPE),
    "IPv6 longer than the frame": ethernet(ipv6(SEGMENT, payload_bytes=1500), IPV6_TYPE),
    "IPv6 without a length": ethernet(ipv6(SEGMENT, payload_bytes=0), IPV6_TYPE),
    "IPv6 that ends in the TCP header": ethernet(ipv6(SEGMENT, payload_bytes=17), IPV6_TYPE),
    "TCP with an offset of 0": ethernet(ipv4(tcp(b"abc", offset=0))),
    "TCP with an offset of 4": ethernet(ipv4(tcp(b"abc", offset=4))),
    "TCP with an offset past the end": ethernet(ipv4(tcp(b"abc", offset=15))),
    "TCP without its last bytes": ethernet(ipv4(tcp()[:16])),
    "TCP without its window": ethernet(ipv4(tcp()[:15])),
    "padding": ethernet(ipv4(tcp(), total_bytes=40)).ljust(60, b"\xaa"),
}


def test_wrong_headers_as_tshark_sees_them(decapsulate: Decapsulator, tmp_path: Path) -> None:
    frames = [(frame, len(frame)) for frame in WRONG.values()] + cut_everywhere(list(WRONG.values()))
    assert we_see(decapsulate, 1, frames) == tshark_sees(tmp_path / "frames.pcap", 1, frames)


@pytest.mark.parametrize(
    ("name", "verdict", "payload_bytes"),
    [
        ("IPv4 longer than the frame", "tcp", 7),
        ("IPv4 without a length", "tcp", 7),
        ("IPv4 of a length below its header", "malformed_ipv4", None),
        ("IPv4 that ends in the TCP header", "tcp", 0),
        ("IPv4 of version 6", "tcp", 7),
        ("IPv4 of version 5", "malformed_ipv4", None),
        ("IPv6 of version 4", "malformed_ipv6", None),
        ("IPv6 longer than the frame", "tcp", 7),
        ("TCP with an offset of 0", "tcp", 23),
        ("TCP with an offset past the end", "tcp", 0),
        ("TCP without its last bytes", "tcp", 0),
        ("TCP without its window", "malformed_tcp", None),
        ("padding", "tcp", 0),
    ],
)
def test_wrong_headers(decapsulate: Decapsulator, name: str, verdict: str, payload_bytes: int | None) -> None:
    answer = decapsulate(WRONG[name])
    assert (answer.verdict, answer.record.get("payload_bytes")) == (verdict, payload_bytes)


def test_snapped_first_fragment(decapsulate: Decapsulator, tmp_path: Path) -> None:
    """The segment was seen, but how long it is never will be."""
    frames = [(ethernet(ipv4(tcp(b"x" * 80), fragment=0x2000))[:64], 14 + 20 + 20 + 80)]
    answer = decapsulate(frames[0][0], original=frames[0][1])
    assert (answer.verdict, answer.record["payload_bytes"]) == ("tcp", 0)
    assert answer.record["note"] == NOTE_ETHERNET | NOTE_FIRST_FRAGMENT
    assert we_see(decapsulate, 1, frames) == tshark_sees(tmp_path / "frames.pcap", 1, frames)
