"""Which places of the kernel tell of its sockets, and by which way in: kprobes, or raw tracepoints where it has none.

A kprobe needs the function, a raw tracepoint the tracepoint; both are looked up in the kernel's type information
before bpf/followed.c, samples.c and socket.c are compiled.
"""

import importlib.resources
import math
import os
import time
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.errors import MissingFeatureError
from tcptrace.model import PROBES
from tcptrace.records import SOCKET_COUNTS
from tcptrace.sources.live import bcc_loader
from tcptrace.sources.live.btf import KernelTypes
from tcptrace.sources.live.process_selection import ProcessSelection
from tcptrace.sources.live.socket_layout import accept_source, layout_source

LAYOUT_MARKER: Final = "/* LAYOUT */"
SELECTION_MARKER: Final = "/* SELECTION */"
# Kprobes as perf events, which go with the process that opened them (Linux 4.17).
KPROBE_PMU: Final = "/sys/bus/event_source/devices/kprobe"
# Sockets followed at once, 300 bytes each; beyond them the least recently heard of is forgotten.
FOLLOWED_MAX: Final = 65_536
# Of a socket's samples: more says nothing new to who looks once a second.
SAMPLES_PER_S: Final = 10
# linux/time.h: this clock goes by jiffies, and its resolution is one of them.
CLOCK_MONOTONIC_COARSE: Final = 6
# sysconf(_SC_OPEN_MAX) at most, fs.nr_open's default: what accept() may return.
FD_MAX: Final = 1 << 20

# uname -m: define for bpf/socket.c, offset of the system call's number in struct pt_regs, numbers of accept, accept4.
MACHINES: Final = {
    "x86_64": ("ARCH_X86_64", 15 * 8, 43, 288),
    "aarch64": ("ARCH_ARM64", 35 * 8, 202, 242),
}


def possible_cpus() -> int:
    """How many this machine may ever have (/sys/devices/system/cpu/possible, "0-3")."""
    with open("/sys/devices/system/cpu/possible") as file:
        return int(file.read().strip().rpartition("-")[2].rpartition(",")[2]) + 1


@dataclass(frozen=True)
class Place:
    """Where a program of bpf/socket.c may be run."""

    program: str
    switch: str | None  # the define that says which way in it has
    kprobe: str | None
    tracepoint: str | None
    needed: bool = False
    prefers_tracepoint: bool = False


PLACES: Final = (
    Place("socket_segment", "ON_SEGMENT", "tcp_rcv_established", "tcp_probe", needed=True),
    # The tracepoint comes after the retransmission; the functions begin also where the queue or the window forbids it.
    Place("socket_retransmission", "ON_RETRANSMISSION", "__tcp_retransmit_skb", "tcp_retransmit_skb",
          needed=True, prefers_tracepoint=True),
    Place("socket_synack", "ON_SYNACK", "tcp_rtx_synack", "tcp_retransmit_synack", prefers_tracepoint=True),
    # A kprobe is passed over where another one's program was interrupted; the tracepoint only where its own was.
    Place("socket_destroyed", "ON_DESTROYED", "tcp_v4_destroy_sock", "tcp_destroy_sock",
          needed=True, prefers_tracepoint=True),
    # Also for what does not go through tcp_set_state(): a socket begins to listen, a child is born.
    Place("socket_state", None, None, "inet_sock_set_state", needed=True, prefers_tracepoint=True),
    Place("socket_connect", None, "tcp_connect", None),
    Place("socket_accept", None, "security_sock_graft", "sys_exit"),
)  # fmt: skip


@dataclass(frozen=True)
class ProbeOptions:
    """What the user asked for."""

    way: str = "auto"  # or "kprobes", "tracepoints"
    netns: int = 0  # inode of the network namespace whose sockets are told of
    samples_per_s: int | None = SAMPLES_PER_S  # of a socket, and one a tick of the kernel at most; None: each segment
    all_events: bool = False
    selection: ProcessSelection = field(default_factory=ProcessSelection)  # of processes; empty: all

    @property
    def is_insisted_on(self) -> bool:
        """A trace without the probes is not what was asked for."""
        return bool(self.selection) or self.way != "auto"


@dataclass(frozen=True)
class _Chosen:
    place: Place
    by_kprobe: bool

    @property
    def name(self) -> str:
        """What is attached to, in words."""
        if not self.by_kprobe:
            return f"raw tracepoint {self.place.tracepoint}"
        return f"kprobe {self.place.kprobe}"


class SocketProbes:
    """bpf/socket.c for this kernel.  Raises MissingFeatureError where the kernel cannot run it."""

    def __init__(self, options: ProbeOptions) -> None:
        self.options = options
        self.attached: list[str] = []
        """What runs, in words, once attach() has returned."""
        self.missing: list[str] = []
        """What this kernel does not have, or would not attach to."""
        machine = MACHINES.get(os.uname().machine)
        if machine is None:
            raise MissingFeatureError(f"the kernel's sockets are not followed on {os.uname().machine}")
        self._machine = machine
        self._types = KernelTypes()
        self._kprobes = self._use_kprobes()
        self._chosen = [chosen for place in PLACES if (chosen := self._choose(place)) is not None]

    def _use_kprobes(self) -> bool:
        if self.options.way == "tracepoints":
            return False
        there = os.path.exists(KPROBE_PMU) and self._types.has_function("tcp_rcv_established")
        if self.options.way == "kprobes" and not there:
            raise MissingFeatureError("this kernel has no kprobes (CONFIG_KPROBES): try --probes tracepoints")
        return there

    def _choose(self, place: Place) -> _Chosen | None:
        by_kprobe = self._kprobes and place.kprobe is not None and self._types.has_function(place.kprobe)
        by_tracepoint = place.tracepoint is not None and self._types.has_typedef(f"btf_trace_{place.tracepoint}")
        if place.program == "socket_accept":
            by_tracepoint = by_tracepoint and accept_source(self._types) is not None
        if by_tracepoint and (place.prefers_tracepoint or not by_kprobe):
            return _Chosen(place, by_kprobe=False)
        if by_kprobe:
            return _Chosen(place, by_kprobe=True)
        if place.needed:
            places = " or ".join(one for one in (place.kprobe, place.tracepoint) if one)
            raise MissingFeatureError(f"this kernel has nothing to follow sockets by: {places}")
        self.missing.append(place.program)
        return None

    @property
    def programs(self) -> list[str]:
        """Names of those that this kernel is to run."""
        return [one.place.program for one in self._chosen]

    def packet_source(self) -> str:
        """C to be compiled into bpf/packet.c, behind its filter."""
        return _text_of("selected.c") if self.options.selection else ""

    def source(self) -> str:
        """C to be compiled after bpf/packet.c."""
        text = "".join(map(_text_of, ("followed.c", "samples.c", "socket.c")))
        layout = [layout_source(self._types)]
        if any(one.place.program == "socket_accept" and not one.by_kprobe for one in self._chosen):
            layout.append(accept_source(self._types) or "")
        text = text.replace(SELECTION_MARKER, self.options.selection.source() if self.options.selection else "")
        return text.replace(LAYOUT_MARKER, "\n".join(layout))

    def defines(self) -> list[str]:
        """For the compiler."""
        machine, regs_syscall, accept, accept4 = self._machine
        options = self.options
        tick_us = round(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e6)
        sample_us = 1_000_000 / options.samples_per_s if options.samples_per_s else 0
        lines = [
            machine,
            f"NETNS={options.netns}u",
            f"TICK_US={tick_us}ULL",
            f"SAMPLE_TICKS={math.ceil(sample_us / tick_us)}ULL",
            f"CPUS={possible_cpus()}",
            f"FOLLOWED_MAX={FOLLOWED_MAX}",
            f"ALL_EVENTS={int(options.all_events)}",
            f"FD_MAX={FD_MAX}",
            f"REGS_SYSCALL={regs_syscall}",
            f"SYSCALL_ACCEPT={accept}",
            f"SYSCALL_ACCEPT4={accept4}",
        ]
        if self._kprobes:
            lines.append("HAVE_KPROBES")
        if options.selection:
            lines.append("PROCESS_FILTER")
        ways = {one.place.program: "KPROBE" if one.by_kprobe else "RAW_TRACEPOINT" for one in self._chosen}
        if ways.get("socket_accept") == "KPROBE":
            lines.append("ACCEPT_BY_KPROBE")
        for place in PLACES:
            if place.switch is not None:
                lines.append(f"{place.switch}={ways.get(place.program, 'RAW_TRACEPOINT')}")
        lines.append(f"IS_KPROBE_RETRANSMISSION={int(ways['socket_retransmission'] == 'KPROBE')}")
        return lines

    def load(self, programs: Any) -> None:
        """Into the kernel, not attached yet.  Raises MissingFeatureError, NotPermittedError."""
        for one in self._chosen:
            bcc_loader.load(programs, one.place.program, programs.KPROBE if one.by_kprobe else programs.RAW_TRACEPOINT)

    def attach(self, programs: Any, ring_fds: dict[int, int]) -> None:
        """Records go to these rings from now on.  Raises MissingFeatureError if a needed place refuses."""
        bcc_loader.put_in_map(programs, "socket_records", ring_fds)
        self.options.selection.put_cgroups(programs)
        for one in self._chosen:
            place = one.place
            if one.by_kprobe:
                done = bcc_loader.attach_kprobe(programs, place.program, str(place.kprobe))
            else:
                done = bcc_loader.attach_raw_tracepoint(programs, place.program, str(place.tracepoint))
            if done:
                self.attached.append(one.name)
            elif place.needed:
                raise MissingFeatureError(f"the kernel does not attach to {one.name}")
            else:
                self.missing.append(place.program)

    def counts(self, programs: Any) -> npt.NDArray[Any]:
        """SOCKET_COUNTS of each CPU, as they change, for as long as the programs are there.  MissingFeatureError."""
        size_bytes = possible_cpus() * SOCKET_COUNTS.itemsize
        return np.frombuffer(bcc_loader.share_memory(programs, "socket_counts", size_bytes), SOCKET_COUNTS)

    @property
    def kind(self) -> str:
        """One of model.PROBES."""
        kinds = {one.by_kprobe for one in self._chosen}
        return PROBES[2] if len(kinds) == 2 else PROBES[0] if True in kinds else PROBES[1]


def _text_of(name: str) -> str:
    return (importlib.resources.files("tcptrace") / "bpf" / name).read_text()
