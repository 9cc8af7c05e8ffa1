"""pcapng files: sections, interfaces, times, options, and blocks that lie."""

import struct
from pathlib import Path

import pytest

from tcptrace.errors import TcptraceError
from tcptrace.records import NOTE_ETHERNET, NOTE_FIRST_SEND, NOTE_SENT_BEFORE, CaptureInterface

from .capture_bytes import (
    ETHERNET,
    RADIOTAP,
    RAW_IP,
    START_S,
    block,
    enhanced,
    frame,
    given,
    interface,
    needs,
    numbered,
    option,
    pcap,
    read_all,
    run,
    section,
    segment,
    shark_times_ns,
)
from .test_parse import ipv4

S = 10**9
START_US = START_S * 10**6
TIME_MAX_NS = 2**63 - 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_orders(tmp_path: Path, order: str) -> None:
    data = section(order) + interface(order=order)
    data += b"".join(enhanced(START_US + n, frame(n), order=order) for n in range(10))
    reading = read_all(given(tmp_path, data), keep_frames=True)
    assert reading.seqs == list(range(10))
    assert reading.times_ns == [START_S * S + n * 1000 for n in range(10)]
    assert reading.frames == [frame(n) for n in range(10)]
    assert reading.warning is None


def test_sections_with_different_orders_and_interfaces(tmp_path: Path) -> None:
    eth = option(2, b"eth0") + option(3, "Büro".encode())
    data = section() + interface(options=eth, snaplen=1500) + enhanced(START_US, frame(1))
    data += section(">") + interface(RAW_IP, order=">") + enhanced(START_US + 1, ipv4(segment(2)), order=">")
    data += section() + interface(options=eth, snaplen=1500) + enhanced(START_US + 2, frame(3))
    reading = read_all(given(tmp_path, data), keep_frames=True)
    assert reading.seqs == [1, 2, 3]
    assert list(reading.source.interfaces) == [
        CaptureInterface("eth0", "Büro", ETHERNET, 1500),
        CaptureInterface(None, None, RAW_IP, 0),
    ]
    assert reading.interfaces == [0, 1, 0]


RESOLUTIONS = [0, 1, 3, 6, 9, 10, 12, 18, 0x80, 0x80 | 10, 0x80 | 20, 0x80 | 32]


def units_for(resolution: int, ns: int) -> int:
    per_second = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    return ns * per_second // S


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("offset_s", [0, 3600, -5])
def test_time_resolutions_and_offsets(tmp_path: Path, resolution: int, offset_s: int) -> None:
    per_second = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    start_s = 5 if per_second > 10**10 else START_S  # 64 bits hold no more
    units = [units_for(resolution, start_s * S + ns) for ns in (0, 123_456_789, 999_999_999)]
    options = option(9, bytes([resolution])) + option(14, struct.pack("<q", offset_s))
    data = section() + interface(options=options) + b"".join(enhanced(u, frame(n)) for n, u in enumerate(units))
    reading = read_all(given(tmp_path, data))
    assert reading.times_ns == [u * S // per_second + offset_s * S for u in units]


@needs("tshark")
@pytest.mark.parametrize("resolution", [0, 3, 6, 9, 0x80 | 10, 0x80 | 20])
def test_time_resolutions_are_tshark_s(tmp_path: Path, resolution: int) -> None:
    units = [units_for(resolution, 1_000_000 * S + ns) for ns in (1, 123_456_789, 999_999_999)]
    data = section() + interface(options=option(9, bytes([resolution])))
    path = given(tmp_path, data + b"".join(enhanced(u, frame(n)) for n, u in enumerate(units)))
    times_ns = read_all(path).times_ns
    # tshark goes through floating point for powers of 2.
    assert times_ns == pytest.approx(shark_times_ns(path), abs=1 if resolution & 0x80 else 0, rel=0)


@pytest.mark.parametrize(
    ("resolution", "offset_s", "units", "time_ns"),
    [
        (0, 0, 2**64 - 1, TIME_MAX_NS),
        (9, 0, 2**63, TIME_MAX_NS),
        (9, 0, 2**64 - 1, TIME_MAX_NS),
        (6, 2**63 - 1, 5, TIME_MAX_NS),
        (6, -(2**63), 5, 0),
        (6, -1, 5, 0),
    ],
)
def test_times_that_cannot_be_told_are_clamped_and_counted(
    tmp_path: Path, resolution: int, offset_s: int, units: int, time_ns: int
) -> None:
    options = option(9, bytes([resolution])) + option(14, struct.pack("<q", offset_s))
    reading = read_all(given(tmp_path, section() + interface(options=options) + enhanced(units, frame(1))))
    assert reading.times_ns == [time_ns]
    assert reading.counted["time_out_of_range"] == 1


@pytest.mark.parametrize(("resolution", "expected"), [(127, 0), (29, 0), (28, 1), (0xFF, 0), (0x80 | 63, 2 * S - 1)])
def test_the_finest_resolutions(tmp_path: Path, resolution: int, expected: int) -> None:
    data = section() + interface(options=option(9, bytes([resolution]))) + enhanced(2**64 - 1, frame(1))
    assert read_all(given(tmp_path, data)).times_ns == [expected]


@pytest.mark.parametrize("order", ["<", ">"])
def test_directions(tmp_path: Path, order: str) -> None:
    flags = [None, 0, 1, 2, 3, 0x1FD, 0x1FE]
    data = section(order) + interface(order=order)
    for n, word in enumerate(flags):
        options = (
            b"" if word is None else option(1, b"a comment", order) + option(2, struct.pack(order + "I", word), order)
        )
        data += enhanced(START_US + n, frame(n), options, order)
    assert read_all(given(tmp_path, data)).records["direction"].tolist() == [2, 2, 0, 1, 2, 0, 1]


def own_option(
    order: str, *, enterprise: int = 32473, name: bytes = b"tcptrace", version: int = 1, **other: int
) -> bytes:
    note, segments, frame_bytes = other.get("note", 0x04), other.get("segments", 3), other.get("frame_bytes", 4242)
    value = (
        struct.pack(order + "I", enterprise) + name + struct.pack(order + "BBHI", version, note, segments, frame_bytes)
    )
    return option(2989, value, order)


@pytest.mark.parametrize("order", ["<", ">"])
def test_our_own_option(tmp_path: Path, order: str) -> None:
    options = [
        own_option(order),
        own_option(order, note=0xFF, segments=0, frame_bytes=2**32 - 1),
        own_option(order, enterprise=32472),
        own_option(order, name=b"tcptracf"),
        own_option(order, version=2),
        option(2989, struct.pack(order + "I", 32473) + b"tcptrace", order),
        option(2, struct.pack(order + "I", 2), order) + own_option(order, segments=65535),
    ]
    data = section(order) + interface(order=order)
    data += b"".join(enhanced(START_US + n, frame(n), o, order) for n, o in enumerate(options))
    records = read_all(given(tmp_path, data)).records
    usual = len(frame(0))
    assert records["segments"].tolist() == [3, 1, 1, 1, 1, 1, 65535]
    assert records["frame_bytes"].tolist() == [4242, 2**32 - 1, usual, usual, usual, usual, 4242]
    first_send = NOTE_ETHERNET | NOTE_FIRST_SEND
    assert records["note"].tolist() == [first_send, first_send | NOTE_SENT_BEFORE, *[NOTE_ETHERNET] * 4, first_send]
    assert records["direction"].tolist() == [2] * 6 + [1]


@pytest.mark.parametrize(
    "garbage", [b"\1", b"\2\0\0\0", b"\2\0\xff\xff1234", option(1, b"abc")[:6], b"\0\0\0\0\2\0\4\0\1\0\0\0"]
)
def test_options_that_do_not_hold_together_leave_the_packet_alone(tmp_path: Path, garbage: bytes) -> None:
    data = section() + interface()
    head = struct.pack("<IIIII", 0, START_US >> 32, START_US & 0xFFFFFFFF, len(frame(1)), len(frame(1)))
    data += block(6, head + frame(1) + bytes(-len(frame(1)) % 4) + garbage) + enhanced(START_US, frame(2))
    reading = read_all(given(tmp_path, data))
    assert reading.seqs == [1, 2]
    assert reading.records["direction"].tolist() == [2, 2]


def test_the_other_packet_blocks_and_those_passed_over(tmp_path: Path) -> None:
    obsolete = struct.pack("<HHIIII", 1, 7, START_US >> 32, (START_US + 5) & 0xFFFFFFFF, len(frame(2)), len(frame(2)))
    options = option(2, struct.pack("<I", 1))
    data = section() + interface() + interface(options=option(2, b"second"))
    data += block(4, bytes(40)) + block(5, bytes(20)) + block(0x0BAD, bytes(400)) + block(0x80001234, b"")
    data += enhanced(START_US, frame(1))
    data += block(2, obsolete + frame(2) + bytes(-len(frame(2)) % 4) + options)
    data += block(3, struct.pack("<I", len(frame(3))) + frame(3))
    reading = read_all(given(tmp_path, data), keep_frames=True)
    assert reading.seqs == [1, 2, 3]
    assert reading.interfaces == [0, 1, 0]
    assert reading.records["direction"].tolist() == [2, 0, 2]
    assert reading.times_ns == [START_S * S, START_S * S + 5000, START_S * S + 5000]
    assert reading.counted["without_time"] == 1


def test_a_simple_packet_is_as_long_as_the_snap_length(tmp_path: Path) -> None:
    whole = frame(1, b"x" * 500)
    data = section() + interface(snaplen=61) + block(3, struct.pack("<I", len(whole)) + whole[:61])
    reading = read_all(given(tmp_path, data), keep_frames=True)
    assert reading.frames == [whole[:61]]
    assert reading.records["payload_bytes"].tolist() == [500]
    assert reading.records["frame_bytes"].tolist() == [len(whole)]


@needs("editcap", "capinfos")
def test_editcap_s_files(tmp_path: Path) -> None:
    original = given(tmp_path, pcap(numbered(5000)))
    run("editcap", "-F", "pcapng", original, tmp_path / "b.pcapng")
    reading = read_all(tmp_path / "b.pcapng")
    assert reading.seqs == list(range(5000))
    assert reading.times_ns == read_all(original).times_ns
    assert "Number of packets:   5000" in run("capinfos", "-M", "-c", tmp_path / "b.pcapng")


# --- What breaks

HEAD = section() + interface()
GOOD = HEAD + enhanced(START_US, frame(1)) + enhanced(START_US, frame(2))


def with_length(data: bytes, length: int) -> bytes:
    """A block whose first length lies."""
    return data[:4] + struct.pack("<I", length) + data[8:]


ENHANCED = enhanced(START_US, frame(3))
TOO_LONG_FRAME = struct.pack("<IIIII", 0, 0, 0, len(frame(3)) + 4, 100) + frame(3) + bytes(-len(frame(3)) % 4)
BROKEN = [
    (ENHANCED[:-1], "cut off in the middle of a block"),
    (ENHANCED[:5], "cut off in the middle of a block"),
    (with_length(ENHANCED, 0), "a block of 0 bytes"),
    (with_length(ENHANCED, 8), "a block of 8 bytes"),
    (with_length(ENHANCED, len(ENHANCED) + 1), "a block of"),
    (with_length(ENHANCED, 17 << 20), "a block of 17825792 bytes"),
    (with_length(ENHANCED, 2**32 - 4), "a block of 4294967292 bytes"),
    (with_length(ENHANCED, len(ENHANCED) - 4), "a block with two lengths"),
    (ENHANCED[:-4] + b"\0\0\0\0", "a block with two lengths, 0 at its end"),
    (block(6, TOO_LONG_FRAME), f"a frame of {len(frame(3)) + 4} bytes"),
    (block(6, struct.pack("<IIIII", 0, 0, 0, 2**32 - 1, 100) + frame(3)), "a frame of 4294967295 bytes"),
    (block(6, bytes(8)), "a block of 20 bytes, too short"),
    (block(3, b""), "a block of 12 bytes, too short"),
    (block(3, struct.pack("<I", 1000) + frame(3)), "a frame of 1000 bytes"),
    (block(1, bytes(4)), "a block of 16 bytes, too short"),
    (enhanced(START_US, frame(3), place=1), "interface 1 that was not described"),
    (enhanced(START_US, frame(3), place=2**32 - 1), "interface 4294967295 that"),
    (section(version=2), "version 2"),
    (block(0x0A0D0D0A, b"\x1a\x2b\x3c\x4e" + bytes(12)), "unknown byte order"),
    (section() + enhanced(START_US, frame(3)), "interface 0 that was not described"),
]


@pytest.mark.parametrize(("broken", "message"), BROKEN, ids=[str(n) for n in range(len(BROKEN))])
def test_what_came_before_a_broken_block_is_read(tmp_path: Path, broken: bytes, message: str) -> None:
    path = given(tmp_path, GOOD + broken + enhanced(START_US, frame(4)) * (broken[-1:] != ENHANCED[-2:-1]))
    if message.startswith("cut off"):
        path = given(tmp_path, GOOD + broken)
    reading = read_all(path)
    assert reading.seqs == [1, 2]
    assert reading.counted["cut_off"] == 1
    assert reading.warning is not None
    assert f"{path}: packet 3, offset " in reading.warning
    assert message in reading.warning


@pytest.mark.parametrize(("broken", "message"), BROKEN, ids=[str(n) for n in range(len(BROKEN))])
def test_a_file_that_breaks_before_its_first_packet_is_refused(tmp_path: Path, broken: bytes, message: str) -> None:
    with pytest.raises(TcptraceError, match=message):
        read_all(given(tmp_path, HEAD + broken))


def test_a_block_before_its_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TcptraceError, match=r"version 9 of the format is not known$"):
        read_all(given(tmp_path, section(version=9) + interface()))


def test_an_unsupported_link_type_is_refused_alone_and_told_among_others(tmp_path: Path) -> None:
    only = section() + interface(RADIOTAP) + enhanced(START_US, bytes(60))
    with pytest.raises(TcptraceError, match=r"link type 127 \(IEEE802_11_RADIO\) is not supported$"):
        read_all(given(tmp_path, only))
    both = HEAD + interface(RADIOTAP) + enhanced(START_US, bytes(60), place=1) * 3 + enhanced(START_US, frame(1))
    path = given(tmp_path, both)
    reading = read_all(path)
    assert reading.counted == {"frames": 4, "unsupported_link": 3, "tcp": 1, "records": 1}
    assert reading.warning == (f"{path}: 3 frames are not analysed: link type 127 (IEEE802_11_RADIO) is not supported")


def test_more_interfaces_than_there_are_numbers_for(tmp_path: Path) -> None:
    data = HEAD + enhanced(START_US, frame(1)) + interface() * 65535 + enhanced(START_US, frame(2)) + interface()
    reading = read_all(given(tmp_path, data))
    assert reading.seqs == [1, 2]
    assert reading.warning is not None
    assert "more interfaces than can be told apart" in reading.warning
