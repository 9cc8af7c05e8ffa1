"""Programs that make traffic, run inside a namespace as `python traffic.py serve|connect|inject|tun …`; stdlib only.

A plan is a JSON list of connections, the same text for `serve` and `connect`.  Both print what each
connection has sent, and what the kernel counted for it, as JSON when all of them have ended.
"""

import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

# Shorter than the caller's; this runs as a program, too, and so reads the factor itself.
TIMEOUT_S = 25.0 * float(os.environ.get("TCPTRACE_TEST_SLOWNESS", "1"))
TCP_CLOSE = 7
CHUNK = bytes(range(256)) * 256


@dataclass(frozen=True)
class Connection:
    """What happens on one connection: `exchanges` times a request one way, then a response the other."""

    port: int
    request_bytes: int
    response_bytes: int = 0
    exchanges: int = 1
    send_buffer_bytes: int = 65536
    """Bounds what is under way: no queue between two namespaces may ever overflow."""
    mss_bytes: int | None = None
    traffic_class: int | None = None
    ip_options: str = ""
    """Hexadecimal: IP_OPTIONS of both ends."""
    hop_options: str = ""
    destination_options: str = ""
    """Hexadecimal: IPv6 headers, sticky, of both ends."""

    @property
    def sent_bytes(self) -> int:
        return self.exchanges * self.request_bytes

    @property
    def received_bytes(self) -> int:
        return self.exchanges * self.response_bytes


# --- What the tests call


@dataclass(frozen=True)
class Outcome:
    """A connection that has come to its end, seen by one of its programs."""

    port: int
    peer_port: int
    sent_bytes: int
    received_bytes: int
    segments_out: int
    segments_in: int
    data_segments_out: int
    retransmitted_bytes: int
    mss_bytes: int


@dataclass(frozen=True)
class Exchange:
    """Both programs' view of one connection: `src` connected, `dst` accepted."""

    plan: Connection
    src: Outcome
    dst: Outcome

    @property
    def ports(self) -> tuple[int, int]:
        return self.src.port, self.src.peer_port


def exchange(near: Any, far: Any, address: str, plan: Sequence[Connection]) -> list[Exchange]:
    """Connect from `near` to `far` (netns_tools.Namespace) as planned; returns when all is over, last ACKs included."""
    text = json.dumps([asdict(one) for one in plan])
    with _program(far, "serve", address, text) as server:
        assert server.stdout.readline() == "ready\n", server.stderr.read()
        with _program(near, "connect", address, text) as client:
            ends = [_outcomes(client), _outcomes(server)]
    accepted = {(one.peer_port, one.port): one for one in ends[1]}
    result = [Exchange(one, src, accepted[src.port, src.peer_port]) for one, src in zip(plan, ends[0], strict=True)]
    for one in result:
        assert (one.src.sent_bytes, one.dst.sent_bytes) == (one.plan.sent_bytes, one.plan.received_bytes)
        assert (one.src.received_bytes, one.dst.received_bytes) == (one.plan.received_bytes, one.plan.sent_bytes)
    return result


def inject(namespace: Any, interface: str, frames: Sequence[bytes]) -> None:
    """Send frames as they are, link header included."""
    text = "\n".join(frame.hex() for frame in frames)
    namespace.run([sys.executable, "-P", __file__, "inject", interface], input=text)


@contextmanager
def tunnel(near: Any, far: Any, name: str, addresses: Sequence[tuple[str, str]]) -> Iterator[None]:
    """A tun device in each namespace, with no link header, joined by two processes that copy packets."""
    with ExitStack() as stack:
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for namespace, end in zip((near, far), ends, strict=True):
            stack.callback(end.close)
            arguments = ["tun", name, str(end.fileno())]
            process = stack.enter_context(_program(namespace, *arguments, pass_fds=[end.fileno()]))
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            stack.callback(process.kill)
        for pair in addresses:
            for namespace, address in zip((near, far), pair, strict=True):
                namespace.run(["ip", "address", "add", address, "dev", name, *(["nodad"] if ":" in address else [])])
        for namespace in (near, far):
            # The device drops what its queue cannot hold.
            namespace.run(["ip", "link", "set", name, "txqueuelen", "5000", "up"])
        yield


@contextmanager
def _program(namespace: Any, *arguments: str, **options: Any) -> Iterator[Any]:
    process = namespace.popen([sys.executable, "-P", __file__, *arguments], stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdout, process.stderr):
            pipe.close()
        process.wait(TIMEOUT_S)


def _outcomes(process: Any) -> list[Outcome]:
    out, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")
    return [Outcome(**one) for one in json.loads(out)]


# --- serve and connect


def serve(address: str, plan: list[Connection]) -> None:
    with ExitStack() as stack:
        listeners = {one.port: stack.enter_context(new_socket(address, one)) for one in plan}
        for port, listener in listeners.items():
            listener.bind((address, port))
            listener.listen(len(plan))
        print("ready", flush=True)
        print_outcomes([(answer, (listeners[one.port], one)) for one in plan])


def connect(address: str, plan: list[Connection]) -> None:
    print_outcomes([(ask, (address, one)) for one in plan])


def print_outcomes(jobs: list[tuple[Any, tuple[Any, ...]]]) -> None:
    """Each job in a thread of its own."""
    outcomes: list[Outcome | None] = [None] * len(jobs)

    def work(index: int) -> None:
        function, arguments = jobs[index]
        outcomes[index] = function(*arguments)

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    print(json.dumps([asdict(outcome) for outcome in outcomes if outcome]))


def ask(address: str, plan: Connection) -> Outcome:
    with new_socket(address, plan) as one:
        one.connect((address, plan.port))
        for _ in range(plan.exchanges):
            send(one, plan.request_bytes)
            receive(one, plan.response_bytes)
        one.shutdown(socket.SHUT_WR)
        # The other end's FIN comes after all it had to say, and is acknowledged before we see it.
        assert one.recv(1) == b""
        return outcome(one, plan.port, plan.sent_bytes, plan.received_bytes)


def answer(listener: socket.socket, plan: Connection) -> Outcome:
    one, peer = listener.accept()
    with one:
        one.settimeout(TIMEOUT_S)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        set_options(one, plan)
        for _ in range(plan.exchanges):
            receive(one, plan.request_bytes)
            send(one, plan.response_bytes)
        assert one.recv(1) == b""
        one.shutdown(socket.SHUT_WR)
        await_last_ack(one)
        return outcome(one, peer[1], plan.received_bytes, plan.sent_bytes)


def new_socket(address: str, plan: Connection) -> socket.socket:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    one.settimeout(TIMEOUT_S)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, plan.send_buffer_bytes)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # There is no need for pacing between namespaces, and every kernel has this one.
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    if plan.mss_bytes is not None:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, plan.mss_bytes)
    set_options(one, plan)
    return one


def set_options(one: socket.socket, plan: Connection) -> None:
    """Those that an accepted socket may not have from its listener."""
    ipv6 = one.family == socket.AF_INET6
    if plan.traffic_class is not None:
        level, name = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if ipv6 else (socket.IPPROTO_IP, socket.IP_TOS)
        one.setsockopt(level, name, plan.traffic_class)
    if plan.ip_options:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes.fromhex(plan.ip_options))
    if plan.hop_options:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, bytes.fromhex(plan.hop_options))
    if plan.destination_options:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes.fromhex(plan.destination_options))


def send(one: socket.socket, size: int) -> None:
    while size:
        size -= one.send(CHUNK[:size])


def receive(one: socket.socket, size: int) -> None:
    while size:
        data = one.recv(min(size, 1 << 18))
        assert data, "the connection has ended early"
        size -= len(data)


def await_last_ack(one: socket.socket) -> None:
    """Nothing tells when LAST-ACK is over."""
    end = time.monotonic() + TIMEOUT_S
    while one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_CLOSE:
        assert time.monotonic() < end, "the last ACK has not come"
        select.select([], [], [], 0.0005)


def outcome(one: socket.socket, peer_port: int, sent_bytes: int, received_bytes: int) -> Outcome:
    """Offsets are those of struct tcp_info, linux/tcp.h."""
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
    (mss,) = struct.unpack_from("=I", info, 16)
    segments_out, segments_in, _, _, _, data_segments_out = struct.unpack_from("=6I", info, 136)
    bytes_sent, retransmitted = struct.unpack_from("=QQ", info, 200)
    assert bytes_sent == sent_bytes + retransmitted, (bytes_sent, sent_bytes, retransmitted)
    return Outcome(
        port=one.getsockname()[1],
        peer_port=peer_port,
        sent_bytes=sent_bytes,
        received_bytes=received_bytes,
        segments_out=segments_out,
        segments_in=segments_in,
        data_segments_out=data_segments_out,
        retransmitted_bytes=retransmitted,
        mss_bytes=mss,
    )


# --- inject and tun


def inject_lines(interface: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as one:
        one.bind((interface, 0))
        for line in sys.stdin:
            one.send(bytes.fromhex(line))


def tun(name: str, fd: int) -> None:
    """Copy packets between a new tun device and a packet-preserving socket, until that ends."""
    set_interface, tun_mode, no_packet_info = 0x400454CA, 0x0001, 0x1000
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, set_interface, struct.pack("16sH22x", name.encode(), tun_mode | no_packet_info))
    print("ready", flush=True)

    def inward() -> None:
        while packet := os.read(fd, 65536):
            # A device that is not up yet takes nothing.
            with suppress(OSError):
                os.write(device, packet)
        os._exit(0)

    threading.Thread(target=inward, daemon=True).start()
    while True:
        os.write(fd, os.read(device, 65536))


def main(command: str, *arguments: str) -> None:
    if command == "inject":
        inject_lines(arguments[0])
    elif command == "tun":
        tun(arguments[0], int(arguments[1]))
    else:
        plan = [Connection(**one) for one in json.loads(arguments[1])]
        {"serve": serve, "connect": connect}[command](arguments[0], plan)


if __name__ == "__main__":
    main(*sys.argv[1:])
