"""The --output sink: every packet's frame into a capture file."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tcptrace.errors import NotPermittedError, TcptraceError, UsageError
from tcptrace.model import PacketBatch, Rows, TraceInfo, View
from tcptrace.records import Frames
from tcptrace.sinks.capture_writer.compression import Compressions
from tcptrace.sinks.capture_writer.form import Format, kept_bytes
from tcptrace.sinks.capture_writer.ledger import Ledger
from tcptrace.sinks.capture_writer.opening import (
    OpenFile,
    RemoveFile,
    identities,
    plain_open,
    plain_remove,
    replace_content,
)
from tcptrace.sinks.capture_writer.output import BUFFER_BYTES, Output
from tcptrace.sinks.capture_writer.packets import PacketEncoder
from tcptrace.sinks.capture_writer.pcap import Pcap
from tcptrace.sinks.capture_writer.pcapng import Pcapng, cut_text
from tcptrace.sinks.capture_writer.rotation import Rotation
from tcptrace.sinks.capture_writer.target import STANDARD_OUTPUT, numbered_path, parse_target

Comments = Callable[[PacketBatch], Sequence[str | None]]
"""A comment for each record of a batch, or None."""


class CaptureWriter:
    """Writes what `target` names; see target.parse_target() for the formats and form.Statistics for a file's end.

    snaplen: bytes of each frame to keep, 0 for all; headers_only: nothing of TCP's payload;
    rotate_…: see rotation.Rotation.
    open_file and remove_file: for files that this process itself may not open (any more).
    application: who writes, "tcptrace VERSION" if None; comments: only pcapng has them.
    Raises UsageError and MissingFeatureError; the methods once TcptraceError when a file cannot be written
    (NotPermittedError when it may not be opened), and BrokenPipeError when a pipe's reader is gone: further packets are
    ignored then.
    """

    wants_packets = True
    wants_frames = True

    def __init__(
        self,
        target: str,
        *,
        snaplen: int = 0,
        headers_only: bool = False,
        file_format: str | None = None,
        rotate_bytes: int | None = None,
        rotate_s: float | None = None,
        rotate_files: int | None = None,
        open_file: OpenFile | None = None,
        remove_file: RemoveFile | None = None,
        application: str | None = None,
        comments: Comments | None = None,
    ) -> None:
        self._target = parse_target(target, file_format)
        self._rotation = Rotation(rotate_bytes, rotate_s, rotate_files)
        if self._rotation.is_on and target == STANDARD_OUTPUT:
            raise UsageError("standard output is one file: it cannot go on in the next one")
        self._compressions = Compressions(self._target.compression)
        self._snaplen = kept_bytes(snaplen)
        self._headers_only = headers_only
        self._open_file = open_file or plain_open(target)
        self._remove_file = remove_file or plain_remove(target)
        self._application = application
        self._comments = comments if self._target.file_format == "pcapng" else None
        self._number = 0
        self._output: Output | None = None

    def open(self, info: TraceInfo) -> None:
        """Opens the (first) file and writes its beginning."""
        self._info = info
        self._inputs = identities(info.files)
        self._format = self._make_format(info)
        self._ledger = Ledger(live=info.interface is not None)
        with self._guarded():
            self._begin_file()

    def packets(self, batch: PacketBatch) -> None:
        """Buffers and writes them."""
        if self._output is None or not len(batch.records):
            return
        frames = batch.frames
        if frames is None:
            raise RuntimeError("the source hands on no frames")
        if int(frames.interfaces.max()) >= len(self._info.interfaces):
            raise RuntimeError("a frame of an interface that the source has not named")
        if self._headers_only:
            frames = without_payload(frames, batch.records["payload_bytes"])
        times_ns = batch.records["time_ns"]
        offset_ns = self._info.clock.wall_ns(0)
        wall_ns = times_ns + np.uint64(offset_ns & 0xFFFF_FFFF_FFFF_FFFF)
        fitting = self._format.fitting(self._info.interfaces, frames.interfaces, wall_ns)
        records, comments = np.ascontiguousarray(batch.records), None
        if self._comments is not None:
            comments = [None if text is None else cut_text(text) for text in self._comments(batch)]
        encoder = PacketEncoder(records, frames, offset_ns, self._snaplen, comments)
        with self._guarded():
            self._write(encoder, times_ns, frames, fitting.packets)
            if fitting.trouble:
                self._end_file()
                raise UsageError(f"{self._path}: {fitting.trouble}")

    def ended(self, rows: Rows) -> None:
        """Connections are nothing to this output."""

    def update(self, view: View) -> None:
        """What was buffered can be read from now on."""
        if self._output is None:
            return
        self._ledger.note(view)
        with self._guarded():
            self._output.flush()

    def close(self, view: View) -> None:
        """Writes the rest and the statistics."""
        if self._output is None:
            return
        self._ledger.close(view)
        with self._guarded():
            self._end_file()

    def restore(self) -> None:
        """Nothing to undo; what is buffered goes to the disk, in case that close() is never reached."""
        if self._output is None:
            return
        with suppress(OSError):
            if self._output.is_regular:
                self._output.flush()

    # --- Files.

    @property
    def _path(self) -> str:
        return numbered_path(self._target.path, self._number)

    def _make_format(self, info: TraceInfo) -> Format:
        if self._target.file_format == "pcap":
            return Pcap(self._snaplen)
        application = self._application or f"tcptrace {info.version}"
        return Pcapng(self._snaplen, application, info.filter, live=info.interface is not None)

    def _begin_file(self) -> None:
        if self._rotation.is_on:
            self._number += 1
            self._make_place()
        fd = self._open_file(self._number)
        compression = self._compressions.begin()
        self._output = Output(fd, self._format.whole_packets, compression, self._rotation.max_bytes)
        replace_content(fd, self._path, self._inputs)
        self._ledger.begin_file()
        # Live there is one interface; a capture file may have some without a frame that is written.
        first = 0 if self._info.interface is not None and self._info.interfaces else None
        self._output.append(self._format.begin_file() + self._format.introduce(self._info.interfaces, first))
        self._output.flush()

    def _make_place(self) -> None:
        leaving = self._rotation.leaves(self._number)
        if leaving is not None:
            with suppress(FileNotFoundError):
                self._remove_file(leaving)

    def _next_file(self) -> None:
        self._end_file()
        self._begin_file()

    def _end_file(self) -> None:
        """The last packets and blocks."""
        output = self._output
        assert output is not None
        output.flush()
        output.end(self._last_blocks(output))
        self._output = None

    def _last_blocks(self, output: Output) -> bytes:
        return self._format.end_file(self._ledger.statistics(self._info.clock, output.packets))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """After an error the file is complete as far as it goes, and nothing more is written."""
        try:
            yield
        except BrokenPipeError:
            self._leave()
            raise
        except OSError as error:
            raise self._given_up(error) from error
        except TcptraceError:
            self._leave()
            raise

    def _given_up(self, error: OSError) -> TcptraceError:
        output, self._output = self._output, None
        text = f"{error.filename or self._shown_path()}: {error.strerror or error}"
        if output is None:
            return (NotPermittedError if isinstance(error, PermissionError) else TcptraceError)(text)
        output.end_after_error(self._last_blocks(output))
        count = output.packets.total()
        return TcptraceError(f"{text}; {'1 packet is' if count == 1 else f'{count} packets are'} in it")

    def _leave(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            output.discard()

    def _shown_path(self) -> str:
        return "standard output" if self._target.path == STANDARD_OUTPUT else self._path

    # --- Packets.

    def _write(self, encoder: PacketEncoder, times_ns: npt.NDArray[Any], frames: Frames, stop: int) -> None:
        at = 0
        while at < stop:
            if self._rotation.is_due(int(times_ns[at])):
                self._next_file()
            before = at + self._rotation.packets_before(times_ns[at:stop])
            done = self._fill(encoder, frames, at, before)
            if done > at:
                self._ledger.follow(times_ns[at:done])
            else:
                self._make_room()
            at = done

    def _fill(self, encoder: PacketEncoder, frames: Frames, at: int, stop: int) -> int:
        """As many packets into the buffer as have room in it and in the file, the first of a file anyway."""
        output = self._output
        assert output is not None
        output.append(self._format.introduce(self._info.interfaces, int(frames.interfaces[at])))
        if output.has_packets:
            room = output.room(self._format.end_bytes)
        else:
            room, stop = BUFFER_BYTES, at + 1
        done, used = self._format.encode(encoder, output.buffer, output.used, room, at, stop)
        counts = np.bincount(frames.interfaces[at:done])
        output.filled(used, Counter({index: int(count) for index, count in enumerate(counts) if count}))
        return done

    def _make_room(self) -> None:
        assert self._output is not None
        if self._output.used:
            self._output.flush()
        else:
            self._next_file()


def without_payload(frames: Frames, payload_bytes: npt.NDArray[Any]) -> Frames:
    """Each frame up to the end of its headers; what pads a short frame counts as such."""
    header_bytes = frames.original_bytes - np.minimum(frames.original_bytes, payload_bytes)
    return replace(frames, captured_bytes=np.minimum(frames.captured_bytes, header_bytes))
