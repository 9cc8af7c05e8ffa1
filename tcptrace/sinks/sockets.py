"""Which of a connection's two sockets a sink tells of: the near end's, and its peer where that is this host's too."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.model import KERNEL_STATES, NEAR_ENDS, STATES, Rows
from tcptrace.records import SOCKET_VIEW

Column = npt.NDArray[Any]
Views = npt.NDArray[Any]
"""A structured array of SOCKET_VIEW."""

_DST: Final = NEAR_ENDS.index("dst")
_CLOSED: Final = STATES.index("CLOSED")
_TIME_WAIT: Final = STATES.index("TIME-WAIT")

_FROM_KERNEL: Final = np.array([STATES.index(name) if name in STATES else 0 for name in KERNEL_STATES], "u1")
"""Index into KERNEL_STATES to index into STATES; LISTEN is no state of a connection."""


def known(rows: Rows) -> tuple[Column, Column]:
    """Of which rows the socket at src is known, and that at dst."""
    return rows["src_socket"]["time_ns"] > 0, rows["dst_socket"]["time_ns"] > 0


def any_known(rows: Rows) -> Column:
    """Of which rows a socket is known."""
    src, dst = known(rows)
    either: Column = src | dst
    return either


def near_is_dst(rows: Rows) -> Column:
    """Whose socket is dst's; where both are known, src's unless dst is the near end."""
    src, dst = known(rows)
    at_dst: Column = dst & (~src | (rows["near_end"] == _DST))
    return at_dst


def near_field(rows: Rows, name: str) -> Column:
    """A number of the near socket, -1 where there is none."""
    chosen = np.where(near_is_dst(rows), rows["dst_socket"][name], rows["src_socket"][name])
    numbers: Column = np.where(any_known(rows), chosen.astype(np.int64), -1)
    return numbers


def near_views(rows: Rows) -> tuple[Views, Views]:
    """The near sockets and their peers.  Where there is none, all its numbers are -1 and its names empty."""
    pair = np.empty((len(rows), 2), SOCKET_VIEW)
    pair[:, 0], pair[:, 1] = rows["src_socket"], rows["dst_socket"]
    at = np.arange(len(rows))
    near_at = near_is_dst(rows).astype(np.intp)
    near, peer = pair[at, near_at], pair[at, 1 - near_at]
    for views in (near, peer):
        views[views["time_ns"] <= 0] = NOTHING
    return near, peer


def states(rows: Rows) -> Column:
    """The state to show, index into STATES: the kernel's where it knows, else what the packets say.

    In TIME-WAIT the kernel has closed the socket and keeps but a stub of it: there the packets are believed.
    """
    on_wire = rows["state"].copy()
    number = near_field(rows, "state")
    kernel = np.where((number >= 0) & (number < len(_FROM_KERNEL)), _FROM_KERNEL[number % len(_FROM_KERNEL)], 0)
    is_stub = (kernel == _CLOSED) & (on_wire == _TIME_WAIT)
    shown: Column = np.where((kernel > 0) & ~is_stub, kernel, on_wire)
    return shown


def near_and_peer(row: Any) -> tuple[Any, Any]:
    """The same of one row; None where there is no such socket."""
    src, dst = (socket if socket["time_ns"] > 0 else None for socket in (row["src_socket"], row["dst_socket"]))
    if src is None or (dst is not None and row["near_end"] == _DST):
        return dst, src
    return src, dst


def state(row: Any) -> int:
    """`states` of one row."""
    near, _ = near_and_peer(row)
    on_wire = int(row["state"])
    if near is None or near["state"] >= len(_FROM_KERNEL):
        return on_wire
    kernel = int(_FROM_KERNEL[near["state"]])
    return on_wire if kernel == 0 or (kernel == _CLOSED and on_wire == _TIME_WAIT) else kernel


def _nothing() -> Views:
    view = np.zeros((), SOCKET_VIEW)
    for name in SOCKET_VIEW.names or ():
        if SOCKET_VIEW[name].base.kind == "i" and name != "time_ns":
            view[name] = -1
    return view


NOTHING: Final = _nothing()
