"""The table at the end of a trace: the connections that moved most, those that have left included."""

import math
from dataclasses import replace
from typing import Final

import numpy as np
from rich.console import Console
from rich.text import Text

from tcptrace.model import CONNECTION, Rows, Totals, TraceInfo, View
from tcptrace.sinks import order, screen

SUMMARY_ROWS: Final = 20
FILE_ROWS: Final = 1000
"""Of capture files into a pipe: more is a matter for --json."""
_AROUND: Final = 8
"""Lines of a summary that are no rows, and the shell's next prompt."""
_BY_DEFAULT: Final = "bytes"
"""What a summary is sorted by where the live table goes by the current rate, which says little of the past."""


class Summary:
    """Keeps the best of the connections that ended, no more than twice what will be shown.

    `rows` is how many to show; None leaves it to what is traced and where it is shown.
    """

    def __init__(self, sort: str = "rate", rows: int | None = None) -> None:
        self._sort = _BY_DEFAULT if sort == "rate" else sort
        self._asked = rows
        self._rows = SUMMARY_ROWS if rows is None else rows
        self._kept = np.zeros(0, CONNECTION)  # the first `_amount` of them
        self._amount = 0

    def open(self, info: TraceInfo, console: Console) -> None:
        """Before the first connection ends."""
        if self._asked is None and screen.reads_files(info):
            self._rows = max(SUMMARY_ROWS, console.height - _AROUND) if console.is_terminal else FILE_ROWS

    def ended(self, rows: Rows) -> None:
        """Takes a copy of what may be shown at the end."""
        for start in range(0, len(rows), self._rows):
            part = rows[start : start + self._rows]
            if self._amount + len(part) > len(self._kept):  # seldom: the few that come at once are little beside all
                self._make_room()
            place = slice(self._amount, self._amount + len(part))
            self._kept[place] = part
            self._kept["in_use"][place] = 1
            self._amount = place.stop

    def _make_room(self) -> None:
        best = self._best(self._kept[: self._amount])
        self._kept = np.zeros(2 * self._rows, CONNECTION)
        self._kept[: len(best)] = best
        self._amount = len(best)

    def _best(self, rows: Rows) -> Rows:
        return rows.take(order.top(rows, self._sort, self._rows))  # rows[…] copies field by field

    def rows(self, view: View) -> Rows:
        """The first rows of the whole trace, in order."""
        return self._best(np.concatenate([self._kept[: self._amount], self._best(view.table())]))

    def lines(self, info: TraceInfo, view: View, elapsed_s: float, width: int) -> list[Text]:
        """The totals and the table, rates over the whole trace; of files the totals come last."""
        totals = _averaged(view.totals, elapsed_s)
        by_id = screen.reads_files(info)
        title = screen.title(info, elapsed_s, view.cpu_percent, width)
        sums = screen.totals_lines(info, totals, width)
        rows = self.rows(view)
        if not len(rows):
            return [title, *sums]
        layout = screen.Widths().layout(rows, width, averages=True, by_id=by_id)
        table = screen.table(rows, layout, totals.connections_total - len(rows), width)
        return [title, Text(), *table, Text(), *sums] if by_id else [title, *sums, Text(), *table]


def _averaged(totals: Totals, elapsed_s: float) -> Totals:
    """With the rates over the whole trace; not known of one that took no time."""
    if elapsed_s <= 0:
        return replace(totals, packets_per_s=math.nan, bytes_per_s=math.nan)
    return replace(totals, packets_per_s=totals.packets / elapsed_s, bytes_per_s=totals.bytes / elapsed_s)
