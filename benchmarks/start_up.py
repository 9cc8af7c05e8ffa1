"""From exec to the first row: connections are open already, and never rest."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from measure import Question, paired
from netns_tools import TIMEOUT_S, Namespace, veth
from programs.inside import Sockets
from test_terminal import FAR, NEAR, PORT, Terminal, exchanging, has_row
from tracer import COMMAND

ROUNDS = 7
CONNECTIONS = 10
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin:/usr/share/bcc/tools"
TCPTOP = shutil.which("tcptop-bpfcc", path=PATH) or shutil.which("tcptop", path=PATH)
COMPLAINT = re.compile("headers|kprobe|Exception|Error")


class NoRow(Exception):
    """A program ended without one, and said why."""


def ask() -> list[Question]:
    with ExitStack() as stack:
        near, far = stack.enter_context(Namespace()), stack.enter_context(Namespace())
        veth(near, far, f"{NEAR}/24", f"{FAR}/24")
        sockets = stack.enter_context(Sockets())
        pairs = [sockets.pair(near, far, FAR, PORT + number) for number in range(CONNECTIONS)]
        stack.enter_context(exchanging(pairs))
        tcptop = partial(seconds_to, is_tcptop_row, near, [str(TCPTOP), "--noclear", "1"])
        runs = ours(near) | packet_printers(near)
        if not (note := trouble_of(tcptop)):
            runs["bcc's tcptop, its first row, of a first second"] = tcptop
        return [Question("Start: from exec to the first row", "s", paired(runs, ROUNDS), note)]


def ours(near: Namespace) -> dict[str, Callable[[], float]]:
    command = [str(COMMAND), "--json", "veth0"]
    return {
        "tcptrace --json, its first connection": partial(seconds_to, containing('"event":"connection"'), near, command),
        "tcptrace --json, ready": partial(seconds_to, containing('"event":"start"'), near, command),
        "tcptrace, the table's first row": partial(seconds_to_table, near),
    }


def packet_printers(near: Namespace) -> dict[str, Callable[[], float]]:
    commands = {
        "tcpdump, its first packet": ["tcpdump", "-l", "-n", "-i", "veth0", "tcp"],
        "tshark, its first packet": ["tshark", "-l", "-n", "-i", "veth0", "-f", "tcp"],
    }
    return {name: partial(seconds_to, containing(FAR), near, command) for name, command in commands.items()}


def trouble_of(tcptop: Callable[[], float]) -> str:
    """Why it has no row here; empty where it has."""
    if TCPTOP is None:
        return "bcc's tcptop is not installed"
    try:
        tcptop()
    except NoRow as reason:
        return f"bcc's tcptop does not run here: {reason}"
    return ""


def seconds_to(is_row: Callable[[str], bool], namespace: Namespace, command: Sequence[str]) -> float:
    """Raises NoRow with what the program had to complain of."""
    began = time.perf_counter()
    lines = []
    with namespace.popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process, ended(process):
        assert process.stdout is not None
        for line in process.stdout:
            if is_row(line):
                return time.perf_counter() - began
            lines.append(line.strip())
    raise NoRow(next((line for line in lines if COMPLAINT.search(line)), "no row came"))


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """By a signal on leaving; killed where that, or a row, is too long in coming."""
    timer = threading.Timer(TIMEOUT_S, process.kill)
    timer.start()
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()
        timer.cancel()


def seconds_to_table(namespace: Namespace) -> float:
    with Terminal(namespace) as terminal:
        terminal.read_until(has_row)
        elapsed_s = time.monotonic() - terminal.began
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_rest()
    return elapsed_s


def containing(text: str) -> Callable[[str], bool]:
    return lambda line: text in line


def is_tcptop_row(line: str) -> bool:
    """PID, COMM, LADDR, RADDR, and kilobytes both ways."""
    return re.search(r":\d+ +\S+:\d+ +\d+ +\d+$", line.rstrip()) is not None
