"""The Internet checksum (RFC 1071), and what to say about one that is in a header."""

import struct
from typing import Final, Literal, NamedTuple

from tcptrace import records as r
from tcptrace.sinks.layers.parts import PseudoHeader, Scene, Tone

Status = Literal["correct", "wrong", "not computed", "not verified"]

_ONES: Final = 0xFFFF
_TONES: Final[dict[Status, Tone]] = {
    "correct": "good",
    "wrong": "bad",
    "not computed": "warning",
    "not verified": "warning",
}


class Verdict(NamedTuple):
    """A checksum, as it stands in the header and as it should be."""

    value: int
    status: Status
    meaning: str

    @property
    def text(self) -> str:
        return f"0x{self.value:04x} {self.status}"

    @property
    def tone(self) -> Tone:
        return _TONES[self.status]


def ones_sum(data: bytes) -> int:
    """The one's complement sum of 16-bit words; an odd last byte counts as the high one."""
    # 2**16 is 1 modulo 65535, so the words' sum with end-around carry is the number's remainder.
    padded = data + b"\0" if len(data) % 2 else data
    number = int.from_bytes(padded, "big")
    return number % _ONES or (_ONES if number else 0)


def pseudo_header_sum(pseudo: PseudoHeader, protocol: int, segment_bytes: int) -> int:
    """What offload leaves in the checksum field for the card to go on from."""
    return ones_sum(pseudo.source + pseudo.destination + struct.pack("!II", segment_bytes, protocol))


def header_verdict(header: bytes, at: int, scene: Scene) -> Verdict:
    """Of IPv4's header checksum, which is `at` in the header."""
    value = int.from_bytes(header[at : at + 2], "big")
    if ones_sum(header) == _ONES:
        return Verdict(value, "correct", "over the header alone")
    if value == 0 and _leaves(scene):
        return Verdict(value, "not computed", "left to the network card (offload)")
    return Verdict(value, "wrong", f"should be 0x{_should_be(header, at, 0):04x}{_hint(value)}")


def segment_verdict(segment: bytes, at: int, segment_bytes: int, protocol: int, scene: Scene) -> Verdict:
    """Of the checksum `at` in a segment of which `segment` was captured.  At least the field itself is there."""
    value = int.from_bytes(segment[at : at + 2], "big")
    pseudo = scene.pseudo
    if pseudo is None:
        return Verdict(value, "not verified", "cannot be verified: the IP header is not known")
    if pseudo.fragment:
        return Verdict(value, "not verified", "cannot be verified: the rest of the segment is in other fragments")
    before = pseudo_header_sum(pseudo, protocol, segment_bytes)
    if offload := _offload(value, before, pseudo, protocol, scene):
        # One whole segment in 65,535 has this very number as its correct checksum.
        if len(segment) < segment_bytes or _total(before, segment) != _ONES:
            return Verdict(value, "not computed", f"left to the network card (offload): {offload}")
        return Verdict(value, "correct", "over addresses, header and payload")
    if len(segment) < segment_bytes:
        kept = f"the capture kept only {len(segment):,} of {segment_bytes:,} bytes"
        return Verdict(value, "not verified", f"cannot be verified: {kept}")
    if _total(before, segment) == _ONES:
        return Verdict(value, "correct", "over addresses, header and payload")
    if scene.segments > 1:
        many = f"one frame here stands for {scene.segments} packets, each with its own"
        return Verdict(value, "not verified", f"cannot be verified: {many}")
    return Verdict(value, "wrong", f"should be 0x{_should_be(segment, at, before):04x}{_hint(value)}")


def _hint(value: int) -> str:
    return "; 0 may mean that it was left to the network card" if value == 0 else ": damaged on the way or changed"


def _leaves(scene: Scene) -> bool:
    """Whether the frame may have been captured before the card had computed anything."""
    return scene.direction == r.DIRECTION_EGRESS or scene.segments > 1


def _offload(value: int, before: int, pseudo: PseudoHeader, protocol: int, scene: Scene) -> str:
    """What a checksum field holds that is not yet a checksum, or nothing."""
    if value == before:
        return "only the addresses are summed so far"
    if value == 0 and _leaves(scene):
        return "it is empty"
    # Some drivers want the sum without the length, which differs from segment to segment.
    if scene.segments > 1 and value == pseudo_header_sum(pseudo, protocol, 0):
        return "only the addresses are summed so far"
    return ""


def _total(before: int, segment: bytes) -> int:
    total = before + ones_sum(segment)
    return total % _ONES or (_ONES if total else 0)


def _should_be(data: bytes, at: int, before: int) -> int:
    return _ONES - _total(before, data[:at] + b"\0\0" + data[at + 2 :])
