"""The source: several files, streams, frames, filters, and the end."""

import gzip
import json
import lzma
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import zstandard

from tcptrace.errors import TcptraceError, UsageError
from tcptrace.model import Totals
from tcptrace.sources.capture_file.source import CaptureSource

from .capture_bytes import (
    MICROS,
    NANOS,
    RAW_IP,
    START_S,
    Reading,
    enhanced,
    frame,
    given,
    interface,
    needs,
    numbered,
    option,
    pcap,
    pcap_record,
    read_all,
    run,
    section,
    segment,
    udp_frame,
)
from .test_parse import ipv4

S = 10**9
CAPTURES = Path(os.environ.get("TCPTRACE_CAPTURES", Path(__file__).parents[3] / "shared/captures"))
PLAIN = (
    "arkime/wireshark-retrans.pcap",
    "bro/206_example_b.pcap",
    "bro/handshake-reorder.trace",
    "bro/retransmit-fast009.trace",
    "chrissanders-packets/http_ip4and6.pcapng",
    "chrissanders-packets/tcp_dupack.pcapng",
    "chrissanders-packets/tcp_retransmissions.pcapng",
    "chrissanders-packets/tcp_zerowindowrecovery.pcapng",
    "derived/fix2.bigendian.pcap",
    "derived/fix2.cut60.pcap",
    "derived/fix2.snap68.pcap",
    "markofu-pcaps/evidence03.pcap",
    "markofu-pcaps/ftp-uploadfailed.pcap",
    "nDPI/alexa-app.pcapng",
    "nDPI/fix2.pcap",
    "nDPI/iphone.pcap",
    "scapy/dcerpc_privacy_ntlm.pcapng.gz",
    "suricata-verify/http-mime-truncated.input.pcap",
    "suricata-verify/split-handshake-4whs.pcap",
    "suricata-verify/tls-subjectaltname.input.pcap",
    "tcpdump/accecn_handshake.pcap",
)
"""Of the shared captures those with nothing but Ethernet and IP before TCP."""


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no shared captures")
@pytest.mark.parametrize("name", PLAIN)
def test_shared_captures_have_tshark_s_numbers(name: str) -> None:
    truth = json.loads((CAPTURES / "truth" / f"{name.replace('/', '__')}.json").read_text())
    reading = read_all(CAPTURES / name)
    assert reading.totals.counters["frames"] == truth["counts"]["frames"]
    assert len(reading.records) == reading.totals.counters["records"] == truth["counts"]["tcp_frames"]
    assert int(reading.records["payload_bytes"].sum()) == truth["totals"]["payload"]
    assert int(reading.records["frame_bytes"].sum()) == truth["totals"]["bytes"]
    assert (reading.warning is not None) == (truth["tshark"]["rc"] != 0)
    assert min(float(stream["start"]) for stream in truth["streams"]) * S == pytest.approx(
        reading.times_ns[0], abs=1000
    )


# --- Several files


def test_files_are_merged_by_time_and_each_keeps_its_order(tmp_path: Path) -> None:
    thirds = [given(tmp_path, pcap(numbered(10_000, first=first, step=3)), f"{first}.pcap") for first in range(3)]
    reading = read_all(*thirds, keep_frames=True)
    assert reading.seqs == list(range(30_000))
    assert reading.frames == [frame(n) for n in range(30_000)]
    assert reading.interfaces == [n % 3 for n in range(30_000)]
    assert reading.counted["frames"] == 30_000
    assert reading.source.start_ns == START_S * S
    assert reading.source.now_ns() == reading.source.complete_ns() == START_S * S + 29_999_000


@needs("mergecap")
def test_unordered_files_are_merged_as_mergecap_does(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    paths = []
    for file in range(4):
        times = np.sort(random.integers(0, 400, 500))
        times[100:120] = random.integers(0, 400, 20)
        # No two files have the same times: which comes first then is everybody's own choice.
        packets = [(START_S, 4 * int(time) + file, frame(1000 * file + n)) for n, time in enumerate(times)]
        paths.append(given(tmp_path, pcap(packets), f"{file}.pcap"))
    run("mergecap", "-F", "pcap", "-w", tmp_path / "merged.pcap", *paths)
    assert read_all(*paths).seqs == read_all(tmp_path / "merged.pcap").seqs
    assert read_all(*paths).totals.unordered == sum(read_all(path).totals.unordered for path in paths) > 0


def test_one_broken_file_does_not_end_the_others(tmp_path: Path) -> None:
    whole = pcap(numbered(100))
    paths = [given(tmp_path, data, str(n)) for n, data in enumerate([whole[:-1], whole, whole[:-200]])]
    reading = read_all(*paths)
    assert len(reading.records) == 99 + 100 + 97
    assert reading.counted["cut_off"] == 2
    assert reading.warning is not None
    lines = reading.warning.splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == [str(paths[0]), str(paths[2])]


def test_interfaces_of_several_files_are_one_list(tmp_path: Path) -> None:
    named = section() + interface(options=option(2, b"eth1")) + enhanced(START_S * 10**6, frame(1))
    paths = [given(tmp_path, pcap(numbered(1), snaplen=100), "a"), given(tmp_path, named, "b")]
    reading = read_all(*paths, keep_frames=True)
    assert [(i.name, i.snaplen) for i in reading.source.interfaces] == [(None, 100), ("eth1", 0)]
    assert reading.interfaces == [0, 1]


# --- Compression


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


COMPRESSORS = {"gzip": gzip.compress, "xz": lzma.compress, "zstd": zstd}


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("pcapng", [False, True])
def test_compressed_files_whatever_their_name(tmp_path: Path, kind: str, pcapng: bool) -> None:
    data = pcap(numbered(20_000))
    if pcapng:
        data = section() + interface() + b"".join(enhanced(START_S * 10**6 + n, frame(n)) for n in range(20_000))
    path = given(tmp_path, COMPRESSORS[kind](data), "a.txt")
    reading = read_all(path)
    assert reading.seqs == list(range(20_000))
    assert reading.warning is None
    size = path.stat().st_size
    assert reading.source.progress() == (size, size)


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_in_several_members(tmp_path: Path, kind: str) -> None:
    data = pcap(numbered(3000))
    members = [COMPRESSORS[kind](data[at : at + 50_001]) for at in range(0, len(data), 50_001)]
    assert len(members) > 3
    assert read_all(given(tmp_path, b"".join(members))).seqs == list(range(3000))


@needs("gzip", "xz", "zstd")
@pytest.mark.parametrize("program", ["gzip", "xz", "zstd"])
def test_what_the_programs_make(tmp_path: Path, program: str) -> None:
    path = given(tmp_path, pcap(numbered(5000)))
    compressed = subprocess.run([program, "-c", path], check=True, capture_output=True).stdout
    assert read_all(given(tmp_path, compressed, "b")).seqs == list(range(5000))


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_and_cut_off(tmp_path: Path, kind: str) -> None:
    random = np.random.default_rng(1)
    packets = [(START_S, n, frame(n, random.bytes(200))) for n in range(5000)]
    compressed = COMPRESSORS[kind](pcap(packets))
    path = given(tmp_path, compressed[: len(compressed) // 2])
    reading = read_all(path)
    assert 1500 < len(reading.records) < 3000
    assert reading.seqs == list(range(len(reading.records)))
    assert reading.warning is not None
    assert f"{path}: packet {len(reading.records) + 1}, offset " in reading.warning
    assert f"the {kind} data are cut off" in reading.warning


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_and_damaged(tmp_path: Path, kind: str) -> None:
    random = np.random.default_rng(1)
    packets = [(START_S, n, frame(n, random.bytes(200))) for n in range(20_000)]
    compressed = bytearray(COMPRESSORS[kind](pcap(packets)))
    compressed[-60] ^= 0xFF
    reading = read_all(given(tmp_path, bytes(compressed)))
    assert len(reading.records) > 10_000
    assert reading.warning is not None
    assert f"the {kind} data are damaged" in reading.warning


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_nonsense(tmp_path: Path, kind: str) -> None:
    compressed = COMPRESSORS[kind](b"nothing like a capture" * 3)
    with pytest.raises(TcptraceError, match="not a capture file"):
        read_all(given(tmp_path, compressed))
    with pytest.raises(TcptraceError, match=f"{kind} data are cut off"):
        read_all(given(tmp_path, compressed[:8]))
    with pytest.raises(TcptraceError, match=f"{kind} data are (damaged|cut off)"):
        read_all(given(tmp_path, compressed[:6] + b"\xff" * 40))


# --- Streams

READ_STDIN = """
import sys
from tcptrace.sources.capture_file.source import CaptureSource
source = CaptureSource(["-"], None, keep_frames=False)
print(source.progress()[1], flush=True)
seqs = []
while not source.finished:
    for seq in source.read(0.02)["seq"]:
        print(seq, flush=True)
print(source.check(), flush=True)
"""


@pytest.mark.parametrize("magic", [MICROS, NANOS])
@pytest.mark.parametrize("pcapng", [False, True])
def test_a_slow_stream_is_read_as_it_comes(magic: int, pcapng: bool) -> None:
    """Each packet is answered before the next one is sent."""
    with subprocess.Popen([sys.executable, "-c", READ_STDIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write(section() + interface() if pcapng else pcap([], magic=magic))
        for number in range(5):
            packet = enhanced(number, frame(number)) if pcapng else pcap_record(START_S, number, frame(number))
            reader.stdin.write(packet)
            reader.stdin.flush()
            if number == 0:
                assert reader.stdout.readline() == b"None\n"
            assert reader.stdout.readline() == b"%d\n" % number
        reader.stdin.close()
        assert reader.stdout.readline() == b"None\n"
        assert reader.wait(30) == 0


def test_standard_input_from_a_file_has_a_size(tmp_path: Path) -> None:
    path = given(tmp_path, pcap(numbered(5)))
    with path.open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-c", READ_STDIN], stdin=stdin, capture_output=True, text=True, timeout=60
        )
    assert done.stdout.split() == [str(path.stat().st_size), *"01234", "None"]


def test_standard_input_can_be_read_once() -> None:
    with pytest.raises(UsageError, match="only once"):
        CaptureSource(["-", "-"], None, keep_frames=False)


def test_a_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(gzip.compress(pcap(numbered(9000))),))
    writer.start()
    reading = read_all(path)
    writer.join()
    assert reading.seqs == list(range(9000))
    assert reading.source.progress()[1] is None


# --- Frames, time, the end


def test_large_frames_are_kept_whole(tmp_path: Path) -> None:
    whole = [frame(n, bytes([n]) * 60_000) for n in range(200)]
    reading = read_all(given(tmp_path, pcap([(START_S, n, data) for n, data in enumerate(whole)])), keep_frames=True)
    assert reading.frames == whole


def test_time_goes_on_with_frames_that_are_no_tcp(tmp_path: Path) -> None:
    packets = [(START_S, 1, udp_frame()), *numbered(3, first=5), (START_S + 9, 0, udp_frame())]
    reading = read_all(given(tmp_path, pcap(packets)))
    assert reading.source.start_ns == START_S * S + 1000
    assert reading.source.now_ns() == (START_S + 9) * S


def test_nothing_comes_after_stop(tmp_path: Path) -> None:
    source = CaptureSource([str(given(tmp_path, pcap(numbered(50_000))))], None, keep_frames=False)
    first = len(source.read(5))
    assert 0 < first <= 8192
    source.stop()
    assert source.finished
    assert len(source.read(0)) == 0
    totals = Totals()
    source.fill_totals(totals)
    assert first <= totals.counters["frames"] < 20_000
    assert source.cpu_ns() > 0


# --- Filters


def test_a_bad_filter_is_a_usage_error(tmp_path: Path) -> None:
    path = given(tmp_path, pcap(numbered(1)))
    for expression in ("port", "vlan and port"):
        with pytest.raises(UsageError, match=r"^filter: "):
            read_all(path, expression=expression)
    raw = given(tmp_path, pcap([(START_S, 0, ipv4(segment(1)))], link_type=RAW_IP), "raw")
    with pytest.raises(UsageError, match=r"^filter: .*(vlan|VLAN)"):
        read_all(raw, expression="vlan")


def filtered(folder: Path, expression: str) -> Reading:
    tags = [(), ((0x8100, 5),), ((0x88A8, 7), (0x8100, 5))]
    packets = [(START_S, n, frame(n, b"x" * (n % 7), tags[n % 3])) for n in range(60)]
    packets += [(START_S, 60 + n, udp_frame()) for n in range(7)]
    return read_all(given(folder, pcap(packets)), expression=expression)


@pytest.mark.parametrize(
    ("expression", "tcp", "not_tcp"),
    [
        ("tcp port 443", 60, 0),
        ("tcp port 444", 0, 0),
        ("port 53", 0, 7),
        ("ether src 02:00:00:00:00:01 or ip", 60, 7),
        ("tcp[4:4] < 30", 30, 0),
        ("vlan", 40, 0),
        ("vlan 5", 20, 0),
        ("vlan 7 and vlan 5", 20, 0),
        ("not vlan", 20, 7),
        ("len > 60", 30, 0),
        ("  ", 60, 7),
    ],
)
def test_filters_see_frames_without_tags_unless_they_speak_of_them(
    tmp_path: Path, expression: str, tcp: int, not_tcp: int
) -> None:
    if expression == "len > 60":  # 54 bytes, 4 for each tag and the payload
        tcp = sum(54 + 4 * (n % 3) + n % 7 > 60 for n in range(60))
    reading = filtered(tmp_path, expression)
    assert len(reading.records) == tcp
    assert reading.totals.counters["not_tcp"] == not_tcp
    assert reading.totals.counters["filtered"] == 67 - tcp - not_tcp
    assert reading.totals.counters["frames"] == 67


@needs("tcpdump")
@pytest.mark.parametrize("expression", ["vlan 5", "vlan and tcp", "vlan and vlan and port 443"])
def test_filters_that_speak_of_tags_match_as_tcpdump_s(tmp_path: Path, expression: str) -> None:
    reading = filtered(tmp_path, expression)
    lines = run("tcpdump", "-nr", tmp_path / "a.pcap", f"({expression}) and (tcp or vlan)").splitlines()
    assert len(reading.records) == len(lines) > 0


@needs("tcpdump")
@pytest.mark.parametrize(
    "expression", ["tcp[tcpflags] & tcp-syn != 0", "portrange 0-1024 and greater 500", "dst port 80"]
)
@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no shared captures")
def test_untagged_captures_are_filtered_as_by_tcpdump(expression: str) -> None:
    path = CAPTURES / "markofu-pcaps/evidence03.pcap"
    reading = read_all(path, expression=expression)
    assert len(reading.records) == len(run("tcpdump", "-nr", path, f"tcp and ({expression})").splitlines()) > 0


def test_raw_ip_is_filtered_as_if_it_had_an_ethernet_header(tmp_path: Path) -> None:
    path = given(tmp_path, pcap([(START_S, n, ipv4(segment(n))) for n in range(9)], link_type=RAW_IP))
    assert read_all(path, expression="tcp[4:4] > 5 and port 443").seqs == [6, 7, 8]
    assert read_all(path, expression="ether src 00:00:00:00:00:00").seqs == list(range(9))


# --- Nothing is left open


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", gzip.compress(b"nonsense"), gzip.compress(b"")[:9], pcap([]) + b"\0"]
)
def test_a_file_that_is_refused_is_closed(tmp_path: Path, data: bytes) -> None:
    path = given(tmp_path, data)
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        with pytest.raises(TcptraceError):
            read_all(path)
    with pytest.raises(UsageError):
        read_all(given(tmp_path, pcap([], link_type=RAW_IP)), expression="vlan")
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1
