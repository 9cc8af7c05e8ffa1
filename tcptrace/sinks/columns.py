"""The columns of the connection table: what they show, how wide they are, and which of them fit.

Plain text only.  A cell is never wider than its column, whatever is in the row.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tcptrace.model import Rows
from tcptrace.sinks import cells, human, sockets
from tcptrace.sinks.cells import Row

WIDE_FROM: Final = 100
"""Terminal columns from which on there is room for two spaces between columns and whole state names."""
WIDE_FROM_WITH_SOCKETS: Final = 160
"""The same with the kernel's columns: from here on they all fit."""
ENDPOINT_LEAST: Final = 18
ENDPOINT_LEAST_WIDE: Final = 21
"""An IPv4 address with its port: 255.255.255.255:65535."""
ENDPOINT_MOST: Final = 47
"""An IPv6 address with its port, in brackets."""

PROCESS_LEAST: Final = 14
PROCESS_MOST: Final = 2 * human.PROCESS_WIDTH + 3
"""Both ends' processes, with an arrow between them."""

ID_LEAST: Final = 2

EXTRAS_FROM: Final = 20
"""Columns of this priority and lower ones take only the room that the endpoints and a process in full leave."""
_ID_PRIORITY: Final = 20
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
    of_socket: bool = False  # of the kernel's view: there only in a table where a connection has one
    of_gap: bool = False  # there only in a table where records of a connection were lost

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


_SENT: Final = Column("→ bytes", 7, 8, cells.field("sent", "bytes", human.byte_count))
_RECEIVED: Final = Column("← bytes", 7, 9, cells.field("received", "bytes", human.byte_count))
_RTT: Final = Column("RTT", 7, 4, cells.rtt)
_SRTT: Final = Column("srtt", 7, 6, cells.socket("srtt_us", lambda us, width: human.duration_us(us)), of_socket=True)
_PROCESS: Final = Column("process", PROCESS_LEAST, 7, cells.process, PROCESS_MOST, left=True, of_socket=True)


_INCOMPLETE: Final = Column(
    "incomplete", 10, 3, cells.incomplete, style=lambda row: "bold red" if row["records_lost"] else "", of_gap=True
)
"""How many records are missing: the analysis has gaps, the counts do not."""


def _cwnd(priority: int) -> Column:
    return Column("cwnd", 5, priority, cells.socket("cwnd_packets", human.count), of_socket=True)


def _kernel_retransmissions(priority: int) -> Column:
    text, style = cells.socket("retransmissions", human.count), cells.kernel_retransmissions_style
    return Column("k retr", 6, priority, text, style=style, of_socket=True)


_NARROW: Final = (
    _source(ENDPOINT_LEAST),
    _destination(ENDPOINT_LEAST),
    Column("state", 10, 3, cells.short_state, left=True, style=cells.state_style),
    _rate("→", "sent", 5),
    _rate("←", "received", 5),
    _SENT,
    _RECEIVED,
    _RTT,
    _SRTT,
    _cwnd(20),
    Column("retr", 5, 5, cells.both("retransmissions"), style=cells.marked("yellow", "retransmissions")),
    _kernel_retransmissions(21),
    _INCOMPLETE,
    _PROCESS,
)

_WIDE: Final = (
    _source(ENDPOINT_LEAST_WIDE),
    _destination(ENDPOINT_LEAST_WIDE),
    Column("state", 12, 3, cells.state, left=True, style=cells.state_style),
    _rate("→", "sent", 6),
    _rate("←", "received", 6),
    _SENT,
    _RECEIVED,
    Column("→ pkts", 7, 19, cells.count("sent", "packets")),
    Column("← pkts", 7, 19, cells.count("received", "packets")),
    Column("→ goodput", 9, 23, cells.goodput("sent")),
    Column("← goodput", 9, 23, cells.goodput("received")),
    _RTT,
    _SRTT,
    Column("min RTT", 7, 12, cells.field("sent", "rtt_min_us", human.duration_us)),
    Column("p50 RTT", 7, 21, cells.field("sent", "rtt_p50_us", human.duration_us)),
    Column("p99 RTT", 7, 21, cells.field("sent", "rtt_p99_us", human.duration_us)),
    _cwnd(10),
    _retransmissions("→", "sent"),
    _retransmissions("←", "received"),
    _kernel_retransmissions(11),
    Column("reorder", 7, 14, cells.both("out_of_order"), style=cells.marked("yellow", "out_of_order")),
    Column("gaps", 5, 24, cells.both("gaps"), style=cells.marked("yellow", "gaps")),
    Column("dup ack", 7, 15, cells.both("duplicate_acks"), style=cells.marked("yellow", "duplicate_acks")),
    Column("0 win", 5, 16, cells.both("zero_windows"), style=cells.marked("red", "zero_windows")),
    Column("→ win", 7, 17, cells.field("sent", "window_bytes", human.byte_count)),
    Column("← win", 7, 17, cells.field("received", "window_bytes", human.byte_count)),
    Column("→ flight", 8, 22, cells.field("sent", "in_flight_bytes", human.byte_count)),
    Column("← flight", 8, 22, cells.field("received", "in_flight_bytes", human.byte_count)),
    Column("duration", 8, 13, cells.duration),
    Column("closed by", 9, 25, cells.closed_by, left=True),
    Column("handshake", 10, 26, cells.handshake, left=True),
    _INCOMPLETE,
    _PROCESS,
)


_OVER_THE_WHOLE_TIME: Final = {
    "→ B/s": cells.average("sent"),
    "← B/s": cells.average("received"),
    "→ flight": cells.field("sent", "in_flight_max_bytes", human.byte_count),
    "← flight": cells.field("received", "in_flight_max_bytes", human.byte_count),
}
"""What a final table shows under a heading instead of what is just now."""


def is_wide(width: int, with_sockets: bool) -> bool:
    """Whether a terminal has room for the wide form."""
    return width >= (WIDE_FROM_WITH_SOCKETS if with_sockets else WIDE_FROM)


def columns_for(
    width: int,
    *,
    averages: bool,
    id_width: int = ID_LEAST,
    by_id: bool = False,
    with_sockets: bool = False,
    with_gaps: bool = False,
) -> tuple[Column, ...]:
    """The columns to choose from at a terminal width.

    `averages` shows what a connection did over its whole time; `by_id` says that connections are asked for
    by their numbers, which else are shown only where there is much room; `with_sockets` adds the kernel's view,
    `with_gaps` which connections are incomplete.
    """
    wide = is_wide(width, with_sockets)
    chosen = tuple(
        column
        for column in (_WIDE if wide else _NARROW)
        if (with_sockets or not column.of_socket) and (with_gaps or not column.of_gap)
    )
    if wide or by_id:
        chosen = (_number(id_width, _ID_PRIORITY_ASKED_FOR if by_id else _ID_PRIORITY), *chosen)
    if not averages:
        return chosen
    means = _OVER_THE_WHOLE_TIME
    return tuple(replace(c, text=means[c.heading], style=None) if c.heading in means else c for c in chosen)


def id_need(rows: Rows) -> int:
    """Digits of the largest number of a connection."""
    return len(str(int(rows["id"].max()))) if len(rows) else 0


@dataclass(frozen=True)
class Need:
    """Characters that the elastic columns would take in full; `process` None: no row has a kernel's view;
    `has_gaps`: records of some were lost.
    """

    source: int = 0
    destination: int = 0
    process: int | None = None
    has_gaps: bool = False

    def widened(self, rows: Rows) -> "Need":
        """No less than before, and enough for `rows`."""
        source = max(self.source, _need(rows, cells.endpoint("src"), ENDPOINT_MOST))
        destination = max(self.destination, _need(rows, cells.endpoint("dst"), ENDPOINT_MOST))
        with_socket = [row for row, known in zip(rows, sockets.any_known(rows), strict=True) if known]
        has_gaps = self.has_gaps or bool((rows["records_lost"] > 0).any())
        if self.process is None and not with_socket:
            return Need(source, destination, has_gaps=has_gaps)
        process = max(self.process or 0, _need(with_socket, cells.process, PROCESS_MOST))
        return Need(source, destination, process, has_gaps)


def _need(rows: Iterable[Row], text: Callable[[Row, int], str], most: int) -> int:
    return max((len(text(row, most)) for row in rows), default=0)


def layout(
    width: int,
    need: Need = Need(),
    *,
    averages: bool = False,
    id_width: int = ID_LEAST,
    by_id: bool = False,
) -> Layout:
    """Columns for a terminal `width` characters wide; room to spare goes to the elastic ones that need it."""
    with_sockets = need.process is not None
    columns = columns_for(
        width,
        averages=averages,
        id_width=id_width,
        by_id=by_id,
        with_sockets=with_sockets,
        with_gaps=need.has_gaps,
    )
    gap = "  " if is_wide(width, with_sockets) else " "
    needs = {"source": need.source, "destination": need.destination, "process": need.process or 0}
    wish = {c.heading: max(0, min(c.most, needs[c.heading]) - c.width) for c in columns if c.most}
    one_process = min(wish.get("process", 0), human.PROCESS_WIDTH - PROCESS_LEAST)
    kept = _fitting(columns, width, len(gap), wish["source"] + wish["destination"] + one_process)
    widths = {column.heading: column.width for column in kept}
    spare = width - sum(widths.values()) - len(gap) * (len(kept) - 1)
    if spare < 0:  # narrower than the two endpoints
        each = max(1, (width - len(gap)) // 2)
        return Layout(tuple((column, each) for column in kept), gap)
    elastic = [column.heading for column in kept if column.most]
    for heading, extra in zip(elastic, _share(spare, [wish[heading] for heading in elastic]), strict=True):
        widths[heading] += extra
    return Layout(tuple((column, widths[column.heading]) for column in kept), gap)


def _fitting(columns: Sequence[Column], width: int, gap: int, wish: int) -> list[Column]:
    """The columns of the highest priorities that fit, in table order; those of one priority go together.

    `wish` is the room that the elastic columns would like beyond their least.
    """
    kept: list[Column] = [column for column in columns if column.priority == 1]
    for priority in sorted({column.priority for column in columns} - {1}):
        wider = [column for column in columns if column.priority <= priority]
        room = width if priority < EXTRAS_FROM else width - wish
        if sum(column.width for column in wider) + gap * (len(wider) - 1) > room:
            break
        kept = wider
    return kept


def _share(spare: int, wish: Sequence[int]) -> list[int]:
    """`spare` among those that wish for more, evenly as far as they need it; what does not divide goes to the first."""
    shares = [0] * len(wish)
    left = list(range(len(wish)))
    while left:
        modest = min(left, key=lambda i: wish[i])
        even, rest = divmod(spare, len(left))
        shares[modest] = min(wish[modest], even + (left.index(modest) < rest))
        spare -= shares[modest]
        left.remove(modest)
    return shares
