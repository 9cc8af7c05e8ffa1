"""Bytes in flight at each segment and at each ACK: the engine finds them after a segment, ACKs take from them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tcptrace import records as r
from tcptrace.sinks.drawing.sequence_numbers import sack_numbers

Array = npt.NDArray[Any]


def in_flight(packets: Array, sacks: Array, relative_ack: Array, direction: int) -> tuple[Array, Array]:
    """Which packets change what `direction` has in flight, and how many bytes are in flight after each.

    PACKET and SACK records and relative numbers.  Nothing before the first segment of which it is known.
    """
    sends = packets["received"] == direction
    flags = packets["flags"]
    acks = ~sends & (flags & r.FLAG_ACK != 0) & (flags & r.FLAG_RST == 0)
    places = np.arange(len(packets))
    last_ack = np.maximum.accumulate(np.where(acks, places, -1))
    known = sends & (packets["in_flight_bytes"] >= 0) & (last_ack >= 0)
    covered = _covered(packets, sacks, relative_ack, acks, last_ack)
    segment = np.maximum.accumulate(np.where(known, places, -1))  # the last one of which it is known
    changes = np.flatnonzero((known | acks) & (segment >= 0))
    last = segment[changes]
    left = packets["in_flight_bytes"][last] + covered[last] - covered[changes]
    return changes, np.maximum(left, 0)


def _covered(packets: Array, sacks: Array, relative_ack: Array, acks: Array, last_ack: Array) -> Array:
    """At each packet: up to which number all is acknowledged, plus the bytes that the last ACK reports beyond by SACK.

    Means nothing before the first ACK.
    """
    lowest = np.iinfo(np.int64).min // 2
    highest = np.maximum.accumulate(np.where(acks, relative_ack, lowest))
    reported = np.zeros(len(packets), np.int64)
    if len(sacks):
        left, right = sack_numbers(packets, relative_ack, sacks)
        news = (left < right) & (left >= relative_ack[sacks["packet"]]) & ~_within_next(sacks["packet"], left, right)
        np.add.at(reported, sacks["packet"][news], (right - left)[news])
    return np.asarray(highest + reported[last_ack])


def _within_next(carrier: Array, left: Array, right: Array) -> Array:
    """First blocks that lie within the second: bytes received twice (RFC 2883 section 4)."""
    found = np.zeros(len(carrier), bool)
    first = np.concatenate([[True], carrier[1:] != carrier[:-1]])
    found[:-1] = first[:-1] & (carrier[1:] == carrier[:-1]) & (left[1:] <= left[:-1]) & (right[:-1] <= right[1:])
    return found
