"""The sockets that were open before the trace began: those whose packets are to be expected on an interface.

Which interface a socket's packets go over is a matter of routing, which may depend on anything (ip-rule(8)) and change
with each packet.  Addresses are taken for it here, so what is shown may be wrong until the first packet comes, and of
an interface without addresses nothing is shown until then.
"""

import socket
import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.sources.live.containers import Cgroups
from tcptrace.sources.live.interface import Interface, interface_addresses
from tcptrace.sources.live.offline_filter import matching
from tcptrace.sources.live.pcap_filter import DLT_EN10MB, DLT_RAW, compile_classic
from tcptrace.sources.live.sock_diag import LISTEN, Sockets
from tcptrace.sources.live.socket_owners import set_owners

ETHERNET_HEADER_BYTES: Final = 14
IPV4_HEADER_BYTES: Final = 20
IPV6_HEADER_BYTES: Final = 40
TCP_HEADER_BYTES: Final = 20
FRAME_BYTES: Final = ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES + TCP_HEADER_BYTES

_INSTRUCTION: Final = struct.Struct("=HBBI")
_MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"
# RFC 9293 section 3.1: data offset 5, ACK.
_OFFSET_AND_FLAGS: Final = (5 << 4, 0x10)


def find_open_sockets(
    every: Sockets, cgroups: Cgroups, interface: Interface, expression: str | None
) -> npt.NDArray[Any]:
    """SOCKET_RECORDs, event FOUND, of those sockets that select() chooses, with owner and cgroup.

    To be called as root: an ordinary user sees the owners of its own sockets only.  Raises as select() does.
    """
    chosen = select(every, interface, expression)
    set_owners(chosen)
    _set_cgroups(chosen.records["view"], cgroups)
    return chosen.records


def select(sockets: Sockets, interface: Interface, expression: str | None) -> Sockets:
    """Those that the interface should see packets of, and that the filter expression lets through.

    Over lo goes what has an address of this host at its other end.  Over another interface goes what has one of that
    interface's addresses at this end, or is bound to it, and no address of this host at the other.  A filter is asked
    about an ACK in each direction without VLAN tags and MAC addresses, and one of the two must pass.  Raises as
    pcap_filter.compile_classic() does.
    """
    views, keys = sockets.records["view"], sockets.records["key"]
    found = (views["state"] != LISTEN) & (keys["remote_port"] != 0) & is_expected(sockets, interface)
    chosen = sockets.part(found)
    if expression is None or not expression.strip():
        return chosen
    return chosen.part(passes(chosen.records["key"], expression, ethernet=interface.link == "ethernet"))


def is_expected(sockets: Sockets, interface: Interface) -> npt.NDArray[Any]:
    """Whether packets of each socket should go over the interface, by the addresses that there are now."""
    addresses = {name: set(map(_packed, texts)) for name, texts in interface_addresses().items()}
    own = set().union(*addresses.values())
    keys = sockets.records["key"]
    remote_is_own = np.array([one in own or _is_loopback(one) for one in _addresses(keys["remote_addr"])], np.bool_)
    if interface.is_loopback:
        return remote_is_own
    here = addresses.get(interface.name, set())
    local = _addresses(keys["local_addr"])
    # A link-local address may be that of several interfaces; its socket is bound to one (RFC 4007).
    local_is_here = np.array([one in here and not _is_link_local(one) for one in local], np.bool_)
    is_bound_here: npt.NDArray[Any] = sockets.interfaces == interface.index
    expected: npt.NDArray[Any] = (local_is_here | is_bound_here) & ~remote_is_own
    return expected


def passes(keys: npt.NDArray[Any], expression: str, *, ethernet: bool) -> npt.NDArray[Any]:
    """Whether an ACK of each SOCKET_KEY passes the filter, there or back."""
    program = b"".join(
        _INSTRUCTION.pack(*instruction)
        for instruction in compile_classic(expression, DLT_EN10MB if ethernet else DLT_RAW)
    )
    passed = np.zeros(len(keys), np.bool_)
    for source, destination in (("local", "remote"), ("remote", "local")):
        frames, lengths = acknowledgments(keys, source, destination, ethernet=ethernet)
        passed |= matching(program, frames, lengths)
    return passed


def acknowledgments(
    keys: npt.NDArray[Any], source: str, destination: str, *, ethernet: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """(frames, lengths): an ACK of each SOCKET_KEY between its ends "local" and "remote", a row each.

    Ethernet or raw IP, RFC 791, RFC 8200, RFC 9293; what is not known (MAC addresses, checksums) is 0.
    """
    frames = np.zeros((len(keys), FRAME_BYTES), np.uint8)
    is_ipv4 = keys["ip_version"] == 4
    link_bytes = ETHERNET_HEADER_BYTES if ethernet else 0
    lengths = link_bytes + np.where(is_ipv4, IPV4_HEADER_BYTES, IPV6_HEADER_BYTES) + TCP_HEADER_BYTES
    for chosen, ethertype, header in ((is_ipv4, 0x0800, _ipv4_header()), (~is_ipv4, 0x86DD, _ipv6_header())):
        ends = keys[chosen]
        rows = np.zeros((len(ends), FRAME_BYTES), np.uint8)
        if ethernet:
            rows[:, 12:14] = (ethertype >> 8, ethertype & 0xFF)
        at = link_bytes
        rows[:, at : at + len(header)] = np.frombuffer(header, np.uint8)
        at += len(header)
        address_bytes = 4 if ethertype == 0x0800 else 16
        for end in (source, destination):
            rows[:, at : at + address_bytes] = ends[f"{end}_addr"][:, 16 - address_bytes :]
            at += address_bytes
        for end in (source, destination):
            rows[:, at : at + 2] = ends[f"{end}_port"].astype(">u2").view(np.uint8).reshape(-1, 2)
            at += 2
        rows[:, at + 8 : at + 10] = _OFFSET_AND_FLAGS
        frames[chosen] = rows
    return frames, lengths.astype(np.uint32)


def _ipv4_header() -> bytes:
    """Up to the addresses."""
    length = IPV4_HEADER_BYTES + TCP_HEADER_BYTES
    return struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0, 64, socket.IPPROTO_TCP, 0)


def _ipv6_header() -> bytes:
    """Up to the addresses."""
    return struct.pack(">IHBB", 6 << 28, TCP_HEADER_BYTES, socket.IPPROTO_TCP, 64)


def _set_cgroups(views: npt.NDArray[Any], cgroups: Cgroups) -> None:
    """From their owners, where the kernel did not say (before Linux 5.9)."""
    unknown = np.flatnonzero((views["cgroup_id"] < 0) & (views["pid"] > 0))
    of_process = {pid: cgroups.of_process(pid) for pid in set(views["pid"][unknown].tolist())}
    for index in unknown:
        views["cgroup_id"][index] = of_process[int(views["pid"][index])]


def _addresses(column: npt.NDArray[Any]) -> list[bytes]:
    joined = np.ascontiguousarray(column).tobytes()
    return [joined[start : start + 16] for start in range(0, len(joined), 16)]


def _packed(text: str) -> bytes:
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return _MAPPED_PREFIX + socket.inet_aton(text)


def _is_loopback(address: bytes) -> bool:
    """All of 127.0.0.0/8 is this host (RFC 1122 section 3.2.1.3); ::1 is one of lo's addresses."""
    return address.startswith(_MAPPED_PREFIX) and address[12] == 127


def _is_link_local(address: bytes) -> bool:
    """fe80::/10, RFC 4291 section 2.5.6."""
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80
