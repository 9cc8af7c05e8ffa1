"""Packets, bytes and payload of every connection, equal to what tcpdump, the kernel and the programs themselves say."""

import json
import random
import select
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netns_tools import Namespace, veth
from observer import Observer, Segment, Tally, decode, tallies
from tracer import COMMAND, Tracer
from traffic import Connection, Exchange, exchange, inject, tunnel

from tcptrace.sources.live.bcc_loader import import_bcc

BPF_HEADERS = Path(__file__).parents[2] / "bpf"

IPV4, IPV6 = ("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")

BULK = Connection(port=5001, request_bytes=23_456_789, response_bytes=3_456_789)
MANY_SMALL = Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=1237)
TINY_MSS = Connection(port=5003, request_bytes=234_567, response_bytes=45_678, mss_bytes=88, send_buffer_bytes=4608)
PLAN = (BULK, MANY_SMALL, TINY_MSS)
SHORT_PLAN = (
    Connection(port=5001, request_bytes=5_456_789, response_bytes=2_345_678),
    Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=337),
    Connection(port=5003, request_bytes=45_679, response_bytes=12_347, mss_bytes=88, send_buffer_bytes=4608),
)
"""For tests that look at every packet event."""

NOTHING_WRONG = dict.fromkeys(
    (
        "records_lost",
        "perf_lost_samples",
        "unordered",
        "nested",
        "uncounted",
        "evicted",
        "fragments",
        "malformed_link",
        "malformed_ipv4",
        "malformed_ipv6",
        "malformed_ipv6_extension",
        "malformed_tcp",
        "too_deep",
        "merged",
        "filtered",
    ),
    0,
)

# --- Places: two namespaces and how they are joined


@dataclass(frozen=True)
class Place:
    """`near` traces `interface`; `far` observes its own `interface`."""

    near: Namespace
    far: Namespace
    address: str
    """Of the far end."""
    interface: str = "veth0"
    near_address: str = IPV4[0]

    def offloads(self, namespace: Namespace, *features: str, interface: str | None = None) -> None:
        """As `ethtool -K` takes them: "gso", "on", …"""
        namespace.run(["ethtool", "-K", interface or self.interface, *features])

    def traced(self, *arguments: str) -> Tracer:
        return Tracer(self.near, self.interface, *arguments)

    def observed(self) -> Observer:
        return Observer(self.far, self.interface)


@contextmanager
def namespace() -> Iterator[Namespace]:
    with Namespace() as one:
        # No tail loss probes: a busy machine would make them, and then SACK blocks, out of a delay.
        one.run(["sysctl", "-q", "net.ipv4.tcp_early_retrans=0"])
        yield one


@contextmanager
def two_namespaces() -> Iterator[tuple[Namespace, Namespace]]:
    with namespace() as near, namespace() as far:
        yield near, far


@contextmanager
def plain(addresses: tuple[str, str], mtu_bytes: int = 1500) -> Iterator[Place]:
    """A veth pair."""
    with two_namespaces() as (near, far):
        veth(near, far, *with_prefix(addresses), mtu_bytes=mtu_bytes)
        yield Place(near, far, addresses[1], near_address=addresses[0])


def with_prefix(addresses: tuple[str, str]) -> tuple[str, str]:
    prefix = 64 if ":" in addresses[0] else 24
    near, far = (f"{address}/{prefix}" for address in addresses)
    return near, far


@contextmanager
def ipv4() -> Iterator[Place]:
    with plain(IPV4) as place:
        yield place


@contextmanager
def ipv6() -> Iterator[Place]:
    with plain(IPV6) as place:
        yield place


# Tags for kernels that have no VLAN interfaces.
TAG = b"""
int push(struct __sk_buff *skb)
{
#ifdef INNER
    bpf_skb_vlan_push(skb, bpf_htons(0x8100), INNER);
#endif
    bpf_skb_vlan_push(skb, bpf_htons(OUTER_TYPE), OUTER);
    return -1;
}

int pop(struct __sk_buff *skb)
{
    bpf_skb_vlan_pop(skb);
#ifdef INNER
    bpf_skb_vlan_pop(skb);
#endif
    return -1;
}
"""
ATTACH = """
import sys
from pyroute2 import IPRoute
push, pop = map(int, sys.argv[1:])
with IPRoute() as netlink:
    (index,) = netlink.link_lookup(ifname="port")
    netlink.tc("add", "clsact", index)
    for fd, parent in ((push, "ffff:fff2"), (pop, "ffff:fff3")):
        netlink.tc("add-filter", "bpf", index, ":1", fd=fd, name="tag", parent=parent, prio=1, direct_action=True)
"""
VLAN = {"OUTER_TYPE": 0x8100, "OUTER": 73}
QINQ = {"OUTER_TYPE": 0x88A8, "OUTER": 1789, "INNER": 41}


@contextmanager
def tagged(tags: dict[str, int]) -> Iterator[Place]:
    """stack - port - bridge - veth0, tags being put on and taken off at `port`: on veth0 all is tagged."""
    bcc = import_bcc()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCC_KERNEL_SOURCE", str(BPF_HEADERS))
        flags = [f"-I{BPF_HEADERS}", *(f"-D{name}={value}" for name, value in tags.items())]
        compiled = bcc.BPF(text=TAG, cflags=flags)
    fds = [compiled.load_func(name, compiled.SCHED_CLS).fd for name in (b"push", b"pop")]
    with ExitStack() as stack:
        stack.callback(compiled.cleanup)
        near, far = stack.enter_context(two_namespaces())
        # Room for the tags.
        veth(near, far, [], [], mtu_bytes=1508)
        for namespace, address in zip((near, far), with_prefix(IPV4), strict=True):
            veth(namespace, namespace, address, [], name_a="inner", name_b="port", mtu_bytes=1508)
            namespace.run(["ip", "link", "set", "inner", "mtu", "1500"])
            namespace.run(["ip", "link", "add", "bridge", "type", "bridge"])
            for interface in ("port", "veth0"):
                namespace.run(["ip", "link", "set", interface, "master", "bridge"])
            namespace.run(["ip", "link", "set", "bridge", "up"])
            namespace.python(ATTACH, *map(str, fds), pass_fds=fds)
        yield Place(near, far, IPV4[1])


@contextmanager
def vlan() -> Iterator[Place]:
    with tagged(VLAN) as place:
        yield place


@contextmanager
def qinq() -> Iterator[Place]:
    with tagged(QINQ) as place:
        yield place


PLACES: dict[str, Callable[[], Any]] = {"ipv4": ipv4, "ipv6": ipv6, "vlan": vlan, "qinq": qinq}
VLANS = {"vlan": (73,), "qinq": (1789, 41)}
LINK_BYTES = {"ipv4": 14, "ipv6": 14, "vlan": 18, "qinq": 22}


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with PLACES[request.param]() as place:
        yield place


# --- Judging


def all_off(place: Place) -> None:
    """One frame a segment, from the stack on."""
    for namespace in (place.near, place.far):
        names = [one["ifname"] for one in namespace.json("ip", "-json", "link")]
        for interface in {place.interface, "inner", "port"} & set(names):
            place.offloads(namespace, "tx", "off", "tso", "off", "gso", "off", "gro", "off", interface=interface)


def row_tallies(tracer: Tracer) -> dict[tuple[int, int], Tally]:
    """The tracer's connections, in the form of observer.tallies()."""
    result = {}
    for (src, dst), row in tracer.by_ports().items():
        for ports, side in (((src, dst), "sent"), ((dst, src), "received")):
            result[ports] = Tally(row[f"{side}_packets"], row[f"{side}_bytes"], row[f"{side}_payload_bytes"])
    return result


def assert_nothing_wrong(tracer: Tracer) -> None:
    assert {name: tracer.summary[name] for name in NOTHING_WRONG} == NOTHING_WRONG


def assert_summary(tracer: Tracer, expected: dict[tuple[int, int], Tally]) -> None:
    summary = tracer.summary
    assert summary["packets"] == sum(one.packets for one in expected.values())
    assert summary["bytes"] == sum(one.bytes for one in expected.values())
    assert summary["payload_bytes"] == sum(one.payload_bytes for one in expected.values())
    assert summary["connections_total"] == len(expected) // 2
    assert summary["connections_time_wait"] == len(expected) // 2


def assert_observed(tracer: Tracer, segments: Sequence[Segment], exchanges: Sequence[Exchange]) -> None:
    """Every number as tcpdump has it, and the payload as the programs have it."""
    assert_tallies(tracer, tallies(segments))
    assert_payload(tracer, exchanges)


def assert_tallies(tracer: Tracer, expected: dict[tuple[int, int], Tally]) -> None:
    assert_nothing_wrong(tracer)
    assert row_tallies(tracer) == expected
    assert_summary(tracer, expected)


def assert_payload(tracer: Tracer, exchanges: Sequence[Exchange]) -> None:
    rows = tracer.by_ports()
    assert set(rows) == {one.ports for one in exchanges}
    for one in exchanges:
        row = rows[one.ports]
        assert row["sent_payload_bytes"] == one.plan.sent_bytes + one.src.retransmitted_bytes
        assert row["received_payload_bytes"] == one.plan.received_bytes + one.dst.retransmitted_bytes


def assert_kernel(tracer: Tracer, exchanges: Sequence[Exchange], link_bytes: int, ip_bytes: int) -> None:
    """Where no observer sees the segments: the connecting socket's own counts."""
    expected = {}
    # Every segment has timestamps; a SYN also MSS, window scale and SACK permitted.
    header_bytes, syn_bytes = link_bytes + ip_bytes + 20 + 12, 8
    for one in exchanges:
        for ports, packets, payload in (
            (one.ports, one.src.segments_out, one.plan.sent_bytes),
            (one.ports[::-1], one.src.segments_in, one.plan.received_bytes),
        ):
            expected[ports] = Tally(packets, packets * header_bytes + syn_bytes + payload, payload)
        assert one.src.retransmitted_bytes + one.dst.retransmitted_bytes == 0
    assert_nothing_wrong(tracer)
    assert row_tallies(tracer) == expected
    assert_summary(tracer, expected)


def largest_super_packet(tracer: Tracer, direction: str) -> int:
    return max(one["segments"] for one in tracer.packets if one["direction"] == direction)


# --- Bulk, many small and tiny segments, all at once


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_offloads_off(place: Place) -> None:
    all_off(place)
    with place.observed() as observer, place.traced() as tracer:
        exchanges = exchange(place.near, place.far, place.address, PLAN)
        segments = observer.finish(place.near, place.address)
        tracer.stop()
    assert_observed(tracer, segments, exchanges)
    for one in exchanges:
        if one.plan.mss_bytes is not None:
            assert one.src.mss_bytes == one.dst.mss_bytes <= one.plan.mss_bytes


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_segmented_after_the_hook(place: Place) -> None:
    """The tracer sees super-packets go out, the other end what they were cut into."""
    all_off(place)
    for interface in super_packets_on(place, place.near):
        place.offloads(place.near, "tx", "on", "tso", "on", "gso", "on", interface=interface)
    place.offloads(place.near, "tso", "off")
    with place.observed() as observer, place.traced("--packets") as tracer:
        exchanges = exchange(place.near, place.far, place.address, SHORT_PLAN)
        segments = observer.finish(place.near, place.address)
        tracer.stop()
    assert largest_super_packet(tracer, "out") > 5
    assert largest_super_packet(tracer, "in") == 1
    assert_observed(tracer, segments, exchanges)
    assert_packet_events(tracer, exchanges)


def super_packets_on(place: Place, namespace: Namespace) -> set[str]:
    names = {one["ifname"] for one in namespace.json("ip", "-json", "link")}
    return names & {"inner", "port", "bridge", place.interface}


def assert_packet_events(tracer: Tracer, exchanges: Sequence[Exchange]) -> None:
    """The packet events sum up to what the connections say."""
    sums: dict[tuple[int, int], Tally] = {}
    for one in tracer.packets:
        tally = sums.setdefault((one["src_port"], one["dst_port"]), Tally())
        tally.packets += one["segments"]
        tally.bytes += one["frame_bytes"]
        tally.payload_bytes += one["payload_bytes"]
    assert sums == row_tallies(tracer)
    assert len(sums) == 2 * len(exchanges)


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_merged_before_the_hook(place: Place, request: pytest.FixtureRequest) -> None:
    """The tracer sees what GRO made of the segments that the other end sent."""
    all_off(place)
    place.offloads(place.near, "gro", "on")
    with place.observed() as observer, place.traced("--packets") as tracer:
        exchanges = exchange(place.near, place.far, place.address, SHORT_PLAN)
        segments = observer.finish(place.near, place.address)
        tracer.stop()
    # Below the second tag only a kernel with VLAN interfaces merges.
    if "qinq" not in request.node.callspec.id:
        assert largest_super_packet(tracer, "in") > 5
    assert_observed(tracer, segments, exchanges)
    assert_packet_events(tracer, exchanges)


@pytest.mark.parametrize("name", PLACES)
def test_never_segmented(name: str) -> None:
    """Super-packets from end to end: only the sockets know how many segments they stand for."""
    with PLACES[name]() as place, place.traced("--packets") as tracer:
        exchanges = exchange(place.near, place.far, place.address, SHORT_PLAN)
        tracer.stop()
    for direction in ("in", "out"):
        if name != "qinq":
            assert largest_super_packet(tracer, direction) > 5
    assert_kernel(tracer, exchanges, LINK_BYTES[name], 40 if name == "ipv6" else 20)
    assert_packet_events(tracer, exchanges)


# --- Other ways to see packets


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_xdp(place: Place) -> None:
    all_off(place)
    # A tag that is not in the bytes is not seen by XDP.
    place.offloads(place.far, "tx-vlan-hw-insert", "off", "tx-vlan-stag-hw-insert", "off")
    with Observer(place.near, place.interface) as observer, place.traced("--hook", "xdp") as tracer:
        exchanges = exchange(place.near, place.far, place.address, PLAN)
        segments = observer.finish(place.far, place.near_address)
        tracer.stop()
    assert "native" in tracer.start["hook"]
    assert_tallies(tracer, tallies(segments))
    # With XDP on it a veth has a short queue before the program: what is dropped there neither tcpdump nor we see.
    for one in exchanges:
        row, sent_again = tracer.by_ports()[one.ports], one.dst.retransmitted_bytes
        assert row["sent_payload_bytes"] == one.plan.sent_bytes + one.src.retransmitted_bytes
        assert one.plan.received_bytes <= row["received_payload_bytes"] <= one.plan.received_bytes + sent_again


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback(address: str) -> None:
    """Every packet once, although it passes both hooks."""
    with namespace() as only:
        place = Place(only, only, address, "lo")
        place.offloads(only, "tso", "off", "gso", "off", "gro", "off")
        with place.observed() as observer, place.traced() as tracer:
            exchanges = exchange(only, only, address, PLAN)
            segments = observer.finish(only, address)
            tracer.stop()
    assert_observed(tracer, segments, exchanges)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_never_segmented(address: str) -> None:
    with namespace() as only, Tracer(only, "lo", "--packets") as tracer:
        exchanges = exchange(only, only, address, SHORT_PLAN)
        tracer.stop()
    assert max(one["segments"] for one in tracer.packets) > 5
    assert_kernel(tracer, exchanges, 14, 40 if ":" in address else 20)


@pytest.mark.parametrize("addresses", [("10.8.0.1", "10.8.0.2"), ("fd08::1", "fd08::2")], ids=["ipv4", "ipv6"])
def test_no_link_header(addresses: tuple[str, str]) -> None:
    with two_namespaces() as (near, far), tunnel(near, far, "tun7", [with_prefix(addresses)]):
        place = Place(near, far, addresses[1], "tun7")
        with place.observed() as observer, place.traced() as tracer:
            exchanges = exchange(near, far, place.address, SHORT_PLAN)
            segments = observer.finish(near, place.address)
            tracer.stop()
    assert {segment.src_mac for segment in segments} == {None}
    assert_observed(tracer, segments, exchanges)


# --- Many connections, odd ones


@pytest.mark.parametrize(("place", "offload"), [("ipv4", False), ("ipv6", True)], indirect=["place"])
def test_parallel_connections(place: Place, offload: bool) -> None:
    """Seventeen at once, no two alike."""
    plan = [
        Connection(port=6000 + n, request_bytes=50_021 + 7919 * n, response_bytes=1 + 1301 * n, exchanges=2 + n % 5,
                   send_buffer_bytes=16384)
        for n in range(17)
    ]  # fmt: skip
    all_off(place)
    if offload:
        for namespace in (place.near, place.far):
            place.offloads(namespace, "tx", "on", "gso", "on", "tso", "off")
    with place.observed() as observer, place.traced() as tracer:
        exchanges = exchange(place.near, place.far, place.address, plan)
        segments = observer.finish(place.near, place.address)
        tracer.stop()
    assert len(tracer.by_ports()) == 17
    assert_observed(tracer, segments, exchanges)


@pytest.mark.parametrize("offload", [False, True])
def test_small_mtu(offload: bool) -> None:
    with plain(IPV4, mtu_bytes=140) as place:
        all_off(place)
        if offload:
            place.offloads(place.near, "tx", "on", "gso", "on", "tso", "off")
        plan = [Connection(port=5004, request_bytes=345_679, response_bytes=98_765, send_buffer_bytes=4608)]
        with place.observed() as observer, place.traced() as tracer:
            exchanges = exchange(place.near, place.far, place.address, plan)
            segments = observer.finish(place.near, place.address)
            tracer.stop()
    assert max(segment.frame_bytes for segment in segments) == 154
    assert_observed(tracer, segments, exchanges)


RECORD_ROUTE = "07270400000000" + 32 * "00" + "01"
NO_OPERATION = "01" * 36
OPTIONS = {
    "record-route": (IPV4, {"ip_options": RECORD_ROUTE}, 60),
    "no-operation": (IPV4, {"ip_options": NO_OPERATION}, 56),
    "hop-by-hop": (IPV6, {"hop_options": "0000010400000000"}, 48),
    "destination": (IPV6, {"destination_options": "00011e0c" + 12 * "5a"}, 56),
    "both": (IPV6, {"hop_options": "00021e14" + 20 * "a5", "destination_options": "0000010400000000"}, 72),
}


@pytest.mark.parametrize(("name", "hook"), list(zip(OPTIONS, ("tc", "xdp", "tc", "xdp", "tc"), strict=True)))
def test_ip_options(name: str, hook: str) -> None:
    addresses, options, header_bytes = OPTIONS[name]
    plan = [
        Connection(port=5001, request_bytes=1_234_567, response_bytes=234_567, **options),
        Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=137, **options),
    ]
    with plain(addresses) as place:
        all_off(place)
        with place.observed() as observer, place.traced("--hook", hook) as tracer:
            exchanges = exchange(place.near, place.far, place.address, plan)
            segments = observer.finish(place.near, place.address)
            tracer.stop()
    data = [segment for segment in segments if segment.payload_bytes]
    assert {segment.ip_header_bytes for segment in data} == {header_bytes}
    assert_observed(tracer, segments, exchanges)


# --- Crafted frames: what is not a segment is counted by kind, what is one is read to the last field

NEAR_MAC, FAR_MAC = bytes.fromhex("020000000a01"), bytes.fromhex("020000000a02")
NOBODY = {4: bytes([10, 9, 0, 77]), 6: bytes.fromhex("fd09" + 13 * "00" + "77")}
"""In the network but at no host: nothing answers."""
SENDER = {4: bytes([10, 9, 0, 2]), 6: bytes.fromhex("fd09" + 13 * "00" + "02")}
TCP, UDP, HOP_BY_HOP, FRAGMENT, DESTINATION = 6, 17, 0, 44, 60


def ethernet(kind: int, payload: bytes, tags: bytes = b"") -> bytes:
    return NEAR_MAC + FAR_MAC + tags + struct.pack(">H", kind) + payload


def ip4(payload: bytes, *, protocol: int = TCP, version: int = 4, words: int = 5, total: int | None = None,
        fragment: int = 0, tos: int = 0, ip_id: int = 0, ttl: int = 64, options: bytes = b"") -> bytes:  # fmt: skip
    total = 20 + len(options) + len(payload) if total is None else total
    header = struct.pack(">BBHHHBBH", version << 4 | words, tos, total, ip_id, fragment, ttl, protocol, 0)
    return ethernet(0x0800, header + SENDER[4] + NOBODY[4] + options + payload)


def ip6(payload: bytes, *, following: int = TCP, version: int = 6, size: int | None = None, traffic_class: int = 0,
        hops: int = 64) -> bytes:  # fmt: skip
    size = len(payload) if size is None else size
    header = struct.pack(">IHBB", version << 28 | traffic_class << 20, size, following, hops)
    return ethernet(0x86DD, header + SENDER[6] + NOBODY[6] + payload)


def extension(following: int, payload: bytes, units: int = 0) -> bytes:
    """A header of `units` times eight bytes more than eight, filled with an option to skip."""
    size = 8 * units + 4
    return bytes([following, units, 0x1E, size]) + size * b"\0" + payload


def segment(*, flags: int = 0x10, words: int | None = None, options: bytes = b"", payload: bytes = b"",
            ports: tuple[int, int] = (1, 2), seq: int = 0, ack: int = 0, window: int = 0) -> bytes:  # fmt: skip
    words = 5 + len(options) // 4 if words is None else words
    return struct.pack(">HHIIHHHH", *ports, seq, ack, words << 12 | flags, window, 0, 0) + options + payload


def chain(length: int) -> bytes:
    """So many destination options headers, then TCP."""
    data = segment()
    for index in range(length):
        data = extension(TCP if index == 0 else DESTINATION, data)
    return data


WHOLE = segment(payload=b"12345")
UNSOUND: dict[str, list[bytes]] = {
    "malformed_ipv4": [
        ip4(WHOLE, version=5),
        ip4(WHOLE, words=4),
        ip4(WHOLE, total=19),
        ip4(WHOLE, total=len(WHOLE) + 21),
        ip4(WHOLE)[: 14 + 19],
    ],
    "malformed_ipv6": [ip6(WHOLE, version=4), ip6(WHOLE, size=len(WHOLE) + 1), ip6(WHOLE)[: 14 + 39]],
    "malformed_ipv6_extension": [
        # Cut off: half a header, half its options.  More of them than are followed.
        ip6(chain(1)[:7], following=DESTINATION),
        ip6(bytes([TCP, 3]) + 22 * b"\0", following=HOP_BY_HOP),
        ip6(chain(8), following=DESTINATION),
        ip6(chain(9), following=DESTINATION),
    ],
    "malformed_tcp": [
        ip4(segment(words=4)),
        ip4(segment(words=6)),
        ip4(WHOLE[:19]),
        ip6(segment(words=0)),
        ip6(WHOLE[:13]),
        ip6(segment(words=15, options=36 * b"\1", payload=b"123")),
    ],
    "fragments": [
        ip4(WHOLE, fragment=1),
        ip4(WHOLE, fragment=0x2000 | 185),
        ip6(bytes([TCP, 0, 0, 8]) + 4 * b"\7" + WHOLE, following=FRAGMENT),
        ip6(bytes([TCP, 0, 0xFF, 0xF8]) + 4 * b"\7" + WHOLE, following=FRAGMENT),
    ],
    "too_deep": [
        ip6(extension(TCP, segment(), units=30), following=HOP_BY_HOP),
        ip6(extension(DESTINATION, extension(TCP, segment(), units=15), units=15), following=HOP_BY_HOP),
    ],
}
SOUND = [
    ip4(WHOLE),
    ip4(WHOLE, fragment=0x2000),
    ip4(WHOLE, words=6, options=b"\1\1\1\0"),
    ip6(WHOLE),
    ip6(chain(7), following=DESTINATION),
    ip6(bytes([TCP, 0, 0, 1]) + 4 * b"\7" + WHOLE, following=FRAGMENT),
    ip6(extension(TCP, segment(), units=20), following=HOP_BY_HOP),
]
TIMES = {
    "malformed_ipv4": 3,
    "malformed_ipv6": 5,
    "malformed_ipv6_extension": 7,
    "malformed_tcp": 11,
    "fragments": 13,
    "too_deep": 17,
}


@pytest.fixture
def both_versions() -> Iterator[Place]:
    """Addresses of one version only, crafted frames of both."""
    with plain(IPV4) as place:
        yield place


@pytest.mark.parametrize("from_far", [True, False], ids=["in", "out"])
@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_unsound_frames(both_versions: Place, hook: str, from_far: bool) -> None:
    """Of each kind of its own number; what is sound among them is counted as such."""
    place = both_versions
    frames = [frame for kind, times in TIMES.items() for frame in UNSOUND[kind] * times] + SOUND * 19
    random.Random(4711).shuffle(frames)
    with place.traced("--hook", hook, "--packets") as tracer:
        inject(place.far if from_far else place.near, place.interface, frames)
        tracer.stop()
    expected = {kind: len(UNSOUND[kind]) * times for kind, times in TIMES.items()} | {"malformed_link": 0}
    assert {kind: tracer.summary[kind] for kind in expected} == expected
    assert tracer.summary["packets"] == len(tracer.packets) == 19 * len(SOUND)
    assert {one["direction"] for one in tracer.packets} == {"in" if from_far else "out"}


@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_link_headers_cut_off(both_versions: Place, hook: str) -> None:
    """Within a VLAN tag.  The kernel drops such a frame before TC sees it come in, so there it goes out."""
    place = both_versions
    once = ethernet(0x8100, b"\0")
    twice = ethernet(0x8100, b"\0\7\0", tags=bytes.fromhex("88a80005"))
    with place.traced("--hook", hook) as tracer:
        place.offloads(place.far, "tx-vlan-hw-insert", "off", "tx-vlan-stag-hw-insert", "off")
        inject(place.near if hook == "tc" else place.far, place.interface, [once] * 23 + [twice] * 29)
        tracer.stop()
    assert tracer.summary["malformed_link"] == 23 + 29
    assert tracer.summary["packets"] == 0


FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128, "AE": 256}
MSS, WINDOW_SCALE, SACK_PERMITTED, SACK, TIMESTAMPS = 2, 3, 4, 5, 8


def as_event(seen: Segment, direction: str) -> dict[str, Any]:
    """What a packet event must say of a segment that tcpdump saw."""

    def option(kind: int, form: str) -> tuple[Any, ...]:
        values = seen.options.get(kind)
        return struct.unpack(form, values[-1]) if values else (None, None)

    blocks = [edge for (edge,) in struct.iter_unpack(">I", b"".join(seen.options.get(SACK, [])))]
    return {
        "direction": direction,
        "src_ip": seen.src_ip,
        "dst_ip": seen.dst_ip,
        "src_port": seen.src_port,
        "dst_port": seen.dst_port,
        "ip_version": seen.ip_version,
        "src_mac": seen.src_mac,
        "dst_mac": seen.dst_mac,
        "vlan_id": seen.vlans[0] if seen.vlans else None,
        "vlan_inner_id": seen.vlans[1] if len(seen.vlans) > 1 else None,
        "ttl": seen.ttl,
        "dscp": seen.traffic_class >> 2,
        "ecn": seen.traffic_class & 3,
        "ip_id": seen.ip_id,
        "seq": seen.seq,
        "ack": seen.ack if seen.flags & 0x10 else None,
        "flags": {name for name, bit in FLAGS.items() if seen.flags & bit},
        "window": seen.window,
        "payload_bytes": seen.payload_bytes,
        "frame_bytes": seen.frame_bytes,
        "segments": 1,
        "mss_bytes": option(MSS, ">H")[0],
        "window_scale": option(WINDOW_SCALE, ">B")[0],
        "sack_permitted": SACK_PERMITTED in seen.options,
        # Only the first three, RFC 2018 section 3.
        "sack_blocks": [list(pair) for pair in zip(blocks[::2], blocks[1::2], strict=True)][:3],
        "ts_value": option(TIMESTAMPS, ">II")[0],
        "ts_echo": option(TIMESTAMPS, ">II")[1],
    }


def assert_fields(tracer: Tracer, segments: Sequence[Segment], near_port: Callable[[Segment], bool]) -> None:
    """Every packet event equal to its segment; each direction by itself is in order."""
    for direction in ("in", "out"):
        expected = [as_event(one, direction) for one in segments if near_port(one) is (direction == "out")]
        events = [one for one in tracer.packets if one["direction"] == direction]
        got = [{name: one[name] for name in as_event(segments[0], direction)} for one in events]
        for one in got:
            assert one["flags"] is None or isinstance(one["flags"], str)
            one["flags"] = set((one["flags"] or "").split("|")) - {""}
        assert in_order(got) == in_order(expected)


def in_order(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two CPUs may have delivered in another order than they sent."""
    return sorted(events, key=lambda one: sorted((name, str(value)) for name, value in one.items() if name != "flags"))


@pytest.mark.parametrize(
    ("place", "hook"), [("ipv4", "tc"), ("ipv6", "xdp"), ("vlan", "tc"), ("qinq", "xdp")], indirect=["place"]
)
def test_fields(place: Place, hook: str, request: pytest.FixtureRequest) -> None:
    """Of real connections, with ECN and a DSCP."""
    all_off(place)
    place.offloads(place.far, "tx-vlan-hw-insert", "off", "tx-vlan-stag-hw-insert", "off")
    for one in (place.near, place.far):
        one.run(["sysctl", "-q", "net.ipv4.tcp_ecn=1"])
    plan = [
        Connection(port=5005, request_bytes=12_345, response_bytes=23_456, exchanges=7, traffic_class=0xB8),
        Connection(port=5006, request_bytes=37, response_bytes=61, exchanges=73, traffic_class=0x28, mss_bytes=536),
    ]
    with place.observed() as observer, place.traced("--hook", hook, "--packets") as tracer:
        exchange(place.near, place.far, place.address, plan)
        segments = observer.finish(place.near, place.address)
        tracer.stop()
    name = next(name for name in PLACES if name in request.node.callspec.id)
    assert {one.vlans for one in segments} == {VLANS.get(name, ())}
    # Segments on the way out may still be together.
    if name in VLANS:
        assert_fields(tracer, segments, lambda one: one.dst_port in (5005, 5006))
    else:
        incoming = [one for one in segments if one.src_port in (5005, 5006)]
        small = [one for one in segments if one.dst_port == 5006]
        kept = [one for one in tracer.packets if one["direction"] == "in" or one["dst_port"] == 5006]
        tracer.events = kept
        assert_fields(tracer, incoming + small, lambda one: one.dst_port == 5006)


@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_fields_of_crafted_segments(both_versions: Place, hook: str) -> None:
    """Any value in any field, all flags, all options."""
    place = both_versions
    dice = random.Random(20_240_229)
    frames = [crafted(dice) for _ in range(997)]
    expected = [seen for frame in frames if (seen := decode(frame, len(frame)))]
    assert len(expected) == 997
    with place.observed() as observer, place.traced("--hook", hook, "--packets") as tracer:
        inject(place.far, place.interface, frames)
        segments = observer.finish(place.near, place.address)
        tracer.stop()
    assert Counter(map(str, segments)) == Counter(map(str, expected))
    assert_fields(tracer, segments, lambda one: False)


def crafted(dice: random.Random) -> bytes:
    """A frame from nobody to nobody."""
    word = dice.getrandbits
    kinds = {
        MSS: struct.pack(">BBH", 2, 4, word(16)),
        WINDOW_SCALE: struct.pack(">BBB", 3, 3, dice.randrange(15)),
        SACK_PERMITTED: b"\4\2",
        TIMESTAMPS: struct.pack(">BBII", 8, 10, word(32), word(32)),
        SACK: b"".join([bytes([5, 0]), *(struct.pack(">II", word(32), word(32)) for _ in range(dice.randint(1, 4)))]),
        254: bytes([254, 4, 0xF9, 0x89]),
    }
    kinds[SACK] = bytes([5, len(kinds[SACK])]) + kinds[SACK][2:]
    options = b""
    for kind in dice.sample(list(kinds), dice.randint(0, 4)):
        padded = dice.randint(0, 2) * b"\1" + kinds[kind]
        options += padded if len(options) + len(padded) <= 40 else b""
    options += -len(options) % 4 * b"\1"
    data = segment(
        flags=word(9),
        options=options,
        payload=bytes(dice.randint(0, 300)),
        ports=(word(16), word(16)),
        seq=word(32),
        ack=word(32),
        window=word(16),
    )
    if word(1):
        return ip4(data, tos=word(8), ip_id=word(16), ttl=dice.randint(1, 255))
    return ip6(data, traffic_class=word(8), hops=dice.randint(1, 255))


# --- The reader's side


def await_full_pipe(pid: int) -> None:
    """Until a process can write no more; where the kernel does not say what it waits for, a moment."""
    end = time.monotonic() + 2
    while "pipe_write" not in Path(f"/proc/{pid}/wchan").read_text() and time.monotonic() < end:
        select.select([], [], [], 0.01)


def test_a_reader_that_waits_loses_nothing() -> None:
    """A signal that comes while the output is held up: all of it is there in the end, whatever Python's buffering."""
    plan = [Connection(port=5007, request_bytes=37, response_bytes=61, exchanges=1237)]
    with namespace() as only:
        command = ["env", "PYTHONUNBUFFERED=1", str(COMMAND), "--json", "--packets", "lo"]
        with only.popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                assert process.stdout is not None
                first = process.stdout.readline()
                (done,) = exchange(only, only, "127.0.0.1", plan)
                await_full_pipe(process.pid)
                process.send_signal(signal.SIGINT)
                events = [json.loads(line) for line in (first, *process.stdout)]
            finally:
                process.kill()
    segments = done.src.segments_out + done.src.segments_in
    assert sum(one["segments"] for one in events if one["event"] == "packet") == segments
    assert events[-1]["packets"] == segments
