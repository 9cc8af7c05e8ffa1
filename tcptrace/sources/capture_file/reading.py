"""One capture file, read ahead by a thread of its own into chunks that take turns."""

import os
import queue
import signal
import threading
from typing import Final, Protocol

from tcptrace.errors import TcptraceError
from tcptrace.records import CaptureInterface
from tcptrace.sources.capture_file.chunk import Chunk
from tcptrace.sources.capture_file.filter_programs import FilterPrograms
from tcptrace.sources.capture_file.frame_filter import FrameFilter
from tcptrace.sources.capture_file.frame_parser import FrameParser
from tcptrace.sources.capture_file.interfaces import Interfaces
from tcptrace.sources.capture_file.opening import OpenedFile, PcapHead
from tcptrace.sources.capture_file.pcap_reader import PcapReader
from tcptrace.sources.capture_file.pcapng_options import InterfaceOptions
from tcptrace.sources.capture_file.pcapng_reader import PcapngReader
from tcptrace.sources.libpcap import link_type_name

# One is filled while another is taken.
_CHUNKS: Final = 2
# A slow stream is looked at this often for its first frame.
_POLL_S: Final = 0.01
_PCAP_CUT_OFF: Final = "truncated dump file"


class _Reader(Protocol):
    offset: int
    packets: int
    error: str | None

    def fill(self, into: Chunk) -> bool: ...


class Reading:
    """Records of `file`, which is number `number` of the trace.

    Raises TcptraceError for a file header that does not hold, UsageError where the filter cannot be for
    the file's link type.
    """

    def __init__(
        self,
        number: int,
        file: OpenedFile,
        interfaces: Interfaces,
        programs: FilterPrograms | None,
        *,
        chunk_records: int,
        arena_bytes: int,
    ) -> None:
        self._number = number
        self._file = file
        self._interfaces = interfaces
        self._programs = programs
        self._link_types: set[int] = set()
        self._trouble: BaseException | None = None
        self._broken: str | None = None
        self._parser = FrameParser(FrameFilter(programs) if programs is not None else None)
        self._reader: _Reader = self._open_pcap(file.pcap) if file.pcap is not None else self._open_pcapng()
        self._chunks = [Chunk(chunk_records, arena_bytes) for _ in range(_CHUNKS)]
        self._free: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._finished = threading.Semaphore(0)
        self._ends_after: Chunk | None = None
        self._turn = 0
        for chunk in self._chunks:
            self._free.put(chunk)
        threading.Thread(target=self._run, name="capture reader", daemon=True).start()

    # --- Opening

    def _open_pcap(self, head: PcapHead) -> PcapReader:
        interface = CaptureInterface(None, None, head.link_type, head.snaplen)
        try:
            index, program = self._add_interface(0, interface)
        except BaseException:
            os.close(self._file.fd)
            raise
        try:
            reader = PcapReader(
                self._file.fd,
                self._parser,
                head.link_type,
                index,
                head.variant.record_header_bytes,
                head.variant.micros,
            )
        except ValueError as error:
            raise TcptraceError(f"{self._file.name}: {error}") from None
        if program is not None:
            reader.set_filter(program)
        return reader

    def _open_pcapng(self) -> PcapngReader:
        def add(place: int, link_type: int, snaplen: int, options: InterfaceOptions) -> tuple[int, bytes | None]:
            return self._add_interface(place, CaptureInterface(options.name, options.description, link_type, snaplen))

        return PcapngReader(self._file.fd, self._parser, add)

    def _add_interface(self, place: int, interface: CaptureInterface) -> tuple[int, bytes | None]:
        """Its index, and the filter for its frames as they are where it is for such."""
        self._link_types.add(interface.link_type)
        program = None
        if self._programs is not None and self._programs.on_raw_frames:
            program = self._programs.raw(interface.link_type)
        return self._interfaces.add(self._number, place, interface), program

    # --- The thread

    def _run(self) -> None:
        # The main thread takes signals.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        more = True
        while more and (chunk := self._free.get()) is not None:
            try:
                more = self._reader.fill(chunk)
            except BaseException as error:
                self._trouble, more = error, False
            if not more:
                self._end()
                self._ends_after = chunk
            chunk.finish()
            self._finished.release()

    def _end(self) -> None:
        error = self._reader.error
        if error is not None and error.startswith(_PCAP_CUT_OFF):
            error = "cut off in the middle of a record"
        feeder = self._file.feeder
        # What broke first is the reason of what broke after it.
        if feeder is not None and feeder.error is not None:
            error = feeder.error
        if error is not None:
            where = f"packet {self._reader.packets + 1}, offset {self._reader.offset}"
            self._broken = f"{self._file.name}: {where}: {error}"

    # --- Who takes the records

    @property
    def chunk(self) -> Chunk:
        """The chunk whose turn it is, full or not."""
        return self._chunks[self._turn]

    def next_chunk(self) -> Chunk | None:
        """After `chunk` is done and used up: the one after it, None if the file has ended.

        Raises what kept the file from being read on.
        """
        used = self.chunk
        if used is self._ends_after:
            if self._trouble is not None:
                raise self._trouble
            return None
        used.clear()
        self._free.put(used)
        self._turn = (self._turn + 1) % _CHUNKS
        return self.chunk

    def wait(self, timeout_s: float) -> None:
        """Until a chunk is done, at most `timeout_s`."""
        self._finished.acquire(timeout=timeout_s)

    def wait_for_first_frame(self) -> None:
        """Raises TcptraceError if there is nothing in the file that could be read, with the reason."""
        while not self.chunk.frames and not self.chunk.done:
            self.wait(_POLL_S)
        if self._trouble is not None:
            raise self._trouble
        if not self.chunk.frames and self._broken is not None:
            raise TcptraceError(self._broken)
        if len(self._link_types) == 1 and self.chunk.frames and self._parser.unsupported_frames:
            (link_type,) = self._link_types
            raise TcptraceError(f"{self._file.name}: link type {link_type_name(link_type)} is not supported")

    def stop(self) -> None:
        """No more is wanted."""
        self._parser.stop()
        self._free.put(None)

    @property
    def is_broken(self) -> bool:
        """The file broke off before its end; known when it has ended."""
        return self._broken is not None

    def warnings(self) -> list[str]:
        """Lines for the user, when the file has ended."""
        lines = []
        if self._broken is not None:
            lines.append(f"{self._broken}; what came before is analysed")
        if self._parser.unsupported_frames:
            name = link_type_name(self._parser.unsupported_link_type)
            count = self._parser.unsupported_frames
            frames = "1 frame is" if count == 1 else f"{count:,} frames are"
            lines.append(f"{self._file.name}: {frames} not analysed: link type {name} is not supported")
        return lines

    def progress(self) -> tuple[int, int | None]:
        """Bytes read of the file as it is, and of how many (None: nobody knows)."""
        feeder = self._file.feeder
        return self._reader.offset if feeder is None else feeder.bytes_read, self._file.total_bytes
