"""As much as can be seen: marks that fall onto the same pixel become one, and none that stands alone is lost."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """The pixels (or dots) of a panel and the values at its borders."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float
    columns: int
    rows: int

    def column(self, x: Array) -> Array:
        """Which column each x falls into; what is outside goes to the nearest."""
        return _cell(x, self.x_min, self.x_max, self.columns)

    def row(self, y: Array) -> Array:
        """Which row each y falls into, 0 at the bottom; what is outside goes to the nearest."""
        return _cell(y, self.y_min, self.y_max, self.rows)

    def coarser(self, pixels: int) -> "Grid":
        """The same panel in cells of that many pixels' width and height."""
        return Grid(
            self.x_min, self.x_max, self.y_min, self.y_max, max(1, self.columns // pixels), max(1, self.rows // pixels)
        )


def _cell(values: Array, low: float, high: float, count: int) -> Array:
    share = (np.asarray(values, np.float64) - low) / ((high - low) or 1.0)
    return np.clip(share * count, 0, count - 1).astype(np.int64)


def thin_line(x: Array, y: Array, grid: Grid) -> Array:
    """Indexes of the points that a line (or staircase) needs: in each column the first, lowest, highest and last.

    x ascends.
    """
    if len(x) <= 4:
        return np.arange(len(x))
    column = grid.column(x)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(column) != 0]))
    ends = np.concatenate([starts[1:], [len(x)]]) - 1
    group = np.cumsum(np.concatenate([[False], np.diff(column) != 0]))
    by_height = np.lexsort((y, group))  # groups stay where they are, each sorted by y
    return np.unique(np.concatenate([starts, ends, by_height[starts], by_height[ends]]))


def merge_bars(x: Array, low: Array, high: Array, grid: Grid) -> tuple[Array, Array, Array]:
    """Vertical bars, those of one column that touch or leave less than a row between them as one.

    A bar keeps the x of the first of those it stands for.
    """
    if not len(x):
        return x, low, high
    column = grid.column(x)
    order = np.lexsort((low, column))
    x, low, high, column = x[order], low[order], high[order], column[order]
    height = (grid.y_max - grid.y_min) / grid.rows
    # Each column gets a stretch of numbers of its own, so that one running maximum serves all.
    stretch = float(high.max() - low.min()) + 2 * height + 1
    offset = column * stretch
    reach = np.maximum.accumulate(high + offset)
    begins = np.concatenate([[True], (low + offset)[1:] > reach[:-1] + height])
    first = np.flatnonzero(begins)
    return np.minimum.reduceat(x, first), low[first], np.maximum.reduceat(high, first)


def distinct_points(x: Array, y: Array, grid: Grid) -> Array:
    """Indexes of points, the first of each cell: at most one, and at least one where there are any."""
    if not len(x):
        return np.zeros(0, np.int64)
    cells = grid.column(x) * grid.rows + grid.row(y)
    return np.sort(np.unique(cells, return_index=True)[1])
