"""The time-sequence diagram of one direction: where each line, bar and mark goes, by time and sequence number."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace import records as r
from tcptrace.sinks.drawing import kinds
from tcptrace.sinks.drawing.decimation import Grid, distinct_points, merge_bars, thin_line
from tcptrace.sinks.drawing.history import History
from tcptrace.sinks.drawing.kinds import Kind
from tcptrace.sinks.drawing.sequence_numbers import Space, payload_begins, relative_numbers, sack_numbers

Array = npt.NDArray[Any]

# A window edge further above the data than this many times their own height would press them flat: it is cut off.
EDGE_HEIGHTS: Final = 1.5
_MARGIN: Final = 0.04


@dataclass
class Bars:
    """Vertical bars: bytes `low` to `high` at time `x`."""

    x: Array
    low: Array
    high: Array


@dataclass
class Points:
    """Points, in order of x; for a staircase each height lasts until the next, the last until the end."""

    x: Array
    y: Array


@dataclass
class Diagram:
    """What there is to draw of the bytes that one end sends.  Seconds since the connection began; relative numbers."""

    packets: int = 0  # of the connection, both directions
    duration_s: float = 0.0  # of the connection
    payload_bytes: int = 0
    window_known: bool = True
    bars: dict[str, Bars] = field(default_factory=dict)  # by label
    stairs: dict[str, Points] = field(default_factory=dict)
    events: dict[str, Points] = field(default_factory=dict)

    def kinds(self) -> list[Kind]:
        """What occurs, in the legend's order."""
        there = self.bars.keys() | self.stairs.keys() | self.events.keys()
        return [kind for label, kind in kinds.LEGEND.items() if label in there]

    def events_in_order(self) -> list[tuple[Kind, Points]]:
        """Marks in the order in which to draw them."""
        return [(kind, self.events[label]) for label, kind in kinds.EVENTS.items() if label in self.events]

    def marks(self) -> int:
        """How many bars, points of lines and marks these are."""
        bars = sum(len(bar.x) for bar in self.bars.values())
        return bars + sum(len(points.x) for points in (*self.stairs.values(), *self.events.values()))


def seconds(history: History) -> Array:
    """Since the connection's first packet."""
    times = history.packets()["time_ns"]
    return np.asarray((times - times[:1].sum()) / 1e9)


def diagrams(history: History) -> tuple[Diagram, Diagram]:
    """Those of the bytes that src sends and of those that dst sends."""
    packets = history.packets()
    seq, ack = relative_numbers(packets, (Space(), Space()))
    source = _Source(history, packets, seconds(history), seq, ack)
    return source.diagram(0), source.diagram(1)


@dataclass
class _Source:
    history: History
    packets: Array
    time_s: Array
    seq: Array
    ack: Array

    def diagram(self, direction: int) -> Diagram:
        sent = self.packets["received"] == direction
        acks = ~sent & (self.packets["flags"] & r.FLAG_ACK != 0) & (self.packets["flags"] & r.FLAG_RST == 0)
        shift = self.history.window_shift(1 - direction)
        made = Diagram(
            packets=self.history.packet_count(),
            duration_s=float(self.time_s[-1]) if len(self.time_s) else 0.0,
            payload_bytes=int(self.packets["payload_bytes"][sent].sum(dtype=np.int64)),
            window_known=shift is not None,
        )
        self._data(made, sent)
        self._acknowledged(made, acks, shift)
        self._sacks(made, direction)
        self._events(made, sent, acks)
        return made

    def _data(self, made: Diagram, sent: Array) -> None:
        """Segments with payload; those sent again by kind, over the others."""
        carries = sent & (self.packets["payload_bytes"] > 0)
        again = np.zeros(len(self.packets), bool)
        for name in (*kinds.RETRANSMISSIONS, "out_of_order"):
            of_kind = carries & self._found(name)
            again |= of_kind
            self._bars(made, kinds.SENT_KINDS[name].label, of_kind)
        self._bars(made, kinds.DATA.label, carries & ~again)

    def _bars(self, made: Diagram, label: str, which: Array) -> None:
        if which.any():
            low = payload_begins(self.packets, self.seq)[which]
            made.bars[label] = Bars(self.time_s[which], low, low + self.packets["payload_bytes"][which])

    def _found(self, name: str) -> Array:
        """Packets with that finding; a fast or spurious retransmission is not drawn as a plain one as well."""
        analysis = self.packets["analysis"]
        found = analysis & kinds.bit(name) != 0
        if name == "retransmission":
            found &= analysis & kinds.KINDS_OF_RETRANSMISSION == 0
        return np.asarray(found)

    def _acknowledged(self, made: Diagram, acks: Array, shift: int | None) -> None:
        """Staircases of what the other end has acknowledged and of what it would take; old ACKs move neither."""
        if not acks.any():
            return
        highest = np.maximum.accumulate(self.ack[acks])
        newest = self.ack[acks] == highest
        times = self.time_s[acks]
        made.stairs[kinds.ACK.label] = Points(times[newest], highest[newest])
        if shift is None:
            return
        scaled = np.where(self.packets["flags"] & r.FLAG_SYN != 0, 0, shift)  # a SYN's own window is never scaled
        edge = self.ack + (self.packets["window"].astype(np.int64) << scaled)
        made.stairs[kinds.WINDOW.label] = Points(times[newest], edge[acks][newest])

    def _sacks(self, made: Diagram, direction: int) -> None:
        sacks = self.history.sacks()
        sacks = sacks[self.packets["received"][sacks["packet"]] != direction]
        if len(sacks):
            left, right = sack_numbers(self.packets, self.ack, sacks)
            made.bars[kinds.SACK.label] = Bars(self.time_s[sacks["packet"]], left, right)

    def _events(self, made: Diagram, sent: Array, acks: Array) -> None:
        middle = self.seq + self.packets["payload_bytes"] / 2
        for name, kind in kinds.SENT_KINDS.items():
            self._points(made, kind, sent & self._found(name), middle)
        for name, kind in kinds.ACKED_KINDS.items():
            self._points(made, kind, acks & self._found(name), self.ack)
        for flag, kind in kinds.FLAG_KINDS.items():
            place = self.seq + (self.packets["payload_bytes"] if flag == r.FLAG_FIN else 0)
            self._points(made, kind, sent & (self.packets["flags"] & flag != 0), place)

    def _points(self, made: Diagram, kind: Kind, which: Array, place: Array) -> None:
        if which.any():
            made.events[kind.label] = Points(self.time_s[which], place[which])


def limits(made: Diagram, margin: float = _MARGIN) -> tuple[float, float]:
    """Lowest and highest number to show: all data and ACKs, and the window edge unless it is too far above.

    Resets and SACK blocks do not count: their numbers may be made up.  `margin` is a share of the height.
    """
    heights = [np.concatenate([bar.low, bar.high]) for label, bar in made.bars.items() if label != kinds.SACK.label]
    heights += [points.y for label, points in made.stairs.items() if label != kinds.WINDOW.label]
    reset = kinds.FLAG_KINDS[r.FLAG_RST].label
    heights += [points.y for label, points in made.events.items() if label != reset or not heights]
    values = np.concatenate(heights) if heights else np.zeros(1)
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 1.0)
    if kinds.WINDOW.label in made.stairs:
        edge = made.stairs[kinds.WINDOW.label].y
        high = max(high, float(edge[edge <= high + EDGE_HEIGHTS * span].max(initial=low)))
        span = max(high - low, 1.0)
    room = margin * span
    return low - room, max(high, low + 1.0) + room


def cut_off_bytes(made: Diagram, grid: Grid) -> int:
    """How far the window edge goes above the picture; 0 if it does not."""
    edge = made.stairs.get(kinds.WINDOW.label)
    return 0 if edge is None else max(0, round(float(edge.y.max()) - grid.y_max))


def _is_above(line: Points, grid: Grid) -> bool:
    return bool((line.y > grid.y_max).all())


def decimated(made: Diagram, grid: Grid, cell: int) -> Diagram:
    """The same to the eye, in far fewer marks; `cell` is how many pixels wide and high the smallest mark is."""
    coarse = grid.coarser(cell)
    thin = Diagram(made.packets, made.duration_s, made.payload_bytes, made.window_known)
    for label, bars in made.bars.items():
        thin.bars[label] = Bars(*merge_bars(bars.x, bars.low, bars.high, grid))
    for label, line in made.stairs.items():
        if _is_above(line, grid):
            continue
        needed = thin_line(line.x, line.y, grid)
        thin.stairs[label] = Points(line.x[needed], line.y[needed])
    for label, points in made.events.items():
        kept = distinct_points(points.x, points.y, coarse)
        thin.events[label] = Points(points.x[kept], points.y[kept])
    return thin
