"""Public captures: connection by connection the numbers of tshark."""

from collections.abc import Sequence
from functools import cache

import pytest
from reference import FOLDER, Answer, Stream, ask, match, names, ostermann_directions, truth

pytestmark = pytest.mark.skipif(not names(), reason=f"no captures with reference numbers in {FOLDER}")

EXACT = {"packets": "frames", "bytes": "bytes", "payload_bytes": "payload"}
FLAGS = {
    "retransmissions": "retransmission",
    "out_of_order": "out_of_order",
    "duplicate_acks": "duplicate_ack",
    "zero_windows": "zero_window",
    "keep_alives": "keep_alive",
}
MORE_FLAGS = {
    "fast_retransmissions": "fast_retransmission",
    "spurious_retransmissions": "spurious_retransmission",
    "gaps": "lost_segment",
    "acked_unseen_segments": "ack_lost_segment",
    "zero_window_probes": "zero_window_probe",
    "zero_window_probe_acks": "zero_window_probe_ack",
    "windows_full": "window_full",
    "window_updates": "window_update",
    "keep_alive_acks": "keep_alive_ack",
}
# What is left of the medians, and why: docs/definitions.md, "Round-trip times".
STREAMS_DIFFER = {
    "suricata-verify/bug-6875-01.fuzz.pcap": "tshark takes the damaged file for a pcap with longer headers",
}
RTT_DIFFERS = {
    "bro/handshake-reorder.trace:0": "the SYN came after its SYN-ACK: tshark drops the sample of the SYN-ACK",
    "nDPI/6in4tunnel.pcap:1": "bytes sent again that tshark takes for out of order",
    "suricata-verify/tls-subjectaltname.input.pcap:10": "tshark times a segment that waited for a hole to be filled",
    "tcpdump/timestamp_invalid_micro.pcap:0": "the clock runs backwards: tshark gives a negative time",
}


@cache
def answer(name: str) -> Answer:
    return ask("-f", str(FOLDER / name))


@cache
def streams_of(name: str) -> tuple[Stream, ...]:
    return tuple(match(name, answer(name).connections, truth(name)))


def all_streams() -> list[Stream]:
    return [stream for name in names() for stream in streams_of(name)]


@pytest.mark.parametrize("name", names())
def test_connections_packets_and_bytes_equal_tsharks(name: str) -> None:
    counts = truth(name)["counts"]
    if name in STREAMS_DIFFER:
        assert (counts["streams"], answer(name).summary["cut_off"]) == (0, 1)
        return
    assert len(answer(name).connections) == counts["streams"] == len(streams_of(name))
    if counts["streams"] == 0:
        return
    assert answer(name).summary["packets"] == counts["tcp_frames_in_stream"]
    for stream in streams_of(name):
        for ours, theirs in EXACT.items():
            assert all(mine == reference for mine, reference in stream.pairs(ours, theirs)), (stream.name, ours)


@pytest.mark.parametrize(("ours", "theirs"), [*FLAGS.items(), *MORE_FLAGS.items()])
def test_findings_agree_with_tshark(ours: str, theirs: str) -> None:
    pairs = [stream.flag(ours, theirs) for stream in all_streams()]
    assert sum(mine == reference for mine, reference in pairs) >= 0.95 * len(pairs)
    mine, reference = (sum(column) for column in zip(*pairs, strict=True))
    assert reference > 0
    assert mine == pytest.approx(reference, rel=0.02)


def test_initial_rtt_equals_tsharks_to_the_microsecond() -> None:
    pairs = initial_rtt_pairs(all_streams())
    assert [pair for pair in pairs if pair[0] != pytest.approx(pair[1], abs=0.5)] == []
    assert len(pairs) > 200


def initial_rtt_pairs(streams: Sequence[Stream]) -> list[tuple[float, float]]:
    """Our initial RTT and tshark's in microseconds, where tshark has one."""
    return [
        (stream.ours["initial_rtt_us"] or 0.0, stream.truth["initial_rtt"] * 1e6)
        for stream in streams
        if stream.truth.get("initial_rtt") is not None
    ]


def rtt_pairs(stream: Stream) -> list[tuple[float, float]]:
    """Our median RTT and tshark's, where both have one and tshark saw no retransmission in the stream."""
    if stream.flag("retransmissions", "retransmission")[1]:
        return []
    pairs = []
    for which in ("a2b", "b2a"):
        reference = stream.truth.get(which, {}).get("rtt")
        if reference and not stream.truth[which].get("rtt_zero"):
            pairs.append((stream.ours[f"{stream.direction(which)}_rtt_p50_us"] or 0.0, reference["median"] * 1e6))
    return pairs


def test_median_rtt_agrees_with_tshark_without_retransmissions() -> None:
    compared = 0
    for stream in all_streams():
        for ours, reference in rtt_pairs(stream):
            compared += 1
            agrees = ours == pytest.approx(reference, rel=0.01)
            assert agrees or stream.name in RTT_DIFFERS, (stream.name, ours, reference)
    assert compared > 200


def test_rtt_beside_retransmissions_agrees_with_ostermanns_tcptrace() -> None:
    """tshark knows no Karn rule; Ostermann's tcptrace does, and prints tenths of a millisecond."""
    pairs = [
        pair
        for name in names()
        for pair in ostermann_directions(truth(name), list(streams_of(name)))
        if pair.stream.flag("retransmissions", "retransmission")[1]
    ]
    same_samples = [pair for pair in pairs if pair.ours("rtt_count") == pair.theirs["RTT samples"]]
    # The others: samples that we do not take, of what had overtaken bytes that came late.
    assert len(same_samples) >= 0.85 * len(pairs)
    for ours, theirs in {"rtt_min_us": "RTT min", "rtt_mean_us": "RTT avg", "rtt_max_us": "RTT max"}.items():
        agreeing = sum(
            pair.ours(ours) / 1e3 == pytest.approx(pair.theirs.get(theirs, 0.0), rel=0.001, abs=0.0501)
            for pair in same_samples
        )
        assert agreeing >= 0.98 * len(same_samples), (ours, agreeing, len(same_samples))  # as many may still be others
    assert len(pairs) > 200


def test_the_table_of_agreement(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed for the reader: file x metric, our total / tshark's, and in how many streams both are equal.

    Of RTT in how many streams (of the median: directions) both are: to the microsecond, or within 1 %.
    """
    lines = []
    for name in names():
        streams = streams_of(name)
        cells = []
        for ours, theirs in EXACT.items():
            cells.append(cell([pair for stream in streams for pair in stream.pairs(ours, theirs)]))
        for ours, theirs in FLAGS.items():
            cells.append(cell([stream.flag(ours, theirs) for stream in streams]))
        cells.append(share(initial_rtt_pairs(streams), abs_us=0.5))
        cells.append(share([pair for stream in streams for pair in rtt_pairs(stream)], rel=0.01))
        lines.append(f"{name[-34:]:34}" + "".join(f"{text:>16}" for text in cells))
    heading = f"{'file':34}" + "".join(f"{title[:15]:>16}" for title in (*EXACT, *FLAGS, "initial RTT", "median RTT"))
    with capsys.disabled():
        print("\n" + "\n".join([heading, *lines]))
    assert len(lines) == len(names())


def cell(pairs: list[tuple[int, int]]) -> str:
    if not pairs:
        return "–"
    mine, reference = (sum(column) for column in zip(*pairs, strict=True))
    total = f"{mine}" if mine == reference else f"{mine}/{reference}"
    equal = sum(a == b for a, b in pairs)
    return total if equal == len(pairs) else f"{total} {equal}:{len(pairs)}"


def share(pairs: list[tuple[float, float]], *, rel: float = 0.0, abs_us: float = 0.0) -> str:
    if not pairs:
        return "–"
    return f"{sum(a == pytest.approx(b, rel=rel, abs=abs_us) for a, b in pairs)}:{len(pairs)}"
