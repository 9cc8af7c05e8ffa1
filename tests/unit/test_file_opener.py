"""The process that opens a capture's further files."""

import errno
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tcptrace.errors import TcptraceError
from tcptrace.sinks.capture_writer import numbered_path
from tcptrace.sources.live.file_opener import PROCESS_NAME, FileOpener, open_for_sudo_user, sudo_user

SOMEBODY = "12345"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo make test")


@pytest.fixture(autouse=True)
def nobody_called_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.delenv("SUDO_GID", raising=False)


def pattern(folder: Path) -> Callable[[int], str]:
    return lambda number: numbered_path(str(folder / "x.pcapng"), number)


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[FileOpener]:
    started = FileOpener.start(pattern(tmp_path))
    yield started
    started.close()


def put(fd: int, data: bytes) -> None:
    os.write(fd, data)
    os.close(fd)


def test_files_are_opened_by_number_and_removed(opener: FileOpener, tmp_path: Path) -> None:
    for number in (1, 2, 123_456):
        put(opener.open(number), b"%d" % number)
    opener.remove(2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "x-00001.pcapng": b"1",
        "x-123456.pcapng": b"123456",
    }


def test_an_old_file_gives_way_to_a_new_one(opener: FileOpener, tmp_path: Path) -> None:
    path = tmp_path / "x-00001.pcapng"
    path.write_bytes(b"something long")
    put(opener.open(1), b"new")
    assert path.read_bytes() == b"new"


def test_a_link_in_a_file_s_place_is_not_followed(opener: FileOpener, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "x-00001.pcapng").symlink_to(precious)
    (tmp_path / "x-00002.pcapng").hardlink_to(precious)
    put(opener.open(1), b"new")
    put(opener.open(2), b"new")
    assert precious.read_bytes() == b"precious"
    assert not (tmp_path / "x-00001.pcapng").is_symlink()
    assert (tmp_path / "x-00002.pcapng").read_bytes() == b"new"


def test_errors_are_those_of_open_and_unlink(opener: FileOpener, tmp_path: Path) -> None:
    (tmp_path / "x-00003.pcapng").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        opener.open(3)
    assert error.value.filename == str(tmp_path / "x-00003.pcapng")
    with pytest.raises(FileNotFoundError):
        opener.remove(4)
    put(opener.open(5), b"still there")


def test_the_folder_is_the_one_of_the_beginning(opener: FileOpener, tmp_path: Path) -> None:
    moved = tmp_path.rename(tmp_path.with_name(tmp_path.name + "-moved"))
    put(opener.open(1), b"1")
    assert (moved / "x-00001.pcapng").read_bytes() == b"1"


def test_a_relative_name_is_relative_to_where_the_tracer_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opener = FileOpener.start(lambda number: numbered_path("x.pcap", number))
    monkeypatch.chdir("/")
    put(opener.open(1), b"1")
    opener.close()
    assert (tmp_path / "x-00001.pcap").read_bytes() == b"1"


def test_a_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(TcptraceError, match=rf"^{tmp_path}/none: {os.strerror(errno.ENOENT)}$"):
        FileOpener.start(pattern(tmp_path / "none"))


def test_the_process_has_its_name_and_no_file_of_the_tracer(tmp_path: Path) -> None:
    with (tmp_path / "of the tracer").open("w") as ours:
        opener = FileOpener.start(pattern(tmp_path))
        put(opener.open(1), b"")
        opener.remove(1)  # once it answers this, it is done with the file
        process = Path(f"/proc/{opener.pid}")
        assert (process / "comm").read_text() == f"{PROCESS_NAME}\n"
        files = sorted(os.readlink(entry) for entry in (process / "fd").iterdir())
        assert ours.name not in files
        assert [name for name in files if not name.startswith("socket:")] == ["/dev/null"] * 3 + [str(tmp_path)]
        assert len(files) == 5
        assert os.readlink(process / "cwd") == "/"
        assert (process / "stat").read_text().rpartition(")")[2].split()[3] == str(opener.pid)  # its own session
    opener.close()


def test_the_process_ends_when_it_is_closed(tmp_path: Path) -> None:
    opener = FileOpener.start(pattern(tmp_path))
    os.kill(opener.pid, signal.SIGSTOP)  # it does not end before it is told to: then it is gone
    os.kill(opener.pid, signal.SIGCONT)
    put(opener.open(1), b"")
    opener.close()
    opener.close()
    assert not Path(f"/proc/{opener.pid}").exists()


def test_the_process_is_deaf_to_signals(opener: FileOpener) -> None:
    put(opener.open(1), b"")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        os.kill(opener.pid, number)
    put(opener.open(2), b"")


def test_a_process_that_was_killed_is_said(opener: FileOpener) -> None:
    put(opener.open(1), b"")
    os.kill(opener.pid, signal.SIGKILL)
    with pytest.raises(TcptraceError, match=f"{PROCESS_NAME} has been ended"):
        opener.open(2)


def test_the_process_ends_with_the_tracer(tmp_path: Path) -> None:
    program = """if True:
        import sys, time
        from tcptrace.sources.live.file_opener import FileOpener
        opener = FileOpener.start(lambda number: f"{sys.argv[1]}/{number}")
        opener.open(1)
        print(opener.pid, flush=True)
        sys.stdin.read()
        """
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stdout is not None
        helper = os.pidfd_open(int(tracer.stdout.readline()))
        tracer.kill()
    poller = select.poll()
    poller.register(helper, select.POLLIN)
    assert poller.poll(20_000)
    os.close(helper)


@needs_root
def test_files_go_to_who_called_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", SOMEBODY)
    monkeypatch.setenv("SUDO_GID", "54321")
    old = tmp_path / "old.pcapng"
    old.touch()
    opener = FileOpener.start(pattern(tmp_path))
    put(opener.open(1), b"1")
    opener.close()
    put(open_for_sudo_user(str(tmp_path / "new.pcapng")), b"2")
    put(open_for_sudo_user(str(old)), b"3")
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in tmp_path.iterdir()}
    assert owners == {
        "x-00001.pcapng": (12345, 54321),
        "new.pcapng": (12345, 54321),
        "old.pcapng": (0, 0),
    }


def test_files_stay_ours_where_nobody_called_sudo(opener: FileOpener, tmp_path: Path) -> None:
    put(opener.open(1), b"")
    status = (tmp_path / "x-00001.pcapng").stat()
    assert status.st_uid == os.geteuid()
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(status.st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("uid", [None, "0", "x", "", "-1", str(2**32 - 1)])
def test_who_did_not_call_sudo(uid: str | None) -> None:
    assert sudo_user(uid, "100") is None


@needs_root
def test_a_capture_goes_on_after_privileges_are_given_up(tmp_path: Path) -> None:
    """In a folder that is root's alone."""
    folder = tmp_path / "root's"
    folder.mkdir(mode=0o700)
    program = """if True:
        import os, sys
        from functools import partial
        from types import SimpleNamespace
        import numpy as np
        from tcptrace.model import Clock, PacketBatch, Totals, TraceInfo
        from tcptrace.records import PACKET_RECORD, CaptureInterface, Frames
        from tcptrace.sinks.capture_writer import CaptureWriter, numbered_path
        from tcptrace.sources.live import privileges
        from tcptrace.sources.live.file_opener import FileOpener

        target = sys.argv[1]
        opener = FileOpener.start(partial(numbered_path, target))
        writer = CaptureWriter(
            target, rotate_s=1.0, rotate_files=2, open_file=opener.open, remove_file=opener.remove
        )
        writer.open(TraceInfo("eth0", "tc", None, Clock(), "1", (), [CaptureInterface("eth0", None, 1, 0)]))
        user = privileges.drop()
        assert os.geteuid() == user.uid != 0
        records = np.zeros(4, PACKET_RECORD)
        records["time_ns"] = np.arange(4) * 10**9
        frames = Frames(np.zeros(60, "u1"), np.zeros(4, "i8"), *[np.full(4, 60, "u4")] * 2, np.zeros(4, "u2"))
        writer.packets(PacketBatch(records, np.zeros(4), frames))
        writer.close(SimpleNamespace(totals=Totals(), time_ns=4 * 10**9, start_ns=0))
        opener.close()
        """
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "x.pcapng")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert (done.returncode, done.stderr) == (0, "")
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(sizes) == {"x-00003.pcapng", "x-00004.pcapng"}
    assert all(size > 200 for size in sizes.values())
