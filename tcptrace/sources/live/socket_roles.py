"""Which of a network namespace's sockets were accepted and which connected: nothing in the kernel says so itself."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.records import ROLE_ACTIVE, ROLE_PASSIVE, ROLE_UNKNOWN
from tcptrace.sources.live.sock_diag import Sockets

# include/net/tcp_states.h
ESTABLISHED: Final = 1
SYN_SENT: Final = 2
SYN_RECV: Final = 3
FIN_WAIT2: Final = 5
CLOSE_WAIT: Final = 8
LISTEN: Final = 10

AF_INET: Final = 2
AF_INET6: Final = 10

MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"
ANY_IPV4: Final = MAPPED_PREFIX + bytes(4)
ANY_IPV6: Final = bytes(16)
LOOPBACK_IPV6: Final = bytes(15) + b"\1"

_End = tuple[bytes, int]
"""Address and port."""


def find_roles(sockets: Sockets) -> npt.NDArray[Any]:
    """records.ROLE_… of each socket of a whole dump, u1; of listening ones UNKNOWN.

    By the first of these that says something:

    - its state: SYN-SENT connects, SYN-RECV is being accepted
    - its acknowledged bytes, where all that was sent is acknowledged: the SYN counts as one of who connected
      (tcp_snd_una_update() in net/ipv4/tcp_input.c) and does not of who accepted
    - the other end, where that is in the dump, too: it is the other one
    - who listens: a socket whose own end is listened on was accepted.  Where the other end is on this host and is
      listened on, too, or where both ends are in the dump and nobody listens any more, it is UNKNOWN.
    """
    records = sockets.records
    roles = roles_by_numbers(records["view"])
    if not (todo := np.flatnonzero((roles == ROLE_UNKNOWN) & (records["view"]["state"] != LISTEN))).size:
        return roles
    listeners = _Listeners(sockets)
    ends = _ends(records["key"])
    position = {pair: index for index, pair in enumerate(ends)}
    for index in todo:
        local, remote = ends[index]
        peer = position.get((remote, local))
        if peer is not None and peer != index and (other := int(roles[peer])) != ROLE_UNKNOWN:
            roles[index] = ROLE_ACTIVE + ROLE_PASSIVE - other
            continue
        is_version_4 = records["key"]["ip_version"][index] == 4
        is_listened = listeners.has(local, is_version_4)
        is_here = peer is not None or _is_same_host(local, remote)
        if is_here and listeners.has(remote, is_version_4):
            roles[index] = ROLE_UNKNOWN if is_listened else ROLE_ACTIVE
        elif is_listened:
            roles[index] = ROLE_PASSIVE
        elif peer is None:
            roles[index] = ROLE_ACTIVE
    return roles


def roles_by_numbers(views: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What state and byte counts of SOCKET_VIEWs say of the role, u1."""
    roles = np.full(len(views), ROLE_UNKNOWN, np.uint8)
    state = views["state"]
    # Neither a FIN nor data under way; in FIN-WAIT-2 the own FIN is acknowledged, and counts as one, too.
    known = (views["bytes_acked"] >= 0) & (views["bytes_sent"] >= 0) & (views["bytes_retransmitted"] >= 0)
    extra = views["bytes_acked"] - (views["bytes_sent"] - views["bytes_retransmitted"]) - (state == FIN_WAIT2)
    known &= (views["in_flight_packets"] == 0) & (views["lost_packets"] == 0) & (views["sacked_packets"] == 0)
    known &= (state == ESTABLISHED) | (state == CLOSE_WAIT) | (state == FIN_WAIT2)
    roles[known & (extra == 1)] = ROLE_ACTIVE
    roles[known & (extra == 0)] = ROLE_PASSIVE
    roles[state == SYN_SENT] = ROLE_ACTIVE
    roles[state == SYN_RECV] = ROLE_PASSIVE
    return roles


class _Listeners:
    """What is listened on, by the kernel's rules of what a wildcard takes."""

    def __init__(self, sockets: Sockets) -> None:
        chosen = sockets.part(sockets.records["view"]["state"] == LISTEN)
        self._exact: set[_End] = set()
        self._any_ipv4: set[int] = set()
        self._any_ipv6: set[int] = set()
        ends = _ends(chosen.records["key"])
        for ((address, port), _), family, ipv6_only in zip(ends, chosen.families, chosen.ipv6_only, strict=True):
            if address == ANY_IPV6 and family == AF_INET6:
                self._any_ipv6.add(port)
                if not ipv6_only:
                    self._any_ipv4.add(port)
            elif address == ANY_IPV4:
                self._any_ipv4.add(port)
            else:
                self._exact.add((address, port))

    def has(self, end: _End, is_version_4: bool) -> bool:
        return end in self._exact or end[1] in (self._any_ipv4 if is_version_4 else self._any_ipv6)


def _ends(keys: npt.NDArray[Any]) -> list[tuple[_End, _End]]:
    """(local, remote) of each SOCKET_KEY."""
    columns = []
    for end in ("local", "remote"):
        addresses = np.ascontiguousarray(keys[f"{end}_addr"]).tobytes()
        ports = keys[f"{end}_port"].tolist()
        columns.append([(addresses[16 * i : 16 * i + 16], port) for i, port in enumerate(ports)])
    return list(zip(*columns, strict=True))


def _is_same_host(local: _End, remote: _End) -> bool:
    """As far as the addresses alone tell: the same, or loopback (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3)."""
    address = remote[0]
    return address in (local[0], LOOPBACK_IPV6) or (address.startswith(MAPPED_PREFIX) and address[12] == 127)
