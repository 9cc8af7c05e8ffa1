"""Link layers: Ethernet, VLAN tags, LLC, Linux cooked captures, loopback headers, raw IP."""

from typing import Final

from tcptrace.sinks.layers import addresses, names
from tcptrace.sinks.layers.parts import Kind, Layer, Malformed, Next, Reader, Scene

_SNAP: Final = 0xAA
_UNNUMBERED_INFORMATION: Final = 0x03
_LLC_IP: Final = 0x06
_SLL_TYPES: Final = {
    0: "to this host",
    1: "broadcast by somebody else",
    2: "multicast by somebody else",
    3: "from one other host to another",
    4: "sent by this host",
}
"""LINKTYPE_LINUX_SLL's packet types."""
_HARDWARE: Final = {1: "Ethernet", 512: "PPP", 772: "loopback", 776: "6in4 tunnel", 778: "GRE tunnel", 65534: "none"}
"""Linux's ARPHRD_ numbers; 65534 is what a tun device or WireGuard has."""
_PRIORITIES: Final = (
    "best effort",
    "background: lowest",
    "excellent effort",
    "critical applications",
    "video",
    "voice",
    "internetwork control",
    "network control: highest",
)
"""IEEE 802.1Q annex I."""


def ethernet(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """Ethernet II, or IEEE 802.3 where the third field is a length."""
    for name in ("destination", "source"):
        text, meaning = addresses.mac(reader.take(6, f"{name} address"))
        layer.add(name, text, meaning, reader.span)
    value = reader.number(2, "ethertype")
    if value >= names.LEAST_ETHERTYPE:
        return _ethertype(value, reader, layer)
    layer.name = "IEEE 802.3"
    layer.add("length", f"{value} bytes", "below 1536, so no ethertype: LLC comes next", reader.span)
    if value > reader.left:
        raise Malformed(f"length says {value} bytes, the frame has {reader.left} left")
    return Next("llc", "LLC", reader.position, reader.position + value)


def _ethertype(value: int, reader: Reader, layer: Layer) -> Next:
    name, kind = names.ethertype(value)
    layer.add("ethertype", f"0x{value:04x}", f"{name} comes next", reader.span)
    return Next(kind, name, reader.position, reader.end)


def vlan(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """One VLAN tag, IEEE 802.1Q."""
    tag_control(reader.number(2, "tag control"), layer, reader.span)
    value = reader.number(2, "ethertype")
    if value < names.LEAST_ETHERTYPE:
        layer.add("length", f"{value} bytes", "no ethertype: LLC comes next", reader.span)
        return Next("llc", "LLC", reader.position, reader.end)
    return _ethertype(value, reader, layer)


def tag_control(value: int, layer: Layer, at: tuple[int, int]) -> None:
    """Priority, drop eligibility and number of a VLAN tag."""
    priority, identifier = value >> 13, value & 0x0FFF
    layer.add("priority", str(priority), f"PCP: {_PRIORITIES[priority]}", at)
    drop = value >> 12 & 1
    layer.add("drop eligible", str(drop), "DEI: may be dropped first" if drop else "DEI: no", at)
    meaning = {0: "VID 0: no VLAN, only a priority", 0xFFF: "VID reserved"}.get(
        identifier, "VID: which virtual network"
    )
    layer.add("VLAN", str(identifier), meaning, at)


def llc(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """IEEE 802.2 LLC, with SNAP (RFC 1042)."""
    saps = []
    for name in ("DSAP", "SSAP"):
        value = reader.number(1, name)
        saps.append(value)
        layer.add(name, f"0x{value:02x}", names.SAPS.get(value, "service access point"), reader.span)
    control = reader.number(1, "control")
    if control & 3 != 3:
        control = control << 8 | reader.number(1, "control")
    layer.add(
        "control", f"0x{control:02x}", "plain data (UI)" if control == _UNNUMBERED_INFORMATION else "", reader.span
    )
    if saps == [_SNAP, _SNAP] and control == _UNNUMBERED_INFORMATION:
        layer.name = "LLC and SNAP"
        organisation = reader.take(3, "organisation")
        known = {b"\0\0\0": "an ethertype follows", b"\x00\x00\x0c": "Cisco"}.get(organisation, "")
        layer.add("organisation", organisation.hex(":"), known, reader.span)
        value = reader.number(2, "protocol")
        if organisation == b"\0\0\0":
            return _ethertype(value, reader, layer)
        layer.add("protocol", f"0x{value:04x}", "of that organisation", reader.span)
        return Next(None, f"protocol 0x{value:04x} of {organisation.hex(':')}", reader.position, reader.end)
    if saps == [_LLC_IP, _LLC_IP]:
        return Next("ipv4", "IPv4", reader.position, reader.end)
    return Next(None, names.SAPS.get(saps[0], f"LLC service 0x{saps[0]:02x}"), reader.position, reader.end)


def sll(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """LINKTYPE_LINUX_SLL: what Linux gives a capture on all interfaces."""
    _packet_type(reader.number(2, "packet type"), reader, layer)
    _hardware(reader.number(2, "hardware type"), reader, layer)
    length = reader.number(2, "address length")
    layer.add("address length", str(length), "", reader.span)
    _sender(length, reader, layer)
    return _sll_protocol(reader.number(2, "protocol"), reader.span, reader, layer)


def sll2(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """LINKTYPE_LINUX_SLL2: with the interface's number."""
    protocol = reader.number(2, "protocol")
    protocol_span = reader.span
    reader.take(2, "reserved bytes")
    layer.add("interface", str(reader.number(4, "interface")), "its number on the capturing host", reader.span)
    _hardware(reader.number(2, "hardware type"), reader, layer)
    _packet_type(reader.number(1, "packet type"), reader, layer)
    length = reader.number(1, "address length")
    layer.add("address length", str(length), "", reader.span)
    _sender(length, reader, layer)
    return _sll_protocol(protocol, protocol_span, reader, layer)


def _packet_type(value: int, reader: Reader, layer: Layer) -> None:
    layer.add("packet type", str(value), _SLL_TYPES.get(value, "unknown"), reader.span)


def _hardware(value: int, reader: Reader, layer: Layer) -> None:
    layer.add("hardware", str(value), f"{_HARDWARE.get(value, 'another')} (ARPHRD)", reader.span)


def _sender(length: int, reader: Reader, layer: Layer) -> None:
    """The field has eight bytes, of which `length` count."""
    raw = reader.take(8, "source address")[:length]
    if raw:
        text, meaning = addresses.mac(raw)
        layer.add("source", text, meaning, (reader.span[0], len(raw)))


def _sll_protocol(value: int, span: tuple[int, int], reader: Reader, layer: Layer) -> Next:
    special: dict[int, tuple[str, Kind | None]] = {1: ("Novell 802.3", None), 4: ("LLC", "llc")}
    name, kind = special.get(value) or names.ethertype(value)
    layer.add("protocol", f"0x{value:04x}", f"{name} comes next", span)
    return Next(kind, name, reader.position, reader.end)


def null(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """LINKTYPE_NULL: an address family in the byte order of the capturing host, which the family's size tells."""
    raw = reader.take(4, "address family")
    family = min(int.from_bytes(raw, "little"), int.from_bytes(raw, "big"))
    return _family(family, reader, layer)


def loop(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """LINKTYPE_LOOP: the same in network order."""
    return _family(reader.number(4, "address family"), reader, layer)


def _family(value: int, reader: Reader, layer: Layer) -> Next:
    name, kind = names.ADDRESS_FAMILIES.get(value, (f"address family {value}", None))
    layer.add("address family", str(value), f"{name} comes next", reader.span)
    return Next(kind, name, reader.position, reader.end)


def c_hdlc(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """LINKTYPE_C_HDLC: Cisco's framing of serial lines."""
    value = reader.number(1, "address")
    layer.add("address", f"0x{value:02x}", {0x0F: "to one", 0x8F: "to all"}.get(value, ""), reader.span)
    layer.add("control", f"0x{reader.number(1, 'control'):02x}", "", reader.span)
    return _ethertype(reader.number(2, "protocol"), reader, layer)


def raw(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """No link header: the IP version says what it is."""
    version = reader.take(1, "IP version")[0] >> 4
    if version == 4:
        return Next("ipv4", "IPv4", reader.start, reader.end)
    if version == 6:
        return Next("ipv6", "IPv6", reader.start, reader.end)
    raise Malformed(f"IP version {version}")
