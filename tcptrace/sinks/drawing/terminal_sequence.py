"""A connection's time-sequence diagram on a terminal."""

from typing import Final

from rich.text import Text

from tcptrace.sinks.drawing import axes_text, kinds
from tcptrace.sinks.drawing.history import History
from tcptrace.sinks.drawing.marks import Diagram, cut_off_bytes, decimated, diagrams, limits
from tcptrace.sinks.drawing.terminal import Entry, Panel, heading, in_ascii, legend, time_labels

_ROWS: Final = 16
_MINOR_ROWS: Final = 7
_EMPTY_ROWS: Final = 4  # of a direction without payload
# A letter takes two dots of the four below each other; those of one character would hide each other.
_LETTER_DOTS: Final = 2


def lines(history: History, width: int, plain: bool) -> list[Text]:
    """A panel for each direction in which anything was sent."""
    panels = diagrams(history)
    src, dst = history.ends.names()
    shown = [heading(f"connection {history.id}: {src} > {dst}", width)]
    most = max(made.payload_bytes for made in panels)
    for made, name in zip(panels, (f"{src} > {dst}", f"{dst} > {src}"), strict=True):
        if not made.bars and not made.events and not made.stairs:
            shown.append(heading(f"sent {name}: nothing seen", width, ""))
            continue
        shown += _panel(made, f"sent {name}", _rows(made.payload_bytes, most), width, plain)
    note = axes_text.packets_note(history.packet_count(), history.not_kept)
    shown.append(heading(note, width, "dim"))
    return [in_ascii(line) for line in shown] if plain else shown


def _rows(payload_bytes: int, most: int) -> int:
    if not payload_bytes:
        return _EMPTY_ROWS
    return _MINOR_ROWS if payload_bytes < most / 20 else _ROWS


def _panel(made: Diagram, name: str, rows: int, width: int, plain: bool) -> list[Text]:
    span_s = (0.0, made.duration_s or 1e-6)
    low, high = limits(made, margin=0.0)
    panel = Panel(width, rows, span_s, (low, high))
    thin = decimated(made, panel.grid, _LETTER_DOTS)
    for label, style in ((kinds.WINDOW.label, kinds.WINDOW.style), (kinds.ACK.label, kinds.ACK.style)):
        if label in thin.stairs:
            panel.staircase(thin.stairs[label], style)
            panel.beginning(thin.stairs[label], kinds.LEGEND[label].letter, style)
    for label, bars in sorted(thin.bars.items(), key=lambda item: item[0] in kinds.EVENTS):
        panel.bars(bars.x, bars.low, bars.high, kinds.LEGEND[label].style)
    for kind, points in reversed(thin.events_in_order()):  # the first has the place
        panel.letters(points, kind.letter, kind.style)
    notes = axes_text.window_notes(made.window_known, cut_off_bytes(made, panel.grid))
    return [
        heading(name, width, ""),
        *panel.lines(
            plain,
            axes_text.bytes_label(round(high)),
            axes_text.bytes_label(round(low)),
            *time_labels((0.0, made.duration_s)),
        ),
        *legend([Entry(kind.letter, kind.label, kind.style) for kind in thin.kinds()], width),
        *(heading(note, width, "dim") for note in notes),
    ]
