"""What the kernel says of sockets: those found open at the start, what the probes tell, and what is asked for since."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.errors import MissingFeatureError
from tcptrace.model import Totals
from tcptrace.records import SOCKET_RECORD, SOCKET_RECORDS_LOST, SOCKETS_FOLLOWED, SOCKETS_GONE
from tcptrace.sources.live.containers import Cgroups
from tcptrace.sources.live.interface import Interface
from tcptrace.sources.live.open_sockets import find_open_sockets
from tcptrace.sources.live.packet_programs import PacketPrograms
from tcptrace.sources.live.process_selection import selected_flows
from tcptrace.sources.live.sock_diag import SocketDiag
from tcptrace.sources.live.socket_probes import FOLLOWED_MAX
from tcptrace.sources.live.socket_ring import SocketRing
from tcptrace.sources.live.socket_roles import find_roles

# Of each CPU: 3,700 records, which are read 10 or 20 times a second, or when a quarter of them is there.
RING_BYTES: Final = 1 << 20
# What is told waits this much longer than packets: samples are handed over a tick late at most (bpf/handover.c, 20 ms),
# and a connect() is told of before its SYN, by which it finds its connection.
LAG_NS: Final = 25_000_000
NO_RECORDS: Final = np.zeros(0, SOCKET_RECORD)


class SocketSource:
    """The sockets of one network namespace, from now on; the probes run when this has been made.

    To be made before the packet hooks are attached, with privileges; nothing later needs them.  `problem` says why
    sockets cannot be asked for, if so.  Raises MissingFeatureError where a needed probe cannot be attached.
    """

    def __init__(
        self, programs: PacketPrograms, cpus: list[int], interface: Interface, expression: str | None, time_ns: int
    ) -> None:
        assert programs.probes is not None
        self._probes = programs.probes
        self._interface_index = interface.index
        self._ring = SocketRing(cpus, RING_BYTES)
        self._most_followed = 0
        self._diag: SocketDiag | None = None
        self._found: npt.NDArray[Any] = NO_RECORDS
        self.problem: str | None = None
        try:
            self._counts = programs.socket_counts()["counters"]
            programs.attach_probes(self._ring.fds)
        except BaseException:
            self._ring.close()
            raise
        if "socket_accept" in self._probes.missing:
            self.problem = "who accepts a connection cannot be told on this kernel"
        try:
            self._diag = SocketDiag()
            self._found = self._find(programs, interface, expression, time_ns)
        except MissingFeatureError as error:
            self._diag = None
            self.problem = str(error)

    def _find(
        self, programs: PacketPrograms, interface: Interface, expression: str | None, time_ns: int
    ) -> npt.NDArray[Any]:
        assert self._diag is not None
        sockets, cgroups = self._diag.dump(time_ns), Cgroups()
        sockets.records["view"]["role"] = find_roles(sockets)  # listeners and peers tell it, so before any choice
        selection = self._probes.options.selection
        if selection:
            inodes = selection.inodes(cgroups)
            sockets = sockets.part(np.array([inode in inodes for inode in sockets.inodes.tolist()], np.bool_))
            programs.let_through(selected_flows(sockets, self._probes.options.netns))
        return find_open_sockets(sockets, cgroups, interface, expression)

    @property
    def ring_fds(self) -> Iterable[int]:
        """To be polled: one becomes readable when its ring is a quarter full."""
        return self._ring.fds.values()

    @property
    def kind(self) -> str:
        """One of model.PROBES."""
        return self._probes.kind

    @property
    def attached(self) -> list[str]:
        """What the probes hang on, in words."""
        return self._probes.attached

    def read(self, until_ns: int, *, is_last: bool = False) -> npt.NDArray[Any]:
        """What was told of up to that time (SOCKET_RECORD), in order, but not the very latest unless `is_last`."""
        told = self._ring.read(until_ns if is_last else until_ns - LAG_NS)
        if not len(self._found):
            return told
        found, self._found = self._found, NO_RECORDS
        return np.concatenate([found, told])

    def ask(self, keys: npt.NDArray[Any], time_ns: int) -> npt.NDArray[Any]:
        """SOCKET_RECORDs, event FOUND, of those of the SOCKET_KEYs that are there."""
        if self._diag is None or not len(keys):
            return NO_RECORDS
        return self._diag.ask(keys, time_ns, self._interface_index)[0]

    def fill_totals(self, totals: Totals) -> None:
        """How many records there were, and of what the programs could not tell."""
        totals.socket_records = self._ring.taken
        counts = self._counts.sum(axis=0, dtype=np.int64)
        totals.socket_records_lost = int(counts[SOCKET_RECORDS_LOST])
        self._most_followed = max(self._most_followed, int(counts[SOCKETS_FOLLOWED] - counts[SOCKETS_GONE]))
        totals.sockets_forgotten = max(0, self._most_followed - FOLLOWED_MAX)

    def close(self) -> None:
        """Give everything back but the probes, which are the programs'."""
        self._ring.close()
        if self._diag is not None:
            self._diag.close()
