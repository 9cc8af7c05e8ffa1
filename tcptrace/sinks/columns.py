"""The columns of the connection table: what they show, how wide they are, and which of them fit.

Plain text only.  A cell is never wider than its column, whatever is in the row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tcptrace.model import Rows
from tcptrace.sinks import cells, human
from tcptrace.sinks.cells import Row

WIDE_FROM: Final = 100
"""Terminal columns from which on there is room for two spaces between columns and whole state names."""
ENDPOINT_LEAST: Final = 18
ENDPOINT_LEAST_WIDE: Final = 21
"""An IPv4 address with its port: 255.255.255.255:65535."""
ENDPOINT_MOST: Final = 47
"""An IPv6 address with its port, in brackets."""

ID_LEAST: Final = 2

_EXTRAS_FROM: Final = 16
"""Columns of this priority and lower ones take only the room that the endpoints in full leave."""
_ID_PRIORITY: Final = 16
_ID_PRIORITY_ASKED_FOR: Final = 2
"""Beside the rates."""


@dataclass(frozen=True)
class Column:
    """One column.  `width` is in character cells, for an elastic column the least."""

    heading: str
    width: int
    priority: int  # 1 stays longest
    text: Callable[[Row, int], str]
    most: int = 0  # how far it may grow; 0: not elastic
    left: bool = False  # aligned left
    style: Callable[[Row], str] | None = None

    def cell(self, row: Row, width: int) -> str:
        """Exactly `width` characters."""
        text = self.text(row, width)
        if len(text) > width:
            text = human.ellipsise(text, width)
        return text.ljust(width) if self.left else text.rjust(width)

    def title(self, width: int) -> str:
        text = human.ellipsise(self.heading, width)
        return text.ljust(width) if self.left else text.rjust(width)


@dataclass(frozen=True)
class Layout:
    """The columns that fit, with their widths."""

    columns: tuple[tuple[Column, int], ...]
    gap: str

    @property
    def width(self) -> int:
        return sum(width for _, width in self.columns) + len(self.gap) * (len(self.columns) - 1)

    def headings(self) -> str:
        return self.gap.join(column.title(width) for column, width in self.columns)


def _source(least: int) -> Column:
    return Column("source", least, 1, cells.endpoint("src"), ENDPOINT_MOST, left=True)


def _destination(least: int) -> Column:
    return Column("destination", least, 1, cells.endpoint("dst"), ENDPOINT_MOST, left=True)


def _rate(arrow: str, direction: str, width: int) -> Column:
    text = cells.field(direction, "bytes_per_s", human.quantity)
    return Column(f"{arrow} B/s", width, 2, text, style=cells.rate_style(direction))


def _number(width: int, priority: int) -> Column:
    return Column("#", width, priority, lambda row, width: str(int(row["id"])))


def _retransmissions(arrow: str, direction: str) -> Column:
    style = cells.marked("yellow", "retransmissions", [direction])
    return Column(f"{arrow} retr", 6, 5, cells.count(direction, "retransmissions"), style=style)


_SENT: Final = Column("→ bytes", 7, 6, cells.field("sent", "bytes", human.byte_count))
_RECEIVED: Final = Column("← bytes", 7, 7, cells.field("received", "bytes", human.byte_count))
_RTT: Final = Column("RTT", 7, 4, cells.rtt)

_NARROW: Final = (
    _source(ENDPOINT_LEAST),
    _destination(ENDPOINT_LEAST),
    Column("state", 10, 3, cells.short_state, left=True, style=cells.state_style),
    _rate("→", "sent", 5),
    _rate("←", "received", 5),
    _SENT,
    _RECEIVED,
    _RTT,
    Column("retr", 5, 5, cells.both("retransmissions"), style=cells.marked("yellow", "retransmissions")),
)

_WIDE: Final = (
    _source(ENDPOINT_LEAST_WIDE),
    _destination(ENDPOINT_LEAST_WIDE),
    Column("state", 12, 3, cells.state, left=True, style=cells.state_style),
    _rate("→", "sent", 6),
    _rate("←", "received", 6),
    _SENT,
    _RECEIVED,
    Column("→ pkts", 7, 15, cells.count("sent", "packets")),
    Column("← pkts", 7, 15, cells.count("received", "packets")),
    Column("→ goodput", 9, 19, cells.goodput("sent")),
    Column("← goodput", 9, 19, cells.goodput("received")),
    _RTT,
    Column("min RTT", 7, 8, cells.field("sent", "rtt_min_us", human.duration_us)),
    Column("p50 RTT", 7, 17, cells.field("sent", "rtt_p50_us", human.duration_us)),
    Column("p99 RTT", 7, 17, cells.field("sent", "rtt_p99_us", human.duration_us)),
    _retransmissions("→", "sent"),
    _retransmissions("←", "received"),
    Column("reorder", 7, 10, cells.both("out_of_order"), style=cells.marked("yellow", "out_of_order")),
    Column("gaps", 5, 20, cells.both("gaps"), style=cells.marked("yellow", "gaps")),
    Column("dup ack", 7, 11, cells.both("duplicate_acks"), style=cells.marked("yellow", "duplicate_acks")),
    Column("0 win", 5, 12, cells.both("zero_windows"), style=cells.marked("red", "zero_windows")),
    Column("→ win", 7, 13, cells.field("sent", "window_bytes", human.byte_count)),
    Column("← win", 7, 13, cells.field("received", "window_bytes", human.byte_count)),
    Column("→ flight", 8, 18, cells.field("sent", "in_flight_bytes", human.byte_count)),
    Column("← flight", 8, 18, cells.field("received", "in_flight_bytes", human.byte_count)),
    Column("duration", 8, 9, cells.duration),
    Column("closed by", 9, 21, cells.closed_by, left=True),
    Column("handshake", 10, 22, cells.handshake, left=True),
)


_OVER_THE_WHOLE_TIME: Final = {
    "→ B/s": cells.average("sent"),
    "← B/s": cells.average("received"),
    "→ flight": cells.field("sent", "in_flight_max_bytes", human.byte_count),
    "← flight": cells.field("received", "in_flight_max_bytes", human.byte_count),
}
"""What a final table shows under a heading instead of what is just now."""


def columns_for(width: int, *, averages: bool, id_width: int = ID_LEAST, by_id: bool = False) -> tuple[Column, ...]:
    """The columns to choose from at a terminal width.

    `averages` shows what a connection did over its whole time; `by_id` says that connections are asked for
    by their numbers, which else are shown only where there is much room.
    """
    wide = width >= WIDE_FROM
    chosen = _WIDE if wide else _NARROW
    if wide or by_id:
        chosen = (_number(id_width, _ID_PRIORITY_ASKED_FOR if by_id else _ID_PRIORITY), *chosen)
    if not averages:
        return chosen
    means = _OVER_THE_WHOLE_TIME
    return tuple(replace(c, text=means[c.heading], style=None) if c.heading in means else c for c in chosen)


def id_need(rows: Rows) -> int:
    """Digits of the largest number of a connection."""
    return len(str(int(rows["id"].max()))) if len(rows) else 0


def endpoint_need(rows: Rows) -> tuple[int, int]:
    """Characters that the sources and the destinations of `rows` would take in full."""
    return _need(rows, "src"), _need(rows, "dst")


def _need(rows: Rows, end: str) -> int:
    text = cells.endpoint(end)
    return max((len(text(row, ENDPOINT_MOST)) for row in rows), default=0)


def layout(
    width: int,
    need: tuple[int, int] = (0, 0),
    *,
    averages: bool = False,
    id_width: int = ID_LEAST,
    by_id: bool = False,
) -> Layout:
    """Columns for a terminal `width` characters wide; room to spare goes to endpoints that need it."""
    columns = columns_for(width, averages=averages, id_width=id_width, by_id=by_id)
    gap = "  " if width >= WIDE_FROM else " "
    ends = [column for column in columns if column.most]
    wish = [max(0, min(column.most, need[i]) - column.width) for i, column in enumerate(ends)]
    kept = _fitting(columns, width, len(gap), sum(wish))
    widths = {column.heading: column.width for column in kept}
    spare = width - sum(widths.values()) - len(gap) * (len(kept) - 1)
    if spare < 0:  # narrower than the two endpoints
        each = max(1, (width - len(gap)) // 2)
        return Layout(tuple((column, each) for column in kept), gap)
    for column, extra in zip(ends, _share(spare, wish), strict=True):
        widths[column.heading] += extra
    return Layout(tuple((column, widths[column.heading]) for column in kept), gap)


def _fitting(columns: Sequence[Column], width: int, gap: int, wish: int) -> list[Column]:
    """The columns of the highest priorities that fit, in table order; those of one priority go together.

    `wish` is the room that the endpoints would like beyond their least.
    """
    kept: list[Column] = [column for column in columns if column.priority == 1]
    for priority in sorted({column.priority for column in columns} - {1}):
        wider = [column for column in columns if column.priority <= priority]
        room = width if priority < _EXTRAS_FROM else width - wish
        if sum(column.width for column in wider) + gap * (len(wider) - 1) > room:
            break
        kept = wider
    return kept


def _share(spare: int, wish: Sequence[int]) -> tuple[int, int]:
    """`spare` between two that wish for more, evenly as far as both need it."""
    first = min(wish[0], max(spare - wish[1], (spare + 1) // 2))
    return first, min(wish[1], spare - first)
