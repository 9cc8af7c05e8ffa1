"""What the small processes beside the tracer have in common: to be forked, to let go of it, to be waited for."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EXIT_TIMEOUT_S = 5.0

# Left as they are: what cannot be changed, what says that the process is broken, and SIGALRM, which bounds a wait.
UNTOUCHED_SIGNALS = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGALRM,
}


@contextmanager
def signals_blocked() -> Iterator[None]:
    """To fork in: until the child ignores signals none may reach it, or it would run the tracer's handlers."""
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def detach(name: str, kept: set[int]) -> None:
    """In the child: a session and a name of its own, deaf to signals, with no file of the tracer's but those kept.

    Whoever reads the tracer's output must see its end when the tracer dies, not when this process does.
    """
    os.setsid()
    with suppress(OSError), open("/proc/self/comm", "w", encoding="utf-8") as comm:  # root's, with file capabilities
        comm.write(name)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - UNTOUCHED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for fd in {int(entry) for entry in os.listdir("/proc/self/fd")} - kept - {0, 1, 2}:
        with suppress(OSError):  # the one that listed the folder is closed already
            os.close(fd)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    if null > 2:
        os.close(null)


def await_exit(pid: int, pidfd: int) -> None:
    """In the tracer: reap the child and close its pidfd; one that is late ends by itself later."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.poll(EXIT_TIMEOUT_S * 1000)
    os.close(pidfd)
    with suppress(ChildProcessError):  # where SIGCHLD is ignored the kernel has reaped it
        os.waitpid(pid, os.WNOHANG)
