"""Network namespaces: which one this is, and going into another one (network_namespaces(7))."""

import ctypes
import errno
import os
from typing import Final

from tcptrace.errors import NotPermittedError, TcptraceError

# The thread's own: /proc/self is the main thread, which may be elsewhere.
CURRENT: Final = "/proc/thread-self/ns/net"
# Where ip-netns(8) keeps them; the second is the first on all but old systems.
FOLDERS: Final = ("/run/netns", "/var/run/netns")
# linux/sched.h
CLONE_NEWNET: Final = 0x4000_0000


def inode() -> int:
    """What tells this thread's namespace from others, as `ls -i /proc/self/ns/net` shows it."""
    return os.stat(CURRENT).st_ino


def enter(which: str) -> None:
    """Make the network namespace of that name (ip-netns(8)), process id or path (with a / in it) this process's.

    Only the calling thread goes there, and what it starts afterwards: to be called before there are others.  Of digits
    alone a name comes first, then a process.  TcptraceError if there is none, NotPermittedError without CAP_SYS_ADMIN.
    """
    path = find(which)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        # Not following a pipe's or device's open(2) into a wait.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _failed(which, error.errno) from error
    try:
        if libc.setns(fd, CLONE_NEWNET):
            raise _failed(which, ctypes.get_errno())
    finally:
        os.close(fd)


def find(which: str) -> str:
    """The path of that namespace.  TcptraceError if there is none."""
    if "\0" in which or which in ("", ".", ".."):
        raise TcptraceError(f"no such network namespace: {which!r}")
    if "/" in which:
        return which
    for folder in FOLDERS:
        if os.path.lexists(f"{folder}/{which}"):
            return f"{folder}/{which}"
    if which.isascii() and which.isdigit():
        if os.path.isdir(f"/proc/{which}"):
            return f"/proc/{which}/ns/net"
        raise TcptraceError(f"no such network namespace: there is no process {which}, and none of that name")
    raise TcptraceError(f"no such network namespace: {which} ({_known_names()})")


def _known_names() -> str:
    names = sorted({name for folder in FOLDERS if os.path.isdir(folder) for name in os.listdir(folder)})
    return f"there are: {', '.join(names)}" if names else "ip netns knows none; a process id or a path will do, too"


def _failed(which: str, number: int | None) -> TcptraceError:
    if number in (errno.EPERM, errno.EACCES):
        return NotPermittedError(
            f"entering network namespace {which} needs root, or CAP_SYS_ADMIN; try: sudo tcptrace …"
        )
    if number in (errno.ENOENT, errno.ESRCH, errno.ENOTDIR):
        return TcptraceError(f"no such network namespace: {which}")
    if number in (errno.EINVAL, errno.ENXIO, errno.EISDIR, errno.ENOTTY):
        return TcptraceError(f"not a network namespace: {which}")
    return TcptraceError(f"cannot enter network namespace {which}: {os.strerror(number or 0)}")
