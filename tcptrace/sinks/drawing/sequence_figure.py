"""A connection's time-sequence diagram as a page: one panel for each direction.  Needs matplotlib."""

from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tcptrace.sinks.drawing import axes_text, canvas, kinds
from tcptrace.sinks.drawing.decimation import Grid
from tcptrace.sinks.drawing.history import History
from tcptrace.sinks.drawing.kinds import Kind
from tcptrace.sinks.drawing.marks import Diagram, cut_off_bytes, decimated, diagrams, limits

_HEIGHT_IN: Final = 8.5
_PANELS_IN: Final = 6.4
# A direction with less than this share of the other's payload is requests and ACKs: a small panel does.
_MINOR_SHARE: Final = 0.05
_MINOR_HEIGHT: Final = 0.45
# Marks are about this many pixels wide: two within one cell could not be told apart.
_MARK_PIXELS: Final = 4
_MARKER_POINTS: Final = 6.0
# Smaller where there are so many of a kind that they would hide what happened between them.
_CROWD: Final = 150
_CROWDED_POINTS: Final = 3.5
_LEGEND_COLUMNS: Final = 7

_BAR_WIDTHS: Final = {kinds.DATA.label: 1.4, kinds.SACK.label: 1.2}
_RETRANSMITTED_WIDTH: Final = 2.2
_DUPLICATE_ACK: Final = kinds.ACKED_KINDS["duplicate_ack"]
_ZERO_WINDOW: Final = kinds.ACKED_KINDS["zero_window"]
_STAIRS: Final = {kinds.ACK.label: (kinds.ACK, "-"), kinds.WINDOW.label: (kinds.WINDOW, "-")}


def draw(history: History, arrow: str) -> Figure:
    """The page; to be called within canvas.settings()."""
    panels = diagrams(history)
    heights = panel_heights(panels[0].payload_bytes, panels[1].payload_bytes)
    figure = canvas.new_figure(_HEIGHT_IN, f"Connection {history.id}: {history.ends.between(arrow)}")
    both = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    src, dst = history.ends.names()
    marks = 0
    shown: set[Kind] = set()
    for axes, made, height, name in zip(
        both, panels, heights, (f"{src} {arrow} {dst}", f"{dst} {arrow} {src}"), strict=True
    ):
        thin = _panel(axes, made, round(height / sum(heights) * _PANELS_IN * canvas.DPI))
        axes.set_title(f"bytes {name}")
        marks += thin.marks()
        shown |= set(thin.kinds())
    canvas.label_time(both[1], panels[0].duration_s)
    _legend(figure, [kind for kind in kinds.LEGEND.values() if kind in shown])
    figure.text(
        0.995, 0.985, axes_text.packets_note(panels[0].packets, marks, history.not_kept),
        ha="right", va="top", fontsize=canvas.NOTE_POINTS, color=kinds.GREY,
    )  # fmt: skip
    return figure


def panel_heights(sent_bytes: int, received_bytes: int) -> tuple[float, float]:
    """How high each direction's panel is, beside the other."""
    if sent_bytes < _MINOR_SHARE * received_bytes:
        return _MINOR_HEIGHT, 1.0
    if received_bytes < _MINOR_SHARE * sent_bytes:
        return 1.0, _MINOR_HEIGHT
    return 1.0, 1.0


def _panel(axes: Axes, made: Diagram, rows: int) -> Diagram:
    """Draws one direction; what was drawn."""
    (left, right), (low, high) = canvas.time_limits(made.duration_s), limits(made)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    canvas.quiet_grid(axes)
    canvas.label_bytes(axes, "sequence number")
    grid = Grid(left, right, low, high, canvas.COLUMNS, max(1, rows))
    thin = decimated(made, grid, _MARK_PIXELS)
    for label, line in thin.stairs.items():
        kind, dashes = _STAIRS[label]
        axes.plot(line.x, line.y, dashes, drawstyle="steps-post", color=kind.color, linewidth=1.1, gid=label)
    for label, bars in thin.bars.items():
        color = kinds.LEGEND[label].color
        lines = [((x, bottom), (x, top)) for x, bottom, top in zip(bars.x, bars.low, bars.high, strict=True)]
        width = _BAR_WIDTHS.get(label, _RETRANSMITTED_WIDTH)
        axes.add_collection(LineCollection(lines, colors=color, linewidths=width, zorder=2.5), autolim=False)
    for kind, points in thin.events_in_order():
        inside = points.y.clip(low, high)  # a number that was made up (of a reset) is shown at the border
        size = _MARKER_POINTS if len(points.x) <= _CROWD else _CROWDED_POINTS
        axes.plot(points.x, inside, linestyle="none", clip_on=False, **_marker(kind, size))
    canvas.note(axes, "; ".join(axes_text.window_notes(made.window_known, cut_off_bytes(made, grid))))
    return thin


def _marker(kind: Kind, size: float) -> dict[str, Any]:
    if kind is _DUPLICATE_ACK:  # many, and no trouble of their own: a tick behind the data
        return {"marker": kind.marker, "markersize": size, "markeredgecolor": kind.color, "zorder": 2.2}
    if kind is _ZERO_WINDOW:  # a ring, so that the probe in the same place is seen
        return {
            "marker": kind.marker,
            "markersize": size + 4,
            "markerfacecolor": "none",
            "markeredgecolor": kind.color,
            "zorder": 4,
        }
    thin = kind.marker in "1234"
    return {
        "marker": kind.marker,
        "markersize": size + (2 if thin else 0),
        "markerfacecolor": kind.color,
        "markeredgecolor": kind.color if thin else "white",
        "markeredgewidth": 1.4 if thin else 0.4,
        "zorder": 3,
    }


def _legend(figure: Figure, shown: list[Kind]) -> None:
    """Below the panels, only what occurs."""
    if shown:
        rows = -(-len(shown) // _LEGEND_COLUMNS)
        columns = -(-len(shown) // rows)
        figure.legend(handles=[_handle(kind) for kind in shown], loc="outside lower left", ncols=columns)


def _handle(kind: Kind) -> Line2D:
    if kind.marker:
        return Line2D([], [], linestyle="none", label=kind.label, **_marker(kind, _MARKER_POINTS))
    if kind.label in _STAIRS:
        return Line2D([], [], color=kind.color, linewidth=1.4, label=kind.label)
    return Line2D(
        [], [], linestyle="none", marker="|", markersize=10, markeredgewidth=2, color=kind.color, label=kind.label
    )
