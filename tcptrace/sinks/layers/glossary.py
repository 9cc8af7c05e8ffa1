"""What the engine's findings mean, in one line each."""

import math
from typing import Any, Final

from tcptrace.sinks import human
from tcptrace.sinks.layers.parts import Layer

GLOSSARY: Final = {
    "retransmission": "bytes that were sent before, sent again",
    "fast_retransmission": "sent again because duplicate ACKs asked for it, without waiting for a timer",
    "spurious_retransmission": "sent again though they had already been acknowledged: not needed",
    "out_of_order": "fills a gap too soon to have been asked for: packets overtook each other",
    "previous_segment_not_captured": "bytes are missing before it: lost, late, or missed by the capture",
    "duplicate_ack": "repeats an acknowledgment: something arrived, but not the next byte",
    "acked_unseen_segment": "acknowledges bytes that the capture has not seen",
    "window_update": "acknowledges nothing new, only tells of more room",
    "window_full": "fills all the room that the other end has told of",
    "zero_window": "the sender of this has no room left: the other end has to stop",
    "zero_window_probe": "one byte to find out whether the other end has room again",
    "zero_window_probe_ack": "answers such a probe: still no room",
    "keep_alive": "asks whether the other end is still there",
    "keep_alive_ack": "answers a keep-alive: still there",
    "port_reuse": "a new connection with the addresses and ports of an earlier one",
    "duplicate_sack": "reports bytes that came twice: one sending of them was not needed (RFC 2883)",
    "local_drop": "sent once more because this host's own queue had refused it: it never was on the wire",
    "rtt": "from the sending of what this acknowledges until now",
    "in_flight": "sent this way and not yet acknowledged, this segment included",
}
"""For every name of model.ANALYSIS, and for the two measurements of a packet."""

FAST_RETRANSMIT_ACKS: Final = 3
"""Duplicate ACKs that a sender takes for a loss, RFC 5681 section 3.2."""

_TROUBLE: Final = frozenset(
    {"retransmission", "fast_retransmission", "spurious_retransmission", "previous_segment_not_captured"}
    | {"duplicate_ack", "out_of_order", "zero_window", "window_full", "local_drop", "acked_unseen_segment"}
)


def findings_layer(finding: Any) -> Layer | None:
    """What the engine found about a packet as a layer of its own; None if that is nothing."""
    layer = Layer("in this connection", "by all its packets so far", 0)
    for name in human.analysis_words(int(finding["analysis"])):
        value, meaning = "", GLOSSARY[name]
        if name == "duplicate_ack":
            value, meaning = _duplicate(int(finding["duplicate_ack_number"]), meaning)
        layer.add(name.replace("_", " "), value, meaning, tone="warning" if name in _TROUBLE else "plain")
    rtt_us = float(finding["rtt_us"])
    if math.isfinite(rtt_us):
        layer.add("round trip", human.duration_us(rtt_us), GLOSSARY["rtt"])
    in_flight_bytes = int(finding["in_flight_bytes"])
    if in_flight_bytes >= 0:
        layer.add("in flight", f"{in_flight_bytes:,} bytes", GLOSSARY["in_flight"])
    return layer if layer.fields else None


def _duplicate(number: int, meaning: str) -> tuple[str, str]:
    if number < 1:
        return "", meaning
    if number == FAST_RETRANSMIT_ACKS:
        return f"number {number}", f"{meaning}; with this third one the other end sends again (RFC 5681)"
    return f"number {number}", meaning
