"""The columns of the connection table: what they show, how wide they are, and which of them fit.

Plain text only.  A cell is never wider than its column, whatever is in the row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tcptrace.model import STATES, Rows
from tcptrace.sinks import human

Row = Any
"""One row of model.CONNECTION."""

WIDE_FROM: Final = 100
"""Terminal columns from which on there is room for two spaces between columns and whole state names."""
ENDPOINT_LEAST: Final = 18
ENDPOINT_LEAST_WIDE: Final = 21
"""An IPv4 address with its port: 255.255.255.255:65535."""
ENDPOINT_MOST: Final = 47
"""An IPv6 address with its port, in brackets."""

_SHORT_STATES: Final = {"ESTABLISHED": "ESTAB", "SYN-RECEIVED": "SYN-RECV"}


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


def service_name(row: Row) -> str | None:
    """Of the destination's port; of the source's only where it is not known who began."""
    name = human.service(int(row["dst_port"]))
    if name is None and not row["initiator_known"]:
        name = human.service(int(row["src_port"]))
    return name


def _endpoint(row: Row, end: str, width: int) -> str:
    host = human.address(row[f"{end}_addr"].tobytes(), int(row["ip_version"]))
    return human.endpoint_fit(host, int(row[f"{end}_port"]), _end_name(row, end), width)


def _end_name(row: Row, end: str) -> str | None:
    if end == "dst":
        return human.service(int(row["dst_port"]))
    return service_name(row) if human.service(int(row["dst_port"])) is None else None


def _state(row: Row, width: int) -> str:
    name = STATES[row["state"]] or human.UNKNOWN
    return name if len(name) <= width else _SHORT_STATES.get(name, name)


def _short_state(row: Row, width: int) -> str:
    name = STATES[row["state"]] or human.UNKNOWN
    return _SHORT_STATES.get(name, name)


def _state_style(row: Row) -> str:
    name = STATES[row["state"]]
    if name in ("SYN-SENT", "SYN-RECEIVED"):
        return "green"
    return "" if name == "ESTABLISHED" else "dim"


def _rtt(row: Row, width: int) -> str:
    smoothed = float(row["sent"]["rtt_smoothed_us"])
    return human.duration_us(smoothed if smoothed == smoothed else float(row["handshake_rtt_us"]))


def _duration(row: Row, width: int) -> str:
    return human.duration_s(int(row["last_ns"] - row["start_ns"]) / 1e9)


def _average(direction: str) -> Callable[[Row, int], str]:
    def text(row: Row, width: int) -> str:
        elapsed_ns = int(row["last_ns"] - row["start_ns"])
        return human.quantity(int(row[direction]["bytes"]) / elapsed_ns * 1e9) if elapsed_ns > 0 else human.UNKNOWN

    return text


def _field(direction: str, name: str, form: Callable[[float], str]) -> Callable[[Row, int], str]:
    return lambda row, width: form(row[direction][name].item())


def _count(direction: str, name: str) -> Callable[[Row, int], str]:
    return lambda row, width: human.count(int(row[direction][name]), width)


def _sum_of(row: Row, name: str) -> int:
    return int(row["sent"][name]) + int(row["received"][name])


def _both(name: str) -> Callable[[Row, int], str]:
    return lambda row, width: human.count(_sum_of(row, name), width)


def _marked(style: str, name: str, directions: Sequence[str] = ("sent", "received")) -> Callable[[Row], str]:
    """`style` where something was counted, else dim."""
    return lambda row: style if any(row[direction][name] > 0 for direction in directions) else "dim"


def _rate_style(direction: str) -> Callable[[Row], str]:
    return lambda row: "bold" if row[direction]["bytes_per_s"] > 0 else "dim"


def _source(least: int) -> Column:
    return Column("source", least, 1, lambda row, width: _endpoint(row, "src", width), ENDPOINT_MOST, left=True)


def _destination(least: int) -> Column:
    return Column("destination", least, 1, lambda row, width: _endpoint(row, "dst", width), ENDPOINT_MOST, left=True)


def _rate(arrow: str, direction: str, width: int) -> Column:
    text = _field(direction, "bytes_per_s", human.quantity)
    return Column(f"{arrow} B/s", width, 2, text, style=_rate_style(direction))


_SENT: Final = Column("→ bytes", 7, 6, _field("sent", "bytes", human.byte_count))
_RECEIVED: Final = Column("← bytes", 7, 7, _field("received", "bytes", human.byte_count))
_RTT: Final = Column("RTT", 7, 4, _rtt)

_NARROW: Final = (
    _source(ENDPOINT_LEAST),
    _destination(ENDPOINT_LEAST),
    Column("state", 10, 3, _short_state, left=True, style=_state_style),
    _rate("→", "sent", 5),
    _rate("←", "received", 5),
    _SENT,
    _RECEIVED,
    _RTT,
    Column("retr", 5, 5, _both("retransmissions"), style=_marked("yellow", "retransmissions")),
)

_WIDE: Final = (
    _source(ENDPOINT_LEAST_WIDE),
    _destination(ENDPOINT_LEAST_WIDE),
    Column("state", 12, 3, _state, left=True, style=_state_style),
    _rate("→", "sent", 6),
    _rate("←", "received", 6),
    _SENT,
    _RECEIVED,
    Column("→ pkts", 7, 15, _count("sent", "packets")),
    Column("← pkts", 7, 15, _count("received", "packets")),
    _RTT,
    Column("min RTT", 7, 8, _field("sent", "rtt_min_us", human.duration_us)),
    Column("→ retr", 6, 5, _count("sent", "retransmissions"), style=_marked("yellow", "retransmissions", ["sent"])),
    Column(
        "← retr", 6, 5, _count("received", "retransmissions"), style=_marked("yellow", "retransmissions", ["received"])
    ),
    Column("reorder", 7, 10, _both("out_of_order"), style=_marked("yellow", "out_of_order")),
    Column("dup ack", 7, 11, _both("duplicate_acks"), style=_marked("yellow", "duplicate_acks")),
    Column("0 win", 5, 12, _both("zero_windows"), style=_marked("red", "zero_windows")),
    Column("→ win", 7, 13, _field("sent", "window_bytes", human.byte_count)),
    Column("← win", 7, 13, _field("received", "window_bytes", human.byte_count)),
    Column("duration", 8, 9, _duration),
)


def columns_for(width: int, *, averages: bool) -> tuple[Column, ...]:
    """The columns to choose from at a terminal width; `averages` shows rates over a connection's whole time."""
    chosen = _WIDE if width >= WIDE_FROM else _NARROW
    if not averages:
        return chosen
    means = {"→ B/s": _average("sent"), "← B/s": _average("received")}
    return tuple(replace(c, text=means[c.heading], style=None) if c.heading in means else c for c in chosen)


def endpoint_need(rows: Rows) -> tuple[int, int]:
    """Characters that the sources and the destinations of `rows` would take in full."""
    return _need(rows, "src"), _need(rows, "dst")


def _need(rows: Rows, end: str) -> int:
    return max((len(_endpoint(row, end, ENDPOINT_MOST)) for row in rows), default=0)


def layout(width: int, need: tuple[int, int] = (0, 0), *, averages: bool = False) -> Layout:
    """Columns for a terminal `width` characters wide; room to spare goes to endpoints that need it."""
    columns = columns_for(width, averages=averages)
    gap = "  " if width >= WIDE_FROM else " "
    kept = _fitting(columns, width, len(gap))
    widths = {column.heading: column.width for column in kept}
    spare = width - sum(widths.values()) - len(gap) * (len(kept) - 1)
    if spare < 0:  # narrower than the two endpoints
        each = max(1, (width - len(gap)) // 2)
        return Layout(tuple((column, each) for column in kept), gap)
    ends = [column for column in kept if column.most]
    wish = [max(0, min(column.most, need[i]) - column.width) for i, column in enumerate(ends)]
    for column, extra in zip(ends, _share(spare, wish), strict=True):
        widths[column.heading] += extra
    return Layout(tuple((column, widths[column.heading]) for column in kept), gap)


def _fitting(columns: Sequence[Column], width: int, gap: int) -> list[Column]:
    """The columns of the highest priorities that fit, in table order; those of one priority go together."""
    kept: list[Column] = [column for column in columns if column.priority == 1]
    for priority in sorted({column.priority for column in columns} - {1}):
        wider = [column for column in columns if column.priority <= priority]
        if sum(column.width for column in wider) + gap * (len(wider) - 1) > width:
            break
        kept = wider
    return kept


def _share(spare: int, wish: Sequence[int]) -> tuple[int, int]:
    """`spare` between two that wish for more, evenly as far as both need it."""
    first = min(wish[0], max(spare - wish[1], (spare + 1) // 2))
    return first, min(wish[1], spare - first)
