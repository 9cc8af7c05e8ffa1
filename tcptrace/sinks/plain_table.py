"""Tables without a terminal: one printed at each interval, and the summary at the end."""

from typing import IO, Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tcptrace.model import PacketBatch, Rows, TraceInfo, View
from tcptrace.sinks import order, screen
from tcptrace.sinks.elapsed import elapsed_s
from tcptrace.sinks.summary import Summary

PLAIN_ROWS: Final = 20


class OutputConsole(Console):
    """Leaves a closed pipe to the caller; Rich would end the program, with an exit code that says error."""

    def on_broken_pipe(self) -> None:
        """Called while BrokenPipeError is handled: hand it on."""
        raise


def console_for(stream: IO[str], *, color: bool, width: int | None = None, height: int | None = None) -> Console:
    """A Rich console on `stream`; the size is the terminal's unless given, NO_COLOR is Rich's own matter."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # an arrow that the terminal's encoding lacks is a ?, not the end
    cell_len("→")  # Rich imports its width tables at the first such character: without privileges that may be too late
    return OutputConsole(
        file=stream,
        no_color=None if color else True,
        width=width,
        height=height,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def print_lines(console: Console, lines: list[Text]) -> None:
    """Each as it is: no wrapping, no spaces at the end."""
    for line in lines:
        line.rstrip()
    if console.color_system is None:  # Rich has nothing to add, but takes half the time of all the output
        console.file.write("".join(f"{line.plain}\n" for line in lines))
    else:
        console.print(Text("\n").join(lines), soft_wrap=True)
    console.file.flush()


class PlainTable:
    """The table for a file or a pipe.  `width` in characters is the terminal's, or 80, unless given.

    The summary has `summary_rows` connections, or as many as `Summary` finds good.
    """

    wants_packets = False
    wants_frames = False

    def __init__(
        self,
        stream: IO[str],
        *,
        sort: str = "rate",
        color: bool = True,
        rows: int = PLAIN_ROWS,
        summary_rows: int | None = None,
        width: int | None = None,
        console: Console | None = None,
    ) -> None:
        self._console = console or console_for(stream, color=color, width=width)
        self._ranking = order.Ranking(sort)
        self._rows = rows
        self._summary = Summary(sort, summary_rows)
        self._widths = screen.Widths()
        self._info: TraceInfo | None = None
        self._printed = False
        self._closed = False

    def open(self, info: TraceInfo) -> None:
        """Says what it waits for; files do not keep anybody waiting."""
        self._info = info
        self._summary.open(info, self._console)
        if not screen.reads_files(info):
            self._print([screen.waiting(info)])

    def packets(self, batch: PacketBatch) -> None:
        """Not asked for."""

    def ended(self, rows: Rows) -> None:
        """Remembers them for the summary."""
        self._summary.ended(rows)

    def update(self, view: View) -> None:
        """One header and table; nothing while there is no connection."""
        if self._info is None:
            return
        rows = view.table()[self._ranking.top(view, self._rows)]
        if not len(rows):
            return
        width = self._console.width
        lines = screen.header(self._info, screen.Figures(view.totals, elapsed_s(view), view.cpu_percent), width)
        layout = self._widths.layout(rows, width, by_id=screen.reads_files(self._info))
        lines += [Text(), *screen.table(rows, layout, view.totals.connections - len(rows), width)]
        self._print(lines)

    def close(self, view: View) -> None:
        """The summary."""
        if self._closed or self._info is None:
            return
        self._closed = True
        self._print(self._summary.lines(self._info, view, elapsed_s(view), self._console.width))

    def _print(self, lines: list[Text]) -> None:
        """With an empty line between it and what was before."""
        print_lines(self._console, [Text(), *lines] if self._printed else lines)
        self._printed = True

    def restore(self) -> None:
        """Nothing to undo."""
