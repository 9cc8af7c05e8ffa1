"""One tracer at a time changes the filters of a network namespace."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A tracer holds the lock for milliseconds; whoever holds it longer is stopped or no tracer.
LOCK_WAIT_S = 5.0


@contextmanager
def sole_tracer() -> Iterator[bool]:
    """Keep other tracers of this network namespace out; yields False when the lock could not be had in LOCK_WAIT_S.

    The namespace's own file is the lock (flock(2) goes by inode): every process in it can open the same one, whatever
    its file system looks like, and nothing is left when the holder dies.  Only for a process with a single thread: the
    wait is bounded by SIGALRM.
    """
    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield _lock(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, LOCK_WAIT_S)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return True
    except TimeoutError:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _give_up(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError
