"""Which connections a table shows, and in which order.

Rows are far apart in memory: reading one field of all of them costs more than all else here.  So the fields to sort by
are kept beside each other; only what is shown is sorted.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.model import Indices, Rows, View
from tcptrace.sinks import sockets
from tcptrace.sinks.selected import selected

Key = npt.NDArray[Any]


def _descending(values: Key) -> Key:
    """A key that puts the largest first and unknown (NaN) last."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.where(np.isnan(numbers), np.inf, -numbers)


def _both_known(rows: Rows, name: str) -> Key:
    """The sum of both directions; a direction that is not known adds nothing, two make NaN."""
    sent, received = rows["sent"][name].copy(), rows["received"][name].copy()  # rows are far apart: read them once
    return np.where(np.isnan(sent), received, np.where(np.isnan(received), sent, sent + received))


def _both_counted(rows: Rows, name: str) -> Key:
    both: Key = rows["sent"][name] + rows["received"][name]
    return both


def round_trip_us(rows: Rows) -> Key:
    """The RTT a table shows: of the data sent, else of the handshake, else NaN."""
    smoothed = rows["sent"]["rtt_smoothed_us"].copy()
    shown: Key = np.where(np.isnan(smoothed), rows["handshake_rtt_us"], smoothed)
    return shown


def _address_keys(rows: Rows, end: str) -> list[Key]:
    """Address (as two big-endian halves), then port."""
    halves = np.ascontiguousarray(rows[f"{end}_addr"]).view(">u8").astype(np.uint64)
    return [halves[:, 0], halves[:, 1], rows[f"{end}_port"]]


def _state_key(rows: Rows) -> list[Key]:
    """In the order of a connection's life; not known (0) last."""
    state = sockets.states(rows).astype(np.int16)
    return [np.where(state == 0, np.iinfo(np.int16).max, state)]


def _process_keys(rows: Rows) -> list[Key]:
    """The near end's process by name, then number; not known last."""
    at_dst = sockets.near_is_dst(rows)
    names = np.where(at_dst[:, np.newaxis], rows["dst_socket"]["comm"], rows["src_socket"]["comm"])
    halves = np.ascontiguousarray(names).view(">u8").astype(np.uint64)
    unknown = ~sockets.any_known(rows) | (names[:, 0] == 0)
    return [unknown.astype(np.int8), halves[:, 0], halves[:, 1], sockets.near_field(rows, "pid")]


def _socket_key(name: str) -> Callable[[Rows], Sequence[Key]]:
    """A number of the near end's socket, the largest first; negative is not known."""

    def key(rows: Rows) -> Sequence[Key]:
        numbers = sockets.near_field(rows, name)
        return [_descending(np.where(numbers < 0, np.nan, numbers))]

    return key


_KEYS: Final[dict[str, Callable[[Rows], Sequence[Key]]]] = {
    "rate": lambda rows: [_descending(_both_known(rows, "bytes_per_s"))],
    "bytes": lambda rows: [-_both_counted(rows, "bytes")],
    "packets": lambda rows: [-_both_counted(rows, "packets")],
    "rtt": lambda rows: [_descending(round_trip_us(rows))],
    "retransmissions": lambda rows: [-_both_counted(rows, "retransmissions")],
    "duration": lambda rows: [rows["start_ns"] - rows["last_ns"]],
    "start": lambda rows: [-rows["start_ns"]],
    "state": _state_key,
    "src": lambda rows: _address_keys(rows, "src"),
    "dst": lambda rows: _address_keys(rows, "dst"),
    "port": lambda rows: [rows["dst_port"]],
    "process": _process_keys,
    "srtt": _socket_key("srtt_us"),
    "cwnd": _socket_key("cwnd_packets"),
}
"""By the names of `sort_keys`.  Smallest comes first: amounts are negated, so is `start` (newest first)."""


def top(table: Rows, key: str, limit: int) -> Indices:
    """Indices of the first `limit` rows by `key`, in order; ties by id, unknown last, empty rows passed over."""
    return _first(table["in_use"].copy(), _keys(table, key), limit)


class Ranking:
    """The same at each update: of the table only what was touched is read, the rest is remembered."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._in_use: Key = np.zeros(0, "u1")
        self._keys: list[Key] = []

    def top(self, view: View, limit: int) -> Indices:
        """As `top` of the view's table.  To be asked at every update: it sees only what it is told of."""
        table = view.table()
        size, known = len(table), len(self._in_use)
        if known == 0 or size < known:  # the first one, or another table
            self._in_use, self._keys = table["in_use"].copy(), _keys(table, self._key)
        else:
            self._take(table, view.touched(), size - known)
        return _first(self._in_use, self._keys, limit)

    def _take(self, table: Rows, touched: Indices, added: int) -> None:
        if added:
            self._in_use = np.pad(self._in_use, (0, added))
            self._keys = [np.pad(values, (0, added)) for values in self._keys]
        rows = selected(table, touched)
        self._in_use[touched] = rows["in_use"]
        for values, new in zip(self._keys, _keys(rows, self._key), strict=True):
            values[touched] = new


def _keys(rows: Rows, key: str) -> list[Key]:
    """What to sort by, the most important first; all of them arrays of their own."""
    return [np.array(values) for values in (*_KEYS[key](rows), rows["id"])]


def _first(in_use: Key, keys: Sequence[Key], limit: int) -> Indices:
    """Of rows with these keys, indices of the first `limit` that are in use, in order."""
    candidates = np.flatnonzero(in_use)
    if limit <= 0 or candidates.size == 0:
        return candidates[:0]
    if candidates.size < len(in_use):
        keys = [values[candidates] for values in keys]
    chosen = _smallest(keys, min(limit, candidates.size))
    in_order = np.lexsort([values[chosen] for values in reversed(keys)])
    return candidates[chosen[in_order]]


def _smallest(keys: Sequence[Key], wanted: int) -> Indices:
    """Indices of the `wanted` smallest by the first key, ties by the next and so on; not in order."""
    left = np.arange(len(keys[0]))
    settled = []
    for values in keys:
        if left.size <= wanted:
            break
        mine = values[left]
        border = np.partition(mine, wanted - 1)[wanted - 1]
        below = left[mine < border]
        settled.append(below)
        wanted -= below.size
        left = left[mine == border]
    settled.append(left[:wanted])
    return np.concatenate(settled)
