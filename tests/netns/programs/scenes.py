"""What can happen to a TCP connection, made to happen between two namespaces."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest
from netns_tools import TIMEOUT_S, Namespace
from programs.inside import Pair, Sockets, family_of

POLL_S = 0.005
NO_LINGER = struct.pack("ii", 1, 0)
CHUNK = bytes(range(256)) * 256
KEEP_ALIVE_S = 1
"""The shortest that the kernel takes."""

# struct tcp_info of linux/tcp.h: where the fields are.
TCPI_STATE_AT, TCPI_BACKOFF_AT, TCPI_TOTAL_RETRANS_AT, TCPI_SEGS_OUT_AT, TCPI_SEGS_IN_AT = 0, 4, 100, 136, 140
TCP_INFO_BYTES = 256
TCP_CLOSE = 7


@dataclass(frozen=True)
class Where:
    """Connections go from `near` to `far`, which has `address`."""

    sockets: Sockets
    near: Namespace
    far: Namespace
    address: str

    def pair(self, port: int) -> Pair:
        return self.sockets.pair(self.near, self.far, self.address, port)


def tcp_info(end: socket.socket, at: int, kind: str = "I") -> int:
    value: int = struct.unpack_from(
        f"={kind}", end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES), at
    )[0]
    return value


def wait_until(reached: Callable[[], bool]) -> None:
    """For what the kernel does on its own time and nothing tells of."""
    end = time.monotonic() + TIMEOUT_S
    while not reached():
        assert time.monotonic() < end, "it does not happen"
        threading.Event().wait(POLL_S)


def refused(where: Where, port: int) -> None:
    client = where.sockets.stream(where.near, family_of(where.address))
    with pytest.raises(ConnectionRefusedError):
        client.connect((where.address, port))
    client.close()


def reset(where: Where, port: int) -> None:
    """By the server, in the middle of an exchange."""
    pair = where.pair(port)
    pair.ping_pong(3, 777)
    pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    pair.server.close()
    with pytest.raises(ConnectionResetError):
        pair.client.recv(1)
    pair.client.close()


def half_close(where: Where, port: int) -> None:
    """The client has nothing more to say, and the server much."""
    pair = where.pair(port)
    pair.ping_pong(2)
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.server.recv(1) == b""
    for _ in range(5):
        pair.server.sendall(CHUNK[:1999])
        pair.client.recv(1999, socket.MSG_WAITALL)
    close_server(pair)


def stall(where: Where, port: int) -> None:
    """The server does not read until its shut window has been probed twice."""
    pair = where.pair(port)
    pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # no growth of the window
    pair.client.setblocking(False)

    def probed() -> bool:
        with suppress(BlockingIOError):
            pair.client.send(CHUNK)
        return tcp_info(pair.client, TCPI_BACKOFF_AT, "B") > 1

    wait_until(probed)
    pair.client.shutdown(socket.SHUT_WR)
    while pair.server.recv(1 << 18):
        pass
    close_server(pair)


@contextmanager
def idle(where: Where, port: int) -> Iterator[None]:
    """A connection that was asked at least once, by its end, whether it is still alive."""
    pair = where.pair(port)
    pair.ping_pong(1)
    for name, value in ((socket.TCP_KEEPIDLE, KEEP_ALIVE_S), (socket.TCP_KEEPINTVL, KEEP_ALIVE_S)):
        pair.client.setsockopt(socket.IPPROTO_TCP, name, value)
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    before = tcp_info(pair.client, TCPI_SEGS_IN_AT)
    yield
    wait_until(lambda: tcp_info(pair.client, TCPI_SEGS_IN_AT) > before)
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.server.recv(1) == b""
    close_server(pair)


def close_server(pair: Pair) -> None:
    """After the client's FIN; returns when the last ACK is there."""
    pair.server.shutdown(socket.SHUT_WR)
    assert pair.client.recv(1 << 18) == b""
    wait_until(lambda: tcp_info(pair.server, TCPI_STATE_AT, "B") == TCP_CLOSE)
    pair.client.close()
    pair.server.close()


def bulk(where: Where, port: int, size_bytes: int) -> int:
    """From the client to the server, to the last ACK; how many segments the client's kernel has sent again."""
    pair = where.pair(port)

    def receive() -> None:
        while pair.server.recv(1 << 18):
            pass

    receiver = threading.Thread(target=receive, daemon=True)
    receiver.start()
    pair.client.sendall(bytes(size_bytes))
    pair.client.shutdown(socket.SHUT_WR)
    receiver.join(TIMEOUT_S)
    pair.server.shutdown(socket.SHUT_WR)
    assert pair.client.recv(1) == b""
    wait_until(lambda: tcp_info(pair.server, TCPI_STATE_AT, "B") == TCP_CLOSE)
    return tcp_info(pair.client, TCPI_TOTAL_RETRANS_AT)


def all_kinds(where: Where, first_port: int) -> None:
    """One of each but bulk."""
    with idle(where, first_port):
        refused(where, first_port + 1)
        reset(where, first_port + 2)
        half_close(where, first_port + 3)
        stall(where, first_port + 4)
