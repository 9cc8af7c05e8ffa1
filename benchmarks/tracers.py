"""tcptrace and the tools people use instead, tracing an interface while something else happens.

with TRACERS["tcpdump"](namespace) as loss:
    …traffic…
loss.percent
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from netns_tools import TIMEOUT_S, Namespace
from tracer import Tracer

INTERFACE = "veth0"
SNAP_BYTES = "128"

SCAPY = """
import os, signal, struct
from scapy.all import AsyncSniffer, conf
SOL_PACKET, PACKET_STATISTICS = 263, 6
count = 0
def take(packet):
    global count
    count += 1
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
one = conf.L2listen(iface="veth0", filter="tcp")
AsyncSniffer(opened_socket=one, prn=take, store=False).start()
signal.sigwait({signal.SIGINT})
seen, dropped = struct.unpack("II", one.ins.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
print(f"{seen} packets seen, {dropped} packets dropped", flush=True)
os._exit(0)
"""


@dataclass
class Loss:
    """Known once the tracer has ended."""

    packets: int = 0
    lost: int = 0

    @property
    def percent(self) -> float:
        return 100 * self.lost / max(self.packets, 1)


@contextmanager
def tcptrace(namespace: Namespace) -> Iterator[Loss]:
    """Lost is what was not analysed packet by packet; it is counted all the same."""
    loss = Loss()
    with Tracer(namespace, INTERFACE) as tracer:
        yield loss
        tracer.stop()
    loss.packets = tracer.summary["records"] + tracer.summary["thinned"]
    loss.lost = tracer.summary["records_lost"] + tracer.summary["thinned"]


@contextmanager
def tcpdump(namespace: Namespace) -> Iterator[Loss]:
    command = ["tcpdump", "-i", INTERFACE, "-Z", "root", "-s", SNAP_BYTES, "-w", "/dev/null", "tcp"]
    loss = Loss()
    with _capturing(namespace, command) as said:
        yield loss
    loss.packets = _count(r"(\d+) packets received", said)
    loss.lost = _count(r"(\d+) packets dropped by kernel", said)


@contextmanager
def tshark(namespace: Namespace) -> Iterator[Loss]:
    """The table of conversations: the least that it analyses."""
    command = ["tshark", "-i", INTERFACE, "-s", SNAP_BYTES, "-f", "tcp", "-q", "-z", "conv,tcp"]
    loss = Loss()
    with _capturing(namespace, command) as said:
        yield loss
    loss.lost = _count(r"(\d+) packets? dropped", said, absent=0)
    loss.packets = _count(r"(\d+) packets? captured", said) + loss.lost


@contextmanager
def scapy(namespace: Namespace) -> Iterator[Loss]:
    loss = Loss()
    with _capturing(namespace, [sys.executable, "-P", "-c", SCAPY]) as said:
        yield loss
    loss.packets = _count(r"(\d+) packets seen", said)
    loss.lost = _count(r"(\d+) packets dropped", said)


TRACERS: Mapping[str, Callable[[Namespace], AbstractContextManager[Loss]]] = {
    "tcptrace --json": tcptrace,
    f"tcpdump -s {SNAP_BYTES} -w /dev/null": tcpdump,
    f"tshark -s {SNAP_BYTES} -q -z conv,tcp": tshark,
    "scapy's sniff, which only counts": scapy,
}


@contextmanager
def _capturing(namespace: Namespace, command: list[str]) -> Iterator[list[str]]:
    """A tool that reads a packet socket; what it has said follows once it has ended."""
    process = namespace.popen(command, stdin=subprocess.DEVNULL)
    said: list[str] = []
    try:
        _await_packet_socket(namespace, process)
        yield said
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=TIMEOUT_S)


def _await_packet_socket(namespace: Namespace, process: subprocess.Popen[str]) -> None:
    """Until its packet socket is bound and takes packets: what tools print comes before or after that."""
    index = str(namespace.index_of(INTERFACE))
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"{process.args} does not run: {process.communicate()}")
        _, *lines = namespace.output("cat", "/proc/net/packet").splitlines()
        if any(line.split()[4:6] == [index, "1"] for line in lines):
            return
    raise TimeoutError(f"{process.args} does not begin")


def _count(pattern: str, said: list[str], absent: int | None = None) -> int:
    found = re.search(pattern, "".join(said))
    if not found and absent is not None:
        return absent
    assert found, said
    return int(found[1])
