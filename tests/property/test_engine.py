"""The engine against a simulation that knows what was lost, sent again and overtaken; and what must change nothing."""

import heapq
import random
import resource
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcptrace.engine.table import Table
from tcptrace.model import END_REASONS, NEAR_ENDS, STATES, Rows
from tcptrace.records import FLAG_SYN, PACKET_RECORD

from ..unit.conversation import (
    HEADER_BYTES,
    SECOND,
    Conversation,
    counts,
    feed,
    live_rows,
    new_table,
    plain,
    raw_address,
)

seeds = st.integers(0, 2**32 - 1)
sequence_numbers = st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 20_000, 2**32 - 1))

# --- A sender, a path and a receiver.


@dataclass
class Path:
    """What happens on the way.  Shares between 0 and 1, times in microseconds."""

    seed: int = 0
    client_seq: int = 1_000
    server_seq: int = 5_000
    data_loss: float = 0.0
    ack_loss: float = 0.0
    overtaking: float = 0.0
    delay_us: int = 5_000
    window: int = 8
    tap: str = "sender"


@dataclass
class Truth:
    """What went past the tap, in numbers that do not wrap."""

    packets: int = 0
    payload: int = 0
    late: int = 0
    repeated: int = 0
    spurious: int = 0
    repeated_bytes: int = 0
    gaps: int = 0
    highest: int = 0
    seen: set[int] = field(default_factory=set)

    def take(self, start: int, stop: int) -> None:
        fresh = [byte for byte in range(start, stop) if byte not in self.seen]
        self.packets += 1
        self.payload += stop - start
        self.late += start < self.highest - 1  # at the last byte it may go on after a zero-window probe
        self.gaps += start > self.highest
        self.repeated += not fresh
        self.repeated_bytes += stop - start - len(fresh)
        self.seen.update(fresh)
        self.highest = max(self.highest, stop)


def simulate(path: Path, count: int = 30) -> tuple[Conversation, Truth, int]:
    """Data from client to server: the records at the tap, what went past it, and how many ACKs did.

    The sender has a fixed window, sends again on a timeout or three duplicate ACKs, and cuts anew what it
    sends again.  The receiver acknowledges every segment at once.
    """
    dice = random.Random(path.seed)
    talk = Conversation(client_seq=path.client_seq, server_seq=path.server_seq)
    talk.handshake()
    base, began_ns = talk.client.next_seq, talk.now_ns
    sizes = [dice.randint(2, 40) for _ in range(count)]
    edges = [sum(sizes[:n]) for n in range(count + 1)]
    truth, acks_seen = Truth(), 0
    events: list[tuple[float, int, str, int, int]] = []
    number = 0
    acked = sent = duplicates = timer = 0
    arrived: set[int] = set()
    received = 0

    def later(at: float, kind: str, a: int, b: int = 0) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (at, number, kind, a, b))

    def show(at: float, start: int, stop: int) -> None:
        truth.take(start, stop)
        talk.now_ns = began_ns + round((at - talk.step_us) * 1_000)
        talk.client.data(stop - start, seq=base + start)

    def send(at: float, start: int, stop: int) -> None:
        nonlocal timer
        if path.tap == "sender":
            show(at, start, stop)
        if dice.random() >= path.data_loss:
            extra = dice.randint(0, path.delay_us) if dice.random() < path.overtaking else 0
            later(at + path.delay_us + extra, "data", start, stop)
        timer += 1
        later(at + 5 * path.delay_us, "timeout", timer)

    def send_again(at: float) -> None:
        """From the oldest byte without an ACK, cut in any way, not past what was sent.

        Never one byte alone: that would be a keep-alive.
        """
        send(at, min(acked, sent - 2), min(sent, acked + dice.randint(2, 60)))

    def send_new(at: float) -> None:
        nonlocal sent
        while sent < edges[-1] and edges.index(sent) - sum(edge <= acked for edge in edges) + 1 < path.window:
            stop = edges[edges.index(sent) + 1]
            send(at, sent, stop)
            sent = stop

    send_new(1.0)
    while acked < edges[-1]:
        at, _, kind, a, b = heapq.heappop(events)
        if kind == "data":
            if path.tap == "receiver":
                show(at, a, b)
                truth.spurious += b <= received
            arrived.update(range(a, b))
            while received in arrived:
                received += 1
            if dice.random() >= path.ack_loss:
                later(at + path.delay_us, "ack", received)
            if path.tap == "receiver":
                acks_seen += 1
                talk.now_ns = began_ns + round((at - talk.step_us) * 1_000)
                talk.server.ack(base + received)
        elif kind == "ack":
            if path.tap == "sender":
                acks_seen += 1
                talk.now_ns = began_ns + round((at - talk.step_us) * 1_000)
                talk.server.ack(base + a)
            if a > acked:
                acked, duplicates = a, 0
                if acked in edges:  # a sender that sends whole segments
                    send_new(at)
            elif a == acked and acked < sent:
                duplicates += 1
                if duplicates == 3:
                    send_again(at)
        elif a == timer and acked < sent:
            send_again(at)
        if not events and acked < edges[-1]:
            send_again(at + path.delay_us)
    return talk, truth, acks_seen


shares = st.sampled_from([0.0, 0.05, 0.2, 0.4])
paths = st.builds(
    Path,
    seed=seeds,
    client_seq=sequence_numbers,
    server_seq=sequence_numbers,
    data_loss=shares,
    ack_loss=shares,
    overtaking=shares,
    window=st.integers(1, 12),
    tap=st.sampled_from(["sender", "receiver"]),
)


@settings(max_examples=150)
@given(path=paths)
def test_counts_are_those_of_the_simulation(path: Path) -> None:
    talk, truth, acks = simulate(path)
    row = talk.row()
    sent, payload = 2 + truth.packets, truth.payload
    assert counts(row, "sent", "packets", "bytes", "payload_bytes") == (sent, sent * HEADER_BYTES + payload, payload)
    assert counts(row, "received", "packets", "bytes", "payload_bytes") == (1 + acks, (1 + acks) * HEADER_BYTES, 0)
    assert row["sent"]["gaps"] == truth.gaps
    found = row["sent"]["retransmissions"] + row["sent"]["out_of_order"]
    assert found == truth.late
    assert row["sent"]["spurious_retransmissions"] == truth.spurious
    assert row["sent"]["retransmissions"] >= truth.spurious + row["sent"]["fast_retransmissions"]
    assert counts(row, "received", "retransmissions", "out_of_order", "gaps", "keep_alives") == (0, 0, 0, 0)
    assert (STATES[row["src_state"]], STATES[row["dst_state"]]) == ("ESTABLISHED", "ESTABLISHED")


@settings(max_examples=100)
@given(path=paths)
def test_retransmissions_seen_at_the_sender_are_exact(path: Path) -> None:
    """Every byte sent again passes twice, whatever happens to it later."""
    path.tap = "sender"
    talk, truth, _ = simulate(path)
    names = ("retransmissions", "retransmitted_bytes", "out_of_order", "gaps")
    assert counts(talk.row(), "sent", *names) == (truth.repeated, truth.repeated_bytes, 0, 0)


@settings(max_examples=60)
@given(path=paths)
def test_undisturbed_transfer_has_no_findings(path: Path) -> None:
    path.data_loss = path.ack_loss = path.overtaking = 0.0
    talk, _, _ = simulate(path)
    assert set().union(*talk.findings()) == set()


@settings(max_examples=100)
@given(path=paths)
def test_every_rtt_sample_is_the_true_one(path: Path) -> None:
    """Both ways take the same time always: what differs from that would have broken Karn's rule.

    Loss one way only: when an ACK is lost, the same one called forth by a later segment is all that is seen.
    """
    path.tap, path.overtaking = "sender", 0.0
    if path.data_loss:
        path.ack_loss = 0.0
    talk, _, _ = simulate(path)
    row = talk.row()
    if row["sent"]["rtt_count"] > 1:
        assert row["sent"]["rtt_last_us"] == pytest.approx(2 * path.delay_us)
        assert row["sent"]["rtt_max_us"] == pytest.approx(2 * path.delay_us)
        assert row["sent"]["rtt_min_us"] == 1_000  # the handshake's
    assert row["handshake_rtt_us"] == 2_000
    if path.data_loss == 0 and path.ack_loss == 0:
        assert row["sent"]["rtt_count"] == 31


# --- What changes nothing.


def wild(seed: int, **options: Any) -> Conversation:
    """Anything two ends may send, sensible or not."""
    dice = random.Random(seed)
    talk = Conversation(step_us=dice.choice([10, 1_000, 100_000]), **options)
    if dice.random() < 0.7:
        talk.handshake(client_scale=dice.choice([None, 7]), server_scale=dice.choice([None, 2]))
    for _ in range(40):
        end = dice.choice([talk.client, talk.server])
        size = dice.choice([1, 2, 100, 1_460])
        match dice.randint(0, 11):
            case 0 | 1 | 2:
                end.data(size)
            case 3 | 4:
                end.ack()
            case 5:
                end.ack(end.peer.next_seq - size)
            case 6:
                end.again(size, back=dice.choice([size, 2 * size, 50]))
            case 7:
                end.unseen(size)
            case 8:
                end.ack(seq=end.next_seq - 1)
            case 9:
                end.data(size, window=0, segments=2)
            case 10 if dice.random() < 0.3:
                end.fin()
            case 11 if dice.random() < 0.1:
                end.rst(seq=end.next_seq - dice.choice([0, 0, 10]))
    return talk


def everything(table: Table, records: np.ndarray, sizes: list[int] | None = None) -> tuple[str, str]:
    """Rows that ended and rows that are left, as text."""
    ended = []
    for size in [*(sizes or []), len(records)]:
        ended.append(feed(table, records[:size]))
        records = records[size:]
    table.refresh(2**60)
    return plain(np.concatenate(ended)), plain(live_rows(table))


def forget(rows: Rows, *names: str) -> Rows:
    """Without the fields that are allowed to differ."""
    rows = rows.copy()
    for name in names:
        target, _, inner = name.partition(".")
        if inner:
            rows[target][inner] = 0
        else:
            rows[target] = 0
    return rows


@settings(max_examples=80)
@given(seed=seeds, client=st.integers(0, 2**32 - 1), server=sequence_numbers)
def test_sequence_numbers_may_begin_anywhere(seed: int, client: int, server: int) -> None:
    moving = [f"{where}.{name}" for where in ("sent", "received", "recent") for name in ("seq", "ack")]
    rows = []
    for numbers in ({}, {"client_seq": client, "server_seq": server}):
        table = new_table()
        feed(table, wild(seed, **numbers).records)
        rows.append(forget(live_rows(table), *moving))
    assert len(rows[0]) > 0
    assert plain(rows[0]) == plain(rows[1])


@settings(max_examples=40)
@given(seed=seeds, count=st.integers(2, 6))
def test_connections_do_not_touch_each_other(seed: int, count: int) -> None:
    """Any order between them, the order of each kept."""
    dice = random.Random(seed)
    talks = [wild(seed + n, client=("10.0.0.1", 40_000 + n)).records for n in range(count)]
    turns = [n for n, records in enumerate(talks) for _ in records]
    dice.shuffle(turns)
    places = [iter(range(len(records))) for records in talks]
    together = np.array([talks[turn][next(places[turn])] for turn in turns], PACKET_RECORD)
    table = new_table()
    feed(table, together)
    rows = forget(live_rows(table), "id")
    assert len(rows) == count
    for n, records in enumerate(talks):
        alone = new_table()
        feed(alone, records)
        assert plain(rows[rows["src_port"] == 40_000 + n]) == plain(forget(live_rows(alone), "id"))


@settings(max_examples=40)
@given(seed=seeds, sizes=st.lists(st.integers(0, 50), max_size=10))
def test_batches_may_be_cut_anywhere(seed: int, sizes: list[int]) -> None:
    records = np.concatenate([wild(seed).records, wild(seed + 1, client=("10.0.0.3", 9)).records])
    assert everything(new_table(), records) == everything(new_table(), records, sizes)


@settings(max_examples=60)
@given(seed=seeds)
def test_the_ends_may_change_places(seed: int) -> None:
    """The other address as the client: nothing but the addresses changes."""
    here, there = ("10.0.0.1", 40_000), ("10.0.0.2", 40_001)
    rows = []
    for client, server in ((here, there), (there, here)):
        table = new_table()
        feed(table, wild(seed, client=client, server=server).records)
        rows.append(forget(live_rows(table), "src_addr", "dst_addr", "src_port", "dst_port"))
    if rows[0]["initiator_known"][0]:
        assert plain(rows[0]) == plain(rows[1])
        return
    # Without a SYN the ports say who is who, so the directions are exchanged, and whose state is told.
    first, second = (forget(each, "state", "recent.received") for each in rows)
    second["sent"], second["received"] = rows[1]["received"], rows[1]["sent"]
    second["src_state"], second["dst_state"] = rows[1]["dst_state"], rows[1]["src_state"]
    assert plain(first) == plain(second)


# --- Garbage.


def garbage(seed: int, count: int, ends: int, times: bool) -> np.ndarray:
    """Every bit at random, but for the ends, so that connections come about."""
    dice = np.random.default_rng(seed)
    records = np.frombuffer(dice.bytes(count * PACKET_RECORD.itemsize), PACKET_RECORD).copy()
    for side in ("src", "dst"):
        records[f"{side}_addr"] = raw_address("10.0.0.1")
        records[f"{side}_addr"][:, 15] = dice.integers(0, 2, count)
        records[f"{side}_port"] = dice.integers(0, ends, count)
    for name in ("flow_count", "flow_bytes", "flow_payload_bytes", "reverse_records", "flow_since"):
        records[name] = 0  # these are the kernel's, never the packet's
    records["flags"] &= dice.choice([0x1FF, 0x1FF & ~FLAG_SYN, 0x10], count).astype(np.uint16)
    # Near each other, so that ranges overlap, and a few far off.
    near = dice.random(count) < 0.9
    for name in ("seq", "ack", "payload_bytes"):
        records[name][near] %= 3_000
    if not times:
        records["time_ns"] = 10**9 + np.arange(count) * 1_000_000
    return records


@settings(max_examples=60)
@given(seed=seeds, ends=st.integers(1, 40), size=st.sampled_from([1, 5, 1_000]), times=st.booleans())
def test_garbage_is_counted(seed: int, ends: int, size: int, times: bool) -> None:
    records = garbage(seed, 1_000, ends, times)
    table = Table(size, 300 * SECOND, 60 * SECOND, 0, seed)
    ended = [feed(table, records)]
    while not table.expire(int(records["time_ns"][-1] & (2**62 - 1))):
        ended.append(table.take_ended())
    ended.append(table.take_ended())
    table.refresh(2**62)
    table.clear_changed()
    rows = np.concatenate([*ended, live_rows(table)])
    for name, source in (("packets", "segments"), ("bytes", "frame_bytes"), ("payload_bytes", "payload_bytes")):
        total = int(records[source].astype(object).sum())
        assert int(rows["sent"][name].sum() + rows["received"][name].sum()) == total
        assert getattr(table.totals(), name) == total
    assert int(rows["recent_total"].sum()) == len(records)
    assert sorted(rows["id"].tolist()) == list(range(1, len(rows) + 1))
    for name, names in (("state", STATES), ("src_state", STATES), ("dst_state", STATES), ("near_end", NEAR_ENDS)):
        assert rows[name].max() < len(names)
    assert set(rows["end_reason"].tolist()) <= set(range(len(END_REASONS)))
    assert len(table.rows_view()) <= size
    for direction in ("sent", "received"):
        for name in ("retransmissions", "out_of_order", "duplicate_acks", "zero_windows", "keep_alives", "gaps"):
            assert (rows[direction][name] >= 0).all()
    assert sum(table.totals().connections_by_state.values()) == table.totals().connections == len(live_rows(table))


def test_memory_is_bounded() -> None:
    """Half a million of segments that nobody acknowledges in sixteen connections, holes in all of them."""
    table = new_table(max_connections=16)
    feed(table, garbage(0, 1_000, 4, times=False))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(5):
        records = garbage(seed, 100_000, 4, times=False)
        records["flags"] = 0
        records["ip_version"] = 4  # else every other packet would be a connection of its own
        records["seq"] = np.arange(len(records), dtype=np.uint32) * 4_000
        at = 0
        while at < len(records):
            at += table.process(records[at:])
            table.take_ended()  # kept, they would be more than what is measured
        del records
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; the records take 13,000 each
    assert len(table.rows_view()) <= 16
