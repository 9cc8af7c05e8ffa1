"""What stands beside a transfer while host_parts.py measures it: a part of what tracing is, or a mere use of the CPU.

bystander.py busy MS      that much CPU time, 10 times a second
bystander.py empty        an empty program at both hooks of veth0
bystander.py rings        the tracer's packet programs there, and the records out of their rings
bystander.py table        and into the connection table
It says "ready", and ends when its standard input does.
"""

import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from packet_cost import empty_program

from tcptrace.engine.table import Table
from tcptrace.sources.live import links, pcap_filter
from tcptrace.sources.live.guard import Guard
from tcptrace.sources.live.interface import find_interface
from tcptrace.sources.live.opening import Opening

if TYPE_CHECKING:
    from tcptrace.sources.live.source import LiveSource

INTERFACE = "veth0"
TURNS_A_SECOND = 10
"""As often as the tracer's reader."""
CONNECTIONS = 10_000
SECOND_NS = 10**9


def main(kind: str, arguments: Sequence[str]) -> None:
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    if kind == "busy":
        busy(float(arguments[0]), over)
    elif kind == "empty":
        stand_empty(over)
    else:
        read(over, into_table=kind == "table")


def say_ready() -> None:
    print("ready", flush=True)


def busy(milliseconds: float, over: threading.Event) -> None:
    say_ready()
    while not over.wait(1 / TURNS_A_SECOND):
        end_ns = time.thread_time_ns() + round(milliseconds * 1e6)
        while time.thread_time_ns() < end_ns:
            pass


def stand_empty(over: threading.Event) -> None:
    kept, fd = empty_program()
    index = find_interface(INTERFACE).index
    hooks = links.Links() if links.are_known(index) else Guard.start()
    hooks.attach_tc(index, {"ingress": fd, "egress": fd})
    say_ready()
    over.wait()
    hooks.close()
    del kept


def read(over: threading.Event, *, into_table: bool) -> None:
    opening = Opening(find_interface(INTERFACE), pcap_filter.filter_source(None, ethernet=True), xdp=False)
    try:
        source = opening.source(None)
        table = Table(CONNECTIONS, 300 * SECOND_NS, 60 * SECOND_NS, source.start_ns, 1)
        say_ready()
        take(source, table if into_table else None, over)
        source.close()
    finally:
        opening.close()


def take(source: "LiveSource", table: Table | None, over: threading.Event) -> None:
    while not over.is_set():
        records = source.read(1 / TURNS_A_SECOND)
        if table is not None:
            assert table.process(records) == len(records)  # of the few connections none ends


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
