"""What --sequence and --graph share: they collect until the end, then draw into a file or onto the terminal."""

from abc import ABC, abstractmethod
from typing import IO, Final

from rich.console import Console
from rich.text import Text

from tcptrace.errors import TcptraceError
from tcptrace.model import PacketBatch, Rows, TraceInfo, View
from tcptrace.sinks.drawing import terminal
from tcptrace.sinks.drawing.history import Collector, History, by_bytes
from tcptrace.sinks.drawing.pictures import PICTURES_MAX, Page, PictureFile
from tcptrace.sinks.drawing.rehearsal import sample_history
from tcptrace.sinks.plain_table import console_for, print_lines

# More would scroll away before anybody has seen them.
TERMINAL_CONNECTIONS: Final = 4
_OTHERS_NAMED: Final = 10
_REFUSED: Final = "permission denied; a .pdf has a page for each"


class DrawingSink(ABC):
    """A sink that draws at the end.

    target: the picture's file, None for the terminal; connection_id: the one to draw, None for all.
    UsageError for a file name whose extension is no picture's.
    """

    wants_packets = True
    wants_frames = False

    def __init__(self, out: IO[str], target: str | None, connection_id: int | None, color: bool) -> None:
        self._out = out
        self._color = color
        self._file = None if target is None else PictureFile(target)
        self._collector = Collector(connection_id)
        self._console: Console | None = None
        self._closed = False

    @abstractmethod
    def pages(self, histories: list[History], uncounted: int) -> list[Page]:
        """The pictures of these connections; `uncounted` further ones came when there was no memory for more."""

    @abstractmethod
    def lines(self, history: History, width: int, plain: bool) -> list[Text]:
        """One connection on a terminal of that width; `plain`: in ASCII."""

    def open(self, info: TraceInfo) -> None:
        """Loads what drawing needs and opens the file.  MissingFeatureError, TcptraceError."""
        self._console = console_for(self._out, color=self._color)
        if self._file is None:
            self.lines(sample_history(), 80, plain=False)  # imports what it needs
            return
        live = info.interface is not None
        self._file.open(self.pages([sample_history()] * 2, 0) if live else [])

    def packets(self, batch: PacketBatch) -> None:
        """Keeps them."""
        self._collector.add(batch)

    def ended(self, rows: Rows) -> None:  # noqa: B027 - nothing to do, here or below
        """A picture shows packets, not rows."""

    def update(self, view: View) -> None:  # noqa: B027
        """Nothing is drawn before the end."""

    def close(self, view: View) -> None:
        """Draws.  TcptraceError if the chosen connection never occurred, or the file cannot be written."""
        if self._closed or self._console is None:
            return
        self._closed = True
        histories = self._collector.histories()
        if not histories:
            raise TcptraceError("nothing to draw: there was no connection")
        if self._file is None:
            self._draw_on_terminal(self._console, histories)
        else:
            self._draw_into_file(self._console, self._file, histories)

    def _draw_into_file(self, console: Console, file: PictureFile, histories: list[History]) -> None:
        drawn = by_bytes(histories)[:PICTURES_MAX]
        left_out = len(histories) - len(drawn)
        pages = self.pages(histories, self._collector.connections_not_kept)
        written = file.write(pages)
        lines = [Text(f"{name}: {page.title}") for name, page in written]
        if unwritten := len(pages) - len(written):
            lines.append(Text(f"{unwritten:,} further pictures could not be written beside it: {_REFUSED}"))
        if left_out:
            lines.append(Text(f"{left_out:,} further connections have no picture of their own: those with fewer bytes"))
        print_lines(console, lines)

    def _draw_on_terminal(self, console: Console, histories: list[History]) -> None:
        ordered = by_bytes(histories)
        plain = not encodes(self._out, terminal.BRAILLE_SAMPLE)
        lines: list[Text] = []
        for history in ordered[:TERMINAL_CONNECTIONS]:
            lines += [*self.lines(history, console.width, plain), Text()]
        print_lines(console, lines + others_lines(ordered[TERMINAL_CONNECTIONS:], self._collector.connections_not_kept))

    def restore(self) -> None:
        """Removes a file that nothing was drawn into."""
        if self._file is not None:
            self._file.close()


def chosen_for_pages(histories: list[History]) -> list[History]:
    """Those that get a picture of their own, in order of id."""
    return sorted(by_bytes(histories)[:PICTURES_MAX], key=lambda history: history.id)


def others_lines(others: list[History], uncounted: int) -> list[Text]:
    """Which connections are not drawn here."""
    if not others and not uncounted:
        return []
    named = [f"  {history.id}: {history.ends.between('>')}" for history in others[:_OTHERS_NAMED]]
    more = len(others) - len(named) + uncounted
    named += [f"  and {more:,} more"] * bool(more)
    return [Text(f"not drawn: {len(others) + uncounted:,} other connections, with fewer bytes"), *map(Text, named)]


def encodes(stream: IO[str], text: str) -> bool:
    """Whether the stream's encoding has these characters."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
