"""The frames that a live source hands over are those that tcpdump sees at the same place, byte for byte."""

import json
import os
import select
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from netns_tools import TIMEOUT_S, Namespace
from observer import Observer, Ports, decode, read_frames
from test_counts import Place, all_off, namespace, plain, tagged, two_namespaces, with_prefix
from traffic import Connection, exchange, tunnel

KEEP_FRAMES = Path(__file__).parent / "programs" / "keep_frames.py"
WHOLE_FRAME_BYTES = 65_600
"""Snaplen of the judge, which keeps a place of that size in its buffer for every frame."""
MOST_BYTES = 65_328
"""What a perf sample can hold of one frame: 65,528 bytes without 16 of the kernel's and 184 of ours."""

IPV4, IPV6 = ("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")
PLAN = (
    Connection(port=5001, request_bytes=2_345_677, response_bytes=1_234_567),
    Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=171),
    Connection(port=5003, request_bytes=23_456, response_bytes=4_567, mss_bytes=88, send_buffer_bytes=4608),
)
PLAN_LARGEST = (Connection(port=5001, request_bytes=9_345_677, response_bytes=61, send_buffer_bytes=400_000),)
"""Super-packets of 64 KiB."""
PLAN_OUT_SMALL = (
    Connection(port=5001, request_bytes=1000, response_bytes=1_234_567),
    Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=171),
    Connection(port=5003, request_bytes=60, response_bytes=23_456, mss_bytes=88, send_buffer_bytes=4608),
)
"""Where super-packets are cut up only after the hook: none goes out."""
SNAPLENS = (1, 13, 60, 128, 256, 257, 1500, 65535)
"""13 ends inside a VLAN tag; up to 256 the frames are staged, from 257 on appended to the sample."""

Frame = tuple[bytes, int]
"""Its captured bytes, and its length."""


# --- Where


@contextmanager
def loopback() -> Iterator[Place]:
    with namespace() as only:
        yield Place(only, only, "127.0.0.1", "lo")


@contextmanager
def tun() -> Iterator[Place]:
    with two_namespaces() as (near, far), tunnel(near, far, "tun7", [with_prefix(IPV4)]):
        yield Place(near, far, IPV4[1], "tun7")


PLACES: dict[str, Callable[[], Any]] = {
    "ipv4": lambda: plain(IPV4),
    "ipv6": lambda: plain(IPV6),
    "vlan": lambda: tagged({"OUTER_TYPE": 0x8100, "OUTER": 73}),
    "qinq": lambda: tagged({"OUTER_TYPE": 0x88A8, "OUTER": 1789, "INNER": 41}),
    "lo": loopback,
    "tun": tun,
}


@contextmanager
def on_one_cpu(name: str) -> Iterator[Place]:
    """A place and all that runs there: on two CPUs packets overtake each other between the hook and tcpdump."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        with PLACES[name]() as place:
            yield place
    finally:
        os.sched_setaffinity(0, cpus)


# --- What the source hands over


class Source:
    """keep_frames.py inside a namespace, attached once entered."""

    def __init__(self, place: Place, snaplen: int, *, hook: str = "tc", ring_bytes: int = 0) -> None:
        self._namespace: Namespace = place.near
        self._arguments = [place.interface, str(snaplen), hook, str(ring_bytes)]
        self._stack = ExitStack()

    def __enter__(self) -> "Source":
        self._file = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tcptrace-")), "kept.npz")
        command = [sys.executable, "-P", str(KEEP_FRAMES), *self._arguments, str(self._file)]
        self._process = self._stack.enter_context(self._namespace.popen(command))
        self._stack.callback(self._process.kill)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise AssertionError(self._process.communicate(timeout=TIMEOUT_S)[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self) -> None:
        """From now on; until then nothing leaves the rings."""
        self._say("r")

    def stop(self) -> None:
        """End it; what it has said is in the attributes."""
        self._say("s")
        out, errors = self._process.communicate(timeout=TIMEOUT_S)
        assert (self._process.returncode, errors) == (0, "")
        self.said = json.loads(out)
        self.counters: dict[str, int] = self.said["counters"]
        with np.load(self._file) as kept:
            self.records = kept["records"]
            self.data, self.starts = kept["data"], kept["starts"]
            self.captured_bytes, self.original_bytes = kept["captured_bytes"], kept["original_bytes"]

    def frames(self) -> dict[Ports, list[Frame]]:
        """Of each direction of a connection, in their order."""
        found: dict[Ports, list[Frame]] = defaultdict(list)
        for index, record in enumerate(self.records):
            start, captured = int(self.starts[index]), int(self.captured_bytes[index])
            frame = self.data[start : start + captured].tobytes()
            found[int(record["src_port"]), int(record["dst_port"])].append((frame, int(self.original_bytes[index])))
        return found

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word)
        self._process.stdin.flush()


def judged(file: Path, snaplen: int) -> dict[Ports, list[Frame]]:
    """The same by tcpdump."""
    found: dict[Ports, list[Frame]] = defaultdict(list)
    for link, frame, length in read_frames(file):
        assert len(frame) == length
        segment = decode(frame, length, link)
        if segment is not None:
            found[segment.ports].append((frame[: min(snaplen, MOST_BYTES)], length))
    return found


def seen_by_both(
    place: Place, snaplen: int, hook: str, patch: pytest.MonkeyPatch, plan: Sequence[Connection] = PLAN
) -> tuple[Source, dict[Ports, list[Frame]]]:
    patch.setattr("observer.SNAP_BYTES", 2000 if place.interface == "tun7" else WHOLE_FRAME_BYTES)
    patch.setattr("observer.BUFFER_KIB", 131_072)
    with Observer(place.near, place.interface) as observer, Source(place, snaplen, hook=hook) as source:
        source.read()
        exchange(place.near, place.far, place.address, plan)
        observer.finish(place.near, place.address)
        source.stop()
        expected = judged(observer.file, snaplen)
    assert len(expected) == 2 * len(plan)
    assert source.counters["records"] == source.counters["tcp"] == len(source.records)
    assert source.counters["records_lost"] == source.said["unordered"] == 0
    assert (np.diff(source.records["time_ns"].astype(np.int64)) >= 0).all()
    return source, expected


def super_packets(frames: dict[Ports, list[Frame]]) -> int:
    return sum(length > 5000 for one in frames.values() for _, length in one)


# --- As tcpdump has them


@pytest.mark.parametrize("snaplen", SNAPLENS)
@pytest.mark.parametrize("name", ["ipv4", "vlan"])
def test_any_snaplen(name: str, snaplen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_one_cpu(name) as place:
        source, expected = seen_by_both(place, snaplen, "tc", monkeypatch)
    assert source.frames() == expected
    assert super_packets(expected) > 20
    assert not (source.records["note"] & 0x18).any()
    seen = f"ethernet, seen by {source.said['attached']}"
    described = {"name": "veth0", "description": seen, "link_type": 1, "snaplen": min(snaplen, MOST_BYTES)}
    assert source.said["interfaces"] == [described]


@pytest.mark.parametrize("snaplen", [128, 65535])
@pytest.mark.parametrize("name", ["ipv6", "qinq", "lo"])
def test_any_place(name: str, snaplen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_one_cpu(name) as place:
        source, expected = seen_by_both(place, snaplen, "tc", monkeypatch)
    assert source.frames() == expected
    if name != "qinq":
        assert super_packets(expected) > 20


@pytest.mark.parametrize("name", ["ipv4", "lo"])
def test_larger_than_a_sample(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_one_cpu(name) as place:
        source, expected = seen_by_both(place, 262_144, "tc", monkeypatch, PLAN_LARGEST)
    assert source.frames() == expected
    cut = source.original_bytes > source.captured_bytes
    assert source.original_bytes.max() > 65_000
    assert (source.captured_bytes[cut] == MOST_BYTES).all()
    assert cut.any() == (name == "lo")


@pytest.mark.parametrize("snaplen", [60, 65535])
def test_no_link_header(snaplen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_one_cpu("tun") as place:
        source, expected = seen_by_both(place, snaplen, "tc", monkeypatch, PLAN_OUT_SMALL)
    client = {ports for ports in expected if ports[1] in {one.port for one in PLAN_OUT_SMALL}}
    for frames in (found := source.frames(), expected):
        for ports in client:  # only after the hook the kernel completes the checksums that tun does not
            frames[ports] = [(frame[:36] + frame[38:], length) for frame, length in frames[ports]]
    assert found == expected
    assert source.said["interfaces"][0]["link_type"] == 101


@pytest.mark.parametrize("snaplen", [1, 128, 256, 1500, 65535])
@pytest.mark.parametrize("name", ["ipv4", "vlan"])
def test_xdp(name: str, snaplen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_one_cpu(name) as place:
        # A tag that is not in the bytes is not seen by XDP.
        place.offloads(place.far, "tx-vlan-hw-insert", "off", "tx-vlan-stag-hw-insert", "off")
        source, expected = seen_by_both(place, snaplen, "xdp", monkeypatch)
    assert source.said["attached"] == "xdp (native) ingress, tc egress"
    assert source.frames() == expected


# --- Much at once, and more than there is room for

STRESS = (
    Connection(port=5001, request_bytes=1_500_000_000, response_bytes=500_000_000),
    Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=60_000),
    Connection(port=5003, request_bytes=12_000_000, response_bytes=6_000_000, mss_bytes=88, send_buffer_bytes=4608),
)
WHOLE_FRAMES = (
    Connection(port=5001, request_bytes=150_000_000, response_bytes=50_000_000),
    Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=20_000),
    Connection(port=5003, request_bytes=4_000_000, response_bytes=2_000_000, mss_bytes=88, send_buffer_bytes=4608),
)


@pytest.mark.parametrize(("snaplen", "exchanged"), [(128, STRESS), (65535, WHOLE_FRAMES)], ids=["128", "65535"])
def test_much_at_once(snaplen: int, exchanged: Sequence[Connection]) -> None:
    """Seconds of as much as goes: every segment that the sockets counted is there, or its record counted as lost."""
    with plain(IPV4) as place:
        all_off(place)
        with Source(place, snaplen) as source:
            source.read()
            exchanges = exchange(place.near, place.far, place.address, exchanged)
            source.stop()
    assert source.counters["records"] > 100_000
    assert len(source.records) > 10_000
    assert_accounted(source)
    lost = source.counters["records_lost"]
    missing = sum(one.src.segments_out + one.src.segments_in for one in exchanges)
    missing -= int(source.records["segments"].sum(dtype=np.int64))
    assert missing >= lost  # a record stands for one segment at least
    assert lost or not missing
    assert_own_bytes(source, snaplen)


LATE = (
    Connection(port=5001, request_bytes=20_345_678, response_bytes=10_234_567),
    Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=9000),
    Connection(port=5003, request_bytes=1_234, response_bytes=4_321, exchanges=1000),
)
"""More than is taken out of a ring at once."""


WAITED_FOR_S = 0.3
"""Longer than the merge waits for a silent CPU."""


def test_a_reader_that_comes_late() -> None:
    """All is there and in order, although the rings are emptied by and by."""
    with plain(IPV4) as place, Source(place, 65535) as source:
        exchange(place.near, place.far, place.address, LATE)
        select.select([], [], [], WAITED_FOR_S)
        source.read()
        source.stop()
    assert source.captured_bytes.sum(dtype=np.int64) > 30_000_000
    assert source.counters["records_lost"] == 0
    assert_accounted(source)
    assert (np.diff(source.records["time_ns"].astype(np.int64)) >= 0).all()
    assert_own_bytes(source, 65535)


OVERFLOW = (
    Connection(port=5001, request_bytes=3_456_789),
    Connection(port=5002, request_bytes=37, response_bytes=61, exchanges=4000),
)


@pytest.mark.parametrize(("snaplen", "ring_bytes"), [(128, 1 << 16), (65535, 1 << 20)])
def test_more_than_the_rings_hold(snaplen: int, ring_bytes: int) -> None:
    """Nobody reads until all is over: what was lost is counted."""
    with (
        plain(IPV4) as place,
        Observer(place.near, place.interface) as observer,
        Source(place, snaplen, ring_bytes=ring_bytes) as source,
    ):
        exchange(place.near, place.far, place.address, OVERFLOW)
        source.read()
        exchange(place.near, place.far, place.address, PLAN[1:2])
        segments = observer.finish(place.near, place.address)
        source.stop()
    assert len(source.records) > 300
    assert source.counters["records_lost"] > 1000
    assert_accounted(source)
    assert source.counters["tcp"] == len(segments)
    assert_own_bytes(source, snaplen)


def assert_accounted(source: Source) -> None:
    assert source.counters["records"] == source.counters["tcp"]
    assert len(source.records) + source.counters["records_lost"] == source.counters["records"]
    assert source.said["unordered"] == 0


def assert_own_bytes(source: Source, snaplen: int) -> None:
    """The headers in every frame's bytes are those its record was made of (IPv4 without options)."""
    records = source.records
    repeated = records["segments"].astype(np.int64) - 1
    frame_bytes = source.original_bytes + repeated * (source.original_bytes - records["payload_bytes"])
    assert (frame_bytes == records["frame_bytes"]).all()
    assert (source.captured_bytes == np.minimum(source.original_bytes, min(snaplen, MOST_BYTES))).all()
    headers = source.data[source.starts[:, None] + np.arange(54)]

    def number(offset: int, kind: str) -> Any:
        size = np.dtype(kind).itemsize
        return np.ascontiguousarray(headers[:, offset : offset + size]).view(kind)[:, 0]

    assert (headers[:, :6] == records["dst_mac"]).all()
    assert (headers[:, 6:12] == records["src_mac"]).all()
    assert (number(12, ">u2") == 0x0800).all()
    assert (number(16, ">u2") + 14 == source.original_bytes).all()
    assert (number(18, ">u2") == records["ip_id"]).all()
    assert (headers[:, 26:30] == records["src_addr"][:, 12:]).all()
    assert (headers[:, 30:34] == records["dst_addr"][:, 12:]).all()
    for offset, name in ((34, "src_port"), (36, "dst_port")):
        assert (number(offset, ">u2") == records[name]).all(), name
    for offset, name in ((38, "seq"), (42, "ack")):
        assert (number(offset, ">u4") == records[name]).all(), name
    assert (number(46, ">u2") & 0x1FF == records["flags"]).all()
    assert (number(48, ">u2") == records["window"]).all()
