"""What is in a capture file: by its bytes, by the formats' descriptions, and as tshark and capinfos see it."""

import platform
import struct
import sys
from pathlib import Path

import pytest

from tcptrace.errors import MissingFeatureError, UsageError
from tcptrace.model import Clock
from tcptrace.records import (
    DIRECTION_EGRESS,
    DIRECTION_INGRESS,
    NOTE_ETHERNET,
    NOTE_FIRST_SEND,
    CaptureInterface,
)
from tcptrace.sinks.capture_writer import CaptureWriter, numbered_path, parse_target

from .capture_writing import (
    ETH0,
    ETHERNET,
    RAW_IP,
    START_NS,
    HandView,
    Packet,
    batch_of,
    blocks,
    capinfos,
    decode,
    decode_pcap,
    file_info,
    live_info,
    needs_tshark,
    tshark,
    uncompressed,
    write,
)

SECTION_HEADER, INTERFACE, STATISTICS = "0x0a0d0d0a", "0x00000001", "0x00000005"
COMMENT, FLAGS, CUSTOM = 1, 2, 2989
KINDS = ("x.pcapng", "x.pcap", "x.pcapng.gz", "x.pcap.gz", "x.pcapng.zst", "x.pcap.zst")

MIXED = [
    Packet(bytes(range(60)), START_NS, DIRECTION_INGRESS),
    Packet(bytes(range(1, 62)), START_NS + 1, DIRECTION_EGRESS, original_bytes=1514),
    Packet(bytes(range(2, 64)), START_NS + 1_000_000_000),
    Packet(bytes(range(3, 66)), START_NS + 999_999_999, DIRECTION_EGRESS, segments=3, frame_bytes=4000),
]


def pcapng_of(path: Path, *batches: list[Packet], **options: object) -> object:
    write(path, *batches, **options)
    return decode(path.read_bytes())


# --- Bytes worked out by hand.


def test_an_enhanced_packet_block_byte_by_byte(tmp_path: Path) -> None:
    packet = Packet(
        b"\xaa\xbb\xcc\xdd\xee", 0x0123_4567_89AB_CDEF, DIRECTION_EGRESS, 2, NOTE_FIRST_SEND | NOTE_ETHERNET, 7, 11
    )
    path = tmp_path / "x.pcapng"
    write(path, [packet])
    expected = bytes.fromhex(
        "06000000 4c000000 00000000 67452301 efcdab89 05000000 07000000"  # type, length, interface, time, lengths
        "aabbccdd ee000000"
        "0200 0400 02000000"  # epb_flags: outbound
        "ad0b 1400 d97e0000 7463707472616365 01 04 0200 0b000000"  # 2989, 20 bytes, 32473, "tcptrace", 1, note, …
        "00000000 4c000000".replace(" ", "")
    )
    raw = path.read_bytes()
    assert raw.count(expected) == 1
    assert len(expected) == 0x4C


def test_a_pcap_file_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    write(path, [Packet(b"\xaa\xbb\xcc", 1_000_000_005, DIRECTION_EGRESS, 2, NOTE_FIRST_SEND, 7)])
    assert path.read_bytes() == bytes.fromhex(
        "4d3cb2a1 0200 0400 00000000 00000000 00000400 01000000  01000000 05000000 03000000 07000000 aabbcc"
    )


# --- pcapng.


def test_what_pcapng_has_no_field_for_is_written_only_where_it_says_something(tmp_path: Path) -> None:
    packets = [
        Packet(),
        Packet(note=NOTE_ETHERNET),
        Packet(segments=2),
        Packet(note=NOTE_FIRST_SEND | NOTE_ETHERNET),
        Packet(frame_bytes=64),
        Packet(original_bytes=1514, direction=DIRECTION_INGRESS),
    ]
    path = tmp_path / "x.pcapng"
    write(path, packets)
    head = struct.pack("<I", 32473) + b"tcptrace\x01"
    assert [options for *_, options in decode(path.read_bytes()).packets] == [
        {},
        {},
        {CUSTOM: [head + struct.pack("<BHI", 0, 2, 60)]},
        {CUSTOM: [head + struct.pack("<BHI", 4, 1, 60)]},
        {CUSTOM: [head + struct.pack("<BHI", 0, 1, 64)]},
        {FLAGS: [b"\x01\0\0\0"]},
    ]


@needs_tshark
def test_tshark_reads_times_lengths_directions_and_interfaces(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    write(path, MIXED[:2], MIXED[2:], info=live_info(clock=Clock(5)))
    fields = (
        "frame.time_epoch",
        "frame.cap_len",
        "frame.len",
        "frame.packet_flags",
        "frame.p2p_dir",
        "frame.interface_name",
    )
    assert tshark(path, *fields) == [
        ["1700000000.123456794", "60", "60", "0x00000001", "1", "eth0"],
        ["1700000000.123456795", "61", "1514", "0x00000002", "0", "eth0"],
        ["1700000001.123456794", "62", "62", "", "", "eth0"],
        ["1700000001.123456793", "63", "63", "0x00000002", "0", "eth0"],
    ]
    said = capinfos(path)
    assert said["Number of packets"] == "4"
    assert said["File timestamp precision"] == "nanoseconds (9)"
    assert said["Data size"] == f"{60 + 1514 + 62 + 63} bytes"


@needs_tshark
def test_capinfos_reads_who_wrote_it_where_and_of_what(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    interface = CaptureInterface("ärger0", "a card", ETHERNET, 96)
    write(path, MIXED, info=live_info([interface], filter="tcp port 443"), snaplen=1500)
    said = capinfos(path)
    expected = {
        "Capture application": "tcptrace 1.2.3",
        "Capture hardware": platform.machine(),
        "Capture oper-sys": f"{platform.system()} {platform.release()}",
        "Name": "ärger0",
        "Description": "a card",
        "Filter string": "tcp port 443",
        "Operating system": f"{platform.system()} {platform.release()}",
        "Capture length": "96",
        "Time resolution": "0x09",
        "Number of stat entries": "1",
    }
    assert {name: said[name] for name in expected} == expected


@needs_tshark
def test_tshark_reads_the_statistics_of_a_live_trace(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    counters = {"frames": 10_000, "filtered": 700, "filter_out_of_reach": 20, "records_lost": 3}
    write(path, MIXED, view=HandView(counters))
    (block,) = blocks(path, STATISTICS)
    options = block["pcapng.block.data"]["pcapng.options"]["pcapng.options.option"]
    said = {k.rpartition(".")[2]: v for option in options for k, v in option.items() if ".data." in k}
    said.pop("start_time")
    said.pop("end_time")
    assert said == {
        "received": "10000",
        "accepted_by_filter": "9280",
        "dropped_by_os": "3",
        "delivered_to_user": "4",
    }
    (statistics,) = decode(path.read_bytes()).statistics
    start, end = (struct.unpack("<II", statistics[2][code][0]) for code in (2, 3))
    assert start[0] << 32 | start[1] == START_NS - 10**6
    assert end[0] << 32 | end[1] == START_NS + 10**9 == statistics[1]


def test_what_nobody_counted_is_left_out_of_the_statistics(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    write(path, MIXED, view=HandView({"records_lost": 0}))
    (statistics,) = decode(path.read_bytes()).statistics
    assert sorted(statistics[2]) == [2, 3, 7, 8]
    write(path, MIXED, info=file_info([]), view=HandView({"frames": 100, "filtered": 0, "records_lost": 0}))
    (statistics,) = decode(path.read_bytes()).statistics
    assert sorted(statistics[2]) == [2, 3, 8]
    start, end = (struct.unpack("<II", statistics[2][code][0]) for code in (2, 3))
    assert (start[0] << 32 | start[1], end[0] << 32 | end[1]) == (START_NS, START_NS + 10**9)


@needs_tshark
def test_interfaces_of_other_link_types_that_come_later(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    interfaces = [ETH0]
    writer = CaptureWriter(str(path))
    writer.open(file_info([], interfaces))
    writer.packets(batch_of(MIXED))
    interfaces.append(CaptureInterface("tun0", "a tunnel", RAW_IP, 0))
    interfaces.append(CaptureInterface(None, None, ETHERNET, 0))
    ip = bytes.fromhex("4500002800010000400600007f0000017f000001") + bytes.fromhex(
        "0001000200000000000000005002000000000000"
    )
    writer.packets(batch_of([Packet(ip, START_NS + 5, interface=1), Packet(interface=2), Packet(ip, interface=1)]))
    writer.close(HandView({"frames": 7, "records_lost": 1}))
    rows = tshark(path, "frame.interface_id", "frame.interface_name", "frame.encap_type", "tcp.dstport")
    ethernet = ["0", "eth0", "1", ""]
    tunnel = ["1", "tun0", "7", "2"]
    assert [row[0] for row in rows] == ["0", "0", "0", "0", "1", "2", "1"]
    assert (rows[3], rows[4], rows[6]) == (ethernet, tunnel, tunnel)
    section = decode(path.read_bytes())
    assert [(kind, snaplen) for kind, snaplen, _ in section.interfaces] == [(1, 262144), (101, 262144), (1, 262144)]
    delivered = [struct.unpack("<Q", options[8][0])[0] for _, _, options in section.statistics]
    assert delivered == [4, 2, 1]
    # Which of the three lost a record, nobody said.
    assert not any(7 in options or 4 in options for _, _, options in section.statistics)


@needs_tshark
def test_comments_are_those_of_their_packets(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    comments = ["retransmission – ja", None, "", "x" * 70_000]
    write(path, MIXED, comments=lambda batch: comments[: len(batch.records)])
    assert tshark(path, "frame.comment", "frame.packet_flags")[0] == ["retransmission – ja", "0x00000001"]
    said = [options.get(COMMENT) for *_, options in decode(path.read_bytes()).packets]
    assert said == [["retransmission – ja".encode()], None, [b""], [b"x" * 65_535]]


def test_a_comment_is_cut_between_characters(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    write(path, MIXED[:1], comments=lambda batch: ["€" * 30_000])
    (packet,) = decode(path.read_bytes()).packets
    assert packet[4][COMMENT] == [("€" * 21_845).encode()]


# --- pcap.


@needs_tshark
@pytest.mark.parametrize("link_type", [ETHERNET, RAW_IP])
def test_tshark_reads_pcap_to_the_nanosecond(tmp_path: Path, link_type: int) -> None:
    path = tmp_path / "x.pcap"
    write(path, MIXED, info=live_info([CaptureInterface("any", None, link_type, 0)]))
    assert tshark(path, "frame.time_epoch", "frame.cap_len", "frame.len", "frame.encap_type") == [
        ["1700000000.123456789", "60", "60", "1" if link_type == ETHERNET else "7"],
        ["1700000000.123456790", "61", "1514", "1" if link_type == ETHERNET else "7"],
        ["1700000001.123456789", "62", "62", "1" if link_type == ETHERNET else "7"],
        ["1700000001.123456788", "63", "63", "1" if link_type == ETHERNET else "7"],
    ]
    assert capinfos(path)["File timestamp precision"] == "nanoseconds (9)"


def test_a_second_link_type_is_an_error_and_what_came_before_it_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    interfaces = [CaptureInterface("tun0", None, RAW_IP, 0), ETH0]
    writer = CaptureWriter(str(path))
    writer.open(file_info([], interfaces))
    batch = [Packet(b"a", interface=1), Packet(b"b", interface=1), Packet(b"c"), Packet(b"d", interface=1)]
    with pytest.raises(
        UsageError, match=r"x\.pcap: frames of link types 1 and 101, and \.pcap holds one: use \.pcapng"
    ):
        writer.packets(batch_of(batch))
    assert decode_pcap(path.read_bytes()) == (262_144, ETHERNET, [(START_NS, b"a", 1), (START_NS, b"b", 1)])
    writer.packets(batch_of(batch))
    writer.close(HandView())
    assert len(decode_pcap(path.read_bytes())[2]) == 2


def test_a_time_that_pcap_cannot_say_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    last_ns = 2**32 * 10**9 - 1
    with pytest.raises(UsageError, match="a time after the year 2105"):
        write(path, [Packet(time_ns=last_ns), Packet(time_ns=last_ns + 1)])
    assert [time for time, *_ in decode_pcap(path.read_bytes())[2]] == [last_ns]


# --- Both.


@needs_tshark
@pytest.mark.parametrize("name", KINDS)
def test_a_trace_without_packets_is_a_capture_file(tmp_path: Path, name: str) -> None:
    if name.endswith("zst"):
        pytest.importorskip("zstandard")
    for number, info in enumerate((live_info(), file_info([], []))):
        path = tmp_path / f"{number}{name}"
        write(path, info=info)
        assert capinfos(path)["Number of packets"] == "0"
        assert tshark(path, "frame.number") == []


@needs_tshark
@pytest.mark.parametrize("name", KINDS)
def test_many_packets_in_every_format(tmp_path: Path, name: str) -> None:
    """Several buffers of them, none of which is a multiple of a packet."""
    if name.endswith("zst"):
        pytest.importorskip("zstandard")
    path = tmp_path / name
    lengths = [60 + 7 * number % 1400 for number in range(3_000)]
    batch = [Packet(bytes([number % 251]) * length, START_NS + number) for number, length in enumerate(lengths)]
    write(path, batch[:2_000], batch[2_000:], MIXED)
    rows = tshark(path, "frame.time_epoch", "frame.len")
    assert rows[:3_000] == [[f"1700000000.{123_456_789 + n}", str(length)] for n, length in enumerate(lengths)]
    assert len(rows) == 3_004
    assert capinfos(path)["Number of packets"] == "3004"
    assert (len(uncompressed(path)) > 2 << 20) is True


@pytest.mark.parametrize("name", ["x.pcap", "x.pcapng"])
def test_frames_are_cut_to_the_snapshot_length(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, [Packet(b"a" * 99), Packet(b"b" * 100, original_bytes=5_000), Packet(b"c" * 101)], snaplen=100)
    if name == "x.pcap":
        snaplen, _, packets = decode_pcap(path.read_bytes())
        lengths = [(len(data), original) for _, data, original in packets]
    else:
        section = decode(path.read_bytes())
        snaplen = section.interfaces[0][1]
        lengths = [(len(data), original) for _, _, data, original, _ in section.packets]
    assert (snaplen, lengths) == (100, [(99, 99), (100, 5_000), (100, 101)])


def test_headers_only_keeps_nothing_of_the_payload(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    whole, cut = bytes(54) + b"secret", bytes(54) + b"se"
    packets = [Packet(whole), Packet(cut, original_bytes=1514), Packet(bytes(60)), Packet(whole)]
    batch = batch_of(packets)
    batch.records["payload_bytes"] = [6, 1460, 0, 2_000]  # the last one lies
    writer = CaptureWriter(str(path), snaplen=128, headers_only=True)
    writer.open(live_info())
    writer.packets(batch)
    writer.close(HandView())
    section = decode(path.read_bytes())
    kept = [(len(data), original) for _, _, data, original, _ in section.packets]
    assert kept == [(54, 60), (54, 1514), (60, 60), (0, 60)]


@needs_tshark
@pytest.mark.parametrize("name", ["x.pcap", "x.pcapng"])
def test_a_frame_too_long_for_other_programs_is_cut(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, [Packet(bytes(300_000)), Packet()])
    assert tshark(path, "frame.cap_len", "frame.len") == [["262144", "300000"], ["60", "60"]]


def test_an_update_brings_what_was_buffered_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    writer = CaptureWriter(str(path))
    writer.open(live_info())
    assert len(decode(path.read_bytes()).interfaces) == 1
    writer.packets(batch_of(MIXED))
    assert not decode(path.read_bytes()).packets
    writer.update(HandView())
    assert len(decode(path.read_bytes()).packets) == 4
    writer.packets(batch_of(MIXED))
    writer.restore()
    assert len(decode(path.read_bytes()).packets) == 8
    writer.packets(batch_of(MIXED))
    writer.close(HandView())
    writer.close(HandView())
    writer.restore()
    section = decode(path.read_bytes())
    assert (len(section.packets), len(section.statistics)) == (12, 1)


def test_frames_that_reach_past_their_data_are_refused(tmp_path: Path) -> None:
    batch = batch_of([Packet()])
    batch.frames.captured_bytes[0] += 1
    writer = CaptureWriter(str(tmp_path / "x.pcapng"))
    writer.open(live_info())
    with pytest.raises(ValueError, match="frame 0 reaches past the data"):
        writer.packets(batch)


def test_an_interface_that_nobody_named_is_refused(tmp_path: Path) -> None:
    writer = CaptureWriter(str(tmp_path / "x.pcapng"))
    writer.open(live_info())
    with pytest.raises(RuntimeError, match="interface"):
        writer.packets(batch_of([Packet(interface=1)]))


# --- Names.


@pytest.mark.parametrize(
    ("path", "file_format", "compression"),
    [
        ("-", "pcapng", None),
        ("/dev/null", "pcapng", None),
        ("a.b/x.pcap", "pcap", None),
        ("X.PCAPNG", "pcapng", None),
        ("x.pcap.gz", "pcap", "gz"),
        ("x.pcapng.zst", "pcapng", "zst"),
    ],
)
def test_the_name_says_the_format(path: str, file_format: str, compression: str | None) -> None:
    target = parse_target(path)
    assert (target.path, target.file_format, target.compression) == (path, file_format, compression)


@pytest.mark.parametrize(
    "path", ["x", "x.txt", "x.gz", "x.pcap.bz2", "pcapng", ".pcapng", "dir.pcapng/", "x.pcapng.gz.zst", ""]
)
def test_a_name_that_says_nothing_is_a_usage_error(path: str) -> None:
    with pytest.raises(UsageError, match=r"must end in \.pcapng or \.pcap"):
        CaptureWriter(path)


def test_a_format_may_be_said() -> None:
    assert parse_target("-", "pcap").file_format == "pcap"
    assert parse_target("x", "pcapng").file_format == "pcapng"
    with pytest.raises(UsageError, match="no capture format"):
        parse_target("x", "erf")


@pytest.mark.parametrize(
    ("path", "number", "expected"),
    [
        ("x.pcapng", 0, "x.pcapng"),
        ("x.pcapng", 1, "x-00001.pcapng"),
        ("a.b/x.y.pcap.gz", 123_456, "a.b/x.y-123456.pcap.gz"),
    ],
)
def test_numbered_names(path: str, number: int, expected: str) -> None:
    assert numbered_path(path, number) == expected


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingFeatureError, match="pip install zstandard"):
        CaptureWriter("x.pcapng.zst")


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("-", {"rotate_bytes": 1}),
        ("x.pcap", {"rotate_files": 3}),
        ("x.pcap", {"rotate_bytes": 0}),
        ("x.pcap", {"rotate_s": -1.0}),
        ("x.pcap", {"rotate_s": 1.0, "rotate_files": 0}),
    ],
)
def test_rotation_that_cannot_be_is_a_usage_error(target: str, options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        CaptureWriter(target, **options)
