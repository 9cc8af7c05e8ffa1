"""Which of a connection's two sockets is told of, and as what."""

from typing import Any

import numpy as np
import pytest

from tcptrace.model import KERNEL_STATES, NEAR_ENDS, STATES, Rows
from tcptrace.sinks import sockets

CASES = {
    # near_end, sockets known: the near end's, the peer's
    ("src", "src"): ("src", None),
    ("src", "dst"): ("dst", None),
    ("src", "src dst"): ("src", "dst"),
    ("dst", "src"): ("src", None),
    ("dst", "dst"): ("dst", None),
    ("dst", "src dst"): ("dst", "src"),
    ("both", "src"): ("src", None),
    ("both", "dst"): ("dst", None),
    ("both", "src dst"): ("src", "dst"),
    (None, "src"): ("src", None),
    (None, "dst"): ("dst", None),
    (None, "src dst"): ("src", "dst"),
    ("src", ""): (None, None),
}
PIDS = {"src": 10, "dst": 20, None: -1}


@pytest.fixture
def rows(make_row: Any, put_socket: Any) -> Rows:
    """A row a case."""
    made = []
    for number, (near_end, known) in enumerate(CASES, start=1):
        row = make_row(number, ("10.0.0.1", 1), ("10.0.0.2", 2), near_end=NEAR_ENDS.index(near_end))
        for end in known.split():
            put_socket(row, end, pid=PIDS[end])
        made.append(row)
    return np.concatenate(made)


def test_the_near_ends_socket_and_its_peers(rows: Rows) -> None:
    expected = [(PIDS[near], PIDS[peer]) for near, peer in CASES.values()]
    near, peer = sockets.near_views(rows)
    assert list(zip(near["pid"].tolist(), peer["pid"].tolist(), strict=True)) == expected
    assert sockets.near_field(rows, "pid").tolist() == [pid for pid, _ in expected]
    assert sockets.any_known(rows).tolist() == [pid >= 0 for pid, _ in expected]
    one_by_one = [sockets.near_and_peer(row) for row in rows]
    assert [tuple(-1 if view is None else view["pid"] for view in pair) for pair in one_by_one] == expected


def test_what_no_socket_tells_is_not_known(rows: Rows) -> None:
    rows["src_socket"]["time_ns"] = rows["dst_socket"]["time_ns"] = 0
    rows["src_socket"]["srtt_us"] = 7
    for views in sockets.near_views(rows):
        assert set(views["srtt_us"].tolist()) == set(views["congestion_state"].tolist()) == {-1}
        assert (views["retransmissions_by"] == -1).all()
        assert not views["comm"].any()
        assert not views["state"].any()


@pytest.mark.parametrize("on_wire", STATES)
def test_the_state_is_the_kernels_where_it_knows(on_wire: str | None, make_row: Any, put_socket: Any) -> None:
    numbers = [*range(len(KERNEL_STATES)), 13, 200]
    rows = np.repeat(make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 2), state=on_wire), len(numbers) + 1)
    for row, number in zip(np.split(rows, len(rows))[:-1], numbers, strict=True):
        put_socket(row, "dst", state=number)
    shown = sockets.states(rows).tolist()
    assert shown == [sockets.state(row) for row in rows]
    for number, index in zip(numbers, shown, strict=False):
        kernel = KERNEL_STATES[number] if number < len(KERNEL_STATES) else None
        told = None if kernel == "LISTEN" or (kernel, on_wire) == ("CLOSED", "TIME-WAIT") else kernel
        assert STATES[index] == (told or on_wire), number
    assert STATES[shown[-1]] == on_wire
