"""What a trace of an interface without traffic costs: CPU of one core, and whether memory grows.

TCPTRACE_BENCH_IDLE_S=3600 makes it an hour.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from measure import Figure, Question
from netns_tools import Namespace, veth
from test_terminal import Terminal
from tracer import Tracer

LENGTH_S = float(os.environ.get("TCPTRACE_BENCH_IDLE_S", "30"))
PARTS = 10
"""Of that time, each a value."""
SETTLE_S = 3.0
"""What the start has left to do is over by then."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NO_IPV6 = "open('/proc/sys/net/ipv6/conf/default/disable_ipv6', 'w').write('1')"


@dataclass
class Watched:
    """A tracer and all that it has started: the only processes of its namespace."""

    namespace: Namespace
    cpu_percent: Figure
    memory_mib: Figure
    memory_bytes: list[int] = field(default_factory=list)
    cpu_ns: int = 0
    time_ns: int = 0

    def begin(self) -> None:
        self.cpu_ns, self.time_ns = self._cpu_ns(), time.monotonic_ns()
        self.memory_bytes.append(self._memory_bytes())

    def end_part(self) -> None:
        cpu_ns, time_ns = self._cpu_ns(), time.monotonic_ns()
        self.cpu_percent.values.append(100 * (cpu_ns - self.cpu_ns) / (time_ns - self.time_ns))
        self.cpu_ns, self.time_ns = cpu_ns, time_ns
        self.memory_bytes.append(self._memory_bytes())
        self.memory_mib.values.append(self.memory_bytes[-1] / 2**20)

    @property
    def growth_kib(self) -> float:
        return (self.memory_bytes[-1] - self.memory_bytes[0]) / 1024

    def _cpu_ns(self) -> int:
        return sum(cpu_ns(pid) for pid in self.namespace.pids())

    def _memory_bytes(self) -> int:
        return sum(resident_bytes(pid) for pid in self.namespace.pids())


def ask() -> list[Question]:
    with ExitStack() as stack:
        watched = [stack.enter_context(tracing(name)) for name in ("tcptrace --json", "tcptrace, the table")]
        time.sleep(SETTLE_S)
        watch(watched)
    growths = ", ".join(f"{one.memory_mib.subject} {one.growth_kib:+,.0f} KiB" for one in watched)
    note = f"in {LENGTH_S:,.0f} s: {growths}"
    return [
        Question("Idle: user and system time", "% of one core", [one.cpu_percent for one in watched]),
        Question("Idle: resident memory of all its processes", "MiB", [one.memory_mib for one in watched], note),
    ]


def watch(watched: list[Watched]) -> None:
    for one in watched:
        one.begin()
    began_s = time.monotonic()
    for part in range(1, PARTS + 1):
        time.sleep(max(0.0, began_s + part * LENGTH_S / PARTS - time.monotonic()))
        for one in watched:
            one.end_part()


@contextmanager
def tracing(name: str) -> Iterator[Watched]:
    """At work on a veth of its own, where nothing happens."""
    with Namespace() as near, Namespace() as far:
        for end in (near, far):
            end.python(NO_IPV6)  # else each end solicits routers and neighbours for a while
        veth(near, far, ["10.9.0.1/24"], ["10.9.0.2/24"])
        with Tracer(near, "veth0") if "json" in name else terminal(near):
            yield Watched(near, Figure(name), Figure(name))


@contextmanager
def terminal(namespace: Namespace) -> Iterator[None]:
    """A table that is drawn, and read as a terminal reads it."""
    with Terminal(namespace, columns=120, rows=40) as table:
        table.read_until(lambda written: b"packets/s" in written)
        over = threading.Event()

        def read() -> None:
            with suppress(OSError):
                while not over.is_set() and table.read():
                    table.written = b""

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield
        finally:
            over.set()
            table.process.terminate()
            reader.join()


def cpu_ns(pid: int) -> int:
    """Of all threads of a process, user and system: its clock, as clock_getcpuclockid(3) numbers it."""
    return time.clock_gettime_ns(~pid << 3 | 2)


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_BYTES
