"""--sequence: time-sequence diagrams."""

from rich.text import Text

from tcptrace.sinks.drawing import terminal_sequence
from tcptrace.sinks.drawing.collecting import DrawingSink, chosen_for_pages
from tcptrace.sinks.drawing.history import History
from tcptrace.sinks.drawing.pictures import Page


class Sequence(DrawingSink):
    """What each end sent and the other acknowledged, by time and sequence number."""

    def pages(self, histories: list[History], uncounted: int) -> list[Page]:
        """One for each connection."""
        return [_page(history) for history in chosen_for_pages(histories)]

    def lines(self, history: History, width: int, plain: bool) -> list[Text]:
        """A panel for each direction."""
        return terminal_sequence.lines(history, width, plain)


def _page(history: History) -> Page:
    from tcptrace.sinks.drawing import sequence_figure

    return Page(
        str(history.id),
        f"sequence numbers of connection {history.id}, {history.ends.between('>')}",
        lambda arrow: sequence_figure.draw(history, arrow),
    )
