"""From an interface and a filter to a live source, the slow parts at the same time.

bcc compiles in a thread, while the caller imports what it needs to show anything; so does the guard in its own process,
where there must be one.
"""

import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tcptrace.errors import MissingFeatureError
from tcptrace.sources.live import links
from tcptrace.sources.live.bcc_loader import import_bcc
from tcptrace.sources.live.compiler_memory import give_back
from tcptrace.sources.live.guard import Guard
from tcptrace.sources.live.hooks import Hooks
from tcptrace.sources.live.interface import Interface
from tcptrace.sources.live.packet_programs import FLOWS, PacketPrograms
from tcptrace.sources.live.socket_probes import ProbeOptions, SocketProbes

if TYPE_CHECKING:
    from tcptrace.sources.live.source import LiveSource


class Opening:
    """A live source on its way.  Begin it before there are threads and big imports: it may fork.

    snaplen: how many bytes of each frame LiveSource.frames() shall have; 0 for none.  What does not fit into a perf
    sample (records.FRAME_MAX_BYTES) is cut off: the end of a frame of 64 KiB, as lo has them and super-packets may be.
    flows: of how many connections records may be lost at a time.
    probes: how to follow the kernel's sockets; a kernel that cannot is traced without, unless by a way or processes
    of the user's choice.
    """

    def __init__(
        self,
        interface: Interface,
        filter_source: str,
        *,
        xdp: bool,
        snaplen: int = 0,
        flows: int = FLOWS,
        probes: ProbeOptions | None = None,
    ) -> None:
        self._interface = interface
        self.problem: str | None = None
        """Why the kernel's sockets are not followed though `probes` asked for it, once source() has returned."""
        self._hooks: Hooks = links.Links() if links.are_known(interface.index) else Guard.start()
        # Here, not in the thread: there it would contend for the interpreter with what the caller imports.
        import_bcc()
        self._programs: PacketPrograms | None = None
        load = partial(PacketPrograms, interface, filter_source, xdp=xdp, snaplen=snaplen, flows=flows)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._compile, args=(load, probes), daemon=True)
        self._thread.start()

    def _compile(self, load: Callable[..., PacketPrograms], options: ProbeOptions | None) -> None:
        # A signal while the kernel verifies a program makes it give up (EAGAIN); the main thread takes them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._load(load, options)
        give_back()

    def _load(self, load: Callable[..., PacketPrograms], options: ProbeOptions | None) -> None:
        try:
            if options is not None:
                try:
                    self._programs = load(probes=SocketProbes(options))
                    return
                except MissingFeatureError as error:
                    if options.is_insisted_on:
                        raise
                    self.problem = str(error)
            self._programs = load()
        except BaseException as error:
            self._error = error

    def source(self, ring_bytes: int | None, expression: str | None = None) -> "LiveSource":
        """Attached and running; `expression` is the text of the filter.

        Raises MissingFeatureError, NotPermittedError or TcptraceError.
        """
        from tcptrace.sources.live.source import LiveSource  # imports numpy

        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._programs is not None
        source = LiveSource(self._interface, self._hooks, self._programs, ring_bytes=ring_bytes, expression=expression)
        self.problem = self.problem or source.problem
        return source

    def close(self) -> None:
        """Whatever came of it: nothing stays attached, and stderr is not bcc's any more.  May be called twice."""
        self._thread.join()
        self._hooks.close()
