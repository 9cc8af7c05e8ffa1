"""What the table says was not touched is as it was, and its sums are those of all rows, whatever happens."""

import random
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tcptrace.engine.table import Table
from tcptrace.model import CONNECTION, KERNEL_STATES, NEAR_ENDS, STATES, Rows
from tcptrace.records import FLOW_COUNT, FLOW_KEY

from ..unit.conversation import SECOND, feed, raw_address
from .test_engine import garbage
from .test_engine_sockets import any_sockets, seeds


def copy_of(table: Table) -> Rows:
    """All rows ever used, without what the engine has behind each."""
    view = table.rows_view()
    rows = np.zeros(len(view), CONNECTION)  # what is between fields is zero, too
    for name in CONNECTION.names or ():
        rows[name] = view[name]
    return rows


def bytes_of(rows: Rows) -> np.ndarray:
    return rows.view("u1").reshape(len(rows), CONNECTION.itemsize)


def name_of(row: np.void) -> str:
    """The kernel's state where it is known, of the near end first; else what the packets say."""
    ends = ("dst", "src") if NEAR_ENDS[row["near_end"]] == "dst" else ("src", "dst")
    for end in ends:
        state = row[f"{end}_socket"]["state"]
        if state < len(KERNEL_STATES) and KERNEL_STATES[state] in STATES and KERNEL_STATES[state]:
            return str(KERNEL_STATES[state])
    return STATES[row["state"]] or "unknown"


def end_interval(table: Table, before: Rows, now_ns: int) -> Rows:
    """The rows as they are then."""
    table.refresh(now_ns)
    rows, touched = copy_of(table), table.touched_rows()
    assert touched.tolist() == sorted(set(touched.tolist()))
    assert set(range(len(before), len(rows))) <= set(touched.tolist())
    others = np.setdiff1d(np.arange(len(before)), touched)
    assert np.array_equal(bytes_of(rows)[others], bytes_of(before)[others])
    assert not rows["changed"][others].any()
    in_use = rows[rows["in_use"] == 1]
    assert table.totals().connections_by_state == Counter(map(name_of, in_use))
    table.clear_changed()
    assert not table.rows_view()["changed"].any()
    return copy_of(table)


def flows(seed: int, count: int, ends: int) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    keys, counts = np.zeros(count, FLOW_KEY), np.zeros(count, FLOW_COUNT)
    for side, last in (("lower", 0), ("higher", 1)):
        keys[f"{side}_addr"] = raw_address("10.0.0.1")
        keys[f"{side}_addr"][:, 15] = last
        keys[f"{side}_port"] = dice.integers(0, ends, count)
    keys["ip_version"] = 4
    for side in ("from_lower", "from_higher"):
        counts[side]["count"] = dice.integers(0, 50, count) * ((1 << 32) + 1)
        counts[side]["bytes"] = counts[side]["payload_bytes"] = dice.integers(0, 10_000, count)
    counts["since_ns"] = dice.integers(0, 10**12, count)
    return keys, counts


@settings(max_examples=80, deadline=None)
@given(seed=seeds, ends=st.integers(1, 30), size=st.sampled_from([1, 5, 1_000]))
def test_what_is_not_touched_is_as_it_was(seed: int, ends: int, size: int) -> None:
    dice = random.Random(seed)
    table = Table(size, 2 * SECOND // 10, SECOND // 10, 0, seed)
    packets = garbage(seed, 600, ends, times=False)
    packets["ip_version"] = 4
    rows = copy_of(table)
    for at in range(0, len(packets), 20):
        part = packets[at : at + 20]
        now_ns = int(part["time_ns"][-1])
        if dice.random() < 0.6:
            feed(table, part)
        if dice.random() < 0.4:
            sockets = any_sockets(dice.getrandbits(32), dice.randint(0, 9), ends, part["time_ns"])
            sockets["key"]["ip_version"] = 4
            table.process_sockets(sockets)
        if dice.random() < 0.3:
            table.stale_sockets(dice.choice([2, 7, 500]))  # to which nobody answers
        if dice.random() < 0.2:
            keys, counts = flows(dice.getrandbits(32), 3, ends)
            taken = 0
            while taken < len(keys):
                taken += table.process_flows(keys[taken:], counts[taken:], now_ns)
                table.take_ended()
        if dice.random() < 0.5:
            while not table.expire(now_ns):
                table.take_ended()
            table.take_ended()
        if dice.random() < 0.7:
            rows = end_interval(table, rows, now_ns)


def test_a_connection_at_rest_is_touched_until_its_rate_is_zero() -> None:
    table = Table(10, 10**18, 10**18, 0, 1)
    packets = garbage(1, 2, 1, times=False)
    feed(table, packets)
    touched = []
    for second in range(1, 5):
        table.refresh(10**9 * (1 + second))
        touched.append(len(table.touched_rows()))
        table.clear_changed()
    assert touched[0] > 0
    assert touched[1] == touched[0]
    assert touched[2:] == [0, 0]
