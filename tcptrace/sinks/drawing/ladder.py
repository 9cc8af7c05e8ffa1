"""--ladder: the packets between two ends as arrows, one below the other."""

from typing import IO, Any, Final

import numpy as np
from rich.console import COLOR_SYSTEMS, Console
from rich.style import Style

from tcptrace.errors import TcptraceError
from tcptrace.model import PacketBatch, Rows, TraceInfo, View
from tcptrace.sinks.drawing.collecting import encodes
from tcptrace.sinks.drawing.history import Collector, History, compact, endpoints_of, no_such_connection
from tcptrace.sinks.drawing.ladder_lines import ASCII, UNICODE, LadderLines, Line
from tcptrace.sinks.plain_table import console_for

_PART: Final = 1024
_ASCII_TEXT: Final = str.maketrans({"×": "x", "…": "~"})


class Ladder:
    """connection_id: that one, each packet as it comes, none kept; None: all, one after another at the end.

    TcptraceError at the end if the chosen connection never occurred.
    """

    wants_packets = True
    wants_frames = False

    def __init__(self, out: IO[str], connection_id: int | None, color: bool) -> None:
        self._out = out
        self._color = color
        self._connection_id = connection_id
        self._collector = Collector(connection_id)
        self._stream: _Stream | None = None
        self._last_id = 0
        self._console: Console | None = None
        self._closed = False

    def open(self, info: TraceInfo) -> None:
        """Nothing is printed before the first packet."""
        self._console = console_for(self._out, color=self._color)
        self._plain = not encodes(self._out, "─▶◀│×…")

    def packets(self, batch: PacketBatch) -> None:
        """Prints the chosen connection's, keeps those of all."""
        if self._connection_id is None:
            self._collector.add(batch)
            return
        ids = batch.findings["connection_id"]
        if len(ids):
            self._last_id = max(self._last_id, int(ids.max()))
        of_chosen = np.flatnonzero(ids == self._connection_id)
        if not len(of_chosen):
            return
        records, findings = batch.records[of_chosen], batch.findings[of_chosen]
        if self._stream is None:
            ends = endpoints_of(records[0], int(findings["received"][0]))
            history = History(self._connection_id, ends)
            self._stream = _Stream(history, self._lines(history))
            self._print(self._stream.lines.heading())
        for start in range(0, len(records), _PART):
            part = slice(start, start + _PART)
            history = self._stream.history
            history.notice_scales(records[part], findings["received"][part])
            packets = compact(records[part], findings[part])
            self._print(self._stream.lines.lines(packets, _shifts(history)))

    def _lines(self, history: History) -> LadderLines:
        width = self._console.width if self._console else 0
        return LadderLines(history.id, history.ends, width, ASCII if self._plain else UNICODE)

    def _print(self, lines: list[Line]) -> None:
        if self._console is None:
            return
        system = COLOR_SYSTEMS.get(self._console.color_system or "")
        colored = self._console.is_terminal and not self._console.no_color and system is not None
        texts = [_painted(line, system) if colored and line.style else line.plain for line in lines]
        text = "".join([f"{text}\n" for text in texts])
        self._out.write(text.translate(_ASCII_TEXT) if self._plain else text)
        self._out.flush()

    def ended(self, rows: Rows) -> None:
        """A ladder shows packets, not rows."""

    def update(self, view: View) -> None:
        """Nothing at an interval."""

    def close(self, view: View) -> None:
        """The connections that were kept.  TcptraceError if the chosen one never occurred."""
        if self._closed or self._console is None:
            return
        self._closed = True
        if self._connection_id is not None:
            if self._stream is None:
                raise TcptraceError(no_such_connection(self._connection_id, self._last_id))
            return
        for i, history in enumerate(self._collector.histories()):
            self._print(([Line("")] if i else []) + self._lines(history).heading())
            self._print_history(history)
        if self._collector.connections_not_kept:
            number = self._collector.connections_not_kept
            self._print([Line(""), Line(f"{number:,} further connections not shown: memory for packets was full")])

    def _print_history(self, history: History) -> None:
        lines, packets = self._lines(history), history.packets()
        for start in range(0, len(packets), _PART):
            self._print(lines.lines(packets[start : start + _PART], _shifts(history)))
        if history.not_kept:
            self._print([Line(f"{history.not_kept:,} later packets not shown: memory for packets was full")])

    def restore(self) -> None:
        """Nothing to undo."""


def _painted(line: Line, system: Any) -> str:
    return f"{line.before}{Style.parse(line.style).render(line.body, color_system=system)}{line.after}"


class _Stream:
    """The chosen connection, whose packets are printed as they come."""

    def __init__(self, history: History, lines: LadderLines) -> None:
        self.history = history
        self.lines = lines


def _shifts(history: History) -> tuple[int | None, int | None]:
    return history.window_shift(0), history.window_shift(1)
