"""--graph: throughput, round-trip times and bytes in flight over time, and an overview of all connections."""

from rich.text import Text

from tcptrace.sinks.drawing import terminal_graph
from tcptrace.sinks.drawing.collecting import DrawingSink, chosen_for_pages
from tcptrace.sinks.drawing.history import History, by_bytes
from tcptrace.sinks.drawing.pictures import Page


class Graph(DrawingSink):
    """Figures of each connection over time."""

    def pages(self, histories: list[History], uncounted: int) -> list[Page]:
        """The overview, if there is more than one connection, then one for each."""
        pages = [_page(history) for history in chosen_for_pages(histories)]
        if len(histories) + uncounted > 1:
            pages.insert(0, _overview(histories, uncounted))
        return pages

    def lines(self, history: History, width: int, plain: bool) -> list[Text]:
        """A panel for each figure."""
        return terminal_graph.lines(history, width, plain)


def _page(history: History) -> Page:
    from tcptrace.sinks.drawing import graph_figure

    return Page(
        str(history.id),
        f"graphs of connection {history.id}, {history.ends.between('>')}",
        lambda arrow: graph_figure.draw(history, arrow),
    )


def _overview(histories: list[History], uncounted: int) -> Page:
    from tcptrace.sinks.drawing import graph_figure

    return Page(
        "overview",
        f"traffic of {len(histories) + uncounted:,} connections",
        lambda arrow: graph_figure.draw_overview(by_bytes(histories), uncounted, arrow),
    )
