"""What stands between link and network: MPLS labels, PPPoE, PPP."""

from typing import Final

from tcptrace.sinks.layers import names
from tcptrace.sinks.layers.parts import Layer, Malformed, Next, Reader, Scene

_LABELS: Final = {
    0: "IPv4 explicit null",
    1: "router alert",
    2: "IPv6 explicit null",
    3: "implicit null",
    7: "entropy label indicator",
    13: "generic associated channel",
}
"""RFC 3032 section 2.1, RFC 6790, RFC 5586."""
_LEAST_LABEL: Final = 16
"""Labels below are reserved, RFC 3032."""
_CODES: Final = {0x00: "session data", 0x07: "PADO", 0x09: "PADI", 0x19: "PADR", 0x65: "PADS", 0xA7: "PADT"}
"""RFC 2516 section 5."""


def mpls(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """One label, RFC 3032.  What follows the last one is nowhere written; its first half byte tells IP."""
    value = reader.number(4, "label")
    span = reader.span
    label = value >> 12
    known = "reserved" if label < _LEAST_LABEL else "how the next router forwards it"
    layer.add("label", str(label), _LABELS.get(label, known), span)
    layer.add("traffic class", str(value >> 9 & 7), "priority and congestion (RFC 5462)", span)
    bottom = value >> 8 & 1
    layer.add("bottom of stack", str(bottom), "the last label" if bottom else "another label follows", span)
    layer.add("TTL", str(value & 0xFF), "hops it may still take", span)
    if not bottom:
        return Next("mpls", "MPLS", reader.position, reader.end)
    return _after_labels(reader, layer)


def _after_labels(reader: Reader, layer: Layer) -> Next | None:
    first = reader.rest()[:1]
    if not first:
        reader.take(1, "what follows the labels")
    version = first[0] >> 4
    if version == 4:
        return Next("ipv4", "IPv4", reader.position, reader.end)
    if version == 6:
        return Next("ipv6", "IPv6", reader.position, reader.end)
    if version == 0:
        word = reader.number(4, "control word")
        layer.add("control word", f"0x{word:08x}", "of a pseudowire (RFC 4385): Ethernet, probably", reader.span)
        return Next("ethernet", "Ethernet", reader.position, reader.end)
    return Next("ethernet", "Ethernet", reader.position, reader.end)


def pppoe(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """PPPoE, RFC 2516 section 4."""
    first = reader.number(1, "version and type")
    layer.add("version, type", f"{first >> 4}, {first & 15}", "always 1 and 1" if first == 0x11 else "", reader.span)
    code = reader.number(1, "code")
    layer.add("code", f"0x{code:02x}", _CODES.get(code, "unknown"), reader.span)
    layer.add("session", str(reader.number(2, "session")), "given by the access concentrator", reader.span)
    length = reader.number(2, "length")
    layer.add("length", f"{length:,} bytes", "of what follows", reader.span)
    if first != 0x11:
        raise Malformed(f"version {first >> 4}, type {first & 15}, where both are 1")
    if length > reader.left:
        raise Malformed(f"length says {length} bytes, the frame has {reader.left} left")
    end = reader.position + length
    if code:
        return Next(None, f"PPPoE {_CODES.get(code, 'discovery')}", reader.position, end)
    return Next("ppp", "PPP", reader.position, end)


def ppp(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """PPP's protocol field (RFC 1661 section 2), with HDLC's address and control (RFC 1662) where they are."""
    if reader.rest()[:2] == b"\xff\x03":
        reader.take(2, "address and control")
        layer.add("address, control", "0xff, 0x03", "all stations, plain data: the same always", reader.span)
    first = reader.rest()[:1]
    # An odd first byte is the whole number: protocol field compression, RFC 1661 section 6.5.
    value = reader.number(1 if first and first[0] & 1 else 2, "protocol")
    name, kind = names.PPP_PROTOCOLS.get(value, (f"PPP protocol 0x{value:04x}", None))
    layer.add("protocol", f"0x{value:04x}", f"{name} comes next", reader.span)
    return Next(kind, name, reader.position, reader.end)
