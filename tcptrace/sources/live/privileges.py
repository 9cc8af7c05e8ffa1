"""What tracing needs, and giving it all up once set-up is done.

Attached programs and mapped rings stay usable without any privilege.  Taking programs away again needs none either
(links.py) or is the guard's (guard.py).
"""

import ctypes
import errno
import os
import pwd
import time
from collections.abc import Callable
from typing import NamedTuple

from tcptrace.errors import NotPermittedError, TcptraceError

# linux/capability.h
CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
CAP_PERFMON = 38
CAP_BPF = 39
CAPABILITY_VERSION_3 = 0x20080522

# linux/prctl.h
PR_SET_NO_NEW_PRIVS = 38

# Who is nobody where the user database does not say (the kernel's own overflow id).
OVERFLOW_ID = 65534

# A joined thread is gone for Python before it is for the kernel; this long is more than it ever takes.
THREAD_EXIT_S = 2.0

# Fields of /proc/PID/task/TID/status that must be zero afterwards; CapInh alone grants nothing.
CAPABILITY_FIELDS = ("CapPrm", "CapEff", "CapAmb")


class User(NamedTuple):
    """Whom to become."""

    uid: int
    gid: int


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct; pid 0 is the calling thread."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    """struct __user_cap_data_struct, 32 capabilities a piece."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def require_root() -> None:
    """NotPermittedError unless this process may load BPF programs, open perf events and attach to interfaces.

    Judged by capabilities, not by uid: a container's root may lack them, and an ordinary user may have been given them.
    """
    effective = read_capabilities("self")["CapEff"]
    if _has(effective, CAP_NET_ADMIN) and (
        _has(effective, CAP_SYS_ADMIN) or (_has(effective, CAP_BPF) and _has(effective, CAP_PERFMON))
    ):
        return
    needs = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (before Linux 5.8 CAP_SYS_ADMIN)"
    if os.geteuid() == 0:
        raise NotPermittedError(f"this root lacks capabilities: tracing needs {needs}")
    raise NotPermittedError(f"tracing needs root, or {needs}; try: sudo tcptrace …")


def drop() -> User:
    """Give up every privilege for good: become who called sudo, else nobody; returns who that is.

    Where ids cannot change (not started as root, or a container's root without CAP_SETUID) the capabilities go alone.
    To be called after every import, open and attach, and before other threads are started: without a change of ids the
    kernel clears capabilities in the calling thread only.  TcptraceError if anything is left in any thread.

    The kernel makes a process that changed ids undumpable: no core dumps, nobody of the new uid can attach a debugger
    to what was root, and most of its own /proc/self is root's from now on (/dev/stdout cannot be opened again).
    """
    if os.geteuid() == 0:
        _become(choose_user(os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")))
    _clear_capabilities()
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set no_new_privs")
    _check_nothing_left()
    return User(os.getuid(), os.getgid())


def choose_user(sudo_uid: str | None, sudo_gid: str | None) -> User:
    """Who called sudo, by what it put into the environment; nobody if that was root, or nothing sensible."""
    nobody = _nobody()
    uid = _ordinary_id(sudo_uid)
    if uid is None:
        return nobody
    gid = _ordinary_id(sudo_gid)
    return User(uid, nobody.gid if gid is None else gid)


def read_capabilities(task: str) -> dict[str, int]:
    """Capability sets of /proc/`task`/status as bit masks: CapInh, CapPrm, CapEff, CapBnd, CapAmb."""
    with open(f"/proc/{task}/status", encoding="utf-8", errors="replace") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return {name: int(value, 16) for name, value in fields.items() if name.startswith("Cap")}


def _has(mask: int, capability: int) -> bool:
    return bool(mask >> capability & 1)


def _nobody() -> User:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return User(OVERFLOW_ID, OVERFLOW_ID)
    return User(entry.pw_uid or OVERFLOW_ID, entry.pw_gid or OVERFLOW_ID)


def _ordinary_id(text: str | None) -> int | None:
    """A uid or gid that is not root's; (uid_t) -1 means "leave it" to setresuid(2), so it is none either."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return int(text) if 0 < int(text) < 0xFFFF_FFFF else None


def _become(user: User) -> None:
    """Change ids in every thread; nothing if this root may not (EPERM) or has no such id (EINVAL), as in containers."""
    steps: list[Callable[[], None]] = [
        lambda: os.setgroups([]),
        lambda: os.setresgid(user.gid, user.gid, user.gid),
        lambda: os.setresuid(user.uid, user.uid, user.uid),
    ]
    for step in steps:
        try:
            step()
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise TcptraceError(f"cannot give up root: {error.strerror}") from error


def _clear_capabilities() -> None:
    """Empty this thread's sets; the ambient set follows the permitted one (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    nothing = (_Sets * 2)()
    _checked(libc.capset(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), nothing), "clear capabilities")


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise TcptraceError(f"cannot {what}: {os.strerror(ctypes.get_errno())}")


def _check_nothing_left() -> None:
    """Raises TcptraceError if a thread has capabilities; one that ended just now may still be on its way out."""
    deadline_s = time.monotonic() + THREAD_EXIT_S
    while (left := _threads_with_capabilities()) and time.monotonic() < deadline_s:
        time.sleep(THREAD_EXIT_S / 1000)
    for thread, field, mask in left:
        raise TcptraceError(f"thread {thread} still has capabilities ({field} {mask:x})")


def _threads_with_capabilities() -> list[tuple[str, str, int]]:
    """Thread, field of CAPABILITY_FIELDS, mask: of each that is not empty."""
    left = []
    for thread in os.listdir("/proc/self/task"):
        try:
            sets = read_capabilities(f"self/task/{thread}")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        left += [(thread, field, sets[field]) for field in CAPABILITY_FIELDS if sets.get(field, 0)]
    return left
