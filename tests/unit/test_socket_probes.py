"""Which way in is taken at each place, on kernels made up; and that bcc takes what comes of it."""

import importlib.resources
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from tcptrace.errors import MissingFeatureError
from tcptrace.sources.live import bcc_loader, socket_probes
from tcptrace.sources.live.containers import Cgroup
from tcptrace.sources.live.packet_programs import FILTER_MARKER
from tcptrace.sources.live.pcap_filter import filter_source
from tcptrace.sources.live.process_selection import ProcessSelection
from tcptrace.sources.live.socket_probes import ProbeOptions, SocketProbes

from .kernel_types import FakeKernelTypes

SELECTION = ProcessSelection((23, 1237), ("nginx",), (Cgroup(5, "/a"), Cgroup(6, "/b")))
ALWAYS = ["socket_segment", "socket_retransmission", "socket_synack", "socket_destroyed", "socket_state"]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """kernel(without, kprobes=…) makes it this one's."""

    def make(without: Collection[str] = (), *, kprobes: bool = True) -> None:
        monkeypatch.setattr(socket_probes, "KernelTypes", lambda: FakeKernelTypes(without))
        monkeypatch.setattr(socket_probes, "KPROBE_PMU", str(tmp_path if kprobes else tmp_path / "nothing"))

    return make


def ways(probes: SocketProbes) -> dict[str, str]:
    return {one.place.program: one.name for one in probes._chosen}


def test_kprobes_where_they_are(kernel: Any) -> None:
    kernel()
    probes = SocketProbes(ProbeOptions())
    assert ways(probes) == {
        "socket_segment": "kprobe tcp_rcv_established",
        "socket_retransmission": "raw tracepoint tcp_retransmit_skb",
        "socket_synack": "raw tracepoint tcp_retransmit_synack",
        "socket_destroyed": "raw tracepoint tcp_destroy_sock",
        "socket_state": "raw tracepoint inet_sock_set_state",
        "socket_connect": "kprobe tcp_connect",
        "socket_accept": "kprobe security_sock_graft",
    }
    assert "HAVE_KPROBES" in probes.defines()
    assert "IS_KPROBE_RETRANSMISSION=0" in probes.defines()


def test_raw_tracepoints_where_not(kernel: Any) -> None:
    kernel(kprobes=False)
    probes = SocketProbes(ProbeOptions())
    assert ways(probes) == {
        "socket_segment": "raw tracepoint tcp_probe",
        "socket_retransmission": "raw tracepoint tcp_retransmit_skb",
        "socket_synack": "raw tracepoint tcp_retransmit_synack",
        "socket_destroyed": "raw tracepoint tcp_destroy_sock",
        "socket_state": "raw tracepoint inet_sock_set_state",
        "socket_accept": "raw tracepoint sys_exit",
    }
    assert probes.missing == ["socket_connect"]
    assert "HAVE_KPROBES" not in probes.defines()
    assert probes.kind == "raw tracepoints"


def test_what_was_asked_for(kernel: Any) -> None:
    kernel()
    assert SocketProbes(ProbeOptions("tracepoints")).kind == "raw tracepoints"
    kernel(kprobes=False)
    with pytest.raises(MissingFeatureError, match="no kprobes"):
        SocketProbes(ProbeOptions("kprobes"))


@pytest.mark.parametrize(
    ("without", "program", "way"),
    [
        ({"tcp_retransmit_skb"}, "socket_retransmission", "kprobe __tcp_retransmit_skb"),
        ({"tcp_retransmit_synack"}, "socket_synack", "kprobe tcp_rtx_synack"),
        ({"tcp_destroy_sock"}, "socket_destroyed", "kprobe tcp_v4_destroy_sock"),
        ({"inet_sock_set_state"}, "socket_state", None),
        ({"security_sock_graft"}, "socket_accept", "raw tracepoint sys_exit"),
        ({"security_sock_graft", "fdt"}, "socket_accept", None),
    ],
)
def test_the_other_way_in(kernel: Any, without: set[str], program: str, way: str | None) -> None:
    kernel(without)
    if way is not None:
        assert ways(SocketProbes(ProbeOptions()))[program] == way
    elif program == "socket_accept":
        assert SocketProbes(ProbeOptions()).missing == [program]
    else:
        with pytest.raises(MissingFeatureError, match="nothing to follow sockets by: inet_sock_set_state"):
            SocketProbes(ProbeOptions())


def test_accept_needs_the_way_to_its_socket(kernel: Any) -> None:
    kernel({"private_data"}, kprobes=False)
    probes = SocketProbes(ProbeOptions())
    assert "socket_accept" in probes.missing
    assert "#define HAVE_TASK_FILES" not in probes.source()


def test_another_machine(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel()
    monkeypatch.setattr(socket_probes, "MACHINES", {})
    with pytest.raises(MissingFeatureError, match="not followed on"):
        SocketProbes(ProbeOptions())


@pytest.mark.parametrize(
    ("samples_per_s", "resolution_s", "ticks"),
    [(10, 0.004, 25), (10, 1 / 300, 31), (150, 0.004, 2), (1000, 0.004, 1), (1000, 0.001, 1), (None, 0.004, 0)],
)
def test_never_more_samples_than_asked_for(
    kernel: Any, monkeypatch: pytest.MonkeyPatch, samples_per_s: int | None, resolution_s: float, ticks: int
) -> None:
    kernel()
    monkeypatch.setattr(socket_probes.time, "clock_getres", lambda _: resolution_s)
    defines = SocketProbes(ProbeOptions(samples_per_s=samples_per_s)).defines()
    assert f"SAMPLE_TICKS={ticks}ULL" in defines


@pytest.mark.bpf
@pytest.mark.parametrize("kprobes", [True, False])
@pytest.mark.parametrize("selection", [ProcessSelection(), SELECTION], ids=["all", "chosen"])
@pytest.mark.parametrize("without", [(), {"srtt_us", "kn", "group_leader", "chrono_stat"}], ids=["", "little"])
def test_it_compiles(kernel: Any, kprobes: bool, selection: ProcessSelection, without: Collection[str]) -> None:
    """Not loaded: what a made-up kernel has, this one may refuse."""
    kernel(without, kprobes=kprobes)
    probes = SocketProbes(ProbeOptions(selection=selection, netns=1237, all_events=True))
    headers = Path(str(importlib.resources.files("tcptrace") / "bpf"))
    wanted = filter_source(None, ethernet=True) + probes.packet_source()
    text = (headers / "packet.c").read_text().replace(FILTER_MARKER, wanted)
    text += probes.source() + (headers / "handover.c").read_text()
    defines = ["LINK_KIND=LINK_ETHERNET", "DIRECTION_MARKER=7", "SOCKETS", *probes.defines()]
    programs = bcc_loader.compile_programs(text, headers, defines)
    try:
        assert set(probes.programs) >= set(ALWAYS)
        assert programs[b"socket_records"] is not None
    finally:
        programs.cleanup()
