"""Why the kernel sent segments again: each cause made to happen, and the sums where all of them do."""

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import pytest
from netns_tools import TIMEOUT_S, Namespace
from programs import mib, probes
from programs.inside import Pair, Sockets, mark
from programs.scenes import TCPI_TOTAL_RETRANS_AT, tcp_info, wait_until
from programs.stage import FAR, NEAR
from programs.watch import Event, Watch, settle
from programs.wire import SYN, Segment, Wire, lose_nothing

CAUSES = ("rto", "fast", "tlp", "syn", "syn_ack", "other")
SUMMANDS = (*CAUSES, "unseen")

# struct tcp_info of linux/tcp.h
TCPI_UNACKED_AT = 24
MSS_BYTES = 1400
BURST = 24
"""Segments; more than one window of them."""
FIRST_WINDOW = 8
"""Segments that are sent at once: nothing is left for a loss probe that would not be a retransmission."""
DELAY_S = 0.02


def counted(line: Event) -> dict[str, int]:
    """The kernel's retransmissions of a `connection` line that are not zero, by cause."""
    return {name: count for name in SUMMANDS if (count := line[f"retransmissions_{name}"])}


# --- Each cause by itself


def test_segments_are_told_apart() -> None:
    """The scenes' own judgment of what to lose."""
    lose = Once(lambda number: number == 2)
    data, ack = Segment(True, 1, 2, 24, 100), Segment(True, 1, 2, 16, 0)
    assert [lose(one) for one in (data, ack, data, data, ack)] == [False, False, True, False, False]
    assert lose.lost == 1


class Once:
    """Loses what goes out of those data segments, counted from 1, that are chosen."""

    def __init__(self, chosen: Callable[[int], bool]) -> None:
        self._chosen = chosen
        self._seen = 0
        self.lost = 0

    def __call__(self, segment: Segment) -> bool:
        if not segment.outbound or not segment.payload_bytes:
            return False
        self._seen += 1
        lost = self._chosen(self._seen)
        self.lost += lost
        return lost


@dataclass(frozen=True)
class Told:
    """What a scene led to: the last line of the tracer at the sender's end, its events, and the judges."""

    line: Event
    events: list[Event]
    kernels: int
    """tcpi_total_retrans of the socket in the end."""
    counters: mib.Counts
    """How much the namespace's went up."""
    expected: int
    """Retransmissions that the scene is made of, as far as that is in its hand."""


def retransmitted(pair: Pair) -> int:
    """By the client, as its kernel counts."""
    return tcp_info(pair.client, TCPI_TOTAL_RETRANS_AT)


class Scenes:
    """Traffic over a wire that a tracer at each end looks at."""

    def __init__(self, wire: Wire, sockets: Sockets) -> None:
        self.wire, self.sockets = wire, sockets
        self._ports = iter(range(7000, 7100))

    def pair(self) -> Pair:
        pair = self.sockets.pair(self.wire.near, self.wire.far, FAR, next(self._ports))
        pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair.ping_pong(3)
        return pair

    def burst(self, pair: Pair, loses: Callable[[Segment], bool], segments: int = BURST) -> None:
        """To the last acknowledgment."""
        self.wire.loses = loses
        size = segments * MSS_BYTES
        pair.client.sendall(bytes(size))
        self.received(pair, size)

    def received(self, pair: Pair, size: int) -> None:
        while size:
            size -= len(pair.server.recv(size))
        wait_until(lambda: tcp_info(pair.client, TCPI_UNACKED_AT) == 0)
        self.wire.loses = lose_nothing

    def fast(self) -> tuple[Pair, int]:
        """One segment of the middle is lost once: those after it report that."""
        pair = self.pair()
        for _ in range(3):
            self.burst(pair, Once(lambda number: number == BURST // 2))
        return pair, 3

    def tail(self) -> tuple[Pair, int]:
        """The last segment of each burst is lost once: nothing after it could report that."""
        pair = self.pair()
        for _ in range(4):
            self.burst(pair, Once(lambda number: number == BURST))
        return pair, 4

    def timeout(self) -> tuple[Pair, int]:
        """The path is gone until the timer has run out three times; a burst was under way, all of which is lost."""
        pair = self.pair()
        self.wire.loses = lambda segment: segment.outbound
        size = FIRST_WINDOW * MSS_BYTES
        pair.client.sendall(bytes(size))
        before = mib.read(self.wire.near)["rto"]
        wait_until(lambda: mib.read(self.wire.near)["rto"] - before >= 3)
        self.wire.loses = lose_nothing
        self.received(pair, size)
        return pair, 0

    def stuck(self) -> Pair:
        """The path is gone under it, for as long as the wire loses: the timer runs out time and again."""
        pair = self.pair()
        self.wire.loses = lambda segment: segment.outbound
        pair.client.sendall(bytes(MSS_BYTES))
        wait_until(lambda: retransmitted(pair) >= 3)
        return pair

    def syn(self) -> tuple[Pair, int]:
        """Two SYNs are lost."""
        port = next(self._ports)
        listener = self.sockets.listener(self.wire.far, FAR, port)
        syns = 0

        def loses(segment: Segment) -> bool:
            nonlocal syns
            syns += segment.outbound and segment.flags == SYN
            return syns <= 2

        self.wire.loses = loses
        client = self.sockets.client(self.wire.near, FAR, port)
        self.wire.loses = lose_nothing
        server = self.sockets.enter_context(listener.accept()[0])
        listener.close()
        return Pair(client, server), 2

    def syn_ack(self) -> tuple[Pair, int]:
        """The client's acknowledgments are lost until its SYN-ACK was sent three times."""
        port = next(self._ports)
        listener = self.sockets.listener(self.wire.far, FAR, port)
        answers = 0

        def loses(segment: Segment) -> bool:
            nonlocal answers
            answers += not segment.outbound and bool(segment.flags & SYN)
            return segment.is_pure_ack and answers <= 2

        self.wire.loses = loses
        client = self.sockets.client(self.wire.near, FAR, port)
        server = self.sockets.enter_context(listener.accept()[0])
        self.wire.loses = lose_nothing
        assert answers == 3
        server.settimeout(TIMEOUT_S)
        listener.close()
        Pair(client, server).ping_pong(1)
        return Pair(client, server), 2


@pytest.fixture(scope="module", params=probes.WAYS)
def told(request: pytest.FixtureRequest) -> Iterator[dict[str, Told]]:
    """All scenes, one after the other, in one trace: by name."""
    probes.require(request.param)
    with ExitStack() as stack:
        near, far = (stack.enter_context(Namespace()) for _ in range(2))
        for namespace in (near, far):
            namespace.run(["sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1", "net.ipv4.tcp_congestion_control=reno"])
        wire = stack.enter_context(Wire(near, far, f"{NEAR}/24", f"{FAR}/24"))
        for namespace in (near, far):
            # A frame on the wire is a segment.
            namespace.run(["ethtool", "-K", "veth0", "tso", "off", "gso", "off", "gro", "off"])
            namespace.run(["ip", "route", "change", "10.9.0.0/24", "dev", "veth0", "advmss", str(MSS_BYTES + 12)])
        wire.delay_s = DELAY_S
        sockets = stack.enter_context(Sockets())
        yield run_scenes(Scenes(wire, sockets), request.param)


def run_scenes(scenes: Scenes, way: str) -> dict[str, Told]:
    near, far = scenes.wire.near, scenes.wire.far
    unseen, seen_before = scenes.tail()
    stuck = scenes.stuck()
    least = retransmitted(stuck)
    options = ("--events", "--probes", way)
    with Watch(near, *options) as watch_near, Watch(far, *options) as watch_far:
        for watch in (watch_near, watch_far):
            probes.check(watch, way)
        before = mib.read(near)
        repeated = retransmitted(stuck)
        wait_until(lambda: retransmitted(stuck) > repeated)
        scenes.wire.loses = lose_nothing
        scenes.received(stuck, MSS_BYTES)
        found = {"stuck": (stuck, mib.since(before, near), least)}
        for scene in (scenes.fast, scenes.tail, scenes.timeout, scenes.syn, scenes.syn_ack):
            sender = far if scene == scenes.syn_ack else near
            before = mib.read(sender)
            pair, expected = scene()
            found[scene.__name__] = pair, mib.since(before, sender), expected
        before = mib.read(near)
        scenes.burst(unseen, Once(lambda number: number == BURST // 2))
        found["before"] = unseen, mib.since(before, near), seen_before + 1
        settle((watch_near, watch_far), lambda: mark(scenes.sockets, near, FAR))
        result = {}
        for name, (pair, counters, expected) in found.items():
            watch = watch_far if name == "syn_ack" else watch_near
            line = watch.latest[pair.ports]
            events = [one for one in watch.of_kind("retransmission") if one["connection_id"] == line["connection_id"]]
            kernels = tcp_info(pair.server, TCPI_TOTAL_RETRANS_AT) if name == "syn_ack" else retransmitted(pair)
            result[name] = Told(line, events, kernels, counters, expected)
        for watch in (watch_near, watch_far):
            assert watch.end()["socket_records_lost"] == 0
    return result


@pytest.mark.parametrize(
    ("scene", "cause"), [("fast", "fast"), ("tail", "tlp"), ("syn", "syn"), ("syn_ack", "syn_ack")]
)
def test_one_cause(told: dict[str, Told], scene: str, cause: str) -> None:
    one = told[scene]
    assert one.kernels == one.expected >= 2
    assert counted(one.line) == {cause: one.kernels}
    assert one.line["kernel_retransmissions"] == one.kernels
    assert one.counters["syn" if cause == "syn_ack" else cause] == one.kernels


def test_the_timer(told: dict[str, Told]) -> None:
    """The timer three times, after a probe, and then, in slow start, what was lost with the first."""
    one = told["timeout"]
    counts = counted(one.line)
    assert counts == {"rto": one.counters["rto"], "tlp": one.counters["tlp"]}
    assert counts["rto"] >= 3 + FIRST_WINDOW // 2
    assert counts["tlp"] == 1
    assert sum(counts.values()) == one.kernels == one.line["kernel_retransmissions"]


def test_retransmissions_before_the_trace(told: dict[str, Told]) -> None:
    one = told["before"]
    assert one.kernels == one.expected == one.line["kernel_retransmissions"]
    assert counted(one.line) == {"unseen": one.expected - 1, "fast": 1}
    assert one.counters["fast"] == 1


def test_the_first_word_of_a_socket_is_a_retransmission(told: dict[str, Told]) -> None:
    """Those before the trace, of which nothing told, are not of its cause."""
    one = told["stuck"]
    counts = counted(one.line)
    assert set(counts) == {"unseen", "rto"}
    assert sum(counts.values()) == one.kernels == one.line["kernel_retransmissions"]
    # The namespace's counters were read when the trace had begun.
    assert one.counters["rto"] >= 1
    assert one.expected <= counts["unseen"] <= one.kernels - one.counters["rto"]


def test_events(told: dict[str, Told]) -> None:
    """Each retransmission is told of, when it was, with the count that it made.

    Of some hundreds of calls of a program at a tracepoint Linux 6.18 leaves out one, on a busy machine, without a word
    (no recursion, no full ring): so one event of all may be missing.  Its count is in the next one.
    """
    missing = told_of = 0
    for name, one in told.items():
        causes: Counter[str] = Counter()
        for event in one.events:
            causes[event["cause"]] += event["segments"]
        expected = Counter({cause: count for cause, count in counted(one.line).items() if cause != "unseen"})
        assert causes <= expected, name
        told_of += len(one.events)
        missing += expected.total() - len(one.events)
        times = [event["time"] for event in one.events]
        assert times == sorted(set(times)), name
        if name != "syn_ack":  # of which there is no socket yet that could count
            counts = [event["kernel_retransmissions"] for event in one.events]
            steps = [event["segments"] for event in one.events[1:]]
            assert [later - earlier for earlier, later in pairwise(counts)] == steps, name
            assert counts[-1] <= one.line["kernel_retransmissions"], name
    assert told_of >= 20
    assert missing <= 1


def test_the_state_of_recovery(told: dict[str, Told]) -> None:
    states = {
        name: {event["congestion_state"] for event in told[name].events if event["cause"] == cause}
        for name, cause in (("fast", "fast"), ("timeout", "rto"), ("syn", "syn"))
    }
    assert states["fast"] == {"Recovery"}
    assert states["timeout"] == {"Loss"}
    assert {event["kernel_state"] for event in told["syn"].events} == {"SYN-SENT"}
    assert {event["kernel_state"] for event in told["syn_ack"].events} == {"SYN-RECEIVED"}
