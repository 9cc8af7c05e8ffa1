"""Tunnels whose next layer is easily found: GRE, UDP with VXLAN."""

from typing import Final

from tcptrace.sinks.layers import checksum, names
from tcptrace.sinks.layers.parts import Layer, Malformed, Next, Reader, Scene

_CHECKSUM, _ROUTING, _KEY, _SEQUENCE = 0x8000, 0x4000, 0x2000, 0x1000
_ERSPAN: Final = 0x88BE
_ERSPAN_BYTES: Final = 8
"""Of the type II header that stands before the mirrored frame; type I has neither it nor a sequence number."""
_PPTP: Final = 1
_VXLAN_PORT: Final = 4789
_IP_PROTOCOL_UDP: Final = 17
_UDP_NAMES: Final = {
    53: "DNS",
    443: "QUIC",
    500: "IKE",
    1701: "L2TP",
    2152: "GTP-U",
    3544: "Teredo",
    4500: "IPsec in UDP",
    6081: "Geneve",
    51820: "WireGuard",
}


def gre(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """GRE (RFC 2784, 2890), and PPTP's version of it (RFC 2637)."""
    flags = reader.number(2, "flags and version")
    named = (("checksum", _CHECKSUM), ("routing", _ROUTING), ("key", _KEY), ("sequence", _SEQUENCE))
    layer.add("flags", " ".join(name for name, bit in named if flags & bit) or "none", "", reader.span)
    version = flags & 7
    layer.add("version", str(version), "PPTP" if version == _PPTP else "", reader.span)
    protocol = reader.number(2, "protocol")
    name, kind = names.ethertype(protocol)
    layer.add("protocol", f"0x{protocol:04x}", f"{name} comes next", reader.span)
    if version > _PPTP:
        raise Malformed(f"version {version}")
    if flags & (_CHECKSUM | _ROUTING):
        layer.add("checksum", f"0x{reader.number(4, 'checksum') >> 16:04x}", "of the tunnelled packet", reader.span)
    if flags & _KEY:
        layer.add("key", str(reader.number(4, "key")), "which tunnel", reader.span)
    if flags & _SEQUENCE:
        layer.add("sequence", str(reader.number(4, "sequence")), "keeps packets in order", reader.span)
    if version == _PPTP and flags & 0x80:
        layer.add("acknowledgment", str(reader.number(4, "acknowledgment")), "", reader.span)
    if flags & _ROUTING:
        return Next(None, f"{name} behind GRE routing", reader.position, reader.end)
    if protocol == _ERSPAN:
        if flags & _SEQUENCE:
            reader.take(_ERSPAN_BYTES, "ERSPAN header")
            layer.add("ERSPAN", "type II", "a switch sends a copy of a frame it saw", reader.span)
        kind = "ethernet"
    return Next(kind, name, reader.position, reader.end)


def udp(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """UDP, RFC 768: as the carrier of a tunnel."""
    start = reader.position
    ports = []
    for which in ("source", "destination"):
        ports.append(reader.number(2, f"{which} port"))
        layer.add(f"{which} port", str(ports[-1]), _UDP_NAMES.get(ports[-1], ""), reader.span)
    length = reader.number(2, "length")
    layer.add("length", f"{length:,} bytes", "header and payload", reader.span)
    _udp_checksum(reader, layer, start, length, scene)
    if 0 < length < 8 or start + length > reader.end:
        raise Malformed(f"length says {length} bytes, {reader.end - start} are there")
    end = start + length if length else reader.end
    if ports[1] == _VXLAN_PORT:
        return Next("vxlan", "VXLAN", reader.position, end)
    name = _UDP_NAMES.get(ports[1]) or _UDP_NAMES.get(ports[0]) or "UDP payload"
    return Next(None, name, reader.position, end)


def _udp_checksum(reader: Reader, layer: Layer, start: int, length: int, scene: Scene) -> None:
    value = reader.number(2, "checksum")
    if value == 0:
        layer.add("checksum", "0x0000", "none was computed, as UDP over IPv4 may and tunnels often do", reader.span)
        return
    segment = reader.data[start : min(start + length, reader.end)]
    if length < 8 or start + length > reader.end:
        layer.add("checksum", f"0x{value:04x} not verified", "the length is wrong", reader.span, "warning")
        return
    verdict = checksum.segment_verdict(segment, 6, length, _IP_PROTOCOL_UDP, scene)
    layer.add("checksum", verdict.text, verdict.meaning, reader.span, verdict.tone)


def vxlan(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """VXLAN, RFC 7348."""
    flags = reader.number(1, "flags")
    layer.add("flags", f"0x{flags:02x}", "the network's number is valid" if flags & 8 else "", reader.span)
    reader.take(3, "reserved bytes")
    layer.add("VNI", str(reader.number(3, "VNI")), "which virtual network", reader.span)
    reader.take(1, "reserved byte")
    return Next("ethernet", "Ethernet", reader.position, reader.end)
