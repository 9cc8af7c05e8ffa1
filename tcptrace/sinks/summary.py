"""The table at the end of a trace: the connections that moved most, those that have left included."""

from dataclasses import replace
from typing import Final

import numpy as np
from rich.text import Text

from tcptrace.model import Rows, Totals, TraceInfo, View
from tcptrace.sinks import order, screen

SUMMARY_ROWS: Final = 20
_BY_DEFAULT: Final = "bytes"
"""What a summary is sorted by where the live table goes by the current rate, which says little of the past."""


class Summary:
    """Keeps the best of the connections that ended, no more than twice what will be shown."""

    def __init__(self, sort: str = "rate", rows: int = SUMMARY_ROWS) -> None:
        self._sort = _BY_DEFAULT if sort == "rate" else sort
        self._rows = rows
        self._kept: Rows | None = None

    def ended(self, rows: Rows) -> None:
        """Takes a copy of what may be shown at the end."""
        if not len(rows):
            return
        mine = rows.copy()
        mine["in_use"] = 1
        self._kept = self._best(mine if self._kept is None else np.concatenate([self._kept, mine]))

    def _best(self, rows: Rows) -> Rows:
        return rows[order.top(rows, self._sort, self._rows)]

    def rows(self, view: View) -> Rows:
        """The first rows of the whole trace, in order."""
        table = view.table()
        left = self._best(table)
        return left if self._kept is None else self._best(np.concatenate([self._kept, left]))

    def lines(self, info: TraceInfo, view: View, elapsed_s: float, width: int) -> list[Text]:
        """The header and the table, rates over the whole trace."""
        lines = screen.header(
            info, screen.Figures(_averaged(view.totals, elapsed_s), elapsed_s, view.cpu_percent), width
        )
        rows = self.rows(view)
        if len(rows):
            layout = screen.Widths().layout(rows, width, averages=True)
            lines += [Text(), *screen.table(rows, layout, view.totals.connections_total - len(rows), width)]
        return lines


def _averaged(totals: Totals, elapsed_s: float) -> Totals:
    if elapsed_s <= 0:
        return totals
    return replace(totals, packets_per_s=totals.packets / elapsed_s, bytes_per_s=totals.bytes / elapsed_s)
