"""Load between two network namespaces: a bulk transfer by iperf3, requests and responses by sockperf.

with Load() as load:
    load.bulk()      # Gbit/s, packets/s, CPU
    load.exchange()  # round trips
The client runs on one CPU and the server on another, as two hosts would; whatever traces them finds its own place.
"""

import json
import os
import re
import subprocess
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from netns_tools import TIMEOUT_S, Namespace, veth

INTERFACE = "veth0"
ADDRESS = "10.9.0.2"
# Offloads that make super-packets of what is sent or received.
OFFLOADS = ("tso", "gso", "gro")
BULK_S = 1
# Sent before what counts: a tracer that has just compiled its programs leaves caches that know nothing of the network.
WARMING_BYTES = "256M"
# Of it sockperf leaves out 0.4 s of warming up and 0.05 s at the end.
EXCHANGE_S = 2
MESSAGE_BYTES = 64


@dataclass(frozen=True)
class Bulk:
    """One transfer, seen by the receiving interface and by the whole machine."""

    gbit_per_s: float
    packets_per_s: float
    cpu_s_per_gb: float


@dataclass(frozen=True)
class RoundTrips:
    count: int
    p50_us: float
    p99_us: float


class Load:
    """`near` holds the clients, `far` the servers, which the bulk goes to; both have `INTERFACE`."""

    def __init__(self) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        self._client_cpu, self._server_cpu = cpus[0], cpus[-1]
        self._stack = ExitStack()

    def __enter__(self) -> "Load":
        try:
            self.near = self._stack.enter_context(Namespace())
            self.far = self._stack.enter_context(Namespace())
            veth(self.near, self.far, "10.9.0.1/24", f"{ADDRESS}/24")
            for namespace in (self.near, self.far):
                # The CPUs are to set the pace, and every kernel has this one.
                namespace.run(["sysctl", "-q", "net.ipv4.tcp_congestion_control=reno"])
            self._serve(["iperf3", "-s", "--forceflush"], ready="listening")
            # sockperf speaks of being ready only when its buffer is full, or goes with the line.
            self._serve(["stdbuf", "-oL", "sockperf", "server", "--tcp", "-i", ADDRESS], ready="to block on")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _serve(self, command: list[str], *, ready: str) -> None:
        options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        server = self.far.popen(_on_cpu(self._server_cpu, command), **options)
        assert server.stdout is not None
        # It is read to its end: iperf3 tells of each transfer, and would wait for room in the pipe.
        reader = threading.Thread(target=server.stdout.readlines, daemon=True)
        self._stack.callback(_end, server, reader)
        is_ready = any(ready in line for line in server.stdout)
        reader.start()
        if not is_ready:
            raise SystemExit(f"{command} does not run: make bench installs it")

    def set_offloads(self, on: bool) -> None:
        words = [word for one in OFFLOADS for word in (one, "on" if on else "off")]
        for namespace in (self.near, self.far):
            namespace.run(["ethtool", "-K", INTERFACE, *words])

    def bulk(self) -> Bulk:
        self._transfer("--bytes", WARMING_BYTES)
        packets, busy_s = self._packets(), _busy_s()
        received = self._transfer("--time", str(BULK_S))
        packets, busy_s = self._packets() - packets, _busy_s() - busy_s
        return Bulk(
            gbit_per_s=received["bits_per_second"] / 1e9,
            packets_per_s=packets / received["seconds"],
            cpu_s_per_gb=busy_s / received["bytes"] * 1e9,
        )

    def _transfer(self, *arguments: str) -> dict[str, float]:
        """What the server received: bytes, seconds, bits_per_second."""
        done = self.near.run(_on_cpu(self._client_cpu, ["iperf3", "--client", ADDRESS, "--json", *arguments]))
        received: dict[str, float] = json.loads(done.stdout)["end"]["sum_received"]
        return received

    def exchange(self) -> RoundTrips:
        command = ["sockperf", "ping-pong", "--tcp", "-i", ADDRESS, "--full-rtt"]
        command += ["-m", str(MESSAGE_BYTES), "-t", str(EXCHANGE_S)]
        said = self.near.run(_on_cpu(self._client_cpu, command)).stdout
        return RoundTrips(
            count=int(_number(r"Total (\d+) observations", said)),
            p50_us=_number(r"percentile 50\.000 = *([\d.]+)", said),
            p99_us=_number(r"percentile 99\.000 = *([\d.]+)", said),
        )

    def _packets(self) -> int:
        """Both ways, as the interface counts them: a super-packet is one."""
        stats = self.far.json("ip", "-json", "-s", "link", "show", "dev", INTERFACE)[0]["stats64"]
        return int(stats["tx"]["packets"] + stats["rx"]["packets"])


def _on_cpu(cpu: int, command: list[str]) -> list[str]:
    return ["taskset", "-c", str(cpu), *command]


def _end(process: subprocess.Popen[str], reader: threading.Thread) -> None:
    process.kill()
    process.wait(TIMEOUT_S)
    if reader.is_alive():
        reader.join(TIMEOUT_S)
    if process.stdout is not None:
        process.stdout.close()


def _busy_s() -> float:
    """CPU seconds of all CPUs so far, interrupts included: what is not idle (proc(5), uptime) nor the hypervisor's."""
    idle_s = float(Path("/proc/uptime").read_text().split()[1])
    stolen_ticks = int(Path("/proc/stat").read_text().split(maxsplit=9)[8])
    online = os.sysconf("SC_NPROCESSORS_ONLN")
    return time.monotonic() * online - idle_s - stolen_ticks / os.sysconf("SC_CLK_TCK")


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])
