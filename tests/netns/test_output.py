"""`-o` and the other outputs of a live trace: how files end, whose they are, what of each packet is in them."""

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from netns_tools import TIMEOUT_S, Namespace
from programs.captures import (
    COUNTS,
    LIFE,
    RTTS,
    assert_equal,
    assert_whole,
    both_sides,
    finals,
    judge,
    packets_in,
    read_back,
    tcptrace,
)
from programs.inside import Sockets
from programs.output import Output
from programs.scenes import TCPI_SEGS_IN_AT, TCPI_SEGS_OUT_AT, Where, bulk, half_close, tcp_info, wait_until
from test_counts import namespace
from tracer import COMMAND, Tracer

LOOPBACK = "127.0.0.1"
PORT = 7000
NOBODY_ELSE = ("env", "-u", "SUDO_UID", "-u", "SUDO_GID")
SUDO_UID, SUDO_GID = 4711, 4712

pytestmark = pytest.mark.skipif(
    not (shutil.which("tshark") and shutil.which("capinfos")), reason="tshark is not installed"
)


@pytest.fixture
def only() -> Iterator[Namespace]:
    with namespace() as only:
        before = only.traffic_control("lo")
        yield only
        assert only.pids() == []
        assert only.traffic_control("lo") == before


@pytest.fixture
def where(only: Namespace) -> Iterator[Where]:
    with Sockets() as sockets:
        yield Where(sockets, only, only, LOOPBACK)


class Live:
    """`tcptrace lo …` with whatever output, attached once entered."""

    def __init__(self, only: Namespace, *arguments: str | Path) -> None:
        self._only = only
        self._command = [str(COMMAND), "lo", *map(str, arguments)]

    def __enter__(self) -> "Live":
        self._process = self._only.popen(self._command, stdin=subprocess.DEVNULL)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._output, self._errors = Output(self._process.stdout), Output(self._process.stderr)
        self._first = self._output.line()
        if "waiting" not in self._first:
            raise AssertionError(self._errors.rest())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT_S)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        self._process.send_signal(number)
        assert self.wait() == 0
        assert self.errors == []

    def wait(self) -> int:
        """For its end; the exit code."""
        self.text = "".join([self._first, *self._output.rest()])
        self.errors = self._errors.rest()
        return self._process.wait(TIMEOUT_S)

    @property
    def packets(self) -> int:
        """That the final output counts."""
        return int(re.findall(r"^([\d,]+) packets ", self.text, re.MULTILINE)[-1].replace(",", ""))


def table(text: str) -> list[list[str]]:
    """The words of the rows of the last table, without the number of each connection."""
    lines = text.splitlines()
    start = max(number for number, line in enumerate(lines) if re.match(r"[ #]*source ", line))
    numbered = lines[start].lstrip().startswith("#")
    rows = []
    for line in lines[start + 1 :]:
        if not line.strip():
            break
        rows.append(line.split()[numbered:])
    return rows


# --- Ends


def test_the_table_of_the_file_is_that_of_the_trace(where: Where, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    with Live(where.near, "-o", path) as live:
        for number in range(3):
            half_close(where, PORT + number)
        bulk(where, PORT + 9, 345_678)
        live.stop(signal.SIGTERM)
    rows = table(live.text)
    assert len(rows) == 4
    assert table(tcptrace("-f", path).stdout) == rows
    # Of the super-packets of lo each segment counts, but a frame in the file is one.
    assert packets_in(path) == len(read_back(path, "--packets").packets) <= live.packets


def test_a_number_of_packets(where: Where, tmp_path: Path) -> None:
    path = tmp_path / "x.pcap.gz"
    with Live(where.near, "-o", path, "-c", "50") as live:
        where.pair(PORT).ping_pong(50)
        assert (live.wait(), live.errors) == (0, [])
    assert packets_in(path) == live.packets == 50


def test_a_time(where: Where, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng.zst"
    with Live(where.near, "-w", path, "-d", "0.5") as live:
        where.pair(PORT).ping_pong(20)
        assert (live.wait(), live.errors) == (0, [])
    assert packets_in(path) == live.packets > 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(where: Where, small_disk: Path) -> None:
    """The file is whole as far as it goes, and the line says how far."""
    path = small_disk / "x.pcapng"
    with Live(where.near, "-o", path, "--snaplen", "1000") as live:
        bulk(where, PORT, 20_000_000)
        half_close(where, PORT + 1)
        assert live.wait() == 1
    (line,) = live.errors
    said = re.fullmatch(rf"tcptrace: {path}: No space left on device; (\d+) packets are in it\n", line)
    assert said, line
    assert packets_in(path) == int(said[1]) > 20
    assert len(table(live.text)) in (1, 2)
    assert live.packets > 20


def test_into_a_pipe(where: Where) -> None:
    """tshark lists every packet, by the sockets' own count."""
    tracer = where.near.popen([str(COMMAND), "lo", "-v", "-o", "-"], stdin=subprocess.DEVNULL)
    wanted = ["tshark", "-n", "-r", "-", "-T", "fields", "-e", "tcp.dstport"]
    tshark = subprocess.Popen(wanted, stdin=tracer.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert tracer.stdout is not None
    assert tracer.stderr is not None
    with tracer, tshark:
        tracer.stdout.close()
        assert "sockets: " in tracer.stderr.readline()
        assert "running as" in tracer.stderr.readline()
        pair = where.pair(PORT)
        pair.ping_pong(100)
        pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # what it owes is sent now
        segments = [tcp_info(pair.client, at) for at in (TCPI_SEGS_OUT_AT, TCPI_SEGS_IN_AT)]
        tracer.send_signal(signal.SIGINT)
        assert (tracer.wait(TIMEOUT_S), tracer.stderr.read()) == (0, "")
        ports = tshark.communicate(timeout=TIMEOUT_S)[0].split()
    assert tshark.returncode == 0
    assert [ports.count(str(PORT)), len(ports) - ports.count(str(PORT))] == segments


# --- What cannot be written


@pytest.mark.parametrize(
    ("target", "options", "code", "line"),
    [
        ("folder.pcapng", [], 1, "{}: Is a directory"),
        ("nowhere/x.pcapng", [], 1, "{}: No such file or directory"),
        ("nowhere/x.pcapng", ["--rotate-size", "1M"], 1, "{folder}: No such file or directory"),
        ("x.txt", [], 2, "{}: the name must end in .pcapng or .pcap, and .gz or .zst after it if wanted"),
        ("x.pcapng", ["--rotate-files", "3"], 2,
         "a number of files to keep needs a size or a time after which the next one begins"),
    ],
)  # fmt: skip
def test_nowhere_to_write(
    only: Namespace, tmp_path: Path, target: str, options: list[str], code: int, line: str
) -> None:
    (tmp_path / "folder.pcapng").mkdir()
    path = tmp_path / target
    ended = only.run([str(COMMAND), "lo", "-o", str(path), *options], check=False)
    expected = f"tcptrace: {line.format(path, folder=path.parent)}\n"
    assert (ended.returncode, ended.stderr, ended.stdout) == (code, expected, "")
    assert [one.name for one in tmp_path.iterdir()] == ["folder.pcapng"]


# --- Several files


def as_user(only: Namespace, command: Sequence[str], *arguments: str) -> Tracer:
    """A tracer started with another environment."""
    tracer = Tracer(only, "lo", *arguments)
    tracer.command = [*command, *tracer.command]
    return tracer


def test_files_by_size_belong_to_who_called_sudo(where: Where, tmp_path: Path) -> None:
    """Together they are the trace."""
    sudo = ["env", f"SUDO_UID={SUDO_UID}", f"SUDO_GID={SUDO_GID}"]
    with as_user(where.near, sudo, "-o", str(tmp_path / "x.pcapng"), "--rotate-size", "20k") as tracer:
        for number in range(3):
            half_close(where, PORT + number)
        where.pair(PORT + 3).ping_pong(300)
        tracer.stop()
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == [f"x-{number:05}.pcapng" for number in range(1, len(paths) + 1)]
    assert len(paths) >= 4
    assert {(path.stat().st_uid, path.stat().st_gid) for path in paths} == {(SUDO_UID, SUDO_GID)}
    assert (
        max(path.stat().st_size for path in paths)
        <= 20_000
        < 25_000
        <= 2 * min(path.stat().st_size for path in paths[:-1])
    )
    assert sum(map(packets_in, paths)) == tracer.summary["tcp"]
    others = [word for path in paths[1:] for word in ("-f", str(path))]
    assert_whole(finals(tracer.events), read_back(paths[0], *others).rows)


def test_the_last_files_by_time_belong_to_root(where: Where, tmp_path: Path) -> None:
    path = str(tmp_path / "x.pcapng.gz")
    options = ["--rotate-seconds", "0.1", "--rotate-files", "2"]
    with as_user(where.near, NOBODY_ELSE, "-o", path, *options) as tracer:
        pair = where.pair(PORT)

        def fifth() -> bool:
            pair.ping_pong(1)
            return (tmp_path / "x-00005.pcapng.gz").exists()

        wait_until(fifth)
        tracer.stop()
    paths = sorted(tmp_path.iterdir())
    last = int(paths[-1].name[2:7])
    assert [path.name for path in paths] == [f"x-{number:05}.pcapng.gz" for number in (last - 1, last)]
    assert last >= 5
    assert {path.stat().st_uid for path in paths} == {0}
    assert 0 < sum(map(packets_in, paths)) < tracer.summary["tcp"]


# --- How much of each packet

IP4_BYTES = 14 + 20
TCP_BYTES = IP4_BYTES + 20
SYN_BYTES = TCP_BYTES + 20
"""The longest headers of a connection without loss."""
LEAST_BYTES = IP4_BYTES + 16
"""Up to the window; of the rest of the header TCP's sequence needs nothing."""
OF_OPTIONS = {"window_bytes", "window_min_bytes", "window_max_bytes", "windows_full", "window_scale", "mss_bytes"}


def test_snaplen(where: Where, tmp_path: Path) -> None:
    """Numbers are the same down to the headers' length; below, what cannot be read is counted."""
    whole = tmp_path / "whole.pcapng"
    with Tracer(where.near, "lo", "-o", str(whole), "--snaplen", "65535") as tracer:
        half_close(where, PORT)
        bulk(where, PORT + 1, 123_456)
        tracer.stop()
    rows = finals(tracer.events)
    assert_whole(rows, read_back(whole).rows)
    originals = frame_lengths(whole)
    assert all(captured == min(original, 65_328) for original, captured in originals)
    for snaplen in (SYN_BYTES, LEAST_BYTES, LEAST_BYTES - 1, 1):
        path = tmp_path / f"{snaplen}.pcapng"
        tcptrace("-f", whole, "-o", path, "--snaplen", str(snaplen))
        assert frame_lengths(path) == [(original, min(original, snaplen)) for original, _ in originals]
        cut = read_back(path)
        if snaplen < LEAST_BYTES:
            assert (cut.rows, cut.summary["packets"], cut.summary["snapped"]) == ({}, 0, len(originals))
            continue
        assert cut.summary["snapped"] == 0
        if snaplen < SYN_BYTES:
            assert_equal(
                rows, cut.rows, (*LIFE, *RTTS, *both_sides([name for name in COUNTS if name not in OF_OPTIONS]))
            )
        else:
            assert_whole(rows, cut.rows)
    assert f"snapped {len(originals)}" in tcptrace("-f", tmp_path / "1.pcapng").stdout


def test_snaplen_live(where: Where, tmp_path: Path) -> None:
    """Cut off in the kernel inside of the TCP header."""
    path = tmp_path / "x.pcapng"
    with Tracer(where.near, "lo", "-o", str(path), "--snaplen", str(TCP_BYTES)) as tracer:
        half_close(where, PORT)
        tracer.stop()
    assert {captured for _, captured in frame_lengths(path)} == {TCP_BYTES}
    read = read_back(path)
    assert len(frame_lengths(path)) == tracer.summary["tcp"]
    assert_equal(finals(tracer.events), read.rows, (*LIFE, *both_sides(COUNTS[:3])))


def frame_lengths(path: Path) -> list[tuple[int, int]]:
    """Of each frame, by tshark: on the wire and in the file."""
    lines = judge("tshark", "-n", "-r", path, "-T", "fields", "-e", "frame.len", "-e", "frame.cap_len").splitlines()
    return [(int(original), int(captured)) for original, captured in map(str.split, lines)]


# --- Layers and drawings


def test_layers_and_drawings(where: Where, tmp_path: Path) -> None:
    """Every packet as it comes; at the end what is drawn of the file, too."""
    path = tmp_path / "x.pcapng"
    drawings = ["--sequence", "--graph", "--ladder"]
    command = [str(COMMAND), "lo", "--packets", "-v", *drawings, "-o", str(path)]
    with where.near.popen(command, stdin=subprocess.DEVNULL) as tracer:
        assert tracer.stderr is not None
        assert "sockets: " in tracer.stderr.readline()
        assert "running as" in tracer.stderr.readline()
        for number in range(2):
            half_close(where, PORT + number)
        tracer.send_signal(signal.SIGINT)
        text, errors = tracer.communicate(timeout=TIMEOUT_S)
    assert (tracer.returncode, errors) == (0, "")
    packets = len(frame_lengths(path))
    assert re.findall(r"^packet (\d+) ", text, re.MULTILINE) == [str(number + 1) for number in range(packets)]
    assert text.count("TCP, from program to program") == packets
    drawn = tcptrace("-f", path, *drawings).stdout
    for word in (f"{LOOPBACK}:{PORT}", f"{LOOPBACK}:{PORT + 1}", "SYN"):
        assert word in drawn
    assert text.endswith(drawn)
