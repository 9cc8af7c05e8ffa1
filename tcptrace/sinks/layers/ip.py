"""IPv4, RFC 791."""

from typing import Final

from tcptrace.sinks.layers import addresses, checksum, names
from tcptrace.sinks.layers.parts import Layer, Malformed, Next, PseudoHeader, Reader, Scene, telling

_LEAST_HEADER_BYTES: Final = 20
_CHECKSUM_AT: Final = 10
_START_VALUES: Final = (64, 128, 255)
"""What systems set out with: Linux, macOS and BSD 64, Windows 128, routers 255."""
_MOST_HOPS: Final = 40
"""Paths in the Internet are shorter; further from a start value, it is not worth a guess."""
_LOOSE_ROUTE, _STRICT_ROUTE, _RECORD_ROUTE = 131, 137, 7
_OPTIONS: Final = {
    7: ("record route", "routers write their addresses here"),
    25: ("quick start", "asks routers for a rate (RFC 4782)"),
    68: ("timestamps", "routers write the time here"),
    82: ("traceroute", "RFC 1393, deprecated"),
    130: ("security", "RFC 1108"),
    131: ("loose route", "routers to pass, others may lie between"),
    134: ("CIPSO", "a security label"),
    136: ("stream id", "obsolete"),
    137: ("strict route", "routers to pass and no others"),
    148: ("router alert", "routers are to look into it (RFC 2113)"),
}


def ipv4(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """The header with its options."""
    start = reader.position
    first = reader.number(1, "version and header length")
    version, header_bytes = first >> 4, (first & 15) * 4
    layer.add("version", str(version), "", reader.span)
    if version != 4:
        raise Malformed(f"version {version} where 4 is meant")
    options = f", {header_bytes - _LEAST_HEADER_BYTES} of them options" if header_bytes > _LEAST_HEADER_BYTES else ""
    layer.add("header length", f"{header_bytes} bytes", f"{first & 15} words of 4 bytes{options}", reader.span)
    if header_bytes < _LEAST_HEADER_BYTES:
        raise Malformed(f"header length {header_bytes}, at least {_LEAST_HEADER_BYTES} are needed")
    traffic_class(reader.number(1, "traffic class"), layer, reader.span)
    end = _total_length(reader, layer, start, header_bytes)
    identification = reader.number(2, "identification")
    layer.add("identification", f"0x{identification:04x}", "the same in all fragments of a packet", reader.span)
    fragment = _fragment(reader, layer)
    ttl = reader.number(1, "TTL")
    layer.add("TTL", str(ttl), hops(ttl), reader.span)
    protocol = reader.number(1, "protocol")
    name, kind = names.ip_protocol(protocol)
    layer.add("protocol", str(protocol), f"{name} comes next", reader.span)
    _header_checksum(reader, layer, start, header_bytes, scene)
    source, destination = (_address(which, reader, layer, 4) for which in ("source", "destination"))
    last = _options(reader, layer, header_bytes - _LEAST_HEADER_BYTES)
    scene.pseudo = PseudoHeader(source, last or destination, fragment != (0, False))
    if fragment[0]:
        return Next(None, f"a later fragment of {name}", start + header_bytes, end)
    return Next(kind, name, start + header_bytes, end)


def traffic_class(value: int, layer: Layer, at: tuple[int, int]) -> None:
    """DSCP (RFC 2474) and ECN (RFC 3168), of IPv4 and IPv6 alike."""
    text, meaning = names.dscp(value >> 2)
    layer.add("DSCP", text, meaning, at)
    text, meaning = names.ecn(value & 3)
    layer.add("ECN", text, meaning, at, "warning" if value & 3 == 3 else "plain")


def hops(value: int) -> str:
    """How far a packet has come, by the usual start values."""
    if value == 0:
        return "used up: no router may pass it on"
    start = next(number for number in _START_VALUES if number >= value)
    passed = start - value
    if passed == 0:
        return "a usual start value: no router yet"
    if passed > _MOST_HOPS:
        return "hops it may still take"
    return f"probably {start} at first, so {passed} {'hop' if passed == 1 else 'hops'}"


def _total_length(reader: Reader, layer: Layer, start: int, header_bytes: int) -> int:
    """Where the packet ends in the frame."""
    total = reader.number(2, "total length")
    there = reader.end - start
    if total == 0:
        layer.add("total length", "0", "left to segmentation offload: up to the frame's end", reader.span, "warning")
        return reader.end
    if total > there:
        layer.add("total length", f"{total:,} bytes", f"malformed: only {there:,} are there", reader.span, "bad")
        return reader.end
    if total < header_bytes:
        layer.add("total length", f"{total:,} bytes", "", reader.span, "bad")
        raise Malformed(f"total length {total}, less than the header's {header_bytes}")
    layer.add("total length", f"{total:,} bytes", "this header and all behind it", reader.span)
    return start + total


def _fragment(reader: Reader, layer: Layer) -> tuple[int, bool]:
    """Offset in bytes, and whether more fragments follow."""
    value = reader.number(2, "flags and fragment offset")
    flags = [
        ("DF", 0x4000, "do not fragment: if too big, drop it"),
        ("MF", 0x2000, "more fragments follow"),
        ("reserved", 0x8000, "the reserved bit is set"),
    ]
    chosen = [(name, meaning) for name, bit, meaning in flags if value & bit]
    text = " ".join(name for name, _ in chosen) or "none"
    meaning = "; ".join(meaning for _, meaning in chosen) or "routers may cut it into fragments"
    layer.add("flags", text, meaning, reader.span)
    offset, more = (value & 0x1FFF) * 8, bool(value & 0x2000)
    where = (
        "where this fragment belongs in the packet" if offset else "the first fragment" if more else "not a fragment"
    )
    layer.add("fragment offset", str(offset), where, reader.span)
    return offset, more


def _header_checksum(reader: Reader, layer: Layer, start: int, header_bytes: int, scene: Scene) -> None:
    value = reader.number(2, "header checksum")
    header = reader.data[start : min(start + header_bytes, reader.end)]
    if len(header) < header_bytes:
        layer.add("header checksum", f"0x{value:04x} not verified", "the header is not whole", reader.span, "warning")
        return
    verdict = checksum.header_verdict(header, _CHECKSUM_AT, scene)
    layer.add("header checksum", verdict.text, verdict.meaning, reader.span, verdict.tone)


def _address(which: str, reader: Reader, layer: Layer, length: int) -> bytes:
    raw = reader.take(length, f"{which} address")
    text, meaning = addresses.ip(raw)
    layer.add(which, text, meaning, reader.span)
    return raw


def _options(reader: Reader, layer: Layer, length: int) -> bytes | None:
    """Adds the options; returns the last address of a source route that is still under way."""
    if not length:
        return None
    if length > reader.left:
        raise Malformed(f"{length} bytes of options, {reader.left} bytes left")
    part = reader.part(length)
    route: list[bytes] = []
    with telling(layer, part):
        _each_option(part, layer, route)
    return route[-1] if route else None


def _each_option(part: Reader, layer: Layer, route: list[bytes]) -> None:
    """Adds the last address of a source route that is still under way to `route`."""
    while part.left:
        kind = part.number(1, "options")
        at = part.span
        if kind == 0:
            layer.add("  end of options", f"{part.left + 1} bytes", "the rest is padding", (at[0], part.left + 1))
            break
        if kind == 1:
            layer.add("  no operation", "", "aligns what follows", at)
            continue
        size = part.number(1, "options")
        if size < 2:
            raise Malformed(f"option {kind} says it has {size} bytes")
        body = part.take(size - 2, f"option {kind}")
        name, meaning = _OPTIONS.get(kind, (f"option {kind}", "unknown"))
        layer.add(f"  {name}", _option_text(kind, body), meaning, (at[0], size))
        if kind in (_LOOSE_ROUTE, _STRICT_ROUTE) and len(body) >= 5 and body[0] <= size - 3:
            route.append(body[-4:])


def _option_text(kind: int, body: bytes) -> str:
    if kind in (_RECORD_ROUTE, _LOOSE_ROUTE, _STRICT_ROUTE) and body:
        route = [addresses.ip(body[at : at + 4])[0] for at in range(1, len(body) - 3, 4)]
        return f"{len(route)} addresses: {', '.join(route[:2])}{' …' if len(route) > 2 else ''}"
    return f"{len(body) + 2} bytes"
