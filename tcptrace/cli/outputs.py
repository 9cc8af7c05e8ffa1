"""The outputs that the options ask for."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from tcptrace import __version__
from tcptrace.cli.endings import standard_output
from tcptrace.cli.options import SNAPLEN_BYTES, Options
from tcptrace.errors import UsageError

if TYPE_CHECKING:
    from tcptrace.model import Sink, SocketEventSink


@dataclass(frozen=True)
class FileAccess:
    """How the capture's files are opened and removed, by number; None: by this process itself."""

    open_file: Callable[[int], int] | None = None
    remove_file: Callable[[int], None] | None = None


def make_sinks(options: Options, files: FileAccess) -> "list[Sink]":
    """At least one."""
    out = standard_output()
    sinks = [*_drawings(options, out), *_capture(options, files)]
    # Of a file a drawing is in place of the final table, but not of the packets that were asked for.
    if options.output != "-" and not (options.files and _draws_on(options) and not options.packets):
        sinks.insert(0, _text(options, out))
    return sinks


def socket_event_sinks(options: Options, sinks: "list[Sink]") -> "list[SocketEventSink]":
    """Those of the sinks that the user wants the kernel's events in."""
    if not options.events:
        return []
    from tcptrace.sinks.ndjson import Ndjson

    return [sink for sink in sinks if isinstance(sink, Ndjson)]


def refuse_contradictions(options: Options) -> None:
    """UsageError for outputs that exclude each other, before anything is set up."""
    if options.output == "-":
        if options.json or options.packets or _draws_on(options):
            raise UsageError("-o - takes stdout for itself: no --json, --packets or drawing beside it")
        if sys.stdout.isatty():
            raise UsageError("-o - writes a capture, which is not for a terminal: redirect stdout")
    if options.output is None:
        for name in ("snaplen", "rotate_size", "rotate_seconds", "rotate_files"):
            if getattr(options, name) is not None and not (name == "snaplen" and options.layers):
                raise UsageError(f"--{name.replace('_', '-')} is for --output")
    if options.events and not options.json:
        raise UsageError("--events needs --json")
    if options.picture and not (options.sequence or options.graph):
        raise UsageError("--picture needs --sequence or --graph")
    if options.connection is not None and not (options.sequence or options.graph or options.ladder):
        raise UsageError("--connection needs --sequence, --graph or --ladder")
    if options.json and _draws_on(options):
        raise UsageError("--json takes stdout for itself: draw with --picture FILE")


def _draws_on(options: Options) -> bool:
    """Something is drawn on stdout."""
    return options.ladder or ((options.sequence or options.graph) and options.picture is None)


def _text(options: Options, out: TextIO) -> "Sink":
    if options.json:
        from tcptrace.sinks.ndjson import Ndjson

        return Ndjson(out, packets=options.packets)
    if options.layers:
        from tcptrace.sinks.layers.layer_log import LayerLog

        return LayerLog(out, sort=options.sort, color=options.color)
    if options.packets:
        from tcptrace.sinks.packet_log import PacketLog

        return PacketLog(out, sort=options.sort, color=options.color)
    if not options.files:
        from tcptrace.sinks.live_table import LiveTable, is_usable

        if is_usable(out):
            return LiveTable(out, sort=options.sort, color=options.color)
    from tcptrace.sinks.plain_table import PlainTable

    return PlainTable(out, sort=options.sort, color=options.color)


def _drawings(options: Options, out: TextIO) -> "list[Sink]":
    sinks: list[Sink] = []
    if options.sequence or options.graph:
        from tcptrace.sinks.drawing.graph import Graph
        from tcptrace.sinks.drawing.sequence import Sequence

        # Which pictures there are is said beside JSON or a capture, not in them.
        said_on = sys.stderr if options.json or options.output == "-" else out
        both = options.sequence and options.graph
        for wanted, drawing, kind in ((options.sequence, Sequence, "sequence"), (options.graph, Graph, "graph")):
            if wanted:
                target = _named(options.picture, kind) if both else options.picture
                sinks.append(drawing(said_on, target, options.connection, options.color))
    if options.ladder:
        from tcptrace.sinks.drawing.ladder import Ladder

        sinks.append(Ladder(out, options.connection, options.color))
    return sinks


def _named(picture: str | None, kind: str) -> str | None:
    """x-graph.png of x.png, where two kinds of picture are drawn."""
    if picture is None:
        return None
    stem, extension = os.path.splitext(picture)
    return f"{stem}-{kind}{extension}"


def _capture(options: Options, files: FileAccess) -> "list[Sink]":
    if options.output is None:
        return []
    from tcptrace.sinks.capture_writer import CaptureWriter

    # A file's packets are kept as they are, live ones are cut to their headers, unless the user says how much.
    headers_only = options.snaplen is None and not options.files
    writer = CaptureWriter(
        options.output,
        snaplen=SNAPLEN_BYTES if headers_only else options.snaplen or 0,
        headers_only=headers_only,
        rotate_bytes=options.rotate_size,
        rotate_s=options.rotate_seconds,
        rotate_files=options.rotate_files,
        open_file=files.open_file,
        remove_file=files.remove_file,
        application=f"tcptrace {__version__}",
    )
    return [writer]
