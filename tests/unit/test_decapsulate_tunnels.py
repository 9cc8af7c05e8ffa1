"""What may stand between a frame and its TCP segment: tags, labels, tunnels, made by hand and judged by tshark."""

import struct
from pathlib import Path

import pytest

from .decapsulator import Decapsulator, cut_everywhere, decapsulate, decapsulator_folder, tshark_sees, we_see
from .test_decapsulate import INNER4, INNER6, SEGMENT, WHOLE, snap
from .test_parse import (
    AH,
    AUTHENTICATION,
    DESTINATION,
    DST4,
    DST6,
    DST_MAC,
    EMPTY,
    FRAGMENT,
    HOP_BY_HOP,
    IPV4_TYPE,
    IPV6_TYPE,
    LONG,
    ROUTING,
    SRC4,
    SRC6,
    SRC_MAC,
    ethernet,
    ipv4,
    ipv6,
    mapped,
    tcp,
)
from .test_parse import (
    WHOLE as UNSPLIT,
)

__all__ = ["decapsulate", "decapsulator_folder"]

# --- Layers around: other addresses than the inner packet's, and another TTL.


def outer4(payload: bytes, protocol: int) -> bytes:
    fixed = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0x4000, 9, protocol, 0)
    return fixed + bytes([203, 0, 113, 1, 203, 0, 113, 2]) + payload


def outer6(payload: bytes, protocol: int) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 9) + b"\x20\x01" + bytes(29) + b"\x09" + payload


def udp(payload: bytes, port: int, source: int = 50_000, length: int | None = None) -> bytes:
    length = 8 + len(payload) if length is None else length
    return outer4(struct.pack("!HHHH", source, port, length, 0) + payload, 17)


def gre(payload: bytes, kind: int, flags: int = 0, optional: bytes = b"") -> bytes:
    return outer4(struct.pack("!HH", flags, kind) + optional + payload, 47)


def mpls(payload: bytes, *labels: int) -> bytes:
    last = len(labels) - 1
    return b"".join(struct.pack("!I", x << 12 | (at == last) << 8 | 64) for at, x in enumerate(labels)) + payload


def pppoe(ppp: bytes) -> bytes:
    return ethernet(b"\x11\x00\x12\x34" + struct.pack("!H", len(ppp)) + ppp, 0x8864)


def gtp(payload: bytes, flags: int = 0x30, optional: bytes = b"") -> bytes:
    return udp(struct.pack("!BBHI", flags, 255, len(optional + payload), 1) + optional + payload, 2152, 2152)


FRAME4, FRAME6 = ethernet(INNER4), ethernet(INNER6, IPV6_TYPE)
MAKERS_FRAME = bytes.fromhex("00000c000001 00000c000002 0800") + INNER4
"""Of a maker whose addresses begin with 0: as behind a pseudowire without control word."""
OTHER_MAKERS_FRAME = bytes.fromhex("3cfdfe123456 3cfdfe654321 0800") + INNER4
"""What tshark takes for one behind a control word, by its list of makers."""
KEY, NUMBER = bytes(3) + b"\x05", bytes(3) + b"\x06"
FAR6 = b"\x20\x01" + bytes(13) + b"\x77"

IN_ETHERNET: dict[str, bytes] = {
    "VLAN": ethernet(INNER4, tags=((0x8100, 5),)),
    "VLAN of 802.1ad": ethernet(INNER6, IPV6_TYPE, ((0x88A8, 5), (0x8100, 6))),
    "VLAN of 0x9100": ethernet(INNER4, tags=((0x9100, 5), (0x8100, 6), (0x8100, 7))),
    "VLAN with LLC": ethernet(snap(INNER4) + b"pad", len(snap(INNER4)), ((0x8100, 5),)),
    "20 VLANs": ethernet(INNER4, tags=((0x8100, 5),) * 20),
    "I-TAG": ethernet(bytes(16) + b"\x08\x00" + INNER4, 0x88E7),
    "B-TAG and I-TAG": ethernet(bytes(16) + b"\x86\xdd" + INNER6, 0x88E7, ((0x88A8, 5),)),
    "VN-TAG": ethernet(bytes(4) + b"\x08\x00" + INNER4, 0x8926),
    "VN-TAG and VLAN": ethernet(bytes(4) + b"\x81\x00\x00\x05\x86\xdd" + INNER6, 0x8926),
    "E-TAG": ethernet(bytes(6) + b"\x08\x00" + INNER4, 0x893F),
    "R-TAG": ethernet(bytes(4) + b"\x08\x00" + INNER4, 0xF1C1),
    "HSR": ethernet(bytes(4) + b"\x08\x00" + INNER4, 0x892F),
    "Cisco metadata": ethernet(b"\x01\x01\x00\x01\x00\x05\x08\x00" + INNER4, 0x8909),
    "TRILL": ethernet(bytes(6) + FRAME4, 0x22F3),
    "TRILL with options": ethernet(b"\x00\x40" + bytes(8) + FRAME6, 0x22F3),
    "Ethernet in Ethernet": ethernet(FRAME4, 0x6558),
    "jumbo LLC": ethernet(snap(INNER4), 0x8870),
    "MPLS": ethernet(mpls(INNER4, 16), 0x8847),
    "MPLS, multicast": ethernet(mpls(INNER6, 16, 17, 18), 0x8848),
    "MPLS, explicit null": ethernet(mpls(INNER4, 20, 0), 0x8847),
    "MPLS, control word": ethernet(mpls(bytes(4) + OTHER_MAKERS_FRAME, 16), 0x8847),
    "MPLS, no control word": ethernet(mpls(MAKERS_FRAME, 16), 0x8847),
    "MPLS, VLAN inside": ethernet(
        mpls(b"\x00\x00\x00\x07" + OTHER_MAKERS_FRAME[:12] + b"\x81\x00\x00\x05" + OTHER_MAKERS_FRAME[12:], 16, 17),
        0x8847,
    ),
    "PPPoE": pppoe(b"\x00\x21" + INNER4) + b"padding",
    "PPPoE, IPv6": pppoe(b"\x00\x57" + INNER6),
    "PPPoE, compressed field": pppoe(b"\x21" + INNER4),
    "PPPoE, MPLS": pppoe(b"\x02\x81" + mpls(INNER4, 16)),
    "PPPoE, bridged": pppoe(b"\x00\x31\x02\x01" + FRAME4 + b"\x00\x00"),
    "PPPoE, multilink": pppoe(b"\x00\x3d\xc0\x00\x00\x01\x00\x21" + INNER4),
    "PPPoE in two VLANs": ethernet(pppoe(b"\x00\x21" + INNER4)[14:], 0x8864, ((0x88A8, 1), (0x8100, 2))),
    "NSH": ethernet(b"\x0f\xc6\x01\x01" + bytes(20) + INNER4, 0x894F),
    "NSH of type 2": ethernet(b"\x0f\xc2\x02\x03" + bytes(4) + FRAME6, 0x894F),
}
IN_IP: dict[str, bytes] = {
    "IP in IP": outer4(INNER4, 4),
    "IPv6 in IP": outer4(INNER6, 41),
    "IP in IPv6": outer6(INNER4, 4),
    "IPv6 in IPv6": outer6(INNER6, 41),
    "five deep": outer4(outer6(outer4(outer6(outer4(INNER4, 4), 4), 41), 4), 41),
    "AH": outer4(bytes([6]) + AH + SEGMENT, 51),
    "AH and IP in IP": outer4(bytes([4]) + AH + INNER4, 51),
    "EtherIP": outer4(b"\x30\x00" + FRAME4, 97),
    "Ethernet in IP": outer4(FRAME4, 143),
    "MPLS in IP": outer4(mpls(INNER4, 16), 137),
    "GRE": gre(INNER4, 0x0800),
    "GRE, IPv6": gre(INNER6, 0x86DD),
    "GRE, all fields": gre(INNER4, 0x0800, 0xB000, bytes(4) + KEY + NUMBER),
    "GRE, source routes": gre(INNER4, 0x0800, 0x4000, bytes(4) + b"\x08\x00\x04\x04\x0a\x00\x00\x09" + bytes(4)),
    "GRE, Ethernet": gre(FRAME4, 0x6558, 0x2000, KEY),
    "GRE, MikroTik": gre(FRAME4, 0x6400),
    "GRE, MPLS": gre(mpls(INNER6, 16), 0x8847),
    "GRE, PPTP": gre(b"\xff\x03\x00\x21" + INNER4, 0x880B, 0x3081, KEY + NUMBER + NUMBER),
    "GRE, PPTP compressed": gre(b"\x21" + INNER4, 0x880B, 0x3001, KEY + NUMBER),
    "GRE, ERSPAN I": gre(FRAME4, 0x88BE),
    "GRE, ERSPAN II": gre(b"\x10\x05\x00\x01" + bytes(4) + FRAME4, 0x88BE, 0x1000, NUMBER),
    "GRE, ERSPAN III": gre(b"\x20\x05\x00\x01" + bytes(8) + FRAME6, 0x22EB, 0x1000, NUMBER),
    "GRE, ERSPAN III, longer": gre(
        b"\x20\x05\x00\x01" + bytes(7) + b"\x01" + bytes(8) + FRAME6, 0x22EB, 0x1000, NUMBER
    ),
    "GRE, WCCP": gre(INNER4, 0x883E),
    "GRE, WCCP 2": gre(b"\x00\x00\x00\x01" + INNER4, 0x883E),
    "GRE, Frame Relay": gre(b"\x18\x41\x03\xcc" + INNER4, 0x6559),
    "GRE, NSH": gre(b"\x0f\xc2\x02\x02" + bytes(4) + INNER6, 0x894F),
    "GRE, Cisco metadata": gre(b"\x08\x00\x01\x01\x00\x01\x00\x05" + INNER4, 0x8909),
    "GRE over IPv6": outer6(b"\x00\x00\x86\xdd" + INNER6, 47),
    "GRE in UDP": udp(b"\x00\x00\x08\x00" + INNER4, 4754),
    "VXLAN": udp(b"\x08" + bytes(7) + FRAME4, 4789),
    "VXLAN, source port": udp(b"\x08" + bytes(7) + FRAME4, 51_000, 4789),
    "VXLAN, VLAN inside": udp(b"\x08" + bytes(7) + ethernet(INNER6, IPV6_TYPE, ((0x8100, 5),)), 4789),
    "VXLAN over IPv6": outer6(struct.pack("!HHHH", 50_000, 4789, 16 + len(FRAME6), 0) + bytes(8) + FRAME6, 17),
    "VXLAN-GPE, IPv4": udp(b"\x0c\x00\x00\x01" + bytes(4) + INNER4, 4790),
    "VXLAN-GPE, IPv6": udp(b"\x0c\x00\x00\x02" + bytes(4) + INNER6, 4790),
    "VXLAN-GPE, Ethernet": udp(b"\x0c\x00\x00\x03" + bytes(4) + FRAME4, 4790),
    "VXLAN-GPE, NSH": udp(b"\x0c\x00\x00\x04" + bytes(4) + b"\x0f\xc2\x02\x01" + bytes(4) + INNER4, 4790),
    "VXLAN-GPE, MPLS": udp(b"\x0c\x00\x00\x05" + bytes(4) + mpls(INNER4, 16), 4790),
    "GENEVE": udp(b"\x00\x00\x65\x58" + bytes(4) + FRAME4, 6081),
    "GENEVE, options": udp(b"\x02\x00\x86\xdd" + bytes(4) + b"\x01\x02\x03\x01" + bytes(4) + INNER6, 6081),
    "GTP": gtp(INNER4),
    "GTP, IPv6": gtp(INNER6),
    "GTP, Ethernet": gtp(FRAME4),
    "GTP, sequence number": gtp(INNER4, 0x32, b"\x00\x01\x00\x00"),
    "GTP, extension": gtp(INNER4, 0x34, b"\x00\x00\x00\x85\x01\x00\x09\x00"),
    "GTP, two extensions": gtp(INNER6, 0x36, b"\x00\x01\x00\x40\x01\x08\x68\x85\x02" + bytes(6) + b"\x00"),
    "GTP, version 0": udp(struct.pack("!BBH16x", 0x1E, 255, len(INNER4)) + INNER4, 3386, 3386),
    "Teredo": udp(INNER6, 3544),
    "Teredo, authentication": udp(b"\x00\x01\x02\x03ididx" + bytes(9) + INNER6, 3544),
    "Teredo, origin": udp(bytes(8) + INNER6, 3544),
    "Teredo, both": udp(b"\x00\x01\x00\x00" + bytes(9) + bytes(8) + INNER6, 3544),
    "L2TP": udp(struct.pack("!HHH", 2, 1, 2) + b"\xff\x03\x00\x21" + INNER4, 1701, 1701),
    "L2TP, length": udp(
        struct.pack("!HHHH", 0x4002, 12 + len(INNER4), 1, 2) + b"\xff\x03\x00\x21" + INNER4 + b"x", 1701
    ),
    "L2TP, all": udp(struct.pack("!HHHHHH", 0x0A02, 1, 2, 3, 4, 2) + b"pd\x21" + INNER4, 1701, 1701),
    "MPLS in UDP": udp(mpls(INNER4, 16, 17), 6635),
    "AYIYA": udp(b"\x44\x52\x11\x29" + bytes(4) + bytes(16) + bytes(20) + INNER6, 5072, 50_001),
    "TZSP": udp(b"\x01\x00\x00\x01\x00\x29\x02\x00\x01\x01" + FRAME4, 37_008),
    "LISP": udp(bytes(8) + INNER4, 4341),
    "LISP, IPv6": udp(bytes(8) + INNER6, 4341),
    "Juniper mirror": udp(bytes(8) + INNER6, 30_030),
    "Mobile IP": udp(b"\x04\x04\x00\x00" + INNER4, 434, 434),
    "UDP-Lite": outer4(struct.pack("!HHHH", 50_000, 4789, 8, 0) + bytes(8) + FRAME4, 136),
    "UDP longer than its packet": udp(b"\x08" + bytes(7) + FRAME4, 4789, length=4000),
    "hop-by-hop": ipv6(SEGMENT, (HOP_BY_HOP, EMPTY)),
    "all extensions": ipv6(
        SEGMENT, (HOP_BY_HOP, EMPTY), (DESTINATION, LONG), (ROUTING, LONG), (FRAGMENT, UNSPLIT), (AUTHENTICATION, AH)
    ),
    "many extensions": ipv6(SEGMENT, *[(DESTINATION, EMPTY)] * 30),
    "SHIM6": ipv6(SEGMENT, (140, b"\x00\x80" + bytes(5))),
}
TUNNELS = IN_ETHERNET | {
    name: ethernet(packet, IPV6_TYPE if packet[0] >> 4 == 6 else IPV4_TYPE) for name, packet in IN_IP.items()
}


@pytest.mark.parametrize("name", TUNNELS)
def test_tunnels(decapsulate: Decapsulator, name: str) -> None:
    verdict, record, _, original, ip = decapsulate(TUNNELS[name])
    assert (verdict, original) == ("tcp", len(ip))
    assert ip.endswith(SEGMENT)
    assert tuple(record[field] for field in ("src_port", "dst_port", "seq", "payload_bytes")) == WHOLE
    if name != "AH":
        addresses = (mapped(SRC4), mapped(DST4)) if ip[0] >> 4 == 4 else (SRC6, DST6)
        assert (record["src_addr"], record["dst_addr"], record["ttl"]) == (*addresses, 61)
    assert (record["src_mac"], record["dst_mac"], record["options"]) == (SRC_MAC, DST_MAC, 0x17)


def test_tunnels_as_tshark_sees_them(decapsulate: Decapsulator, tmp_path: Path) -> None:
    whole = list(TUNNELS.values())
    frames = [(frame, len(frame)) for frame in whole]
    seen = we_see(decapsulate, 1, frames)
    judge = tshark_sees(tmp_path / "frames.pcap", 1, frames)
    names = list(TUNNELS)
    assert {names[at] for at in seen} == {names[at] for at in judge} == set(names)
    assert seen == judge


@pytest.mark.parametrize("part", [IN_ETHERNET, IN_IP], ids=["Ethernet", "IP"])
def test_cut_tunnels_as_tshark_sees_them(decapsulate: Decapsulator, tmp_path: Path, part: dict[str, bytes]) -> None:
    """Of a multilink frame tshark takes what was captured for the whole."""
    frames = cut_everywhere([TUNNELS[name] for name in part if "multilink" not in name])
    seen = we_see(decapsulate, 1, frames)
    judge = tshark_sees(tmp_path / "frames.pcap", 1, frames)
    assert {at: (seen.get(at), judge.get(at)) for at in seen.keys() | judge if seen.get(at) != judge.get(at)} == {}


# --- What is not entered.

QUOTED = b"\x03\x01" + bytes(6) + INNER4
NOT_ENTERED: dict[str, bytes] = {
    "ICMP error": ethernet(outer4(QUOTED, 1)),
    "ICMPv6 error": ethernet(outer6(b"\x01\x00" + bytes(6) + INNER6, 58), IPV6_TYPE),
    "sFlow's port": ethernet(udp(bytes(40) + FRAME4, 6343)),
    "ESP": ethernet(outer4(bytes(8) + INNER4, 50)),
    "21 VLANs": ethernet(INNER4, tags=((0x8100, 5),) * 21),
    "another UDP port": ethernet(udp(INNER4, 50_001)),
    "UDP of a length below its header": ethernet(udp(b"\x08" + bytes(7) + FRAME4, 4789, length=7)),
    "GRE of another protocol": ethernet(gre(INNER4, 0x1234)),
    "ERSPAN of an unknown version": ethernet(gre(b"\x30" + bytes(11) + FRAME4, 0x22EB, 0x1000, NUMBER)),
    "ERSPAN III of no Ethernet": ethernet(gre(b"\x20" + bytes(9) + b"\x08\x00" + FRAME4, 0x22EB, 0x1000, NUMBER)),
    "L2TP control": ethernet(udp(struct.pack("!HHHHHH", 0xC802, 12, 1, 2, 3, 4) + b"\x21" + INNER4, 1701, 1701)),
    "GTP echo": ethernet(udp(struct.pack("!BBHI", 0x30, 1, len(INNER4), 1) + INNER4, 2152, 2152)),
    "GTP'": ethernet(udp(struct.pack("!BBHI", 0x20, 255, len(INNER4), 1) + INNER4, 2152, 2152)),
    "GTP extension without a length": ethernet(gtp(INNER4, 0x34, b"\x00\x00\x00\x85\x00\x00\x00\x00")),
    "AYIYA heartbeat": ethernet(udp(b"\x44\x52\x10\x29" + bytes(40) + INNER6, 5072, 50_001)),
    "PPP of another protocol": pppoe(b"\x80\x21" + INNER4),
    "multilink fragment": pppoe(b"\x00\x3d\x80\x00\x00\x01\x00\x21" + INNER4),
    "MPLS alert": ethernet(mpls(bytes(4) + FRAME4, 14), 0x8847),
    "MPLS channel": ethernet(mpls(b"\x10\x00\x00\x07" + INNER4, 13), 0x8847),
    "NSH of another protocol": ethernet(b"\x0f\xc6\x01\x06" + bytes(20) + INNER4, 0x894F),
    "LLC of another service": ethernet(b"\x42\x42\x03" + INNER4, 3 + len(INNER4)),
    "LLC test frame": ethernet(b"\xaa\xaa\xe3" + snap(INNER4)[3:], len(snap(INNER4))),
    "SNAP of another organization": ethernet(b"\xaa\xaa\x03\x00\x00\x0c\x08\x00" + INNER4, len(snap(INNER4))),
    "no next header": ethernet(ipv6(SEGMENT, (HOP_BY_HOP, EMPTY), protocol=59), IPV6_TYPE),
    "mobility": ethernet(ipv6(SEGMENT, (135, EMPTY)), IPV6_TYPE),
}


@pytest.mark.parametrize("name", NOT_ENTERED)
def test_what_is_not_entered(decapsulate: Decapsulator, name: str) -> None:
    assert decapsulate(NOT_ENTERED[name]).verdict == "not_tcp"


def test_tshark_does_not_enter_it_either(tmp_path: Path) -> None:
    frames = [(frame, len(frame)) for frame in NOT_ENTERED.values()]
    names = list(NOT_ENTERED)
    assert [names[at] for at in tshark_sees(tmp_path / "frames.pcap", 1, frames)] == []


def test_the_outermost_segment_counts(decapsulate: Decapsulator) -> None:
    frame = ethernet(outer4(tcp(INNER4), 6))
    _, record, *_ = decapsulate(frame)
    assert (record["payload_bytes"], record["ttl"]) == (len(INNER4), 9)


def test_frames_that_never_end(decapsulate: Decapsulator) -> None:
    packet = INNER4
    for _ in range(400):
        packet = outer4(packet, 4)
    assert decapsulate(ethernet(packet)).verdict == "too_deep"
    assert decapsulate(ethernet(struct.pack("!I", 16 << 12 | 64) * 20_000, 0x8847)).verdict == "too_deep"


# --- What a record says of them.


@pytest.mark.parametrize(
    ("name", "count", "outer", "inner"),
    [
        ("VLAN", 1, 5, 0),
        ("VLAN of 802.1ad", 2, 5, 6),
        ("VLAN of 0x9100", 3, 5, 6),
        ("PPPoE in two VLANs", 2, 1, 2),
        ("VXLAN, VLAN inside", 1, 5, 0),
        ("VXLAN", 0, 0, 0),
    ],
)
def test_vlan_tags(decapsulate: Decapsulator, name: str, count: int, outer: int, inner: int) -> None:
    record = decapsulate(TUNNELS[name]).record
    assert tuple(record[field] for field in ("vlan_count", "vlan_outer", "vlan_inner")) == (count, outer, inner)


ROUTES = {
    "type 0": ethernet(ipv6(SEGMENT, (ROUTING, b"\x04\x00\x02" + bytes(4) + DST6 + FAR6)), IPV6_TYPE),
    "type 2": ethernet(ipv6(SEGMENT, (ROUTING, b"\x02\x02\x01" + bytes(4) + FAR6)), IPV6_TYPE),
    "segments": ethernet(ipv6(SEGMENT, (ROUTING, b"\x04\x04\x01\x01" + bytes(3) + FAR6 + DST6)), IPV6_TYPE),
    "loose": ethernet(ipv4(SEGMENT, options=b"\x83\x0b\x04" + DST4 + bytes([9, 9, 9, 9]) + b"\x00")),
    "strict": ethernet(ipv4(SEGMENT, options=b"\x01\x89\x07\x04" + bytes([9, 9, 9, 9]))),
}
ARRIVED = {
    "segments": ethernet(ipv6(SEGMENT, (ROUTING, b"\x04\x04\x00\x01" + bytes(3) + FAR6 + DST6)), IPV6_TYPE),
    "timestamps": ethernet(ipv4(SEGMENT, options=b"\x44\x08\x05\x00" + bytes([9, 9, 9, 9]))),
    "record route": ethernet(ipv4(SEGMENT, options=b"\x07\x07\x04" + bytes([9, 9, 9, 9]) + b"\x00")),
}


def test_source_routes_lead_to_another_address(decapsulate: Decapsulator, tmp_path: Path) -> None:
    """RFC 8200 section 8.1, RFC 791: the connection is with the last address."""
    for name, frame in ROUTES.items():
        far = mapped(bytes([9, 9, 9, 9])) if name in ("loose", "strict") else FAR6
        assert decapsulate(frame).record["dst_addr"] == far
    for name, frame in ARRIVED.items():
        assert decapsulate(frame).record["dst_addr"] == (DST6 if name == "segments" else mapped(DST4))
    frames = [(frame, len(frame)) for frame in (*ROUTES.values(), *ARRIVED.values())]
    assert we_see(decapsulate, 1, frames) == tshark_sees(tmp_path / "frames.pcap", 1, frames)


def test_big_packets(decapsulate: Decapsulator, tmp_path: Path) -> None:
    """RFC 2675's jumbograms, as Linux makes them, and without their option."""
    segment = tcp(b"x" * 70_000)
    jumbo = struct.pack("!BBI", 0xC2, 4, len(segment) + 8)
    with_option = ethernet(ipv6(segment, (HOP_BY_HOP, b"\x00" + jumbo), payload_bytes=0), IPV6_TYPE)
    without = ethernet(ipv6(segment, payload_bytes=0), IPV6_TYPE)
    four = ethernet(ipv4(segment, total_bytes=0))
    assert [decapsulate(frame).record["payload_bytes"] for frame in (with_option, without, four)] == [70_000] * 3
    frames = [(with_option, len(with_option)), (four, len(four))]
    assert we_see(decapsulate, 1, frames) == tshark_sees(tmp_path / "frames.pcap", 1, frames)
