"""Layers of any bytes under any link type: no crash, no endless loop, no line too wide, nothing outside the frame."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tcptrace import records as r
from tcptrace.sinks.layers.dissect import MOST_LAYERS, dissect
from tcptrace.sinks.layers.names import LINK_TYPES
from tcptrace.sinks.layers.parts import DUMP_BYTES, Layer, Scene, Stream
from tcptrace.sinks.layers.render import layer_lines

from .test_layers import ETHERNET
from .test_layers_tshark import crafted

FRAMES = list(crafted())
NUMBERS = st.integers(0, 2**32 - 1)
STREAMS = st.builds(
    Stream, st.none() | NUMBERS, st.none() | NUMBERS, st.none() | st.integers(0, 14), st.booleans(), st.booleans()
)
LINKS = st.sampled_from([*LINK_TYPES, 9999])


def check(data: bytes, link_type: int, scene: Scene, width: int) -> list[Layer]:
    """What holds of any frame."""
    layers = dissect(data, link_type, scene)
    assert len(layers) <= MOST_LAYERS + 2
    for layer in layers:
        assert layer.name
        assert len(layer.dump) <= DUMP_BYTES
        for field in layer.fields:
            assert field.offset >= 0
            assert field.offset + field.length <= max(scene.original_bytes, len(data))
        for line in layer_lines(layer, width, lambda text, style: text):
            assert len(line) <= max(width, 42)
            assert line.isprintable()
    return layers


def scene_of(original: int, direction: int, segments: int, stream: Stream) -> Scene:
    return Scene(original_bytes=original, direction=direction, segments=segments, stream=stream)


@settings(max_examples=1_000)
@given(st.binary(max_size=300), LINKS, st.integers(0, 2_000), st.integers(0, 2), st.integers(0, 70), STREAMS)
def test_any_bytes(data: bytes, link_type: int, more: int, direction: int, segments: int, stream: Stream) -> None:
    layers = check(data, link_type, scene_of(len(data) + more, direction, segments, stream), 80)
    if data:
        assert layers


@settings(max_examples=1_000)
@given(
    st.sampled_from(FRAMES),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6),
    st.integers(0, 200),
    st.integers(0, 70_000),
    STREAMS,
    st.integers(30, 160),
)
def test_mutations(
    frame: bytes, changes: list[tuple[int, int]], kept: int, original: int, stream: Stream, width: int
) -> None:
    changed = np.frombuffer(frame, np.uint8).copy()
    for at, value in changes:
        changed[at % len(changed)] = value
    data = changed.tobytes()[:kept]
    ports = (40000, 443, 101)
    scene = scene_of(original, r.DIRECTION_EGRESS, 1, stream)
    scene.belongs = ports
    check(data, ETHERNET, scene, width)


def test_every_way_to_cut_every_frame_off_is_told() -> None:
    cut = 0
    for frame in FRAMES:
        whole = [layer.name for layer in dissect(frame, ETHERNET, Scene(original_bytes=len(frame)))]
        for kept in range(len(frame)):
            layers = dissect(frame[:kept], ETHERNET, Scene(original_bytes=len(frame)))
            names = [layer.name for layer in layers if layer.name != "after the packet"]
            assert names == whole[: len(names)]
            words = [field.meaning for layer in layers for field in layer.fields if field.tone == "warning"]
            told = any(word.startswith(("the capture kept", "cut off: the capture kept")) for word in words)
            cut += told
            # Only what is not decoded, or lies behind the packet, is not missed.
            assert told or kept >= len(frame) - 24, (frame.hex(), kept)
    assert cut > 1_800
