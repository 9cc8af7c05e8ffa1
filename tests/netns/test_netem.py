"""Traffic over a link that the kernel's netem makes bad: only some kernels have it."""

import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from netns_tools import TIMEOUT_S, Namespace, veth
from programs.inside import Sockets
from programs.netem import netem
from tracer import Tracer

pytestmark = pytest.mark.matrix

NEAR, FAR, PORT = "10.9.0.1", "10.9.0.2", 7000
DELAY_MS = 40

BULK_BYTES = 1_000_000
LOSS = "3%"

# struct tcp_info of linux/tcp.h: where the fields are.
TCPI_TOTAL_RETRANS_AT, TCPI_MIN_RTT_AT = 100, 148


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with Namespace() as near, Namespace() as far:
        veth(near, far, f"{NEAR}/24", f"{FAR}/24")
        yield near, far


def tcp_info(end: socket.socket, at: int) -> int:
    (value,) = struct.unpack_from("=I", end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), at)
    return int(value)


def test_rtt_over_a_delayed_link(ends: tuple[Namespace, Namespace]) -> None:
    near, far = ends
    netem(far, "veth0", "delay", f"{DELAY_MS}ms")
    with Sockets() as sockets, Tracer(near, "veth0") as tracer:
        pair = sockets.pair(near, far, FAR, PORT)
        pair.ping_pong(10)
        kernels_us = tcp_info(pair.client, TCPI_MIN_RTT_AT)
        tracer.stop()
        row = tracer.by_ports()[pair.ports]
    for name in ("handshake_rtt_us", "sent_rtt_min_us"):
        assert row[name] >= 1000 * DELAY_MS, name
    assert kernels_us >= 1000 * DELAY_MS
    assert row["sent_rtt_min_us"] == pytest.approx(kernels_us, rel=0.2)


def receive_all(server: socket.socket) -> None:
    while server.recv(1 << 16):
        pass
    server.sendall(b"!")


def test_retransmissions_over_a_lossy_link(ends: tuple[Namespace, Namespace]) -> None:
    near, far = ends
    # A frame lost is one segment lost, not all those of a super-packet.
    near.run(["ip", "link", "set", "veth0", "gso_max_segs", "1"])
    # Behind the hook, and the sender is not told: to both it is as if the wire had lost it.
    netem(near, "veth0", "loss", LOSS)
    with Sockets() as sockets, Tracer(near, "veth0") as tracer:
        pair = sockets.pair(near, far, FAR, PORT)
        receiver = threading.Thread(target=receive_all, args=(pair.server,), daemon=True)
        receiver.start()
        pair.client.sendall(bytes(BULK_BYTES))
        pair.client.shutdown(socket.SHUT_WR)
        # The answer acknowledges all that came before.
        assert pair.client.recv(1) == b"!"
        receiver.join(TIMEOUT_S)
        kernels = tcp_info(pair.client, TCPI_TOTAL_RETRANS_AT)
        tracer.stop()
        row = tracer.by_ports()[pair.ports]
    assert kernels > 0
    assert row["sent_retransmissions"] == pytest.approx(kernels, abs=1)
    assert row["sent_payload_bytes"] == BULK_BYTES + row["sent_retransmitted_bytes"]
