"""Retransmissions of much traffic over bad links: on the wire, by the kernel's own count, and cause by cause."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from netns_tools import TIMEOUT_S
from programs import mib, probes
from programs.inside import Pair, Sockets, mark
from programs.netem import netem
from programs.router import FAR, Routed, routed, slow
from programs.scenes import TCPI_TOTAL_RETRANS_AT, tcp_info, wait_until
from programs.ss import numbers_of, socket_of
from programs.watch import Event, Watch, settle

TCPI_UNACKED_AT = 24
SUMMANDS = ("rto", "fast", "tlp", "syn", "syn_ack", "other", "unseen")
CONNECTIONS = 4
BULK_BYTES = 6_000_000
LOSSY_BULK_BYTES = 12_000_000
"""8,300 segments, of which one in a hundred is lost: hardly ever fewer than 50."""
CONTROLS = (b"reno", b"cubic")


def send_bulk(pairs: list[Pair], size_bytes: int) -> None:
    """From all clients to their servers at the same time, to the last acknowledgment."""

    def receive(end: socket.socket) -> None:
        size = size_bytes
        while size:
            size -= len(end.recv(min(size, 1 << 18)))

    work = [threading.Thread(target=receive, args=(pair.server,), daemon=True) for pair in pairs]
    work += [threading.Thread(target=pair.client.sendall, args=(bytes(size_bytes),), daemon=True) for pair in pairs]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(TIMEOUT_S)
    wait_until(lambda: all(tcp_info(pair.client, TCPI_UNACKED_AT) == 0 for pair in pairs))


@pytest.fixture(params=probes.WAYS)
def way(request: pytest.FixtureRequest) -> str:
    probes.require(request.param)
    return str(request.param)


@pytest.fixture
def path() -> Iterator[Routed]:
    with routed() as path:
        yield path


@dataclass(frozen=True)
class Sums:
    """Over all connections."""

    wire: int
    kernel: int
    causes: dict[str, int]


def trace(path: Routed, way: str, capsys: pytest.CaptureFixture[str], bulk_bytes: int = BULK_BYTES) -> Sums:
    """Each connection's numbers are the kernel's; the sums of all of them are returned and printed."""
    with Sockets() as sockets, Watch(path.near, "--probes", way) as watch:
        before = mib.read(path.near)
        pairs = [sockets.pair(path.near, path.far, FAR, 7000 + number) for number in range(CONNECTIONS)]
        for number, pair in enumerate(pairs):
            pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONTROLS[number % len(CONTROLS)])
        send_bulk(pairs, bulk_bytes // CONNECTIONS)
        counters = mib.since(before, path.near)
        settle((watch,), lambda: mark(sockets, path.near, FAR))
        lines = [watch.latest[pair.ports] for pair in pairs]
        for pair, line in zip(pairs, lines, strict=True):
            judge = socket_of(path.near, *pair.ports)
            assert judge is not None
            assert numbers_of(line) == judge.numbers()
            assert line["kernel_retransmissions"] == tcp_info(pair.client, TCPI_TOTAL_RETRANS_AT)
            assert sum(causes_of(line).values()) == line["kernel_retransmissions"]
        watch.end()
    sums = Sums(
        wire=sum(line["sent_retransmissions"] for line in lines),
        kernel=sum(line["kernel_retransmissions"] for line in lines),
        causes={name: sum(causes_of(line)[name] for line in lines) for name in SUMMANDS},
    )
    with capsys.disabled():
        print(f" [wire {sums.wire}, kernel {sums.kernel}, by cause {sums.causes}, its counters {counters}]", end="")
    assert sums.wire == pytest.approx(sums.kernel, rel=0.02)
    assert sums.kernel >= 50
    assert sums.causes["unseen"] == sums.causes["syn_ack"] == sums.causes["other"] == 0
    assert sums.causes["fast"] == counters["fast"]
    # A link that loses at random may lose a SYN, whose timer counts as one too.
    assert sums.causes["syn"] == counters["syn"]
    assert sums.causes["rto"] + sums.causes["syn"] == counters["rto"]
    # A probe may be of data that were not sent before.
    assert sums.causes["tlp"] <= counters["tlp"]
    return sums


def causes_of(line: Event) -> dict[str, int]:
    return {name: line[f"retransmissions_{name}"] for name in SUMMANDS}


def test_a_queue_that_is_too_short(path: Routed, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    slow(path.router, "veth1")
    assert trace(path, way, capsys).causes["fast"] >= 50


@pytest.mark.matrix
def test_a_link_that_loses_one_in_a_hundred(path: Routed, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    netem(path.router, "veth1", "loss", "1%", "delay", "5ms")
    # A frame lost is one segment lost, not all those of a super-packet.
    for namespace in (path.near, path.router):
        namespace.run(["ethtool", "-K", "veth0", "tso", "off", "gso", "off", "gro", "off"])
    assert trace(path, way, capsys, LOSSY_BULK_BYTES).causes["fast"] >= 30
