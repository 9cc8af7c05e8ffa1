"""bpf/parse.h in user space, under the address and undefined-behaviour sanitizers: frames annotated by hand.

Every frame is parsed twice, with different bytes behind what is available and in the record before:
who reads what is not there, or leaves a field as it was, gives two answers.  bpf/plain.h has to give the same, or none.
"""

import importlib.resources
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcptrace import records
from tcptrace.records import (
    COUNTERS,
    FLAG_NAMES,
    NOTE_ETHERNET,
    NOTE_FIRST_FRAGMENT,
    OPTION_FAST_OPEN,
    OPTION_MALFORMED,
    OPTION_MSS,
    OPTION_OTHER,
    OPTION_SACK,
    OPTION_SACK_PERMITTED,
    OPTION_TIMESTAMPS,
    OPTION_WINDOW_SCALE,
    PACKET_RECORD,
)

ETHERNET, RAW = 0, 1
WINDOW_BYTES = 256
CALLERS_FIELDS = (
    *("time_ns", "frame_bytes", "segments", "direction"),
    *("flow_count", "flow_bytes", "flow_payload_bytes", "reverse_records", "flow_since"),
)
"""Whoever calls the parser sets them."""

PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plain.h"

struct request { __u32 link, available, frame_bytes, filler, plain; };

int main(void)
{
	struct request q;

	while (fread(&q, sizeof(q), 1, stdin) == 1) {
		/* On the heap: the sanitizer watches both ends. */
		struct frame *f = malloc(sizeof(*f));
		struct packet_record *r = malloc(sizeof(*r));
		__u8 *window = malloc(q.available);
		int verdict;

		memset(f, q.filler, sizeof(*f));
		memset(r, q.filler, sizeof(*r));
		if (fread(window, 1, q.available, stdin) != q.available)
			return 1;
#ifdef IN_KERNEL
		memcpy(f->window, window, q.available);
#else
		f->window = window;
#endif
		f->available = q.available;
		f->frame_bytes = q.frame_bytes;
		f->merged = 0;
		if (q.plain) {
			verdict = parse_plain(window, window + q.available, q.frame_bytes, q.link, r);
		} else {
			verdict = parse_link(f, q.link, r);
			if (verdict == COUNT_TCP)
				verdict = parse_network(f, r);
		}
		fwrite(&verdict, sizeof(verdict), 1, stdout);
		fwrite(r, sizeof(*r), 1, stdout);
		fflush(stdout);
		free(window);
		free(f);
		free(r);
	}
	return 0;
}
"""


class Parser:
    """The compiled parser: frames in, verdict and record out."""

    def __init__(self, folder: Path, *, in_kernel: bool = False) -> None:
        source, self.errors = folder / "parse.c", folder / "errors"
        source.write_text(PROGRAM)
        headers = Path(str(importlib.resources.files("tcptrace.bpf") / "parse.h")).parent
        compiler = ["gcc", "-O1", "-g", "-Wall", "-Wno-unknown-pragmas", "-Werror", f"-I{headers}", str(source)]
        # What the kernel's build reads unaligned, BPF may.
        sanitizers = ["-DIN_KERNEL"] if in_kernel else ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        program = [str(folder / "parse")]
        if subprocess.run([*compiler, *sanitizers, "-o", *program], capture_output=True).returncode:
            # Not every gcc comes with the sanitizers' libraries; the answers are the same.
            subprocess.run([*compiler, *sanitizers[:in_kernel], "-o", *program], check=True)
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(10) == 0, self.errors.read_text()

    def ask(
        self, frame: bytes, link: int, available: int, frame_bytes: int, filler: int, *, plain: bool = False
    ) -> tuple[str, np.void]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(struct.pack("=5I", link, available, frame_bytes, filler, plain) + frame[:available])
        self.process.stdin.flush()
        answer = self.process.stdout.read(4 + PACKET_RECORD.itemsize)
        assert len(answer) == 4 + PACKET_RECORD.itemsize, self.errors.read_text()
        verdict = (*COUNTERS, "need_more")[struct.unpack("=i", answer[:4])[0]]
        return verdict, np.frombuffer(answer[4:], PACKET_RECORD)[0]

    def __call__(
        self, frame: bytes, link: int = ETHERNET, available: int | None = None, frame_bytes: int | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Verdict, and what the record says where that is TCP."""
        frame_bytes = len(frame) if frame_bytes is None else frame_bytes
        available = len(frame) if available is None else available
        asked = (frame, link, available, frame_bytes)
        answers = [self.ask(*asked, filler) for filler in (0, 0xFF)]
        answers += [self.ask(*asked, filler, plain=True) for filler in (0, 0xFF)]
        answers = [(verdict, told(record) if verdict == "tcp" else {}) for verdict, record in answers]
        first, second, *plain = answers
        assert first == second
        self.was_plain = plain[0][0] != "need_more"
        assert plain == ([first, first] if self.was_plain else [("need_more", {})] * 2)
        return first


def told(record: np.void) -> dict[str, Any]:
    """The fields of a record that mean something."""
    fields = {name: record[name].tolist() for name in PACKET_RECORD.names if name not in CALLERS_FIELDS}
    for name in ("sack_left", "sack_right"):
        fields[name] = fields[name][: fields["sack_count"]]
    for name in ("src_mac", "dst_mac", "src_addr", "dst_addr"):
        fields[name] = bytes(fields[name])
    return fields


@pytest.fixture(scope="module")
def parse_in_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parser]:
    parser = Parser(tmp_path_factory.mktemp("kernel"), in_kernel=True)
    yield parser
    parser.close()


@pytest.fixture(scope="module")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parser]:
    parser = Parser(tmp_path_factory.mktemp("parser"))
    yield parser
    parser.close()


# --- Frames.

DST_MAC, SRC_MAC = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
IPV4_TYPE, IPV6_TYPE = 0x0800, 0x86DD
SRC4, DST4 = bytes([10, 0, 0, 1]), bytes([192, 168, 1, 2])
SRC6, DST6 = bytes.fromhex("20010db8" + "00" * 11 + "01"), bytes.fromhex("20010db8" + "00" * 11 + "02")
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, MOBILITY = 0, 43, 44, 51, 60, 135


def mapped(address: bytes) -> bytes:
    return bytes(10) + b"\xff\xff" + address


def ethernet(payload: bytes, kind: int = IPV4_TYPE, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    """tags: (ethertype, TCI), the outer one first."""
    return DST_MAC + SRC_MAC + b"".join(struct.pack("!HH", *tag) for tag in tags) + struct.pack("!H", kind) + payload


def ipv4(payload: bytes, *, options: bytes = b"", protocol: int = 6, fragment: int = 0, **other: int) -> bytes:
    total = other.get("total_bytes", 20 + len(options) + len(payload))
    first = other.get("first", 0x40 | 5 + len(options) // 4)
    fixed = struct.pack("!BBHHHBBH", first, 0xB9, total, 0x1234, fragment, 61, protocol, 0)
    return fixed + SRC4 + DST4 + options + payload


def ipv6(payload: bytes, *extensions: tuple[int, bytes], protocol: int = 6, payload_bytes: int | None = None) -> bytes:
    """extensions: (protocol number, header without its first byte)."""
    kinds = [kind for kind, _ in extensions] + [protocol]
    chain = b"".join(bytes([following]) + rest for following, (_, rest) in zip(kinds[1:], extensions, strict=True))
    length = len(chain) + len(payload) if payload_bytes is None else payload_bytes
    return struct.pack("!IHBB", 0x6B90_0000, length, kinds[0], 61) + SRC6 + DST6 + chain + payload


def tcp(payload: bytes = b"", *, flags: int = 0x18, options: bytes = b"", offset: int | None = None) -> bytes:
    offset = 5 + len(options) // 4 if offset is None else offset
    fixed = struct.pack("!HHIIHHHH", 40_000, 443, 0xDEADBEEF, 0x01020304, offset << 12 | flags, 0xFFFE, 0, 0)
    return fixed + options + payload


# --- By hand, byte by byte.


def test_syn_over_ipv4(parse: Parser) -> None:
    frame = bytes.fromhex(
        "0a0b0c0d0e0f 020304050607 0800"  # to, from, IPv4
        "45 02 003c abcd 4000 40 06 0000"  # version 4, 20 bytes; ECT(0); 60 bytes; id; don't fragment; TTL 64; TCP
        "7f000001 7f000002"
        "d431 01bb 11223344 00000000 a0c2 faf0 0000 0000"  # 54321 to 443; 40 bytes of header; SYN, ECE, CWR; 64240
        "020405b4 0402 080a 0000000100000000 01 030307"  # MSS 1460; SACK permitted; timestamps 1, 0; NOP; scale 7
    )
    verdict, record = parse(frame)
    assert verdict == "tcp"
    assert record == {
        "src_addr": mapped(bytes([127, 0, 0, 1])),
        "dst_addr": mapped(bytes([127, 0, 0, 2])),
        "seq": 0x11223344,
        "ack": 0,
        "payload_bytes": 0,
        "src_port": 54321,
        "dst_port": 443,
        "window": 64240,
        "flags": records.FLAG_SYN | records.FLAG_ECE | records.FLAG_CWR,
        "ip_id": 0xABCD,
        "mss": 1460,
        "vlan_outer": 0,
        "vlan_inner": 0,
        "ip_version": 4,
        "ttl": 64,
        "traffic_class": 2,
        "options": OPTION_MSS | OPTION_SACK_PERMITTED | OPTION_TIMESTAMPS | OPTION_WINDOW_SCALE,
        "window_scale": 7,
        "ts_value": 1,
        "ts_echo": 0,
        "sack_left": [],
        "sack_right": [],
        "src_mac": bytes.fromhex("020304050607"),
        "dst_mac": bytes.fromhex("0a0b0c0d0e0f"),
        "sack_count": 0,
        "vlan_count": 0,
        "tcp_header_bytes": 40,
        "note": NOTE_ETHERNET,
    }


def test_data_over_ipv6_in_two_vlans(parse: Parser) -> None:
    frame = bytes.fromhex(
        "0a0b0c0d0e0f 020304050607"
        "88a8 a00a 8100 0014 86dd"  # service tag: priority 5, VLAN 10; customer tag: VLAN 20
        "6b8fffff 0019 06 3f"  # version 6, traffic class 0xb8, flow label 0xfffff; 25 bytes; TCP; hop limit 63
        "fe800000000000000000000000000001 ff020000000000000000000000000002"
        "0050 c001 ffffffff 80000000 5118 0000 0000 0000"  # 80 to 49153; 20 bytes; AE, PSH, ACK; window 0
        "68656c6c6f"
    )
    verdict, record = parse(frame)
    assert verdict == "tcp"
    assert record["src_addr"].hex() == "fe800000000000000000000000000001"
    assert record["dst_addr"].hex() == "ff020000000000000000000000000002"
    assert (record["src_port"], record["dst_port"]) == (80, 49153)
    assert (record["seq"], record["ack"], record["window"]) == (2**32 - 1, 2**31, 0)
    assert record["flags"] == records.FLAG_AE | records.FLAG_PSH | records.FLAG_ACK
    assert (record["payload_bytes"], record["tcp_header_bytes"], record["options"]) == (5, 20, 0)
    assert (record["vlan_count"], record["vlan_outer"], record["vlan_inner"]) == (2, 0xA00A, 0x0014)
    assert (record["ip_version"], record["ttl"], record["traffic_class"], record["ip_id"]) == (6, 63, 0xB8, 0)


# --- Link.


@pytest.mark.parametrize(
    "tags",
    [
        (),
        ((0x8100, 0x2005),),
        ((0x88A8, 7),),
        ((0x88A8, 7), (0x8100, 0xFFFF)),
        ((0x8100, 1), (0x8100, 2)),
    ],
)
def test_vlan_tags(parse: Parser, tags: tuple[tuple[int, int], ...]) -> None:
    verdict, record = parse(ethernet(ipv4(tcp(b"abc")), tags=tags))
    assert (verdict, record["payload_bytes"], record["note"]) == ("tcp", 3, NOTE_ETHERNET)
    told_tags = (record["vlan_outer"], record["vlan_inner"])[: len(tags)]
    assert (record["vlan_count"], told_tags) == (len(tags), tuple(tci for _, tci in tags))
    assert (record["src_mac"], record["dst_mac"]) == (SRC_MAC, DST_MAC)


@pytest.mark.parametrize(
    ("segment", "is_plain"),
    [
        (tcp(), True),
        (tcp(b"abc", flags=2), True),
        (tcp(b"abc", options=TIMESTAMPS), True),
        (tcp(b"abc", options=TIMESTAMPS[2:] + b"\x01\x01"), False),
        (tcp(b"abc", options=b"\x01" * 12), False),
        (tcp(b"abc", options=b"\x02\x04\x05\xb4"), False),
        (tcp(b"abc", options=TIMESTAMPS + b"\x01" * 4), False),
    ],
)
def test_which_frames_are_plain(parse: Parser, segment: bytes, is_plain: bool) -> None:
    for packet, kind in ((ipv4(segment), IPV4_TYPE), (ipv6(segment), IPV6_TYPE)):
        for frame, link in ((ethernet(packet, kind), ETHERNET), (packet, RAW)):
            assert parse(frame, link)[0] == "tcp"
            assert parse.was_plain == is_plain
            assert parse(frame, link, available=len(frame) - 1)[0] in ("tcp", "need_more")
            assert parse(frame + bytes(6), link)[0] == "tcp"  # padded, as Ethernet does
            assert parse.was_plain == is_plain
    assert parse(ethernet(ipv4(segment), tags=((0x8100, 5),)))[0] == "tcp"
    assert not parse.was_plain


def test_three_tags_are_not_followed(parse: Parser) -> None:
    frame = ethernet(ipv4(tcp()), tags=((0x88A8, 1), (0x8100, 2), (0x8100, 3)))
    assert parse(frame) == ("not_tcp", {})


@pytest.mark.parametrize("kind", [0x0806, 0x88CC, 0x8847, 0x0000, 0x05DC, 0xFFFF])
def test_other_ethertypes_are_not_tcp(parse: Parser, kind: int) -> None:
    assert parse(ethernet(ipv4(tcp()), kind)) == ("not_tcp", {})


@pytest.mark.parametrize("packet", [ipv4(tcp(b"x" * 9)), ipv6(tcp(b"x" * 9))], ids=["ipv4", "ipv6"])
def test_without_a_link_header(parse: Parser, packet: bytes) -> None:
    verdict, record = parse(packet, RAW)
    assert verdict == "tcp"
    assert (record["payload_bytes"], record["note"], record["vlan_count"]) == (9, 0, 0)
    assert record["src_mac"] == record["dst_mac"] == bytes(6)
    behind_ethernet = parse(ethernet(packet, IPV4_TYPE if packet[0] >> 4 == 4 else IPV6_TYPE))[1]
    linkless = ("note", "src_mac", "dst_mac")
    assert all(record[name] == behind_ethernet[name] for name in record if name not in linkless)


def test_raw_link_with_neither_version(parse: Parser) -> None:
    assert parse(b"\x50" + bytes(60), RAW)[0] == "malformed_ipv4"
    assert parse(b"", RAW)[0] == "malformed_link"


# --- IPv4.


@pytest.mark.parametrize("words", range(1, 11))
def test_ipv4_options(parse: Parser, words: int) -> None:
    verdict, record = parse(ethernet(ipv4(tcp(b"abc"), options=b"\x01" * 4 * words)))
    assert (verdict, record["src_port"], record["payload_bytes"]) == ("tcp", 40_000, 3)
    assert (record["src_addr"], record["dst_addr"]) == (mapped(SRC4), mapped(DST4))
    assert (record["ttl"], record["traffic_class"], record["ip_id"]) == (61, 0xB9, 0x1234)


@pytest.mark.parametrize("protocol", [1, 17, 47, 41, 132])
def test_ipv4_other_protocols(parse: Parser, protocol: int) -> None:
    assert parse(ethernet(ipv4(tcp(), protocol=protocol))) == ("not_tcp", {})


@pytest.mark.parametrize("first", [0x44, 0x40, 0x35, 0x65, 0x05])
def test_ipv4_version_and_header_length(parse: Parser, first: int) -> None:
    assert parse(ethernet(ipv4(tcp(), first=first))) == ("malformed_ipv4", {})


@pytest.mark.parametrize("total_bytes", [1, 19, 41, 65_535])
def test_ipv4_total_length(parse: Parser, total_bytes: int) -> None:
    assert parse(ethernet(ipv4(tcp(), total_bytes=total_bytes))) == ("malformed_ipv4", {})


def test_padding_behind_a_short_packet_is_not_payload(parse: Parser) -> None:
    """Ethernet frames have at least 60 bytes."""
    verdict, record = parse(ethernet(ipv4(tcp(), total_bytes=40)).ljust(60, b"\xaa"))
    assert (verdict, record["payload_bytes"]) == ("tcp", 0)


def test_super_packet_without_a_total_length(parse: Parser) -> None:
    verdict, record = parse(ethernet(ipv4(tcp(), total_bytes=0)), frame_bytes=100_054)
    assert (verdict, record["payload_bytes"]) == ("tcp", 100_000)


def test_ipv4_fragments(parse: Parser) -> None:
    """Only the first has the TCP header; what follows it is this fragment's payload."""
    verdict, record = parse(ethernet(ipv4(tcp(b"x" * 12), fragment=0x2000)))
    assert (verdict, record["note"], record["payload_bytes"]) == ("tcp", NOTE_ETHERNET | NOTE_FIRST_FRAGMENT, 12)
    assert parse(ethernet(ipv4(tcp(), fragment=0x2001)))[0] == "fragment"
    assert parse(ethernet(ipv4(tcp(), fragment=0x1FFF)))[0] == "fragment"
    assert parse(ethernet(ipv4(tcp(), fragment=0x0001, protocol=17)))[0] == "not_tcp"
    assert parse(ethernet(ipv4(tcp(), fragment=0xC000)))[1]["note"] == NOTE_ETHERNET  # don't fragment, reserved bit


# --- IPv6.

EMPTY = bytes([0]) + b"\x01\x04" + bytes(4)  # 8 bytes with the first: length 0, PadN
FIRST, WHOLE, LATER = b"\x00\x00\x01" + bytes(4), b"\x00\x00\x00" + bytes(4), b"\x00\x00\x09" + bytes(4)
AH = bytes([4]) + bytes(2) + bytes(20)  # (4 + 2) * 4 bytes, RFC 4302
LONG = bytes([2]) + bytes(22)  # (2 + 1) * 8 bytes


@pytest.mark.parametrize(
    ("extensions", "note"),
    [
        ([], 0),
        ([(HOP_BY_HOP, EMPTY)], 0),
        ([(DESTINATION, LONG)], 0),
        ([(ROUTING, LONG)], 0),
        ([(MOBILITY, EMPTY)], 0),
        ([(AUTHENTICATION, AH)], 0),
        ([(FRAGMENT, WHOLE)], 0),
        ([(FRAGMENT, FIRST)], NOTE_FIRST_FRAGMENT),
        ([(HOP_BY_HOP, EMPTY), (DESTINATION, EMPTY), (ROUTING, LONG), (FRAGMENT, FIRST), (AUTHENTICATION, AH)], 1),
        ([(DESTINATION, EMPTY)] * 7, 0),
    ],
)
def test_ipv6_extension_headers(parse: Parser, extensions: list[tuple[int, bytes]], note: int) -> None:
    verdict, record = parse(ethernet(ipv6(tcp(b"abc"), *extensions), IPV6_TYPE))
    assert (verdict, record["src_port"], record["payload_bytes"]) == ("tcp", 40_000, 3)
    assert (record["src_addr"], record["dst_addr"]) == (SRC6, DST6)
    assert (record["ip_version"], record["ttl"], record["traffic_class"]) == (6, 61, 0xB9)
    assert record["note"] == NOTE_ETHERNET | note


@pytest.mark.parametrize(
    ("extensions", "protocol", "verdict"),
    [
        ([(FRAGMENT, LATER)], 6, "fragment"),
        ([(HOP_BY_HOP, EMPTY), (FRAGMENT, LATER)], 6, "fragment"),
        ([(FRAGMENT, LATER)], 17, "not_tcp"),
        ([], 17, "not_tcp"),
        ([], 58, "not_tcp"),
        ([(HOP_BY_HOP, EMPTY)], 59, "not_tcp"),  # no next header
        ([(AUTHENTICATION, AH)], 50, "not_tcp"),  # ESP hides what follows
        ([(DESTINATION, EMPTY)] * 8, 6, "malformed_ipv6_extension"),
        ([(DESTINATION, bytes([255]) + bytes(6))], 6, "malformed_ipv6_extension"),
    ],
)
def test_ipv6_that_is_not_a_segment(
    parse: Parser, extensions: list[tuple[int, bytes]], protocol: int, verdict: str
) -> None:
    assert parse(ethernet(ipv6(tcp(), *extensions, protocol=protocol), IPV6_TYPE)) == (verdict, {})


def test_ipv6_version_and_length(parse: Parser) -> None:
    packet = ipv6(tcp())
    assert parse(ethernet(b"\x4b" + packet[1:], IPV6_TYPE))[0] == "malformed_ipv6"
    assert parse(ethernet(ipv6(tcp(), payload_bytes=21), IPV6_TYPE))[0] == "malformed_ipv6"
    assert parse(ethernet(ipv6(tcp(), payload_bytes=19), IPV6_TYPE))[0] == "malformed_tcp"
    padded = ethernet(ipv6(tcp(b"ab"), payload_bytes=22), IPV6_TYPE) + b"\xaa" * 30
    assert parse(padded)[1]["payload_bytes"] == 2
    assert parse(ethernet(ipv6(tcp(), payload_bytes=0), IPV6_TYPE))[0] == "malformed_tcp"
    jumbo = parse(ethernet(ipv6(tcp(), payload_bytes=0), IPV6_TYPE), frame_bytes=200_074)
    assert (jumbo[0], jumbo[1]["payload_bytes"]) == ("tcp", 200_000)


def test_headers_past_the_window_are_too_deep(parse: Parser, parse_in_kernel: Parser) -> None:
    """The kernel's, that is."""
    long = bytes([29]) + bytes(238)  # 240 bytes
    frame = ethernet(ipv6(tcp(b"x" * 500), (DESTINATION, long)), IPV6_TYPE)
    assert parse_in_kernel(frame, available=WINDOW_BYTES)[0] == "too_deep"
    assert parse(frame)[1]["payload_bytes"] == 500
    longest = bytes([255]) + bytes(2046)
    assert parse(ethernet(ipv6(tcp(b"x" * 500), *[(DESTINATION, longest)] * 7), IPV6_TYPE))[0] == "tcp"


# --- TCP.


@pytest.mark.parametrize("bit", range(9))
def test_nine_flags(parse: Parser, bit: int) -> None:
    assert parse(ethernet(ipv4(tcp(flags=1 << bit))))[1]["flags"] == 1 << bit
    assert getattr(records, f"FLAG_{FLAG_NAMES[bit]}") == 1 << bit


def test_reserved_bits_are_no_flags(parse: Parser) -> None:
    assert parse(ethernet(ipv4(tcp(flags=0xE10))))[1]["flags"] == records.FLAG_ACK


@pytest.mark.parametrize("offset", [0, 1, 4, 6, 15])
def test_data_offset_that_cannot_be(parse: Parser, offset: int) -> None:
    assert parse(ethernet(ipv4(tcp(offset=offset)))) == ("malformed_tcp", {})


@pytest.mark.parametrize("bytes_there", range(20))
def test_ip_payload_shorter_than_a_header(parse: Parser, bytes_there: int) -> None:
    assert parse(ethernet(ipv4(tcp()[:bytes_there])))[0] == "malformed_tcp"
    assert parse(ethernet(ipv6(tcp()[:bytes_there] + b"", payload_bytes=bytes_there), IPV6_TYPE))[0] == "malformed_tcp"


SACKS = struct.pack("!8I", 1, 2, 2**31, 2**31 + 5, 2**32 - 1, 7, 8, 9)
THREE_BLOCKS = {"sack_count": 3, "sack_left": [1, 2**31, 2**32 - 1], "sack_right": [2, 2**31 + 5, 7]}


@pytest.mark.parametrize(
    ("options", "seen", "fields"),
    [
        ("", 0, {}),
        ("02040218", OPTION_MSS, {"mss": 536}),
        ("0204ffff", OPTION_MSS, {"mss": 65_535}),
        ("03030001", OPTION_WINDOW_SCALE, {"window_scale": 0}),
        ("01 03030e", OPTION_WINDOW_SCALE, {"window_scale": 14}),
        ("01 03030f", OPTION_WINDOW_SCALE, {"window_scale": 14}),  # RFC 7323 section 2.3
        ("01 0303ff", OPTION_WINDOW_SCALE, {"window_scale": 14}),
        ("0402 0101", OPTION_SACK_PERMITTED, {}),
        ("0101 080a 89abcdef 01234567", OPTION_TIMESTAMPS, {"ts_value": 0x89ABCDEF, "ts_echo": 0x01234567}),
        ("220a 0102030405060708 0101", OPTION_FAST_OPEN, {}),
        ("2202 0101", OPTION_FAST_OPEN, {}),
        ("1d04 0102", OPTION_OTHER, {}),  # TCP-AO
        ("fd04 0102", OPTION_OTHER, {}),
        ("00 ff ff ff", 0, {}),  # end of list
        ("01010101" * 10, 0, {}),
        ("02040218 00 030307", OPTION_MSS, {"mss": 536, "window_scale": 0}),
        ("1300 0101", OPTION_MALFORMED, {}),  # a length of 0 would never end
        ("1301 0101", OPTION_MALFORMED, {}),
        ("01010102", OPTION_MALFORMED, {}),  # no room for a length
        ("02050218", OPTION_MALFORMED, {"mss": 0}),  # past the header
        ("02040218 03030702", OPTION_MSS | OPTION_WINDOW_SCALE | OPTION_MALFORMED, {"mss": 536, "window_scale": 7}),
        (
            "0101 050a" + SACKS[:8].hex(),
            OPTION_SACK,
            {"sack_count": 1, "sack_left": [1], "sack_right": [2]},
        ),
        (
            "0101 080a 00000001 00000002 0101 051a" + SACKS[:24].hex(),
            OPTION_SACK | OPTION_TIMESTAMPS,
            THREE_BLOCKS | {"ts_value": 1, "ts_echo": 2},
        ),
        (
            "0101 0522" + SACKS.hex(),  # four blocks: the first three are kept
            OPTION_SACK,
            THREE_BLOCKS,
        ),
    ],
)
def test_tcp_options(parse: Parser, options: str, seen: int, fields: dict[str, Any]) -> None:
    verdict, record = parse(ethernet(ipv4(tcp(b"abc", options=bytes.fromhex(options)))))
    blank = {
        "mss": 0,
        "window_scale": 0,
        "ts_value": 0,
        "ts_echo": 0,
        "sack_count": 0,
        "sack_left": [],
        "sack_right": [],
    }
    assert (verdict, record["options"], record["payload_bytes"]) == ("tcp", seen, 3)
    assert {name: record[name] for name in blank} == blank | fields


def test_options_past_the_window_are_not_malformed(parse_in_kernel: Parser) -> None:
    """14 + 40 + 160 + 20 + 20: the option at byte 255 has its length in byte 256."""
    long = bytes([19]) + bytes(158)
    options = b"\x01" * 21 + b"\x13\x02" + b"\x01" * 17
    frame = ethernet(ipv6(tcp(b"x" * 9, options=options), (DESTINATION, long)), IPV6_TYPE)
    assert frame[255:257] == b"\x13\x02"
    verdict, _ = parse_in_kernel(frame, available=WINDOW_BYTES)
    assert verdict == "too_deep"


@pytest.mark.parametrize(
    "options", ["02050000000101 01", "03040000", "0403 0001", "0503 0001", "0506 0000 0000 0101", "0803 0001"]
)
def test_known_options_of_another_length_give_no_value(parse: Parser, options: str) -> None:
    verdict, record = parse(ethernet(ipv4(tcp(options=bytes.fromhex(options)))))
    known = OPTION_MSS | OPTION_WINDOW_SCALE | OPTION_SACK_PERMITTED | OPTION_SACK | OPTION_TIMESTAMPS
    assert (verdict, record["options"] & known) == ("tcp", 0)
    assert (record["mss"], record["window_scale"], record["ts_value"], record["sack_count"]) == (0, 0, 0, 0)


# --- Cut off.


def test_the_kernel_s_parser_says_the_same(parse: Parser, parse_in_kernel: Parser) -> None:
    for link, frame, *_ in FRAMES.values():
        for available in range(len(frame) + 1):
            assert parse_in_kernel(frame, link, available) == parse(frame, link, available)


ALL_OPTIONS = bytes.fromhex("020405b4 0402 080a 0000000100000002 01 030307")
FRAMES = {
    "ipv4": (ETHERNET, ethernet(ipv4(tcp(b"payload", options=ALL_OPTIONS), options=b"\x01" * 8)), 14, 14 + 28, 20),
    "vlan": (ETHERNET, ethernet(ipv4(tcp(b"payload")), tags=((0x88A8, 1), (0x8100, 2))), 22, 22 + 20, 0),
    "ipv6": (ETHERNET, ethernet(ipv6(tcp(b"payload", options=ALL_OPTIONS)), IPV6_TYPE), 14, 14 + 40, 20),
    "extensions": (
        ETHERNET,
        ethernet(ipv6(tcp(b"payload"), (HOP_BY_HOP, EMPTY), (ROUTING, LONG), (AUTHENTICATION, AH)), IPV6_TYPE),
        14,
        14 + 40 + 8 + 24 + 24,
        0,
    ),
    "raw": (RAW, ipv4(tcp(b"payload", options=ALL_OPTIONS)), 1, 20, 20),
}
"""Link, frame, and where the link header and the network header end; bytes of TCP options."""


@pytest.mark.parametrize("name", FRAMES)
def test_frame_cut_off_at_every_length(parse: Parser, name: str) -> None:
    """The frame ends there: IP says that there should be more."""
    link, frame, link_end, _, _ = FRAMES[name]
    version = "malformed_ipv6" if name in ("ipv6", "extensions") else "malformed_ipv4"
    for length in range(len(frame)):
        verdict, _ = parse(frame[:length], link)
        assert verdict == ("malformed_link" if length < link_end else version), length
    assert parse(frame, link)[0] == "tcp"


@pytest.mark.parametrize("name", FRAMES)
def test_too_little_of_the_frame_at_hand(parse: Parser, name: str) -> None:
    """The frame goes on, so more is asked for until all headers are there; then the rest does not matter."""
    link, frame, _, network_end, options = FRAMES[name]
    _, whole = parse(frame, link)
    for available in range(len(frame) + 1):
        verdict, record = parse(frame, link, available)
        if available < network_end + 20 + options:
            assert verdict == "need_more", available
        else:
            assert (verdict, record) == ("tcp", whole), available


@pytest.mark.parametrize("name", FRAMES)
def test_packet_cut_off_at_every_length(parse: Parser, name: str) -> None:
    """The frame ends there and IP says so too."""
    link, frame, link_end, network_end, options = FRAMES[name]
    ip = 0 if link == RAW else link_end
    six = frame[ip] >> 4 == 6
    for length in range(ip + (40 if six else 28 if name == "ipv4" else 20), len(frame)):
        packet = bytearray(frame[:length])
        # An IPv6 payload length of 0 says nothing.
        struct.pack_into("!H", packet, ip + (4 if six else 2), length - ip - (40 if six else 0))
        verdict, _ = parse(bytes(packet), link)
        if length < network_end:
            expected = "malformed_ipv6_extension"
        elif length < network_end + 20 + options:
            expected = "malformed_tcp"
        else:
            expected = "tcp"
        assert verdict == expected, length
