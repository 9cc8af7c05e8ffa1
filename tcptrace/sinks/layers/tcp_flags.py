"""The nine flags of TCP, and what each says in the segment at hand."""

from typing import Final

from tcptrace import records as r
from tcptrace.sinks.layers.parts import Layer, Stream

_ECN_FLAGS: Final = r.FLAG_AE | r.FLAG_CWR | r.FLAG_ECE
_OFFERS: Final = {
    _ECN_FLAGS: "offers Accurate ECN (RFC 9768)",
    r.FLAG_CWR | r.FLAG_ECE: "offers ECN (RFC 3168)",
}
"""What the three flags say together on a SYN."""
_ANSWERS: Final = {
    r.FLAG_ECE: "agrees to ECN (RFC 3168)",
    r.FLAG_CWR: "agrees to Accurate ECN; the SYN came as Not-ECT",
    r.FLAG_CWR | r.FLAG_ECE: "agrees to Accurate ECN; the SYN came as ECT(1)",
    r.FLAG_AE: "agrees to Accurate ECN; the SYN came as ECT(0)",
    r.FLAG_AE | r.FLAG_CWR: "agrees to Accurate ECN; the SYN came as CE",
    r.FLAG_AE | r.FLAG_ECE: "agrees to ECN with a nonce (historic, RFC 3540)",
    _ECN_FLAGS: "the SYN's flags come back: a broken implementation",
}
"""The same on a SYN-ACK, RFC 9768 section 3.1.1.  Those of Accurate ECN answer a SYN that offered it."""
_ARRIVALS: Final = {2: "as Not-ECT", 3: "as ECT(1)", 4: "as ECT(0)", 6: "as CE"}
"""What ACE says in the handshake's last ACK, RFC 9768 section 3.2.2.1."""
_FULL_NAMES: Final = {
    "FIN": "finish",
    "SYN": "synchronize",
    "RST": "reset",
    "PSH": "push",
    "ACK": "acknowledgment",
    "URG": "urgent",
    "ECE": "ECN echo",
    "CWR": "window reduced",
    "AE": "accurate ECN",
}


def add(flags: int, stream: Stream, layer: Layer, at: tuple[int, int]) -> None:
    """One field for each flag that is set, and one with the names of the others."""
    names = [name for bit, name in enumerate(r.FLAG_NAMES) if flags >> bit & 1]
    layer.add("flags", f"0x{flags:03x}", " ".join(names) or "none: no segment of a sound TCP has none", at)
    for bit, name in enumerate(r.FLAG_NAMES):
        if flags >> bit & 1:
            layer.add(f"  {name}", _FULL_NAMES[name], meaning(1 << bit, flags, stream), at)
    others = " ".join(name for bit, name in enumerate(r.FLAG_NAMES) if not flags >> bit & 1)
    if others:
        layer.add("  not set", others, "", at, "quiet")


def meaning(flag: int, flags: int, stream: Stream) -> str:
    """What `flag`, which is set, says beside the other `flags` of its segment."""
    if flag & _ECN_FLAGS:
        return _congestion(flag, flags, stream)
    if flag == r.FLAG_SYN:
        if flags & (r.FLAG_RST | r.FLAG_FIN):
            return "to open and to end at once: no sound TCP sends this"
        if flags & r.FLAG_ACK:
            return "agrees to open; its sequence number is where this side begins"
        return "asks to open; its sequence number is where the sender will begin"
    if flag == r.FLAG_RST:
        return _reset(flags)
    return {
        r.FLAG_FIN: "this side has nothing more to send; it still receives",
        r.FLAG_PSH: "hand it to the application at once",
        r.FLAG_ACK: "the acknowledgment number counts",
        r.FLAG_URG: "the urgent pointer counts",
    }[flag]


def _reset(flags: int) -> str:
    if flags & r.FLAG_ACK:
        return "refuses or breaks off: no more in either direction"
    return "breaks off, or no such connection: no more in either direction"


def _congestion(flag: int, flags: int, stream: Stream) -> str:
    together = flags & _ECN_FLAGS
    if flags & r.FLAG_SYN:
        said = (_ANSWERS if flags & r.FLAG_ACK else _OFFERS).get(together, "no such offer of ECN is defined")
        # The first of them speaks for all.
        return said if flag == together & -together else "one signal with the flag before"
    if stream.accurate_ecn:
        # ACE, RFC 9768 section 3.2.2: AE is its highest bit.
        number = sum(value for bit, value in ((r.FLAG_AE, 4), (r.FLAG_CWR, 2), (r.FLAG_ECE, 1)) if flags & bit)
        said = f"of ACE = {number}: packets that came marked, counted modulo 8 from 5"
        if stream.ends_handshake:
            said = f"of ACE = {number}: how the SYN-ACK came, {_ARRIVALS.get(number, 'with no valid mark')}"
        return said if flag == together & -together else "one number with the flag before"
    return {
        r.FLAG_ECE: "packets came marked “congestion experienced”: please slow down",
        r.FLAG_CWR: "understood: the sender has slowed down",
        r.FLAG_AE: "only with Accurate ECN, of which nothing is known here",
    }[flag]
