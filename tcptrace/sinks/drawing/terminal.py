"""Panels on a terminal: plotille's braille dots, with axes, marks and a legend, as lines of styled text."""

from dataclasses import dataclass
from typing import Final

from plotille import Canvas  # type: ignore[import-untyped]
from rich.text import Text

from tcptrace.sinks import human
from tcptrace.sinks.drawing import axes_text
from tcptrace.sinks.drawing.decimation import Grid
from tcptrace.sinks.drawing.history import Array
from tcptrace.sinks.drawing.marks import Points

BRAILLE_SAMPLE: Final = "⣿│└─"
LABEL_WIDTH: Final = 9
_BORDER: Final = 1
_DOTS_WIDE: Final = 2
_DOTS_HIGH: Final = 4
_FIRST_BRAILLE: Final = 0x2800
# How a character that has none of these dots, few or many looks in ASCII.
_ASCII_DOTS: Final = " .::;;+##"
_ASCII: Final = str.maketrans(
    {"│": "|", "└": "+", "─": "-", "┤": "|", "┃": "|", "╌": "-", "µ": "u", "…": "~", "·": "."}
)
_MIN_COLUMNS: Final = 10
# More of a kind stay where they are: moved aside they would show things where they never were.
_FEW_LETTERS: Final = 20
# Where a letter goes whose place is taken: there, above, below, right, left, and so on.
_NEAREST: Final = sorted(
    ((up, right) for up in range(-2, 3) for right in range(-2, 3)),
    key=lambda cell: (abs(cell[0]) + abs(cell[1]), -cell[0]),
)


@dataclass(frozen=True)
class Entry:
    """One line of a legend."""

    letter: str
    label: str
    style: str


class Panel:
    """A diagram of `width` x `height` characters in all, without its title, axis labels below and legend."""

    def __init__(self, width: int, height: int, x: tuple[float, float], y: tuple[float, float]) -> None:
        self._columns = max(_MIN_COLUMNS, width - LABEL_WIDTH - _BORDER)
        self._rows = height
        self._x, self._y = x, y
        self._canvas = Canvas(self._columns, height, x[0], y[0], x[1], y[1])
        self._letters: dict[tuple[int, int], str] = {}
        self._styles: dict[tuple[int, int], str] = {}
        self.grid = Grid(*x, *y, self._columns * _DOTS_WIDE, height * _DOTS_HIGH)

    def staircase(self, points: Points, style: str) -> None:
        """Each height until the next point, then straight up or down, the last to the right edge; nothing outside."""
        outside = ((points.y < self._y[0]) | (points.y > self._y[1])).tolist()
        columns, rows = self.grid.column(points.x).tolist(), self.grid.row(points.y).tolist()
        for i in range(1, len(columns)):
            if not outside[i - 1]:
                self._line(columns[i - 1], rows[i - 1], columns[i], rows[i - 1], style)
            if not (outside[i - 1] and outside[i]):
                self._line(columns[i], rows[i - 1], columns[i], rows[i], style)
        if columns and not outside[-1]:
            self._line(columns[-1], rows[-1], self.grid.columns - 1, rows[-1], style)

    def bars(self, x: Array, low: Array, high: Array, style: str) -> None:
        """Vertical bars; not those that are all outside the panel."""
        inside = (high >= self._y[0]) & (low <= self._y[1])
        columns, bottoms = self._dots(x[inside], low[inside])
        for column, bottom, top in zip(columns, bottoms, self.grid.row(high[inside]).tolist(), strict=True):
            self._line(column, bottom, column, top, style)

    def dots(self, points: Points, style: str) -> None:
        """One dot each."""
        for column, row in zip(*self._dots(points.x, points.y), strict=True):
            self._dot(column, row, style)

    def beginning(self, points: Points, letter: str, style: str) -> None:
        """A letter where a staircase begins, if only its end is in the panel: its few dots would not be seen."""
        if len(points.x) and self.grid.column(points.x[:1])[0] >= self.grid.columns - 2 * _DOTS_WIDE:
            self.letters(Points(points.x[:1], points.y[:1]), letter, style)

    def letters(self, points: Points, letter: str, style: str) -> None:
        """A letter in place of the dots at each point; where another is already, beside it, or of many nowhere."""
        few = len(points.x) <= _FEW_LETTERS
        for column, row in zip(*self._dots(points.x, points.y), strict=True):
            place = row // _DOTS_HIGH, column // _DOTS_WIDE
            cells = self._around(*place) if few else [place]
            free = [cell for cell in cells if self._letters.get(cell, letter) == letter]
            if not free:
                continue
            row_of_letter, column_of_letter = free[0]
            self._letters[row_of_letter, column_of_letter] = letter
            self._dot(column_of_letter * _DOTS_WIDE, row_of_letter * _DOTS_HIGH, style, letter)

    def _around(self, row: int, column: int) -> list[tuple[int, int]]:
        cells = [(row + up, column + right) for up, right in _NEAREST]
        return [(up, right) for up, right in cells if 0 <= up < self._rows and 0 <= right < self._columns]

    def _dots(self, x: Array, y: Array) -> tuple[list[int], list[int]]:
        return self.grid.column(x).tolist(), self.grid.row(y).tolist()

    def _line(self, column: int, row: int, to_column: int, to_row: int, style: str) -> None:
        for x in range(min(column, to_column), max(column, to_column) + 1):
            for y in range(min(row, to_row), max(row, to_row) + 1):
                self._dot(x, y, style)

    def _dot(self, column: int, row: int, style: str, letter: str | None = None) -> None:
        self._canvas.point(self._middle(column, 0), self._middle(row, 1), marker=letter)
        self._styles[row // _DOTS_HIGH, column // _DOTS_WIDE] = style

    def _middle(self, dot: int, axis: int) -> float:
        """The value at that dot: plotille rounds to the nearest."""
        low, high = (self._x, self._y)[axis]
        return low + dot * (high - low) / (self.grid.columns, self.grid.rows)[axis]

    def lines(self, plain: bool, top: str, bottom: str, left: str, right: str) -> list[Text]:
        """The panel with the labels of its corners."""
        drawn: list[str] = self._canvas.plot(linesep="\n").split("\n")
        lines = []
        for i, dots in enumerate(drawn):
            label = top if i == 0 else bottom if i == len(drawn) - 1 else ""
            line = Text(f"{label:>{LABEL_WIDTH}}", no_wrap=True)
            line.append("┤" if label else "│", "dim")
            for column, character in enumerate(dots):
                line.append(_character(character, plain), self._styles.get((len(drawn) - 1 - i, column), ""))
            lines.append(line)
        lines.append(Text(" " * LABEL_WIDTH + "└" + "─" * self._columns, style="dim", no_wrap=True))
        room = self._columns - len(left)
        lines.append(Text(" " * (LABEL_WIDTH + _BORDER) + left + f"{right:>{room}}", no_wrap=True))
        return [in_ascii(line) for line in lines] if plain else lines


def _character(character: str, plain: bool) -> str:
    dots = ord(character) - _FIRST_BRAILLE
    if dots == 0:
        return " "
    return _ASCII_DOTS[dots.bit_count()] if plain and 0 < dots < 0x100 else character


def in_ascii(line: Text) -> Text:
    """The same line without the characters that only Unicode has."""
    line.plain = line.plain.translate(_ASCII)
    return line


def time_labels(x: tuple[float, float]) -> tuple[str, str]:
    """The ends of a time axis in seconds; only the first where it takes no time."""
    if x[1] <= x[0]:
        return "0 s", ""
    size, unit = axes_text.time_unit(x[1] - x[0])
    return tuple(f"{round(value / size, 2):g} {unit}" for value in x)  # type: ignore[return-value]


def legend(entries: list[Entry], width: int) -> list[Text]:
    """Letters and what they mean, as many on a line as fit."""
    lines = [Text(" " * LABEL_WIDTH, no_wrap=True)]
    for entry in entries:
        if len(lines[-1]) + len(entry.label) + 4 > width and len(lines[-1]) > LABEL_WIDTH:
            lines.append(Text(" " * LABEL_WIDTH, no_wrap=True))
        lines[-1].append(f" {entry.letter}", entry.style)
        lines[-1].append(f" {entry.label} ")
    return lines if entries else []


def heading(text: str, width: int, style: str = "bold") -> Text:
    """A line that is no wider than the terminal."""
    return Text(human.ellipsise(text, width), style=style, no_wrap=True)
