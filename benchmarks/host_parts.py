"""Which part of tracing takes how much of a transfer: one part after the other stands beside it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

from between import UNTRACED, Beside, between
from load import Load
from measure import Question
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


PARTS: Mapping[str, Beside] = {
    "nothing, once more": lambda namespace: nullcontext(),
    "a process that takes 2 % of a core and does nothing": lambda namespace: bystander(namespace, "busy", "2"),
    "… 4 % of a core": lambda namespace: bystander(namespace, "busy", "4"),
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
        merged = between(load, lambda: asdict(load.bulk()), PARTS, ROUNDS)
        load.set_offloads(False)
        single = between(load, lambda: asdict(load.bulk()), PARTS, ROUNDS)
    return [
        Question("Bulk transfer, offloads on, beside it", "Gbit/s", merged["gbit_per_s"], baseline=UNTRACED),
        Question(
            "Bulk transfer, offloads off, beside it", "packets a second", single["packets_per_s"], baseline=UNTRACED
        ),
    ]
