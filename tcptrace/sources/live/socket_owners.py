"""Which process holds which socket: one pass over /proc/*/fd, which shows other users' only to root."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tcptrace.records import NAME_BYTES, OWNER_HELD
from tcptrace.sources.live.sock_diag import Sockets

PROC: Final = "/proc"
# proc_pid_stat(5): the name may hold anything, brackets too; field 22, the 20th after it, is starttime.
_STAT: Final = re.compile(rb"\d+ \((.*)\) (?:\S+ ){19}(\d+) ", re.DOTALL)


class Owner(NamedTuple):
    """A process that has a socket open."""

    pid: int
    comm: bytes  # its name, at most 15 bytes


class _Process(NamedTuple):
    """Ordered by age, the oldest first; of the same age the lowest pid."""

    start_ticks: int  # after boot
    pid: int
    comm: bytes


def find_owners(inodes: set[int]) -> dict[int, Owner]:
    """Who holds each of these sockets; a socket that nobody holds, or who may not be looked at, has no entry.

    Of several the oldest: a server's first process, not the workers it forked.  Once each socket has an owner no
    younger process is looked at.  Processes that end meanwhile are passed over.
    """
    owners: dict[int, Owner] = {}
    missing = inodes - {0}
    if not missing:
        return owners
    for process in sorted(_processes()):
        held = missing.intersection(socket_inodes(process.pid))
        if held:
            owner = Owner(process.pid, process.comm)
            owners.update(dict.fromkeys(held, owner))
            missing -= held
            if not missing:
                break
    return owners


def set_owners(sockets: Sockets) -> None:
    """Write pid, comm and owner_source of each socket whose owner is found into its record."""
    owners = find_owners(set(sockets.inodes.tolist()))
    found = [(index, owners[inode]) for index, inode in enumerate(sockets.inodes.tolist()) if inode in owners]
    if not found:
        return
    views = sockets.records["view"]
    indexes = [index for index, _ in found]
    views["pid"][indexes] = [owner.pid for _, owner in found]
    views["comm"][indexes] = _padded_names([owner.comm for _, owner in found])
    views["owner_source"][indexes] = OWNER_HELD


def _padded_names(names: list[bytes]) -> npt.NDArray[Any]:
    text = b"".join(name[: NAME_BYTES - 1].ljust(NAME_BYTES, b"\0") for name in names)
    return np.frombuffer(text, np.uint8).reshape(-1, NAME_BYTES)


def _processes() -> Iterator[_Process]:
    for entry in os.listdir(PROC):
        if entry.isdigit():
            with suppress(OSError), open(f"{PROC}/{entry}/stat", "rb", buffering=0) as stat:
                if match := _STAT.match(stat.read()):
                    yield _Process(int(match[2]), int(entry), match[1])


def socket_inodes(pid: int) -> Iterator[int]:
    """Of the sockets that a process has open; none if it is gone or may not be looked at."""
    try:
        folder = os.open(f"{PROC}/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        names = os.listdir(folder)
    except OSError:
        names = []
    try:
        for name in names:
            with suppress(OSError):
                target = os.readlink(name, dir_fd=folder)
                if target.startswith("socket:["):
                    yield int(target[8:-1])
    finally:
        os.close(folder)
