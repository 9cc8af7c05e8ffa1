"""What a table sink shows, as lines of styled text: the header, the rows, and the note of what is left out.

Lines are built here cell by cell and never wider than asked for.  Rich's own Table does the same for several
times the CPU, and measures every cell again to find widths that are known.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Span, Text

from tcptrace.model import STATES, Rows, Totals, TraceInfo
from tcptrace.sinks import columns, human
from tcptrace.sinks.columns import Layout, Row

Part = tuple[str, str]
"""Text and its Rich style."""

_BETWEEN: Final = "   "
_LOST: Final = "bold red"
_QUIET: Final = "dim"


@dataclass(frozen=True)
class Figures:
    """The header's numbers at one moment."""

    totals: Totals
    elapsed_s: float
    cpu_percent: float


def title(info: TraceInfo, elapsed_s: float, cpu_percent: float, width: int) -> Text:
    """What is traced on the left; the tracer's own CPU and for how long on the right."""
    clock = f"CPU {cpu_percent:.1f} %   {human.stopwatch(elapsed_s)}"
    parts = [name for name in (info.interface, info.hook) if name]
    if info.filter:
        parts.append("filter " + " ".join(info.filter.split()))
    room = width - len(clock) - len("tcptrace") - 4
    left = human.ellipsise(" · ".join(parts), max(0, room))
    line = Text(no_wrap=True)
    line.append("tcptrace", "bold")
    line.append(f"  {left.ljust(max(0, room))}  ")
    line.append(clock)
    line.truncate(width)
    return line


def header(info: TraceInfo, figures: Figures, width: int) -> list[Text]:
    """Four lines: what is traced, traffic, connections, and what was not seen."""
    return [
        title(info, figures.elapsed_s, figures.cpu_percent, width),
        _joined(_traffic(figures.totals), width),
        _joined(_connections(figures.totals), width),
        _joined(_trouble(figures.totals), width),
    ]


def _traffic(totals: Totals) -> list[Part]:
    return [
        (f"{totals.packets:,} packets", ""),
        (f"{human.byte_count(totals.bytes)}", ""),
        (f"{human.quantity(totals.packets_per_s)} packets/s", "bold"),
        (f"{human.byte_rate(totals.bytes_per_s)}", "bold"),
    ]


def _connections(totals: Totals) -> list[Part]:
    by_state = totals.connections_by_state
    states = [(f"{state} {by_state[state]:,}", _QUIET) for state in STATES if state and by_state.get(state)]
    return [(f"{totals.connections:,} connections", ""), (f"{totals.connections_total:,} seen", ""), *states]


def _trouble(totals: Totals) -> list[Part]:
    """What was not seen or not kept: red and first where there is any, dim where there is none."""
    counters = totals.counters
    amounts = {
        "lost": counters.get("records_lost", 0),
        "malformed": sum(amount for name, amount in counters.items() if name.startswith("malformed_"))
        + counters.get("too_deep", 0),
        "fragments": counters.get("fragment", 0),
        "evicted": totals.evicted,
    }
    by_weight = sorted(amounts.items(), key=lambda item: item[1] == 0)
    return [(f"{name} {amount:,}", _LOST if amount else _QUIET) for name, amount in by_weight]


def _joined(parts: Iterable[Part], width: int) -> Text:
    """As many parts as fit, the first in any case."""
    line = Text(no_wrap=True)
    for text, style in parts:
        between = _BETWEEN if len(line) else ""
        if len(line) and len(line) + len(between) + len(text) > width:
            break
        line.append(between)
        line.append(text, style)
    line.truncate(width)
    return line


def headings(layout: Layout) -> Text:
    """The line above the rows."""
    return Text(layout.headings(), style="bold", no_wrap=True)


def row_line(row: Row, layout: Layout) -> Text:
    """One connection."""
    cells: list[str] = []
    spans: list[Span] = []
    start = 0
    for column, width in layout.columns:
        cells.append(column.cell(row, width))
        style = column.style(row) if column.style else ""
        if style:
            spans.append(Span(start, start + width, style))
        start += width + len(layout.gap)
    return Text(layout.gap.join(cells), spans=_merged(spans, len(layout.gap)), no_wrap=True)


def _merged(spans: Sequence[Span], gap: int) -> list[Span]:
    """Neighbours of one style as one: each span costs Rich time."""
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].style == span.style and merged[-1].end + gap == span.start:
            span = Span(merged.pop().start, span.end, span.style)
        merged.append(span)
    return merged


def table(rows: Rows, layout: Layout, hidden: int, width: int) -> list[Text]:
    """Headings, one line a row, and how many more there are."""
    lines = [headings(layout), *(row_line(row, layout) for row in rows)]
    if hidden > 0:
        lines.append(Text(f"… {hidden:,} more", style=_QUIET, no_wrap=True))
    for line in lines:
        line.truncate(width)
    return lines


def waiting(info: TraceInfo) -> Text:
    """In place of the table while there is nothing in it."""
    where = f" on {info.interface}" if info.interface else ""
    return Text(f"waiting for TCP packets{where} …", style=_QUIET, no_wrap=True)


class Widths:
    """Remembers how wide the endpoints have been, so that columns do not move to and fro."""

    def __init__(self) -> None:
        self._need = (0, 0)

    def layout(self, rows: Rows, width: int, *, averages: bool = False) -> Layout:
        """The layout for `rows` on a terminal `width` characters wide."""
        source, destination = columns.endpoint_need(rows)
        self._need = (max(self._need[0], source), max(self._need[1], destination))
        return columns.layout(width, self._need, averages=averages)
