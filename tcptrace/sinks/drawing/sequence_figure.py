"""A connection's time-sequence diagram as a page: one panel for each direction.  Needs matplotlib."""

from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tcptrace import records as r
from tcptrace.sinks.drawing import axes_text, canvas, kinds
from tcptrace.sinks.drawing.decimation import Grid
from tcptrace.sinks.drawing.history import History
from tcptrace.sinks.drawing.kinds import Kind
from tcptrace.sinks.drawing.marks import Diagram, cut_off_bytes, decimated, diagrams, limits

_HEIGHT_IN: Final = 8.5
_PANELS_IN: Final = 6.4
# Without payload there is little to see: a low page does.
_EMPTY_HEIGHT_IN: Final = 4.5
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
_NAMED_AT_MOST: Final = 20
# Width and height of a name of three letters.
_NAME_PIXELS: Final = (32, 14)

_BAR_WIDTHS: Final = {kinds.DATA.label: 1.4, kinds.SACK.label: 1.2}
_RETRANSMITTED_WIDTH: Final = 2.2
_DUPLICATE_ACK: Final = kinds.ACKED_KINDS["duplicate_ack"]
_SYN: Final = kinds.FLAG_KINDS[r.FLAG_SYN]
_ZERO_WINDOW: Final = kinds.ACKED_KINDS["zero_window"]
_STAIRS: Final = {kind.label: kind for kind in (kinds.ACK, kinds.WINDOW)}


def draw(history: History, arrow: str) -> Figure:
    """The page; to be called within canvas.settings()."""
    panels = diagrams(history)
    heights = panel_heights(panels[0].payload_bytes, panels[1].payload_bytes)
    height_in = _HEIGHT_IN if any(made.payload_bytes for made in panels) else _EMPTY_HEIGHT_IN
    figure = canvas.new_figure(height_in, f"Connection {history.id}: {history.ends.between(arrow)}")
    both = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    src, dst = history.ends.names()
    marks = 0
    shown: set[Kind] = set()
    for axes, made, height, name in zip(
        both, panels, heights, (f"{src} {arrow} {dst}", f"{dst} {arrow} {src}"), strict=True
    ):
        thin = _panel(axes, made, round(height / sum(heights) * _PANELS_IN * canvas.DPI))
        axes.set_title(f"Sent {name}")
        marks += thin.marks()
        shown |= set(thin.kinds())
    canvas.label_time(both[1], panels[0].duration_s)
    _legend(figure, [kind for kind in kinds.LEGEND.values() if kind in shown])
    figure.text(
        0.995, 0.985, axes_text.packets_note(panels[0].packets, history.not_kept, marks),
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
        kind = _STAIRS[label]
        canvas.staircase(axes, line, kind.color, kind.label, len(made.stairs[label].x))
    for label, bars in thin.bars.items():
        color = kinds.LEGEND[label].color
        lines = [((x, bottom), (x, top)) for x, bottom, top in zip(bars.x, bars.low, bars.high, strict=True)]
        width = _BAR_WIDTHS.get(label, _RETRANSMITTED_WIDTH)
        axes.add_collection(LineCollection(lines, colors=color, linewidths=width, zorder=2.5), autolim=False)
    for kind, points in thin.events_in_order():
        inside = points.y.clip(low, high)  # a number that was made up (of a reset) is shown at the border
        size = _MARKER_POINTS if len(points.x) <= _CROWD else _CROWDED_POINTS
        axes.plot(points.x, inside, linestyle="none", clip_on=False, **_marker(kind, size))
    _name_flags(axes, thin, grid)
    seen = thin.bars or thin.events or thin.stairs
    notes = axes_text.window_notes(made.window_known, cut_off_bytes(made, grid)) if seen else ["nothing seen"]
    canvas.note(axes, "; ".join(notes))
    return thin


def _name_flags(axes: Axes, thin: Diagram, grid: Grid) -> None:
    """SYN, FIN and RST in words beside their marks, if there are few of them and where there is room."""
    named = [(kind, points) for kind, points in thin.events_in_order() if kind in kinds.FLAG_KINDS.values()]
    if sum(len(points.x) for _, points in named) > _NAMED_AT_MOST:
        return
    taken: set[tuple[int, int]] = set()
    for kind, points in reversed(named):
        inside = points.y.clip(grid.y_min, grid.y_max)
        columns, rows = grid.column(points.x) // _NAME_PIXELS[0], grid.row(inside) // _NAME_PIXELS[1]
        for x, y, column, row in zip(points.x, inside, columns.tolist(), rows.tolist(), strict=True):
            near = {(column + right, row + up) for right in (-1, 0, 1) for up in (-1, 0, 1)}
            if taken & near:
                continue
            taken.add((column, row))
            _name(axes, kind, (x, y), at_right=x > (grid.x_min + grid.x_max) / 2)


def _name(axes: Axes, kind: Kind, place: tuple[float, float], *, at_right: bool) -> None:
    """On the side with more room; above a mark that is not the SYN's, as what is drawn comes from below."""
    above = 0 if kind is _SYN else 2
    axes.annotate(
        kind.label, place, (-6 if at_right else 6, above), textcoords="offset points", annotation_clip=False,
        ha="right" if at_right else "left", va="bottom" if above else "center", fontsize=canvas.NOTE_POINTS,
        color=kind.color, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.3}, zorder=5,
    )  # fmt: skip


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
    thin = kind.marker in "1234" or kind.marker.startswith("$")  # an edge of white would hide it
    return {
        "marker": kind.marker,
        "markersize": size + (2 if thin else 0),
        "markerfacecolor": kind.color,
        "markeredgecolor": kind.color if thin else "white",
        "markeredgewidth": 0.4 if kind.marker not in "1234" else 1.4,
        "alpha": 0.85,  # what is behind shows through
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
