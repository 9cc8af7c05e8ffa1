"""capture_file/decapsulate.h under sanitizers: whatever the bytes are, it reads none that are not there."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..unit.decapsulator import VERDICTS, Decapsulator, Frame
from ..unit.test_decapsulate import LINKS
from ..unit.test_decapsulate_fragments import SEQUENCES
from ..unit.test_decapsulate_tunnels import TUNNELS

SETTINGS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400, deadline=None)
ETHERNET = 1


@pytest.fixture(scope="module")
def decapsulate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decapsulator]:
    """One for all examples: fragments of one may meet those of another."""
    decapsulator = Decapsulator(tmp_path_factory.mktemp("decapsulate"))
    yield decapsulator
    decapsulator.close()


good = st.one_of(
    st.sampled_from(list(LINKS.values())),
    st.sampled_from([(ETHERNET, frame) for frame in TUNNELS.values()]),
    st.sampled_from([(ETHERNET, frame) for frames, _ in SEQUENCES.values() for frame, _ in frames]),
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[int, Frame]:
    """A frame with a few bytes changed, possibly cut off, and of a length that may be wrong; and its link type."""
    link, frame = draw(good)
    changed = bytearray(frame)
    for _ in range(draw(st.integers(0, 5))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    original = draw(st.one_of(st.just(len(frame)), st.integers(0, 2**32 - 1)))
    return link, (bytes(changed[: draw(st.integers(0, len(changed)))]), original)


def check(decapsulate: Decapsulator, link: int, frame: bytes, original: int, time_ns: int = 0) -> None:
    answer = decapsulate(frame, link, original=original, time_ns=time_ns)
    assert answer.verdict in VERDICTS
    if answer.verdict == "tcp":
        assert answer.ip[0] >> 4 == answer.record["ip_version"]
        assert len(answer.ip) <= answer.ip_original_bytes
        assert answer.record["payload_bytes"] < answer.ip_original_bytes


@SETTINGS
@given(frame=mutated(), time_ns=st.integers(0, 2**63))
def test_mutated_frames(decapsulate: Decapsulator, frame: tuple[int, Frame], time_ns: int) -> None:
    link, (data, original) = frame
    check(decapsulate, link, data, original, time_ns)


@SETTINGS
@given(frame=st.binary(max_size=300), link=st.integers(0, 300), more=st.integers(0, 2**32 - 1))
def test_random_bytes(decapsulate: Decapsulator, frame: bytes, link: int, more: int) -> None:
    check(decapsulate, link, frame, more)


@SETTINGS
@given(start=good, kept=st.integers(1, 120), rest=st.binary(max_size=200))
def test_random_bytes_behind_good_ones(
    decapsulate: Decapsulator, start: tuple[int, bytes], kept: int, rest: bytes
) -> None:
    link, frame = start
    check(decapsulate, link, frame[:kept] + rest, 0)
