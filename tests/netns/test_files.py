"""What is read from a file is what was traced live: from tcpdump's file of the same packets, and from our own."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netns_tools import Namespace, veth
from observer import Observer
from programs.captures import (
    COUNTS,
    LIFE,
    Event,
    Key,
    Reading,
    assert_equal,
    assert_whole,
    both_sides,
    finals,
    lengths,
    packets_in,
    read_back,
    rtts_apart_us,
    tcptrace,
)
from programs.inside import Sockets
from programs.scenes import Where, all_kinds, bulk
from test_counts import NOTHING_WRONG, Place, all_off, namespace
from test_frames import PLACES
from tracer import Tracer
from traffic import Connection, exchange

PLAN = (
    Connection(port=5001, request_bytes=3_456_789, response_bytes=1_345_678),
    Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=237),
    Connection(port=5003, request_bytes=45_679, response_bytes=12_347, mss_bytes=88, send_buffer_bytes=4608),
    *(Connection(port=5100 + n, request_bytes=5_021 + 791 * n, response_bytes=1 + 1301 * n) for n in range(17)),
)
"""Bulk, many small ones, and many connections, all at once."""
KINDS_PORT = 7000
KINDS = 5
SHORT_PLAN = (
    Connection(port=5001, request_bytes=1_456_789, response_bytes=345_678),
    Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=57),
)
RTT_APART_US = 20
NANOSECONDS = ("-j", "host", "--time-stamp-precision=nano")
BOTTLENECK = ("tbf", "rate", "30mbit", "burst", "10k", "limit", "60k")
# Of COUNTS, what goes by the time.
BY_TIME = ("retransmissions", "retransmitted_bytes", "out_of_order")
BULK_BYTES = 2_500_000

pytestmark = pytest.mark.skipif(
    not (shutil.which("tshark") and shutil.which("capinfos")), reason="tshark is not installed"
)


@pytest.fixture(autouse=True)
def one_cpu() -> Iterator[None]:
    """All on one: on two, packets that cross between two observers of one interface are seen in two orders."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cpus)})
    yield
    os.sched_setaffinity(0, cpus)


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with Sockets() as sockets:
        yield sockets


@dataclass
class Traced:
    """The same packets three times: traced live, written by that trace, and written by tcpdump."""

    live: Tracer
    own: Path
    observer: Observer

    @property
    def rows(self) -> dict[Key, Event]:
        return finals(self.live.events)

    def read_own(self, *arguments: str) -> Reading:
        return read_back(self.own, *arguments)

    def read_tcpdumps(self) -> Reading:
        return read_back(self.observer.file)

    def end(self, sender: Namespace, address: str) -> None:
        """The judge has seen all that `sender` has sent."""
        self.observer.finish(sender, address)
        self.live.stop()
        assert {name: self.live.summary[name] for name in NOTHING_WRONG} == NOTHING_WRONG


@contextmanager
def traced(one: Namespace, interface: str, path: Path, *arguments: str) -> Iterator[Traced]:
    with (
        Observer(one, interface, *NANOSECONDS) as observer,
        Tracer(one, interface, "-o", str(path), *arguments) as tracer,
    ):
        yield Traced(tracer, path, observer)


def wire_packets_only(place: Place) -> None:
    """No super-packet, not even before the hook."""
    all_off(place)
    for one in (place.near, place.far):
        one.run(["ip", "link", "set", place.interface, "gso_max_segs", "1"])


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f" [{text}]", end="")


def say_rtt(capsys: pytest.CaptureFixture[str], live: dict[Key, Event], file: dict[Key, Event]) -> None:
    """And judge it: but for one in thirty, where something else ran between one observer and the other."""
    apart = rtts_apart_us(live, file)
    usual_us = apart[-1 - len(apart) // 30][0]
    say(capsys, f"RTT apart: {usual_us:.1f} us, at worst {apart[-1][1]} {apart[-1][0]:.1f} us")
    assert usual_us <= RTT_APART_US


# --- Traced, and captured by tcpdump


def test_every_kind_of_connection(place_off: Place, sockets: Sockets, tmp_path: Path, capsys: Any) -> None:
    """What is counted live is what is counted in tcpdump's file, and in our own."""
    place = place_off
    with traced(place.near, place.interface, tmp_path / "x.pcapng", "--packets") as seen:
        exchange(place.near, place.far, place.address, PLAN)
        all_kinds(Where(sockets, place.near, place.far, place.address), KINDS_PORT)
        seen.end(place.near, place.address)
        theirs, ours = seen.read_tcpdumps(), seen.read_own("--packets")
    rows = seen.rows
    assert len(rows) == len(PLAN) + KINDS
    by_kind = [next(row for row in rows.values() if row["dst_port"] == KINDS_PORT + n) for n in range(KINDS)]
    idle, refused, reset, half_closed, stalled = by_kind
    assert (idle["sent_keep_alives"], idle["received_keep_alive_acks"]) == (1, 1)
    assert refused["handshake"] == "refused"
    assert (reset["close_kind"], reset["closed_by"]) == ("reset", "dst")
    assert (half_closed["close_kind"], half_closed["closed_by"]) == ("fin", "src")
    assert stalled["received_zero_windows"] >= 2
    assert stalled["sent_windows_full"] >= 1
    assert_equal(rows, theirs.rows, (*LIFE, *both_sides(COUNTS)))
    say_rtt(capsys, rows, theirs.rows)
    assert_whole(rows, ours.rows)
    assert ours.packets == [one | {"interface": None} for one in seen.live.packets]
    assert [(one["frame_bytes"], one["payload_bytes"]) for one in ours.packets] == lengths(seen.own)
    assert ours.summary["packets"] == packets_in(seen.own) == seen.live.summary["packets"] == theirs.summary["packets"]


@pytest.fixture
def place_off() -> Iterator[Place]:
    with PLACES["ipv4"]() as place:
        wire_packets_only(place)
        yield place


@pytest.fixture
def place_on() -> Iterator[Place]:
    with PLACES["ipv4"]() as place:
        yield place


SEGMENTS = ("packets", "bytes")
OF_SEGMENTS = {"near_end", "last_packets"} | {
    f"{side}_{name}" for side in ("sent", "received") for name in (*SEGMENTS, "average_bytes_per_s")
}
"""What a .pcap lacks: which way a packet went, and how many segments it stands for."""


def test_super_packets(place_on: Place, sockets: Sockets, tmp_path: Path, capsys: Any) -> None:
    """A file of tcpdump's does not say how many segments they have, ours does."""
    place = place_on
    with traced(place.near, place.interface, tmp_path / "x.pcapng", "--packets") as seen:
        exchange(place.near, place.far, place.address, PLAN)
        all_kinds(Where(sockets, place.near, place.far, place.address), KINDS_PORT)
        seen.end(place.near, place.address)
        theirs, ours = seen.read_tcpdumps(), seen.read_own("--packets")
    rows = seen.rows
    assert max(one["segments"] for one in ours.packets) > 5
    assert_equal(rows, theirs.rows, (*LIFE, *both_sides([name for name in COUNTS if name not in SEGMENTS])))
    assert theirs.summary["packets"] == theirs.summary["tcp"] < seen.live.summary["packets"]
    say_rtt(capsys, rows, theirs.rows)
    assert_whole(rows, ours.rows)
    assert ours.packets == [one | {"interface": None} for one in seen.live.packets]
    assert [one["payload_bytes"] for one in ours.packets] == [payload for _, payload in lengths(seen.own)]
    assert ours.summary["packets"] == seen.live.summary["packets"]
    assert packets_in(seen.own) == ours.summary["tcp"] == seen.live.summary["tcp"]
    plain = tmp_path / "x.pcap"
    tcptrace("-f", seen.own, "-o", plain)
    without = read_back(plain)
    assert without.summary["packets"] == packets_in(plain) == ours.summary["tcp"]
    assert_whole(rows, without.rows, OF_SEGMENTS)
    assert {row["near_end"] for row in without.rows.values()} == {None}


# --- Loss


@pytest.mark.parametrize("offloads", ["on", "off"])
def test_loss_at_a_router(sockets: Sockets, tmp_path: Path, offloads: str, capsys: Any) -> None:
    """Seen by the sender, which knows what it sent before; in the middle, before the loss; and by the receiver."""
    with ExitStack() as stack:
        near, router, far = (stack.enter_context(namespace()) for _ in range(3))
        lay_path(near, router, far, offloads)
        spots = {"sender": (near, "veth0"), "router": (router, "veth0"), "receiver": (far, "veth0")}
        seen = {name: stack.enter_context(traced(*spot, tmp_path / f"{name}.pcapng")) for name, spot in spots.items()}
        retransmitted = bulk(Where(sockets, near, far, "10.9.1.2"), 7000, BULK_BYTES)
        for one in seen.values():
            one.end(near, "10.9.1.2")
        theirs = {name: one.read_tcpdumps().rows for name, one in seen.items()}
    ours = {name: one.read_own().rows for name, one in seen.items()}
    for name, one in seen.items():
        assert_whole(one.rows, ours[name])
    (sent,) = seen["sender"].rows.values()
    (guessed,) = theirs["sender"].values()
    say(
        capsys,
        f"kernel {retransmitted}, traced {sent['sent_retransmissions']}, of a file {guessed['sent_retransmissions']}",
    )
    assert retransmitted >= 20
    assert sent["sent_retransmissions"] == retransmitted
    if offloads == "off":
        assert sent["sent_retransmissions"] == guessed["sent_retransmissions"] + guessed["sent_out_of_order"]
    for name in ("router", "receiver"):
        one, other = seen[name].rows, theirs[name]
        if offloads == "off":
            assert_equal(one, other, (*LIFE, *both_sides(set(COUNTS) - set(BY_TIME))))
            assert_near_by_time(one, other)
            say_rtt(capsys, one, other)
        else:  # what of a super-packet was sent before, and so what is an RTT sample, its segments tell
            assert_equal(one, other, (*LIFE, *both_sides(["payload_bytes"])))


def assert_near_by_time(one: dict[Key, Event], other: dict[Key, Event]) -> None:
    """Which of the two a late segment is goes by the time, and each clock has its own: a few may be on the border."""
    for key, row in one.items():
        found = [
            int(which[f"sent_{name}"]) for which in (row, other[key]) for name in ("retransmissions", "out_of_order")
        ]
        assert found[0] + found[1] == found[2] + found[3]
        assert abs(found[0] - found[2]) <= max(2, found[0] // 50)


def lay_path(near: Namespace, router: Namespace, far: Namespace, offloads: str) -> None:
    """near - router - far; what the router cannot send in time it loses."""
    veth(near, router, "10.9.0.1/24", "10.9.0.3/24")
    veth(router, far, "10.9.1.1/24", "10.9.1.2/24", name_a="veth1")
    router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    near.run(["ip", "route", "add", "default", "via", "10.9.0.3"])
    far.run(["ip", "route", "add", "default", "via", "10.9.1.1"])
    router.run(["tc", "qdisc", "add", "dev", "veth1", "root", *BOTTLENECK])
    if offloads == "off":
        for one, interface in ((near, "veth0"), (router, "veth0"), (router, "veth1"), (far, "veth0")):
            one.run(
                ["ethtool", "-K", interface, *(word for name in ("tx", "tso", "gso", "gro") for word in (name, "off"))]
            )
            one.run(["ip", "link", "set", interface, "gso_max_segs", "1"])


@pytest.mark.parametrize("offloads", ["on", "off"])
def test_loss_in_our_own_queue(sockets: Sockets, tmp_path: Path, offloads: str, capsys: Any) -> None:
    """What the queue refused, and what was sent again, is in our file as it was live."""
    path = tmp_path / "x.pcapng"
    with PLACES["ipv4"]() as place:
        if offloads == "off":
            wire_packets_only(place)
        place.near.run(["tc", "qdisc", "add", "dev", "veth0", "root", *BOTTLENECK])
        with place.traced("-o", str(path)) as tracer:
            retransmitted = bulk(Where(sockets, place.near, place.far, place.address), 7000, BULK_BYTES)
            tracer.stop()
    (row,) = tracer.finals
    say(capsys, f"kernel {retransmitted}, traced {row['sent_retransmissions']}, local drops {row['sent_local_drops']}")
    assert row["sent_retransmissions"] == retransmitted
    assert row["sent_local_drops"] > 0
    assert_whole(finals(tracer.events), read_back(path).rows)


# --- There and back again

ROUND_TRIPS = [
    ("ipv6", "x.pcapng", []),
    ("ipv4", "x.pcapng.gz", ["--hook", "xdp"]),
    ("vlan", "x.pcapng.zst", []),
    ("qinq", "x.pcapng", []),
    ("lo", "x.pcapng", []),
    ("tun", "x.pcapng", []),
]


@pytest.mark.parametrize(("name", "file", "arguments"), ROUND_TRIPS, ids=lambda value: "".join(value))
def test_our_own_file(name: str, file: str, arguments: list[str], tmp_path: Path) -> None:
    """Read again, it says all that was said live; and so does any file that is made from it."""
    path = tmp_path / file
    with PLACES[name]() as place:
        if "xdp" in arguments:
            all_off(place)
        with place.traced("-o", str(path), *arguments) as tracer:
            exchange(place.near, place.far, place.address, SHORT_PLAN)
            tracer.stop(signal.SIGTERM)
    rows = finals(tracer.events)
    assert len(rows) == len(SHORT_PLAN)
    assert_whole(rows, read_back(path).rows)
    assert packets_in(path) == tracer.summary["tcp"]
    again = tmp_path / f"again-{file}"
    tcptrace("-f", path, "-o", again)
    assert_whole(rows, read_back(again).rows)
