"""Segments in IP fragments: put together as tshark does it, in any order, within bounds."""

import itertools
import struct
from pathlib import Path

import pytest

from .decapsulator import Decapsulator, Frame, Seen, decapsulate, decapsulator_folder, tshark_sees, we_see
from .test_decapsulate_tunnels import gre, outer4
from .test_parse import (
    ALL_OPTIONS,
    DESTINATION,
    DST6,
    EMPTY,
    IPV6_TYPE,
    SRC6,
    ethernet,
    ipv4,
    mapped,
    tcp,
)

__all__ = ["decapsulate", "decapsulator_folder"]

PAYLOAD = bytes(range(256)) * 2
SEGMENT = tcp(PAYLOAD, options=ALL_OPTIONS)
WHOLE: Seen = (40_000, 443, 0xDEADBEEF, 512)
SRC, DST = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
MAX_DATAGRAMS, MAX_BYTES = 1024, 16 << 20


def piece4(data: bytes, offset: int, more: bool, number: int = 1, **other: bytes | int) -> bytes:
    """An IPv4 fragment; offset in bytes. The number is put where tshark does not mix it up with the protocol."""
    options = bytes(other.get("options", b""))
    fixed = struct.pack(
        "!BBHHHBBH4s4s",
        0x45 + len(options) // 4,
        0,
        20 + len(options) + len(data),
        number % 256 << 8 | number // 256,
        more << 13 | offset // 8,
        other.get("ttl", 61),
        other.get("protocol", 6),
        0,
        other.get("src", SRC),
        DST,
    )
    return fixed + options + data


def piece6(data: bytes, offset: int, more: bool, number: int = 1, *, following: int = 6, before: int = 0) -> bytes:
    """An IPv6 fragment, with `before` other extension headers before the fragment's."""
    chain = (bytes([DESTINATION]) + EMPTY) * (before - 1) + (bytes([44]) + EMPTY) * bool(before)
    header = struct.pack("!BBHI", following, 0, offset | more, number)
    first = DESTINATION if before else 44
    return struct.pack("!IHBB", 6 << 28, len(chain + header + data), first, 61) + SRC6 + DST6 + chain + header + data


def cut(data: bytes, *ends: int) -> list[tuple[bytes, int, bool]]:
    """(bytes, offset, more to come), cut at `ends`."""
    edges = [0, *ends, len(data)]
    return [(data[a:b], a, b < len(data)) for a, b in itertools.pairwise(edges)]


def frames4(*pieces: bytes) -> list[Frame]:
    return [(frame, len(frame)) for frame in map(ethernet, pieces)]


def frames6(*pieces: bytes) -> list[Frame]:
    return [(frame, len(frame)) for frame in (ethernet(piece, IPV6_TYPE) for piece in pieces)]


# --- Put together.


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
def test_fragments_in_any_order(decapsulate: Decapsulator, order: tuple[int, ...], six: bool) -> None:
    """The frame that completes the segment counts, with all of its payload."""
    pieces = cut(SEGMENT, 64, 256)
    frames = frames6(*(piece6(*p) for p in pieces)) if six else frames4(*(piece4(*p) for p in pieces))
    verdicts = [decapsulate(frames[at][0]).verdict for at in order[:-1]]
    assert verdicts == ["fragment", "fragment"]
    verdict, record, dropped, original, ip = decapsulate(frames[order[-1]][0])
    assert (verdict, record["payload_bytes"], record["options"], record["note"] & 1) == ("tcp", 512, 0x17, 0)
    assert (record["src_addr"], record["ttl"]) == (SRC6 if six else mapped(SRC), 61)
    assert (dropped, original) == (0, len(ip))
    assert ip[40 if six else 20 :] == SEGMENT


def test_the_whole_datagram_has_a_header_of_its_own(decapsulate: Decapsulator) -> None:
    first, last = (piece4(*p, options=b"\x94\x04\x00\x00") for p in cut(SEGMENT, 64))
    decapsulate(ethernet(first))
    ip = decapsulate(ethernet(last)).ip
    assert struct.unpack("!BBHHHBB", ip[:10]) == (0x46, 0, len(ip), 1 << 8, 0, 61, 6)
    assert ip[20:24] == b"\x94\x04\x00\x00"
    words = struct.unpack("!12H", ip[:24])
    assert sum(words) % 0xFFFF == 0  # the checksum, RFC 1071
    first6, last6 = (piece6(*p, before=2) for p in cut(SEGMENT, 64))
    decapsulate(ethernet(first6, IPV6_TYPE))
    ip = decapsulate(ethernet(last6, IPV6_TYPE)).ip
    assert ip == struct.pack("!IHBB", 6 << 28, len(SEGMENT), 6, 61) + SRC6 + DST6 + SEGMENT


IN_VXLAN = bytes(8) + ethernet(ipv4(SEGMENT))
UDP = struct.pack("!HHHH", 50_000, 4789, 8 + len(IN_VXLAN), 0) + IN_VXLAN
GRE = b"\x00\x00\x08\x00" + ipv4(SEGMENT)
CONFLICT = tcp(b"\xee" * 512, options=ALL_OPTIONS)
SEQUENCES: dict[str, tuple[list[Frame], list[int]]] = {
    "tunnel in fragments": (frames4(*(piece4(*p, 2, protocol=17) for p in cut(UDP, 200, 400))), [2]),
    "GRE in fragments, last first": (frames4(*(piece4(*p, 3, protocol=47) for p in cut(GRE, 80)[::-1])), [1]),
    "fragments in a tunnel": (frames4(*(gre(piece4(*p, 4), 0x0800) for p in cut(SEGMENT, 80, 160))), [2]),
    "fragments in fragments": (
        frames4(
            piece4(*cut(SEGMENT, 400)[0], 5),
            *(piece4(*p, 6, protocol=4) for p in cut(piece4(*cut(SEGMENT, 400)[1], 5), 80)),
        ),
        [2],
    ),
    "IPv6 fragments in IP": (frames4(*(outer4(piece6(*p, 7), 41) for p in cut(SEGMENT, 80))), [1]),
    "IPv6, other headers before": (frames6(*(piece6(*p, 8, before=2) for p in cut(SEGMENT, 80, 160))), [2]),
    "IPv6, headers inside": (
        frames6(*(piece6(*p, 9, following=DESTINATION) for p in cut(bytes([6]) + EMPTY + SEGMENT, 80))),
        [1],
    ),
    "IPv6 alone": (frames6(piece6(SEGMENT, 0, False, 10)), [0]),
    "one twice": (frames4(*(piece4(*cut(SEGMENT, 64, 128)[at], 11) for at in (0, 1, 1, 0, 2))), [4]),
    "the last twice": (frames4(*(piece4(*cut(SEGMENT, 64, 128)[at], 12) for at in (2, 0, 2, 1))), [3]),
    "one too late": (frames4(*(piece4(*cut(SEGMENT, 64, 128)[at], 13) for at in (0, 1, 2, 1))), [2]),
    "the same number again": (frames4(*(piece4(*cut(SEGMENT, 64)[at], 14) for at in (0, 1, 1, 0, 0, 1))), [1, 3, 5]),
    "two at a time": (
        frames4(*(piece4(*cut(SEGMENT, 64)[at], number) for at, number in ((0, 15), (0, 16), (1, 16), (1, 15)))),
        [2, 3],
    ),
    "other protocol": (
        frames4(piece4(*cut(SEGMENT, 64)[0], 17), piece4(*cut(SEGMENT, 64)[1], 17, protocol=17)),
        [],
    ),
    "other sender": (
        frames4(piece4(*cut(SEGMENT, 64)[0], 18), piece4(*cut(SEGMENT, 64)[1], 18, src=DST)),
        [],
    ),
    "overlap": (
        frames4(
            piece4(SEGMENT[:128], 0, True, 19),
            piece4(CONFLICT[64:192], 64, True, 19),
            piece4(SEGMENT[192:], 192, False, 19),
        ),
        [2],
    ),
    "past the end": (
        frames4(
            piece4(SEGMENT[:128], 0, True, 20),
            piece4(SEGMENT[128:200] + bytes(800), 128, True, 20),
            piece4(SEGMENT[200:300], 200, False, 20),
        ),
        [2],
    ),
    "a hole": (frames4(*(piece4(*cut(SEGMENT, 64, 128, 256)[at], 21) for at in (0, 1, 3))), []),
    "no first": (frames4(*(piece4(*cut(SEGMENT, 64, 128)[at], 22) for at in (1, 2))), []),
    "tiny pieces": (
        frames4(*(piece4(*p, 23) for p in cut(SEGMENT, *range(8, len(SEGMENT), 8)))),
        [(len(SEGMENT) - 1) // 8],
    ),
    "empty last": (frames4(piece4(SEGMENT, 0, True, 24), piece4(b"", len(SEGMENT) // 8 * 8, False, 24)), []),
    "oversize": (
        frames4(*(piece4(SEGMENT[:40] + bytes(60_000), 0, True, 25), piece4(bytes(20_000), 60_040, False, 25))),
        [1],
    ),
    "public addresses in two VLANs": (
        [
            (frame, len(frame))
            for frame in (
                ethernet(
                    piece4(*p, 26, src=bytes([9, 9, 9, 9]))[:16] + bytes([8, 8, 8, 8]) + p[0], tags=((0x8100, vlan),)
                )
                for vlan, p in zip((5, 6), cut(SEGMENT, 64), strict=True)
            )
        ],
        [1],
    ),
    "private addresses in two VLANs": (
        [
            (frame, len(frame))
            for frame in (
                ethernet(piece4(*p, 27), tags=((0x8100, vlan),))
                for vlan, p in zip((5, 6), cut(SEGMENT, 64), strict=True)
            )
        ],
        [],
    ),
    "cut fragments": ([(ethernet(piece4(*p, 28))[:60], len(SEGMENT)) for p in cut(SEGMENT, 128, 256)], [0]),
    "cut IPv6 fragments": ([(ethernet(piece6(*p, 29), IPV6_TYPE)[:90], 900) for p in cut(SEGMENT, 128, 256)], []),
    "UDP in fragments, cut": (
        [(frame[:180], original) for frame, original in frames4(*(piece4(*p, 30, protocol=17) for p in cut(UDP, 400)))],
        [0],
    ),
    "longer than the frame": (
        [(frame[:-8], original - 8) for frame, original in frames4(*(piece4(*p, 31) for p in cut(SEGMENT, 128, 256)))],
        [0],
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_which_frames_count(decapsulate: Decapsulator, name: str) -> None:
    frames, counted = SEQUENCES[name]
    assert sorted(we_see(decapsulate, 1, frames)) == counted


def test_sequences_as_tshark_sees_them(decapsulate: Decapsulator, tmp_path: Path) -> None:
    frames = [frame for sequence, _ in SEQUENCES.values() for frame in sequence]
    seen = we_see(decapsulate, 1, frames)
    judge = tshark_sees(tmp_path / "frames.pcap", 1, frames)
    owners = [name for name, (sequence, _) in SEQUENCES.items() for _ in sequence]
    assert {
        owners[at]: (seen.get(at), judge.get(at)) for at in seen.keys() | judge if seen.get(at) != judge.get(at)
    } == {}


def test_bytes_that_come_twice_are_those_of_the_earlier_fragment(decapsulate: Decapsulator) -> None:
    frames, _ = SEQUENCES["overlap"]
    answers = [decapsulate(frame) for frame, _ in frames]
    assert answers[-1].ip[20:] == SEGMENT[:128] + CONFLICT[128:192] + SEGMENT[192:]


# --- Bounds.


def test_a_late_fragment_belongs_to_another_datagram(decapsulate: Decapsulator) -> None:
    """RFC 8200 section 4.5: 60 s."""
    first, last = (ethernet(piece4(*p)) for p in cut(SEGMENT, 64))
    decapsulate(first, time_ns=1)
    answer = decapsulate(last, time_ns=60 * 10**9 + 2)
    assert (answer.verdict, answer.dropped) == ("fragment", 1)
    answer = decapsulate(first, time_ns=61 * 10**9)
    assert (answer.verdict, answer.dropped) == ("tcp", 1)


def test_the_oldest_of_too_many_datagrams_goes(decapsulate: Decapsulator) -> None:
    first, last = cut(SEGMENT, 64)
    for number in range(MAX_DATAGRAMS + 2):
        assert decapsulate(ethernet(piece4(*first, number))).dropped == max(0, number + 1 - MAX_DATAGRAMS)
    assert decapsulate(ethernet(piece4(*last, 0))).verdict == "fragment"
    assert decapsulate(ethernet(piece4(*last, 3))).verdict == "tcp"
    assert decapsulate(ethernet(piece4(*last, MAX_DATAGRAMS + 1))).verdict == "tcp"


def test_the_oldest_of_too_many_bytes_goes(decapsulate: Decapsulator) -> None:
    big = SEGMENT[:40] + bytes(60_000)
    count = MAX_BYTES // (len(big) + 16)
    for number in range(count):
        assert decapsulate(ethernet(piece4(big, 0, True, number))).dropped == 0
    answers = [decapsulate(ethernet(piece4(big, 0, True, count + number))) for number in range(3)]
    assert [answer.dropped for answer in answers] == [1, 2, 3]
    assert decapsulate(ethernet(piece4(b"end", len(big), False, 0))).verdict == "fragment"
    assert decapsulate(ethernet(piece4(b"end", len(big), False, count))).verdict == "tcp"


def test_copies_of_one_fragment_end(decapsulate: Decapsulator) -> None:
    copy = ethernet(piece4(bytes(8), 8, True))
    dropped = [decapsulate(copy).dropped for _ in range(8193)]
    assert dropped[-2:] == [0, 1]
