"""What the probes cost the kernel's work on a socket: ns a call, as the kernel itself counts it.

Run as root: .venv/bin/python benchmarks/probe_cost.py.  Requests and responses go over lo in a network namespace of
their own, on CPUs that sleep between them and on CPUs that others keep awake (their caches and clocks are warm);
kernel.bpf_stats_enabled is set meanwhile.  Its own two clock readings are part of each figure.
"""

import ctypes
import os
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tcptrace.sources.live import pcap_filter
from tcptrace.sources.live.interface import find_interface
from tcptrace.sources.live.network_namespace import CLONE_NEWNET, inode
from tcptrace.sources.live.packet_programs import PacketPrograms
from tcptrace.sources.live.socket_probes import ProbeOptions, SocketProbes
from tcptrace.sources.live.socket_ring import SocketRing
from tcptrace.sources.live.source import online_cpus

RUNS = 7
EXCHANGES = 20_000
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
RING_BYTES = 1 << 24
# Samples a second a socket: one in a run is as good as none; None is one at each segment.
CASES = {"limited out": 1, "sampled": None}


@contextmanager
def bpf_stats() -> Iterator[None]:
    before = STATS.read_text()
    STATS.write_text("1\n")
    try:
        yield
    finally:
        STATS.write_text(before)


def own_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        sys.exit(f"a network namespace needs root: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def calls(fd: int) -> tuple[int, int]:
    """run_time_ns, run_cnt of a program (bpf_prog_show_fdinfo())."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return int(fields["run_time_ns"]), int(fields["run_cnt"])


def exchange() -> None:
    """EXCHANGES requests and their responses on one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            server, _ = listener.accept()
            with server:
                while data := server.recv(64):
                    server.sendall(data)

        thread = threading.Thread(target=answer)
        thread.start()
        with socket.create_connection(listener.getsockname()) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(EXCHANGES):
                client.sendall(b"request")
                client.recv(64)
        thread.join()


def measure(samples_per_s: int | None) -> tuple[str, dict[str, list[float]]]:
    """How the probes are attached, and ns a call of each program in each run."""
    probes = SocketProbes(ProbeOptions(netns=inode(), samples_per_s=samples_per_s))
    interface = find_interface("lo")
    programs = PacketPrograms(interface, pcap_filter.filter_source(None, ethernet=True), xdp=False, probes=probes)
    ring = SocketRing(online_cpus(), RING_BYTES)
    costs: dict[str, list[float]] = {}
    try:
        programs.attach_probes(ring.fds)
        fds = programs.probe_fds()
        for _ in range(RUNS):
            before = {name: calls(fd) for name, fd in fds.items()}
            exchange()
            while len(ring.read(1 << 62)):
                pass
            for name, fd in fds.items():
                time_ns, count = (now - then for now, then in zip(calls(fd), before[name], strict=True))
                if count:
                    costs.setdefault(name, []).append(time_ns / count)
    finally:
        programs.close()
        ring.close()
    return probes.kind, costs


@contextmanager
def awake() -> Iterator[None]:
    """Every CPU has something to do, of the lowest priority."""
    idlers = [
        subprocess.Popen([sys.executable, "-c", "import os\nos.nice(19)\nwhile True: pass"]) for _ in online_cpus()
    ]
    try:
        yield
    finally:
        for one in idlers:
            one.kill()
            one.wait()


def main() -> None:
    own_namespace()
    with bpf_stats():
        for condition, around in (("idle CPUs", nullcontext), ("CPUs kept awake", awake)):
            for case, samples_per_s in CASES.items():
                with around():
                    kind, costs = measure(samples_per_s)
                print(f"{condition}, {case} ({kind}), ns a call, of {RUNS} runs with {EXCHANGES:,} exchanges each:")
                for name, figures in costs.items():
                    median = statistics.median(figures)
                    print(f"  {name:22} median {median:6.0f}   {min(figures):6.0f} to {max(figures):6.0f}")


if __name__ == "__main__":
    main()
