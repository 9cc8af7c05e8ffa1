"""Sockets that are open when somebody asks, in namespaces of their own; `ss` and `ip` are the judges."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest
from netns_tools import Namespace, veth
from programs.inside import Sockets, inside

# Prints the sockets of an interface, one a line: local port, remote port, state, role, pid.
OPEN = """
import os, sys, time
from tcptrace.sources.live.containers import Cgroups
from tcptrace.sources.live.interface import find_interface
from tcptrace.sources.live.open_sockets import find_open_sockets
from tcptrace.sources.live.sock_diag import SocketDiag
from tcptrace.sources.live.socket_roles import find_roles
start_s = time.perf_counter()
diag = SocketDiag()
interface = find_interface(sys.argv[1])
every = diag.dump(1)
every.records["view"]["role"] = find_roles(every)
records = find_open_sockets(every, Cgroups(), interface, " ".join(sys.argv[2:]))
took_s = time.perf_counter() - start_s
if os.environ.get("AS_NOBODY"):
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
ask_s = time.perf_counter()
answers, found = diag.ask(records["key"], 2, interface.index)
ask_s = time.perf_counter() - ask_s
assert len(answers) == len(records) == found.sum()
print(f"{len(records)} sockets found in {took_s:.3f} s, asked for again in {ask_s:.3f} s", file=sys.stderr)
for record in records:
    view, key = record["view"], record["key"]
    print(key["local_port"], key["remote_port"], view["state"], view["role"], view["pid"])
"""
ENTER = """
import os, sys
from tcptrace.errors import TcptraceError
from tcptrace.sources.live.network_namespace import enter, inode
from tcptrace.sources.live.interface import find_interface
if sys.argv[2:]:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    enter(sys.argv[1])
    print(inode(), find_interface("lo").is_up)
except TcptraceError as error:
    print(error.exit_code, error)
"""
# So many connections to itself, until its input ends.
MANY = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
listener = socket.create_server(("127.0.0.1", 7000), backlog=128)
kept = []
for _ in range(int(sys.argv[1])):
    kept += [socket.create_connection(("127.0.0.1", 7000)), listener.accept()[0]]
print("ready", flush=True)
sys.stdin.read()
"""
ESTABLISHED, SYN_RECV = 1, 3
ACTIVE, PASSIVE = 1, 2


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with Namespace() as near, Namespace() as far:
        veth(near, far, ["10.1.1.1/24", "fd01::1/64"], ["10.1.1.2/24", "fd01::2/64"])
        yield near, far


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with Sockets() as made:
        yield made


def open_on(namespace: Namespace, *arguments: str) -> set[tuple[int, ...]]:
    lines = namespace.python(OPEN, *arguments, env=os.environ | {"AS_NOBODY": "1"}).stdout.splitlines()
    return {tuple(map(int, line.split())) for line in lines}


@pytest.mark.parametrize("address", ["10.1.1.2", "fd01::2"])
def test_both_ends_of_a_link(ends: tuple[Namespace, Namespace], sockets: Sockets, address: str) -> None:
    near, far = ends
    listener = sockets.listener(far, address, 80)
    client = sockets.client(near, address, 80)
    server = sockets.enter_context(listener.accept()[0])
    port = client.getsockname()[1]
    assert open_on(near, "veth0") == {(port, 80, ESTABLISHED, ACTIVE, os.getpid())}
    assert open_on(far, "veth0") == {(80, port, ESTABLISHED, PASSIVE, os.getpid())}
    assert open_on(near, "veth0", "port", "81") == set()
    assert open_on(near, "veth0", f"port {port} and dst port 80") == open_on(near, "veth0")
    for namespace in ends:
        assert open_on(namespace, "lo") == set()
    server.close()


def test_over_lo_goes_what_is_for_this_host(ends: tuple[Namespace, Namespace], sockets: Sockets) -> None:
    near, _ = ends
    ports = []
    for address in ("127.0.0.1", "10.1.1.1", "::1", "fd01::1"):
        pair = sockets.pair(near, near, address, 90)
        ports.append(pair.ports[0])
    seen = open_on(near, "lo")
    assert seen == {
        line
        for port in ports
        for line in ((port, 90, ESTABLISHED, ACTIVE, os.getpid()), (90, port, ESTABLISHED, PASSIVE, os.getpid()))
    }
    assert open_on(near, "veth0") == set()


def test_link_local_addresses_are_of_one_interface(ends: tuple[Namespace, Namespace], sockets: Sockets) -> None:
    near, far = ends
    near.run(["ip", "link", "add", "other", "type", "veth", "peer", "name", "beside"])
    for namespace, names, address in ((near, ("veth0", "other"), "fe80::11/64"), (far, ("veth0",), "fe80::12/64")):
        for name in names:
            namespace.run(["ip", "address", "add", address, "dev", name, "nodad"])
            namespace.run(["ip", "link", "set", name, "up"])
    listener = sockets.stream(far, socket.AF_INET6)
    listener.bind(("fe80::12", 80, 0, far.index_of("veth0")))
    listener.listen()
    client = sockets.stream(near, socket.AF_INET6)
    client.bind(("fe80::11", 0, 0, near.index_of("veth0")))
    client.connect(("fe80::12", 80, 0, near.index_of("veth0")))
    assert open_on(near, "veth0") == {(client.getsockname()[1], 80, ESTABLISHED, ACTIVE, os.getpid())}
    assert open_on(near, "other") == set()


def test_half_open(ends: tuple[Namespace, Namespace], sockets: Sockets) -> None:
    """A SYN whose sender does not exist: the listener keeps a request, which is no socket yet."""
    near, far = ends
    far.run(["ip", "route", "add", "blackhole", "203.0.113.0/24"])
    far.run(["ip", "route", "replace", "203.0.113.5", "dev", "veth0"])
    sockets.listener(far, "10.1.1.2", 80)
    with inside(near):
        raw = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
    raw.sendto(syn("203.0.113.5", 4000, "10.1.1.2", 80), ("10.1.1.2", 0))
    assert open_on(far, "veth0") == {(80, 4000, SYN_RECV, PASSIVE, -1)}
    assert "SYN-RECV" in far.output("ss", "-tanH")


def syn(source: str, source_port: int, destination: str, port: int) -> bytes:
    """A packet; of the IP header the kernel fills in what is zero."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    segment = struct.pack(">HHIIBBHHH", source_port, port, 1, 0, 5 << 4, 2, 1000, 0, 0)
    total = sum(struct.unpack(">16H", addresses + struct.pack(">HH", socket.IPPROTO_TCP, len(segment)) + segment))
    checksum = ~(total % 0xFFFF) & 0xFFFF
    segment = segment[:16] + struct.pack(">H", checksum) + segment[18:]
    return struct.pack(">BBHHHBBH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0) + addresses + segment


def test_ten_thousand(capsys: pytest.CaptureFixture[str]) -> None:
    with Namespace() as namespace, namespace.popen_python(MANY, "5000", stderr=None) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        result = namespace.python(OPEN, "lo", env=os.environ | {"AS_NOBODY": "1"})
        lines = result.stdout.splitlines()
        assert len(lines) == 10_000
        roles = [line.split()[3:] for line in lines]
        assert roles.count([str(ACTIVE), str(process.pid)]) == 5000
        assert roles.count([str(PASSIVE), str(process.pid)]) == 5000
        with capsys.disabled():
            print(f"\n{result.stderr.strip()}")
        process.communicate()


# --- Going into a namespace


def enter(which: str, *as_nobody: str) -> str:
    command = [sys.executable, "-P", "-c", ENTER, which, *as_nobody]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_into_a_namespace_by_name_path_and_process() -> None:
    with Namespace() as namespace, namespace.popen(["cat"]) as process:
        path = f"/run/netns/{namespace.name}"
        expected = f"{os.stat(path).st_ino} True"
        assert expected != f"{os.stat('/proc/self/ns/net').st_ino} True"
        for which in (namespace.name, path, str(process.pid)):
            assert enter(which) == expected
        assert enter(path, "as nobody") == f"3 entering network namespace {path} needs root, or CAP_SYS_ADMIN; " + (
            "try: sudo tcptrace …"
        )
        assert enter("/proc/self/ns/uts") == "1 not a network namespace: /proc/self/ns/uts"
        process.communicate()
