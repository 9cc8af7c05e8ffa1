"""bpf/parse.h under sanitizers against a decoder of its own, written from the RFCs: any headers, any bytes."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..unit.test_parse import (
    ALL_OPTIONS,
    ETHERNET,
    FRAMES,
    IPV4_TYPE,
    IPV6_TYPE,
    RAW,
    Parser,
    ethernet,
    ipv4,
    ipv6,
    mapped,
    tcp,
)

Verdict = tuple[str, dict[str, Any]]
SETTINGS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)


@pytest.fixture(scope="module")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parser]:
    parser = Parser(tmp_path_factory.mktemp("parser"))
    yield parser
    parser.close()


# --- The decoder: of a whole frame.


class WrongError(Exception):
    """The frame is not a TCP segment: args[0] says why."""


def decode(frame: bytes, link: int) -> Verdict:
    try:
        return "tcp", decode_link(frame, link)
    except WrongError as wrong:
        return wrong.args[0], {}


def need(there: bytes, count: int, otherwise: str) -> None:
    if len(there) < count:
        raise WrongError(otherwise)


def decode_link(frame: bytes, link: int) -> dict[str, Any]:
    record: dict[str, Any] = {"vlan_count": 0, "vlan_outer": 0, "vlan_inner": 0, "note": 0}
    if link == RAW:
        need(frame, 1, "malformed_link")
        record |= {"src_mac": bytes(6), "dst_mac": bytes(6)}
        return decode_ipv6(frame, record) if frame[0] >> 4 == 6 else decode_ipv4(frame, record)
    need(frame, 14, "malformed_link")
    record |= {"dst_mac": frame[:6], "src_mac": frame[6:12], "note": 2}
    kind, rest = int.from_bytes(frame[12:14], "big"), frame[14:]
    for name in ("vlan_outer", "vlan_inner"):
        if kind in (0x8100, 0x88A8):
            need(rest, 4, "malformed_link")
            record[name], kind = struct.unpack("!HH", rest[:4])
            record["vlan_count"] += 1
            rest = rest[4:]
    if kind == IPV4_TYPE:
        return decode_ipv4(rest, record)
    if kind == IPV6_TYPE:
        return decode_ipv6(rest, record)
    raise WrongError("not_tcp")


def decode_ipv4(packet: bytes, record: dict[str, Any]) -> dict[str, Any]:
    need(packet, 20, "malformed_ipv4")
    first, tos, total, ip_id, fragment, ttl, protocol, _, src, dst = struct.unpack("!BBHHHBBH4s4s", packet[:20])
    header = (first & 15) * 4
    if first >> 4 != 4 or header < 20:
        raise WrongError("malformed_ipv4")
    if protocol != 6:
        raise WrongError("not_tcp")
    if total == 0 and len(packet) > 65_535:  # only super-packets leave it out
        total = len(packet)
    if not header <= total <= len(packet):
        raise WrongError("malformed_ipv4")
    if fragment % 0x2000:
        raise WrongError("fragment")
    record |= {"ip_version": 4, "traffic_class": tos, "ip_id": ip_id, "ttl": ttl}
    record |= {"src_addr": mapped(src), "dst_addr": mapped(dst), "note": record["note"] | (fragment >> 13 & 1)}
    return decode_tcp(packet[header:total], record)


def decode_ipv6(packet: bytes, record: dict[str, Any]) -> dict[str, Any]:
    need(packet, 40, "malformed_ipv6")
    first, length, kind, ttl, src, dst = struct.unpack("!IHBB16s16s", packet[:40])
    if first >> 28 != 6 or length > len(packet) - 40:
        raise WrongError("malformed_ipv6")
    record |= {"ip_version": 6, "traffic_class": first >> 20 & 255, "ip_id": 0, "ttl": ttl}
    record |= {"src_addr": src, "dst_addr": dst}
    if length == 0 and len(packet) - 40 > 65_535:
        length = len(packet) - 40
    rest = packet[40 : 40 + length]
    for _ in range(8):
        if kind == 6:
            return decode_tcp(rest, record)
        if kind not in (0, 43, 44, 51, 60, 135):
            raise WrongError("not_tcp")
        need(rest, 8, "malformed_ipv6_extension")
        size = {44: 8, 51: (rest[1] + 2) * 4}.get(kind, (rest[1] + 1) * 8)
        if kind == 44:
            offset = int.from_bytes(rest[2:4], "big")
            if offset >> 3:
                raise WrongError("fragment" if rest[0] == 6 else "not_tcp")
            record["note"] |= offset & 1
        need(rest, size, "malformed_ipv6_extension")
        kind, rest = rest[0], rest[size:]
    raise WrongError("malformed_ipv6_extension")


def decode_tcp(segment: bytes, record: dict[str, Any]) -> dict[str, Any]:
    need(segment, 20, "malformed_tcp")
    names = ("src_port", "dst_port", "seq", "ack", "flags", "window")
    record |= dict(zip(names, struct.unpack("!HHIIHH", segment[:16]), strict=True))
    header = (record["flags"] >> 12) * 4
    record["flags"] &= 0x1FF
    if not 20 <= header <= len(segment):
        raise WrongError("malformed_tcp")
    record |= {"tcp_header_bytes": header, "payload_bytes": len(segment) - header}
    return record | decode_options(segment[20:header])


def decode_options(rest: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = {"mss": 0, "window_scale": 0, "ts_value": 0, "ts_echo": 0}
    fields |= {"options": 0, "sack_count": 0, "sack_left": [], "sack_right": []}
    while rest and rest[0] != 0:
        if rest[0] == 1:
            rest = rest[1:]
            continue
        if len(rest) < 2 or not 2 <= rest[1] <= len(rest):
            fields["options"] |= 0x80
            break
        kind, value, rest = rest[0], rest[2 : rest[1]], rest[rest[1] :]
        if (kind, len(value)) == (2, 2):
            fields |= {"options": fields["options"] | 1, "mss": int.from_bytes(value, "big")}
        elif (kind, len(value)) == (3, 1):
            fields |= {"options": fields["options"] | 2, "window_scale": min(value[0], 14)}
        elif (kind, len(value)) == (4, 0):
            fields["options"] |= 4
        elif kind == 5 and value and len(value) % 8 == 0:
            edges = struct.unpack(f"!{len(value) // 4}I", value)[:6]
            fields |= {"options": fields["options"] | 8, "sack_count": len(edges) // 2}
            fields |= {"sack_left": list(edges[::2]), "sack_right": list(edges[1::2])}
        elif (kind, len(value)) == (8, 8):
            fields["ts_value"], fields["ts_echo"] = struct.unpack("!II", value)
            fields["options"] |= 16
        else:
            fields["options"] |= 32 if kind == 34 else 64
    return fields


# --- Frames.

words = st.integers(0, 2**32 - 1)
one_option = st.one_of(
    st.just(b"\x01"),
    st.integers(0, 65_535).map(lambda mss: struct.pack("!BBH", 2, 4, mss)),
    st.integers(0, 255).map(lambda shift: bytes([3, 3, shift])),
    st.just(b"\x04\x02"),
    st.integers(1, 4)
    .flatmap(lambda count: st.binary(min_size=8 * count, max_size=8 * count))
    .map(lambda blocks: bytes([5, 2 + len(blocks)]) + blocks),
    st.tuples(words, words).map(lambda times: struct.pack("!BBII", 8, 10, *times)),
    st.tuples(st.integers(2, 255), st.binary(max_size=16)).map(lambda o: bytes([o[0], 2 + len(o[1])]) + o[1]),
    st.just(b"\x00"),
)


def padded(options: bytes) -> bytes:
    return options[:40] + bytes(-len(options[:40]) % 4)


option_bytes = st.one_of(st.lists(one_option, max_size=6).map(b"".join), st.binary(max_size=40)).map(padded)
eights = st.integers(0, 3).flatmap(
    lambda n: st.binary(min_size=6 + 8 * n, max_size=6 + 8 * n).map(lambda b: bytes([n]) + b)
)
extensions = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([0, 43, 60, 135]), eights),
        st.tuples(
            st.just(44), st.sampled_from([b"\x00\x00\x01", b"\x00\x00\x00", b"\x55\x00\x06", b"\x00\x01\x00"])
        ).map(lambda e: (e[0], e[1] + bytes(4))),
        st.integers(1, 5).map(lambda n: (51, bytes([n]) + bytes(2 + 4 * n))),
    ),
    max_size=8,
)
tags = st.lists(st.tuples(st.sampled_from([0x8100, 0x88A8]), st.integers(0, 65_535)), max_size=3).map(tuple)
segments = st.builds(tcp, st.binary(max_size=20), flags=st.integers(0, 0xFFF), options=option_bytes)
ipv4_packets = st.builds(
    ipv4,
    segments,
    options=st.integers(0, 10).map(lambda count: b"\x01" * 4 * count),
    fragment=st.sampled_from([0, 0, 0, 0x4000, 0x2000, 0x2001]),
    protocol=st.sampled_from([6, 6, 6, 6, 17]),
)
ipv6_packets = st.builds(lambda segment, chain: ipv6(segment, *chain), segments, extensions)


@st.composite
def frames(draw: st.DrawFn) -> tuple[bytes, int]:
    """A frame and its kind of link."""
    packet = draw(st.one_of(ipv4_packets, ipv6_packets))
    if draw(st.booleans()):
        return packet, RAW
    kind = IPV4_TYPE if packet[0] >> 4 == 4 else IPV6_TYPE
    trailer = draw(st.binary(max_size=8))
    return ethernet(packet, kind, draw(tags)) + trailer, ETHERNET


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, int]:
    """A frame with a few bytes changed, and possibly cut off."""
    frame, link = draw(frames())
    changed = bytearray(frame)
    for _ in range(draw(st.integers(1, 4))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed[: draw(st.integers(1, len(changed)))]), link


@SETTINGS
@given(frame=frames())
def test_any_headers(parse: Parser, frame: tuple[bytes, int]) -> None:
    assert parse(*frame) == decode(*frame)


@SETTINGS
@given(frame=mutated())
def test_mutated_frames(parse: Parser, frame: tuple[bytes, int]) -> None:
    assert parse(*frame) == decode(*frame)


@SETTINGS
@given(frame=st.binary(max_size=400), link=st.sampled_from([ETHERNET, RAW]))
def test_random_bytes(parse: Parser, frame: bytes, link: int) -> None:
    assert parse(frame, link) == decode(frame, link)


@SETTINGS
@given(rest=st.binary(max_size=200), start=st.sampled_from(sorted(FRAMES)), kept=st.integers(1, 90))
def test_random_bytes_behind_good_ones(parse: Parser, rest: bytes, start: str, kept: int) -> None:
    link, frame = FRAMES[start][:2]
    frame = frame[:kept] + rest
    assert parse(frame, link) == decode(frame, link)


@SETTINGS
@given(frame=st.one_of(frames(), mutated()), available=st.integers(0, 400), more=st.integers(0, 100_000))
def test_a_part_of_the_frame_never_says_anything_else(
    parse: Parser, frame: tuple[bytes, int], available: int, more: int
) -> None:
    """Either more is needed, or the verdict on what was looked at stands."""
    data, link = frame
    available = min(available, len(data))
    whole = parse(data, link, frame_bytes=len(data) + more)
    part = parse(data, link, available, len(data) + more)
    assert part[0] == "need_more" or part == whole


@SETTINGS
@given(
    ports=st.tuples(st.integers(0, 65_535), st.integers(0, 65_535)),
    numbers=st.tuples(words, words),
    flags=st.integers(0, 0x1FF),
    window=st.integers(0, 65_535),
    payload=st.integers(0, 60_000),
    six=st.booleans(),
    options=st.sampled_from([b"", ALL_OPTIONS]),
)
def test_round_trip(
    parse: Parser,
    ports: tuple[int, int],
    numbers: tuple[int, int],
    flags: int,
    window: int,
    payload: int,
    six: bool,
    options: bytes,
) -> None:
    offset = (5 + len(options) // 4) << 12
    segment = struct.pack("!HHIIHHHH", *ports, *numbers, offset | flags, window, 0, 0) + options + bytes(payload)
    packet = ipv6(segment) if six else ipv4(segment)
    verdict, record = parse(ethernet(packet, IPV6_TYPE if six else IPV4_TYPE))
    assert verdict == "tcp"
    names = ("src_port", "dst_port", "seq", "ack", "flags", "window", "payload_bytes")
    assert tuple(record[name] for name in names) == (*ports, *numbers, flags, window, payload)
