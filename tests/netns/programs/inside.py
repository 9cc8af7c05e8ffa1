"""Sockets of a network namespace in the tests' own process: a socket belongs to the namespace that it was made in.

with inside(far):
    listener = socket.create_server(("10.1.1.2", 80))
"""

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from netns_tools import TIMEOUT_S, Namespace

MARKER_PORT = 9
MARKERS = iter(range(20_000, 30_000))

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x4000_0000


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """This thread's new sockets are the namespace's."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace.name}") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(fd: int) -> None:
    if LIBC.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Sockets(ExitStack):
    """Makes sockets inside namespaces and closes them all at the end.  None waits longer than TIMEOUT_S."""

    def stream(self, namespace: Namespace, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        with inside(namespace):
            made = self.enter_context(socket.socket(family))
        made.settimeout(TIMEOUT_S)
        return made

    def listener(self, namespace: Namespace, address: str, port: int) -> socket.socket:
        made = self.stream(namespace, family_of(address))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen()
        return made

    def client(self, namespace: Namespace, address: str, port: int) -> socket.socket:
        """Connected."""
        made = self.stream(namespace, family_of(address))
        made.connect((address, port))
        return made

    def pair(self, near: Namespace, far: Namespace, address: str, port: int) -> "Pair":
        """A connection from near to far, where nothing listens afterwards."""
        with self.listener(far, address, port) as listener:
            client = self.client(near, address, port)
            server = self.enter_context(listener.accept()[0])
        server.settimeout(TIMEOUT_S)
        return Pair(client, server)


@dataclass(frozen=True)
class Pair:
    """Both ends of a connection."""

    client: socket.socket
    server: socket.socket

    @property
    def ports(self) -> tuple[int, int]:
        """Of the client and of the server."""
        return self.client.getsockname()[1], self.server.getsockname()[1]

    def ping_pong(self, times: int, size_bytes: int = 100) -> None:
        """That many bytes there and back again, one at a time: never more than a packet under way."""
        for _ in range(times):
            for sender, receiver in ((self.client, self.server), (self.server, self.client)):
                sender.sendall(bytes(size_bytes))
                receiver.recv(size_bytes, socket.MSG_WAITALL)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def mark(sockets: Sockets, namespace: Namespace, address: str) -> tuple[int, int]:
    """One SYN that nobody listens for; its ports, never the same again."""
    ports = next(MARKERS), MARKER_PORT
    with sockets.stream(namespace, family_of(address)) as marker:
        marker.bind(("", ports[0]))
        marker.setblocking(False)
        marker.connect_ex((address, MARKER_PORT))
    return ports
