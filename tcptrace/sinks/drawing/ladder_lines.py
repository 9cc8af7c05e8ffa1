"""One packet as an arrow between two ends, in a fixed width."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from tcptrace import records as r
from tcptrace.sinks import human
from tcptrace.sinks.drawing import kinds
from tcptrace.sinks.drawing.history import Endpoints
from tcptrace.sinks.drawing.sequence_numbers import Space, relative_numbers

Array = npt.NDArray[Any]

MIN_WIDTH: Final = 60
# Wider, and the eye loses the way from one end to the other.
MAX_WIDTH: Final = 120
_TIME_WIDTH: Final = 13
_DECIMALS: Final = 6
_NS_PER_S: Final = 1_000_000_000

_FOUND_STYLES: Final = (
    (kinds.bit("retransmission") | kinds.bit("zero_window") | kinds.bit("local_drop"), "bold red"),
    (kinds.bit("out_of_order") | kinds.bit("previous_segment_not_captured") | kinds.bit("window_full"), "yellow"),
    (kinds.bit("duplicate_ack") | kinds.bit("duplicate_sack"), "magenta"),
)
_FLAG_STYLES: Final = ((r.FLAG_RST, "red"), (r.FLAG_SYN, "green"), (r.FLAG_FIN, "cyan"))
"""The first that applies gives the packet its colour: findings, then flags."""


class Line(NamedTuple):
    """Text of which the middle has a Rich style; a Rich Text for each of a million packets would take a minute."""

    before: str
    body: str = ""
    style: str = ""
    after: str = ""

    @property
    def plain(self) -> str:
        """The whole line, without spaces at its end."""
        return f"{self.before}{self.body}{self.after}".rstrip()


@dataclass(frozen=True)
class Drawing:
    """The characters that arrows are made of."""

    line: str
    right: str
    left: str
    post: str


UNICODE: Final = Drawing("─", "▶", "◀", "│")
ASCII: Final = Drawing("-", ">", "<", "|")


class LadderLines:
    """Lines of one connection; carries the relative numbers on from one batch to the next.

    `width` characters, at least MIN_WIDTH.  `scales`: see History.scales; may become known while packets come.
    """

    def __init__(self, number: int, ends: Endpoints, width: int, drawing: Drawing) -> None:
        self._drawing = drawing
        self._inside = min(max(width, MIN_WIDTH), MAX_WIDTH) - _TIME_WIDTH - 2
        self._number = number
        self._ends = ends
        self._spaces = (Space(), Space())
        self._start_ns: int | None = None

    def heading(self) -> list[Line]:
        """Who is on which side."""
        room = (self._inside + 2) // 2
        src, dst = (human.ellipsise(name, room - 1) for name in self._ends.names())
        ends = f"{src}{dst:>{self._inside + 2 - len(src)}}"
        return [
            Line("", f"connection {self._number}", "bold"),
            Line("", f"{'seconds':>{_TIME_WIDTH - 1}} {ends}", "bold"),
        ]

    def lines(self, packets: Array, shifts: tuple[int | None, int | None]) -> list[Line]:
        """PACKET records; `shifts` are the window scales of src and dst, None for unknown."""
        if not len(packets):
            return []
        if self._start_ns is None:
            self._start_ns = int(packets["time_ns"][0])
        seq, ack = relative_numbers(packets, self._spaces)
        elapsed = (packets["time_ns"] - self._start_ns).tolist()
        lines: list[Line] = []
        for i, row in enumerate(packets.tolist()):
            packet = dict(zip(packets.dtype.names or (), row, strict=True))
            words = packet_words(packet, int(seq[i]), int(ack[i]), shifts[packet["received"]])
            lines += self._arrow(time_text(elapsed[i]), words, packet["received"] == 1, style_of(packet))
        return lines

    def _arrow(self, time: str, words: list[str], leftwards: bool, style: str) -> list[Line]:
        """The arrow with as many words as fit, and the others below it."""
        first, *more = wrapped(words, self._inside - 6)
        drawing = self._drawing
        shaft = drawing.line * (self._inside - len(first) - 5)
        if leftwards:
            body = f"{drawing.left}{shaft} {first} {drawing.line * 2}"
        else:
            body = f"{drawing.line * 2} {first} {shaft}{drawing.right}"
        lines = [self._between(time, body, style)]
        for part in more:
            text = f"{part:>{self._inside - 3}}   " if leftwards else f"   {part}".ljust(self._inside)
            lines.append(self._between("", text, style))
        return lines

    def _between(self, time: str, body: str, style: str) -> Line:
        return Line(f"{time:>{_TIME_WIDTH - 1}} {self._drawing.post}", body, style, self._drawing.post)


def packet_words(packet: dict[str, Any], seq: int, ack: int, shift: int | None) -> list[str]:
    """What there is to say of one packet; numbers are relative, `shift` is its sender's window scale."""
    flags = packet["flags"]
    words = [human.flags_words(flags).replace("|", ",") or "no flags", f"seq {seq}"]
    if flags & r.FLAG_ACK:
        words.append(f"ack {ack}")
    if packet["payload_bytes"]:
        words.append(f"len {packet['payload_bytes']}")
    words.append(window_text(packet["window"], flags, shift))
    if packet["segments"] > 1:
        words.append(f"×{packet['segments']}")
    return words + [f"[{name}]" for name in findings_words(packet["analysis"], packet["duplicate_ack_number"])]


def window_text(window: int, flags: int, shift: int | None) -> str:
    """Bytes if the scale is known (RFC 7323 section 2.2: never on a SYN); otherwise the number as sent, and ×?."""
    if flags & r.FLAG_SYN or window == 0:
        return f"win {window}"
    return f"win {window}×?" if shift is None else f"win {window << shift}"


def findings_words(analysis: int, duplicate_ack_number: int) -> list[str]:
    """Findings as words; what is fast or spurious is not called a retransmission once more."""
    if analysis & kinds.KINDS_OF_RETRANSMISSION:
        analysis &= ~kinds.bit("retransmission")
    names = [name.replace("_", " ") for name in human.analysis_words(analysis)]
    numbered = f"duplicate ack #{duplicate_ack_number}" if duplicate_ack_number else "duplicate ack"
    return [numbered if name == "duplicate ack" else name for name in names]


def style_of(packet: dict[str, Any]) -> str:
    """Rich style of a packet's arrow."""
    found = (style for bits, style in _FOUND_STYLES if packet["analysis"] & bits)
    flagged = (style for bit, style in _FLAG_STYLES if packet["flags"] & bit)
    return next(found, None) or next(flagged, "")


def time_text(elapsed_ns: int) -> str:
    """Seconds with six decimals, cut: never wider than its column."""
    seconds, rest = divmod(elapsed_ns, _NS_PER_S)
    return f"{seconds}.{rest // 1000:0{_DECIMALS}d}"[: _TIME_WIDTH - 1]


def wrapped(words: list[str], width: int) -> list[str]:
    """Words joined by spaces into lines no wider than `width`; a word that is wider alone is cut short."""
    lines = [""]
    for word in (human.ellipsise(word, width) for word in words):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines
