"""pcap files: every variant, lengths and times that lie."""

import struct
from pathlib import Path

import pytest

from tcptrace.errors import NotPermittedError, TcptraceError
from tcptrace.records import DIRECTION_EGRESS, DIRECTION_INGRESS

from .capture_bytes import (
    MICROS,
    NANOS,
    RADIOTAP,
    RAW_IP,
    START_S,
    frame,
    given,
    needs,
    numbered,
    pcap,
    pcap_record,
    read_all,
    run,
    segment,
    shark_times_ns,
    udp_frame,
)
from .test_parse import ipv4

S = 10**9


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit_ns"), [(MICROS, 1000), (NANOS, 1)])
def test_byte_orders_and_units(tmp_path: Path, order: str, magic: int, unit_ns: int) -> None:
    packets = [(START_S, 999_999, frame(1)), (START_S + 1, 7, udp_frame()), (START_S + 1, 8, frame(2))]
    reading = read_all(given(tmp_path, pcap(packets, order=order, magic=magic)))
    assert reading.seqs == [1, 2]
    assert reading.times_ns == [START_S * S + 999_999 * unit_ns, (START_S + 1) * S + 8 * unit_ns]
    assert reading.counted == {"frames": 3, "tcp": 2, "records": 2, "not_tcp": 1}
    assert reading.warning is None
    assert set(reading.records["segments"]) == {1}
    assert set(reading.records["direction"]) == {2}
    assert list(reading.records["frame_bytes"]) == [len(frame(1)), len(frame(2))]


@needs("tshark")
def test_the_direction_before_ppp_is_told_and_is_no_byte_of_the_frame(tmp_path: Path) -> None:
    """LINKTYPE_PPP_WITH_DIR: 0 is received, anything else sent."""
    inner = b"\xff\x03\x00\x21" + ipv4(segment(1))
    packets = [(START_S, number, bytes([first]) + inner) for number, first in enumerate((0, 1, 9))]
    path = given(tmp_path, pcap(packets, link_type=204))
    records = read_all(path).records
    lengths = run("tshark", "-r", path, "-T", "fields", "-e", "frame.len").split()
    assert records["frame_bytes"].tolist() == [int(length) for length in lengths] == [len(inner)] * 3
    assert records["direction"].tolist() == [DIRECTION_INGRESS, DIRECTION_EGRESS, DIRECTION_EGRESS]


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_modified_variant_has_longer_record_headers(tmp_path: Path, order: str) -> None:
    data = pcap([], magic=0xA1B2CD34, order=order)
    for number in range(3):
        data += pcap_record(START_S, number, frame(number), order=order, extra=bytes(8))
    reading = read_all(given(tmp_path, data + b"\0" * 5))
    assert reading.seqs == [0, 1, 2]
    assert reading.times_ns == [START_S * S + number * 1000 for number in range(3)]
    assert reading.warning is not None
    assert f"packet 4, offset {24 + 3 * (24 + len(frame(0)))}: cut off" in reading.warning


@needs("editcap", "tshark")
def test_a_nanosecond_file_of_editcap_s_has_tshark_s_times(tmp_path: Path) -> None:
    original = given(
        tmp_path, pcap([(START_S + n, 999_999_999 - n * 1_234_567, frame(n)) for n in range(50)], magic=NANOS)
    )
    run("editcap", "-F", "nsecpcap", "-t", "0.123456789", original, tmp_path / "b.pcap")
    reading = read_all(tmp_path / "b.pcap")
    assert reading.times_ns == shark_times_ns(tmp_path / "b.pcap")
    assert len(reading.times_ns) == 50
    assert len({time_ns % 1000 for time_ns in reading.times_ns}) > 10


def test_seconds_after_2038_and_up_to_the_last(tmp_path: Path) -> None:
    reading = read_all(given(tmp_path, pcap([(2**31, 5, frame(1)), (2**32 - 1, 999_999, frame(2))])))
    assert reading.times_ns == [2**31 * S + 5000, (2**32 - 1) * S + 999_999_000]
    assert "time_out_of_range" not in reading.counted


@pytest.mark.parametrize(("magic", "second"), [(MICROS, 10**6), (NANOS, 10**9)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_fractions_of_a_second_and_more_are_counted(tmp_path: Path, magic: int, second: int, order: str) -> None:
    """One second too many is carried; of more, the second alone is kept: tshark's round-trip times agree."""
    fractions = [second - 1, second, second + 1, 2**31, 2**32 - 1]
    packets = [(START_S, fraction, frame(n)) for n, fraction in enumerate(fractions)]
    reading = read_all(given(tmp_path, pcap(packets, magic=magic, order=order)))
    unit_ns = S // second
    after = [time_ns - START_S * S for time_ns in reading.times_ns]
    assert after == [S - unit_ns, S, S + unit_ns, 0, 0]
    assert reading.counted["time_out_of_range"] == 4
    assert reading.totals.unordered == 1


def test_frames_before_their_predecessor_are_counted_and_stay_where_they_are(tmp_path: Path) -> None:
    times = [5, 4, 4, 9, 1, 8]
    packets = [(START_S, time_us, frame(n)) for n, time_us in enumerate(times)]
    packets.insert(4, (START_S, 7, udp_frame()))
    reading = read_all(given(tmp_path, pcap(packets)))
    assert reading.seqs == list(range(6))
    assert reading.totals.unordered == 3  # 4 after 5, 7 after 9, 1 after 7


def test_a_frame_longer_than_it_was_is_read_as_far_as_it_is_there(tmp_path: Path) -> None:
    data = frame(1, b"hello")
    record = struct.pack("<IIII", START_S, 0, len(data), 10) + data
    reading = read_all(given(tmp_path, pcap([]) + record))
    assert reading.records["payload_bytes"].tolist() == [5]
    assert reading.records["frame_bytes"].tolist() == [10]


def test_snapped_headers_are_counted(tmp_path: Path) -> None:
    data = frame(1, b"x" * 1000)
    snapped = [struct.pack("<IIII", START_S, 0, count, len(data)) + data[:count] for count in (13, 33, 36, 54, 500)]
    reading = read_all(given(tmp_path, pcap([]) + b"".join(snapped)))
    assert reading.counted == {"frames": 5, "snapped": 3, "tcp": 2, "records": 2}
    assert reading.records["payload_bytes"].tolist() == [1000, 1000]


@pytest.mark.parametrize("link_type", [RAW_IP, 228])
def test_raw_ip(tmp_path: Path, link_type: int) -> None:
    reading = read_all(given(tmp_path, pcap([(START_S, 0, ipv4(segment(3)))], link_type=link_type)))
    assert reading.seqs == [3]


# --- What breaks


def record_offset(number: int) -> int:
    return 24 + (number - 1) * (16 + len(frame(0)))


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 16 + len(frame(0)) - 1])
def test_a_cut_file_is_read_up_to_the_cut(tmp_path: Path, cut: int) -> None:
    whole = pcap(numbered(100))
    path = given(tmp_path, whole[: record_offset(60) + cut])
    reading = read_all(path)
    assert reading.seqs == list(range(59))
    assert reading.counted["cut_off"] == 1
    assert reading.warning == (
        f"{path}: packet 60, offset {record_offset(60)}: cut off in the middle of a record; "
        "what came before is analysed"
    )
    assert reading.source.check() is None


def test_a_length_that_cannot_be_ends_the_file_there(tmp_path: Path) -> None:
    lie = struct.pack("<IIII", START_S, 0, 0x7FFFFFFF, 60)
    path = given(tmp_path, pcap(numbered(5)) + lie + pcap(numbered(5))[24:])
    reading = read_all(path)
    assert reading.seqs == list(range(5))
    assert reading.warning is not None
    assert reading.warning.startswith(f"{path}: packet 6, offset {record_offset(6)}: ")
    assert "2147483647" in reading.warning


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"\x7fELF" + bytes(100), "not a capture file .* it begins with 7f 45 4c 46"),
        (pcap([])[:20], "cut off in its file header, after 20 bytes"),
        (pcap([], link_type=RADIOTAP) + pcap_record(START_S, 0, bytes(50)), r"link type 127 \(IEEE802_11_RADIO\)"),
        (struct.pack("<IHHiIII", MICROS, 1, 0, 0, 0, 65535, 1) + bytes(50), "archaic"),
        (struct.pack("<IHHiIII", MICROS, 9, 0, 0, 0, 65535, 1) + bytes(50), "version"),
        (pcap([]) + bytes(7), "packet 1, offset 24: cut off in the middle of a record"),
    ],
)
def test_a_file_of_which_nothing_can_be_read(tmp_path: Path, data: bytes, message: str) -> None:
    path = given(tmp_path, data)
    with pytest.raises(TcptraceError, match=message) as caught:
        read_all(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TcptraceError, match=r"nothing: No such file or directory$"):
        read_all(tmp_path / "nothing")
    with pytest.raises(TcptraceError, match=r": Is a directory$"):
        read_all(tmp_path)
    assert issubclass(NotPermittedError, TcptraceError)


def test_a_capture_without_packets_is_one(tmp_path: Path) -> None:
    reading = read_all(given(tmp_path, pcap([])))
    assert reading.source.start_ns == 0
    assert reading.counted == {}
    assert reading.warning is None
