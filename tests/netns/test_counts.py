"""Packets, bytes and payload of every connection, equal to what tcpdump, the kernel and the programs themselves say."""

import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netns_tools import Namespace, veth
from observer import Observer, Segment, Tally, decode, tallies
from tracer import Tracer
from traffic import Connection, Exchange, exchange, inject, tunnel

from tcptrace.sources.live.bcc_loader import import_bcc

BPF_HEADERS = Path(__file__).parents[2] / "bpf"

IPV4, IPV6 = ("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")
PREFIX_BYTES = {".": 24, ":": 64}

BULK = Connection(port=5001, request_bytes=23_456_789, response_bytes=3_456_789)
MANY_SMALL = Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=1237)
TINY_MSS = Connection(port=5003, request_bytes=234_567, response_bytes=45_678, mss_bytes=88, send_buffer_bytes=4608)
PLAN = (BULK, MANY_SMALL, TINY_MSS)

NOTHING_WRONG = dict.fromkeys(
    (
        "records_lost",
        "perf_lost_samples",
        "unordered",
        "nested",
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
        yield Place(near, far, addresses[1])


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
        veth(near, far, [], [])
        for namespace, address in zip((near, far), with_prefix(IPV4), strict=True):
            veth(namespace, namespace, address, [], name_a="inner", name_b="port")
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


def assert_summary(tracer: Tracer, expected: dict[tuple[int, int], Tally]) -> None:
    summary = tracer.summary
    assert {name: summary[name] for name in NOTHING_WRONG} == NOTHING_WRONG
    assert summary["packets"] == sum(one.packets for one in expected.values())
    assert summary["bytes"] == sum(one.bytes for one in expected.values())
    assert summary["payload_bytes"] == sum(one.payload_bytes for one in expected.values())
    assert summary["connections_total"] == len(expected) // 2
    assert summary["connections_time_wait"] == len(expected) // 2


def assert_observed(tracer: Tracer, segments: Sequence[Segment], exchanges: Sequence[Exchange]) -> None:
    """Every number as tcpdump has it, and the payload as the programs have it."""
    expected = tallies(segments)
    assert row_tallies(tracer) == expected
    assert_payload(tracer, exchanges)
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
        exchanges = exchange(place.near, place.far, place.address, PLAN)
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
        exchanges = exchange(place.near, place.far, place.address, PLAN)
        segments = observer.finish(place.near, place.address)
        tracer.stop()
    # Below the second tag only a kernel with VLAN interfaces merges.
    if "qinq" not in request.node.callspec.id:
        assert largest_super_packet(tracer, "in") > 5
    assert largest_super_packet(tracer, "out") == 1
    assert_observed(tracer, segments, exchanges)
    assert_packet_events(tracer, exchanges)


@pytest.mark.parametrize("name", PLACES)
def test_never_segmented(name: str) -> None:
    """Super-packets from end to end: only the sockets know how many segments they stand for."""
    with PLACES[name]() as place:
        with place.traced("--packets") as tracer:
            exchanges = exchange(place.near, place.far, place.address, PLAN)
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
    place.offloads(place.far, "txvlan", "off")
    with place.observed() as observer, place.traced("--hook", "xdp") as tracer:
        exchanges = exchange(place.near, place.far, place.address, PLAN)
        segments = observer.finish(place.near, place.address)
        tracer.stop()
    assert "native" in tracer.start["hook"]
    assert_observed(tracer, segments, exchanges)


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
        exchanges = exchange(only, only, address, PLAN)
        tracer.stop()
    assert max(one["segments"] for one in tracer.packets) > 5
    assert_kernel(tracer, exchanges, 14, 40 if ":" in address else 20)


TUNNELLED = (
    Connection(port=5001, request_bytes=2_345_678, response_bytes=345_678),
    *PLAN[1:],
)


@pytest.mark.parametrize("addresses", [("10.8.0.1", "10.8.0.2"), ("fd08::1", "fd08::2")], ids=["ipv4", "ipv6"])
def test_no_link_header(addresses: tuple[str, str]) -> None:
    with two_namespaces() as (near, far), tunnel(near, far, "tun7", [with_prefix(addresses)]):
        place = Place(near, far, addresses[1], "tun7")
        with place.observed() as observer, place.traced() as tracer:
            exchanges = exchange(near, far, place.address, TUNNELLED)
            segments = observer.finish(near, place.address)
            tracer.stop()
    assert tracer.start["link"] == "raw"
    assert {segment.src_mac for segment in segments} == {None}
    assert_observed(tracer, segments, exchanges)


# --- Many connections, odd ones


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("place", ["ipv4", "ipv6"], indirect=True)
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
    if offload:
        # The observer's own side sends super-packets: only its incoming half is the wire's.
        incoming = {ports: one for ports, one in tallies(segments).items() if ports[1] >= 6000 > 0 and ports[1] < 6017}
        rows = row_tallies(tracer)
        assert {ports: rows[ports] for ports in incoming} == incoming
        assert_kernel(tracer, exchanges, 14, 40 if ":" in place.address else 20)
    else:
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


@pytest.mark.parametrize("hook", ["tc", "xdp"])
@pytest.mark.parametrize("name", OPTIONS)
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
