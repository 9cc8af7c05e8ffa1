"""The short way of segments that come next says what the long one says.

A segment with URG goes the long way, where that flag means nothing: with it on all of them, nothing but flags may
differ.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcptrace.model import FINDING
from tcptrace.records import (
    FLAG_ACK,
    FLAG_RST,
    FLAG_SYN,
    FLAG_URG,
    NOTE_FIRST_SEND,
    NOTE_SENT_BEFORE,
    OPTION_SACK,
    OPTION_TIMESTAMPS,
)

from ..unit.conversation import Conversation, live_rows, new_table, plain
from .stacks import conversation
from .test_engine import Path, forget, garbage, paths, seeds, sequence_numbers, simulate, wild
from .test_engine_gaps import Part, Records, analysed, here_and_there, in_batches
from .test_engine_gaps import new_table as table_of_size
from .wireshark import merge, records_of

FLAGS = ("sent.flags_seen", "received.flags_seen", "recent.flags")


def flagged(records: Records, urgent: bool) -> Records:
    records = records.copy()
    records["flags"] = records["flags"] | FLAG_URG if urgent else records["flags"] & ~np.uint16(FLAG_URG)
    return records


def said_of(records: Records, step: int, *, urgent: bool) -> list[str]:
    """Findings, rows that ended, and the rows that there are after each `step` records."""
    records = flagged(records, urgent)
    table, found = new_table(), np.zeros(len(records), FINDING)
    said, at = [], 0
    while at < len(records):
        at += table.process(records[at : at + step], found[at:])
        said += [plain(forget(rows, *FLAGS)) for rows in (table.take_ended(), live_rows(table))]
    return [plain(found), *said]


def both_ways_agree(records: Records, step: int = 100) -> None:
    assert said_of(records, step, urgent=False) == said_of(records, step, urgent=True)


@settings(max_examples=150)
@given(path=paths)
def test_a_transfer(path: Path) -> None:
    both_ways_agree(simulate(path)[0].records)


@settings(max_examples=150)
@given(seed=seeds)
def test_stacks(seed: int) -> None:
    """With SACK, probes, keep-alives, both ends opening or closing at once, and a tap that misses some."""
    both_ways_agree(records_of(merge([conversation(seed + number, wild=0.2) for number in range(3)])))


@settings(max_examples=150)
@given(seed=seeds)
def test_anything_two_ends_may_send(seed: int) -> None:
    both_ways_agree(wild(seed).records, step=1)


@settings(max_examples=20)
@given(seed=seeds, ends=st.integers(1, 4), times=st.booleans())
def test_garbage(seed: int, ends: int, times: bool) -> None:
    both_ways_agree(garbage(seed, 500, ends, times), step=500)


PAYLOADS = [0, 0, 0, 1, 2, 23, 1_460, 29_200, 1_000, 1_000 << 2, 1_000 << 7]
TOO_MUCH = [2**31 - 1, 2**31, 2**32 - 75, 2**32 - 1]


@settings(max_examples=150)
@given(seed=seeds, client=sequence_numbers, server=sequence_numbers)
def test_some_garbage_in_between(seed: int, client: int, server: int) -> None:
    """A connection in step, of which one segment in twelve has something else in one field, or in some."""
    dice = random.Random(seed)
    talk = Conversation(step_us=dice.choice([10, 1_000]), client_seq=client, server_seq=server)
    if dice.random() < 0.7:
        talk.client.syn(scale=dice.choice([None, 0, 7]))
        talk.server.syn_ack(scale=dice.choice([None, 2]))
    for _ in range(60):
        end = dice.choice([talk.client, talk.server])
        payload = dice.choice(PAYLOADS)
        changes: dict[str, Any] = {
            "window": dice.choice([0, 1, 2, 1_460, 29_200, 65_535]),
            "traffic_class": dice.choice([1, 3]),
            "note": dice.choice([NOTE_FIRST_SEND, NOTE_SENT_BEFORE]),
            "seq": end.next_seq + dice.choice([-2, -1, 1]),
            "ack": end.peer.next_seq + dice.choice([-1_460, -2, -1, 1, 2]),
            "flags": dice.randrange(0x200),
            "options": dice.choice([OPTION_SACK, OPTION_TIMESTAMPS, OPTION_SACK | OPTION_TIMESTAMPS]),
            "segments": 2,
            "payload_bytes": dice.choice(TOO_MUCH),
            "time_ns": talk.now_ns - dice.choice([1, 10**9]),
        }
        fields = {}
        if dice.random() < 1 / 12:
            fields = {name: changes[name] for name in dice.choices([*changes], k=dice.choice([1, 1, 2, 4]))}
        end.send(fields.pop("flags", FLAG_ACK), payload, **fields)
    both_ways_agree(talk.records, step=1)


def syn_not_acknowledged() -> Conversation:
    """The third segment acknowledges nothing of the second."""
    talk = Conversation()
    talk.client.syn()
    talk.server.syn_ack()
    talk.client.ack(talk.server.next_seq - 1)
    talk.server.data(23)
    talk.client.data(7)
    talk.client.ack()
    return talk


def probe_not_taken() -> Conversation:
    """A probe's byte was not acknowledged by the answer that opens the window, but by one later."""
    talk = Conversation()
    talk.handshake()
    talk.client.data(23)
    talk.server.ack(talk.client.next_seq - 7, window=0)
    before = talk.client.next_seq
    talk.client.data(1)
    talk.server.ack(before, window=1_000)
    talk.server.data(100)
    talk.server.ack(before + 1)
    return talk


def hole_half_acknowledged() -> Conversation:
    """What the tap has missed is acknowledged in two parts; then some of it comes after all."""
    talk = Conversation()
    talk.handshake()
    talk.client.data(100)
    talk.client.unseen(100)
    talk.client.data(100)
    last = talk.client.next_seq
    talk.server.ack(last - 150)
    talk.server.ack(last)
    talk.client.again(40, back=190)
    talk.client.again(40, back=140)
    talk.client.data(100)
    return talk


def reset_with_syn() -> Conversation:
    """Its window is not scaled; then the peer fills it."""
    talk = Conversation()
    talk.handshake(client_scale=7, server_scale=7)
    talk.client.data(23)
    talk.server.ack()
    acknowledged = talk.server.next_seq
    talk.server.send(FLAG_SYN | FLAG_RST)
    talk.client.data(1_000, ack=acknowledged)
    return talk


def reset_with_another_window() -> Conversation:
    """That one is not taken for the connection's; what comes after it has the same."""
    talk = Conversation()
    talk.handshake(client_scale=7, server_scale=7)
    talk.client.data(23)
    talk.server.rst(window=7)
    talk.server.data(23, window=7)
    return talk


def more_than_there_are_numbers() -> Conversation:
    """As the header of a file may say; what follows is in order."""
    talk = Conversation()
    talk.handshake()
    talk.client.data(1_000)
    talk.client.ack(payload_bytes=2**32 - 75)
    talk.client.data(5)
    return talk


OPEN = [
    syn_not_acknowledged,
    probe_not_taken,
    hole_half_acknowledged,
    reset_with_syn,
    reset_with_another_window,
    more_than_there_are_numbers,
]


@pytest.mark.parametrize("talk", OPEN)
def test_something_is_open(talk: Callable[[], Conversation]) -> None:
    both_ways_agree(talk().records, step=1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("loss", ["here and there", "in batches"])
def test_records_were_lost(loss: str, seed: int) -> None:
    talks = [conversation(1_000 * seed + number, wild=seed % 2 / 2) for number in range(80)]
    merged = merge(talks)
    records, numbers = records_of(merged), np.array([number for number, _ in merged])
    dice = random.Random(seed)
    parts = here_and_there(dice, records)[1] if loss == "here and there" else in_batches(dice, records, numbers)[1]
    said = []
    for urgent in (False, True):
        ways = [Part(flagged(part.records, urgent), part.unsure_ns, part.flows) for part in parts]
        found, rows = analysed(table_of_size(len(records)), ways)
        said.append((plain(found), plain(forget(rows, *FLAGS))))
    assert said[0] == said[1]
