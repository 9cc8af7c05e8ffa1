"""Owners of sockets among processes of our own."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tcptrace.records import OWNER_HELD, OWNER_UNKNOWN, SOCKET_RECORD
from tcptrace.sources.live import socket_owners
from tcptrace.sources.live.sock_diag import Sockets
from tcptrace.sources.live.socket_owners import Owner, find_owners, set_owners


def own_name() -> bytes:
    return Path("/proc/self/comm").read_bytes().rstrip(b"\n")


def inode_of(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


@contextmanager
def forked(closed: list[socket.socket]) -> Iterator[int]:
    """A child that holds what we hold but for `closed`, until the end."""
    ready, said = os.pipe()
    waits, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(end)
            for one in closed:
                one.close()
            os.write(said, b"x")
            os.read(waits, 1)
        finally:
            os._exit(0)
    os.close(waits)
    try:
        os.read(ready, 1)
        yield pid
    finally:
        os.close(end)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(said)


def test_the_parent_owns_what_a_child_holds_too() -> None:
    with socket.socket() as shared, forked([]):
        assert find_owners({inode_of(shared), 0, 2**32 - 1}) == {inode_of(shared): Owner(os.getpid(), own_name())}


def test_what_only_the_child_holds_is_its() -> None:
    left, kept = socket.socket(), socket.socket()
    inodes = inode_of(left), inode_of(kept)
    with kept, forked([kept]) as child:
        left.close()
        owners = find_owners(set(inodes))
    assert [owners[inode].pid for inode in inodes] == [child, os.getpid()]


def test_records_get_their_owners() -> None:
    with socket.socket() as one:
        inodes = np.array([0, inode_of(one)], "u4")
        nothing = np.zeros(2, "u1")
        sockets = Sockets(np.zeros(2, SOCKET_RECORD), inodes, inodes, nothing, nothing)
        set_owners(sockets)
    view = sockets.records["view"]
    assert view["owner_source"].tolist() == [OWNER_UNKNOWN, OWNER_HELD]
    assert view["pid"].tolist() == [0, os.getpid()]
    assert bytes(view["comm"][1]).rstrip(b"\0") == own_name()


# --- Processes as /proc shows them, made by hand


def add_process(proc: Path, pid: int, name: str, start_ticks: int, inodes: list[int]) -> None:
    folder = proc / str(pid) / "fd"
    folder.mkdir(parents=True)
    fields = " ".join(["S", *(["1"] * 18), str(start_ticks), "0", "0"])
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {fields}\n")
    (folder / "0").symlink_to("/dev/null")
    (folder / "1").symlink_to("pipe:[5]")
    for number, inode in enumerate(inodes, 3):
        (folder / str(number)).symlink_to(f"socket:[{inode}]")


@pytest.fixture
def proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(socket_owners, "PROC", str(tmp_path))
    (tmp_path / "self").mkdir()
    (tmp_path / "77").mkdir()  # it has ended
    return tmp_path


def test_the_oldest_then_the_lowest_pid(proc: Path) -> None:
    add_process(proc, 10, "worker", 2000, [100, 101, 102])
    add_process(proc, 20, "master", 1000, [100])
    add_process(proc, 9, "second", 2000, [101])
    assert find_owners({100, 101, 102, 103}) == {
        100: Owner(20, b"master"),
        101: Owner(9, b"second"),
        102: Owner(10, b"worker"),
    }


@pytest.mark.parametrize("name", ["a) S 1 (b", "", ") ", "(sd-pam)", "line\nbreak"])
def test_names_may_be_anything(proc: Path, name: str) -> None:
    add_process(proc, 10, name, 2000, [100])
    assert find_owners({100}) == {100: Owner(10, name.encode())}


def test_a_process_that_may_not_be_looked_at(proc: Path) -> None:
    add_process(proc, 10, "gone", 1000, [100])
    add_process(proc, 11, "there", 2000, [100])
    (proc / "10" / "fd").rename(proc / "10" / "was")
    assert find_owners({100}) == {100: Owner(11, b"there")}
