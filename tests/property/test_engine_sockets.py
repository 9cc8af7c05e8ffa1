"""Sockets told of at any time change nothing of what packets tell."""

import random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tcptrace.engine.table import Table
from tcptrace.model import ANALYSIS, STATES, Rows
from tcptrace.records import (
    DIRECTION_EGRESS,
    DIRECTION_INGRESS,
    FLAG_ACK,
    FLAG_RST,
    FLAG_SYN,
    PACKET_RECORD,
    SOCKET_FOUND,
    SOCKET_KEY,
    SOCKET_RECORD,
)

from ..unit.conversation import SECOND, START_NS, feed, live_rows, new_table, plain, raw_address
from ..unit.sockets import CLOSE, LISTEN, NEW_SYN_RECV, SYN_RECV, SYN_SENT, found
from .stacks import conversation
from .test_engine import forget, garbage, wild

seeds = st.integers(0, 2**32 - 1)
PORT_REUSE = np.uint32(1 << ANALYSIS.index("port_reuse"))
KERNELS_OWN = ("start_ns", "initiator_known", "src_socket", "dst_socket")
"""What a row has of its socket."""


def told(table: Table) -> Rows:
    table.refresh(2**60)
    return forget(live_rows(table), *KERNELS_OWN)


def near(records: np.ndarray, port: int) -> np.ndarray:
    """The end with that port is on this side."""
    records = records.copy()
    records["direction"] = np.where(records["src_port"] == port, DIRECTION_EGRESS, DIRECTION_INGRESS)
    return records


def compare(records: np.ndarray, record: np.ndarray) -> None:
    """The conversation alone, and with a row that its socket made beforehand."""
    alone, joined = new_table(), new_table()
    feed(alone, records)
    assert joined.process_sockets(record) == 1
    assert joined.totals().connections == 1
    ended = feed(joined, records)
    first, second = told(alone), told(joined)
    if len(ended) and ended["recent_total"][0] == 0:  # the socket was another, older one
        assert records["flags"][0] & (FLAG_SYN | FLAG_ACK | FLAG_RST) == FLAG_SYN
        second["id"] -= 1
        second["port_reuse"] = first["port_reuse"]
        for rows in (first, second):
            rows["recent"]["analysis"] &= ~PORT_REUSE
    assert plain(first) == plain(second)


@settings(max_examples=150)
@given(
    seed=seeds,
    is_client=st.booleans(),
    state=st.integers(1, 12).filter(lambda state: state not in (CLOSE, LISTEN, NEW_SYN_RECV)),
    lead_ns=st.sampled_from([-5 * SECOND, -1_500, 0, SECOND]),
)
def test_row_that_its_socket_made_is_as_if_its_first_packet_had(
    seed: int, is_client: bool, state: int, lead_ns: int
) -> None:
    if state == (SYN_SENT if not is_client else SYN_RECV):
        return
    talk = wild(seed)
    ends = (talk.client.address, talk.server.address)
    local, remote = ends if is_client else ends[::-1]
    records = near(talk.records, local[1])
    compare(records, found(START_NS - lead_ns, local, remote, state=state))


def record_of(segment: Any) -> np.ndarray:
    records = np.zeros(1, PACKET_RECORD)
    record = records[0]
    ends = (("10.0.0.1", 40_000), ("10.0.0.2", 80))
    (src, dst) = ends if segment.end == 0 else ends[::-1]
    record["time_ns"] = START_NS + segment.time_ns
    record["src_addr"], record["dst_addr"] = raw_address(src[0]), raw_address(dst[0])
    record["src_port"], record["dst_port"] = src[1], dst[1]
    record["ip_version"], record["segments"], record["frame_bytes"] = 4, 1, 54 + segment.payload
    record["seq"], record["ack"], record["flags"] = segment.seq, segment.ack, segment.flags
    record["payload_bytes"], record["window"] = segment.payload, segment.window
    return records


@settings(max_examples=80)
@given(seed=seeds, is_client=st.booleans())
def test_conversations_of_two_stacks_join_the_row_of_their_socket(seed: int, is_client: bool) -> None:
    segments = conversation(seed)
    if not segments:
        return
    ends = (("10.0.0.1", 40_000), ("10.0.0.2", 80))
    local, remote = ends if is_client else ends[::-1]
    records = near(np.concatenate([record_of(segment) for segment in segments]), local[1])
    compare(records, found(START_NS - SECOND, local, remote))


def any_sockets(seed: int, count: int, ends: int, times: np.ndarray) -> np.ndarray:
    """Every bit at random, but for the ends and the times."""
    dice = np.random.default_rng(seed)
    records = np.frombuffer(dice.bytes(count * SOCKET_RECORD.itemsize), SOCKET_RECORD).copy()
    for side in ("local", "remote"):
        records["key"][f"{side}_addr"] = raw_address("10.0.0.1")
        records["key"][f"{side}_addr"][:, 15] = dice.integers(0, 2, count)
        records["key"][f"{side}_port"] = dice.integers(0, ends, count)
    records["key"]["ip_version"] = dice.choice([4, 6], count)
    records["event"] = dice.integers(0, 5, count)
    records["view"]["state"] = dice.integers(0, 15, count)
    if len(times):
        records["time_ns"] = dice.choice(times, count) + dice.integers(0, 10_000_000, count).astype("u8")
        records["view"]["time_ns"] = records["time_ns"]
    return records


@settings(max_examples=60)
@given(seed=seeds, ends=st.integers(1, 30), size=st.sampled_from([1, 5, 1_000]), times=st.booleans())
def test_garbage_of_sockets_does_no_harm(seed: int, ends: int, size: int, times: bool) -> None:
    dice = random.Random(seed)
    packets = garbage(seed, 600, ends, times=False)
    packets["ip_version"] = np.where(packets["ip_version"] & 1, 4, 6)
    table = Table(size, 5 * SECOND, SECOND, 0, seed)
    ended, id_total = [], 0
    while len(packets):
        part, packets = packets[: dice.randint(1, 60)], packets[60:]
        ended.append(feed(table, part))
        sockets = any_sockets(dice.getrandbits(32), dice.randint(0, 60), ends, part["time_ns"] if times else part[:0])
        ids = np.zeros(len(sockets), "u8")
        assert table.process_sockets(sockets, ids) == len(sockets)
        id_total = max(id_total, int(ids.max(initial=0)))
        keys = table.stale_sockets(dice.choice([0, 1, 2, 7, 500]))
        assert keys.dtype == SOCKET_KEY
        answers = np.zeros(len(keys), SOCKET_RECORD)
        answers["key"] = keys
        answers["time_ns"] = answers["view"]["time_ns"] = int(part["time_ns"][-1]) + 1
        answers["event"], answers["view"]["state"] = SOCKET_FOUND, 1
        table.process_sockets(answers[:: dice.choice([1, 2])].copy())
        now = int(part["time_ns"][-1])
        if dice.random() < 0.3:
            while not table.expire(now):
                ended.append(table.take_ended())
            ended.append(table.take_ended())
        table.refresh(now)
        totals = table.totals()
        assert sum(totals.connections_by_state.values()) == totals.connections == len(live_rows(table))
        assert set(totals.connections_by_state) <= {"unknown", *STATES[1:]}
    rows = np.concatenate([*ended, live_rows(table)])
    assert sorted(rows["id"].tolist()) == list(range(1, table.totals().connections_total + 1))
    assert id_total <= table.totals().connections_total
