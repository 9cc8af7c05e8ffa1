"""From an interface and a filter to a live source, the slow parts at the same time.

The guard imports pyroute2 in its own process and bcc compiles in a thread, while the caller
imports what it needs to show anything.
"""

import signal
import threading
from typing import TYPE_CHECKING

from tcptrace.sources.live.bcc_loader import import_bcc
from tcptrace.sources.live.guard import Guard
from tcptrace.sources.live.interface import Interface
from tcptrace.sources.live.packet_programs import PacketPrograms

if TYPE_CHECKING:
    from tcptrace.sources.live.source import LiveSource


class Opening:
    """A live source on its way.  Begin it before there are threads and big imports: it forks.

    snaplen: how many bytes of each frame LiveSource.frames() shall have; 0 for none.  What does not fit into a perf
    sample (records.FRAME_MAX_BYTES) is cut off: the end of a frame of 64 KiB, as lo has them and super-packets may be.
    """

    def __init__(self, interface: Interface, filter_source: str, *, xdp: bool, snaplen: int = 0) -> None:
        self._interface = interface
        self._guard = Guard.start()
        # Here, not in the thread: there it would contend for the interpreter with what the caller imports.
        import_bcc()
        self._programs: PacketPrograms | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._compile, args=(filter_source, xdp, snaplen), daemon=True)
        self._thread.start()

    def _compile(self, filter_source: str, xdp: bool, snaplen: int) -> None:
        # A signal while the kernel verifies a program makes it give up (EAGAIN); the main thread takes them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._programs = PacketPrograms(self._interface, filter_source, xdp=xdp, snaplen=snaplen)
        except BaseException as error:
            self._error = error

    def source(self, ring_bytes: int | None) -> "LiveSource":
        """Attached and running.  Raises MissingFeatureError, NotPermittedError or TcptraceError."""
        from tcptrace.sources.live.source import LiveSource  # imports numpy

        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._programs is not None
        return LiveSource(self._interface, self._guard, self._programs, ring_bytes=ring_bytes)

    def close(self) -> None:
        """Whatever came of it: nothing stays attached, and stderr is not bcc's any more.  May be called twice."""
        self._thread.join()
        self._guard.close()
