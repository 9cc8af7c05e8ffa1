"""The engine against tshark on generated conversations: connection, findings, numbers and times of each segment.

Where the engine differs on purpose, a rule says so and why.  Rules look at the segments and at what tshark said before.
More of them than a test run has time for: TCPTRACE_CONVERSATIONS=10000 TCPTRACE_SEED=600.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tcptrace.records import FLAG_ACK, FLAG_FIN, FLAG_RST, FLAG_SYN

from .stacks import Segment, conversation
from .wireshark import FLAGS, TSHARK, Opinion, Verdict, ask_engine, ask_tshark

COUNT = int(os.environ.get("TCPTRACE_CONVERSATIONS", "600"))
SEED = int(os.environ.get("TCPTRACE_SEED", "0"))
BATCH = 1_000
WILD = 0.1
"""The share of conversations in which numbers were changed by hand."""

Names = frozenset[str]


def names(*words: str) -> Names:
    return frozenset(words)


SENT_AGAIN = names("retransmission", "fast_retransmission", "spurious_retransmission")
LATE = SENT_AGAIN | {"out_of_order"}
UNSEEN = names("acked_unseen_segment")


def before(a: int, b: int) -> bool:
    return (a - b) % 2**32 >= 2**31


# --- What was seen of a connection before the segment in question.


@dataclass
class End:
    next: int | None = None
    last_ack: int | None = None
    acked: int | None = None  # the highest
    last: Verdict | None = None
    one_byte_again: bool = False  # its last segment was one byte that had been sent before
    probed: int | None = None  # where its last zero-window probe began
    ack_missing: bool = False  # a segment of it had no ACK, and tshark took the 0 in its place for one
    acked_unseen: bool = False  # the other end acknowledged what had not been seen of this one
    gap: bool = False
    sent_again: bool = False  # something came late or again
    one_byte_segments: set[int] = field(default_factory=set)  # their places
    zero: bool = False  # one of its numbers was 0


@dataclass
class Past:
    ends: tuple[End, End] = field(default_factory=lambda: (End(), End()))
    count: int = 0
    syn_ack: bool = False
    late_syn: bool = False
    reset: bool = False
    probe_taken: bool = False
    highest_ns: int = 0

    def add(self, place: int, segment: Segment, tshark: Verdict) -> None:
        end, peer = self.ends[segment.end], self.ends[1 - segment.end]
        plain_syn = segment.flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN
        self.late_syn |= plain_syn and (end.next is not None or self.syn_ack)
        self.syn_ack |= segment.flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN | FLAG_ACK
        self.reset |= bool(segment.flags & FLAG_RST)
        self.probe_taken |= takes_probe(segment, peer)
        self.count += 1
        self.highest_ns = max(self.highest_ns, segment.time_ns)
        stop = (segment.seq + segment.payload + bool(segment.flags & (FLAG_SYN | FLAG_FIN))) % 2**32
        end.one_byte_again = sends_one_byte_again(segment, end)
        late = segment.payload > 0 and end.next is not None and before(segment.seq, end.next)
        if end.next is None or (before(end.next, stop) and "zero_window_probe" not in tshark.flags):
            end.next = stop
        if "zero_window_probe" in tshark.flags:
            end.probed = segment.seq
        if segment.payload == 1:
            end.one_byte_segments.add(place)
        end.ack_missing |= not segment.flags & FLAG_ACK and (end.last_ack is not None or peer.next is not None)
        if segment.flags & FLAG_ACK:
            peer.acked_unseen |= "acked_unseen_segment" in tshark.flags
            peer.acked_unseen |= peer.next is not None and before(peer.next, segment.ack)
            end.last_ack = segment.ack
            if end.acked is None or before(end.acked, segment.ack):
                end.acked = segment.ack
        end.sent_again |= bool(tshark.flags & LATE) or late
        end.gap |= "previous_segment_not_captured" in tshark.flags
        end.zero |= 0 in (segment.seq, stop, segment.ack if segment.flags & FLAG_ACK else 1)
        end.last = tshark


def takes_probe(segment: Segment, prober: End) -> bool:
    return prober.probed is not None and bool(segment.flags & FLAG_ACK) and before(prober.probed, segment.ack)


def sends_one_byte_again(segment: Segment, end: End) -> bool:
    return segment.payload == 1 and end.next is not None and segment.seq == (end.next - 1) % 2**32


@dataclass
class Difference:
    """At one segment."""

    segment: Segment
    tshark: Verdict
    engine: Verdict
    past: Past

    @property
    def end(self) -> End:
        return self.past.ends[self.segment.end]

    @property
    def peer(self) -> End:
        return self.past.ends[1 - self.segment.end]

    @property
    def missing(self) -> Names:
        return self.tshark.flags - self.engine.flags

    @property
    def more(self) -> Names:
        return self.engine.flags - self.tshark.flags

    @property
    def late(self) -> bool:
        """The segment begins before what was seen last."""
        return self.end.next is not None and before(self.segment.seq, self.end.next)

    def __str__(self) -> str:
        return f"{self.segment}: tshark {self.tshark}, the engine {self.engine}"


# --- Where the engine differs on purpose.

Rule = Callable[[Difference], bool]
LOCAL: list[Rule] = []
"""What comes after can be compared again."""
LASTING: list[Rule] = []
"""The two see the rest of the connection differently: no more is compared of it."""


def local(rule: Rule) -> Rule:
    LOCAL.append(rule)
    return rule


def lasting(rule: Rule) -> Rule:
    LASTING.append(rule)
    return rule


@local
def one_byte_again(d: Difference) -> bool:
    """One byte that waits for its ACK is sent again; tshark takes every byte at `next` - 1 for a keep-alive."""
    return sends_one_byte_again(d.segment, d.end) and d.missing == {"keep_alive"} and d.more <= SENT_AGAIN


@lasting
def answer_to_one_byte_again(d: Difference) -> bool:
    """So its answer is a duplicate ACK, and counts as one."""
    return d.peer.one_byte_again and d.missing == {"keep_alive_ack"} and d.more == {"duplicate_ack"}


@local
def acknowledged_before_it_was_seen(d: Difference) -> bool:
    """tshark: spurious, also of bytes that pass for the first time.  A tap can show the two directions out of step."""
    return not d.late and d.missing == {"retransmission", "spurious_retransmission"} and not d.more


@local
def syn_ack_with_another_number(d: Difference) -> bool:
    """Only a SYN begins a connection, so only a SYN uses ports again."""
    return d.missing == {"port_reuse"} and d.segment.flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN | FLAG_ACK and not d.more


@local
def reset(d: Difference) -> bool:
    """Of a reset nothing but the reset is looked at."""
    return bool(d.segment.flags & FLAG_RST) and d.missing <= UNSEEN | LATE and not d.more


@local
def scale_is_not_known(d: Difference) -> bool:
    """The SYN offers a scale and the SYN-ACK was not seen: tshark takes for granted that it had agreed."""
    return not d.past.syn_ack and d.missing == {"window_full"} and not d.more


@local
def number_begins_anew(d: Difference) -> bool:
    """After an ACK of something unseen tshark counts the other end's duplicate ACKs from 1 again."""
    same = d.tshark.flags == d.engine.flags
    return same and d.end.acked_unseen and d.tshark.duplicate_ack_number < d.engine.duplicate_ack_number


@local
def minus_one_is_not_two(d: Difference) -> bool:
    """Until the next one that count is -1, which without a sign is more than two: fast at once, and later on not."""
    told = d.peer.acked_unseen or "acked_unseen_segment" in d.tshark.flags
    return told and "fast_retransmission" in d.missing ^ d.more and d.missing | d.more <= LATE


@local
def clock_set_back(d: Difference) -> bool:
    """A negative time is no long one."""
    return d.segment.time_ns < d.past.highest_ns and d.missing | d.more <= LATE


@local
def syn_again_after_a_gap(d: Difference) -> bool:
    """Too soon for having been sent again; tshark goes by another rule, and only for a SYN without ACK after a gap."""
    plain = d.segment.flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN
    return plain and d.end.gap and d.missing == {"retransmission"} and d.more == {"out_of_order"}


@lasting
def probe_is_acknowledged(d: Difference) -> bool:
    """The byte of a zero-window probe counts as sent once it is acknowledged; tshark has then never seen it."""
    return d.past.probe_taken or takes_probe(d.segment, d.peer)


@lasting
def last_byte_with_fin_is_no_probe(d: Difference) -> bool:
    return bool(d.segment.flags & FLAG_FIN) and d.segment.payload == 1 and "zero_window_probe" in d.missing


@lasting
def after_a_reset(d: Difference) -> bool:
    """Its numbers and window need not be those of the connection; tshark takes them like any others."""
    return d.past.reset


@lasting
def no_ack_is_no_number(d: Difference) -> bool:
    """The field of a segment without ACK is 0, and means nothing."""
    return d.end.ack_missing or d.peer.ack_missing


@lasting
def syn_comes_late(d: Difference) -> bool:
    """The SYN was overtaken by the answer to it: tshark has taken its options for missing."""
    return d.past.late_syn


@lasting
def zero_is_a_number(d: Difference) -> bool:
    """For tshark a sequence number of exactly 0 is none."""
    return d.end.zero or d.peer.zero


def find_rule(rules: Sequence[Rule], difference: Difference) -> str | None:
    return next((rule.__name__ for rule in rules if rule(difference)), None)


# --- The comparison.


def same(tshark: Verdict, engine: Verdict) -> bool:
    return tshark.flags == engine.flags and tshark.duplicate_ack_number == engine.duplicate_ack_number


def compare_findings(
    segments: Sequence[Segment], tshark: Opinion, engine: Opinion, explained: Counter[str]
) -> Iterator[str]:
    """What differs without a reason."""
    pasts: dict[int, Past] = {}
    given_up: set[int] = set()
    for place, (segment, theirs, ours) in enumerate(zip(segments, tshark.verdicts, engine.verdicts, strict=True)):
        if theirs.stream != ours.stream:
            yield f"segment {place}: connection {ours.stream}, tshark {theirs.stream}"
            return
        past = pasts.setdefault(theirs.stream, Past())
        if theirs.stream not in given_up and not same(theirs, ours):
            difference = Difference(segment, theirs, ours, past)
            if reason := find_rule(LOCAL, difference):
                explained[reason] += 1
            else:
                reason = find_rule(LASTING, difference)
                explained[reason or "not explained"] += 1
                given_up.add(theirs.stream)
                if reason is None:
                    yield f"segment {place}: {difference}"
        past.add(place, segment, theirs)


def compare_times(segments: Sequence[Segment], tshark: Opinion, engine: Opinion) -> Iterator[str]:
    """RTTs until something came late or again, in that direction.

    Not measured: keep-alives and probes, what was seen only after its acknowledgment, times below 0, and what a reset
    acknowledges unless that is all.
    """
    pasts: dict[int, Past] = {}
    for place, (segment, theirs, ours) in enumerate(zip(segments, tshark.verdicts, engine.verdicts, strict=True)):
        past = pasts.setdefault(theirs.stream, Past())
        end, peer = past.ends[segment.end], past.ends[1 - segment.end]
        measured = ours.ack_rtt_ns or 0, theirs.ack_rtt_ns or 0  # tshark does not show 0
        if (
            measured[0] != measured[1]
            and not (peer.sent_again or end.ack_missing or past.late_syn or past.reset or end.zero or peer.zero)
            and not (end.acked is not None and not before(end.acked, segment.ack))
            and theirs.acks_place not in peer.one_byte_segments
            and measured[1] >= 0
            and not past.probe_taken
            and segment.flags & FLAG_ACK
            and not (segment.flags & FLAG_RST and peer.next is not None and before(segment.ack, peer.next))
        ):
            yield f"segment {place}: RTT {measured[0]} ns, tshark {measured[1]}"
        past.add(place, segment, theirs)


def compare_initial_times(segments: Sequence[Segment], tshark: Opinion, engine: Opinion) -> Iterator[str]:
    for stream in {verdict.stream for verdict in tshark.verdicts}:
        members = [s for s, v in zip(segments, tshark.verdicts, strict=True) if v.stream == stream]
        theirs, ours = tshark.initial_rtt_ns.get(stream), engine.initial_rtt_ns.get(stream)
        shown = theirs is not None or stream in tshark.shown
        theirs = None if theirs is not None and theirs < 0 else theirs  # the capture's clock was set back
        if (theirs or 0) != (ours or 0) and shown and not gives_up(members):
            yield f"connection {stream}: initial RTT {ours} ns, tshark {theirs}"


def gives_up(segments: Sequence[Segment]) -> bool:
    """A reset of who sent the SYN comes before any answer: that is no round trip."""
    opener = None
    for segment in segments:
        if segment.flags & FLAG_SYN and not segment.flags & FLAG_ACK:
            opener = segment.end
        elif opener is not None and segment.flags & FLAG_ACK and not segment.flags & FLAG_SYN:
            return bool(segment.flags & FLAG_RST) and segment.end == opener
    return False


@pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")
@pytest.mark.parametrize("first", range(SEED, SEED + COUNT, BATCH))
def test_tshark_says_the_same(first: int, tmp_path: Path) -> None:
    seeds = range(first, min(first + BATCH, SEED + COUNT))
    conversations = [conversation(seed, wild=WILD) for seed in seeds]
    theirs = ask_tshark(conversations, tmp_path / "generated.pcap")
    ours = ask_engine(conversations)
    explained: Counter[str] = Counter()
    wrong = []
    for seed, segments, tshark, engine in zip(seeds, conversations, theirs, ours, strict=True):
        wrong += [f"seed {seed}, {line}" for line in compare_findings(segments, tshark, engine, explained)]
        wrong += [f"seed {seed}, {line}" for line in compare_times(segments, tshark, engine)]
        wrong += [f"seed {seed}, {line}" for line in compare_initial_times(segments, tshark, engine)]
    print(explained)
    assert not wrong, "\n".join(wrong)
    met = Counter(name for tshark in theirs for verdict in tshark.verdicts for name in verdict.flags)
    assert len(seeds) < 500 or min(met[name] for name in FLAGS.values()) >= 10, met
