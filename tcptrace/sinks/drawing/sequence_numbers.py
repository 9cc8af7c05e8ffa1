"""32-bit sequence numbers as 64-bit ones, relative to where each direction began."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tcptrace import records as r

Array = npt.NDArray[Any]


def _difference(later: Array, earlier: Array) -> Array:
    """later - earlier modulo 2**32, as a number from -2**31 to 2**31 - 1 (RFC 9293 section 3.4)."""
    return (later - earlier).view(np.int32).astype(np.int64)


class Space:
    """The sequence numbers of one direction: those its sender sends and those the other end acknowledges.

    A SYN has number 0; where none was seen the first number that was is 1, as in Wireshark.  Each number is placed
    where it is nearest to the one before it, so that any count of wraps is followed.  Numbers of RSTs lead nowhere:
    they may be made up.
    """

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None  # a 32-bit number and its relative one

    def relative(self, numbers: Array, leads: Array, starts_with_syn: bool) -> Array:
        """The next numbers (u4) in time order as relative ones (i8); `leads` is false for those of RSTs."""
        if not len(numbers):
            return np.zeros(0, np.int64)
        if self._last is None:
            self._last = int(numbers[0]), 0 if starts_with_syn else 1
        last_number, last_relative = self._last
        leaders = np.concatenate([np.array([last_number], np.uint32), numbers[leads]])
        places = last_relative + np.concatenate([[0], np.cumsum(_difference(leaders[1:], leaders[:-1]))])
        self._last = int(leaders[-1]), int(places[-1])
        before = np.cumsum(leads)  # index of the leader at or before each number
        return np.asarray(places[before] + _difference(numbers, leaders[before]))


def relative_numbers(packets: Array, spaces: tuple[Space, Space]) -> tuple[Array, Array]:
    """Relative seq and ack (i8) of PACKET records; an ack means nothing where the ACK flag is not set.

    `spaces` are those of src and dst, carried on from one call to the next.
    """
    flags, received = packets["flags"], packets["received"]
    acks = flags & r.FLAG_ACK != 0
    leads = flags & r.FLAG_RST == 0
    seq, ack = np.zeros(len(packets), np.int64), np.zeros(len(packets), np.int64)
    for direction, space in enumerate(spaces):
        sends = received == direction
        says = sends | acks
        numbers = np.where(sends, packets["seq"], packets["ack"])[says]
        syn = bool(sends[says][0] and flags[says][0] & r.FLAG_SYN) if says.any() else False
        placed = np.zeros(len(packets), np.int64)
        placed[says] = space.relative(numbers, leads[says], syn)
        seq[sends], ack[~sends] = placed[sends], placed[~sends]
    return seq, ack


def payload_begins(packets: Array, relative_seq: Array) -> Array:
    """Number of each segment's first payload byte: the SYN itself has one (RFC 9293 section 3.4)."""
    return np.asarray(relative_seq + (packets["flags"] & r.FLAG_SYN != 0))


def sack_numbers(packets: Array, relative_ack: Array, sacks: Array) -> tuple[Array, Array]:
    """Relative left and right edges of SACK records, each placed nearest to its packet's ack."""
    carrier = sacks["packet"]
    ack, place = packets["ack"][carrier], relative_ack[carrier]
    return place + _difference(sacks["left"], ack), place + _difference(sacks["right"], ack)
