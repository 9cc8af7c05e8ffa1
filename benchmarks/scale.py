"""Many connections at once: what a refresh of the table and of JSON costs, what a packet costs, how much memory.

A refresh is the end of an interval as the pipeline has it, from expiry to the rendered screen or the written lines, but
for the sockets that are asked for.  The connections' records come from the TC program, through its rings.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from command_at_work import of_commands
from measure import Figure, Question
from packet_cost import Ours
from programs.offered import RUN, Offering
from ring_to_table import HANDED_OVER_S

from tcptrace.engine.table import Table
from tcptrace.model import Clock, Sink, Totals, TraceInfo
from tcptrace.pipeline import Limits, Pipeline
from tcptrace.sinks.live_table import LiveTable
from tcptrace.sinks.ndjson import Ndjson
from tcptrace.sinks.plain_table import console_for

FLOWS: Final = (1_000, 10_000, 100_000)
ROOM: Final = 131_072
"""Connections there is room for."""
FEW: Final = 50
ROUNDS: Final = 7
STEP: Final = 50_000
"""Packets at a time: as many as the rings hold."""
PACKETS: Final = 200_000
WIDTH, HEIGHT = 160, 50
NEVER_NS: Final = 10**18
INFO: Final = TraceInfo("veth0", "tc ingress+egress", None, Clock(), "0")


class Nothing:
    """A source whose records are handed to the engine elsewhere."""

    clock, start_ns, is_recorded, finished = Clock(), 0, True, True

    def take_flow_counts(self) -> None:
        return None

    def check(self) -> None:
        return None

    def fill_totals(self, totals: Totals) -> None:
        """It knows nothing."""

    def cpu_ns(self) -> int:
        return time.process_time_ns()


class Terminal:
    """Takes what is drawn, and forgets it."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        return True


class Packets:
    """The records of the next packets of `offering`, as the rings hand them over."""

    def __init__(self, ours: Ours, offering: Offering) -> None:
        self.ours, self.offering = ours, offering
        offering.direct(ours.programs.tc_fds["ingress"])

    def take(self, count: int) -> npt.NDArray[Any]:
        parts = []
        for start in range(0, count, STEP):
            self.offering.offer(min(STEP, count - start))
            time.sleep(HANDED_OVER_S)
            parts += [records.copy() for records in self.ours.batches()]
        records = np.concatenate(parts)
        assert len(records) == count
        return records


class Trace:
    """A pipeline with one sink and a table of its own."""

    def __init__(self, sink: Sink, first: npt.NDArray[Any]) -> None:
        self.now_ns = int(first["time_ns"][0])
        self.table = Table(ROOM, NEVER_NS, NEVER_NS, self.now_ns, 1)
        self.pipeline = Pipeline(Nothing(), self.table, [sink], 1.0, Limits(), lambda: False, print)  # type: ignore[arg-type]
        self.pipeline._cpu_ns = self.pipeline._cpu_since = 0  # as run() begins
        sink.open(INFO)
        self.take(first)
        self.refresh()

    def take(self, records: npt.NDArray[Any]) -> None:
        self.now_ns = max(self.now_ns + 10**9, int(records["time_ns"][-1]))
        assert self.table.process(records) == len(records)

    def refresh(self) -> float:
        """CPU ms of one."""
        before = time.process_time_ns()
        self.pipeline._end_interval(self.now_ns)
        return (time.process_time_ns() - before) / 1e6


def ask() -> list[Question]:
    refreshes, commands = [], []
    packets = Question("A packet into the table", "ns of CPU", [])
    for flows in FLOWS:
        ours = Ours()
        with Offering(flows) as offering:
            source = Packets(ours, offering)
            refreshes += of_refreshes(source, flows)
            packets.figures.append(of_packets(source, flows))
        assert ours.ring.lost() == 0
        ours.close()
        commands.append(of_commands(flows))
    return [*refreshes, packets, *commands]


def of_refreshes(source: Packets, flows: int) -> list[Question]:
    """With few and with all connections changed since the one before."""
    first = source.take(RUN * flows)
    terminal: Any = Terminal()
    screen = LiveTable(terminal, console=console_for(terminal, color=True, width=WIDTH, height=HEIGHT))
    questions = []
    with Path(os.devnull).open("wb") as nowhere:
        traces = {"live table": Trace(screen, first), "JSON": Trace(Ndjson(nowhere), first)}
        for changed in (flows, FEW):
            figures = {name: Figure(name) for name in traces}
            for number in range(ROUNDS + 1):  # the first one warms up
                records = source.take(RUN * changed)
                for name, trace in traces.items():
                    trace.take(records)
                    spent_ms = trace.refresh()
                    if number:
                        figures[name].values.append(spent_ms)
            title = f"A refresh, {flows:,} connections, {changed:,} of them changed"
            questions.append(Question(title, "ms of CPU", list(figures.values())))
    screen.restore()
    return questions


def of_packets(source: Packets, flows: int) -> Figure:
    figure = Figure(f"{flows:,} connections")
    table = Table(ROOM, NEVER_NS, NEVER_NS, time.monotonic_ns(), 1)
    table.process(source.take(RUN * flows))
    for _ in range(ROUNDS):
        records = source.take(PACKETS)
        before = time.process_time_ns()
        table.process(records)
        figure.values.append((time.process_time_ns() - before) / len(records))
    return figure
