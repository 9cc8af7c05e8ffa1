"""Real sockets on lo, asked for as an ordinary user may; getsockopt(TCP_INFO) and ss are the judges."""

import errno
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import numpy as np
import pytest

from tcptrace.errors import MissingFeatureError, TcptraceError
from tcptrace.records import OWNER_UNKNOWN, ROLE_ACTIVE, ROLE_PASSIVE, ROLE_UNKNOWN, SOCKET_FOUND, SOCKET_KEY
from tcptrace.sources.live import sock_diag
from tcptrace.sources.live.sock_diag import SocketDiag, Sockets
from tcptrace.sources.live.socket_roles import find_roles

from .diag_bytes import done, failed, found, read_tcp_info

TIMEOUT_S = 30.0
FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE_WAIT, LISTEN = 4, 5, 6, 8, 10
# Field of SOCKET_VIEW -> of struct tcp_info; those that do not change while nothing is sent.
SAME = {
    "srtt_us": "rtt",
    "rttvar_us": "rttvar",
    "rtt_min_us": "min_rtt",
    "rto_us": "rto",
    "cwnd_packets": "snd_cwnd",
    "retransmissions": "total_retrans",
    "lost_packets": "lost",
    "sacked_packets": "sacked",
    "reordering_packets": "reordering",
    "delivered_packets": "delivered",
    "snd_wnd_bytes": "snd_wnd",
    "rcv_wnd_bytes": "rcv_wnd",
    "bytes_sent": "bytes_sent",
    "bytes_retransmitted": "bytes_retrans",
    "bytes_acked": "bytes_acked",
    "bytes_received": "bytes_received",
    "delivery_rate_bytes_per_s": "delivery_rate",
    "pacing_rate_bytes_per_s": "pacing_rate",
    "busy_us": "busy_time",
    "dsack_duplicates": "dsack_dups",
    "congestion_state": "ca_state",
    "state": "state",
}


class Loopback(ExitStack):
    """Connections over lo, closed at the end."""

    def listener(self, address: str = "127.0.0.1") -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = self.enter_context(socket.socket(family))
        made.bind((address, 0))
        made.listen()
        return made

    def pair(self, listener: socket.socket, to: str | None = None) -> tuple[socket.socket, socket.socket]:
        """(client, server), between which something was sent there and back."""
        port = listener.getsockname()[1]
        client = self.enter_context(socket.create_connection((to or listener.getsockname()[0], port), TIMEOUT_S))
        server = self.enter_context(listener.accept()[0])
        server.settimeout(TIMEOUT_S)
        for one, other, count in ((client, server, 1000), (server, client, 300)):
            one.sendall(bytes(count))
            other.recv(count, socket.MSG_WAITALL)
        return client, server


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with Loopback() as made:
        yield made


@pytest.fixture
def diag() -> Iterator[SocketDiag]:
    made = SocketDiag()
    yield made
    made.close()
    made.close()


def mapped(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address if ":" in address else f"::ffff:{address}")


def key_of(one: socket.socket, netns: int = 0) -> np.ndarray:
    key = np.zeros(1, SOCKET_KEY)
    for end, name in (("local", one.getsockname()), ("remote", one.getpeername())):
        key[f"{end}_addr"] = np.frombuffer(mapped(name[0]), np.uint8)
        key[f"{end}_port"] = name[1]
    key["netns"] = netns
    key["ip_version"] = 4 if mapped(one.getsockname()[0])[:12] == bytes(10) + b"\xff\xff" else 6
    return key


def index_of(one: socket.socket, sockets: Sockets) -> int:
    (index,) = np.flatnonzero(sockets.inodes == os.fstat(one.fileno()).st_ino)
    return int(index)


def has_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on lo")


# --- All of them


def test_a_dump_says_what_tcp_info_says(loopback: Loopback, diag: SocketDiag) -> None:
    pair = loopback.pair(loopback.listener())
    sockets = diag.dump(123)
    for one in pair:
        info = read_tcp_info(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 240))
        index = index_of(one, sockets)
        record = sockets.records[index]
        assert record["key"] == key_of(one, os.stat("/proc/self/ns/net").st_ino)
        assert (record["time_ns"], record["view"]["time_ns"], record["event"]) == (123, 123, SOCKET_FOUND)
        assert {name: record["view"][name] for name, field in SAME.items() if field in info} == {
            name: info[field] for name, field in SAME.items() if field in info
        }
        name = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")
        assert bytes(record["view"]["congestion_control"]).rstrip(b"\0") == name
        assert record["view"]["uid"] == os.geteuid()
        assert (record["view"]["pid"], record["view"]["owner_source"]) == (-1, OWNER_UNKNOWN)
        assert sockets.families[index] == socket.AF_INET


@pytest.mark.skipif(shutil.which("ss") is None, reason="needs ss")
def test_a_dump_says_what_ss_says(loopback: Loopback, diag: SocketDiag) -> None:
    client, _ = loopback.pair(loopback.listener())
    port = client.getsockname()[1]
    view = (sockets := diag.dump(1)).records["view"][index_of(client, sockets)]
    shown = subprocess.run(
        ["ss", "-tineH", "sport", "=", f":{port}"], capture_output=True, text=True, check=True
    ).stdout
    words = dict(re.findall(r"(\w+):(\S+)", shown))
    rtt_ms, rttvar_ms = map(float, words["rtt"].split("/"))
    assert (view["srtt_us"], view["rttvar_us"]) == (round(rtt_ms * 1000), round(rttvar_ms * 1000))
    assert view["rto_us"] == float(words["rto"]) * 1000
    assert view["cwnd_packets"] == int(words["cwnd"])
    assert view["bytes_acked"] == int(words["bytes_acked"])
    assert int(words["ino"]) == sockets.inodes[index_of(client, sockets)]
    assert shown.split()[0] == "ESTAB"


def test_states(loopback: Loopback, diag: SocketDiag) -> None:
    listener = loopback.listener()
    client, server = loopback.pair(listener)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    sockets = diag.dump(1)
    ends = [sockets.records["view"]["state"][index_of(one, sockets)] for one in (client, server, listener)]
    assert ends[1:] == [CLOSE_WAIT, LISTEN]
    assert ends[0] in (FIN_WAIT1, FIN_WAIT2)  # the FIN's acknowledgment may be delayed
    key = key_of(client)
    server.close()
    assert client.recv(1) == b""
    client.close()
    records, found = diag.ask(key, 1)
    assert found.tolist() == [True]
    view = records["view"][0]
    assert view["state"] == TIME_WAIT
    assert (view["srtt_us"], view["uid"], view["cgroup_id"], view["time_ns"]) == (-1, -1, -1, 1)


@needs_ipv6
def test_ipv6_and_mapped_addresses(loopback: Loopback, diag: SocketDiag) -> None:
    pair = loopback.pair(loopback.listener("::1"))
    mapped_client, mapped_server = loopback.pair(loopback.listener("::"), "127.0.0.1")
    sockets = diag.dump(1)
    versions = [sockets.records["key"]["ip_version"][index_of(one, sockets)] for one in (*pair, mapped_server)]
    assert versions == [6, 6, 4]
    assert sockets.families[index_of(mapped_server, sockets)] == socket.AF_INET6
    keys = np.concatenate([key_of(one) for one in (*pair, mapped_client, mapped_server)])
    records, found = diag.ask(keys, 1)
    assert found.all()
    assert np.array_equal(records["key"]["local_port"], keys["local_port"])
    assert records["key"]["ip_version"].tolist() == [6, 6, 4, 4]


# --- Exactly these


def test_asked_for_is_what_is_dumped(loopback: Loopback, diag: SocketDiag) -> None:
    listener = loopback.listener()
    sockets = [one for _ in range(20) for one in loopback.pair(listener)]
    keys = np.concatenate([key_of(one, diag.netns) for one in sockets])
    gone = keys[:1].copy()
    gone["remote_port"] = 1
    records, found = diag.ask(np.concatenate([keys[:7], gone, keys[7:]]), 9)
    assert found.tolist() == [True] * 7 + [False] + [True] * 33
    dumped = diag.dump(9)
    expected = dumped.records[[index_of(one, dumped) for one in sockets]]
    assert np.array_equal(records, expected)


def test_a_listener_is_not_taken_for_the_connection(loopback: Loopback, diag: SocketDiag) -> None:
    _, server = loopback.pair(loopback.listener())
    key = key_of(server)
    key["remote_port"] = 1
    records, found = diag.ask(key, 1)
    assert (len(records), found.tolist()) == (0, [False])


def test_asking_for_nothing(diag: SocketDiag) -> None:
    records, found = diag.ask(np.zeros(0, SOCKET_KEY), 1)
    assert (len(records), len(found)) == (0, 0)


def test_the_buffer_overflows_and_all_the_same_nothing_is_missing(loopback: Loopback, diag: SocketDiag) -> None:
    client, _ = loopback.pair(loopback.listener())
    diag._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the smallest that the kernel gives
    diag._requests = 256
    _, found = diag.ask(np.repeat(key_of(client), 1000), 1)
    assert found.all()
    assert diag._requests < 256
    assert len(diag.dump(1).records) >= 3


# --- Who connected


def test_of_a_loopback_connection_one_end_is_passive(loopback: Loopback, diag: SocketDiag) -> None:
    first, second = loopback.listener(), loopback.listener()
    client, server = loopback.pair(first)
    # From a port that is listened on to another one that is.
    crossed = loopback.enter_context(socket.socket())
    second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    crossed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    crossed.bind(("127.0.0.1", 0))
    crossed.connect(first.getsockname())
    accepted = loopback.enter_context(first.accept()[0])
    sockets = diag.dump(1)
    roles = find_roles(sockets)
    passive = [roles[index_of(one, sockets)] for one in (client, server, crossed, accepted, first)]
    assert passive == [ROLE_ACTIVE, ROLE_PASSIVE, ROLE_ACTIVE, ROLE_PASSIVE, ROLE_UNKNOWN]


# --- A kernel that answers otherwise


class Answers:
    """In place of the netlink socket: what it answers to each request."""

    def __init__(self, *datagrams: bytes) -> None:
        self.datagrams = list(datagrams)

    def send(self, request: bytes) -> int:
        return len(request)

    def recv_into(self, buffer: bytearray, _size: int, _flags: int) -> int:
        data = self.datagrams.pop(0)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        pass


def answering(diag: SocketDiag, *datagrams: bytes) -> SocketDiag:
    diag.close()
    diag._socket = Answers(*datagrams)  # type: ignore[assignment]
    return diag


ENDS = ("192.0.2.1", 1), ("192.0.2.2", 2)


def test_an_answer_to_somebody_elses_question_is_passed_over(diag: SocketDiag) -> None:
    answering(diag, found(*ENDS, seq=99), found(*ENDS), done(seq=1), done(seq=2))
    assert len(diag.dump(1).records) == 1


def test_a_disturbed_dump_is_repeated(diag: SocketDiag) -> None:
    two = found(*ENDS) + found(*ENDS)
    answering(
        diag,
        two + found(*ENDS, flags=sock_diag.NLM_F_DUMP_INTR) + done(),
        found(*ENDS, seq=2) + done(seq=2),
        done(seq=3),
    )
    assert len(diag.dump(1).records) == 1


def test_a_kernel_without_ipv6(diag: SocketDiag) -> None:
    answering(diag, found(*ENDS) + done(), failed(errno.ENOENT, seq=2))
    assert len(diag.dump(1).records) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (failed(errno.ENOENT), MissingFeatureError, "it has no inet_diag and tcp_diag"),
        (done(errno.ENOENT), MissingFeatureError, "it has no inet_diag and tcp_diag"),
        (failed(errno.EPERM), MissingFeatureError, "Operation not permitted"),
        (failed(errno.EOPNOTSUPP), MissingFeatureError, "Operation not supported"),
        (done(errno.ENOMEM), TcptraceError, "Cannot allocate memory"),
        (found(*ENDS)[:50], TcptraceError, "cut off"),
    ],
)
def test_a_kernel_that_cannot(diag: SocketDiag, answer: bytes, kind: type[TcptraceError], said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        answering(diag, answer).dump(1)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_a_kernel_without_netlink_diag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sock_diag, "NETLINK_SOCK_DIAG", 31)
    with pytest.raises(MissingFeatureError, match="Protocol not supported"):
        SocketDiag()
