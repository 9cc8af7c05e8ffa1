"""Traffic over a link that the kernel's netem makes bad: only some kernels have it."""

import socket
import struct
from collections.abc import Iterator

import pytest
from netns_tools import Namespace, veth
from programs.inside import Sockets
from programs.netem import netem
from tracer import Tracer

pytestmark = pytest.mark.matrix

NEAR, FAR, PORT = "10.9.0.1", "10.9.0.2", 7000
DELAY_MS = 40

TCPI_MIN_RTT_AT = 148
"""In struct tcp_info of linux/tcp.h."""


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with Namespace() as near, Namespace() as far:
        veth(near, far, f"{NEAR}/24", f"{FAR}/24")
        yield near, far


def test_rtt_over_a_delayed_link(ends: tuple[Namespace, Namespace]) -> None:
    near, far = ends
    netem(far, "veth0", "delay", f"{DELAY_MS}ms")
    with Sockets() as sockets, Tracer(near, "veth0") as tracer:
        pair = sockets.pair(near, far, FAR, PORT)
        pair.ping_pong(10)
        info = pair.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        (kernels_us,) = struct.unpack_from("=I", info, TCPI_MIN_RTT_AT)
        tracer.stop()
        row = tracer.by_ports()[pair.ports]
    for name in ("handshake_rtt_us", "sent_rtt_min_us"):
        assert row[name] >= 1000 * DELAY_MS, name
    assert kernels_us >= 1000 * DELAY_MS
    assert row["sent_rtt_min_us"] == pytest.approx(kernels_us, rel=0.2)
