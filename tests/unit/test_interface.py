"""Interfaces as an ordinary user finds them; routing tables are files of our own in the kernel's format."""

import errno
import socket
from pathlib import Path

import pytest

from tcptrace.errors import MissingFeatureError, TcptraceError
from tcptrace.sources.live import interface
from tcptrace.sources.live.interface import (
    Interface,
    default_route_name,
    find_interface,
    list_interfaces,
    require_up,
    still_there,
)

LO = Interface("lo", 1, "ethernet", is_loopback=True, is_up=True, mtu_bytes=65536)

ROUTE_HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
IPV6_ANY = "0" * 32


def route4(name: str, *, destination: str = "00000000", mask: str = "00000000", flags: int = 3, metric: int = 0) -> str:
    """A line of /proc/net/route; addresses are in the byte order of the machine."""
    return f"{name}\t{destination}\t010200C0\t{flags:04X}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n"


def route6(name: str, *, destination: str = IPV6_ANY, length: int = 0, flags: int = 3, metric: int = 0) -> str:
    """A line of /proc/net/ipv6_route."""
    hop = "fe80" + "0" * 27 + "1"
    return (
        f"{destination} {length:02x} {IPV6_ANY} 00 {hop} {metric:08x} 00000001 00000000 {flags:08x} {name.rjust(8)}\n"
    )


def set_routes(monkeypatch: pytest.MonkeyPatch, folder: Path, ipv4: list[str], ipv6: list[str]) -> None:
    (folder / "route").write_text(ROUTE_HEADER + "".join(ipv4))
    (folder / "ipv6_route").write_text("".join(ipv6))
    monkeypatch.setattr(interface, "PROC_NET", str(folder))


def set_link_type(monkeypatch: pytest.MonkeyPatch, link_type: int) -> None:
    monkeypatch.setattr(interface, "_link_type", lambda _control, _name: link_type)


# --- The default route


def test_the_default_route_of_ipv4_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    local = route4("eth0", destination="000200C0", mask="00FFFFFF", flags=1)
    set_routes(monkeypatch, tmp_path, [local, route4("wan0", metric=9)], [route6("six0")])
    assert default_route_name() == "wan0"


def test_the_lowest_metric_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_routes(monkeypatch, tmp_path, [route4("wlan0", metric=600), route4("eth0", metric=100)], [])
    assert default_route_name() == "eth0"


def test_half_of_all_addresses_is_no_default_route(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_routes(monkeypatch, tmp_path, [route4("vpn0", mask="00000080"), route4("eth0")], [])
    assert default_route_name() == "eth0"


def test_ipv6_where_ipv4_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    unreachable = route6("lo", flags=0x0020_0201, metric=0xFFFF_FFFF)
    network = route6("eth0", destination="fd" + "0" * 30, length=64)
    gateway = route6("eth1", metric=1024)
    set_routes(monkeypatch, tmp_path, [], [network, unreachable, gateway])
    assert default_route_name() == "eth1"


def test_a_route_that_is_down_or_rejects_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_routes(
        monkeypatch, tmp_path, [route4("eth0", flags=2), route4("eth1", flags=0x201)], [route6("lo", flags=0x201)]
    )
    with pytest.raises(TcptraceError, match=r"no default route, so name an interface \(there are: .*lo"):
        default_route_name()


def test_no_ipv6_in_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(interface, "PROC_NET", str(tmp_path))
    with pytest.raises(TcptraceError, match="no default route"):
        find_interface(None)


def test_the_default_routes_interface_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_routes(monkeypatch, tmp_path, [route4("lo")], [])
    assert find_interface(None).name == "lo"


# --- By name


def test_lo() -> None:
    lo = find_interface("lo")
    assert (lo.name, lo.index, lo.link, lo.is_loopback) == ("lo", socket.if_nametoindex("lo"), "ethernet", True)
    assert lo.mtu_bytes >= 1280


@pytest.mark.parametrize("name", ["no-such-if", "", "longer-than-a-name-can-be", "a\0b"])
def test_no_such_interface(name: str) -> None:
    with pytest.raises(TcptraceError) as caught:
        find_interface(name)
    assert str(caught.value).startswith(f"no such interface: {name} (there are: ")
    assert "lo" in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("link_type", "link"),
    [(1, "ethernet"), (772, "ethernet")] + [(number, "raw") for number in (0xFFFE, 512, 519, 768, 769, 776, 778, 823)],
)
def test_what_a_frame_begins_with(monkeypatch: pytest.MonkeyPatch, link_type: int, link: str) -> None:
    set_link_type(monkeypatch, link_type)
    assert find_interface("lo").link == link


@pytest.mark.parametrize(("link_type", "name"), [(803, "802.11 radiotap monitor"), (280, "CAN"), (4242, "unknown")])
def test_frames_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, link_type: int, name: str) -> None:
    set_link_type(monkeypatch, link_type)
    with pytest.raises(MissingFeatureError, match=rf"{name} \(type {link_type}\)"):
        find_interface("lo")
    assert {one.link for one in list_interfaces()} == {None}


def test_the_list_has_every_interface_and_its_addresses() -> None:
    listed = list_interfaces()
    assert [(one.index, one.name) for one in listed] == socket.if_nameindex()
    (lo,) = [one for one in listed if one.name == "lo"]
    assert (lo.link, lo.type_name) == ("ethernet", "loopback")
    assert not lo.is_up or "127.0.0.1" in lo.addresses


def test_ipv6_addresses_are_written_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "if_inet6").write_text("fd000000000000000000000000000002 01 40 00 80       lo\n")
    monkeypatch.setattr(interface, "PROC_NET", str(tmp_path))
    (lo,) = [one for one in list_interfaces() if one.name == "lo"]
    assert lo.addresses[-1] == "fd00::2"


# --- Still there?


@pytest.mark.parametrize(("flags", "status"), [(0x49, "up"), (0x48, "down")])
def test_up_or_down(monkeypatch: pytest.MonkeyPatch, flags: int, status: str) -> None:
    monkeypatch.setattr(interface, "_flags", lambda _control, _name: flags)
    assert still_there(LO) == status


def test_another_index_is_another_interface() -> None:
    gone = Interface("lo", 987_654_321, "ethernet", is_loopback=True, is_up=True, mtu_bytes=65536)
    assert still_there(gone) == "gone"
    with pytest.raises(TcptraceError, match="interface lo is gone"):
        require_up(gone)


def test_require_up_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "_flags", lambda _control, _name: 0)
    with pytest.raises(TcptraceError, match="interface lo is down; to bring it up: sudo ip link set lo up"):
        require_up(LO)


def test_other_failures_are_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_control: socket.socket, _index: int) -> str:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(interface, "_name", fail)
    with pytest.raises(PermissionError):
        still_there(LO)
