"""Capture files on the disk: several of them, full disks, pipes, and what must not be written to."""

import errno
import os
import resource
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcptrace.errors import TcptraceError, UsageError
from tcptrace.records import CaptureInterface
from tcptrace.sinks.capture_writer import CaptureWriter

from .capture_writing import (
    ETH0,
    ETHERNET,
    START_NS,
    HandView,
    Packet,
    batch_of,
    capinfos,
    decode,
    decode_pcap,
    file_info,
    live_info,
    needs_tshark,
    packet_count,
    tshark,
    uncompressed,
    write,
)

KINDS = ("x.pcapng", "x.pcap", "x.pcapng.gz", "x.pcap.gz", "x.pcapng.zst", "x.pcap.zst")
SECOND = 10**9
REAL_WRITE = os.write
NO_SPACE = os.strerror(errno.ENOSPC)


def noise(length: int, seed: int) -> bytes:
    """What no compression makes shorter."""
    state, out = seed * 2_654_435_761 % 2**32 or 1, bytearray()
    while len(out) < length:
        state ^= state << 13 & 0xFFFF_FFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFF_FFFF
        out += state.to_bytes(4, "little")
    return bytes(out[:length])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def skip_without_zstandard(name: str) -> None:
    if name.endswith("zst"):
        pytest.importorskip("zstandard")


# --- Rotation.


@needs_tshark
@pytest.mark.parametrize("name", KINDS)
def test_files_of_limited_size(tmp_path: Path, name: str) -> None:
    skip_without_zstandard(name)
    limit = 50_000
    packets = [Packet(noise(100 + n % 50, n), START_NS + n) for n in range(2_000)]
    write(tmp_path / name, packets[:700], packets[700:], rotate_bytes=limit)
    files = [tmp_path / file for file in names(tmp_path)]
    assert [file.name.split(".")[0] for file in files] == [f"x-{n + 1:05}" for n in range(len(files))]
    assert len(files) >= 5
    assert all(file.stat().st_size <= limit for file in files)
    assert all(file.stat().st_size > limit * 0.8 for file in files[:-1])
    if name in ("x.pcap", "x.pcapng"):  # not a packet more would have fitted
        assert all(file.stat().st_size > limit - 300 for file in files[:-1])
    rows = [row for file in files for row in tshark(file, "frame.time_epoch", "frame.len")]
    assert rows == [[f"1700000000.{123_456_789 + n}", str(100 + n % 50)] for n in range(2_000)]
    assert sum(int(capinfos(file)["Number of packets"]) for file in files) == 2_000


def test_a_file_has_a_packet_however_small_it_should_be(tmp_path: Path) -> None:
    write(tmp_path / "x.pcapng", [Packet()] * 3, rotate_bytes=1)
    assert [len(decode(path.read_bytes()).packets) for path in tmp_path.iterdir()] == [1, 1, 1]


def test_the_next_file_begins_at_multiples_from_the_first_packet(tmp_path: Path) -> None:
    seconds = [0.0, 0.5, 0.999999999, 1.0, 1.9, 5.5, 5.9, 6.0, 5.99]
    packets = [Packet(time_ns=START_NS + round(s * SECOND)) for s in seconds]
    write(tmp_path / "x.pcap", packets[:3], packets[3:6], packets[6:], rotate_s=1.0)
    assert names(tmp_path) == ["x-00001.pcap", "x-00002.pcap", "x-00003.pcap", "x-00004.pcap"]
    times = [decode_pcap((tmp_path / name).read_bytes())[2] for name in names(tmp_path)]
    assert [[round((t - START_NS) / SECOND, 9) for t, *_ in packets] for packets in times] == [
        [0.0, 0.5, 0.999999999],
        [1.0, 1.9],
        [5.5, 5.9],
        [6.0, 5.99],
    ]


def test_only_the_newest_files_stay(tmp_path: Path) -> None:
    packets = [Packet(time_ns=START_NS + n * SECOND) for n in range(10)]
    (tmp_path / "x-00099.pcapng").write_text("of another trace")
    write(tmp_path / "x.pcapng", packets, rotate_s=1.0, rotate_files=3)
    assert names(tmp_path) == ["x-00008.pcapng", "x-00009.pcapng", "x-00010.pcapng", "x-00099.pcapng"]


def test_a_file_that_is_gone_already_does_not_stop_the_ring(tmp_path: Path) -> None:
    writer = CaptureWriter(str(tmp_path / "x.pcapng"), rotate_s=1.0, rotate_files=1)
    writer.open(live_info())
    for number in range(3):
        writer.packets(batch_of([Packet(time_ns=START_NS + number * SECOND)]))
        (tmp_path / f"x-{number + 1:05}.pcapng").unlink()
    writer.close(HandView())
    assert names(tmp_path) == []


def test_each_file_is_complete_and_their_statistics_add_up(tmp_path: Path) -> None:
    writer = CaptureWriter(str(tmp_path / "x.pcapng"), rotate_s=10.0)
    writer.open(live_info(filter="tcp"))

    def trace(second: float, frames: int, lost: int, packets: int) -> None:
        writer.packets(batch_of([Packet(time_ns=START_NS + round(second * SECOND))] * packets))
        writer.update(HandView({"frames": frames, "filtered": frames // 10, "records_lost": lost}))

    trace(0, 100, 1, 10)
    trace(9, 200, 1, 20)
    trace(12, 400, 5, 30)
    writer.packets(batch_of([Packet(time_ns=START_NS + 25 * SECOND)] * 5))
    writer.packets(batch_of([Packet(time_ns=START_NS + 33 * SECOND)] * 6))
    writer.close(HandView({"frames": 1000, "filtered": 100, "records_lost": 5}, time_ns=START_NS + 39 * SECOND))

    sections = [decode((tmp_path / name).read_bytes()) for name in names(tmp_path)]
    assert [len(section.packets) for section in sections] == [30, 30, 5, 6]
    counted = []
    for section in sections:
        assert section.interfaces[0][2][11] == [b"\0tcp"]
        (_, time_ns, options), *others = section.statistics
        assert not others
        values = {code: struct.unpack("<Q", options[code][0])[0] for code in options if code in (4, 6, 7, 8)}
        start, end = (struct.unpack("<II", options[code][0]) for code in (2, 3))
        span = [(high << 32 | low) - START_NS for high, low in (start, end)]
        counted.append((values, *span, time_ns - START_NS))
    assert counted == [
        ({4: 200, 6: 180, 7: 1, 8: 30}, -(10**6), 9 * SECOND, 9 * SECOND),
        ({4: 200, 6: 180, 7: 4, 8: 30}, 12 * SECOND, 12 * SECOND, 12 * SECOND),
        ({8: 5}, 25 * SECOND, 25 * SECOND, 25 * SECOND),  # nobody said anything while it was written
        ({4: 600, 6: 540, 7: 0, 8: 6}, 33 * SECOND, 39 * SECOND, 39 * SECOND),
    ]


def test_the_next_pcap_file_has_the_same_link_type(tmp_path: Path) -> None:
    interfaces = [ETH0, CaptureInterface("tun0", None, 101, 0)]
    writer = CaptureWriter(str(tmp_path / "x.pcap"), rotate_s=1.0)
    writer.open(file_info([], interfaces))
    writer.packets(batch_of([Packet(interface=1), Packet(interface=1, time_ns=START_NS + SECOND)]))
    with pytest.raises(UsageError, match="link types 101 and 1,"):
        writer.packets(batch_of([Packet(interface=0, time_ns=START_NS + 2 * SECOND)]))
    assert [decode_pcap(path.read_bytes())[1] for path in tmp_path.iterdir()] == [101, 101]


def test_files_are_opened_and_removed_by_number_where_somebody_else_does_it(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def open_file(number: int) -> int:
        asked.append(("open", number))
        return os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT)

    writer = CaptureWriter(
        "elsewhere/x.pcapng",
        rotate_s=1.0,
        rotate_files=2,
        open_file=open_file,
        remove_file=lambda number: asked.append(("remove", number)),
    )
    writer.open(live_info())
    writer.packets(batch_of([Packet(time_ns=START_NS + n * SECOND) for n in range(3)]))
    writer.close(HandView())
    assert asked == [("open", 1), ("open", 2), ("remove", 1), ("open", 3)]
    assert [len(decode((tmp_path / name).read_bytes()).packets) for name in "123"] == [1, 1, 1]


def test_a_next_file_that_cannot_be_opened_leaves_those_before_it_complete(tmp_path: Path) -> None:
    (tmp_path / "x-00002.pcapng").mkdir()
    writer = CaptureWriter(str(tmp_path / "x.pcapng"), rotate_s=1.0)
    writer.open(live_info())
    batch = batch_of([Packet(), Packet(time_ns=START_NS + SECOND)])
    with pytest.raises(TcptraceError, match=r"x-00002\.pcapng: Is a directory$"):
        writer.packets(batch)
    writer.packets(batch)
    writer.close(HandView())
    section = decode((tmp_path / "x-00001.pcapng").read_bytes())
    assert (len(section.packets), len(section.statistics)) == (1, 1)


# --- Disks that are full.


class SmallDisk:
    """os.write() to a disk with room for so many bytes; what is cut off a file can be used again."""

    def __init__(self, room_bytes: int) -> None:
        self.room_bytes = room_bytes

    def write(self, fd: int, data: memoryview) -> int:
        left = self.room_bytes - os.fstat(fd).st_size
        if left <= 0 and len(data):
            raise OSError(errno.ENOSPC, NO_SPACE)
        return REAL_WRITE(fd, data[:left])


@pytest.mark.parametrize("name", KINDS)
def test_whatever_fits_the_disk_is_a_file_of_whole_packets(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after every single number of bytes; each update writes a piece."""
    skip_without_zstandard(name)
    path = tmp_path / name
    batches = [batch_of([Packet(noise(10 + 3 * n, n + 1)) for n in range(first, first + 3)]) for first in (0, 3, 6)]

    def trace() -> str | None:
        writer, said = CaptureWriter(str(path)), []
        steps = [lambda: writer.open(live_info())]
        for batch in batches:
            steps += [lambda batch=batch: writer.packets(batch), lambda: writer.update(HandView())]
        steps.append(lambda: writer.close(HandView()))
        for step in steps:
            if said and step is steps[-1]:
                writer.restore()
            try:
                step()
            except TcptraceError as error:
                said.append(str(error))
                if len(said) == 1 and writer._output is not None:
                    raise AssertionError("still open") from error
                if step is steps[0]:
                    break
        assert len(said) <= 1
        return said[0] if said else None

    assert trace() is None
    whole, counts = path.stat().st_size, []
    for room_bytes in range(whole):
        monkeypatch.setattr(os, "write", SmallDisk(room_bytes).write)
        said = trace()
        assert path.stat().st_size <= room_bytes
        try:
            count = packet_count(path)
        except (AssertionError, struct.error, EOFError):
            assert room_bytes < 350, said  # not even the file's head fitted
            count = 0
        assert said == f"{path}: {NO_SPACE}; {'1 packet is' if count == 1 else f'{count} packets are'} in it"
        counts.append(count)
    assert set(counts) >= ({0, 3, 6} if name.endswith(("gz", "zst")) else set(range(9)))
    assert counts == sorted(counts)


def test_the_statistics_are_written_to_a_full_disk_if_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pcapng"
    write(path, [Packet()])
    head = path.stat().st_size - 92 - 64 - 0
    for room_bytes, statistics in ((head + 92 + 64, 1), (head + 92 + 63, 0)):
        monkeypatch.setattr(os, "write", SmallDisk(room_bytes).write)
        with pytest.raises(TcptraceError, match="1 packet is in it"):
            write(path, [Packet(), Packet()])
        section = decode(path.read_bytes())
        assert (len(section.packets), len(section.statistics)) == (1, statistics)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Python ignores SIGXFSZ, so that a write fails instead (EFBIG)."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@needs_tshark
@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_may_not_grow_further_is_readable(tmp_path: Path, name: str) -> None:
    skip_without_zstandard(name)
    path = tmp_path / name
    packets = [Packet(noise(1_000, n + 1), START_NS + n) for n in range(4_000)]
    with largest_file(2_500_001), pytest.raises(TcptraceError, match=os.strerror(errno.EFBIG)) as error:
        write(path, packets)
    count = int(capinfos(path)["Number of packets"])
    assert str(error.value) == f"{path}: {os.strerror(errno.EFBIG)}; {count} packets are in it"
    assert tshark(path, "frame.time_epoch") == [[f"1700000000.{123_456_789 + n}"] for n in range(count)]
    if name in ("x.pcap", "x.pcapng"):
        assert path.stat().st_size > 2_500_000 - 1_200
    assert count > 1_800


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting needs root: sudo make test")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@needs_tshark
@pytest.mark.parametrize("name", KINDS)
def test_a_full_disk(tiny_disk: Path, name: str) -> None:
    skip_without_zstandard(name)
    path = tiny_disk / name
    writer = CaptureWriter(str(path))
    writer.open(live_info())

    def trace() -> None:
        for n in range(1_000):
            writer.packets(batch_of([Packet(noise(500, 2 * n + 1)), Packet(noise(500, 2 * n + 2))]))
            if n % 10 == 9:
                writer.update(HandView())

    with pytest.raises(TcptraceError) as error:
        trace()
    count = int(capinfos(path)["Number of packets"])
    assert str(error.value) == f"{path}: {NO_SPACE}; {count} packets are in it"
    assert len(tshark(path, "frame.number")) == count
    assert count > 440


@needs_tshark
def test_a_ring_of_files_makes_its_own_room(tiny_disk: Path) -> None:
    packets = [Packet(noise(500, n + 1)) for n in range(2_000)]
    write(tiny_disk / "x.pcapng", packets, rotate_bytes=80_000, rotate_files=3)
    counts = [int(capinfos(path)["Number of packets"]) for path in sorted(tiny_disk.iterdir())]
    assert len(counts) == 3
    assert counts[0] == counts[1] > 140


def test_a_device_without_space_is_an_error_before_the_trace(tmp_path: Path) -> None:
    full = tmp_path / "x.pcapng"
    full.symlink_to("/dev/full")
    for target in (str(full), "/dev/full"):
        with pytest.raises(TcptraceError, match=f"^{target}: {NO_SPACE}; 0 packets are in it$"):
            CaptureWriter(target).open(live_info())


# --- What is written to.


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(bytes(100_000))
    inode = path.stat().st_ino
    write(path, [Packet()])
    assert (path.stat().st_size, path.stat().st_ino) == (24 + 16 + 60, inode)


@pytest.mark.parametrize("by", ["name", "symlink", "hard link"])
def test_a_file_that_is_read_is_not_written_to(tmp_path: Path, by: str) -> None:
    source = tmp_path / "in.pcap"
    source.write_bytes(b"precious")
    target = source if by == "name" else tmp_path / "out.pcap"
    if by == "symlink":
        target.symlink_to(source)
    elif by == "hard link":
        target.hardlink_to(source)
    with pytest.raises(UsageError, match="is read from: writing to it would destroy it"):
        CaptureWriter(str(target)).open(file_info(["-", "nowhere", str(source)]))
    assert source.read_bytes() == b"precious"


def test_a_file_of_several_that_is_read_is_not_written_to(tmp_path: Path) -> None:
    source = tmp_path / "x-00002.pcap"
    source.write_bytes(b"precious")
    writer = CaptureWriter(str(tmp_path / "x.pcap"), rotate_s=1.0)
    writer.open(file_info([str(source)]))
    with pytest.raises(UsageError, match=r"x-00002\.pcap is read from"):
        writer.packets(batch_of([Packet(), Packet(time_ns=START_NS + SECOND)]))
    assert source.read_bytes() == b"precious"
    assert packet_count(tmp_path / "x-00001.pcap") == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder.pcapng", "Is a directory"),
        ("none/x.pcapng", "No such file or directory"),
        ("f/x.pcap", "Not a directory"),
    ],
)
def test_what_cannot_be_opened_is_one_line(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder.pcapng").mkdir()
    (tmp_path / "f").touch()
    with pytest.raises(TcptraceError, match=f"^{tmp_path / name}: {reason}$"):
        CaptureWriter(str(tmp_path / name)).open(live_info())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_ours_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TcptraceError, match=r"Permission denied$"):
        CaptureWriter(str(tmp_path / "x.pcap")).open(live_info())


def test_a_fifo_takes_pcapng_as_it_comes(tmp_path: Path) -> None:
    fifo, got = tmp_path / "pipe", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    write(fifo, [Packet()] * 3, [Packet()])
    reader.join()
    assert len(decode(got[0]).packets) == 4


@pytest.mark.parametrize("blocking", [True, False])
def test_standard_output_is_flushed_at_each_update(monkeypatch: pytest.MonkeyPatch, blocking: bool) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    monkeypatch.setattr(os, "dup", lambda fd: writing if fd == 1 else -1)
    writer = CaptureWriter("-")
    writer.open(live_info())
    head = os.read(reading, 65_536)
    writer.packets(batch_of([Packet()] * 5))
    writer.update(HandView())
    section = decode(head + os.read(reading, 65_536))
    assert (section.interfaces[0][0], len(section.packets)) == (ETHERNET, 5)
    monkeypatch.undo()
    os.close(reading)
    writer.packets(batch_of([Packet()] * 5))
    with pytest.raises(BrokenPipeError):
        writer.update(HandView())
    writer.packets(batch_of([Packet()] * 5))
    writer.update(HandView())
    writer.close(HandView())
    writer.restore()


def test_a_pipe_that_does_not_wait_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    got = bytearray()

    def drain() -> None:
        while part := os.read(reading, 1 << 16):
            got.extend(part)

    reader = threading.Thread(target=drain)
    reader.start()
    write(Path("x.pcap"), [Packet(bytes(1_000))] * 2_000, open_file=lambda number: writing)
    reader.join()
    os.close(reading)
    assert len(decode_pcap(bytes(got))[2]) == 2_000


def test_standard_output_that_was_appended_to_is_cut_to_whole_packets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `>>`: what was there before stays."""
    path = tmp_path / "out"
    path.write_bytes(b"before")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    monkeypatch.setattr(os, "dup", lambda _: fd)
    monkeypatch.setattr(os, "write", SmallDisk(6 + 24 + 2 * 76 + 20).write)
    with pytest.raises(TcptraceError, match=f"^standard output: {NO_SPACE}; 2 packets are in it$"):
        write(Path("-"), [Packet()] * 3, file_format="pcap")
    assert path.read_bytes()[:6] == b"before"
    assert len(decode_pcap(path.read_bytes()[6:])[2]) == 2


def test_packets_are_not_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    monkeypatch.setattr(os, "dup", lambda _: theirs)
    with pytest.raises(UsageError, match="not for a terminal"):
        CaptureWriter("-").open(live_info())
    os.close(ours)


def test_compressed_pieces_are_visible_at_each_update(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng.gz"
    writer = CaptureWriter(str(path))
    writer.open(live_info())
    for count in (1, 2, 3):
        writer.packets(batch_of([Packet()]))
        writer.update(HandView())
        assert len(decode(uncompressed(path)).packets) == count
    writer.close(HandView())
