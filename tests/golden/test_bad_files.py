"""Files that are no captures, or damaged ones: what is said of them, and that what came before the damage counts.

How many packets that is, capinfos says too; what is read of odd packets, tshark.
"""

import gzip
import lzma
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard
from made import (
    MS,
    RADIOTAP,
    START_NS,
    WIFI,
    Frame,
    Talk,
    block,
    interface,
    packet,
    pcap,
    pcap_head,
    pcap_record,
    pcapng,
    section,
)
from running import COMMAND, Run, all_at_once, tcptrace

TALK = Talk().whole()
"""Ten packets.  In the first five 100 bytes are asked and acknowledged; the sixth answers with 1000."""
PCAP, PCAPNG = pcap(TALK), pcapng(TALK)
FIVE, FIVE_NG = pcap(TALK[:5]), pcapng(TALK[:5])
REST, REST_NG = b"".join(map(pcap_record, TALK[6:])), b"".join(map(packet, TALK[6:]))
SIXTH_BODY = packet(TALK[5])[8:-4]
Y2500_US = 16_725_225_600 * 10**6
CRC_OF_NOTHING = bytes(4)

NO_CAPTURE = "not a capture file (pcap or pcapng, as they are or in gzip, zstd or xz): it begins with"


def lz(data: bytes) -> bytes:
    return lzma.compress(data)


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def gz(data: bytes) -> bytes:
    """In stored blocks, so that what is left of a cut off file does not depend on the library."""
    return gzip.compress(data, compresslevel=0, mtime=0)


# --- Nothing can be read: one line, exit code 1.

UNREADABLE = {
    "text": (b"It was a dark and stormy night.\n", f"{NO_CAPTURE} 49 74 20 77"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), f"{NO_CAPTURE} 89 50 4e 47"),
    "elf": (b"\x7fELF\x02\x01\x01" + bytes(50), f"{NO_CAPTURE} 7f 45 4c 46"),
    "one byte": (b"\xd4", f"{NO_CAPTURE} d4"),
    "empty": (b"", "the file is empty"),
    "pcap file header cut off": (PCAP[:20], "cut off in its file header, after 20 bytes"),
    "pcapng file header cut off": (PCAPNG[:26], "packet 1, offset 0: cut off in the middle of a block"),
    "first record cut off": (PCAP[:50], "packet 1, offset 24: cut off in the middle of a record"),
    "first record too long": (
        pcap_head() + pcap_record(TALK[0], captured=0x7FFFFFFF) + REST,
        "packet 1, offset 24: invalid packet capture length 2147483647, bigger than snaplen of 262144",
    ),
    "pcap version": (PCAP[:4] + b"\x09\0" + PCAP[6:], "unsupported pcap savefile version 9.4"),
    "pcapng version": (
        section(major=2) + interface() + REST_NG,
        "packet 1, offset 0: version 2 of the format is not known",
    ),
    "pcapng byte order": (
        PCAPNG[:8] + b"\1\2\3\4" + PCAPNG[12:],
        "packet 1, offset 0: a section header with an unknown byte order",
    ),
    "pcapng without interfaces": (
        section() + REST_NG,
        "packet 1, offset 28: a packet of an interface 0 that was not described",
    ),
    "unknown link type": (pcap(TALK, 4242), "link type 4242 is not supported"),
    "802.11": (pcap(TALK, WIFI), "link type 105 (IEEE802_11) is not supported"),
    "radiotap": (pcapng(TALK, [interface(RADIOTAP)]), "link type 127 (IEEE802_11_RADIO) is not supported"),
    "gzip cut off in its header": (gz(PCAP)[:8], "the gzip data are cut off"),
    "gzip of nothing": (gz(b""), "the file is empty"),
    "gzip of text": (gz(b"hello, world\n"), f"{NO_CAPTURE} 68 65 6c 6c"),
    "gzip of gzip": (gz(gz(PCAP)), f"{NO_CAPTURE} 1f 8b 08 00"),
    "zstd cut off in its only block": (zst(PCAP)[:60], "the zstd data are cut off"),
    "xz damaged": (lz(PCAP)[:30] + b"\xff" * 40, "the xz data are damaged (Corrupt input data)"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_one_line_and_exit_code_1(name: str, runs: Mapping[str, Run]) -> None:
    run, reason = runs[name], UNREADABLE[name][1]
    assert (run.code, run.out, run.err) == (1, "", f"tcptrace: {name}: {reason}\n")


# --- Damaged further on: a warning, and what came before it.

CUT_RECORD = "packet 6, offset 482: cut off in the middle of a record"
SECOND_GZIP = gz(b"x")[:10]

DAMAGED = {
    "record header cut off": (FIVE + REST[:7], 5, CUT_RECORD),
    "record data cut off": (FIVE + pcap_record(TALK[5])[:60], 5, CUT_RECORD),
    "pcapng block head cut off": (FIVE_NG + REST_NG[:5], 5, "packet 6, offset 608: cut off in the middle of a block"),
    "pcapng block cut off": (PCAPNG[:-5], 9, "packet 10, offset 1960: cut off in the middle of a block"),
    "other length at the block's end": (
        FIVE_NG + block(6, SIXTH_BODY, trailer=8) + REST_NG,
        5,
        "packet 6, offset 608: a block with two lengths, 8 at its end",
    ),
    "block length no multiple of four": (
        FIVE_NG + block(6, SIXTH_BODY, length=1087) + REST_NG,
        5,
        "packet 6, offset 608: a block of 1087 bytes, which cannot be",
    ),
    "huge block": (
        FIVE_NG + block(6, SIXTH_BODY, length=0xFFFFFFF0) + REST_NG,
        5,
        "packet 6, offset 608: a block of 4294967280 bytes, which cannot be",
    ),
    "block without length": (
        FIVE_NG + block(6, b"", length=0) + REST_NG,
        5,
        "packet 6, offset 608: a block of 0 bytes, which cannot be",
    ),
    "more captured than its block holds": (
        FIVE_NG + packet(TALK[5], captured=1057) + REST_NG,
        5,
        "packet 6, offset 608: a frame of 1057 bytes, which its block does not hold",
    ),
    "captured more than 256 MiB": (
        FIVE + pcap_record(TALK[5], captured=300 << 20) + REST,
        5,
        "packet 6, offset 482: invalid packet capture length 314572800, bigger than snaplen of 262144",
    ),
    "captured a negative length": (
        FIVE + pcap_record(TALK[5], captured=0xFFFFFFFF) + REST,
        5,
        "packet 6, offset 482: invalid packet capture length 4294967295, bigger than snaplen of 262144",
    ),
    "interface that was not described": (
        FIVE_NG + packet(Frame(START_NS, TALK[5].data, interface=1)) + REST_NG,
        5,
        "packet 6, offset 608: a packet of an interface 1 that was not described",
    ),
    "next section of an unknown version": (
        PCAPNG + section(major=2) + interface() + REST_NG,
        10,
        "packet 11, offset 2048: version 2 of the format is not known",
    ),
    "gzip cut off": (gz(PCAP)[: 15 + 498], 5, "packet 6, offset 482: the gzip data are cut off"),
    "gzip without its checksum": (gz(PCAP)[:-8], 10, "packet 11, offset 1832: the gzip data are cut off"),
    "gzip with another checksum": (
        gz(PCAP)[:-8] + CRC_OF_NOTHING + gz(PCAP)[-4:],
        10,
        f"packet 11, offset 1832: the gzip data are damaged (CRC check failed 0x0 != {zlib.crc32(PCAP):#x})",
    ),
    "gzip damaged": (
        gz(PCAP[:498]) + SECOND_GZIP + b"\xff" * 20,
        5,
        "packet 6, offset 482: the gzip data are damaged (Error -3 while decompressing data: invalid block type)",
    ),
    "garbage after gzip": (
        gz(PCAP) + b"garbage",
        10,
        "packet 11, offset 1832: the gzip data are damaged (Not a gzipped file (b'ga'))",
    ),
    "zstd cut off": (zst(PCAP[:498]) + zst(PCAP[498:])[:60], 5, "packet 6, offset 482: the zstd data are cut off"),
    "garbage after zstd": (
        zst(PCAP) + b"garbage",
        10,
        "packet 11, offset 1832: the zstd data are damaged (zstd decompressor error: Unknown frame descriptor)",
    ),
    "xz cut off": (lz(PCAP[:498]) + lz(PCAP[498:])[:14], 5, "packet 6, offset 482: the xz data are cut off"),
    "garbage after xz": (
        lz(PCAP) + b"garbage",
        10,
        "packet 11, offset 1832: the xz data are damaged (Input format not supported by decoder)",
    ),
}
BYTES_AFTER = {5: (100, 0), 9: (100, 1000), 10: (100, 1000)}
"""Payload of the client and of the server in so many packets."""


@pytest.mark.parametrize("name", DAMAGED)
def test_what_came_before_the_damage_is_analysed(name: str, runs: Mapping[str, Run], folder: Path) -> None:
    _, packets, reason = DAMAGED[name]
    run = runs[name]
    assert run.err == f"tcptrace: warning: {name}: {reason}; what came before is analysed\n"
    assert run.code == 0
    assert [run.summary[key] for key in ("packets", "frames", "cut_off")] == [packets, packets, 1]
    assert payloads(run) == BYTES_AFTER[packets]
    if capinfos_reads(name):
        assert frames_before_damage(folder / name) == packets


def test_the_table_of_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "x.pcap").write_bytes(PCAP[:500])
    run = tcptrace("-f", "x.pcap", folder=tmp_path)
    assert run.err == f"tcptrace: warning: x.pcap: {CUT_RECORD}; what came before is analysed\n"
    assert (
        run.out
        == """\
tcptrace  x.pcap                                                         40.0 ms

 # source             destination        state      → B/s ← B/s     RTT  retr
 1 192.0.2.1:40000    198.51.100.2:30080 ESTAB       6.7k  2.8k 10.0 ms     0

5 packets   378 B   125 packets/s   9.4 kB/s
1 connection   ESTABLISHED 1
cut off 1   malformed 0   fragments 0   evicted 0   unsupported link 0
"""
    )


def payloads(run: Run) -> tuple[int, int]:
    (connection,) = run.connections
    return connection["sent_payload_bytes"], connection["received_payload_bytes"]


def capinfos_reads(name: str) -> bool:
    """It knows no xz, and rounds a length that is no multiple of four up."""
    return shutil.which("capinfos") is not None and "xz" not in name and "multiple of four" not in name


def frames_before_damage(path: Path) -> int:
    """By capinfos."""
    done = subprocess.run(["capinfos", "-c", "-M", str(path)], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"after reading (\d+) packets", done.stderr) or re.search(r"packets: +(\d+)", done.stdout)
    assert found is not None, done.stderr
    return int(found[1])


# --- No file at all.


def test_what_is_no_file_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, reason in (("folder", "Is a directory"), ("nothing", "No such file or directory")):
        run = tcptrace("-f", name, folder=tmp_path)
        assert (run.code, run.out, run.err) == (1, "", f"tcptrace: {name}: {reason}\n")


def test_what_may_not_be_read_is_one_line_and_exit_code_3(open_folder: Path, nobody: Mapping[str, Any]) -> None:
    path = open_folder / "x.pcap"
    path.write_bytes(PCAP)
    path.chmod(0)
    run = tcptrace("-f", path, **nobody)
    assert (run.code, run.out, run.err) == (3, "", f"tcptrace: {path}: Permission denied\n")


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "the file is empty"), (PCAP[:9], "cut off in its file header, after 9 bytes")]
)
def test_standard_input_without_a_capture(data: bytes, reason: str) -> None:
    run = tcptrace("-f", "-", stdin=data)
    assert (run.code, run.out, run.err) == (1, "", f"tcptrace: standard input: {reason}\n")


def test_standard_input_that_is_closed(tmp_path: Path) -> None:
    (tmp_path / "x.pcap").write_bytes(PCAP)
    command = ["sh", "-c", 'exec "$0" "$@" <&-', COMMAND, "-f", tmp_path / "x.pcap", "-f", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "tcptrace: standard input is closed\n")


def test_damaged_standard_input() -> None:
    run = tcptrace("-f", "-", "--json", stdin=PCAP[:500])
    assert run.err == f"tcptrace: warning: standard input: {CUT_RECORD}; what came before is analysed\n"
    assert (run.code, run.summary["packets"], run.summary["files"]) == (0, 5, ["-"])


# --- Several files.


def test_one_damaged_file_does_not_end_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(PCAP[:500])
    (tmp_path / "good").write_bytes(pcap(Talk(ports=(40001, 30080)).whole()))
    run = tcptrace("-f", "bad", "-f", "good", "--json", folder=tmp_path)
    assert run.err == f"tcptrace: warning: bad: {CUT_RECORD}; what came before is analysed\n"
    assert (run.code, run.summary["packets"], run.summary["cut_off"]) == (0, 15, 1)
    assert sorted((c["src_port"], c["sent_packets"] + c["received_packets"]) for c in run.connections) == [
        (40000, 5),
        (40001, 10),
    ]


@pytest.mark.parametrize(("data", "reason"), [(b"", "the file is empty"), (b"text", f"{NO_CAPTURE} 74 65 78 74")])
def test_a_file_that_cannot_be_read_at_all_is_refused_beside_good_ones(
    data: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "good").write_bytes(PCAP)
    (tmp_path / "bad").write_bytes(data)
    run = tcptrace("-f", "good", "-f", "bad", "--json", folder=tmp_path)
    assert (run.code, run.out, run.err) == (1, "", f"tcptrace: bad: {reason}\n")


# --- Whole files with odd packets: counted for what they are, exit code 0.


@dataclass(frozen=True)
class Odd:
    """A file, how many TCP packets are in it, the counters that are not 0, and the warning."""

    data: bytes
    packets: int
    counted: dict[str, int]
    said: str = ""


def lying(total_bytes: int) -> bytes:
    """The sixth packet's IP header says another length."""
    data = TALK[5].data
    frame = Frame(TALK[5].time_ns, data[:16] + struct.pack("!H", total_bytes) + data[18:])
    return pcap([*TALK[:5], frame, *TALK[6:]])


def at_times(times: list[tuple[int, int]]) -> bytes:
    """Seconds and nanoseconds as they stand in the records."""
    records = [
        struct.pack("<IIII", *time, len(f.data), f.original) + f.data for time, f in zip(times, TALK, strict=True)
    ]
    return pcap_head() + b"".join(records)


def with_units(units: list[int], *, resolution: int = 9, offset_s: int = 0) -> bytes:
    blocks = [packet(frame, units=value) for frame, value in zip(TALK, units, strict=True)]
    return section() + interface(resolution=resolution, offset_s=offset_s) + b"".join(blocks)


TIMES = [frame.time_ns for frame in TALK]
WIFI_FRAME = Frame(START_NS, b"\x08\0" + bytes(30), interface=1)
TWO_LINKS = section() + interface(name="eth0") + interface(WIFI, name="wlan0")

ODD = {
    "no packets": Odd(pcap([]), 0, {}),
    "pcapng without packets": Odd(section(), 0, {}),
    "captured more than there was": Odd(
        FIVE + pcap_record(Frame(TALK[5].time_ns, TALK[5].data, 60)) + REST, 10, {"frames": 10}
    ),
    "captured more than the snap length": Odd(pcap(TALK, snaplen=96), 10, {"frames": 10}),
    "Ethernet and 802.11": Odd(
        TWO_LINKS + packet(WIFI_FRAME) * 3 + b"".join(map(packet, TALK)),
        10,
        {"frames": 13, "unsupported_link": 3},
        "3 frames are not analysed: link type 105 (IEEE802_11) is not supported",
    ),
    "4000000000 nanoseconds": Odd(
        at_times([divmod(time, 10**9) if i != 5 else (1_700_000_000, 4_000_000_000) for i, time in enumerate(TIMES)]),
        10,
        {"frames": 10, "time_out_of_range": 1, "unordered": 1},
    ),
    "the year 2500": Odd(
        with_units([Y2500_US + i for i in range(10)], resolution=6), 10, {"frames": 10, "time_out_of_range": 10}
    ),
    "if_tsresol 255": Odd(with_units(TIMES, resolution=255), 10, {"frames": 10}),
    "if_tsresol 127": Odd(with_units(TIMES, resolution=127), 10, {"frames": 10}),
    "if_tsoffset as low as can be": Odd(
        with_units(TIMES, offset_s=-(2**63)), 10, {"frames": 10, "time_out_of_range": 10}
    ),
    "if_tsoffset as high as can be": Odd(
        with_units(TIMES, offset_s=2**63 - 1), 10, {"frames": 10, "time_out_of_range": 10}
    ),
    "no times": Odd(
        section()
        + interface()
        + b"".join(block(3, struct.pack("<I", f.original) + f.data + bytes(-f.original % 4)) for f in TALK),
        10,
        {"frames": 10, "without_time": 10},
    ),
    "snapped to 20 bytes": Odd(pcap([f.snapped(20) for f in TALK], snaplen=20), 0, {"frames": 10, "snapped": 10}),
    "snapped to 40 bytes": Odd(pcap([f.snapped(40) for f in TALK], snaplen=40), 0, {"frames": 10, "snapped": 10}),
    "snapped to 54 bytes": Odd(pcap([f.snapped(54) for f in TALK], snaplen=54), 10, {"frames": 10}),
    "IP length longer than the frame": Odd(lying(60_000), 10, {"frames": 10}),
    "IP length shorter than the frame": Odd(lying(45), 10, {"frames": 10}),
    "IP length 0": Odd(lying(0), 10, {"frames": 10}),
    "IP length shorter than its header": Odd(lying(10), 9, {"frames": 10, "malformed_ipv4": 1}),
    "zeros after gzip": Odd(gz(PCAP) + bytes(100), 10, {"frames": 10}),
}
COUNTERS = ("frames", "not_tcp", "fragments", "malformed_link", "malformed_ipv4", "malformed_tcp", "snapped", "cut_off",
            "unsupported_link", "time_out_of_range", "without_time", "unordered")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All these files, each under its name here."""
    made: Path = tmp_path_factory.mktemp("bad")
    for name, (data, *_) in (UNREADABLE | DAMAGED).items():
        (made / name).write_bytes(data)
    for name, odd in ODD.items():
        (made / name).write_bytes(odd.data)
    return made


@pytest.fixture(scope="module")
def runs(folder: Path) -> Mapping[str, Run]:
    """What the command makes of each."""
    return all_at_once({p.name: partial(tcptrace, "-f", p.name, "--json", folder=folder) for p in folder.iterdir()})


@pytest.mark.parametrize("name", ODD)
def test_odd_packets_are_counted_for_what_they_are(name: str, runs: Mapping[str, Run], folder: Path) -> None:
    odd, run = ODD[name], runs[name]
    assert run.err == (f"tcptrace: warning: {name}: {odd.said}\n" if odd.said else "")
    assert (run.code, run.summary["packets"]) == (0, odd.packets)
    assert {counter: run.summary[counter] for counter in COUNTERS if run.summary[counter]} == odd.counted
    assert run.summary["duration_s"] >= 0
    if odd.packets == 10 and "IP" not in name:
        assert payloads(run) == (100, 1000)
    elif shutil.which("tshark"):
        by_port = tshark_payloads(folder / name)
        assert by_port == (dict(zip((40000, 30080), payloads(run), strict=True)) if odd.packets else {})


def tshark_payloads(path: Path) -> dict[int, int]:
    """Bytes of payload by source port; of frames that are TCP with a whole header."""
    fields = [part for name in ("tcp.srcport", "tcp.len") for part in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), "-Y", "tcp.len", "-T", "fields", *fields]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    sums: dict[int, int] = {}
    for line in done.stdout.splitlines():
        port, length = map(int, line.split("\t"))
        sums[port] = sums.get(port, 0) + length
    return sums


def test_a_capture_that_runs_backwards(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pcap(TALK[::-1]))
    run = tcptrace("-f", "x", "--json", folder=tmp_path)
    assert (run.code, run.err) == (0, "")
    assert (run.summary["packets"], run.summary["unordered"], run.summary["duration_s"]) == (10, 9, 0)
    assert [c["duration_s"] for c in run.connections] == [0, 0]
    assert {c["sent_rtt_count"] + c["received_rtt_count"] for c in run.connections} == {0}


def test_one_packet_an_hour_early(tmp_path: Path) -> None:
    early = Frame(TALK[5].time_ns - 3_600_000 * MS, TALK[5].data)
    (tmp_path / "x").write_bytes(pcap([*TALK[:5], early, *TALK[6:]]))
    run = tcptrace("-f", "x", "--json", folder=tmp_path)
    assert (run.code, run.err) == (0, "")
    assert (run.summary["packets"], run.summary["unordered"], run.summary["duration_s"]) == (10, 1, 0.09)
    assert payloads(run) == (100, 1000)


# --- A little that becomes very much.


def bomb(compress: Callable[[bytes], bytes]) -> bytes:
    """A GiB of zeros in 64 blocks of no known kind, as large as blocks may be; then ten packets."""
    zeros = compress(block(0xBAD, bytes((16 << 20) - 12)))
    return compress(section() + interface()) + zeros * 64 + compress(b"".join(map(packet, TALK)))


def test_a_gigabyte_of_zeros_passes_through_bounded_memory(tmp_path: Path) -> None:
    for name, compress in (("gzip", gzip.compress), ("zstd", zst)):
        (tmp_path / name).write_bytes(bomb(compress))
        assert (tmp_path / name).stat().st_size < 2 << 20
    runs = all_at_once({name: partial(tcptrace, "-f", tmp_path / name, "--json") for name in ("gzip", "zstd")})
    for run in runs.values():
        assert (run.code, run.err) == (0, "")
        assert (run.summary["packets"], run.summary["frames"]) == (10, 10)
        assert payloads(run) == (100, 1000)
