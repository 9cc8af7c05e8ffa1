"""The kernel's numbers of its sockets, equal to what `ss -tinp` says of them."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import pytest
from netns_tools import TIMEOUT_S, Namespace
from programs import probes
from programs.inside import Pair, Sockets, mark
from programs.router import FAR, FAR6, FAR_MAPPED, narrower, routed, slow
from programs.scenes import tcp_info, wait_until
from programs.ss import COUNTERS, SETTINGS, Numbers, numbers_of, socket_of
from programs.watch import Event, Watch, settle

# struct tcp_info of linux/tcp.h: where the fields are.
TCPI_UNACKED_AT, TCPI_RWND_LIMITED_AT, TCPI_SNDBUF_LIMITED_AT, TCPI_RCV_WND_AT = 24, 176, 184, 232
LIMITED_US = 20_000
SO_MAX_PACING_RATE = 47  # asm-generic/socket.h; bytes a second
BULK_BYTES = 1_500_000
BACK_BYTES = 700_000


# --- What the connections do


def send(sender: socket.socket, receiver: socket.socket, size_bytes: int, piece_bytes: int = 1 << 21) -> None:
    """Returns when all is received."""

    def write() -> None:
        for start in range(0, size_bytes, piece_bytes):
            sender.sendall(bytes(min(piece_bytes, size_bytes - start)))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    left = size_bytes
    while left:
        left -= len(receiver.recv(min(left, 1 << 16)))
    thread.join(TIMEOUT_S)


def by_reno(pair: Pair) -> None:
    for end in (pair.client, pair.server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def lose(pair: Pair, _: Namespace) -> None:
    """More than the router's queue holds, by a congestion control that finds that out again and again."""
    by_reno(pair)
    send(pair.client, pair.server, BULK_BYTES)


def wait_for_window(pair: Pair, _: Namespace) -> None:
    """The server does not read until the client has waited for it."""
    pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    pair.client.setblocking(False)
    sent = 0

    def limited() -> bool:
        nonlocal sent
        with suppress(BlockingIOError):
            sent += pair.client.send(bytes(1 << 16))
        return tcp_info(pair.client, TCPI_RWND_LIMITED_AT, "Q") > LIMITED_US

    wait_until(limited)
    pair.client.settimeout(TIMEOUT_S)
    while sent:
        sent -= len(pair.server.recv(1 << 16))


def wait_for_buffer(pair: Pair, router: Namespace) -> None:
    """The client's buffer holds little, which leaves at a pace and is long under way: it is empty, the writer waits."""
    by_reno(pair)
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 12)
    pair.client.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 150_000)

    def limited() -> bool:
        send(pair.client, pair.server, 1 << 15, piece_bytes=1_000)
        return tcp_info(pair.client, TCPI_SNDBUF_LIMITED_AT, "Q") > LIMITED_US

    with narrower(router, "veth1"):
        wait_until(limited)


@dataclass(frozen=True)
class Kind:
    """A connection by the address that it goes to, and what shows that it was no dull one: more than so much."""

    address: str
    port: int
    act: Callable[[Pair, Namespace], None]
    telling: str
    more_than: int


KINDS = (
    Kind(FAR, 7001, lose, "kernel_retransmissions", 10),
    Kind(FAR6, 7002, wait_for_window, "rwnd_limited_ms", 0),
    Kind(FAR_MAPPED, 7003, wait_for_buffer, "sndbuf_limited_ms", 0),
)


# --- Three tracers: at each end of the path, and in its middle


@dataclass(frozen=True)
class Traced:
    sockets: Sockets
    near: Namespace
    router: Namespace
    far: Namespace
    watches: tuple[Watch, Watch, Watch]

    @property
    def ends(self) -> tuple[Watch, Watch]:
        return self.watches[0], self.watches[2]

    @property
    def middle(self) -> Watch:
        return self.watches[1]

    def ss(self, pair: Pair) -> tuple[Numbers, Numbers]:
        """Of the client's socket and of the server's."""
        near, far = socket_of(self.near, *pair.ports), socket_of(self.far, *pair.ports[::-1])
        assert near is not None
        assert far is not None
        assert near.pids == far.pids == {os.getpid()}
        return near.numbers(), far.numbers()

    def settle(self) -> None:
        settle(self.watches, lambda: mark(self.sockets, self.near, FAR))


@pytest.fixture(scope="module", params=probes.WAYS)
def traced(request: pytest.FixtureRequest) -> Iterator[Traced]:
    probes.require(request.param)
    with routed() as path, Sockets() as sockets:
        slow(path.router, "veth0")
        slow(path.router, "veth1")
        options = ("--probes", request.param)
        with (
            Watch(path.near, *options) as near,
            Watch(path.router, *options) as middle,
            Watch(path.far, *options) as far,
        ):
            for watch in (near, middle, far):
                probes.check(watch, request.param)
            yield Traced(sockets, path.near, path.router, path.far, (near, middle, far))
            for watch in (near, middle, far):
                summary = watch.end()
                assert summary["socket_records_lost"] == 0


def be_quiet(*pairs: Pair) -> None:
    """Nothing is under way on these connections any more."""
    ends = [end for pair in pairs for end in (pair.client, pair.server)]
    wait_until(lambda: not any(tcp_info(end, TCPI_UNACKED_AT) for end in ends))


def rcv_wnd(end: socket.socket) -> int | None:
    """By the program's own TCP_INFO: ss does not print it.  Linux 6.2 and newer."""
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("=I", info, TCPI_RCV_WND_AT)[0] if len(info) >= TCPI_RCV_WND_AT + 4 else None


def test_a_quiet_socket(traced: Traced) -> None:
    """Every number of both ends is the one that ss shows; a connection that is only forwarded has none."""
    pairs = [traced.sockets.pair(traced.near, traced.far, kind.address, kind.port) for kind in KINDS]
    for kind, pair in zip(KINDS, pairs, strict=True):
        kind.act(pair, traced.router)
        send(pair.server, pair.client, BACK_BYTES)
        pair.ping_pong(7, 777)
    be_quiet(*pairs)
    traced.settle()
    for kind, pair in zip(KINDS, pairs, strict=True):
        judged = traced.ss(pair)
        client, _ = judged
        assert isinstance(told := client[kind.telling], int)
        assert told > kind.more_than
        assert client["kernel_bytes_acked"] >= 7 * 777
        lines = [watch.latest[pair.ports] for watch in traced.ends]
        for line, numbers, end in zip(lines, judged, (pair.client, pair.server), strict=True):
            assert numbers_of(line) == numbers
            assert line["rcv_wnd_bytes"] == (rcv_wnd(end) or line["rcv_wnd_bytes"])
            assert (line["pid"], line["uid"]) == (os.getpid(), os.getuid())
            assert line["peer_kernel_state"] is None
        assert [line["netns"] for line in lines] == [
            os.stat(f"/run/netns/{namespace.name}").st_ino for namespace in (traced.near, traced.far)
        ]
        forwarded(traced.middle.latest[pair.ports], judged)


def forwarded(line: Event, ends: tuple[Numbers, Numbers]) -> None:
    """In the router: nothing of a socket, and on the wire the way to both ends."""
    names = list(line)
    assert {
        name: line[name] for name in names[names.index("kernel_state") : names.index("last_packets")]
    } == dict.fromkeys(names[names.index("kernel_state") : names.index("last_packets")])
    for direction, end in zip(("sent", "received"), ends, strict=True):
        assert line[f"{direction}_rtt_count"] >= 7
        # A part of the way of each round trip that the sender's kernel measured.
        assert isinstance(whole := end["srtt_us"], int)
        assert 0 < line[f"{direction}_rtt_min_us"] <= whole


def seconds(line: Event) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def test_a_busy_socket(traced: Traced) -> None:
    """What ss says is between what two lines say, the one before it and the other after it."""
    pair = traced.sockets.pair(traced.near, traced.far, FAR, 7010)
    lose(pair, traced.router)
    stop = threading.Event()

    def sink() -> None:
        while pair.server.recv(1 << 16):
            pass

    def pour() -> None:
        while not stop.is_set():
            pair.client.sendall(bytes(1 << 14))
        pair.client.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=work, daemon=True) for work in (sink, pour)]
    for thread in threads:
        thread.start()
    try:
        moved = sum(between(traced, pair) for _ in range(12))
    finally:
        stop.set()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert moved >= 10


def between(traced: Traced, pair: Pair) -> bool:
    """Whether the numbers moved from one line to the other."""
    watch = traced.ends[0]
    before = numbers_of(watch.read_until(lambda line: line_of(line, pair)))
    numbers, _ = traced.ss(pair)
    # A line may have been under way, and a sample is a tenth of a second old at most.
    due_s = time.time() + 0.15
    after = numbers_of(watch.read_until(lambda line: line_of(line, pair) and seconds(line) > due_s))
    assert {name: numbers[name] for name in SETTINGS} == {name: after[name] for name in SETTINGS}
    for name in COUNTERS:
        assert before[name] <= numbers[name] <= after[name], name  # type: ignore[operator]
    if before["kernel_retransmissions"] == after["kernel_retransmissions"]:
        assert numbers["ssthresh_packets"] == after["ssthresh_packets"]
    if before["rtt_min_us"] == after["rtt_min_us"]:
        assert numbers["rtt_min_us"] == after["rtt_min_us"]
    return before["kernel_bytes_acked"] != after["kernel_bytes_acked"]


def line_of(line: Event, pair: Pair) -> bool:
    return line["event"] == "connection" and (line["src_port"], line["dst_port"]) == pair.ports
