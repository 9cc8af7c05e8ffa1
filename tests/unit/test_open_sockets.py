"""Which of the open sockets belong to an interface and pass a filter, of sockets made by hand."""

import numpy as np
import pytest

from tcptrace.errors import UsageError
from tcptrace.sources.live import open_sockets
from tcptrace.sources.live.inet_diag import parse
from tcptrace.sources.live.interface import Interface
from tcptrace.sources.live.open_sockets import acknowledgments, passes, select
from tcptrace.sources.live.sock_diag import Sockets

from .diag_bytes import found

LO = Interface("lo", 1, "ethernet", is_loopback=True, is_up=True, mtu_bytes=65536)
ETH = Interface("eth0", 2, "ethernet", is_loopback=False, is_up=True, mtu_bytes=1500)
TUN = Interface("tun0", 3, "raw", is_loopback=False, is_up=True, mtu_bytes=1500)
BARE = Interface("eth9", 9, "ethernet", is_loopback=False, is_up=True, mtu_bytes=1500)
ADDRESSES = {
    "lo": ["127.0.0.1", "::1"],
    "eth0": ["192.0.2.1", "2001:db8::1", "fe80::1"],
    "tun0": ["10.8.0.2", "fe80::1"],
}


@pytest.fixture(autouse=True)
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_sockets, "interface_addresses", lambda: ADDRESSES)


def sockets_of(*messages: bytes) -> Sockets:
    records, rows = parse(b"".join(messages), 1, 1)
    return Sockets(records, rows["inode"], rows["interface"], rows["family"], rows["ipv6_only"])


EVERY = {
    "eth": found(("192.0.2.1", 1001), ("198.51.100.7", 443)),
    "eth6": found(("2001:db8::1", 1002), ("2001:db8::99", 443)),
    "eth mapped": found(("::ffff:192.0.2.1", 1003), ("::ffff:198.51.100.7", 443)),
    "eth link-local": found(("fe80::1", 1004), ("fe80::99", 443), interface=2),
    "tun link-local": found(("fe80::1", 1005), ("fe80::99", 443), interface=3),
    "tun": found(("10.8.0.2", 1006), ("10.8.0.1", 443)),
    "bound": found(("203.0.113.5", 1007), ("198.51.100.7", 443), interface=9),
    "lo": found(("127.0.0.1", 1008), ("127.0.0.1", 443)),
    "lo 127.9": found(("127.0.0.1", 1009), ("127.9.9.9", 443)),
    "lo6": found(("::1", 1010), ("::1", 443)),
    "lo by another address": found(("192.0.2.1", 1011), ("192.0.2.1", 443)),
    "lo from tun to eth": found(("10.8.0.2", 1012), ("192.0.2.1", 443)),
    "elsewhere": found(("203.0.113.5", 1013), ("198.51.100.7", 443)),
    "listening": found(("192.0.2.1", 1014), ("0.0.0.0", 0), state=10),
    "not connected": found(("192.0.2.1", 1015), ("0.0.0.0", 0), state=7),
    "time-wait": found(("192.0.2.1", 1016), ("198.51.100.7", 443), state=6),
}


@pytest.mark.parametrize(
    ("interface", "names"),
    [
        (ETH, {"eth", "eth6", "eth mapped", "eth link-local", "time-wait"}),
        (TUN, {"tun", "tun link-local"}),
        (LO, {"lo", "lo 127.9", "lo6", "lo by another address", "lo from tun to eth"}),
        (BARE, {"bound"}),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_by_addresses(interface: Interface, names: set[str]) -> None:
    sockets = sockets_of(*EVERY.values())
    chosen = select(sockets, interface, None)
    ports = dict(zip(sockets.records["key"]["local_port"].tolist(), EVERY, strict=True))
    assert {ports[port] for port in chosen.records["key"]["local_port"].tolist()} == names


def test_nothing_is_open() -> None:
    for expression in (None, "port 1"):
        assert len(select(sockets_of(), ETH, expression).records) == 0


@pytest.mark.parametrize("ethernet", [True, False])
@pytest.mark.parametrize(
    ("expression", "matched"),
    [
        ("port 443", [True, True, False]),
        ("dst port 443", [True, True, False]),
        ("src port 443", [True, True, False]),
        ("port 80", [False, False, True]),
        ("host 198.51.100.7", [True, False, True]),
        ("ip6", [False, True, False]),
        ("net 2001:db8::/32 and tcp", [False, True, False]),
        ("udp", [False, False, False]),
        ("tcp[tcpflags] & tcp-ack != 0", [True, False, True]),
        ("src host 192.0.2.1 and dst port 80", [False, False, True]),
        ("not port 443", [False, False, True]),
    ],
)
def test_the_filter(expression: str, matched: list[bool], ethernet: bool) -> None:
    keys = sockets_of(
        EVERY["eth"], EVERY["eth6"], found(("::ffff:192.0.2.1", 50_000), ("::ffff:198.51.100.7", 80))
    ).records["key"]
    assert passes(keys, expression, ethernet=ethernet).tolist() == matched


def test_no_tags_are_expected() -> None:
    keys = sockets_of(EVERY["eth"]).records["key"]
    assert passes(keys, "vlan", ethernet=True).tolist() == [False]


def test_a_filter_that_is_none() -> None:
    with pytest.raises(UsageError, match="filter: "):
        select(sockets_of(*EVERY.values()), ETH, "port port")


def test_the_frames_are_acknowledgments() -> None:
    keys = sockets_of(EVERY["eth"], EVERY["eth6"]).records["key"]
    frames, lengths = acknowledgments(keys, "remote", "local", ethernet=True)
    assert lengths.tolist() == [54, 74]
    ipv4 = bytes(frames[0, :54])
    assert ipv4[12:14] == b"\x08\0"
    assert ipv4[26:38] == bytes([198, 51, 100, 7, 192, 0, 2, 1]) + (443).to_bytes(2) + (1001).to_bytes(2)
    assert ipv4[46:48] == b"\x50\x10"
    assert not np.any(frames[0, 54:])
    ipv6 = bytes(frames[1])
    assert (ipv6[12:14], ipv6[14] >> 4, ipv6[20]) == (b"\x86\xdd", 6, 6)
    assert ipv6[54:58] == (443).to_bytes(2) + (1002).to_bytes(2)
