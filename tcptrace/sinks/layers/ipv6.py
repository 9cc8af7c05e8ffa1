"""IPv6 (RFC 8200) and its extension headers, each a layer."""

from typing import Final

from tcptrace.sinks.layers import addresses, names
from tcptrace.sinks.layers.ip import hops, traffic_class
from tcptrace.sinks.layers.parts import Layer, Malformed, Next, PseudoHeader, Reader, Scene, telling

_JUMBO: Final = 0xC2
_PAD1, _PADN = 0, 1
_OPTIONS: Final = {
    0x04: ("tunnel limit", "how many tunnels may be nested (RFC 2473)"),
    0x05: ("router alert", "routers are to look into it (RFC 2711)"),
    0x07: ("CALIPSO", "a security label (RFC 5570)"),
    0x08: ("SMF", "for multicast in radio networks (RFC 6621)"),
    0x0F: ("PDM", "performance and diagnosis (RFC 8250)"),
    0x26: ("quick start", "asks routers for a rate (RFC 4782)"),
    0x30: ("minimum MTU", "finds the path's MTU (RFC 9268)"),
    0x31: ("IOAM", "routers note what they did (RFC 9486)"),
    0x63: ("RPL", "for low-power networks (RFC 6553)"),
    0xC2: ("jumbo payload", "a payload of more than 65,535 bytes (RFC 2675)"),
    0xC9: ("home address", "where a mobile host is at home (RFC 6275)"),
}
_ROUTING: Final = {
    0: "source route (deprecated, RFC 5095)",
    2: "to a mobile host's home (RFC 6275)",
    3: "RPL source route (RFC 6554)",
    4: "segment routing (RFC 8754)",
}
_SEGMENT_ROUTING: Final = 4
_LISTS_FROM_THE_FIRST: Final = (0, 2)
"""Routing types whose last address is where the packet ends; segment routing has it first."""


def ipv6(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """The fixed header of 40 bytes."""
    word = reader.number(4, "version, traffic class and flow label")
    span = reader.span
    layer.add("version", str(word >> 28), "", span)
    if word >> 28 != 6:
        raise Malformed(f"version {word >> 28} where 6 is meant")
    traffic_class(word >> 20 & 0xFF, layer, span)
    label = word & 0xFFFFF
    meaning = "keeps packets of one flow on one path" if label else "none"
    layer.add("flow label", f"0x{label:05x}", meaning, span)
    length = reader.number(2, "payload length")
    length_span = reader.span
    end = reader.start + 40 + length
    if length == 0:
        layer.add("payload length", "0", "in a jumbo option, or left to offload", length_span)
        end = reader.end
    elif end > reader.end:
        there = max(0, reader.end - reader.start - 40)
        layer.add("payload length", f"{length:,} bytes", f"malformed: only {there:,} are there", length_span, "bad")
        end = reader.end
    else:
        layer.add("payload length", f"{length:,} bytes", "all that comes after this header", length_span)
    following = _next_header(reader, layer, end)
    limit = reader.number(1, "hop limit")
    layer.add("hop limit", str(limit), hops(limit), reader.span)
    ends = []
    for which in ("source", "destination"):
        raw = reader.take(16, f"{which} address")
        text, kind = addresses.ip(raw)
        layer.add(which, text, kind, reader.span)
        ends.append(raw)
    scene.pseudo = PseudoHeader(ends[0], ends[1], fragment=False)
    return following._replace(start=reader.position)


def _next_header(reader: Reader, layer: Layer, end: int) -> Next:
    value = reader.number(1, "next header")
    name, kind = names.next_header(value)
    layer.add("next header", str(value), f"{name} comes next", reader.span)
    return Next(kind, name, reader.position, end)


def _length(reader: Reader, layer: Layer) -> int:
    """Bytes of an extension header, which counts them by eights without the first."""
    size = (reader.number(1, "length") + 1) * 8
    layer.add("length", f"{size} bytes", "of this extension header", reader.span)
    return size


def options(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """Hop-by-hop and destination options, RFC 8200 sections 4.3 and 4.6."""
    following = _next_header(reader, layer, reader.end)
    part = reader.part(_length(reader, layer) - 2)
    with telling(layer, part):
        while part.left:
            _option(part, layer)
    return following._replace(start=part.end)


def _option(part: Reader, layer: Layer) -> None:
    kind = part.number(1, "option")
    at = part.span[0]
    if kind == _PAD1:
        layer.add("  padding", "1 byte", "", (at, 1))
        return
    size = part.number(1, "option length")
    body = part.take(size, f"option {kind}")
    if kind == _PADN:
        layer.add("  padding", f"{size + 2} bytes", "fills the header up to a multiple of 8", (at, size + 2))
        return
    name, meaning = _OPTIONS.get(kind, (f"option {kind}", "unknown"))
    text = f"{int.from_bytes(body, 'big'):,} bytes" if kind == _JUMBO and size == 4 else f"{size + 2} bytes"
    layer.add(f"  {name}", text, meaning, (at, size + 2))


def routing(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """The routing header, RFC 8200 section 4.4.  While segments are left, the checksum is about the last address."""
    following = _next_header(reader, layer, reader.end)
    size = _length(reader, layer)
    kind = reader.number(1, "routing type")
    layer.add("routing type", str(kind), _ROUTING.get(kind, "unknown"), reader.span)
    left = reader.number(1, "segments left")
    layer.add("segments left", str(left), "addresses still to be visited", reader.span)
    reader.take(4, "routing data")
    count = (size - 8) // 16 if kind in (*_LISTS_FROM_THE_FIRST, _SEGMENT_ROUTING) else 0
    route = []
    for number in range(count):
        raw = reader.take(16, "routing addresses")
        text, meaning = addresses.ip(raw)
        layer.add(f"  address {number}", text, meaning, reader.span)
        route.append(raw)
    if left and route and scene.pseudo:
        scene.pseudo = scene.pseudo._replace(destination=route[0 if kind == _SEGMENT_ROUTING else -1])
    return following._replace(start=reader.start + size)


def fragment(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """The fragment header, RFC 8200 section 4.5.  A whole packet may have one, too (RFC 6946)."""
    following = _next_header(reader, layer, reader.end)
    reader.take(1, "reserved byte")
    value = reader.number(2, "fragment offset")
    offset, more = value & 0xFFF8, bool(value & 1)
    where = "where this fragment belongs in the packet" if offset else "the first" if more else "the only one"
    layer.add("fragment offset", str(offset), where, reader.span)
    layer.add("more fragments", str(int(more)), "others follow" if more else "this is the last", reader.span)
    layer.add("identification", f"0x{reader.number(4, 'identification'):08x}", "the same in all of them", reader.span)
    if scene.pseudo:
        scene.pseudo = scene.pseudo._replace(fragment=bool(offset or more))
    if offset:
        return Next(None, f"a later fragment of {following.name}", reader.position, reader.end)
    return following._replace(start=reader.position)


def authentication(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """The authentication header of IPsec, RFC 4302, after IPv4 and IPv6."""
    following = _next_header(reader, layer, reader.end)
    size = (reader.number(1, "length") + 2) * 4
    layer.add("length", f"{size} bytes", "of this header", reader.span)
    reader.take(2, "reserved bytes")
    layer.add("SPI", f"0x{reader.number(4, 'SPI'):08x}", "which security association", reader.span)
    layer.add("sequence number", str(reader.number(4, "sequence number")), "against replays", reader.span)
    if size < 12:
        raise Malformed(f"length {size}, at least 12 bytes are needed")
    check = reader.take(size - 12, "integrity check")
    layer.add("integrity check", f"{len(check)} bytes", "a keyed checksum over the packet", reader.span)
    return following._replace(start=reader.position)
