"""The table on a terminal: redrawn in place at each interval, on the alternate screen."""

import atexit
import os
from typing import IO, Final

from rich.cells import cached_cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tcptrace.model import PacketBatch, Rows, TraceInfo, View
from tcptrace.sinks import order, screen
from tcptrace.sinks.elapsed import elapsed_s
from tcptrace.sinks.plain_table import console_for, print_lines
from tcptrace.sinks.summary import Summary

_AROUND: Final = 2
"""Lines that are neither header nor row: the empty one between them and the headings."""
# Texts whose widths Rich may keep: most are numbers that do not come again, and 4,096 of them take 2 MB.
_WIDTHS_KEPT: Final = 1024


def is_usable(stream: IO[str]) -> bool:
    """Whether `stream` is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class LiveTable:
    """The live table.  `close` (or `restore`, after an error) gives the terminal back; both may be called twice."""

    wants_packets = False
    wants_frames = False

    def __init__(
        self,
        stream: IO[str],
        *,
        sort: str = "rate",
        color: bool = True,
        summary_rows: int | None = None,
        console: Console | None = None,
    ) -> None:
        self._console = console or console_for(stream, color=color)
        self._ranking = order.Ranking(sort)
        self._summary = Summary(sort, summary_rows)
        self._widths = screen.Widths()
        self._info: TraceInfo | None = None
        self._live: Live | None = None
        self._closed = False

    def open(self, info: TraceInfo) -> None:
        """Takes the screen."""
        self._info = info
        self._summary.open(info, self._console)
        first = Group(screen.title(info, 0.0, 0.0, self._console.width), Text(), screen.waiting(info))
        self._live = Live(
            first,
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        atexit.register(self.restore)  # for the ends that nobody foresaw
        self._live.start(refresh=True)

    def packets(self, batch: PacketBatch) -> None:
        """Not asked for."""

    def ended(self, rows: Rows) -> None:
        """Remembers them for the summary."""
        self._summary.ended(rows)

    def update(self, view: View) -> None:
        """Draws the screen anew, in the size that the terminal has now."""
        if self._live is None or self._info is None:
            return
        if cached_cell_len.cache_info().currsize > _WIDTHS_KEPT:
            cached_cell_len.cache_clear()
        try:
            self._live.update(Group(*self._lines(self._info, view)), refresh=True)
        except BaseException:
            self.restore()
            raise

    def _lines(self, info: TraceInfo, view: View) -> list[Text]:
        width, height = self._console.size
        lines = screen.header(info, screen.Figures(view.totals, elapsed_s(view), view.cpu_percent), width)
        table = view.table()
        room = max(1, height - len(lines) - _AROUND)
        in_use = view.totals.connections
        best = self._ranking.top(view, room if in_use <= room else max(1, room - 1))
        if not best.size:
            return [*lines, Text(), screen.waiting(info)]
        rows = table[best]
        layout = self._widths.layout(rows, width)
        return [*lines, Text(), *screen.table(rows, layout, in_use - len(rows), width)]

    def restore(self) -> None:
        """Gives back the normal screen and the cursor."""
        live, self._live = self._live, None
        if live is not None:
            atexit.unregister(self.restore)
            live.stop()

    def close(self, view: View) -> None:
        """Restores the terminal, then prints the summary on it."""
        self.restore()
        if self._closed or self._info is None:
            return
        self._closed = True
        lines = self._summary.lines(self._info, view, elapsed_s(view), self._console.width)
        print_lines(self._console, lines)
