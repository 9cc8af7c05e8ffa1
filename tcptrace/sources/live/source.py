"""Live packets of one interface, from the hooks in the kernel to records in time order."""

import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.errors import MissingFeatureError, TcptraceError
from tcptrace.model import Clock, Totals
from tcptrace.records import FRAME_MAX_BYTES, PACKET_RECORD, CaptureInterface, Frames
from tcptrace.sources.live.flow_counts import FlowCounts, LostAndCounted
from tcptrace.sources.live.hooks import Hooks
from tcptrace.sources.live.interface import Interface, description, still_there
from tcptrace.sources.live.packet_programs import PacketPrograms
from tcptrace.sources.live.ring import Ring
from tcptrace.sources.live.socket_source import NO_RECORDS, SocketSource

# Records handed on at once: half a megabyte, so that the engine finds them in the CPU's cache.
READ_RECORDS: Final = 4096
# Of frames handed on at once; more than the largest one.
READ_FRAMES_BYTES: Final = 4 << 20
# Between reads of what is told of sockets while packets come without a pause: a read takes 0.01 to 0.2 ms.
SOCKETS_EVERY_NS: Final = 50_000_000
# Of https://www.tcpdump.org/linktypes.html.
LINK_TYPES: Final = {"ethernet": 1, "raw": 101}
# Reading two clocks one after the other differs by less than this; a clock that is set, by more.
CLOCK_STEP_NS: Final = 1_000_000
# An interface that is taken away is down first, for a moment that one check may fall into.
CHECKS_DOWN: Final = 2
# All rings together; each is a power of two within these bounds unless the user says otherwise.
RINGS_TOTAL_BYTES: Final = 128 << 20
RING_MAX_BYTES: Final = 16 << 20
# With frames: 30 ms of 16 Gb/s, for a reader that waits for its turn.
FRAMES_RING_MAX_BYTES: Final = 64 << 20
RING_MIN_BYTES: Final = 1 << 20


def online_cpus() -> list[int]:
    """CPU numbers from /sys/devices/system/cpu/online ("0-3,8")."""
    with open("/sys/devices/system/cpu/online") as file:
        ranges = [part.split("-") for part in file.read().strip().split(",")]
    return [cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)]


def default_ring_bytes(cpus: int, snaplen: int = 0) -> int:
    """16 MiB a CPU, with frames 64, less where there are many CPUs."""
    most = FRAMES_RING_MAX_BYTES if snaplen else RING_MAX_BYTES
    share = min(most, max(RING_MIN_BYTES, RINGS_TOTAL_BYTES // cpus))
    return 1 << (share.bit_length() - 1)


def _room_for_frames() -> Frames:
    """For as many as are handed on at once, all of the one interface."""
    return Frames(
        data=np.zeros(READ_FRAMES_BYTES, "u1"),
        starts=np.zeros(READ_RECORDS, "i8"),
        captured_bytes=np.zeros(READ_RECORDS, "u4"),
        original_bytes=np.zeros(READ_RECORDS, "u4"),
        interfaces=np.zeros(READ_RECORDS, "u2"),
    )


class LiveSource:
    """Packets of `interface` from now on, with the first bytes of their frames if the programs have a snaplen.

    Rings, tick and hooks are set up here, which needs privileges; afterwards the process may drop them, since `hooks`
    takes away without them what is attached.  `attached` says in words what is; `interfaces` is where frames() come
    from; `sockets` is the kernel's own view, if the programs have probes, `problem` what it lacks; `expression`, the
    programs' filter, is for the sockets that are open already.
    Raises TcptraceError and its kinds.
    """

    is_recorded = False

    def __init__(
        self,
        interface: Interface,
        hooks: Hooks,
        programs: PacketPrograms,
        *,
        ring_bytes: int | None,
        expression: str | None = None,
    ) -> None:
        self.interface = interface
        self.clock = Clock()
        self._hooks = hooks
        self._programs = programs
        self._buffer: npt.NDArray[Any] = np.zeros(READ_RECORDS, PACKET_RECORD)
        self._frames: Frames | None = _room_for_frames() if programs.snaplen else None
        self._count = 0
        self._stop_ns: int | None = None
        self._checks_down = 0
        self._thinned = 0
        self._sockets_due_ns = 0
        cpus = online_cpus()
        snaplen = min(programs.snaplen, FRAME_MAX_BYTES)
        self._read_ns = time.monotonic_ns()
        self._ring = Ring(cpus, ring_bytes or default_ring_bytes(len(cpus), snaplen), time.monotonic_ns(), snaplen)
        programs.connect(self._ring.fds)
        self._counts = LostAndCounted(programs.flow_counter())
        self.problem: str | None = None
        self.sockets = self._follow_sockets(cpus, expression)
        if self.sockets is not None:
            self._ring.wake_also_by(self.sockets.ring_fds)
        self._follow_clock()
        self.attached = self._attach()
        # A capture says how it saw the packets: what that leaves out (GRO, a queue's drops) depends on it.
        what = description(interface.name) or interface.link
        seen = f"{what}, seen by {self.attached}"
        self.interfaces = [CaptureInterface(interface.name, seen, LINK_TYPES[interface.link], snaplen)]
        self.start_ns = time.monotonic_ns()

    def _follow_sockets(self, cpus: list[int], expression: str | None) -> SocketSource | None:
        """Before the packet hooks: a socket is told of before its first packet is seen."""
        probes = self._programs.probes
        if probes is None:
            return None
        try:
            sockets = SocketSource(self._programs, cpus, self.interface, expression, time.monotonic_ns())
        except MissingFeatureError as error:
            if probes.options.is_insisted_on:
                raise
            self.problem = str(error)
            return None
        self.problem = sockets.problem
        return sockets

    def _attach(self) -> str:
        index, programs = self.interface.index, self._programs
        attached = []
        if programs.xdp_fd is not None:
            attached.append(f"xdp ({self._hooks.attach_xdp(index, programs.xdp_fd)}) ingress")
        if programs.tc_fds:
            self._hooks.attach_tc(index, programs.tc_fds)
            attached.append(f"tc {'+'.join(programs.tc_fds)}")
        return ", ".join(attached)

    def _follow_clock(self) -> None:
        """Follow the wall clock when it is set; NTP's slewing moves CLOCK_MONOTONIC alike."""
        offset_ns = time.time_ns() - time.monotonic_ns()
        if abs(offset_ns - self.clock.offset_ns) > CLOCK_STEP_NS:
            self.clock.offset_ns = offset_ns

    def now_ns(self) -> int:
        """The trace's clock: CLOCK_MONOTONIC, as bpf_ktime_get_ns()."""
        return time.monotonic_ns()

    def read(self, timeout_s: float) -> npt.NDArray[Any]:
        """The next records in time order, possibly none; valid until the next call.

        All there are have been read: then it waits for so long, or until many have come.
        """
        if timeout_s > 0 and not self._ring.has_more:
            self._ring.wait(timeout_s)
        self._count = self._read()
        return self._buffer[: self._count]

    def _read(self) -> int:
        self._read_ns = time.monotonic_ns()
        return self._ring.read(self._buffer, self._read_ns, self._frames)

    def frames(self) -> Frames | None:
        """The frames of the records that the last read() returned, as they are on the wire; valid as long as those.

        None without a snaplen.  original_bytes is a super-packet's own length, not that of its segments.
        """
        return None if self._frames is None else self._frames.part(0, self._count)

    def read_sockets(self) -> npt.NDArray[Any]:
        """What the kernel said of sockets up to the packets read so far (SOCKET_RECORD), in time order.

        Nothing while more packets can be read at once, but for every 50 ms.
        """
        if self.sockets is None or (self._ring.has_more and self._read_ns < self._sockets_due_ns):
            return NO_RECORDS
        self._sockets_due_ns = self._read_ns + SOCKETS_EVERY_NS
        if self._count:  # more packets may wait to be read, and a socket finds its connection by them
            return self.sockets.read(int(self._buffer["time_ns"][self._count - 1]))
        return self.sockets.read(self.complete_ns(), is_last=self.finished)

    def ask_sockets(self, keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the kernel holds now of these sockets (SOCKET_KEY), as far as they are there."""
        if self.sockets is None:
            return NO_RECORDS
        return self.sockets.ask(keys, time.monotonic_ns())

    def unsure_ns(self) -> int | None:
        """Since when records may have been lost because the ring was full, and not counted yet; None: they have not."""
        return self._ring.unsure_ns()

    def take_flow_counts(self) -> FlowCounts | None:
        """If records were lost since the last time: what the kernel had counted of each flow that lost some, up to a
        moment that all records have been handed on up to.
        """
        complete_ns = self.complete_ns() if self._ring.drained else 0
        is_finished = self.finished and self._ring.drained
        counts = self._counts.take(self._ring.lost(), self._ring.lost_ns(), complete_ns, finished=is_finished)
        if counts is not None:
            self._ring.note_counts_read(self._counts.known_ns)
        return counts

    def stop(self) -> None:
        """Detach; what passed the hooks before is still read."""
        if self._stop_ns is None:
            try:
                self._hooks.close()
            finally:
                self._stop_ns = time.monotonic_ns()

    def complete_ns(self) -> int:
        """All records up to this time were in the rings at the last read(), or have been read; not past stop().

        By that read's clock: what came since then, however long this process was kept from going on, is not read yet.
        """
        complete_ns = self._ring.complete_ns(self._read_ns)
        return complete_ns if self._stop_ns is None else min(complete_ns, self._stop_ns)

    @property
    def finished(self) -> bool:
        """After stop(): all that came before it has been read."""
        if self._stop_ns is None:
            return False
        return self.complete_ns() >= self._stop_ns

    def check(self) -> str | None:
        """A warning: the interface is down, or what was lost is not counted.  Raises TcptraceError when it is gone."""
        if self._stop_ns is not None:
            return self._counts.take_problem()
        self._follow_clock()
        status = still_there(self.interface)
        if status == "gone":
            raise TcptraceError(f"interface {self.interface.name} is gone")
        self._checks_down = self._checks_down + 1 if status == "down" else 0
        if self._checks_down == CHECKS_DOWN:
            return f"interface {self.interface.name} is down"
        return self._counts.take_problem()

    def fill_totals(self, totals: Totals) -> None:
        """The programs' counters as of the last tick, and how the rings did."""
        totals.counters = self._ring.counters()
        thinned = totals.counters["thinned"]
        totals.is_thinning, self._thinned = thinned > self._thinned, thinned
        totals.perf_lost_samples = self._ring.lost_samples()
        totals.unordered = self._ring.unordered
        if self.sockets is not None:
            self.sockets.fill_totals(totals)

    def cpu_ns(self) -> int:
        """CPU time of this process so far."""
        return time.process_time_ns()

    def close(self) -> None:
        """Detach if that has not happened, and give everything back."""
        self.stop()
        self._programs.close()
        self._ring.close()
        if self.sockets is not None:
            self.sockets.close()
