"""Whatever frames there are, a decoder of its own finds them in the file again."""

import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcptrace.model import Clock
from tcptrace.records import (
    DIRECTION_EGRESS,
    DIRECTION_INGRESS,
    DIRECTION_UNKNOWN,
    NOTE_FIRST_SEND,
    NOTE_SENT_BEFORE,
    CaptureInterface,
)

from ..unit.capture_writing import HandView, Packet, decode, decode_pcap, file_info, live_info, uncompressed, write

LARGEST = 262_144
u4 = st.integers(0, 2**32 - 1)


@st.composite
def packets(draw: st.DrawFn, interfaces: int, latest_ns: int) -> list[Packet]:
    """In any order, with lengths that need not make sense."""
    data = st.one_of(st.binary(max_size=40), st.integers(0, 3_000).map(lambda n: bytes([n & 255]) * n))
    packet = st.builds(
        Packet,
        data=data,
        time_ns=st.integers(0, latest_ns),
        direction=st.sampled_from([DIRECTION_INGRESS, DIRECTION_EGRESS, DIRECTION_UNKNOWN]),
        segments=st.one_of(st.just(1), st.integers(0, 65_535)),
        note=st.integers(0, 255),
        original_bytes=st.one_of(st.none(), u4),
        frame_bytes=st.one_of(st.none(), u4),
        interface=st.integers(0, interfaces - 1),
    )
    return draw(st.lists(packet, max_size=30))


descriptions = st.builds(
    CaptureInterface,
    name=st.one_of(st.none(), st.text(max_size=20)),
    description=st.one_of(st.none(), st.text(max_size=20)),
    link_type=st.integers(0, 65_535),
    snaplen=st.integers(0, 2**32 - 1),
)


def options_of(packet: Packet) -> dict[int, list[bytes]]:
    options = {}
    if packet.direction != DIRECTION_UNKNOWN:
        options[2] = [struct.pack("<I", 1 if packet.direction == DIRECTION_INGRESS else 2)]
    original = len(packet.data) if packet.original_bytes is None else packet.original_bytes
    frame = original if packet.frame_bytes is None else packet.frame_bytes
    note = packet.note & (NOTE_FIRST_SEND | NOTE_SENT_BEFORE)
    if packet.segments > 1 or note or frame != original:
        value = struct.pack("<BBHI", 1, note, packet.segments, frame)
        options[2989] = [struct.pack("<I", 32_473) + b"tcptrace" + value]
    return options


@pytest.mark.parametrize("extension", [".pcapng", ".pcapng.gz", ".pcapng.zst"])
@settings(max_examples=60)
@given(st.data())
def test_pcapng(extension: str, data: st.DataObject) -> None:
    if extension.endswith("zst"):
        pytest.importorskip("zstandard")
    interfaces = data.draw(st.lists(descriptions, min_size=1, max_size=3))
    offset_ns = data.draw(st.integers(0, 2**62))
    batches = data.draw(st.lists(packets(len(interfaces), 2**62), max_size=3))
    snaplen = data.draw(st.sampled_from([0, 1, 64, 2_000]))
    sent = [packet for batch in batches for packet in batch]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{extension}"
        info = live_info(interfaces, clock=Clock(offset_ns))
        write(path, *batches, info=info, snaplen=snaplen)
        section = decode(uncompressed(path))
    kept = snaplen or LARGEST
    assert [(kind, size, options.get(2), options.get(3)) for kind, size, options in section.interfaces] == [
        (
            interface.link_type,
            min(interface.snaplen or LARGEST, kept),
            None if interface.name is None else [interface.name.encode("utf-8", "replace")],
            None if interface.description is None else [interface.description.encode("utf-8", "replace")],
        )
        for interface in interfaces
    ]
    assert section.packets == [
        (
            packet.interface,
            packet.time_ns + offset_ns,
            packet.data[:kept],
            len(packet.data) if packet.original_bytes is None else packet.original_bytes,
            options_of(packet),
        )
        for packet in sent
    ]
    delivered = [struct.unpack("<Q", options[8][0])[0] for _, _, options in section.statistics]
    assert delivered == [sum(packet.interface == index for packet in sent) for index in range(len(interfaces))]


@settings(max_examples=60)
@given(st.lists(packets(1, 2**32 * 10**9 - 1), max_size=3), st.integers(0, 65_535), st.sampled_from([0, 1, 64]))
def test_pcap(batches: list[list[Packet]], link_type: int, snaplen: int) -> None:
    kept = snaplen or LARGEST
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pcap"
        write(path, *batches, info=live_info([CaptureInterface("x", None, link_type, 0)]), snaplen=snaplen)
        decoded = decode_pcap(path.read_bytes())
    assert decoded == (
        kept,
        link_type,
        [
            (
                packet.time_ns,
                packet.data[:kept],
                len(packet.data) if packet.original_bytes is None else packet.original_bytes,
            )
            for batch in batches
            for packet in batch
        ],
    )


@settings(max_examples=60)
@given(
    st.lists(packets(2, 10**12), max_size=3),
    st.integers(1, 5_000),
    st.sampled_from([None, 1e-3, 50.0]),
    st.sampled_from([".pcapng", ".pcapng.gz"]),
)
def test_rotation_loses_nothing(
    batches: list[list[Packet]], rotate_bytes: int, rotate_s: float | None, extension: str
) -> None:
    interfaces = [CaptureInterface("a", None, 1, 0), CaptureInterface("b", None, 101, 0)]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"x{extension}"
        write(target, *batches, info=file_info([], interfaces), rotate_bytes=rotate_bytes, rotate_s=rotate_s,
              view=HandView())  # fmt: skip
        files = sorted(Path(folder).iterdir())
        sections = [decode(uncompressed(path)) for path in files]
        sizes = [path.stat().st_size for path in files]
    found = [(packet[0], packet[1], packet[2]) for section in sections for packet in section.packets]
    assert found == [(packet.interface, packet.time_ns, packet.data) for batch in batches for packet in batch]
    for section, size in zip(sections, sizes, strict=True):
        assert len(section.packets) <= 1 or size <= rotate_bytes
        assert [options[2] for *_, options in section.interfaces] == [[b"a"], [b"b"]]
