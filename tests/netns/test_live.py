"""What tcptrace says of states, round trips, losses and filters, beside what the kernels at both ends say."""

import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from netns_tools import TIMEOUT_S, Namespace, veth
from observer import Observer
from programs.inside import Pair, Sockets
from programs.stage import FAR, NEAR, PORT, Stage
from programs.watch import Watch
from programs.wire import FIN, Segment, Wire, lose_nothing
from traffic import Connection, exchange

# struct tcp_info of linux/tcp.h: where the fields are.
TCPI_RTT_AT, TCPI_TOTAL_RETRANS_AT, TCPI_MIN_RTT_AT, TCPI_BYTES_SENT_AT = 68, 100, 148, 200


def tcp_info(end: socket.socket, at: int, kind: str = "I") -> int:
    value: int = struct.unpack_from(f"={kind}", end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), at)[0]
    return value


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with Sockets() as sockets:
        yield sockets


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with Namespace() as near, Namespace() as far:
        for namespace in (near, far):
            # What one connection taught the kernel of a path does not change the next one.
            namespace.run(["sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1"])
        yield near, far


# --- States


@pytest.fixture
def stage(ends: tuple[Namespace, Namespace], sockets: Sockets) -> Iterator[Stage]:
    near, far = ends
    with Wire(near, far, f"{NEAR}/24", f"{FAR}/24") as wire, Watch(near) as watch_near, Watch(far) as watch_far:
        yield Stage(wire, sockets, watch_near, watch_far)
        for watch in (watch_near, watch_far):
            watch.end()


def test_nobody_answers(stage: Stage) -> None:
    """SYN-SENT here; what the other end never gets it has no state for."""
    stage.wire.loses = lambda segment: segment.destination_port == PORT
    _, port = stage.connecting()
    stage.settle()
    assert stage.ss(stage.wire.near, port) == "SYN-SENT"
    assert stage.near.latest[port, PORT]["state"] == "SYN-SENT"
    assert stage.near.latest[port, PORT]["src_state"] == "SYN-SENT"
    assert stage.near.latest[port, PORT]["dst_state"] is None
    assert (port, PORT) not in stage.far.latest


def test_the_answer_is_lost(stage: Stage) -> None:
    stage.sockets.listener(stage.wire.far, FAR, PORT)
    stage.wire.loses = lambda segment: segment.source_port == PORT
    _, port = stage.connecting()
    stage.expect(port, "SYN-SENT", "SYN-RECEIVED")


def test_the_last_part_of_the_handshake_is_lost(stage: Stage) -> None:
    stage.sockets.listener(stage.wire.far, FAR, PORT)
    stage.wire.loses = lambda segment: segment.destination_port == PORT and segment.is_pure_ack
    _, port = stage.connecting()
    stage.expect(port, "ESTABLISHED", "SYN-RECEIVED")


def test_refused(stage: Stage) -> None:
    client = stage.sockets.stream(stage.wire.near)
    client.bind((NEAR, 0))
    port = client.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        client.connect((FAR, PORT))
    client.close()
    stage.expect(port, None, None)


@pytest.mark.parametrize("active", ["client", "server"])
def test_an_orderly_close(stage: Stage, active: str) -> None:
    pair = stage.sockets.pair(stage.wire.near, stage.wire.far, FAR, PORT)
    port, _ = pair.ports
    first, second = (pair.client, pair.server) if active == "client" else (pair.server, pair.client)

    def expect(of_first: str | None, of_second: str | None) -> None:
        stage.expect(port, *((of_first, of_second) if active == "client" else (of_second, of_first)))

    pair.ping_pong(3)
    expect("ESTABLISHED", "ESTABLISHED")
    first.shutdown(socket.SHUT_WR)
    assert second.recv(1) == b""
    expect("FIN-WAIT-2", "CLOSE-WAIT")
    second.sendall(b"still")
    assert first.recv(5, socket.MSG_WAITALL) == b"still"
    expect("FIN-WAIT-2", "CLOSE-WAIT")
    second.close()
    assert first.recv(1) == b""
    expect("TIME-WAIT", None)


def test_a_fin_that_is_not_acknowledged(stage: Stage) -> None:
    pair = stage.sockets.pair(stage.wire.near, stage.wire.far, FAR, PORT)
    port, _ = pair.ports
    stage.wire.loses = lambda segment: PORT in (segment.source_port, segment.destination_port)
    pair.client.shutdown(socket.SHUT_WR)
    stage.expect(port, "FIN-WAIT-1", "ESTABLISHED")
    stage.wire.loses = lose_nothing
    assert pair.server.recv(1) == b""
    stage.expect(port, "FIN-WAIT-2", "CLOSE-WAIT")


def test_the_last_ack_is_lost(stage: Stage) -> None:
    pair = stage.sockets.pair(stage.wire.near, stage.wire.far, FAR, PORT)
    port, _ = pair.ports
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.server.recv(1) == b""
    stage.wire.loses = lambda segment: segment.destination_port == PORT and segment.is_pure_ack
    pair.server.close()
    assert pair.client.recv(1) == b""
    stage.expect(port, "TIME-WAIT", "LAST-ACK")


def test_simultaneous_close(stage: Stage) -> None:
    """Both FINs cross on the wire; all that follows them is lost, so CLOSING lasts."""
    pair = stage.sockets.pair(stage.wire.near, stage.wire.far, FAR, PORT)
    port, _ = pair.ports
    finished = set()

    def all_but_first_fins(segment: Segment) -> bool:
        if segment.flags & FIN and segment.outbound not in finished:
            finished.add(segment.outbound)
            return False
        return PORT in (segment.source_port, segment.destination_port)

    stage.wire.delay_s = 0.1
    stage.wire.loses = all_but_first_fins
    for end in (pair.client, pair.server):
        end.shutdown(socket.SHUT_WR)
    for end in (pair.client, pair.server):
        assert end.recv(1) == b""
    stage.expect(port, "CLOSING", "CLOSING")


@pytest.mark.parametrize("resets", ["client", "server"])
def test_reset(stage: Stage, resets: str) -> None:
    pair = stage.sockets.pair(stage.wire.near, stage.wire.far, FAR, PORT)
    port, _ = pair.ports
    pair.ping_pong(1)
    first, second = (pair.client, pair.server) if resets == "client" else (pair.server, pair.client)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    first.close()
    with pytest.raises(ConnectionResetError):
        second.recv(1)
    second.close()
    stage.expect(port, None, None)


# --- Round-trip times


def close_to(kernels_us: float) -> Any:
    return pytest.approx(kernels_us, rel=0.2, abs=50)


def measure_rtt(sockets: Sockets, ends: tuple[Namespace, Namespace], port: int) -> dict[str, Any]:
    """What the kernels at both ends measured on a connection of ten exchanges."""
    near, far = ends
    pair = sockets.pair(near, far, FAR, port)
    handshake = tcp_info(pair.client, TCPI_RTT_AT)
    pair.ping_pong(10)
    least = [tcp_info(end, TCPI_MIN_RTT_AT) for end in (pair.client, pair.server)]
    return {"ports": pair.ports, "handshake": handshake, "client": least[0], "server": least[1]}


@pytest.mark.parametrize("delay_ms", [0, 7, 40])
def test_rtt_over_a_slow_wire(
    ends: tuple[Namespace, Namespace], sockets: Sockets, delay_ms: int, capsys: pytest.CaptureFixture[str]
) -> None:
    near, far = ends
    with Wire(near, far, f"{NEAR}/24", f"{FAR}/24") as wire, Watch(near) as watch_near, Watch(far) as watch_far:
        sockets.pair(near, far, FAR, PORT)  # the neighbours know each other from now on
        wire.delay_s = delay_ms / 1000
        kernels = [measure_rtt(sockets, ends, PORT + number) for number in range(1, 6)]
        watch_near.end()
        watch_far.end()
    judge_rtt(kernels, watch_near, watch_far, delay_ms, capsys)


def judge_rtt(
    kernels: list[dict[str, Any]],
    near: Watch,
    far: Watch,
    delay_ms: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    apart: dict[str, list[float]] = {"handshake": [], "client": [], "server": []}
    for kernel in kernels:
        own, peers = near.latest[kernel["ports"]], far.latest[kernel["ports"]]
        traced = {
            "handshake": own["handshake_rtt_us"],
            "client": own["sent_rtt_min_us"],
            "server": peers["received_rtt_min_us"],
        }
        for name, value in traced.items():
            assert kernel[name] >= 2000 * delay_ms
            assert value == close_to(kernel[name]), (name, kernel)
            apart[name].append(value - kernel[name])
    with capsys.disabled():
        worst = {name: round(max(values, key=lambda value: abs(value))) for name, values in apart.items()}
        print(f" [2 x {delay_ms} ms: us from the kernel's, at worst: {worst}]", end="")


def test_rtt_straight_through(
    ends: tuple[Namespace, Namespace], sockets: Sockets, capsys: pytest.CaptureFixture[str]
) -> None:
    near, far = ends
    veth(near, far, f"{NEAR}/24", f"{FAR}/24")
    with Watch(near) as watch_near, Watch(far) as watch_far:
        sockets.pair(near, far, FAR, PORT)
        kernels = [measure_rtt(sockets, ends, PORT + number) for number in range(1, 21)]
        watch_near.end()
        watch_far.end()
    judge_rtt(kernels, watch_near, watch_far, 0, capsys)


# --- Retransmissions

BULK_BYTES: Final = 6_000_000
BOTTLENECK = ["tbf", "rate", "20mbit", "burst", "10k", "limit", "60k"]
OFFLOADS: Final = ("tso", "gso", "gro")


def set_offloads(namespaces: tuple[Namespace, ...], value: str) -> None:
    for namespace in namespaces:
        namespace.run(["ethtool", "-K", "veth0", *(word for name in OFFLOADS for word in (name, value))])


@dataclass(frozen=True)
class Sent:
    """What the sender's kernel counted."""

    retransmissions: int
    bytes: int
    """Each time that it handed a byte on."""


def send_bulk(pair: Pair) -> Sent:
    """From the client to the server, to the last ACK."""

    def receive() -> None:
        while pair.server.recv(1 << 18):
            pass
        pair.server.sendall(b"!")

    receiver = threading.Thread(target=receive, daemon=True)
    receiver.start()
    pair.client.sendall(bytes(BULK_BYTES))
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.client.recv(1) == b"!"
    receiver.join(TIMEOUT_S)
    return Sent(tcp_info(pair.client, TCPI_TOTAL_RETRANS_AT), tcp_info(pair.client, TCPI_BYTES_SENT_AT, "Q"))


@pytest.mark.parametrize("offloads", ["on", "off"])
def test_retransmissions_through_a_bottleneck(
    sockets: Sockets, ends: tuple[Namespace, Namespace], offloads: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bottleneck is a router's, so what it drops has been sent."""
    near, far = ends
    with Namespace() as router:
        veth(near, router, f"{NEAR}/24", "10.9.0.3/24")
        veth(router, far, "10.9.1.1/24", "10.9.1.2/24", name_a="veth1")
        router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        near.run(["ip", "route", "add", "default", "via", "10.9.0.3"])
        far.run(["ip", "route", "add", "default", "via", "10.9.1.1"])
        router.run(["tc", "qdisc", "add", "dev", "veth1", "root", *BOTTLENECK])
        set_offloads(ends, offloads)
        with Watch(near) as watch:
            pair = sockets.pair(near, far, "10.9.1.2", PORT)
            sent = send_bulk(pair)
            watch.end()
    row = watch.latest[pair.ports]
    with capsys.disabled():
        print(f" [kernel {sent.retransmissions}, traced {row['sent_retransmissions']}]", end="")
    assert sent.retransmissions >= 50
    assert row["sent_retransmissions"] == pytest.approx(sent.retransmissions, rel=0.02)
    assert row["sent_payload_bytes"] == sent.bytes == BULK_BYTES + row["sent_retransmitted_bytes"]
    assert row["received_retransmissions"] == 0
    assert (row["sent_out_of_order"], row["received_out_of_order"]) == (0, 0)


@pytest.mark.parametrize("offloads", ["on", "off"])
def test_retransmissions_through_a_bottleneck_of_our_own(
    sockets: Sockets, ends: tuple[Namespace, Namespace], offloads: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bottleneck is the sender's own queue, which TC egress is ahead of.

    A segment that the queue refuses at its first try is, to the kernel, not yet sent: trying again is no
    retransmission, although the same bytes pass the hook again.  The kernel's count of bytes has every try.
    """
    near, far = ends
    veth(near, far, f"{NEAR}/24", f"{FAR}/24")
    near.run(["tc", "qdisc", "add", "dev", "veth0", "root", *BOTTLENECK])
    set_offloads(ends, offloads)
    with Watch(near) as watch:
        pair = sockets.pair(near, far, FAR, PORT)
        sent = send_bulk(pair)
        watch.end()
    row = watch.latest[pair.ports]
    with capsys.disabled():
        print(f" [kernel {sent.retransmissions}, traced {row['sent_retransmissions']}]", end="")
    assert sent.retransmissions >= 50
    assert row["sent_retransmissions"] == pytest.approx(sent.retransmissions, rel=0.02)
    assert row["sent_payload_bytes"] == sent.bytes
    assert row["sent_local_drops"] > 0
    assert row["received_retransmissions"] == 0
    assert (row["sent_out_of_order"], row["received_out_of_order"]) == (0, 0)


TRIES = 5


@pytest.mark.parametrize("offloads", ["on", "off"])
def test_a_clean_path_has_none(sockets: Sockets, ends: tuple[Namespace, Namespace], offloads: str) -> None:
    near, far = ends
    veth(near, far, f"{NEAR}/24", f"{FAR}/24")
    set_offloads(ends, offloads)
    with Watch(near) as watch_near, Watch(far) as watch_far:
        # A machine that others load makes a path drop some itself: its own sockets tell whether it did.
        pairs = (sockets.pair(near, far, FAR, port) for port in range(PORT, PORT + TRIES))
        pair = next(pair for pair in pairs if send_bulk(pair) == Sent(0, BULK_BYTES))
        for watch in (watch_near, watch_far):
            watch.end()
            row = watch.latest[pair.ports]
            assert row["sent_payload_bytes"] == BULK_BYTES
            for name in ("retransmissions", "retransmitted_bytes", "out_of_order", "gaps"):
                assert (row[f"sent_{name}"], row[f"received_{name}"]) == (0, 0)


# --- Filters

# Each port with a number of exchanges of its own, so that no sum of others makes the same count.
PLAN = [Connection(port, 300, 700, times) for port, times in ((443, 101), (80, 37), (8443, 53), (22, 11))]
NEAR6, FAR6 = "fd09::1", "fd09::2"


def count_packets(observer: Observer, expression: str) -> int:
    """Frames in the observer's file, by libpcap."""
    command = ["tcpdump", "-nn", "-r", str(observer.file), expression]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 or "rejects all packets" in result.stderr, result.stderr
    return len(result.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "expression"),
    [
        (["tcp port 443"], None),
        (["tcp", "port", "443"], "tcp port 443"),
        (["not port 443"], None),
        (["tcp and not (port 80 or port 22)"], None),
        ([f"host {FAR} and port 8443"], None),
        ([f"src host {FAR} and src port 80"], None),
        (["tcp[tcpflags] & (tcp-syn|tcp-fin) != 0"], None),
        (["greater 500"], None),
        (["udp"], None),
        (["-p", "443"], "port 443"),
        (["-p", "443", "-p", "22"], "port 443 or port 22"),
        (["-i", NEAR], f"host {NEAR}"),
        (["-i", "10.9.0.77"], "host 10.9.0.77"),
        (["-p", "80", "-i", FAR, "dst port 80"], f"port 80 and host {FAR} and dst port 80"),
        (["ip6"], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_filter_is_libpcaps(
    ends: tuple[Namespace, Namespace], arguments: list[str], expression: str | None
) -> None:
    near, far = ends
    for namespace in ends:
        # No frame of the kernels' own: nothing about IPv6, and the neighbours are known.
        namespace.run(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])
    veth(near, far, f"{NEAR}/24", f"{FAR}/24")
    set_offloads(ends, "off")
    for namespace, other, address in ((near, far, FAR), (far, near, NEAR)):
        mac = other.json("ip", "-json", "link", "show", "dev", "veth0")[0]["address"]
        namespace.run(["ip", "neighbour", "add", address, "lladdr", mac, "dev", "veth0"])
    with Observer(far, "veth0") as observer, Watch(near, *arguments) as watch:
        exchange(near, far, FAR, PLAN)
        observer.finish(near, FAR)
        summary = watch.end()
        wanted = expression or arguments[-1]
        all_frames, matching = count_packets(observer, ""), count_packets(observer, wanted)
        matching_tcp = count_packets(observer, f"({wanted}) and tcp")
    assert all_frames > 2 * sum(one.exchanges for one in PLAN)
    assert summary["frames"] == all_frames
    assert summary["filtered"] == all_frames - matching
    assert summary["records"] == summary["packets"] == matching_tcp


def test_a_filter_for_ipv6(ends: tuple[Namespace, Namespace]) -> None:
    near, far = ends
    veth(near, far, [f"{NEAR}/24", f"{NEAR6}/64"], [f"{FAR}/24", f"{FAR6}/64"])
    set_offloads(ends, "off")
    with Observer(far, "veth0") as observer, Watch(near, "ip6 and tcp port 443") as watch:
        exchange(near, far, FAR, PLAN)
        exchange(near, far, FAR6, PLAN)
        observer.finish(near, FAR6)
        summary = watch.end()
        matching = count_packets(observer, "ip6 and tcp port 443")
        others = count_packets(observer, "tcp and not (ip6 and port 443)")
    assert matching > 202
    assert summary["records"] == summary["packets"] == matching
    assert summary["filtered"] == summary["frames"] - matching >= others
    assert {(row["ip_version"], row["dst_port"]) for row in watch.latest.values()} == {(6, 443)}
