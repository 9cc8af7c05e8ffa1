"""Capture files, analysed to the end by a program started for it: packets a second, CPU time and memory."""

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from made_capture import made
from measure import Figure, Question, paired
from tracer import COMMAND

SMALL, MEDIUM, LARGE = 10_000, 1_000_000, 10_000_000
ROUNDS = {SMALL: 7, MEDIUM: 5, LARGE: 4}
OSTERMANN = "/usr/bin/tcptrace"
"""Another program of our name; the full path, as PATH may well find ours."""

# Of programs that are small when they start others: the child's peak counts from what its parent had.
MEASURED = """
import json, os, sys, time
quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_WRONLY, 0) for fd in (1, 2)]
began = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(pid, 0)
elapsed_s = time.perf_counter() - began
assert status == 0, status
print(json.dumps([elapsed_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]))
"""

SCAPY = """
import sys
from scapy.all import IP, TCP, PcapReader
conversations = {}
for packet in PcapReader(sys.argv[1]):
    if TCP in packet:
        ends = frozenset([(packet[IP].src, packet[TCP].sport), (packet[IP].dst, packet[TCP].dport)])
        conversations[ends] = conversations.get(ends, 0) + 1
print(len(conversations))
"""


@dataclass(frozen=True)
class Run:
    """Of a process, from its start to its end."""

    elapsed_s: float
    cpu_s: float
    peak_bytes: int


@dataclass
class Program:
    """`command` without the file, which is its last argument; what it prints nobody reads."""

    name: str
    command: Sequence[str]
    largest: int
    """Packets of the largest file that it is asked for: of larger ones it would take minutes."""
    runs: dict[int, list[Run]] = field(default_factory=dict)

    def rate(self, packets: int) -> float:
        """Packets a second of a run; a first run only warms up."""
        command = [sys.executable, "-I", "-S", "-c", MEASURED, *self.command, str(made(packets))]
        run = Run(*json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        self.runs.setdefault(packets, []).append(run)
        return packets / run.elapsed_s

    def counted(self, packets: int) -> list[Run]:
        return self.runs[packets][1:]

    def elapsed_s(self, packets: int) -> float:
        return statistics.median(run.elapsed_s for run in self.counted(packets))


def ask() -> list[Question]:
    programs = [
        Program("tcptrace -f", [str(COMMAND), "-f"], LARGE),
        Program("tcptrace --json -f", [str(COMMAND), "--json", "-f"], LARGE),
        Program("tshark -q -z conv,tcp", ["tshark", "-q", "-z", "conv,tcp", "-r"], MEDIUM),
        Program("scapy, which only counts conversations", [sys.executable, "-P", "-c", SCAPY], SMALL),
    ]
    note = "slow programs are not asked for the larger files"
    if is_ostermanns():
        programs.insert(2, Program("Ostermann's tcptrace -l -r -n", [OSTERMANN, "-l", "-r", "-n"], LARGE))
    else:
        note += "; Ostermann's tcptrace is not available here"
    connections = [checked_connections(packets) for packets in ROUNDS]
    questions = [whole_runs(programs, packets, note) for packets in ROUNDS]
    questions += [cpu_time([one for one in programs if one.largest >= packets], packets) for packets in (MEDIUM, LARGE)]
    through = [one for one in programs if one.largest == LARGE]
    return [*questions, without_start(through), memory(programs, connections)]


def whole_runs(programs: list[Program], packets: int, note: str) -> Question:
    asked = {one.name: partial(one.rate, packets) for one in programs if one.largest >= packets}
    figures = paired(asked, ROUNDS[packets])
    return Question(f"A capture of {packets:,} packets, the whole run", "packets/s", figures, note)


def cpu_time(programs: list[Program], packets: int) -> Question:
    figures = [Figure(one.name, [packets / run.cpu_s for run in one.counted(packets)]) for one in programs]
    return Question(f"A capture of {packets:,} packets, the whole run", "packets a CPU-second", figures)


def without_start(programs: list[Program]) -> Question:
    """What more packets take more: neither start nor output is in it."""
    figures = []
    for one in programs:
        for fewer, more in ((MEDIUM, LARGE), (SMALL, MEDIUM)):
            base_s = one.elapsed_s(fewer)
            rates = [(more - fewer) / (run.elapsed_s - base_s) for run in one.counted(more)]
            figures.append(Figure(f"{one.name}, from {fewer:,} to {more:,}", rates))
    return Question("Captures, start excluded: of one size beside the next smaller", "packets/s", figures)


def memory(programs: list[Program], connections: list[int]) -> Question:
    figures = [
        Figure(f"{one.name}, {packets:,} packets", [run.peak_bytes / 2**20 for run in one.counted(packets)])
        for one in programs
        for packets in sorted(one.runs, reverse=True)
    ]
    note = f"the files have {', '.join(f'{count:,}' for count in connections)} connections"
    return Question("Captures: the most memory that was resident", "MiB", figures, note)


# --- Whether the files are what they should be, in other programs' eyes


def checked_connections(packets: int) -> int:
    """How many connections the file has, all agreed."""
    path = made(packets)
    ours = seen_by_tcptrace(path)
    judges = [seen_by_tshark] if packets <= MEDIUM else []
    if is_ostermanns():
        judges.append(seen_by_ostermanns)
    for judge in judges:
        seen = judge(path)
        if not seen == ours == (ours[0], packets):
            sys.exit(f"{path}: {ours} connections and packets {seen_by_tcptrace.__name__}, {seen} {judge.__name__}")
    return ours[0]


def seen_by_tcptrace(path: Path) -> tuple[int, int]:
    """Connections and packets."""
    summary = json.loads(printed(str(COMMAND), "--json", "-f", str(path)).splitlines()[-1])
    return summary["connections_total"], summary["packets"]


def seen_by_tshark(path: Path) -> tuple[int, int]:
    text = printed("tshark", "-q", "-z", "conv,tcp", "-z", "io,phs", "-r", str(path))
    return text.count("<->"), number(r"^ +tcp +frames:(\d+)", text)


def seen_by_ostermanns(path: Path) -> tuple[int, int]:
    text = printed(OSTERMANN, "-l", "-n", str(path))
    return number(r"^(\d+) TCP connections? traced", text), number(r"^(\d+) packets seen", text)


def is_ostermanns() -> bool:
    return os.access(OSTERMANN, os.X_OK) and "Ostermann" in printed(OSTERMANN, "-v", stderr=subprocess.STDOUT)


def printed(*command: str, stderr: int = subprocess.DEVNULL) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=stderr, text=True).stdout


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, pattern
    return int(found[1])
