"""The command itself with many connections: how much memory it takes, and CPU while few of them have packets."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from measure import Figure, Question
from netns_tools import TIMEOUT_S, Namespace, veth
from programs.offered import RUN, Offering
from test_overload import direct_to
from tracer import COMMAND

WIDTH, HEIGHT = 160, 50
FEW: Final = 50
STEP: Final = 4_000
PAUSE_S: Final = 0.03
"""Between the steps, so that nothing is lost."""
SETTLED_S: Final = 3
QUIET_S: Final = 8
TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


def of_commands(flows: int) -> Question:
    """Memory of all its processes: then, and at most until its end (when it starts, the compiler has some)."""
    figures = []
    for name, arguments in (("live table", []), ("JSON", ["--json"])):
        with Namespace() as near, Namespace() as far:
            veth(near, far, ["10.9.0.1/24"], ["10.9.0.2/24"])
            with Offering(flows) as offering, at_work(near, arguments) as process:
                direct_to(near, offering)
                offer_slowly(offering, 2 * RUN * flows)
                time.sleep(SETTLED_S)
                before = cpu_ms(process.pid)
                for _ in range(QUIET_S):
                    offering.offer(RUN * FEW)
                    time.sleep(1)
                spent = (cpu_ms(process.pid) - before) / QUIET_S
                figures.append(Figure(f"{name}, ms of CPU a second", [spent]))
                figures.append(Figure(f"{name}, MB", [memory_mb(process.pid)]))
                figures.append(Figure(f"{name}, MB at most", [peak_mb(process)]))
    return Question(f"The command, {flows:,} connections, {FEW} of them with packets", "ms, MB", figures)


def offer_slowly(offering: Offering, count: int) -> None:
    for start in range(0, count, STEP):
        offering.offer(min(STEP, count - start))
        time.sleep(PAUSE_S)


@contextmanager
def at_work(near: Namespace, arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Attached; its table is on a terminal, its JSON goes nowhere."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    process = near.popen(
        [str(COMMAND), *arguments, "veth0"],
        stdout=subprocess.DEVNULL if arguments else secondary,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(secondary)
    reader = threading.Thread(target=drain, args=(primary,))
    reader.start()
    try:
        while not near.programs("veth0", "ingress"):
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()
        reader.join(TIMEOUT_S)
        os.close(primary)


def drain(fd: int) -> None:
    with suppress(OSError):  # the other end has gone
        while os.read(fd, 1 << 16):
            pass


def cpu_ms(pid: int) -> float:
    """Of a process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1e3 * (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def memory_mb(pid: int) -> float:
    """What it holds, and what its other processes hold beside it."""
    return _mb(_kb(f"/proc/{pid}/status", "VmRSS")) + others_mb(pid)


def others_mb(pid: int) -> float:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(_mb(_kb(f"/proc/{child}/smaps_rollup", "Pss")) for child in children)


def peak_mb(process: subprocess.Popen[str]) -> float:
    """Ends it as Ctrl-C does."""
    others, peak_kb = others_mb(process.pid), 0
    process.send_signal(signal.SIGINT)
    while process.poll() is None:
        with suppress(OSError, StopIteration):  # it is just over
            peak_kb = _kb(f"/proc/{process.pid}/status", "VmHWM")
        time.sleep(0.005)
    return _mb(peak_kb) + others


def _kb(path: str, name: str) -> int:
    lines = Path(path).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _mb(kb: int) -> float:
    return kb * 1024 / 1e6
