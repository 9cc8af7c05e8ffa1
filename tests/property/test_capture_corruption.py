"""Any damage to a capture file: what came before it is delivered, nothing hangs, memory stays small."""

import gzip
import resource
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcptrace.errors import TcptraceError

from ..unit.capture_bytes import (
    START_S,
    Reading,
    enhanced,
    frame,
    interface,
    option,
    pcap,
    pcap_record,
    read_all,
    section,
)

PACKETS = 40
MEMORY_GROWTH_MAX_KIB = 200 << 10
LIES = [0, 1, 3, 12, 28, 65535, 262144, 262145, 2**24, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1]


def pcap_pieces() -> list[bytes]:
    return [pcap([]), *(pcap_record(START_S, n, frame(n, bytes(n))) for n in range(PACKETS))]


def pcapng_pieces() -> list[bytes]:
    options = option(1, b"comment") + option(2, b"\1\0\0\0")
    packets = [enhanced(START_S * 10**6 + n, frame(n, bytes(n)), options) for n in range(PACKETS)]
    return [section() + interface(options=option(2, b"eth0") + option(9, b"\6")), *packets]


PIECES = {"pcap": pcap_pieces(), "pcapng": pcapng_pieces()}


def whole_packets(pieces: list[bytes], damaged_at: int) -> int:
    """How many packets end before the first damaged byte; -1: the damage is in the file's head."""
    end, count = 0, -1
    for piece in pieces:
        end += len(piece)
        if end > damaged_at:
            break
        count += 1
    return count


def read(data: bytes) -> Reading | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged"
        path.write_bytes(data)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            return read_all(path, keep_frames=True)
        except TcptraceError as error:
            message = str(error)
        finally:
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_GROWTH_MAX_KIB
    assert "\n" not in message
    assert "damaged: " in message
    return None


def check(kind: str, data: bytes, damaged_at: int) -> None:
    expected = whole_packets(PIECES[kind], damaged_at)
    reading = read(data)
    if expected < 0:
        return
    if reading is None:
        assert expected == 0
        return
    assert reading.seqs[:expected] == list(range(expected))
    assert reading.frames[:expected] == [frame(n, bytes(n)) for n in range(expected)]
    assert len(reading.records) == reading.totals.counters["records"] <= reading.totals.counters["frames"]
    assert (reading.warning is not None) >= bool(reading.totals.counters["cut_off"])


@pytest.mark.parametrize("kind", PIECES)
@given(data=st.data())
@settings(max_examples=150)
def test_bytes_that_changed(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(b"".join(PIECES[kind]))
    places = data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6, unique=True))
    for place in places:
        damaged[place] ^= data.draw(st.integers(1, 255))
    check(kind, bytes(damaged), min(places))


@pytest.mark.parametrize("kind", PIECES)
@given(data=st.data())
@settings(max_examples=100)
def test_bytes_that_are_missing_or_too_many(kind: str, data: st.DataObject) -> None:
    whole = b"".join(PIECES[kind])
    place = data.draw(st.integers(0, len(whole)))
    gone = data.draw(st.integers(0, 200))
    extra = data.draw(st.binary(max_size=100))
    check(kind, whole[:place] + extra + whole[place + gone :], place)


@pytest.mark.parametrize("kind", PIECES)
@given(data=st.data())
@settings(max_examples=100)
def test_words_that_lie(kind: str, data: st.DataObject) -> None:
    """Where lengths and numbers stand: at multiples of four in pcapng, after the frames in pcap."""
    whole = bytearray(b"".join(PIECES[kind]))
    piece = data.draw(st.integers(0, PACKETS))
    start = sum(map(len, PIECES[kind][:piece]))
    place = start + 4 * data.draw(st.integers(0, 8))
    word = data.draw(st.sampled_from(LIES))
    whole[place : place + 4] = word.to_bytes(4, data.draw(st.sampled_from(["little", "big"])))
    check(kind, bytes(whole), place)


@given(data=st.data())
@settings(max_examples=50)
def test_compressed_bytes_that_changed(data: st.DataObject) -> None:
    compressed = bytearray(gzip.compress(b"".join(PIECES["pcapng"]), mtime=0))
    place = data.draw(st.integers(10, len(compressed) - 1))
    compressed[place] ^= data.draw(st.integers(1, 255))
    reading = read(bytes(compressed))
    assert reading is None or reading.warning is not None
