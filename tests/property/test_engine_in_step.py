"""The short way of segments that come next says what the long one says.

A segment with URG goes the long way, where that flag means nothing: with it on all of them, nothing but flags may
differ.
"""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcptrace.model import FINDING
from tcptrace.records import FLAG_ACK, FLAG_ECE, FLAG_PSH, FLAG_RST, FLAG_URG, NOTE_FIRST_SEND, NOTE_SENT_BEFORE

from ..unit.conversation import Conversation, feed, live_rows, new_table, plain
from .stacks import conversation
from .test_engine import Path, forget, garbage, paths, seeds, simulate, wild
from .test_engine_gaps import Part, Records, analysed, here_and_there, in_batches
from .test_engine_gaps import new_table as table_of_size
from .wireshark import merge, records_of

FLAGS = ("sent.flags_seen", "received.flags_seen", "recent.flags")


def flagged(records: Records, urgent: bool) -> Records:
    records = records.copy()
    records["flags"] = records["flags"] | FLAG_URG if urgent else records["flags"] & ~np.uint16(FLAG_URG)
    return records


def said_of(records: Records, *, urgent: bool) -> tuple[str, ...]:
    """Findings, rows that ended, rows that are left."""
    records = flagged(records, urgent)
    table, found = new_table(), np.zeros(len(records), FINDING)
    ended, at = [], 0
    while at < len(records):
        at += table.process(records[at:], found[at:])
        ended.append(table.take_ended())
    table.refresh(2**61)
    return plain(found), *(plain(forget(rows, *FLAGS)) for rows in (np.concatenate(ended), live_rows(table)))


def both_ways_agree(records: Records) -> None:
    assert said_of(records, urgent=False) == said_of(records, urgent=True)


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
    both_ways_agree(wild(seed).records)


@settings(max_examples=100)
@given(seed=seeds, ends=st.integers(1, 4), times=st.booleans(), usual=st.booleans())
def test_garbage(seed: int, ends: int, times: bool, usual: bool) -> None:
    records = garbage(seed, 500, ends, times)
    if usual:  # else few are what comes next
        records["flags"] = np.where(np.arange(len(records)) % 50 < 2, records["flags"], 0x10)
        records["options"] = 0
        for name in ("seq", "ack", "payload_bytes"):
            records[name] %= 8
    both_ways_agree(records)


@settings(max_examples=300)
@given(seed=seeds)
def test_in_order_but_for_one_thing(seed: int) -> None:
    """A connection in step, and then segments each of which differs from what comes next in one field, or in none."""
    dice = random.Random(seed)
    talk = Conversation(step_us=dice.choice([10, 1_000]))
    if dice.random() < 0.5:
        talk.handshake(client_scale=dice.choice([None, 0, 7]), server_scale=dice.choice([None, 2]))
    for _ in range(60):
        end = dice.choice([talk.client, talk.server])
        payload = dice.choice([0, 0, 1, 2, 1_460])
        change = {
            "window": dice.choice([0, 1, 2, 1_460, 29_200, 65_535]),
            "traffic_class": dice.choice([1, 3]),
            "note": dice.choice([NOTE_FIRST_SEND, NOTE_SENT_BEFORE]),
            "seq": end.next_seq + dice.choice([-2, -1, 1]),
            "ack": end.peer.next_seq + dice.choice([-1_460, -2, -1, 1, 2]),
            "flags": dice.choice([0, FLAG_PSH, FLAG_RST, FLAG_RST | FLAG_ACK, FLAG_ACK | FLAG_ECE]),
            "segments": 2,
            "ip_id": 0,
        }
        name = dice.choice([*change, *["nothing"] * 8])
        fields = {name: change[name]} if name != "nothing" else {}
        end.send(fields.pop("flags", FLAG_ACK), payload, **fields)
    both_ways_agree(talk.records)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("loss", ["here and there", "in batches"])
def test_records_were_lost(loss: str, seed: int) -> None:
    talks = [conversation(1_000 * seed + number, wild=0) for number in range(80)]
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


def test_the_flag_itself_makes_no_difference_to_a_finding() -> None:
    """Or the comparison would be of something else: both ways have findings, and the same."""
    records = records_of(merge([conversation(number, wild=0.2) for number in range(40)]))
    for urgent in (False, True):
        table = new_table()
        feed(table, flagged(records, urgent))
        assert live_rows(table)["sent"]["retransmissions"].sum() > 0
