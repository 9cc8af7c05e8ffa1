"""A connection's time-sequence diagram on a terminal."""

from typing import Final

from rich.text import Text

from tcptrace.sinks.drawing import axes_text, kinds
from tcptrace.sinks.drawing.history import History
from tcptrace.sinks.drawing.marks import Diagram, cut_off_bytes, decimated, diagrams, limits
from tcptrace.sinks.drawing.terminal import Entry, Panel, heading, in_ascii, legend, time_labels

_ROWS: Final = 16
_MINOR_ROWS: Final = 7
# A letter takes two dots of the four below each other; those of one character would hide each other.
_LETTER_DOTS: Final = 2


def lines(history: History, width: int, plain: bool) -> list[Text]:
    """A panel for each direction in which anything was sent."""
    panels = diagrams(history)
    src, dst = history.ends.names()
    shown = [heading(f"connection {history.id}: {src} > {dst}", width)]
    most = max(made.payload_bytes for made in panels)
    for made, name in zip(panels, (f"bytes {src} > {dst}", f"bytes {dst} > {src}"), strict=True):
        if not made.bars and not made.events and not made.stairs:
            shown.append(heading(f"{name}: nothing seen", width, ""))
            continue
        shown += _panel(
            made, name, _MINOR_ROWS if made.payload_bytes < most / 20 else _ROWS, history.not_kept, width, plain
        )
    return [in_ascii(line) for line in shown] if plain else shown


def _panel(made: Diagram, name: str, rows: int, not_kept: int, width: int, plain: bool) -> list[Text]:
    span_s = (0.0, made.duration_s or 1e-6)
    low, high = limits(made, margin=0.0)
    panel = Panel(width, rows, span_s, (low, high))
    thin = decimated(made, panel.grid, _LETTER_DOTS)
    for label, style in ((kinds.WINDOW.label, kinds.WINDOW.style), (kinds.ACK.label, kinds.ACK.style)):
        if label in thin.stairs:
            panel.staircase(thin.stairs[label], style)
    for label, bars in sorted(thin.bars.items(), key=lambda item: item[0] in kinds.EVENTS):
        panel.bars(bars.x, bars.low, bars.high, kinds.LEGEND[label].style)
    for kind, points in thin.events_in_order():
        panel.letters(points, kind.letter, kind.style)
    notes = axes_text.window_notes(made.window_known, cut_off_bytes(made, panel.grid))
    notes.insert(0, axes_text.packets_note(made.packets, thin.marks(), not_kept))
    return [
        heading(name, width, ""),
        *panel.lines(
            plain, axes_text.bytes_label(round(high)), axes_text.bytes_label(round(low)), *time_labels(span_s)
        ),
        *legend([Entry(kind.letter, kind.label, kind.style) for kind in thin.kinds()], width),
        *(heading(note, width, "dim") for note in notes),
    ]
