"""Records a second of CPU time from the mapped rings through merge and engine into the table."""

import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from types import TracebackType

from measure import Figure, Question, paired
from netns_tools import Namespace, veth
from packet_cost import NEVER, Ours, Plain
from programs.offered import RUN, Offering

from tcptrace.engine.table import Table

RECORDS = 150_000
ROUNDS = 7
FLOWS = (1_000, 100_000)
SCAPY_PACKETS = 20_000
MOST_SENT = 10_000_000
HANDED_OVER_S = 0.06
"""Three ticks: then the last batch is in its ring, and all CPUs have said how far they are."""

SCAPY = """
import sys, time
from scapy.all import AsyncSniffer
count = 0
def take(packet):
    global count
    count += 1
sniffer = AsyncSniffer(iface="veth0", prn=take, store=False, count=int(sys.argv[1]))
sniffer.start()
while not sniffer.running:
    time.sleep(0.01)
print("ready", flush=True)
before = time.process_time()
sniffer.join()
print(count / (time.process_time() - before))
"""

SEND = """
import socket, sys
from programs.offered import frame
one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
one.bind(("veth0", 0))
data = frame()
for _ in range(int(sys.argv[1])):
    one.send(data)
"""


class FromRings:
    """Our rings, and a table that sees all that its connections send: what is only read is of others."""

    def __init__(self, flows: int) -> None:
        self._ours = Ours()
        self._seen, self._only_read = Offering(flows), Offering(flows)
        self._table = Table(131_072, 10**18, 10**18, time.monotonic_ns(), 1)
        while self._seen.offered < flows * RUN:
            self.into_table()

    def __enter__(self) -> "FromRings":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seen.__exit__(kind, error, trace)
        self._only_read.__exit__(kind, error, trace)
        assert self._ours.ring.lost() == 0
        self._ours.close()

    def into_table(self) -> float:
        """Records a CPU-second."""
        start, taken = self._began(self._seen), 0
        for records in self._ours.batches():
            taken += self._table.process(records)
        assert taken == RECORDS
        return taken / (time.process_time() - start)

    def out_of_rings(self) -> float:
        start = self._began(self._only_read)
        assert self._ours.drain() == RECORDS
        return RECORDS / (time.process_time() - start)

    def _began(self, offering: Offering) -> float:
        """Records wait in the rings; the process's CPU time then."""
        offering.direct(self._ours.programs.tc_fds["ingress"])
        offering.offer(RECORDS)
        time.sleep(HANDED_OVER_S)
        return time.process_time()


def counted_by_bcc(offering: Offering, plain: Plain) -> float:
    """Records a CPU-second."""
    offering.direct(plain.fd)
    offering.offer(RECORDS)
    start = time.process_time()
    taken = plain.drain()
    return taken / (time.process_time() - start)


def ask() -> list[Question]:
    questions = []
    for flows in FLOWS:
        with FromRings(flows) as rings, Offering(flows) as offering, closing(Plain(NEVER)) as plain:
            runs = {
                "tcptrace, into the table": rings.into_table,
                "tcptrace, out of the rings in order, no more": rings.out_of_rings,
                "bcc's callback reader, which only counts": partial(counted_by_bcc, offering, plain),
            }
            figures = paired(runs, ROUNDS)
        if flows == FLOWS[0]:
            figures.append(sniffed_by_scapy())
        questions.append(Question(f"From the ring, {flows:,} connections", "records a CPU-second", figures))
    return questions


def sniffed_by_scapy(rounds: int = 3) -> Figure:
    figure = Figure("scapy's sniff, which only counts")
    with Namespace() as near, Namespace() as far:
        veth(near, far, ["10.9.0.1/24"], ["10.9.0.2/24"])
        for _ in range(rounds):
            command = [sys.executable, "-P", "-c", SCAPY, str(SCAPY_PACKETS)]
            sniffer = near.popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            assert sniffer.stdout is not None
            if sniffer.stdout.readline() != "ready\n":
                raise SystemExit("scapy does not run: make bench installs it")
            # Until it has as many as it waits for: its socket drops what it is too slow for.
            sender = far.popen_python(SEND, str(MOST_SENT), env={"PYTHONPATH": ":".join(sys.path)})
            figure.values.append(float(sniffer.stdout.readline()))
            sender.kill()
            sender.wait(30)
            sniffer.wait(30)
    return figure
