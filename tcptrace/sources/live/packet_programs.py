"""The packet programs of one interface: compiled, loaded, and wired to the rings."""

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from tcptrace.records import DIRECTION_EGRESS, DIRECTION_INGRESS
from tcptrace.sources.live import bcc_loader
from tcptrace.sources.live.flow_counts import FlowCounter
from tcptrace.sources.live.hooks import TcHook
from tcptrace.sources.live.interface import Interface
from tcptrace.sources.live.socket_probes import SocketProbes

FILTER_MARKER: Final = "/* FILTER */"
# How often a CPU hands over a batch that is not full, and says how far it has come.
TICK_HZ: Final = 50
# Of which records are lost at a time; 200 bytes each, in the kernel.
FLOWS: Final = 131_072
DIRECTIONS: Final[Mapping[TcHook, int]] = {"ingress": DIRECTION_INGRESS, "egress": DIRECTION_EGRESS}
# Any number that the code has no other use for.
DIRECTION_MARKER: Final = 0x7463_6469


class PacketPrograms:
    """The programs of bpf/ for one interface, in the kernel but not yet attached.

    `tc_fds` are for the TC hooks that are wanted; `xdp_fd` is None unless `xdp`.
    `snaplen`: bytes of each frame that are handed over with its record, never more than records.FRAME_MAX_BYTES; 0 for
    none.
    `flows`: of how many connections records may be lost at a time.
    `probes`: what shall follow sockets besides.
    Raises MissingFeatureError or NotPermittedError.
    """

    def __init__(
        self,
        interface: Interface,
        filter_source: str,
        *,
        xdp: bool,
        snaplen: int = 0,
        flows: int = FLOWS,
        probes: SocketProbes | None = None,
    ) -> None:
        self.snaplen = snaplen
        self.probes = probes
        headers = Path(str(importlib.resources.files("tcptrace") / "bpf"))
        self.flows = flows
        inner = [filter_source, (headers / "flows.c").read_text()]
        if probes is not None:
            inner.append(probes.packet_source())
        text = (headers / "packet.c").read_text().replace(FILTER_MARKER, "\n".join(inner))
        defines = [f"LINK_KIND={'LINK_ETHERNET' if interface.link == 'ethernet' else 'LINK_RAW_IP'}"]
        defines += [f"FLOWS_MAX={flows}", f"DIRECTION_MARKER={DIRECTION_MARKER}"]
        if interface.is_loopback:
            defines.append("LOOPBACK")
        if xdp:
            defines += ["HOOK_XDP", f"MTU_BYTES={interface.mtu_bytes}"]
        if snaplen:
            defines.append(f"SNAPLEN={snaplen}")
        if probes is not None:  # each compilation costs its own 0.4 s, so both at once
            text += probes.source()
            defines += ["SOCKETS", *probes.defines()]
        text += (headers / "handover.c").read_text()
        self._bpf: Any = bcc_loader.compile_programs(text, headers, defines)
        # Every packet on lo goes out and comes in again: one hook sees each of them once.
        wanted: dict[TcHook, bool] = {"ingress": not xdp, "egress": not interface.is_loopback}
        self.tc_fds = {hook: self._load_for(hook) for hook, is_wanted in wanted.items() if is_wanted}
        self.xdp_fd = bcc_loader.load(self._bpf, "xdp_packet", self._bpf.XDP) if xdp else None
        bcc_loader.load(self._bpf, "tick", self._bpf.PERF_EVENT)
        bcc_loader.load(self._bpf, "going_idle", self._bpf.RAW_TRACEPOINT)
        if probes is not None:
            probes.load(self._bpf)

    def _load_for(self, hook: TcHook) -> int:
        """Compiled once, as that takes longer than anything else at the start."""
        return bcc_loader.load_with(self._bpf, "tc_packet", self._bpf.SCHED_CLS, DIRECTION_MARKER, DIRECTIONS[hook])

    def connect(self, ring_fds: dict[int, int]) -> None:
        """Send each CPU's batches to its ring, and start the tick.  Before anything is attached."""
        bcc_loader.put_in_map(self._bpf, "batches", ring_fds)
        bcc_loader.attach_tick(self._bpf, "tick", TICK_HZ)
        # Where there is none, the tick alone has to do.
        bcc_loader.attach_raw_tracepoint(self._bpf, "going_idle", "cpu_idle")

    def attach_probes(self, ring_fds: dict[int, int]) -> None:
        """From now on the kernel's sockets are told of in these rings.  Raises MissingFeatureError."""
        if self.probes is not None:
            self.probes.attach(self._bpf, ring_fds)

    def socket_counts(self) -> npt.NDArray[Any]:
        """SOCKET_COUNTS of each CPU, of the probes that there must be.  Raises MissingFeatureError."""
        assert self.probes is not None
        return self.probes.counts(self._bpf)

    def flow_counter(self) -> FlowCounter:
        """Reads what the kernel has counted of each flow."""
        fds = bcc_loader.map_fd(self._bpf, "flows"), bcc_loader.map_fd(self._bpf, "loss_times")
        return FlowCounter(*fds, self.flows)

    def probe_fds(self) -> dict[str, int]:
        """File descriptor of each probe's program, by its name in bpf/socket.c."""
        names = self.probes.programs if self.probes is not None else []
        return {name: bcc_loader.loaded_fd(self._bpf, name) for name in names}

    def let_through(self, flows: npt.NDArray[Any]) -> None:
        """Packets of these SOCKET_KEYs, where probes choose by process; needs privileges.  Raises TcptraceError."""
        bcc_loader.put_keys_in_map(self._bpf, "selected", [flow.tobytes() for flow in flows])

    def close(self) -> None:
        """Give maps, programs, probes and the tick back to the kernel."""
        bcc_loader.release(self._bpf)
