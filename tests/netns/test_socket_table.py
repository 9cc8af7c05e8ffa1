"""Which sockets are in the table, and what the options for them do."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from netns_tools import TIMEOUT_S, Namespace, veth
from programs import probes
from programs.inside import Pair, Sockets, mark
from programs.ss import numbers_of, socket_of, sockets_of
from programs.stage import FAR, NEAR
from programs.watch import Event, Watch, settle
from programs.wire import Wire
from test_terminal import Terminal
from tracer import COMMAND

BESIDE_NEAR, BESIDE = "10.9.2.1", "10.9.2.2"
UNWANTED_PORT = 7999
OPEN = 10_000
# Accepts, or connects, so often; then stays until its input ends.
MANY = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
what, address, count = sys.argv[1], (sys.argv[2], 7000), int(sys.argv[3])
if what == "accept":
    listener = socket.create_server(address, backlog=4096)
    print("ready", flush=True)
    kept = [listener.accept()[0] for _ in range(count)]
else:
    kept = [socket.create_connection(address) for _ in range(count)]
print("ready", flush=True)
sys.stdin.read()
"""


def kernel_fields(line: Event) -> dict[str, object]:
    names = list(line)
    return {name: line[name] for name in names[names.index("kernel_state") : names.index("last_packets")]}


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with Namespace() as near, Namespace() as far:
        veth(near, far, f"{NEAR}/24", f"{FAR}/24")
        yield near, far


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with Sockets() as sockets:
        yield sockets


def test_ten_thousand_open_sockets(ends: tuple[Namespace, Namespace], capsys: pytest.CaptureFixture[str]) -> None:
    near, far = ends
    count = str(OPEN)
    with far.popen_python(MANY, "accept", FAR, count, stderr=None) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        with near.popen_python(MANY, "connect", FAR, count, stderr=None) as client:
            assert client.stdout is not None
            assert (client.stdout.readline(), server.stdout.readline()) == ("ready\n", "ready\n")
            expected = {(one.local_port, one.peer_port): (one.state, one.pids) for one in sockets_of(near)}
            assert len(expected) == OPEN
            began_s = time.monotonic()
            with Watch(near, interval_s=1) as watch:
                attached_s = time.monotonic()
                raw = watch.lines(OPEN)
                seen_s = time.monotonic()
            with Terminal(near) as terminal:
                terminal.read_until(lambda written: f"{OPEN:,} connections".encode() in written)
                shown_s = time.monotonic() - terminal.began
            server.communicate()
            client.communicate()
    with capsys.disabled():
        print(
            f" [{OPEN} sockets: all read as JSON {seen_s - attached_s:.2f} s after attaching, {seen_s - began_s:.2f} s "
            f"after the start; in the terminal's table {shown_s:.2f} s after the start]",
            end="",
        )
    lines = list(map(json.loads, raw))
    assert {one["event"] for one in lines} == {"connection"}
    assert {(one["src_port"], one["dst_port"]): (one["kernel_state"], {one["pid"]}) for one in lines} == expected
    # Of one interval, and it is the first one.
    assert len({one["time"] for one in lines}) == 1
    assert {(one["src_ip"], one["dst_ip"], one["near_end"], one["initiator_known"]) for one in lines} == {
        (NEAR, FAR, "src", True)
    }
    assert {(one["process"], one["uid"], one["sent_packets"]) for one in lines} == {(lines[0]["process"], 0, 0)}
    assert lines[0]["process"].startswith("python")


def test_what_is_not_on_the_interface_is_not_in_the_table(ends: tuple[Namespace, Namespace], sockets: Sockets) -> None:
    """Other interfaces, other namespaces and what the filter leaves out; open before the trace or opened in it."""
    near, far = ends
    with Namespace() as beside:
        veth(near, beside, f"{BESIDE_NEAR}/24", f"{BESIDE}/24", name_a="veth1")

        def open_all(first_port: int) -> tuple[list[Pair], list[Pair]]:
            wanted = [sockets.pair(near, far, FAR, first_port), sockets.pair(far, near, NEAR, first_port + 1)]
            others = [
                sockets.pair(near, far, FAR, UNWANTED_PORT),
                sockets.pair(near, beside, BESIDE, first_port + 2),
                sockets.pair(near, near, NEAR, first_port + 3),
                sockets.pair(near, near, "127.0.0.1", first_port + 4),
                sockets.pair(far, far, FAR, first_port + 5),
            ]
            return wanted, others

        before, others_before = open_all(7100)
        with Watch(near, f"not port {UNWANTED_PORT}", "--events") as watch:
            since, others_since = open_all(7200)
            for pair in (*before, *since, *others_before, *others_since):
                pair.ping_pong(2)
            settle((watch,), lambda: mark(sockets, near, FAR))
            wanted = {pair.ports for pair in (*before, *since)}
            markers = {ports for ports in watch.latest if ports[1] == 9}
            assert set(watch.latest) - markers == wanted
            for number, pair in enumerate((*before, *since)):
                own = pair.ports if number % 2 == 0 else pair.ports[::-1]
                judge = socket_of(near, *own)
                assert judge is not None
                line = watch.latest[pair.ports]
                assert numbers_of(line) == judge.numbers()
                assert (line["pid"], line["near_end"]) == (os.getpid(), "src" if number % 2 == 0 else "dst")
                assert line["peer_kernel_state"] is None
            watch.end()
        told = {frozenset((one["local_port"], one["remote_port"])) for one in watch.of_kind("state")}
        assert {frozenset(pair.ports) for pair in since} <= told
        assert told <= {frozenset(ports) for ports in wanted | markers}
        assert {one["connection_id"] for one in watch.of_kind("state")} <= {
            line["connection_id"] for line in watch.latest.values()
        }


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_both_ends_on_this_host(sockets: Sockets, address: str) -> None:
    with Namespace() as host, Watch(host, interface="lo") as watch:
        pair = sockets.pair(host, host, address, 7001)
        pair.ping_pong(5, 1234)
        settle((watch,), lambda: mark(sockets, host, "127.0.0.1"))
        line = watch.latest[pair.ports]
        near, peer = socket_of(host, *pair.ports), socket_of(host, *pair.ports[::-1])
        assert near is not None
        assert peer is not None
        assert numbers_of(line) == near.numbers()
        assert {f"peer_{name}": value for name, value in peer.numbers().items()}.items() >= {
            name: line[name]
            for name in ("peer_kernel_state", "peer_srtt_us", "peer_cwnd_packets", "peer_kernel_retransmissions")
        }.items()
        assert (line["pid"], line["peer_pid"], line["kernel_bytes_sent"]) == (os.getpid(), os.getpid(), 5 * 1234)
        watch.end()


def test_without_probes(ends: tuple[Namespace, Namespace], sockets: Sockets) -> None:
    near, far = ends
    old = sockets.pair(near, far, FAR, 7001)
    with Watch(near, "--probes", "off") as watch:
        assert watch.start["probes"] is None
        pair = sockets.pair(near, far, FAR, 7002)
        pair.ping_pong(10)
        settle((watch,), lambda: mark(sockets, near, FAR))
        line = watch.latest[pair.ports]
        summary = watch.end()
    assert set(kernel_fields(line).values()) == {None}
    assert (line["state"], line["sent_payload_bytes"], line["received_payload_bytes"]) == ("ESTABLISHED", 1000, 1000)
    assert old.ports not in watch.latest
    assert (summary["socket_records"], summary["socket_records_lost"]) == (None, None)


def test_kprobes_where_there_are_none(ends: tuple[Namespace, Namespace]) -> None:
    if probes.HAS_KPROBES:
        pytest.skip("this kernel has kprobes")
    near, _ = ends
    command = [str(COMMAND), "--json", "--probes", "kprobes", "veth0"]
    result = near.run(command, check=False, stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr.count("\n") == 1
    assert "this kernel has no kprobes (CONFIG_KPROBES): try --probes tracepoints" in result.stderr


def test_how_often_a_socket_is_looked_at() -> None:
    """An acknowledgment comes every 20 ms, for two seconds and more."""
    with (
        Namespace() as near,
        Namespace() as far,
        Sockets() as sockets,
        Wire(near, far, f"{NEAR}/24", f"{FAR}/24") as wire,
        Watch(near, "--samples", "1", interval_s=5) as seldom,
        Watch(near, "--samples", "50", interval_s=5) as often,
    ):
        pair = sockets.pair(near, far, FAR, 7001)
        pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.delay_s = 0.01
        began_s = time.monotonic()
        pair.ping_pong(100)
        took_s = time.monotonic() - began_s
        few, many = (watch.end()["socket_records"] for watch in (seldom, often))
    # Not samples: that it was opened, and its state each time.
    others = 4
    assert 1 <= few <= took_s + 1 + others
    assert 80 <= many <= 50 * took_s + 1 + others
    assert took_s < TIMEOUT_S
