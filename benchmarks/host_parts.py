"""Which part of tracing takes how much of a transfer: one part after the other stands beside it.

Each run is held against the two untraced ones just before and after it: what disturbs the machine for longer disturbs
all three.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from load import Load
from measure import Figure, Question
from netns_tools import TIMEOUT_S, Namespace
from tracers import tcpdump, tcptrace

ROUNDS = 11
BYSTANDER = Path(__file__).with_name("bystander.py")


@contextmanager
def bystander(namespace: Namespace, *arguments: str, halted: bool = False) -> Iterator[None]:
    """bystander.py, ready; halted, it does nothing any more, but its programs stay where they are."""
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    process = namespace.popen([sys.executable, str(BYSTANDER), *arguments], stdin=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{process.args} does not run: {process.communicate()}")
        if halted:
            process.send_signal(signal.SIGSTOP)
        yield
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait(TIMEOUT_S)


Beside = Callable[[Namespace], AbstractContextManager[Any]]

PARTS: Mapping[str, Beside] = {
    "nothing, once more": lambda namespace: nullcontext(),
    "a process that takes 2 % of a core and does nothing": lambda namespace: bystander(namespace, "busy", "1"),
    "… 4 % of a core": lambda namespace: bystander(namespace, "busy", "2"),
    "an empty program at both hooks": lambda namespace: bystander(namespace, "empty"),
    "our programs, their reader halted": lambda namespace: bystander(namespace, "rings", halted=True),
    "our programs, records taken out of the rings": lambda namespace: bystander(namespace, "rings"),
    "… and into the table": lambda namespace: bystander(namespace, "table"),
    "tcptrace --json, with probes": tcptrace,
    "tcpdump -s 128 -w /dev/null": tcpdump,
}


def ask() -> list[Question]:
    with Load() as load:
        load.set_offloads(True)
        merged = parts_of(load, lambda: load.bulk().gbit_per_s)
        load.set_offloads(False)
        single = parts_of(load, lambda: load.bulk().packets_per_s)
    return [
        Question("Bulk transfer, offloads on, beside it", "% of the untraced Gbit/s", merged),
        Question("Bulk transfer, offloads off, beside it", "% of the untraced packets a second", single),
    ]


def parts_of(load: Load, run: Callable[[], float]) -> list[Figure]:
    """A first round, which warms up, does not count."""
    figures = {name: Figure(name) for name in PARTS}
    before = run()
    for number in range(ROUNDS + 1):
        for name, beside in PARTS.items():
            with beside(load.far):
                value = run()
            after = run()
            if number:
                figures[name].values.append(100 * 2 * value / (before + after))
            before = after
    return list(figures.values())
