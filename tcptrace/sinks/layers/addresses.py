"""What an address says about itself."""

import ipaddress
from functools import lru_cache
from typing import Final

from tcptrace.sinks import human

_IPV4: Final = tuple(
    (ipaddress.IPv4Network(network), meaning)
    for network, meaning in (
        ("0.0.0.0/32", "unspecified: a host that has no address yet"),
        ("0.0.0.0/8", "this network (RFC 1122)"),
        ("10.0.0.0/8", "private (RFC 1918)"),
        ("100.64.0.0/10", "shared: behind a provider's NAT (RFC 6598)"),
        ("127.0.0.0/8", "loopback: this host itself"),
        ("169.254.0.0/16", "link-local: made up without a server (RFC 3927)"),
        ("172.16.0.0/12", "private (RFC 1918)"),
        ("192.0.2.0/24", "for documentation (RFC 5737)"),
        ("192.168.0.0/16", "private (RFC 1918)"),
        ("198.18.0.0/15", "for benchmarks (RFC 2544)"),
        ("198.51.100.0/24", "for documentation (RFC 5737)"),
        ("203.0.113.0/24", "for documentation (RFC 5737)"),
        ("224.0.0.0/4", "multicast: a group of hosts"),
        ("255.255.255.255/32", "broadcast: all hosts of the link"),
        ("240.0.0.0/4", "reserved (RFC 1112)"),
        ("0.0.0.0/0", "public"),
    )
)
"""The first that an address is in counts."""

_IPV6: Final = tuple(
    (ipaddress.IPv6Network(network), meaning)
    for network, meaning in (
        ("::/128", "unspecified: a host that has no address yet"),
        ("::1/128", "loopback: this host itself"),
        ("::ffff:0:0/96", "an IPv4 address in IPv6 form"),
        ("64:ff9b::/96", "an IPv4 address behind NAT64 (RFC 6052)"),
        ("2001::/32", "Teredo tunnel (RFC 4380)"),
        ("2001:db8::/32", "for documentation (RFC 3849)"),
        ("3fff::/20", "for documentation (RFC 9637)"),
        ("2002::/16", "6to4 tunnel (RFC 3056)"),
        ("2000::/3", "public (global unicast)"),
        ("fc00::/7", "unique local: private (RFC 4193)"),
        ("fe80::/10", "link-local: valid on this link only"),
        ("ff00::/8", "multicast: a group of hosts"),
        ("::/0", "reserved"),
    )
)

_GROUP: Final = 0x01
"""Bit of a MAC address's first byte, IEEE 802: for a group, not for one card."""
_LOCAL: Final = 0x02
"""Bit of a MAC address's first byte, IEEE 802: not given by the maker."""


@lru_cache(maxsize=4096)
def ip(raw: bytes) -> tuple[str, str]:
    """An address of 4 or 16 bytes as text, and what kind it is."""
    if len(raw) == 4:
        four = ipaddress.IPv4Address(raw)
        return human.address(bytes(12) + raw, 4), next(meaning for network, meaning in _IPV4 if four in network)
    six = ipaddress.IPv6Address(raw)
    return human.address(raw, 6), next(meaning for network, meaning in _IPV6 if six in network)


@lru_cache(maxsize=4096)
def mac(raw: bytes) -> tuple[str, str]:
    """A MAC address of six bytes as text, and what kind it is; another length as plain bytes."""
    return human.mac(raw), _mac_kind(raw)


def _mac_kind(raw: bytes) -> str:
    if len(raw) != 6:
        return ""
    if raw == b"\xff" * 6:
        return "broadcast: all on this link"
    if not any(raw):
        return "none: no network card takes part"
    if raw.startswith(b"\x01\x00\x5e"):
        return "multicast: an IPv4 group"
    if raw.startswith(b"\x33\x33"):
        return "multicast: an IPv6 group"
    if raw[0] & _GROUP:
        return "multicast: a group on this link"
    if raw[0] & _LOCAL:
        return "locally administered: set by software, not by the card's maker"
    return "one network card, numbered by its maker"
