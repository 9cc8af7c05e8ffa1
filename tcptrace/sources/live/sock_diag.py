"""Asking the kernel for TCP sockets, all of them or some, by sock_diag(7); needs no privileges.

pyroute2's DiagSocket took 2.2 s for 10,000 sockets, which is longer than they may take to appear; this takes 0.04 s.
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.errors import MissingFeatureError, TcptraceError
from tcptrace.records import SOCKET_RECORD
from tcptrace.sources.live import network_namespace
from tcptrace.sources.live.inet_diag import parse, receive_waiting

# linux/netlink.h
NETLINK_SOCK_DIAG: Final = 4
SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 0x01
NLM_F_DUMP: Final = 0x300
NLM_F_DUMP_INTR: Final = 0x10

# linux/sock_diag.h, linux/inet_diag.h
SOCK_DIAG_BY_FAMILY: Final = 20
EXTENSIONS: Final = 1 << (2 - 1) | 1 << (4 - 1)
"""INET_DIAG_INFO and INET_DIAG_CONG; INET_DIAG_CGROUP_ID comes by itself, from Linux 5.9 on."""
NO_COOKIE: Final = 0xFFFF_FFFF

# include/net/tcp_states.h: a bit for each state from ESTABLISHED (1) to CLOSING (11).  SYN-RECV asks for requests too.
ALL_STATES: Final = 0xFFE
LISTEN: Final = 10

# asm-generic/socket.h
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33

# One answer in the receive buffer: 4 KiB at the most on kernels up to 6.18, and as much again for later ones.
ANSWER_MEMORY_BYTES: Final = 8192
# So many that the sendmsg itself no longer counts; they need 2 MiB of buffer, and fewer are asked at once without.
MAX_REQUESTS: Final = 256
# The kernel makes a dump's datagrams as large as 32 KiB where the reader has room for them (net/netlink/af_netlink.c).
DATAGRAM_BYTES: Final = 1 << 16
# A dump is made while it is read, so that only a kernel that has gone wrong lets anybody wait.
ANSWER_TIMEOUT_S: Final = 5.0
# A dump that the kernel says was disturbed is repeated this often; then it is taken as it is.
DUMP_ATTEMPTS: Final = 3

REQUEST: Final = np.dtype(
    [
        ("length", "u4"),
        ("type", "u2"),
        ("flags", "u2"),
        ("seq", "u4"),
        ("port_id", "u4"),
        ("family", "u1"),
        ("protocol", "u1"),
        ("extensions", "u1"),
        ("unused", "u1"),
        ("states", "u4"),
        ("local_port", ">u2"),
        ("remote_port", ">u2"),
        ("local_addr", "u1", 16),
        ("remote_addr", "u1", 16),
        ("interface", "u4"),
        ("cookie", "u4", 2),
    ]
)
"""struct nlmsghdr and struct inet_diag_req_v2."""


@dataclass(frozen=True)
class Sockets:
    """Sockets as they were found; index i of each array is one of them."""

    records: npt.NDArray[Any]  # SOCKET_RECORD
    inodes: npt.NDArray[Any]  # u4: of the socket's file; 0 where it has none (TIME-WAIT, closed by its process)
    interfaces: npt.NDArray[Any]  # u4: index of the interface it is bound to (link-local addresses, too); 0: none
    families: npt.NDArray[Any]  # u1: AF_INET, or AF_INET6 also for mapped addresses
    ipv6_only: npt.NDArray[Any]  # u1: of a listening IPv6 socket, that it takes no IPv4 (IPV6_V6ONLY)

    def part(self, chosen: npt.NDArray[Any]) -> "Sockets":
        """Those where `chosen`, a bool each, is true."""
        return Sockets(
            self.records[chosen],
            self.inodes[chosen],
            self.interfaces[chosen],
            self.families[chosen],
            self.ipv6_only[chosen],
        )


class SocketDiag:
    """The TCP sockets of the network namespace that the calling thread is in when this is made.

    Made while there are privileges it has a larger buffer, and so is faster; what it says is the same.  Not for two
    threads at once.  MissingFeatureError where the kernel does not have it.
    """

    def __init__(self) -> None:
        self.netns = network_namespace.inode()
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        except OSError as error:
            raise _missing(error) from error
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        with suppress(OSError):  # an error then repeats the request, which is only longer
            self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        # The kernel doubles what is asked for, and counts in doubles.
        for force, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            wanted = MAX_REQUESTS * ANSWER_MEMORY_BYTES // 2
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, force, wanted)
            except OSError:
                self._socket.setsockopt(socket.SOL_SOCKET, plain, wanted)
        room = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._requests = max(1, min(MAX_REQUESTS, room // ANSWER_MEMORY_BYTES))
        self._buffer = bytearray(16 * DATAGRAM_BYTES)
        self._seq = 0

    def dump(self, time_ns: int) -> Sockets:
        """Every TCP socket of the namespace, listening ones too; `time_ns` (CLOCK_MONOTONIC) is when.

        A socket that changes its state meanwhile may be there twice or not at all.  MissingFeatureError where the
        kernel cannot tell or does not let us, TcptraceError if what it says makes no sense.
        """
        found = [self._dump_family(socket.AF_INET, time_ns)]
        with suppress(MissingFeatureError):  # a kernel without IPv6
            found.append(self._dump_family(socket.AF_INET6, time_ns))
        records, messages = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return Sockets(records, messages["inode"], messages["interface"], messages["family"], messages["ipv6_only"])

    def ask(
        self, keys: npt.NDArray[Any], time_ns: int, interface_index: int = 0
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(records, found): of the sockets `keys` (SOCKET_KEY, of this namespace) those that are there, at `time_ns`.

        A socket that is bound to an interface, as those with link-local addresses are, is only found by the index of
        that; give the one that is traced.  Those that are not bound are found with any, and with 0.

        `found` has a bool for each key, and records (SOCKET_RECORD) are of those that are true, in their order.  Role
        and pid are not known here.  That no inet_diag module is there is only known from dump(): here it looks as if
        no socket were.  Raises as dump() does.
        """
        answers = np.zeros(len(keys), SOCKET_RECORD)
        found = np.zeros(len(keys), np.bool_)
        start = 0
        while start < len(keys):
            stop = min(start + self._requests, len(keys))
            try:
                self._ask_some(keys[start:stop], answers[start:stop], found[start:stop], time_ns, interface_index)
            except OSError as error:
                if error.errno != errno.ENOBUFS or self._requests == 1:
                    raise _failed(error) from error
                # Answers are larger than they ever were: the same ones again, fewer at once.
                self._requests //= 2
                self._discard_waiting()
                continue
            start = stop
        return answers[found], found

    def close(self) -> None:
        """May be called twice."""
        self._socket.close()

    def _ask_some(
        self,
        keys: npt.NDArray[Any],
        answers: npt.NDArray[Any],
        found: npt.NDArray[Any],
        time_ns: int,
        interface_index: int,
    ) -> None:
        """One sendmsg, which returns when the kernel has put all answers into the receive buffer.

        OSError, ENOBUFS if an answer is missing.
        """
        first = self._next_seq(len(keys))
        self._socket.send(requests_for(keys, first, interface_index).tobytes())
        missing = len(keys)
        while missing:
            used = receive_waiting(self._socket.fileno(), self._buffer, DATAGRAM_BYTES)
            if not used:
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
            records, messages = self._parse(used, time_ns)
            # Answers to requests before these may still have been there, after an error.
            ours = messages["seq"] - np.uint32(first) < len(keys)
            missing -= int(np.count_nonzero(ours))
            errors = set(messages["error"][ours].tolist()) - {0, errno.ENOENT}
            for number in errors:
                # What the kernel could not deliver it calls EAGAIN.
                raise OSError(errno.ENOBUFS if number == errno.EAGAIN else number, os.strerror(number))
            ours &= messages["type"] == SOCK_DIAG_BY_FAMILY
            places = (messages["seq"] - np.uint32(first))[ours]
            records = records[ours]
            # Where there is no such connection the kernel goes on to look for one that listens.
            is_same = _same_ends(records["key"], keys[places])
            answers[places[is_same]] = records[is_same]
            found[places[is_same]] = True

    def _discard_waiting(self) -> None:
        """Until its buffer is empty an overrun socket gets nothing more (net/netlink/af_netlink.c)."""
        used = 1
        while used:
            with suppress(OSError):  # ENOBUFS: said once, and what is there comes after it
                used = receive_waiting(self._socket.fileno(), self._buffer, DATAGRAM_BYTES)

    def _dump_family(self, family: int, time_ns: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(records, messages) of the sockets of one address family."""
        for _ in range(DUMP_ATTEMPTS):
            parts = list(self._dump_parts(family, time_ns))
            records, messages = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            if not np.any(messages["flags"] & NLM_F_DUMP_INTR):
                break
        is_socket = messages["type"] == SOCK_DIAG_BY_FAMILY
        return records[is_socket], messages[is_socket]

    def _dump_parts(self, family: int, time_ns: int) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        seq = self._next_seq(1)
        try:
            self._socket.send(dump_request(family, seq).tobytes())
            while True:
                length = self._socket.recv_into(self._buffer, 0, socket.MSG_TRUNC)
                if length > len(self._buffer):
                    raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
                records, messages = self._parse(length, time_ns)
                ours = messages["seq"] == seq
                records, messages = records[ours], messages[ours]
                if errors := set(messages["error"].tolist()) - {0}:
                    raise OSError(errors.pop(), "")
                yield records, messages
                if np.any(messages["type"] == NLMSG_DONE):
                    return
        except OSError as error:
            raise _failed(error) from error

    def _parse(self, used: int, time_ns: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        try:
            return parse(memoryview(self._buffer)[:used], time_ns, self.netns)
        except ValueError as error:
            raise TcptraceError(f"the kernel's answer about sockets cannot be read: {error}") from error

    def _next_seq(self, count: int) -> int:
        """The first of that many numbers in a row that no request had before; none wraps."""
        if self._seq + count > NO_COOKIE:
            self._seq = 0
        first = self._seq + 1
        self._seq += count
        return first


def dump_request(family: int, seq: int) -> npt.NDArray[Any]:
    """A REQUEST for all TCP sockets of AF_INET or AF_INET6; those with mapped addresses are of AF_INET6."""
    request = _blank_requests(1)
    request["flags"] = NLM_F_REQUEST | NLM_F_DUMP
    request["seq"] = seq
    request["family"] = family
    request["states"] = ALL_STATES
    return request


def requests_for(keys: npt.NDArray[Any], first_seq: int, interface_index: int) -> npt.NDArray[Any]:
    """A REQUEST for each of the SOCKET_KEYs, numbered from `first_seq` on.

    The kernel finds IPv6 sockets with mapped addresses also by their IPv4 addresses.  For the interface see
    inet_sk_bound_dev_eq() in net/inet_sock.h.
    """
    requests = _blank_requests(len(keys))
    is_ipv4 = keys["ip_version"] == 4
    requests["flags"] = NLM_F_REQUEST
    requests["seq"] = np.arange(first_seq, first_seq + len(keys))
    requests["family"] = np.where(is_ipv4, socket.AF_INET, socket.AF_INET6)
    requests["states"] = ALL_STATES
    requests["interface"] = interface_index
    requests["cookie"] = NO_COOKIE
    for end in ("local", "remote"):
        requests[f"{end}_port"] = keys[f"{end}_port"]
        addresses = keys[f"{end}_addr"].copy()
        addresses[is_ipv4, :4] = addresses[is_ipv4, 12:]
        addresses[is_ipv4, 4:] = 0
        requests[f"{end}_addr"] = addresses
    return requests


def _blank_requests(count: int) -> npt.NDArray[Any]:
    requests = np.zeros(count, REQUEST)
    requests["length"] = REQUEST.itemsize
    requests["type"] = SOCK_DIAG_BY_FAMILY
    requests["protocol"] = socket.IPPROTO_TCP
    requests["extensions"] = EXTENSIONS
    return requests


def _same_ends(ones: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of SOCKET_KEYs pair by pair: the same addresses and ports."""
    same = np.ones(len(ones), np.bool_)
    for end in ("local", "remote"):
        same &= ones[f"{end}_port"] == others[f"{end}_port"]
        same &= (ones[f"{end}_addr"] == others[f"{end}_addr"]).all(axis=1)
    return same


def _failed(error: OSError) -> TcptraceError:
    if isinstance(error, TimeoutError):
        return TcptraceError("the kernel does not answer when asked about sockets")
    if error.errno in (errno.ENOENT, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL):
        return _missing(error)
    return TcptraceError(f"cannot ask the kernel about sockets: {os.strerror(error.errno or 0)}")


def _missing(error: OSError) -> MissingFeatureError:
    if error.errno == errno.ENOENT:
        return MissingFeatureError("cannot ask the kernel about sockets: it has no inet_diag and tcp_diag (modprobe)")
    return MissingFeatureError(f"cannot ask the kernel about sockets: {os.strerror(error.errno or 0)}")
