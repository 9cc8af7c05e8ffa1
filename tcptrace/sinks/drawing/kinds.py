"""Everything that a sequence diagram can show: its name, its colour and its mark.

Okabe and Ito chose the colours to be told apart by the colour-blind too; each kind has a mark of its own besides.
"""

from dataclasses import dataclass
from typing import Final

from tcptrace import records as r
from tcptrace.model import ANALYSIS

BLACK: Final = "#000000"
ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
GREEN: Final = "#009E73"
BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
GREY: Final = "#777777"


@dataclass(frozen=True)
class Kind:
    """How one kind of thing is drawn."""

    label: str
    color: str
    marker: str = ""  # matplotlib's
    letter: str = ""  # in the terminal
    style: str = ""  # in the terminal: Rich's


DATA: Final = Kind("data", "#444444", letter="┃", style="")
ACK: Final = Kind("acknowledged", GREEN, letter="╌", style="green")
WINDOW: Final = Kind("window edge", SKY, letter="╌", style="bright_blue")
SACK: Final = Kind("SACK block", PURPLE, letter="┃", style="magenta")

FLAG_KINDS: Final = {
    r.FLAG_SYN: Kind("SYN", BLUE, "P", "Y", "bold blue"),
    r.FLAG_FIN: Kind("FIN", BLUE, "X", "N", "bold blue"),
    r.FLAG_RST: Kind("RST", VERMILION, "X", "X", "bold red"),
}

SENT_KINDS: Final = {
    "retransmission": Kind("retransmission", VERMILION, "^", "R", "bold red"),
    "fast_retransmission": Kind("fast retransmission", ORANGE, ">", "F", "bold yellow"),
    "spurious_retransmission": Kind("spurious retransmission", PURPLE, "v", "S", "bold magenta"),
    "out_of_order": Kind("out of order", BLUE, "s", "O", "bold cyan"),
    "previous_segment_not_captured": Kind("previous segment not captured", GREY, "$?$", "?", "bold"),
    "keep_alive": Kind("keep-alive", GREEN, "h", "k", "green"),
    "zero_window_probe": Kind("zero-window probe", ORANGE, "h", "p", "yellow"),
    "window_full": Kind("window full", SKY, "D", "W", "bright_blue"),
    "local_drop": Kind("local drop", BLACK, "d", "L", "bold"),
}
"""Findings about a segment, drawn at the bytes it carries."""

ACKED_KINDS: Final = {
    "zero_window": Kind("zero window", VERMILION, "o", "0", "bold red"),
    "acked_unseen_segment": Kind("ACK of an unseen segment", GREY, "1", "u", "bold"),
    "duplicate_sack": Kind("duplicate SACK", PURPLE, "4", "D", "magenta"),
    "duplicate_ack": Kind("duplicate ACK", GREEN, "_", "d", "green"),
}
"""Findings about an ACK of the other end, drawn at the number it acknowledges."""

EVENTS: Final = {
    kind.label: kind for kind in (*reversed(ACKED_KINDS.values()), *reversed(SENT_KINDS.values()), *FLAG_KINDS.values())
}
"""All that is drawn as a mark, by label, in the order in which it is drawn: the last ones hide others."""

LEGEND: Final = {kind.label: kind for kind in (DATA, ACK, WINDOW, SACK, *reversed(EVENTS.values()))}
"""Everything by label, in the order of a legend."""

RETRANSMISSIONS: Final = ("retransmission", "fast_retransmission", "spurious_retransmission")


def bit(name: str) -> int:
    """The bit of model.ANALYSIS with that name."""
    return 1 << ANALYSIS.index(name)


KINDS_OF_RETRANSMISSION: Final = bit("fast_retransmission") | bit("spurious_retransmission")
