"""A frame's bytes into layers.  No input, no output; whatever the bytes are, it comes to an end."""

from typing import Final

from tcptrace.sinks.layers import ip, ipv6, link, shims, tcp, tunnels
from tcptrace.sinks.layers.names import LINK_TYPES
from tcptrace.sinks.layers.parts import (
    DUMP_BYTES,
    CutOff,
    Dissector,
    Kind,
    Layer,
    Malformed,
    Next,
    Reader,
    Scene,
    Tone,
)

MOST_LAYERS: Final = 32
"""More in one frame is made to be a trap: labels or tunnels without end."""

_PADDED_BYTES: Final = 64
"""Ethernet's least frame, its checksum included."""


def _amount(count: int) -> str:
    return "1 byte" if count == 1 else f"{count:,} bytes"


def _payload(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """What TCP carries."""
    kept = reader.rest()
    layer.dump = kept[:DUMP_BYTES]
    shown = len(layer.dump)
    meaning = f"the first {shown}:" if shown < reader.left else ""
    if len(kept) < reader.left:
        meaning = f"cut off: the capture kept {len(kept):,} of them"
    tone: Tone = "warning" if len(kept) < reader.left else "plain"
    layer.add("length", _amount(reader.left), meaning, (reader.start, reader.left), tone)
    return None


_DISSECTORS: Final[dict[Kind, tuple[str, str, Dissector]]] = {
    "ethernet": ("Ethernet II", "from one machine to the next on a link", link.ethernet),
    "vlan": ("VLAN tag", "keeps networks that share a cable apart", link.vlan),
    "llc": ("LLC", "says what a frame carries", link.llc),
    "sll": ("Linux cooked", "in place of the link's own header", link.sll),
    "sll2": ("Linux cooked v2", "in place of the link's own header", link.sll2),
    "null": ("BSD loopback", "says what follows", link.null),
    "loop": ("OpenBSD loopback", "says what follows", link.loop),
    "c_hdlc": ("Cisco HDLC", "a serial line's framing", link.c_hdlc),
    "raw": ("raw IP", "", link.raw),
    "mpls": ("MPLS label", "a provider's routers go by it", shims.mpls),
    "pppoe": ("PPPoE", "a subscriber's session over Ethernet", shims.pppoe),
    "ppp": ("PPP", "says what follows", shims.ppp),
    "ipv4": ("IPv4", "from host to host across networks", ip.ipv4),
    "ipv6": ("IPv6", "from host to host across networks", ipv6.ipv6),
    "hop_by_hop": ("IPv6 hop-by-hop options", "for every router on the way", ipv6.options),
    "destination_options": ("IPv6 destination options", "for the receiver", ipv6.options),
    "routing": ("IPv6 routing header", "through which nodes it goes", ipv6.routing),
    "ipv6_fragment": ("IPv6 fragment header", "a part of a packet", ipv6.fragment),
    "authentication": ("IPsec AH", "proves who sent it", ipv6.authentication),
    "gre": ("GRE", "a tunnel", tunnels.gre),
    "udp": ("UDP", "from program to program, without a connection", tunnels.udp),
    "vxlan": ("VXLAN", "an Ethernet tunnel", tunnels.vxlan),
    "tcp": ("TCP", "from program to program, a reliable stream of bytes", tcp.tcp),
    "payload": ("payload", "the application's bytes", _payload),
}


def dissect(data: bytes, link_type: int, scene: Scene) -> list[Layer]:
    """The layers of a frame, outermost first.  `data` is what was captured; `link_type` is a LINKTYPE_ number."""
    name, kind = LINK_TYPES.get(link_type, (f"link type {link_type}", None))
    layers: list[Layer] = []
    following: Next | None = Next(kind, name, 0, scene.original_bytes)
    inner_end = scene.original_bytes
    while following is not None:
        if following.start >= following.end and following.kind in (None, "payload"):
            break
        if following.kind is None or len(layers) == MOST_LAYERS:
            layers.append(_not_decoded(following, kind is not None))
            break
        layer, after = _layer(following, following.kind, data, scene)
        if layer.fields:
            layers.append(layer)
        if following.kind in ("ipv4", "ipv6") and after is not None:
            inner_end = min(inner_end, after.end)
        following = after
    _trailer(layers, inner_end, data, scene)
    return layers


def _layer(following: Next, kind: Kind, data: bytes, scene: Scene) -> tuple[Layer, Next | None]:
    name, purpose, dissector = _DISSECTORS[kind]
    layer = Layer(name, purpose, following.start)
    end = max(following.start, min(following.end, scene.original_bytes))
    reader = Reader(data, following.start, end)
    try:
        after = dissector(reader, layer, scene)
    except CutOff:
        kept = f"the capture kept {len(data):,} of {scene.original_bytes:,} bytes"
        layer.add("cut off here", "", kept, (len(data), 0), "warning")
        return layer, None
    except Malformed as problem:
        layer.add("malformed", "", str(problem), reader.span, "bad")
        return layer, None
    return layer, after and after._replace(end=min(after.end, end))


def _not_decoded(following: Next, known: bool) -> Layer:
    layer = Layer(following.name, "", following.start)
    amount = max(0, following.end - following.start)
    why = "not decoded" if known else "not decoded: no TCP is looked for behind this link header"
    if following.kind is not None:
        why = f"not decoded: more than {MOST_LAYERS} layers"
    layer.add("length", _amount(amount), why, (following.start, amount))
    return layer


def _trailer(layers: list[Layer], end: int, data: bytes, scene: Scene) -> None:
    """What the frame has after the IP packet's end."""
    amount = scene.original_bytes - end
    if amount <= 0:
        return
    captured = data[end:]
    layer = Layer("after the packet", "", end)
    fills = scene.original_bytes <= _PADDED_BYTES and len(captured) == amount and not any(captured)
    meaning = "zeros: fill the frame up to its least size" if fills else "padding, or the link's trailer"
    layer.add("length", _amount(amount), meaning, (end, amount))
    layers.append(layer)
