"""A connection's figures over time on a terminal."""

from typing import Final

import numpy as np
from rich.text import Text

from tcptrace.sinks import human
from tcptrace.sinks.drawing import axes_text
from tcptrace.sinks.drawing.decimation import thin_line
from tcptrace.sinks.drawing.history import Array, History
from tcptrace.sinks.drawing.marks import Points
from tcptrace.sinks.drawing.series import Bins, DirectionSeries, connection_series
from tcptrace.sinks.drawing.terminal import Entry, Panel, heading, in_ascii, legend, time_labels

_ROWS: Final = 8
# So few samples are letters: single dots are easily missed.
_FEW: Final = 20
_STYLES: Final = ("cyan", "yellow")
_GOODPUT: Final = "green"


def lines(history: History, width: int, plain: bool) -> list[Text]:
    """Throughput, RTT and bytes in flight of each direction that has any."""
    series = connection_series(history)
    src, dst = history.ends.names()
    shown = [heading(f"connection {history.id}: {src} > {dst}", width)]
    span_s = (0.0, series.duration_s or 1e-6)
    for side, name, style in zip(series.directions, (f"{src} > {dst}", f"{dst} > {src}"), _STYLES, strict=True):
        if side.payload_bytes:
            shown += _throughput(side, name, series.bins, span_s, style, width, plain)
        if len(side.rtt.x):
            shown += _rtt(side, name, span_s, style, width, plain)
        if len(side.in_flight.x):
            shown += _flight(side, name, span_s, style, width, plain)
    if len(shown) == 1:
        shown.append(heading("no payload, and no round-trip time", width, ""))
    note = axes_text.packets_note(history.packet_count(), history.not_kept)
    shown.append(heading(note, width, "dim"))
    return [in_ascii(line) for line in shown] if plain else shown


def _throughput(
    side: DirectionSeries, name: str, bins: Bins, span_s: tuple[float, float], style: str, width: int, plain: bool
) -> list[Text]:
    top = float(side.payload_per_s.max())
    panel = Panel(width, _ROWS, span_s, (0.0, top * 1.02))
    panel.staircase(_steps(side.payload_per_s, bins), style)
    entries = [Entry("╌", "payload", style)]
    if not np.array_equal(side.goodput_per_s, side.payload_per_s):
        panel.staircase(_steps(side.goodput_per_s, bins), _GOODPUT)
        entries.append(Entry("╌", "goodput", _GOODPUT))
    return [
        heading(f"throughput {name}, in bins of {axes_text.duration_label(bins.width_s)}", width, ""),
        *panel.lines(plain, human.byte_rate(top), "0 B/s", *time_labels(span_s)),
        *(legend(entries, width) if len(entries) > 1 else []),
    ]


def _steps(rates: Array, bins: Bins) -> Points:
    return Points(bins.edges(), np.append(rates, rates[-1]))


def _rtt(
    side: DirectionSeries, name: str, span_s: tuple[float, float], style: str, width: int, plain: bool
) -> list[Text]:
    top = float(side.rtt.y.max())
    panel = Panel(width, _ROWS, span_s, (0.0, top * 1.02 or 1.0))
    if len(side.rtt.x) <= _FEW:
        panel.letters(side.rtt, "o", style)
    else:
        panel.dots(side.rtt, style)
    samples = human.plural(len(side.rtt.x), "sample")
    median = human.duration_us(float(np.median(side.rtt.y)))
    return [
        heading(f"round-trip time {name}: {samples}, median {median}", width, ""),
        *panel.lines(plain, human.duration_us(top), "0 s", *time_labels(span_s)),
    ]


def _flight(
    side: DirectionSeries, name: str, span_s: tuple[float, float], style: str, width: int, plain: bool
) -> list[Text]:
    top = float(side.in_flight.y.max())
    panel = Panel(width, _ROWS, span_s, (0.0, top * 1.02 or 1.0))
    kept = thin_line(side.in_flight.x, side.in_flight.y, panel.grid)
    flying = Points(side.in_flight.x[kept], side.in_flight.y[kept])
    panel.staircase(flying, style)
    panel.beginning(flying, "╌", style)
    window = (
        "window is not known (not both SYNs seen)"
        if side.window is None or not len(side.window.y)
        else _range(side.window.y)
    )
    return [
        heading(f"bytes in flight {name}", width, ""),
        *panel.lines(plain, human.byte_count(top), "0 B", *time_labels(span_s)),
        heading(f"the receiver's {window}", width, "dim"),
    ]


def _range(windows: Array) -> str:
    return f"window was {human.byte_count(float(windows.min()))} to {human.byte_count(float(windows.max()))}"
