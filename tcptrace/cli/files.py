"""Capture files, analysed."""

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from tcptrace import __version__
from tcptrace.cli.endings import StopRequest, say, warn
from tcptrace.cli.options import Options
from tcptrace.cli.outputs import FileAccess, make_sinks, refuse_contradictions
from tcptrace.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

# A file keeps its connections: what was silent for an hour may go on, as in Wireshark.
NEVER_NS: Final = 1 << 62
# A bar that would be gone at once only flickers.
PROGRESS_AFTER_S: Final = 0.5
PROGRESS_EVERY_S: Final = 0.1


def run_files(options: Options) -> None:
    """Analyse capture files to their end.  Raises TcptraceError and its kinds."""
    # Threads that numpy's linear algebra would start are of no use here, and cost a fifth of the start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from tcptrace.engine.table import Table
    from tcptrace.model import TraceInfo
    from tcptrace.pipeline import Limits, Pipeline
    from tcptrace.sources.capture_file.source import CaptureSource
    from tcptrace.sources.live import pcap_filter

    refuse_live_options(options)
    refuse_contradictions(options)
    words = all_filter_words(options)
    expression = pcap_filter.combine(words, options.ports, options.hosts)
    try:
        source = CaptureSource(options.files, expression, keep_frames=options.wants_frames)
    except UsageError as error:
        raise UsageError(f"{error}{filter_hint(words)}") from error
    stop = StopRequest()  # until here, where the first packet may be long in coming, Ctrl-C just ends the program
    sinks = make_sinks(options, FileAccess())
    bar = ProgressBar(source, options)
    info = TraceInfo(
        None, None, expression, source.clock, __version__, files=options.files, interfaces=source.interfaces
    )
    try:
        for sink in reversed(sinks):  # the text last: where a file cannot be written, it has not said a word yet
            sink.open(info)
        if options.verbose:
            say(f"{', '.join(options.files)}; filter: {expression or 'none'}")
        table = Table(
            options.max_connections,
            NEVER_NS if options.idle_timeout is None else round(options.idle_timeout * 1e9),
            NEVER_NS if options.closed_timeout is None else round(options.closed_timeout * 1e9),
            source.start_ns,
            int.from_bytes(os.urandom(8)),  # as secrets.randbits(64), whose import takes longer
        )
        limits = Limits(options.duration, options.count)
        Pipeline(
            source, table, sinks, options.interval, limits, stop, warn, progress=bar.update, at_end=bar.close
        ).run()
        if evicted := table.totals().evicted:
            warn(
                f"{evicted:,} connections made room for others (--max-connections {options.max_connections}): "
                "what came of them later counts as new ones"
            )
    finally:
        bar.close()
        for sink in sinks:
            sink.restore()
        source.close()
        stop.no_more()


def refuse_live_options(options: Options) -> None:
    """What only makes sense on an interface is not silently ignored."""
    if options.hook != "tc":
        raise UsageError("--hook is for an interface, not for a file")
    if options.ring_size is not None:
        raise UsageError("--ring-size is for an interface, not for a file")
    if options.probes != "auto":
        raise UsageError("--probes is for an interface, not for a file")
    for name in ("events", "samples", "pid", "comm", "cgroup", "container", "netns"):
        if getattr(options, name):
            raise UsageError(f"--{name} is for an interface: a file has packets only")


def all_filter_words(options: Options) -> tuple[str, ...]:
    """With a file there is no INTERFACE: all words are the FILTER's."""
    first = (options.interface,) if options.interface is not None else ()
    return first + options.filter_words


def filter_hint(words: tuple[str, ...]) -> str:
    """What to say of a filter that is none because the shell, or a habit, has put something else there."""
    for word in words:
        if os.path.isfile(word):
            return f"; {word} is a file: each needs a -f of its own"
        if os.path.isdir(f"/sys/class/net/{word}"):
            return f"; {word} is an interface, and -f reads a file instead"
    return ""


class ProgressBar:
    """How far the files are read, on stderr where that is a terminal and nothing else is written there meanwhile."""

    def __init__(self, source: Any, options: Options) -> None:
        self._source = source
        self._color = options.color
        self._wanted = sys.stderr.isatty() and not (options.prints_meanwhile and sys.stdout.isatty())
        self._next_s = time.monotonic() + PROGRESS_AFTER_S
        self._progress: Progress | None = None

    def update(self) -> None:
        """Called often; draws ten times a second at most."""
        now_s = time.monotonic()
        if not self._wanted or now_s < self._next_s:
            return
        self._next_s = now_s + PROGRESS_EVERY_S
        done, total = self._source.progress()
        if self._progress is None:
            self._progress = self._start()
        self._progress.update(self._task, completed=done, total=total, refresh=True)

    def _start(self) -> "Progress":
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("reading"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        console = Console(stderr=True, no_color=None if self._color else True)
        bar = progress.Progress(*columns, console=console, transient=True, auto_refresh=False)
        self._task = bar.add_task("reading", total=None)
        bar.start()
        return bar

    def close(self) -> None:
        """Gone without a trace; may be called twice."""
        self._wanted = False
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
