"""Numbers that stand for something in link and IP headers, by the registries' names.

Sources: IANA (ethertypes, protocol numbers, PPP, DSCP), IEEE 802.2, tcpdump.org/linktypes.
"""

from typing import Final

from tcptrace.sinks.layers.parts import Kind

LINK_TYPES: Final[dict[int, tuple[str, Kind | None]]] = {
    0: ("BSD loopback", "null"),
    1: ("Ethernet", "ethernet"),
    6: ("Token Ring", None),
    7: ("ARCNET", None),
    8: ("SLIP", None),
    9: ("PPP", "ppp"),
    10: ("FDDI", None),
    12: ("raw IP", "raw"),
    14: ("raw IP", "raw"),
    50: ("PPP", "ppp"),
    51: ("PPPoE", "pppoe"),
    101: ("raw IP", "raw"),
    104: ("Cisco HDLC", "c_hdlc"),
    105: ("IEEE 802.11", None),
    107: ("Frame Relay", None),
    108: ("OpenBSD loopback", "loop"),
    113: ("Linux cooked", "sll"),
    117: ("OpenBSD pf log", None),
    119: ("IEEE 802.11 with Prism header", None),
    127: ("IEEE 802.11 with radiotap", None),
    129: ("ARCNET (Linux)", None),
    192: ("PPI", None),
    228: ("raw IPv4", "ipv4"),
    229: ("raw IPv6", "ipv6"),
    239: ("NFLOG", None),
    242: ("IP over InfiniBand", None),
    276: ("Linux cooked v2", "sll2"),
}
"""LINKTYPE_ numbers."""

LEAST_ETHERTYPE: Final = 0x0600
"""Below it, the field is IEEE 802.3's length."""

ETHERTYPES: Final[dict[int, tuple[str, Kind | None]]] = {
    0x0800: ("IPv4", "ipv4"),
    0x0806: ("ARP", None),
    0x0842: ("Wake-on-LAN", None),
    0x6558: ("Ethernet", "ethernet"),
    0x8100: ("VLAN tag (802.1Q)", "vlan"),
    0x86DD: ("IPv6", "ipv6"),
    0x8808: ("Ethernet flow control", None),
    0x8809: ("LACP", None),
    0x880B: ("PPP", "ppp"),
    0x8847: ("MPLS", "mpls"),
    0x8848: ("MPLS multicast", "mpls"),
    0x8863: ("PPPoE discovery", None),
    0x8864: ("PPPoE session", "pppoe"),
    0x888E: ("802.1X", None),
    0x88A8: ("VLAN tag (802.1ad)", "vlan"),
    0x88BE: ("ERSPAN", None),
    0x88CC: ("LLDP", None),
    0x88E5: ("MACsec", None),
    0x894F: ("NSH", None),
    0x9100: ("VLAN tag (old QinQ)", "vlan"),
    0x9200: ("VLAN tag (old QinQ)", "vlan"),
}

IP_PROTOCOLS: Final[dict[int, tuple[str, Kind | None]]] = {
    1: ("ICMP", None),
    2: ("IGMP", None),
    4: ("IPv4 (in IP)", "ipv4"),
    6: ("TCP", "tcp"),
    17: ("UDP", "udp"),
    33: ("DCCP", None),
    41: ("IPv6 (in IP)", "ipv6"),
    46: ("RSVP", None),
    47: ("GRE", "gre"),
    50: ("ESP", None),
    51: ("AH", "authentication"),
    58: ("ICMPv6", None),
    59: ("no next header", None),
    88: ("EIGRP", None),
    89: ("OSPF", None),
    97: ("EtherIP", None),
    103: ("PIM", None),
    108: ("IPComp", None),
    112: ("VRRP", None),
    115: ("L2TP", None),
    132: ("SCTP", None),
    135: ("IPv6 mobility", None),
    136: ("UDP-Lite", None),
    137: ("MPLS (in IP)", "mpls"),
    139: ("HIP", None),
    140: ("Shim6", None),
}

IPV6_EXTENSIONS: Final[dict[int, tuple[str, Kind | None]]] = {
    0: ("hop-by-hop options", "hop_by_hop"),
    43: ("routing header", "routing"),
    44: ("fragment header", "ipv6_fragment"),
    60: ("destination options", "destination_options"),
}

PPP_PROTOCOLS: Final[dict[int, tuple[str, Kind | None]]] = {
    0x0021: ("IPv4", "ipv4"),
    0x002D: ("Van Jacobson compressed TCP", None),
    0x003D: ("multilink PPP", None),
    0x0057: ("IPv6", "ipv6"),
    0x00FD: ("compressed PPP", None),
    0x0281: ("MPLS", "mpls"),
    0x8021: ("IPCP", None),
    0x8057: ("IPv6CP", None),
    0x80FD: ("CCP", None),
    0xC021: ("LCP", None),
    0xC023: ("PAP", None),
    0xC223: ("CHAP", None),
}

SAPS: Final = {0x00: "null", 0x06: "IP", 0x42: "spanning tree", 0xAA: "SNAP", 0xE0: "IPX", 0xF0: "NetBIOS", 0xFE: "OSI"}
"""IEEE 802.2 service access points."""

ADDRESS_FAMILIES: Final[dict[int, tuple[str, Kind | None]]] = {
    2: ("IPv4", "ipv4"),
    10: ("IPv6 (Linux)", "ipv6"),
    24: ("IPv6 (NetBSD, OpenBSD)", "ipv6"),
    28: ("IPv6 (FreeBSD)", "ipv6"),
    30: ("IPv6 (macOS)", "ipv6"),
}
"""What a BSD loopback header says; the number depends on the system."""

_CLASSES: Final = {cs << 3: (f"CS{cs}", f"class {cs} of 7") for cs in range(1, 8)}
_ASSURED: Final = {
    af << 3 | drop << 1: (f"AF{af}{drop}", f"assured forwarding, class {af}, drop precedence {drop} of 3")
    for af in range(1, 5)
    for drop in range(1, 4)
}
DSCPS: Final = {
    **_CLASSES,
    **_ASSURED,
    0: ("CS0", "ordinary best-effort traffic"),
    1: ("LE", "lower effort: may wait behind all other traffic"),
    44: ("VA", "voice, admitted"),
    46: ("EF", "expedited forwarding: for voice and the like"),
}
"""Differentiated services code points: RFC 2474, 2597, 3246, 5865, 8622."""

ECNS: Final = (
    ("Not-ECT", "a full queue can only drop it"),
    ("ECT(1)", "may be marked, not dropped (L4S)"),
    ("ECT(0)", "may be marked instead of dropped"),
    ("CE", "marked: a queue on the way is building up"),
)
"""Explicit congestion notification: RFC 3168 section 5, RFC 9331."""


def dscp(value: int) -> tuple[str, str]:
    """A differentiated services code point by name, and what it asks for."""
    name, meaning = DSCPS.get(value, ("", "no standard meaning"))
    return (f"{name} ({value})" if name else str(value)), meaning


def ecn(value: int) -> tuple[str, str]:
    """The two ECN bits by name, and what they say."""
    name, meaning = ECNS[value]
    return f"{name} ({value})", meaning


def ethertype(value: int) -> tuple[str, Kind | None]:
    """Name and dissector of an ethertype."""
    return ETHERTYPES.get(value, (f"ethertype 0x{value:04x}", None))


def ip_protocol(value: int) -> tuple[str, Kind | None]:
    """Name and dissector of IPv4's protocol."""
    return IP_PROTOCOLS.get(value, (f"IP protocol {value}", None))


def next_header(value: int) -> tuple[str, Kind | None]:
    """Name and dissector of IPv6's next header: an extension or a protocol."""
    return IPV6_EXTENSIONS.get(value) or ip_protocol(value)
