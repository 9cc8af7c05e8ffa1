"""What the programs could not tell of sockets is counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import PAGESIZE
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from netns_tools import Namespace
from programs.inside import Sockets, inside

from tcptrace.model import Totals
from tcptrace.sources.live import pcap_filter, socket_probes, socket_source
from tcptrace.sources.live.interface import find_interface
from tcptrace.sources.live.network_namespace import inode
from tcptrace.sources.live.packet_programs import PacketPrograms
from tcptrace.sources.live.socket_probes import ProbeOptions, SocketProbes
from tcptrace.sources.live.socket_source import SocketSource
from tcptrace.sources.live.source import online_cpus

LO = "127.0.0.1"
ROUNDS = 1237
RING_BYTES = 4 * PAGESIZE
FOLLOWED = 64
WAITING = 16
"""Of a CPU, at most: records.h, BATCH_SAMPLES."""


@dataclass
class Probed:
    """The probes' source, and their programs."""

    source: SocketSource
    programs: PacketPrograms

    def calls(self) -> int:
        """How often a segment was looked at, of any namespace, by bpf_prog_show_fdinfo()."""
        fdinfo = Path(f"/proc/self/fdinfo/{self.programs.probe_fds()['socket_segment']}").read_text()
        return int(fdinfo.partition("run_cnt:")[2].split()[0])

    def totals(self) -> Totals:
        totals = Totals()
        self.source.fill_totals(totals)
        return totals

    def take(self) -> Any:
        """Records of this moment."""
        return self.source.read(1 << 62, is_last=True)


@contextmanager
def probed() -> Iterator[Probed]:
    """Of this thread's network namespace, a record at each segment."""
    interface = find_interface("lo")
    probes = SocketProbes(ProbeOptions(netns=inode(), samples_per_s=None))
    programs = PacketPrograms(interface, pcap_filter.filter_source(None, ethernet=True), xdp=False, probes=probes)
    source = None
    try:
        source = SocketSource(programs, online_cpus(), interface, None, 0)
        yield Probed(source, programs)
    finally:
        if source is not None:
            source.close()
        programs.close()


@pytest.fixture
def near() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


@pytest.fixture
def counted_calls() -> Iterator[None]:
    setting = Path("/proc/sys/kernel/bpf_stats_enabled")
    before = setting.read_text()
    setting.write_text("1\n")
    yield
    setting.write_text(before)


@pytest.mark.usefixtures("counted_calls")
def test_full_rings(near: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_source, "RING_BYTES", RING_BYTES)
    with inside(near), Sockets() as sockets, probed() as probes:
        pair = sockets.pair(near, near, LO, 8_080)
        probes.take()
        before, calls_before = probes.totals(), probes.calls()
        pair.ping_pong(ROUNDS)
        calls = probes.calls() - calls_before
        taken = len(probes.take())
        totals = probes.totals()
        assert totals.socket_records - before.socket_records == taken
        told = taken + totals.socket_records_lost - before.socket_records_lost
    assert 0 < taken < RING_BYTES * len(online_cpus()) // 256  # a record is larger than that
    # Each segment with data was told of, or lost, or waits to be handed over; and nothing twice.
    waiting = WAITING * len(online_cpus())
    assert 2 * ROUNDS - waiting <= told <= calls + waiting


def test_more_sockets_than_are_followed(near: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (socket_probes, socket_source):
        monkeypatch.setattr(module, "FOLLOWED_MAX", FOLLOWED)
    with inside(near), Sockets() as sockets, probed() as probes:
        pairs = [sockets.pair(near, near, LO, 8_080) for _ in range(150)]
        forgotten = probes.totals().sockets_forgotten
        told = probes.take()
        assert {port for pair in pairs for port in pair.ports} <= set(told["key"]["local_port"].tolist())
        assert probes.totals().socket_records_lost == 0
        sockets.close()
        assert probes.totals().sockets_forgotten >= forgotten
    # Those of other namespaces are followed, too, so as to be passed over.
    assert forgotten in range(2 * len(pairs) - FOLLOWED, 2 * len(pairs))


def test_none_is_forgotten(near: Namespace) -> None:
    with inside(near), Sockets() as sockets, probed() as probes:
        for _ in range(150):
            sockets.pair(near, near, LO, 8_080)
        totals = probes.totals()
        assert (totals.sockets_forgotten, totals.socket_records_lost) == (0, 0)
        assert np.count_nonzero(probes.take()["view"]["state"] == 1) >= 300
