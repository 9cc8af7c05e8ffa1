"""What a table sink shows, as lines of styled text: the header, the rows, and the note of what is left out.

Lines are built here cell by cell and never wider than asked for.  Rich's own Table does the same for several
times the CPU, and measures every cell again to find widths that are known.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Span, Text

from tcptrace.model import STATES, Rows, Totals, TraceInfo
from tcptrace.sinks import columns, human
from tcptrace.sinks.cells import Row
from tcptrace.sinks.columns import Layout

Part = tuple[str, str]
"""Text and its Rich style."""

_BETWEEN: Final = "   "
_BESIDE: Final = " · "
_LOST: Final = "bold red"
_WARNED: Final = "yellow"
_QUIET: Final = "dim"


@dataclass(frozen=True)
class Figures:
    """The header's numbers at one moment."""

    totals: Totals
    elapsed_s: float
    cpu_percent: float


def reads_files(info: TraceInfo) -> bool:
    """Whether the trace is of capture files."""
    return info.interface is None


def subject(info: TraceInfo) -> str:
    """What is traced: the interface, the hook and the probes, or the capture file, or how many of them."""
    if info.interface is not None:
        return _BESIDE.join(name for name in (info.interface, info.hook, info.probes) if name)
    if len(info.files) != 1:
        return f"{len(info.files):,} files"
    (name,) = info.files
    return "standard input" if name == "-" else human.printable(PurePath(name).name or name)


def _shortened(text: str, cells: int) -> str:
    """`text` in exactly that many of the terminal's cells, its middle left out where it is too long."""
    length = cells
    while cell_len(short := human.ellipsise(text, length)) > cells:
        length -= 1  # letters that take two cells
    return set_cell_size(short, cells)


def title(info: TraceInfo, elapsed_s: float, cpu_percent: float, width: int) -> Text:
    """What is traced on the left; for how long on the right, live with the tracer's own CPU."""
    clock = f"CPU {cpu_percent:.1f} %   {human.stopwatch(elapsed_s)}"
    if reads_files(info):
        clock = human.duration_s(elapsed_s)
    parts = [subject(info)]
    if info.filter:
        parts.append("filter " + " ".join(info.filter.split()))
    room = max(0, width - len(clock) - len("tcptrace") - 4)
    line = Text(no_wrap=True)
    line.append("tcptrace", "bold")
    line.append(f"  {_shortened(_BESIDE.join(parts), room)}  ")
    line.append(clock)
    line.truncate(width)
    return line


def header(info: TraceInfo, figures: Figures, width: int) -> list[Text]:
    """Four lines: what is traced, and the totals."""
    return [title(info, figures.elapsed_s, figures.cpu_percent, width), *totals_lines(info, figures.totals, width)]


def totals_lines(info: TraceInfo, totals: Totals, width: int) -> list[Text]:
    """Three lines: traffic, connections, and what was not seen."""
    connections = _all_connections(totals) if reads_files(info) else _connections(totals)
    trouble = _file_trouble(totals) if reads_files(info) else _live_trouble(totals)
    traffic = _traffic(totals)
    if reads_files(info) and totals.counters.get("not_tcp", 0):
        traffic.append((f"{human.plural(totals.counters['not_tcp'], 'other frame')}", _QUIET))
    return [_joined(parts, width) for parts in (traffic, connections, trouble)]


def _traffic(totals: Totals) -> list[Part]:
    return [
        (human.plural(totals.packets, "packet"), ""),
        (f"{human.byte_count(totals.bytes)}", ""),
        (f"{human.quantity(totals.packets_per_s)} packets/s", "bold"),
        (f"{human.byte_rate(totals.bytes_per_s)}", "bold"),
    ]


def _connections(totals: Totals) -> list[Part]:
    return [
        (human.plural(totals.connections, "connection"), ""),
        (f"{totals.connections_total:,} seen", ""),
        *_states(totals),
    ]


def _all_connections(totals: Totals) -> list[Part]:
    """Of files: all there were, and the states of those that had not left before the end."""
    parts: list[Part] = [(human.plural(totals.connections_total, "connection"), "")]
    if totals.connections != totals.connections_total:
        parts.append((f"{totals.connections:,} at the end", ""))
    return [*parts, *_states(totals)]


def _states(totals: Totals) -> list[Part]:
    by_state = totals.connections_by_state
    return [(f"{state} {by_state[state]:,}", _QUIET) for state in STATES if state and by_state.get(state)]


def _live_trouble(totals: Totals) -> list[Part]:
    thinned = totals.counters.get("thinned", 0)
    amounts = {"lost": totals.counters.get("records_lost", 0), **_not_kept(totals)}
    if totals.is_thinning:
        amounts = {"thinning, so far": thinned} | amounts
    if uncounted := totals.counters.get("uncounted", 0):
        amounts["not counted"] = uncounted
    if totals.socket_records_lost:
        amounts["socket records lost"] = totals.socket_records_lost
    if totals.sockets_forgotten:
        amounts["sockets forgotten"] = totals.sockets_forgotten
    if totals.sockets_without_room:
        amounts["sockets without room"] = totals.sockets_without_room
    return _weighed(amounts, {"thinned": 0 if totals.is_thinning else thinned})


def _file_trouble(totals: Totals) -> list[Part]:
    """Frames that a capture has only a part of are no loss of ours: most of them can be read all the same."""
    counters = totals.counters
    amounts = _not_kept(totals)
    amounts |= {name.replace("_", " "): counters[name] for name in ("unsupported_link", "cut_off") if name in counters}
    doubtful = ("snapped", "time_out_of_range", "without_time")
    return _weighed(amounts, {name.replace("_", " "): counters.get(name, 0) for name in doubtful})


def _not_kept(totals: Totals) -> dict[str, int]:
    counters = totals.counters
    return {
        "malformed": sum(amount for name, amount in counters.items() if name.startswith("malformed_"))
        + counters.get("too_deep", 0),
        "fragments": counters.get("fragment", 0),
        "evicted": totals.evicted,
    }


def _weighed(losses: Mapping[str, int], warnings: Mapping[str, int]) -> list[Part]:
    """What was not seen or not kept, red and first; then of what to beware; then, dim, what there is none of."""
    lost = [(f"{name} {amount:,}", _LOST) for name, amount in losses.items() if amount]
    warned = [(f"{name} {amount:,}", _WARNED) for name, amount in warnings.items() if amount]
    return [*lost, *warned, *((f"{name} 0", _QUIET) for name, amount in losses.items() if not amount)]


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
    doing = f"reading {subject(info)}" if reads_files(info) else f"waiting for TCP packets on {info.interface}"
    return Text(f"{doing} …", style=_QUIET, no_wrap=True)


class Widths:
    """Remembers how wide endpoints, processes and numbers have been, so that columns do not move to and fro.

    The columns of the kernel's view are there from the first connection on that has one.
    """

    def __init__(self) -> None:
        self._need = columns.Need()
        self._id_width = columns.ID_LEAST

    def layout(self, rows: Rows, width: int, *, averages: bool = False, by_id: bool = False) -> Layout:
        """The layout for `rows` on a terminal `width` characters wide."""
        self._need = self._need.widened(rows)
        self._id_width = max(self._id_width, columns.id_need(rows))
        return columns.layout(width, self._need, averages=averages, id_width=self._id_width, by_id=by_id)
