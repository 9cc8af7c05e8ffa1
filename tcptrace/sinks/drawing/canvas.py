"""What all pictures have in common: size, fonts, colours of lines, how axes are labelled.  Needs matplotlib."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, MaxNLocator

from tcptrace.sinks.drawing import axes_text, kinds
from tcptrace.sinks.drawing.marks import Points

DPI: Final = 120
WIDTH_IN: Final = 11.0
# What axis labels and margins leave of the width, in pixels: as many columns are told apart.
COLUMNS: Final = 1150
# So few points of a staircase are marked: steps alone do not tell how many there were.
FEW_POINTS: Final = 50

TITLE_POINTS: Final = 12
TEXT_POINTS: Final = 9
NOTE_POINTS: Final = 8

SENT: Final = kinds.BLUE
RECEIVED: Final = kinds.VERMILION
SENT_DARK: Final = "#003A5D"
RECEIVED_DARK: Final = "#6B2F00"
GRID: Final = "#DDDDDD"

_SETTINGS: Final[Any] = {
    "font.size": TEXT_POINTS,
    "axes.labelsize": TEXT_POINTS,
    "axes.titlesize": TEXT_POINTS + 1,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": TEXT_POINTS,
    "ytick.labelsize": TEXT_POINTS,
    "legend.fontsize": TEXT_POINTS,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small, and can be searched
    "svg.hashsalt": "tcptrace",  # the same picture is the same file
    "pdf.use14corefonts": True,  # the reader's own Helvetica: no font file needs to be read after privileges are gone
    "path.simplify": True,
    "agg.path.chunksize": 20_000,
}


@contextmanager
def settings() -> Iterator[None]:
    """matplotlib's defaults and ours, whatever the user's matplotlibrc says; to be held until the figure is saved."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(height_in: float, title: str) -> Figure:
    """An empty page with its title."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, hspace=0.03)
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=TITLE_POINTS, fontweight="bold", x=0.01, ha="left")
    return figure


def label_time(axes: Axes, duration_s: float, since: str = "the connection began") -> None:
    """Seconds on the x axis, shown in the unit that suits the duration."""
    size, unit = axes_text.time_unit(duration_s)
    # A connection of one packet takes no time: its axis has one label.
    locator: Locator = MaxNLocator(nbins=10, steps=[1, 2, 5, 10]) if duration_s > 0 else FixedLocator([0.0])
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value / size, 6):g}"))
    axes.set_xlabel(f"{unit} since {since}")


def label_bytes(axes: Axes, name: str, per: str = "") -> None:
    """Bytes on the y axis, with their unit: whole numbers."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: axes_text.bytes_label(value) + per))
    axes.set_ylabel(name)


def label_round_trips(axes: Axes, highest_us: float) -> None:
    """Microseconds on the y axis, shown in the unit that suits the highest."""
    size, unit = axes_text.time_unit(highest_us / 1e6)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value / 1e6 / size, 6):g} {unit}"))
    axes.set_ylabel("RTT")


def quiet_grid(axes: Axes) -> None:
    """Faint lines behind everything."""
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def staircase(axes: Axes, points: Points, color: str, label: str, of: int) -> None:
    """Each height until the next point, the last until the panel's right edge.

    `of`: how many points there were before decimation; few are marked.
    """
    x, y = np.append(points.x, axes.get_xlim()[1]), np.append(points.y, points.y[-1:])
    dot = "." if of <= FEW_POINTS else ""
    (line,) = axes.plot(x, y, drawstyle="steps-post", color=color, linewidth=1.2, label=label)
    line.set(marker=dot, markersize=6, markevery=slice(0, -1))


def note(axes: Axes, text: str) -> None:
    """Small print above the panel, on the right."""
    axes.set_title(text, loc="right", fontsize=NOTE_POINTS, color=kinds.GREY)


def time_limits(duration_s: float) -> tuple[float, float]:
    """A little room on both sides, so that marks at the ends are whole."""
    margin = 0.02 * duration_s or 0.5e-6
    return -margin, duration_s + margin
