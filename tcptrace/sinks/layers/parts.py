"""What a dissected packet is made of: layers of fields; and how bytes are read that nobody vouches for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from tcptrace import records as r

Tone = Literal["plain", "good", "warning", "bad", "quiet"]
"""How a field is to be taken; an output gives each a colour."""

Kind = Literal[
    "ethernet", "vlan", "llc", "sll", "sll2", "null", "loop", "c_hdlc", "raw", "mpls", "pppoe", "ppp",
    "ipv4", "ipv6", "hop_by_hop", "routing", "ipv6_fragment", "destination_options", "authentication",
    "gre", "udp", "vxlan", "tcp", "payload",
]  # fmt: skip
"""What a dissector exists for."""

DUMP_BYTES: Final = 64
"""Of a payload shown: four lines of sixteen tell what it is."""


class CutOff(Exception):
    """The capture did not keep the bytes that come next."""


class Malformed(Exception):
    """The bytes contradict themselves; the message says how."""


class Field(NamedTuple):
    """One field of a layer.  `offset` and `length` are bytes of the frame; length 0 is worked out from others."""

    name: str
    value: str
    meaning: str
    offset: int
    length: int
    tone: Tone = "plain"


class Next(NamedTuple):
    """What follows a layer: bytes `start` to `end` of the frame; kind None is known by name only."""

    kind: Kind | None
    name: str
    start: int
    end: int


class PseudoHeader(NamedTuple):
    """What the checksums of TCP and UDP cover besides the segment (RFC 9293 section 3.1, RFC 8200 section 8.1)."""

    source: bytes
    destination: bytes
    fragment: bool  # the rest of the segment is in other packets


class Stream(NamedTuple):
    """What is known of the direction that a segment belongs to.  None is unknown."""

    first_seq: int | None  # the SYN's
    first_ack: int | None  # the other direction's SYN's
    window_shift: int | None  # 0 where one SYN had no window scale; None if not both were seen
    accurate_ecn: bool  # both ends agreed on RFC 9768
    ends_handshake: bool  # this segment is the ACK of the SYN-ACK


NO_STREAM: Final = Stream(None, None, None, False, False)


@dataclass(slots=True)
class Layer:
    """One header, or the payload."""

    name: str
    purpose: str
    offset: int  # bytes of the frame before it
    fields: list[Field] = field(default_factory=list)
    dump: bytes = b""  # of a payload: what was captured, DUMP_BYTES at most

    def add(self, name: str, value: str, meaning: str = "", at: tuple[int, int] = (0, 0), tone: Tone = "plain") -> None:
        """A further field, `at` offset and length."""
        self.fields.append(Field(name, value, meaning, at[0], at[1], tone))


@dataclass(slots=True)
class Scene:
    """What the dissectors of one frame have to know of it, and tell each other."""

    original_bytes: int  # of the frame, kept by the capture or not
    direction: int = r.DIRECTION_UNKNOWN
    segments: int = 1  # more: a super-packet of so many wire packets
    stream: Stream = NO_STREAM
    belongs: tuple[int, int, int] | None = None  # source port, destination port, seq of the segment `stream` is about
    pseudo: PseudoHeader | None = None  # of the innermost IP header so far


class Reader:
    """A cursor over the bytes of one layer, which ends at `end` of the frame, kept by the capture or not."""

    __slots__ = ("data", "end", "position", "span", "start")

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self.data = data
        self.start = start
        self.position = start
        self.end = end
        self.span = (start, 0)

    @property
    def left(self) -> int:
        """Bytes until the layer's end, those not captured included."""
        return self.end - self.position

    def take(self, count: int, what: str) -> bytes:
        """The next bytes.  Raises Malformed where the layer ends before, CutOff where the capture does."""
        stop = self.position + count
        if stop > self.end:
            raise Malformed(f"{what}: {count} bytes needed, {self.left} left")
        if stop > len(self.data):
            raise CutOff(what)
        taken = self.data[self.position : stop]
        self.span = (self.position, count)
        self.position = stop
        return taken

    def number(self, count: int, what: str) -> int:
        """The next bytes as a number in network order; raises as take()."""
        return int.from_bytes(self.take(count, what), "big")

    def rest(self) -> bytes:
        """What is captured of the bytes that are left; the cursor stays."""
        return self.data[self.position : self.end]

    def part(self, count: int) -> "Reader":
        """The next `count` bytes as a reader of their own, for options; the cursor goes behind them."""
        inner = Reader(self.data, self.position, min(self.position + count, self.end))
        self.position = inner.end
        return inner


@contextmanager
def telling(layer: Layer, reader: Reader) -> Iterator[None]:
    """Malformed options are told and left behind: where they end, the header says."""
    try:
        yield
    except Malformed as problem:
        layer.add("  malformed", "", str(problem), reader.span, "bad")


Dissector = Callable[[Reader, Layer, Scene], Next | None]
"""Adds its fields to the layer and says what follows.  Raises CutOff or Malformed; fields so far stay."""
