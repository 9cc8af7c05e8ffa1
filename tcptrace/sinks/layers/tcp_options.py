"""The options of TCP: IANA's registry, one line each."""

from typing import Final

from tcptrace import records as r
from tcptrace.sinks.layers.parts import Layer, Malformed, Reader, Stream

_END, _NOP, _MSS, _SCALE, _SACK_PERMITTED, _SACK, _TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8
_USER_TIMEOUT, _MPTCP, _FAST_OPEN, _ACCECN0, _ACCECN1, _EXPERIMENT1, _EXPERIMENT2 = 28, 30, 34, 172, 174, 253, 254
_MOST_SHIFT: Final = 14
"""RFC 7323 section 2.3."""
_SEQUENCE: Final = 1 << 32
_HEX_BYTES: Final = 8
_TIMESTAMPS_BYTES: Final = 8

_NAMES: Final = {
    6: ("echo", "obsolete (RFC 1072)"),
    7: ("echo reply", "obsolete (RFC 1072)"),
    9: ("partial order", "obsolete (RFC 1693)"),
    10: ("partial order", "obsolete (RFC 1693)"),
    11: ("T/TCP CC", "obsolete (RFC 1644)"),
    12: ("T/TCP CC.NEW", "obsolete (RFC 1644)"),
    13: ("T/TCP CC.ECHO", "obsolete (RFC 1644)"),
    14: ("other checksum", "obsolete (RFC 1146)"),
    15: ("checksum data", "obsolete (RFC 1146)"),
    19: ("MD5 signature", "proves who sent it; for BGP (RFC 2385, now TCP-AO)"),
    20: ("SCPS", "for links to spacecraft"),
    27: ("quick start", "a rate that routers allowed (RFC 4782)"),
    29: ("TCP-AO", "proves who sent it (RFC 5925)"),
    69: ("tcpcrypt", "negotiates encryption (RFC 8547)"),
    76: ("middlebox", "a proxy's own, as Riverbed's"),
    78: ("middlebox", "a proxy's own, as Riverbed's"),
}
_SUBTYPES: Final = {
    0: ("MP_CAPABLE", "can use several paths"),
    1: ("MP_JOIN", "adds a path to a connection"),
    2: ("DSS", "where the bytes belong among all paths'"),
    3: ("ADD_ADDR", "a further address of the sender"),
    4: ("REMOVE_ADDR", "an address is gone"),
    5: ("MP_PRIO", "makes a path the first or a spare one"),
    6: ("MP_FAIL", "falls back to one path"),
    7: ("MP_FASTCLOSE", "ends all paths at once"),
    8: ("MP_TCPRST", "why this path is reset"),
    15: ("MP_EXPERIMENTAL", "an experiment"),
}
"""RFC 8684 section 8."""
_EXPERIMENTS: Final = {
    0xE2D4: "IBM's SMC-R",
    0xF989: "TCP Fast Open before RFC 7413",
    0xACC0: "Accurate ECN, draft",
    0xACC1: "Accurate ECN, draft",
}
"""IANA's experiment identifiers, RFC 6994."""


def add(part: Reader, layer: Layer, flags: int, stream: Stream) -> None:
    """All options of a header.  Raises Malformed where a length cannot be, CutOff where the capture ends."""
    if part.left:
        layer.add("options", f"{part.left} bytes", "", (part.position, part.left))
    nops = 0
    while part.left:
        kind = part.number(1, "options")
        at = part.span[0]
        if kind == _NOP:
            nops += 1
            if part.rest()[:1] != b"\x01":
                _padding(nops, at, layer)
                nops = 0
            continue
        if kind == _END:
            _end(part, at, layer)
            return
        size = part.number(1, "options")
        if size < 2:
            raise Malformed(f"option {kind} says it has {size} {'byte' if size == 1 else 'bytes'}")
        if size - 2 > part.left:
            raise Malformed(f"option {kind} says it has {size} bytes, {part.left + 2} are left")
        body = part.take(size - 2, f"option {kind}")
        if kind == _TIMESTAMPS and len(body) == _TIMESTAMPS_BYTES:
            _timestamps(body, at, flags, layer)
            continue
        name, value, meaning = _told(kind, body, stream)
        layer.add(f"  {name}", value, meaning, (at, size))


def _padding(nops: int, last: int, layer: Layer) -> None:
    value = "1 byte" if nops == 1 else f"{nops} bytes"
    layer.add("  NOP", value, "padding: aligns what follows", (last - nops + 1, nops), "quiet")


def _end(part: Reader, at: int, layer: Layer) -> None:
    layer.add("  end", f"{part.left + 1} bytes", "of the options; the rest is padding", (at, part.left + 1), "quiet")
    part.position = part.end


def _told(kind: int, body: bytes, stream: Stream) -> tuple[str, str, str]:
    """Name, value and meaning of one option that has a length."""
    size = len(body)
    number = int.from_bytes(body, "big")
    match kind:
        case 2 if size == 2:
            return "MSS", f"{number:,} bytes", "the most payload it takes in a segment"
        case 3 if size == 1:
            return "window scale", str(number), _scale(number)
        case 4 if size == 0:
            return "SACK permitted", "yes", "tell it what arrives beyond a gap"
        case 5 if size and size % 8 == 0:
            return _sack(body, stream)
        case 28 if size == 2:
            unit = "minutes" if number >> 15 else "seconds"
            return "user timeout", f"{number & 0x7FFF} {unit}", "how long it waits for an ACK (RFC 5482)"
        case 30 if size:
            name, meaning = _SUBTYPES.get(body[0] >> 4, (f"subtype {body[0] >> 4}", "unknown"))
            return "MPTCP", name, f"{meaning} (RFC 8684)"
        case 34:
            return _fast_open(body)
        case 172 | 174 if size in (0, 3, 6, 9):
            return _accurate_ecn(kind, body)
        case 253 | 254 if size >= 2:
            identifier = number >> (size - 2) * 8
            name = _EXPERIMENTS.get(identifier, "unknown")
            return "experiment", f"0x{identifier:04x}", f"{name}, {size + 2} bytes in all (RFC 6994)"
    return _other(kind, body)


def _scale(shift: int) -> str:
    if shift > _MOST_SHIFT:
        return f"too much: {_MOST_SHIFT} counts, so later windows are × {1 << _MOST_SHIFT:,}"
    return f"its later windows count × {1 << shift:,}"


def _sack(body: bytes, stream: Stream) -> tuple[str, str, str]:
    """Blocks that arrived (RFC 2018); they are about the bytes of the other direction."""
    first = stream.first_ack
    edges = [int.from_bytes(body[at : at + 4], "big") for at in range(0, len(body), 4)]
    if first is not None:
        edges = [(edge - first) % _SEQUENCE for edge in edges]
    blocks = [f"{left}–{right}" for left, right in zip(edges[::2], edges[1::2], strict=True)]
    counted = ", relative" if first is not None else ""
    return "SACK", " ".join(blocks), f"arrived beyond a gap, the last number not included{counted}"


def _timestamps(body: bytes, at: int, flags: int, layer: Layer) -> None:
    """Two clocks (RFC 7323 section 3): what they are for."""
    value, echo = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:], "big")
    layer.add("  timestamp", str(value), "the sender's clock (RFC 7323)", (at, len(body) + 2))
    if flags & r.FLAG_ACK:
        meaning = "the other's, as last seen: tells it the round-trip time"
    else:
        meaning = "means nothing without the ACK flag"
    layer.add("    echo", str(echo), meaning, (at + 6, 4))


def _fast_open(body: bytes) -> tuple[str, str, str]:
    if not body:
        return "fast open", "no cookie", "asks for one, to send data with the next SYN (RFC 7413)"
    return "fast open", f"cookie {_hex(body)}", "lets data come with the SYN (RFC 7413)"


def _accurate_ecn(kind: int, body: bytes) -> tuple[str, str, str]:
    """Counters of three bytes, which of them first by the kind: RFC 9768 section 3.2.3."""
    names = ("ECT(0)", "CE", "ECT(1)") if kind == _ACCECN0 else ("ECT(1)", "CE", "ECT(0)")
    counters = [int.from_bytes(body[at : at + 3], "big") for at in range(0, len(body), 3)]
    value = " ".join(f"{name} {count}" for name, count in zip(names, counters, strict=False)) or "empty"
    return "AccECN", value, "payload bytes that came with each mark, modulo 2**24 (RFC 9768)"


def _other(kind: int, body: bytes) -> tuple[str, str, str]:
    if kind in _NAMES:
        name, meaning = _NAMES[kind]
        return name, _hex(body), meaning
    known = {_MSS, _SCALE, _SACK_PERMITTED, _SACK, _TIMESTAMPS, _USER_TIMEOUT, _MPTCP, _ACCECN0, _ACCECN1}
    if kind in known | {_EXPERIMENT1, _EXPERIMENT2}:
        return f"option {kind}", _hex(body), f"malformed: {len(body) + 2} bytes are not its length"
    return f"option {kind}", _hex(body), f"unknown, {len(body) + 2} bytes in all"


def _hex(body: bytes) -> str:
    return body[:_HEX_BYTES].hex() + ("…" if len(body) > _HEX_BYTES else "")
