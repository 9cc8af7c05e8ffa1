"""Figures over time: throughput, round-trip times, bytes in flight and windows, and all connections' traffic."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace import records as r
from tcptrace.sinks.drawing.axes_text import ascending_width
from tcptrace.sinks.drawing.flight import in_flight
from tcptrace.sinks.drawing.goodput import new_bytes
from tcptrace.sinks.drawing.history import History
from tcptrace.sinks.drawing.marks import Points, seconds
from tcptrace.sinks.drawing.sequence_numbers import Space, relative_numbers

Array = npt.NDArray[Any]

# As many bins as steps that can be told apart in a panel.
BINS: Final = 120
_SHORTEST_BIN_S: Final = 1e-6


@dataclass(frozen=True)
class Bins:
    """Equal stretches of time from 0 on, in seconds."""

    width_s: float
    count: int

    def index(self, time_s: Array) -> Array:
        """Which bin each time falls into."""
        return np.clip((time_s / self.width_s).astype(np.int64), 0, self.count - 1)

    def sums(self, time_s: Array, amounts: Array) -> Array:
        """The amounts of each bin together."""
        return np.bincount(self.index(time_s), weights=amounts, minlength=self.count)

    def edges(self) -> Array:
        """Where bins begin, and the end of the last."""
        return np.arange(self.count + 1) * self.width_s


def bins_for(duration_s: float, at_most: int = BINS) -> Bins:
    """Bins of a round width that cover the duration."""
    width_s = ascending_width(max(duration_s / at_most, _SHORTEST_BIN_S))
    return Bins(width_s, max(1, int(np.floor(duration_s / width_s + 1e-9)) + 1))


@dataclass
class DirectionSeries:
    """One direction of a connection over time; seconds since it began."""

    payload_per_s: Array  # of each bin, bytes
    goodput_per_s: Array  # of each bin: bytes that had not been sent before
    rtt: Points  # samples of what is sent in this direction, µs
    rtt_median: Points  # of the bins that have any, at their middle
    in_flight: Points  # after each segment sent and each ACK of the other end
    window: Points | None  # what the other end would take; None: its scale is not known
    payload_bytes: int


@dataclass
class ConnectionSeries:
    """Both directions, and the bins of the rates."""

    duration_s: float
    bins: Bins
    directions: tuple[DirectionSeries, DirectionSeries]


def connection_series(history: History) -> ConnectionSeries:
    """All that --graph shows of one connection."""
    packets, time_s = history.packets(), seconds(history)
    duration_s = float(time_s[-1]) if len(time_s) else 0.0
    numbers = relative_numbers(packets, (Space(), Space()))
    bins = bins_for(duration_s)
    return ConnectionSeries(
        duration_s,
        bins,
        (_direction(history, time_s, numbers, bins, 0), _direction(history, time_s, numbers, bins, 1)),
    )


def _direction(
    history: History, time_s: Array, numbers: tuple[Array, Array], bins: Bins, direction: int
) -> DirectionSeries:
    packets = history.packets()
    sends = packets["received"] == direction
    payload = np.where(sends, packets["payload_bytes"], 0)
    # A sample belongs to the data; the packet that completes it is the other end's ACK.
    sampled = ~sends & np.isfinite(packets["rtt_us"])
    rtt = Points(time_s[sampled], packets["rtt_us"][sampled].astype(np.float64))
    changes, flying = in_flight(packets, history.sacks(), numbers[1], direction)
    return DirectionSeries(
        bins.sums(time_s, payload) / bins.width_s,
        bins.sums(time_s, new_bytes(packets, numbers[0], direction)) / bins.width_s,
        rtt,
        medians(rtt, bins),
        Points(time_s[changes], flying.astype(np.float64)),
        _window(history, time_s, ~sends, history.window_shift(1 - direction)),
        int(payload.sum(dtype=np.int64)),
    )


def _window(history: History, time_s: Array, of_other: Array, shift: int | None) -> Points | None:
    if shift is None:
        return None
    packets = history.packets()
    announces = of_other & (packets["flags"] & r.FLAG_RST == 0)
    scaled = np.where(packets["flags"] & r.FLAG_SYN != 0, 0, shift)
    window = packets["window"].astype(np.int64) << scaled
    return Points(time_s[announces], window[announces].astype(np.float64))


def medians(samples: Points, bins: Bins) -> Points:
    """The median of each bin that has samples, at the bin's middle."""
    index = bins.index(samples.x)
    order = np.lexsort((samples.y, index))
    ordered = samples.y[order]
    which, first, count = np.unique(index[order], return_index=True, return_counts=True)
    middle = (ordered[first + (count - 1) // 2] + ordered[first + count // 2]) / 2 if len(which) else ordered
    return Points((which + 0.5) * bins.width_s, middle)


@dataclass
class Overview:
    """Traffic of the connections with most bytes, most first, and of the others together."""

    bins: Bins
    histories: list[History]
    bytes_per_s: Array  # frame bytes: a row for each history and, if there are others, one for them
    others: int
    others_bytes: int
    not_kept: int  # packets that the rates lack


def overview(histories: list[History], shown: int) -> Overview:
    """`histories` with most bytes first; the first `shown` of them get a row each."""
    kept = [history for history in histories if len(history.packets_kept)]
    start_ns = min((int(history.packets()["time_ns"][0]) for history in kept), default=0)
    end_ns = max((int(history.packets()["time_ns"][-1]) for history in kept), default=0)
    bins = bins_for((end_ns - start_ns) / 1e9)
    first, others = histories[:shown], histories[shown:]
    rows = [_traffic([history], bins, start_ns) for history in first]
    if others:
        rows.append(_traffic(others, bins, start_ns))
    return Overview(
        bins,
        first,
        np.array(rows),
        len(others),
        sum(sum(history.frame_bytes) for history in others),
        sum(history.not_kept for history in histories),
    )


def _traffic(histories: list[History], bins: Bins, start_ns: int) -> Array:
    """Frame bytes a second of some connections together."""
    total = np.zeros(bins.count)
    for history in histories:
        packets = history.packets()
        total += bins.sums((packets["time_ns"] - start_ns) / 1e9, packets["frame_bytes"])
    return total / bins.width_s
