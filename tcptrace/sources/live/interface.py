"""Which interface to trace, what its frames begin with, and whether it is still there.

Everything is asked by ioctl (netdevice(7)) or read from /proc/thread-self/net: both follow the calling thread's network
namespace, where /sys shows that of whoever mounted it.  No privileges needed.
"""

import array
import errno
import fcntl
import os
import socket
import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Literal

from tcptrace.errors import MissingFeatureError, TcptraceError

LinkKind = Literal["ethernet", "raw"]
LinkStatus = Literal["up", "down", "gone"]

PROC_NET = "/proc/thread-self/net"

# linux/sockios.h
SIOCGIFNAME = 0x8910
SIOCGIFCONF = 0x8912
SIOCGIFFLAGS = 0x8913
SIOCGIFMTU = 0x8921
SIOCGIFHWADDR = 0x8927
SIOCGIFINDEX = 0x8933

# linux/if.h; a name's 16 bytes include the terminating zero.
NAME_BYTES = 16
IFF_UP = 1 << 0
IFF_LOOPBACK = 1 << 3
# struct ifreq: the name and a union whose largest members are struct sockaddr (16 bytes) and struct ifmap.
IFREQ_BYTES = NAME_BYTES + max(16, struct.calcsize("@LLHBBB0L"))

# linux/route.h, linux/ipv6_route.h
RTF_UP = 1 << 0
RTF_REJECT = 1 << 9

# ARPHRD_*, linux/if_arp.h: what a frame begins with at the TC and XDP hooks.
ETHERNET_TYPES = {
    1: "Ethernet",
    772: "loopback",
}
RAW_TYPES = {
    512: "PPP",
    519: "raw IP",
    768: "IPIP tunnel",
    769: "IPv6 tunnel",
    776: "SIT tunnel",
    778: "GRE tunnel",
    823: "GRE tunnel over IPv6",
    0xFFFE: "no link header",
}
FOREIGN_TYPES = {
    24: "FireWire",
    32: "InfiniBand",
    280: "CAN",
    801: "802.11",
    802: "802.11 monitor",
    803: "802.11 radiotap monitor",
    804: "802.15.4",
    824: "netlink monitor",
    825: "6LoWPAN",
    826: "vsock monitor",
}


@dataclass(frozen=True)
class Interface:
    """An interface that can be traced, as it was when it was looked up; its index is its identity."""

    name: str
    index: int
    link: LinkKind
    is_loopback: bool
    is_up: bool
    mtu_bytes: int


@dataclass(frozen=True)
class ListedInterface:
    """A line of the list of interfaces; `link` is None where tracing is not possible."""

    name: str
    index: int
    link: LinkKind | None
    type_name: str
    is_up: bool
    addresses: tuple[str, ...]


def find_interface(name: str | None) -> Interface:
    """The interface of that name (or alternative name); without a name that of the default route.

    TcptraceError if there is none, MissingFeatureError if its frames are of a kind that cannot be parsed.
    """
    name = default_route_name() if name is None else name
    with _control_socket() as control:
        try:
            index = _number(control, SIOCGIFINDEX, name)
            name = _name(control, index)
            flags = _flags(control, name)
            link_type = _link_type(control, name)
            mtu_bytes = _number(control, SIOCGIFMTU, name)
        except OSError as error:
            raise _not_found(name, error) from error
    link = _link_kind(link_type)
    if link is None:
        kind = _type_name(link_type)
        raise MissingFeatureError(f"{name} is of a kind whose frames tcptrace cannot read: {kind} (type {link_type})")
    return Interface(name, index, link, bool(flags & IFF_LOOPBACK), bool(flags & IFF_UP), mtu_bytes)


def list_interfaces() -> list[ListedInterface]:
    """Every interface of this network namespace, by index."""
    listed = []
    with _control_socket() as control:
        addresses = _addresses(control)
        for index, name in socket.if_nameindex():
            try:
                link_type, flags = _link_type(control, name), _flags(control, name)
            except OSError:
                continue  # removed since
            is_up, kind = bool(flags & IFF_UP), _link_kind(link_type)
            listed.append(ListedInterface(name, index, kind, _type_name(link_type), is_up, tuple(addresses[name])))
    return listed


def interface_addresses() -> dict[str, list[str]]:
    """Name -> addresses of each interface of this network namespace that has any."""
    with _control_socket() as control:
        return dict(_addresses(control))


def still_there(interface: Interface) -> LinkStatus:
    """ "gone" also when another interface has taken the name: programs were attached to the index.

    A few microseconds; a renamed interface is still there.
    """
    with _control_socket() as control:
        try:
            return "up" if _flags(control, _name(control, interface.index)) & IFF_UP else "down"
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENXIO):
                return "gone"
            raise


def require_up(interface: Interface) -> None:
    """TcptraceError, with the command that helps, unless the interface is up now."""
    status = still_there(interface)
    if status == "gone":
        raise TcptraceError(f"interface {interface.name} is gone")
    if status == "down":
        raise TcptraceError(f"interface {interface.name} is down; to bring it up: sudo ip link set {interface.name} up")


def default_route_name() -> str:
    """The interface of the default route: IPv4's, else IPv6's, the lowest metric first.  TcptraceError if none."""
    routes = sorted(_default_routes_ipv4()) or sorted(_default_routes_ipv6())
    if not routes:
        raise TcptraceError(f"there is no default route, so name an interface ({_known_names()})")
    return routes[0][1]


def _default_routes_ipv4() -> Iterator[tuple[int, str]]:
    """(metric, interface) of each; fib_route_seq_show() in net/ipv4/fib_trie.c."""
    for line in _proc_lines("route")[1:]:
        name, destination, _gateway, flags, _references, _uses, metric, mask = line.split()[:8]
        if int(destination, 16) == 0 and int(mask, 16) == 0 and _is_usable(int(flags, 16)):
            yield int(metric), name


def _default_routes_ipv6() -> Iterator[tuple[int, str]]:
    """(metric, interface) of each; rt6_info_route_seq_show() in net/ipv6/route.c."""
    for line in _proc_lines("ipv6_route"):
        destination, length, _source, _source_length, _hop, metric, _references, _uses, flags, name = line.split()
        if int(destination, 16) == 0 and int(length, 16) == 0 and _is_usable(int(flags, 16)):
            yield int(metric, 16), name


def _is_usable(flags: int) -> bool:
    return bool(flags & RTF_UP) and not flags & RTF_REJECT


def _proc_lines(file: str) -> list[str]:
    """Lines of a file of /proc/net; none where the kernel has no such protocol.

    UTF-8, though it is ASCII: the one codec that needs no import, which may be impossible once privileges are dropped.
    """
    try:
        with open(f"{PROC_NET}/{file}", encoding="utf-8") as lines:
            return lines.read().splitlines()
    except FileNotFoundError:
        return []


def _not_found(name: str, error: OSError) -> TcptraceError:
    if error.errno in (errno.ENODEV, errno.ENXIO, errno.ENAMETOOLONG, errno.EINVAL):
        if os.path.isfile(name):
            return TcptraceError(f"no such interface: {name}; that file is read with: tcptrace -f {name}")
        return TcptraceError(f"no such interface: {name} ({_known_names()})")
    return TcptraceError(f"cannot look up interface {name}: {error.strerror}")


def _known_names() -> str:
    return f"there are: {', '.join(name for _, name in socket.if_nameindex())}"


def _link_kind(link_type: int) -> LinkKind | None:
    if link_type in ETHERNET_TYPES:
        return "ethernet"
    return "raw" if link_type in RAW_TYPES else None


def _type_name(link_type: int) -> str:
    return (ETHERNET_TYPES | RAW_TYPES | FOREIGN_TYPES).get(link_type, "unknown")


@contextmanager
def _control_socket() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        yield control


def _ask(control: socket.socket, request: int, name: str) -> bytes:
    """What the kernel puts into the union of struct ifreq; OSError, ENAMETOOLONG for what can be no name."""
    encoded = os.fsencode(name)
    if not 0 < len(encoded) < NAME_BYTES or b"\0" in encoded:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return fcntl.ioctl(control, request, encoded.ljust(IFREQ_BYTES, b"\0"))[NAME_BYTES:]


def _number(control: socket.socket, request: int, name: str) -> int:
    return int(struct.unpack_from("@i", _ask(control, request, name))[0])


def _flags(control: socket.socket, name: str) -> int:
    return int(struct.unpack_from("@H", _ask(control, SIOCGIFFLAGS, name))[0])


def _link_type(control: socket.socket, name: str) -> int:
    """ARPHRD_*, which is the hardware address's family."""
    return int(struct.unpack_from("@H", _ask(control, SIOCGIFHWADDR, name))[0])


def _name(control: socket.socket, index: int) -> str:
    request = bytearray(IFREQ_BYTES)
    struct.pack_into("@i", request, NAME_BYTES, index)
    return os.fsdecode(fcntl.ioctl(control, SIOCGIFNAME, bytes(request))[:NAME_BYTES].split(b"\0")[0])


def _addresses(control: socket.socket) -> defaultdict[str, list[str]]:
    """Interface name -> its addresses, IPv4 (SIOCGIFCONF) before IPv6 (/proc/net/if_inet6)."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    entries = _ipv4_entries(control)
    for start in range(0, len(entries), IFREQ_BYTES):
        label = os.fsdecode(entries[start : start + NAME_BYTES].split(b"\0")[0])
        address = entries[start + NAME_BYTES + 4 : start + NAME_BYTES + 8]  # struct sockaddr_in's sin_addr
        found[label.split(":")[0]].append(socket.inet_ntoa(address))
    for line in _proc_lines("if_inet6"):
        digits, *_, name = line.split()
        found[name].append(str(IPv6Address(int(digits, 16))))
    return found


def _ipv4_entries(control: socket.socket) -> bytes:
    """The array of struct ifreq that SIOCGIFCONF fills, whole: a full buffer may be a cut one."""
    size = 64 * IFREQ_BYTES
    while True:
        buffer = array.array("B", bytes(size))
        answer = fcntl.ioctl(control, SIOCGIFCONF, struct.pack("@iP", size, buffer.buffer_info()[0]))
        used = struct.unpack_from("@i", answer)[0]
        if used < size:
            return buffer.tobytes()[:used]
        size *= 2


def description(name: str) -> str | None:
    """What the administrator calls the interface (`ip link set … alias`), else its driver; None if neither.

    None, too, where /sys shows another network namespace's interfaces.
    """
    folder = f"/sys/class/net/{name}"
    if not _is_same_in_sys(folder, name):
        return None
    with suppress(OSError), open(f"{folder}/ifalias", encoding="utf-8", errors="replace") as alias:
        if text := alias.read().strip():
            return text
    driver = os.path.basename(os.path.realpath(f"{folder}/device/driver"))
    return None if driver == "driver" else driver


def _is_same_in_sys(folder: str, name: str) -> bool:
    """By its number and hardware address, which another namespace's of the same name has not both."""
    try:
        with _control_socket() as control, open(f"{folder}/ifindex") as index, open(f"{folder}/address") as address:
            octets = bytes.fromhex(address.read().strip().replace(":", ""))
            hardware = _ask(control, SIOCGIFHWADDR, name)[2:]
            return int(index.read()) == _number(control, SIOCGIFINDEX, name) and hardware.startswith(octets)
    except (OSError, ValueError):
        return False
