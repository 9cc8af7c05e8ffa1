"""Pages of --graph: one connection's rates, times and windows, and an overview of all.  Needs matplotlib."""

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tcptrace.sinks import human
from tcptrace.sinks.drawing import axes_text, canvas, kinds
from tcptrace.sinks.drawing.decimation import Grid, distinct_points, thin_line
from tcptrace.sinks.drawing.history import Array, History
from tcptrace.sinks.drawing.marks import Points
from tcptrace.sinks.drawing.series import Bins, ConnectionSeries, DirectionSeries, connection_series, overview

_OVERVIEW_HEIGHT_IN: Final = 9.0
_PANEL_IN: Final = 2.5
_AROUND_IN: Final = 1.0
_NAME_WIDTH: Final = 52
# Fewer samples are drawn larger.
_FEW: Final = 50
# A window more than this many times as high as what was ever in flight would press that flat: it is cut off.
_WINDOW_HEIGHTS: Final = 4
_ROWS: Final = 260
_DOT_PIXELS: Final = 3
OVERVIEW_CONNECTIONS: Final = 8
_COLORS: Final = (
    kinds.BLUE, kinds.ORANGE, kinds.GREEN, kinds.PURPLE, kinds.SKY, kinds.VERMILION, "#F0E442", "#332288",
)  # fmt: skip
_HATCHES: Final = ("", "//", "..", "\\\\", "xx", "--", "++", "oo")
_OTHERS: Final = "#BBBBBB"
# Of each direction: its colour, the same dark for what lies upon it, its mark and its line.
_SIDES: Final = ((canvas.SENT, canvas.SENT_DARK, "o", "-"), (canvas.RECEIVED, canvas.RECEIVED_DARK, "x", "--"))


def draw(history: History, arrow: str) -> Figure:
    """Throughput, RTT, and for each direction with payload its bytes in flight."""
    series = connection_series(history)
    src, dst = history.ends.names()
    names = (f"{src} {arrow} {dst}", f"{dst} {arrow} {src}")
    flying = [direction for direction in (0, 1) if len(series.directions[direction].in_flight.x)]
    timed = any(len(side.rtt.x) for side in series.directions)
    loaded = any(side.payload_bytes for side in series.directions) or not (timed or flying)
    rows = loaded + timed + len(flying)
    figure = canvas.new_figure(_AROUND_IN + rows * _PANEL_IN, f"Connection {history.id}: {src} {arrow} {dst}")
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    panels[0].set_xlim(*canvas.time_limits(series.duration_s))
    marks = _throughput(panels[0], series) if loaded else 0
    if timed:
        marks += _rtt(panels[int(loaded)], series)
    for axes, direction in zip(panels[loaded + timed :], flying, strict=True):
        marks += _flight(axes, series.directions[direction], names[direction])
    for axes in panels:
        canvas.quiet_grid(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center left", bbox_to_anchor=(1.005, 0.5), borderaxespad=0)
    canvas.label_time(panels[-1], series.duration_s)
    notes = [axes_text.packets_note(history.packet_count(), history.not_kept, marks)]
    notes += ["no payload"] * (not any(side.payload_bytes for side in series.directions))
    notes += ["no round-trip time was measured"] * (not timed)
    _count(figure, "; ".join(notes))
    return figure


def _count(figure: Figure, text: str) -> None:
    figure.text(0.995, 0.988, text, ha="right", va="top", fontsize=canvas.NOTE_POINTS, color=kinds.GREY)


def _throughput(axes: Axes, series: ConnectionSeries) -> int:
    edges = series.bins.edges()
    for side, (color, *_), arrow in zip(series.directions, _SIDES, ("src to dst", "dst to src"), strict=True):
        if side.payload_bytes:
            axes.stairs(side.payload_per_s, edges, color=color, linewidth=1.3, label=f"{arrow}, payload")
            axes.stairs(side.goodput_per_s, edges, color=color, fill=True, alpha=0.25, label=f"{arrow}, goodput")
    axes.set_ylim(bottom=0)
    axes.set_title("Throughput")
    canvas.label_bytes(axes, f"in bins of {axes_text.duration_label(series.bins.width_s)}", "/s")
    return 4 * series.bins.count


def _rtt(axes: Axes, series: ConnectionSeries) -> int:
    marks = 0
    highest = max(float(side.rtt.y.max()) for side in series.directions if len(side.rtt.x)) or 1.0
    grid = Grid(*canvas.time_limits(series.duration_s), 0, highest, canvas.COLUMNS, _ROWS).coarser(_DOT_PIXELS)
    for side, (color, dark, marker, dashes), arrow in zip(
        series.directions, _SIDES, ("src to dst", "dst to src"), strict=True
    ):
        if not len(side.rtt.x):
            continue
        kept = distinct_points(side.rtt.x, side.rtt.y, grid)
        few = len(kept) <= _FEW
        axes.plot(
            side.rtt.x[kept], side.rtt.y[kept], marker, color=color, clip_on=False,
            markersize=5 if few else 3, alpha=0.9 if few else 0.4, label=f"{arrow}, samples",
        )  # fmt: skip
        marks += len(kept)
        if len(side.rtt.x) > len(side.rtt_median.x):  # otherwise each sample is the median of its bin
            medians = axes.stairs(
                *_levels(side.rtt_median, series.bins), baseline=None, color=dark, label=f"{arrow}, median"
            )
            medians.set(linewidth=1.6, linestyle=dashes)
            marks += len(side.rtt_median.x)
    axes.set_ylim(0, highest * 1.05)
    axes.set_title("Round-trip time of what is sent")
    canvas.label_round_trips(axes, highest)
    return marks


def _levels(medians: Points, bins: Bins) -> tuple[Array, Array]:
    """Heights of the bins, NaN where there is none, and the bins' edges: what is not known is not drawn."""
    levels = np.full(bins.count, np.nan)
    levels[bins.index(medians.x)] = medians.y
    return levels, bins.edges()


def _flight(axes: Axes, side: DirectionSeries, name: str) -> int:
    left, right = axes.get_xlim()
    highest = float(side.in_flight.y.max())
    lines = [(side.in_flight, kinds.BLUE, "in flight")]
    cut_off = 0
    if side.window is not None and len(side.window.x):
        within = side.window.y[side.window.y <= _WINDOW_HEIGHTS * highest]
        cut_off = round(float(side.window.y.max())) if len(within) < len(side.window.y) else 0
        highest = max(highest, float(within.max(initial=0)))
        lines += [(side.window, kinds.ORANGE, "receiver's window")] * bool(len(within))
    notes = axes_text.flight_notes(side.window is not None, cut_off)
    highest = max(highest, 1.0)
    grid = Grid(left, right, 0, highest, canvas.COLUMNS, _ROWS)
    marks = 0
    for points, color, label in reversed(lines):
        kept = _thin(points, grid)
        canvas.staircase(axes, kept, color, label, len(points.x))
        marks += len(kept.x)
    axes.set_ylim(0, highest * 1.05)
    axes.set_title(f"Bytes in flight, {name}")
    canvas.label_bytes(axes, "bytes")
    canvas.note(axes, "; ".join(notes))
    return marks


def _thin(points: Points, grid: Grid) -> Points:
    needed = thin_line(points.x, points.y, grid)
    return Points(points.x[needed], points.y[needed])


def draw_overview(histories: list[History], uncounted: int, arrow: str) -> Figure:
    """Traffic by connection: stacked over time, and in all; `histories` with most bytes first.

    uncounted: connections that came when there was no memory for more, and are not in the picture.
    """
    made = overview(histories, OVERVIEW_CONNECTIONS)
    figure = canvas.new_figure(_OVERVIEW_HEIGHT_IN, f"{len(histories) + uncounted:,} connections")
    above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": (3, 2)})
    names = [human.ellipsise(f"{history.id}: {history.ends.between(arrow)}", _NAME_WIDTH) for history in made.histories]
    colors, hatches = list(_COLORS[: len(names)]), list(_HATCHES[: len(names)])
    if made.others:
        names.append(f"{made.others:,} others")
        colors.append(_OTHERS)
        hatches.append("")
    _stacked(above, made.bytes_per_s, made.bins.edges(), colors, hatches)
    canvas.label_time(above, made.bins.count * made.bins.width_s, "the first packet")
    canvas.label_bytes(above, f"in bins of {axes_text.duration_label(made.bins.width_s)}", "/s")
    above.set_title("Traffic over time, frame bytes, stacked")
    sizes = [sum(history.frame_bytes) for history in made.histories] + [made.others_bytes] * bool(made.others)
    _sizes(below, names, sizes, colors, hatches)
    notes = [f"{made.not_kept:,} packets not in the rates: memory for packets was full"] * bool(made.not_kept)
    notes += [f"{uncounted:,} connections not in the picture: too many at once"] * bool(uncounted)
    _count(figure, "; ".join(notes))
    return figure


def _stacked(axes: Axes, rates: Array, edges: Array, colors: list[str], hatches: list[str]) -> None:
    base = np.zeros(len(edges) - 1)
    for rate, color, hatch in zip(rates, colors, hatches, strict=True):
        axes.stairs(
            base + rate, edges, baseline=base, fill=True, color=color, hatch=hatch, edgecolor="white", linewidth=0
        )
        base = base + rate
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, float(base.max()) * 1.05 or 1.0)
    canvas.quiet_grid(axes)


def _sizes(axes: Axes, names: list[str], sizes: list[int], colors: list[str], hatches: list[str]) -> None:
    """Bars with their names on the axis: the legend of the stack above as well."""
    places = range(len(names))
    axes.barh(places, sizes, color=colors, hatch=hatches, edgecolor="white", height=0.75)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    largest = max(sizes, default=1) or 1
    axes.set_xlim(0, largest * 1.12)
    for place, size in zip(places, sizes, strict=True):
        axes.text(size + largest * 0.01, place, human.byte_count(size), va="center", fontsize=canvas.TEXT_POINTS)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: axes_text.bytes_label(value)))
    axes.set_title("Bytes of each connection, both directions")
    axes.grid(axis="x", color=canvas.GRID, linewidth=0.6)
    axes.set_axisbelow(True)
