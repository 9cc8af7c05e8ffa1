"""The kernel's states of both ends of a connection, by `ss` and as `--events` tells of each change."""

import socket
import struct
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from netns_tools import Namespace
from programs import probes
from programs.inside import Pair, Sockets
from programs.stage import FAR, NEAR, Stage
from programs.watch import Watch
from programs.wire import FIN, Segment, Wire

NEVER_ANSWERED, ANSWER_LOST, HANDSHAKE_LOST, ORDERLY, UNHEARD_FIN, LAST_ACK_LOST, CROSSED, RESET = range(7001, 7009)
NO_LINGER = struct.pack("ii", 1, 0)
Changes = list[tuple[str, str]]


class Losses:
    """What the wire loses of each connection, by its server's port."""

    def __init__(self) -> None:
        self.of_port: dict[int, Callable[[Segment], bool]] = {}

    def __call__(self, segment: Segment) -> bool:
        port = segment.destination_port if segment.outbound else segment.source_port
        return port in self.of_port and self.of_port[port](segment)


def all_but_first_fins() -> Callable[[Segment], bool]:
    finished = set()

    def loses(segment: Segment) -> bool:
        if segment.flags & FIN and segment.outbound not in finished:
            finished.add(segment.outbound)
            return False
        return True

    return loses


def open_pairs(stage: Stage, losses: Losses) -> dict[int, Pair | int]:
    """The connections, or the client's port where there is no connection of it."""
    losses.of_port[NEVER_ANSWERED] = lambda segment: True
    losses.of_port[ANSWER_LOST] = lambda segment: not segment.outbound
    losses.of_port[HANDSHAKE_LOST] = lambda segment: segment.is_pure_ack
    made: dict[int, Pair | int] = {}
    for port in (NEVER_ANSWERED, ANSWER_LOST, HANDSHAKE_LOST):
        stage.sockets.listener(stage.wire.far, FAR, port)
        made[port] = stage.connecting(port)[1]
    for port in (ORDERLY, UNHEARD_FIN, LAST_ACK_LOST, CROSSED, RESET):
        made[port] = pair = stage.sockets.pair(stage.wire.near, stage.wire.far, FAR, port)
        pair.ping_pong(1)
    return made


def close_all(pairs: dict[int, Pair], losses: Losses, wire: Wire) -> None:
    """As far as the wire lets them; the orderly one to the half."""
    pairs[ORDERLY].client.shutdown(socket.SHUT_WR)
    assert pairs[ORDERLY].server.recv(1) == b""
    losses.of_port[UNHEARD_FIN] = lambda segment: True
    pairs[UNHEARD_FIN].client.shutdown(socket.SHUT_WR)
    pairs[LAST_ACK_LOST].client.shutdown(socket.SHUT_WR)
    assert pairs[LAST_ACK_LOST].server.recv(1) == b""
    losses.of_port[LAST_ACK_LOST] = lambda segment: segment.outbound and segment.is_pure_ack
    pairs[LAST_ACK_LOST].server.close()
    assert pairs[LAST_ACK_LOST].client.recv(1) == b""
    wire.delay_s = 0.1
    losses.of_port[CROSSED] = all_but_first_fins()
    for end in (pairs[CROSSED].client, pairs[CROSSED].server):
        end.shutdown(socket.SHUT_WR)
    for end in (pairs[CROSSED].client, pairs[CROSSED].server):
        assert end.recv(1) == b""
    wire.delay_s = 0
    pairs[RESET].client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    pairs[RESET].client.close()
    with pytest.raises(ConnectionResetError):
        pairs[RESET].server.recv(1)
    pairs[RESET].server.close()


@pytest.fixture(params=probes.WAYS)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    probes.require(request.param)
    options = ("--events", "--probes", request.param)
    with (
        Namespace() as near,
        Namespace() as far,
        Sockets() as sockets,
        Wire(near, far, f"{NEAR}/24", f"{FAR}/24") as wire,
        Watch(near, *options) as watch_near,
        Watch(far, *options) as watch_far,
    ):
        for watch in (watch_near, watch_far):
            probes.check(watch, request.param)
        yield Stage(wire, sockets, watch_near, watch_far)


def test_states(stage: Stage) -> None:
    losses = Losses()
    stage.wire.loses = losses
    made = open_pairs(stage, losses)
    pairs = {port: one for port, one in made.items() if isinstance(one, Pair)}
    near_ports = {port: one.ports[0] if isinstance(one, Pair) else one for port, one in made.items()}

    def expect(port: int, near_state: str | None, far_state: str | None) -> None:
        stage.expect(near_ports[port], near_state, far_state, port)

    expect(ANSWER_LOST, "SYN-SENT", "SYN-RECEIVED")
    expect(HANDSHAKE_LOST, "ESTABLISHED", "SYN-RECEIVED")
    for port in pairs:
        expect(port, "ESTABLISHED", "ESTABLISHED")
    unanswered = near_ports[NEVER_ANSWERED], NEVER_ANSWERED
    assert stage.near.latest[unanswered]["kernel_state"] == "SYN-SENT" == stage.ss(stage.wire.near, *unanswered)
    assert unanswered not in stage.far.latest

    close_all(pairs, losses, stage.wire)
    expect(ORDERLY, "FIN-WAIT-2", "CLOSE-WAIT")
    expect(UNHEARD_FIN, "FIN-WAIT-1", "ESTABLISHED")
    expect(LAST_ACK_LOST, "TIME-WAIT", "LAST-ACK")
    expect(CROSSED, "CLOSING", "CLOSING")
    expect(RESET, None, None)
    pairs[ORDERLY].server.close()
    assert pairs[ORDERLY].client.recv(1) == b""
    expect(ORDERLY, "TIME-WAIT", None)

    for watch in (stage.near, stage.far):
        assert watch.end()["socket_records_lost"] == 0
    told = {
        port: (changes(stage.near, port, near), changes(stage.far, port, near)) for port, near in near_ports.items()
    }
    check_changes(told)


def changes(watch: Watch, port: int, near_port: int) -> Changes:
    """The state lines of an end of a connection, in their order."""
    events = [one for one in watch.of_kind("state") if {one["local_port"], one["remote_port"]} == {port, near_port}]
    connection = watch.latest.get((near_port, port))
    assert {one["connection_id"] for one in events} <= ({connection["connection_id"]} if connection else set())
    times = [one["time"] for one in events]
    assert times == sorted(times)
    return [(one["old_state"], one["new_state"]) for one in events]


def path(*states: str) -> Changes:
    return list(pairwise(states))


def check_changes(told: dict[int, tuple[Changes, Changes]]) -> None:
    """RFC 9293 section 3.3.2; TIME-WAIT is, to the kernel, what is left of a socket that is closed."""
    client, server = ("CLOSED", "SYN-SENT", "ESTABLISHED"), ("SYN-RECEIVED", "ESTABLISHED")
    assert told == {
        NEVER_ANSWERED: (path("CLOSED", "SYN-SENT"), []),
        # Before the handshake is over there is no socket at the server's end.
        ANSWER_LOST: (path("CLOSED", "SYN-SENT"), []),
        HANDSHAKE_LOST: (path(*client), []),
        ORDERLY: (
            path(*client, "FIN-WAIT-1", "FIN-WAIT-2", "CLOSED"),
            path(*server, "CLOSE-WAIT", "LAST-ACK", "CLOSED"),
        ),
        UNHEARD_FIN: (path(*client, "FIN-WAIT-1"), path(*server)),
        LAST_ACK_LOST: (
            path(*client, "FIN-WAIT-1", "FIN-WAIT-2", "CLOSED"),
            path(*server, "CLOSE-WAIT", "LAST-ACK"),
        ),
        CROSSED: (path(*client, "FIN-WAIT-1", "CLOSING"), path(*server, "FIN-WAIT-1", "CLOSING")),
        RESET: (path(*client, "CLOSED"), path(*server, "CLOSED")),
    }
