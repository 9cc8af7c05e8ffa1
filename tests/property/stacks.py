"""Two TCP stacks, the network between them and the tap on it, all from one seed: the conversations that captures show.

    segments = conversation(seed=7)

Each stack sends again on a timeout or duplicate ACKs, delays its ACKs, reports SACK blocks, shuts its window when its
reader stops, probes a shut window and a silent peer; the network loses, doubles, delays and overtakes; the tap misses
some, begins late, sees one way only, has a coarse clock.  A few conversations are disturbed by hand on top of that.
"""

import heapq
import random
from dataclasses import dataclass, replace

from tcptrace.records import FLAG_ACK, FLAG_FIN, FLAG_PSH, FLAG_RST, FLAG_SYN

MS = 1_000_000
SECOND = 1_000 * MS
TIME_LIMIT_NS = 40 * SECOND
"""A conversation of this length is cut off."""
SEGMENTS_MAX = 120


@dataclass
class Segment:
    """One segment as the tap shows it; `end` sent it, 0 is the client.  Sequence numbers are on the wire's 32 bits."""

    time_ns: int
    end: int
    seq: int
    ack: int
    flags: int
    payload: int
    window: int
    mss: int | None = None
    scale: int | None = None
    sack_permitted: bool = False
    timestamps: tuple[int, int] | None = None
    sack: tuple[tuple[int, int], ...] = ()


@dataclass
class Habits:
    """How one stack behaves."""

    iss: int
    mss: int
    scale: int | None
    sack: bool
    timestamps: bool
    buffer: int
    delayed_ack_ns: int
    ack_every: int
    rto_ns: int
    dupthresh: int
    recut: bool  # what is sent again is cut anew, with new bytes behind it maybe
    go_back: bool  # after a timeout all is sent again
    probe: str  # "byte": the next one; "old": one before it, as Linux does; "old byte"
    keep_alive_ns: int
    keep_alive_bytes: int
    cwnd: int


def habits(dice: random.Random) -> Habits:
    mss = dice.choice([100, 536, 1_000, 1_460])
    return Habits(
        iss=dice.choice([dice.getrandbits(32), 2**32 - dice.randint(1, 6_000), 2**31 - dice.randint(0, 6_000)]),
        mss=mss,
        scale=dice.choice([None, 0, 2, 7]),
        sack=dice.random() < 0.6,
        timestamps=dice.random() < 0.5,
        buffer=dice.choice([mss, 3 * mss, 4_096, 65_535]),
        delayed_ack_ns=dice.choice([0, 0, 40, 200]) * MS,
        ack_every=dice.choice([1, 2, 2, 4]),
        rto_ns=dice.choice([2, 20, 200, 1_000]) * MS,
        dupthresh=dice.choice([3, 3, 2]),
        recut=dice.random() < 0.3,
        go_back=dice.random() < 0.3,
        probe=dice.choice(["byte", "old", "old byte"]),
        keep_alive_ns=dice.choice([0, 0, 300 * MS, 2 * SECOND]),
        keep_alive_bytes=dice.choice([0, 1]),
        cwnd=dice.choice([1, 2, 4, 10]),
    )


class Stack:
    """One end.  Its numbers do not wrap: 0 is its SYN, or the peer's."""

    def __init__(self, net: "Network", end: int, own: Habits) -> None:
        self.net, self.end, self.own = net, end, own
        self.state = "closed"
        self.una = self.next = 0
        self.rcv = 0  # the peer's SYN was not seen yet
        self.early: set[tuple[int, int]] = set()
        self.latest: tuple[int, int] | None = None
        self.doubled: tuple[int, int] | None = None
        self.cuts: list[int] = []  # where segments ended
        self.written = 1
        self.closing = False
        self.fin_at: int | None = None
        self.peer_fin: int | None = None
        self.unread = 0
        self.reading = True
        self.window_out = 0
        self.peer_window = 1 << 16
        self.duplicates = 0
        self.owed = 0
        self.timers: dict[str, int] = {}
        self.backoff = 1
        self.scale = 0
        self.peer_scale = 0
        self.sack = False
        self.timestamps = False
        self.ts_recent = 0
        self.dead = False
        self.heard_ns = 0

    @property
    def peer(self) -> "Stack":
        return self.net.stacks[1 - self.end]

    # --- Out.

    def emit(self, flags: int, start: int | None = None, payload: int = 0, *, ack: int | None = None) -> None:
        own = self.own
        start = self.next if start is None else start
        ack_number = self.rcv if ack is None else ack
        self.window_out = min(max(own.buffer - self.unread, 0), 65_535 << self.scale)
        if self.window_out < min(own.mss, own.buffer):
            self.window_out = 0
        segment = Segment(
            time_ns=self.net.now,
            end=self.end,
            seq=(own.iss + start) % 2**32,
            ack=(self.peer.own.iss + ack_number) % 2**32 if flags & FLAG_ACK else 0,
            flags=flags,
            payload=payload,
            window=self.window_out >> (0 if flags & FLAG_SYN else self.scale),
        )
        segment.window = min(segment.window, 65_535)
        if flags & FLAG_SYN:
            segment.mss = own.mss
            segment.scale = own.scale
            segment.sack_permitted = own.sack
            if flags & FLAG_ACK and self.peer.own.scale is None:
                segment.scale = None
        if self.timestamps or (flags & FLAG_SYN and own.timestamps):
            segment.timestamps = ((self.net.now // MS + own.iss) % 2**32, self.ts_recent)
        if flags & FLAG_ACK and self.sack and (self.early or self.doubled):
            blocks = self.sack_blocks()
            base = self.peer.own.iss
            segment.sack = tuple(((base + a) % 2**32, (base + b) % 2**32) for a, b in blocks)
        self.doubled = None
        self.owed = 0
        self.timers.pop("ack", None)
        self.net.send(self, segment, start, ack_number)

    def sack_blocks(self) -> list[tuple[int, int]]:
        blocks: list[tuple[int, int]] = []
        for a, b in sorted(self.early):
            if blocks and a <= blocks[-1][1]:
                blocks[-1] = (blocks[-1][0], max(b, blocks[-1][1]))
            else:
                blocks.append((a, b))
        if self.latest:
            blocks.sort(key=lambda block: not block[0] <= self.latest[0] < block[1])
        return ([self.doubled] if self.doubled else []) + blocks[: 2 if self.doubled else 3]

    def start(self, name: str, delay_ns: int) -> None:
        self.timers[name] = self.net.later(delay_ns, ("timer", self.end, name))

    def rearm(self) -> None:
        if self.una < self.next:
            self.start("rto", self.own.rto_ns * self.backoff)
        else:
            self.timers.pop("rto", None)

    def connect(self) -> None:
        self.state = "syn-sent"
        self.next = 1
        self.emit(FLAG_SYN, 0, self.net.dice.choice([0, 0, 0, 0, 0, 30]) if self.net.fast_open else 0)
        self.rearm()

    def write(self, count: int) -> None:
        self.written += count
        self.push()

    def close(self) -> None:
        self.closing = True
        self.push()

    def abort(self) -> None:
        if not self.dead:
            self.dead = True
            style = self.net.dice.choice(["rst", "rst-ack"])
            self.emit(FLAG_RST | (FLAG_ACK if style == "rst-ack" else 0))

    def push(self) -> None:
        """Send what there is and the windows allow."""
        if self.state != "open" or self.dead:
            return
        while True:
            room = min(self.una + self.own.cwnd * self.own.mss, self.una + self.peer_window) - self.next
            left = self.written - self.next
            if self.fin_at is not None or (left <= 0 and not self.closing):
                break
            size = min(left, self.own.mss, room)
            if left > 0 and size <= 0:
                if self.peer_window == 0 and self.una == self.next and "probe" not in self.timers:
                    self.start("probe", self.own.rto_ns)
                break
            flags = FLAG_ACK | (FLAG_PSH if size == left and size > 0 else 0)
            size = max(size, 0)
            if self.closing and size == left and (left == 0 or self.net.dice.random() < 0.5):
                flags |= FLAG_FIN
                self.fin_at = self.next + size
            at = self.next
            self.next += size + bool(flags & FLAG_FIN)
            self.cuts.append(self.next)
            self.emit(flags, at, size)
            if "rto" not in self.timers:
                self.rearm()
            if self.fin_at is None and left == size and not self.closing:
                break

    def resend(self, start: int) -> int:
        """One segment from `start`; where it ends."""
        if start == 0:
            self.emit(FLAG_SYN | (FLAG_ACK if self.rcv else 0), 0)
            return 1
        limit = self.next - (self.fin_at is not None and self.next > self.fin_at)
        cut = next((cut for cut in self.cuts if cut > start), self.next)
        stop = min(cut, limit)
        if self.own.recut:
            more = self.written if self.fin_at is None and self.net.dice.random() < 0.3 else limit
            stop = min(start + self.net.dice.randint(1, self.own.mss), max(limit, more), start + self.own.mss)
            if stop > self.next:
                self.next = stop
                self.cuts.append(stop)
        flags = FLAG_ACK | FLAG_PSH
        fin = self.fin_at is not None and stop >= self.fin_at
        stop = max(stop, start)
        self.emit(flags | (FLAG_FIN if fin else 0), start, stop - start)
        return stop + fin

    # --- In.

    def receive(self, segment: Segment, seq: int, ack: int) -> None:
        self.heard_ns = self.net.now
        flags = segment.flags
        if self.dead:
            if not flags & FLAG_RST and self.net.dice.random() < 0.7:
                self.emit_reset_for(segment, seq, ack)
            return
        if flags & FLAG_RST:
            self.dead = True
            return
        if self.state == "listen":
            if not flags & FLAG_SYN:
                return self.emit_reset_for(segment, seq, ack)
            if self.net.refuses:
                self.dead = True
                return self.emit_reset_for(segment, seq, ack)
            self.offer(segment)
            self.state = "syn-received"
            self.rcv = 1
            self.next = 1
            self.emit(FLAG_SYN | FLAG_ACK, 0)
            return self.rearm()
        if flags & FLAG_SYN:
            if self.state == "syn-sent":
                self.offer(segment)
                self.rcv = 1
                if not flags & FLAG_ACK:
                    self.state = "syn-received"
                    return self.emit(FLAG_SYN | FLAG_ACK, 0)
                self.una = max(self.una, 1)
                self.state = "open"
                self.take_window(segment)
                self.rearm()
                if self.net.dice.random() < 0.85 or self.written == 1:
                    self.emit(FLAG_ACK)
                return self.push()
            return self.emit(FLAG_SYN | FLAG_ACK, 0) if self.state == "syn-received" else self.emit(FLAG_ACK)
        if self.state == "syn-received" and ack >= 1:
            self.state = "open"
        if self.state != "open":
            return None
        if segment.timestamps:
            self.ts_recent = segment.timestamps[0]
        self.take_ack(segment, ack)
        self.take_data(segment, seq)
        self.push()
        return None

    def emit_reset_for(self, segment: Segment, seq: int, ack: int) -> None:
        """RFC 9293 section 3.10.7.1."""
        if segment.flags & FLAG_ACK:
            self.emit(FLAG_RST, ack)
        else:
            self.own = replace(self.own, iss=0) if self.next == 0 else self.own
            self.emit(FLAG_RST | FLAG_ACK, 0, ack=seq + segment.payload + bool(segment.flags & FLAG_SYN))

    def offer(self, segment: Segment) -> None:
        both = segment.scale is not None and self.own.scale is not None
        self.scale = self.own.scale or 0 if both else 0
        self.peer_scale = segment.scale or 0 if both else 0
        self.sack = segment.sack_permitted and self.own.sack
        self.timestamps = segment.timestamps is not None and self.own.timestamps
        self.ts_recent = segment.timestamps[0] if segment.timestamps else 0

    def take_window(self, segment: Segment) -> None:
        self.peer_window = segment.window << (0 if segment.flags & FLAG_SYN else self.peer_scale)
        if self.peer_window:
            self.timers.pop("probe", None)
            self.backoff = 1

    def take_ack(self, segment: Segment, ack: int) -> None:
        before = self.peer_window
        self.take_window(segment)
        if ack > self.una:
            self.una = ack
            self.next = max(self.next, ack)
            self.cuts = [cut for cut in self.cuts if cut > ack]
            self.duplicates = 0
            self.backoff = 1
            self.rearm()
        elif ack == self.una < self.next and segment.payload == 0 and before == self.peer_window:
            self.duplicates += 1
            if self.duplicates == self.own.dupthresh:
                self.resend(self.una)
                self.rearm()

    def take_data(self, segment: Segment, seq: int) -> None:
        stop = seq + segment.payload
        if segment.flags & FLAG_FIN:
            self.peer_fin = stop
        if segment.payload == 0 and not segment.flags & FLAG_FIN:
            if seq < self.rcv:
                self.emit(FLAG_ACK)  # a keep-alive
            return
        if stop - self.rcv > self.own.buffer - self.unread:
            return self.emit(FLAG_ACK)  # does not fit: a probe of the shut window
        if segment.payload and (stop <= self.rcv or (seq, stop) in self.early):
            self.doubled = (seq, stop)
        in_order = seq <= self.rcv < stop or (segment.flags & FLAG_FIN and seq <= self.rcv)
        if stop > self.rcv:
            self.early.add((seq, stop))
            self.latest = (seq, stop)
        had = self.rcv
        filled = bool(self.early) and len(self.early) > 1
        for a, b in sorted(self.early):
            if a <= self.rcv < b:
                self.rcv = b
        self.early = {(a, b) for a, b in self.early if b > self.rcv}
        fin = self.peer_fin is not None and self.rcv == self.peer_fin
        if fin:
            self.rcv += 1
        if self.rcv > had and not self.reading:
            self.unread += self.rcv - had - fin
        if not in_order or filled or fin or self.doubled:
            return self.emit(FLAG_ACK)
        self.owed += 1
        if self.owed >= self.own.ack_every or self.own.delayed_ack_ns == 0:
            return self.emit(FLAG_ACK)
        self.start("ack", self.own.delayed_ack_ns)
        return None

    # --- Time.

    def timeout(self, name: str) -> None:
        if self.dead:
            return
        dice = self.net.dice
        if name == "ack":
            self.emit(FLAG_ACK)
        elif name == "rto":
            self.backoff = min(self.backoff * 2, 16)
            at = self.resend(self.una)
            while self.own.go_back and at < self.next and dice.random() < 0.9:
                at = self.resend(at)
            self.rearm()
        elif name == "probe":
            if self.peer_window == 0 and self.next < self.written:
                at = self.next if self.own.probe == "byte" else self.next - 1
                self.emit(FLAG_ACK, at, 0 if self.own.probe == "old" else 1)
                self.backoff = min(self.backoff * 2, 16)
                self.start("probe", self.own.rto_ns * self.backoff)
        elif name == "keep-alive":
            if self.state == "open" and self.una == self.next:
                self.emit(FLAG_ACK, self.next - 1, self.own.keep_alive_bytes)
            self.start("keep-alive", self.own.keep_alive_ns)
        elif name == "read":
            self.reading = not self.reading
            if self.reading and self.unread:
                self.unread = 0
                if self.state == "open":
                    self.emit(FLAG_ACK)
                    if dice.random() < 0.2:
                        self.emit(FLAG_ACK)


@dataclass
class Way:
    """One direction of the path; shares between 0 and 1."""

    before_tap_ns: int
    after_tap_ns: int
    loss: float
    early_loss: float  # before the tap
    doubling: float
    overtaking: float
    missed: float  # passes the tap unseen


class Network:
    def __init__(self, dice: random.Random, start_ns: int) -> None:
        self.dice = dice
        self.now = start_ns
        self.start_ns = start_ns
        self.events: list[tuple[int, int, tuple]] = []
        self.number = 0
        self.seen: list[Segment] = []
        self.refuses = dice.random() < 0.06
        self.fast_open = dice.random() < 0.05
        self.stacks = [Stack(self, 0, habits(dice)), Stack(self, 1, habits(dice))]
        near, far = sorted(dice.choice([10_000, 200_000, MS, 5 * MS, 30 * MS, 100 * MS]) for _ in range(2))
        if dice.random() < 0.5:
            near, far = far, near
        trouble = dice.choice([0, 0.3, 1])
        self.ways = [
            Way(
                before,
                after,
                *(trouble * dice.choice([0, 0.02, 0.1, 0.3]) for _ in range(2)),
                trouble * dice.choice([0, 0.05, 0.2]),
                trouble * dice.choice([0, 0.05, 0.3]),
                trouble * dice.choice([0, 0, 0.05, 0.2]),
            )
            for before, after in ((near, far), (far, near))
        ]

    def later(self, delay_ns: int, what: tuple) -> int:
        self.number += 1
        heapq.heappush(self.events, (self.now + delay_ns, self.number, what))
        return self.number

    def jitter(self, delay_ns: int, overtaking: float) -> int:
        extra = self.dice.randint(0, 2 * delay_ns) if self.dice.random() < overtaking else 0
        return delay_ns + extra + self.dice.randint(0, 3_000)

    def send(self, stack: Stack, segment: Segment, start: int, ack: int) -> None:
        way = self.ways[stack.end]
        for _ in range(1 + (self.dice.random() < way.doubling / 2)):
            if self.dice.random() >= way.early_loss:
                self.later(self.jitter(way.before_tap_ns, way.overtaking), ("tap", segment, start, ack))

    def run(self) -> list[Segment]:
        while self.events and len(self.seen) < SEGMENTS_MAX and self.now < self.start_ns + TIME_LIMIT_NS:
            self.now, number, what = heapq.heappop(self.events)
            match what:
                case ("tap", segment, start, ack):
                    way = self.ways[segment.end]
                    if self.dice.random() >= way.missed:
                        self.seen.append(replace(segment, time_ns=self.now))
                    for _ in range(1 + (self.dice.random() < way.doubling / 2)):
                        if self.dice.random() >= way.loss:
                            delay = self.jitter(way.after_tap_ns, way.overtaking)
                            self.later(delay, ("arrive", segment, start, ack))
                case ("arrive", segment, start, ack):
                    self.stacks[1 - segment.end].receive(segment, start, ack)
                case ("timer", end, name):
                    stack = self.stacks[end]
                    if stack.timers.get(name) == number:
                        del stack.timers[name]
                        stack.timeout(name)
                case ("do", end, action, *rest):
                    stack = self.stacks[end]
                    if not stack.dead:
                        getattr(stack, action)(*rest)
        return self.seen


def plan(net: Network) -> None:
    """What the two applications do, and when."""
    dice = net.dice
    server = net.stacks[1]
    server.state = "listen"
    if dice.random() < 0.02:
        server.state = "closed"
        net.later(dice.randint(0, 20 * MS), ("do", 1, "connect"))
    net.later(0, ("do", 0, "connect"))
    at = 0
    for _ in range(dice.choice([0, 1, 2, 5])):
        at += dice.choice([0, MS, 50 * MS, 400 * MS, 3 * SECOND])
        net.later(at, ("do", dice.randint(0, 1), "write", dice.choice([1, 1, 10, 500, 3_000, 15_000])))
    for end in (0, 1):
        if dice.random() < 0.25:
            net.later(dice.randint(0, 300) * MS, ("do", end, "timeout", "read"))
            net.later(dice.randint(300, 6_000) * MS, ("do", end, "timeout", "read"))
        if net.stacks[end].own.keep_alive_ns:
            net.later(net.stacks[end].own.keep_alive_ns, ("do", end, "timeout", "keep-alive"))
    at += dice.choice([0, 100 * MS, 5 * SECOND])
    match dice.choice(["open", "client", "server", "both", "abort", "half"]):
        case "client":
            net.later(at, ("do", 0, "close"))
            net.later(at + dice.choice([0, 100, 1_000]) * MS, ("do", 1, "close"))
        case "server":
            net.later(at, ("do", 1, "close"))
            net.later(at + dice.choice([0, 100, 1_000]) * MS, ("do", 0, "close"))
        case "both":
            net.later(at, ("do", 0, "close"))
            net.later(at, ("do", 1, "close"))
        case "abort":
            net.later(at, ("do", dice.randint(0, 1), "abort"))
        case "half":
            net.later(at, ("do", 0, "close"))
            net.later(at + SECOND, ("do", 1, "write", 3_000))
            net.later(at + 2 * SECOND, ("do", 1, "close"))


# --- What the capture makes of it.


def capture(dice: random.Random, segments: list[Segment]) -> list[Segment]:
    """The tap's own faults."""
    match dice.choice(["whole"] * 6 + ["late", "one way", "coarse clock", "coarse clock", "clock set back", "swapped"]):
        case "late" if segments:
            segments = segments[dice.randrange(len(segments)) :]
        case "one way":
            end = dice.randint(0, 1)
            segments = [segment for segment in segments if segment.end == end]
        case "coarse clock":
            tick = dice.choice([MS, 10 * MS])
            segments = [replace(segment, time_ns=segment.time_ns // tick * tick) for segment in segments]
        case "clock set back" if segments:
            at, step = dice.randrange(len(segments)), dice.choice([1_000, 5 * MS])
            segments = [replace(s, time_ns=s.time_ns - step * (n >= at)) for n, s in enumerate(segments)]
        case "swapped":
            for at in range(1, len(segments)):
                if dice.random() < 0.1:
                    one, two = segments[at - 1 : at + 1]
                    segments[at - 1 : at + 1] = [
                        replace(two, time_ns=one.time_ns),
                        replace(one, time_ns=two.time_ns),
                    ]
    return segments


def disturb(dice: random.Random, segments: list[Segment]) -> list[Segment]:
    """What no stack does: any number moved a little, segments repeated much later or left out."""
    segments = [replace(segment) for segment in segments]
    for _ in range(dice.randint(1, 4)):
        if not segments:
            break
        at = dice.randrange(len(segments))
        segment = segments[at]
        match dice.randint(0, 7):
            case 0:
                segment.window = dice.choice([0, segment.window, 1_000])
            case 1 if segment.flags & FLAG_ACK:
                segment.ack = (segment.ack + dice.choice([-1_000, -100, -1, 1, 100, 3_000])) % 2**32
            case 2:
                segment.seq = (segment.seq + dice.choice([-1_000, -100, -1, 1, 100, 3_000])) % 2**32
            case 3:
                segment.payload = dice.choice([0, 1, 2, 100])
            case 4:
                late = min(len(segments) - 1, at + dice.randint(1, 20))
                segments.insert(late + 1, replace(segment, time_ns=segments[late].time_ns))
            case 5:
                del segments[at : at + dice.randint(1, 5)]
            case 6 if not segment.flags & FLAG_SYN:
                segment.flags ^= dice.choice([FLAG_FIN, FLAG_RST, FLAG_PSH])
            case 7 if segment.flags & FLAG_ACK:
                segments.insert(at + 1, replace(segment, payload=0, flags=FLAG_ACK))
    return segments


def one(dice: random.Random, start_ns: int) -> list[Segment]:
    net = Network(dice, start_ns)
    plan(net)
    return net.run()


def conversation(seed: int, *, wild: float = 0.2) -> list[Segment]:
    """All segments between one pair of addresses and ports; `wild`: the share that is disturbed by hand."""
    dice = random.Random(seed)
    segments = one(dice, dice.randint(0, SECOND))
    if dice.random() < 0.15:  # the same ports once more
        pause = dice.choice([10_000, 10 * MS, SECOND])
        again = one(dice, (segments[-1].time_ns if segments else 0) + pause)
        if dice.random() < 0.3:
            for segment in again:
                segment.end = 1 - segment.end
        segments += again
    segments = capture(dice, segments)
    if dice.random() < wild:
        segments = disturb(dice, segments)
    return segments
