# Order and loss: new bytes, bytes sent again, bytes overtaken on the way, bytes never seen.
#
# `next` is the sequence number after the highest byte seen of an end.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tcptrace.engine.findings cimport (
    FAST_RETRANSMISSION, KEEP_ALIVE, LOCAL_DROP, OUT_OF_ORDER, PREVIOUS_NOT_CAPTURED, RETRANSMISSION,
    SPURIOUS_RETRANSMISSION, ZERO_WINDOW_PROBE,
)
from tcptrace.engine.flow_counts cimport is_behind, resume
from tcptrace.engine.rows cimport connection, direction_row, endpoint, finding, row_of
from tcptrace.engine.segments cimport add_hole, await_ack, await_ack_late, fill_hole, segment_pool, take_back
from tcptrace.engine.sequence cimport at_or_before, before
from tcptrace.records cimport FLAG_FIN, FLAG_SYN, NOTE_FIRST_SEND, NOTE_SENT_BEFORE, packet_record

cdef enum:
    # Wireshark's bound for "late, but not sent again" where the handshake gave no RTT.
    OUT_OF_ORDER_NS = 3_000_000
    # Wireshark's: so soon after the last duplicate ACK that this is what made the sender send again.
    FAST_RETRANSMISSION_NS = 20_000_000
    # RFC 5681 section 3.2 asks for three; one may be missing from the trace.
    FAST_RETRANSMISSION_ACKS = 2

cdef inline uint32_t take_range(
    segment_pool *pool, connection *c, int x, const packet_record *p, finding *found
) noexcept nogil:
    """Take the segment's bytes in (SYN and FIN count one each); bits of engine.findings."""
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    cdef uint32_t length = p.payload_bytes + (p.flags & FLAG_SYN != 0) + (p.flags & FLAG_FIN != 0)
    cdef uint32_t stop = p.seq + length
    cdef uint32_t bits = 0
    end.last_unsure = False
    if not end.seen and not end.next_told:
        end.next_seq = p.seq
        end.next_ns = p.time_ns
    elif end.missed or (end.probing and c.has_gap):
        resume(pool, end, p)
    if p.seq != end.next_seq:
        if p.note & NOTE_FIRST_SEND and before(p.seq, end.next_seq):
            row_of(c, x).local_drops += take_back(pool, end, p.seq)
            end.next_seq = p.seq
            bits = LOCAL_DROP
        elif not c.has_gap and is_keep_alive(end, p):
            if p.seq == end.contiguous:
                end.contiguous = end.next_seq
            if p.payload_bytes and end.unacked_first >= 0:
                end.resent_ns = p.time_ns + 1  # it may have been sent again all the same
            return KEEP_ALIVE
        elif c.has_gap and length == p.payload_bytes <= 1 and is_behind(end, p) and not p.note & NOTE_SENT_BEFORE:
            end.last_unsure = True  # keep-alive, zero-window probe, or sent again
            end.resent_ns = p.time_ns + 1
            return 0
        elif before(end.next_seq, p.seq):
            bits = PREVIOUS_NOT_CAPTURED
            add_hole(pool, end, end.next_seq, p.seq, p.time_ns)
            end.next_seq = p.seq
            end.next_ns = p.time_ns
        elif length > 0:
            bits = take_late(pool, c, x, p, stop)
    elif not peer.missed and is_zero_window_probe(end, peer, p):
        end.probing = True
        end.last_unsure = c.has_gap
        return 0 if c.has_gap else ZERO_WINDOW_PROBE
    if c.has_gap and p.payload_bytes <= 1 and is_behind(end, p):
        end.last_unsure = True
    elif not bits & RETRANSMISSION and was_acknowledged(peer, p):
        bits |= RETRANSMISSION | SPURIOUS_RETRANSMISSION
        count_retransmission(row_of(c, x), p, p.payload_bytes, bits)
    if before(end.next_seq, stop):
        await_ack(pool, end, p.seq, stop, p.segments, p.time_ns)
        end.next_seq = stop
        end.next_ns = p.time_ns
    if p.seq == end.contiguous or not end.seen:
        end.contiguous = end.next_seq
    if p.payload_bytes and peer.ack_seen and not peer.missed:
        note_in_flight(row_of(c, x), end, peer, found)
    elif p.payload_bytes:
        row_of(c, x).in_flight_bytes = -1
    return bits

cdef inline void note_in_flight(
    direction_row *d, const endpoint *end, const endpoint *peer, finding *found
) noexcept nogil:
    """Sent and neither acknowledged nor reported by SACK: seen from where the capture was made."""
    cdef int64_t in_flight = <int64_t>(end.next_seq - peer.acked) - peer.sacked_bytes
    if before(end.next_seq, peer.acked) or in_flight < 0:
        in_flight = 0
    found.in_flight_bytes = in_flight
    d.in_flight_bytes = in_flight
    d.in_flight_max_bytes = max(d.in_flight_max_bytes, in_flight)

cdef inline uint32_t take_late(segment_pool *pool, connection *c, int x, const packet_record *p, uint32_t stop) noexcept nogil:
    """Bytes that begin before `next`."""
    cdef endpoint *end = &c.ends[x]
    cdef bint seen_before = fill_hole(pool, end, p.seq, stop) < 0
    cdef uint32_t bits = 0
    # Else its first byte may have been a zero-window probe.
    if p.payload_bytes <= 1 or p.seq != end.next_seq - 1:
        bits = late_segment(c, end, &c.ends[1 - x], p, stop)
    if bits & RETRANSMISSION:
        count_retransmission(row_of(c, x), p, end.next_seq - p.seq, bits)
    if bits == OUT_OF_ORDER and not seen_before:
        note_overtaken(pool, end, p)
        await_ack_late(pool, end, p.seq, stop, p.segments, p.time_ns)
    elif not end.copied:
        end.resent_ns = p.time_ns + 1
    return bits

cdef inline void note_overtaken(const segment_pool *pool, endpoint *end, const packet_record *p) noexcept nogil:
    """What was seen before it may be acknowledged only after it, from its first byte on."""
    cdef bint others_wait = end.unacked_first >= 0 and pool.items[end.unacked_first].time_ns < end.overtaken_ns
    if not others_wait or before(p.seq, end.overtaken_from):
        end.overtaken_from = p.seq
    end.overtaken_ns = p.time_ns

cdef inline bint was_acknowledged(const endpoint *peer, const packet_record *p) noexcept nogil:
    """The other end has all of its payload, as its last segment said; also where that was captured too early."""
    return (
        p.payload_bytes > 0 and peer.ack_seen and not peer.missed and at_or_before(p.seq + p.payload_bytes, peer.last_ack)
        and not p.note & NOTE_FIRST_SEND
    )

cdef inline bint can_tell(const connection *c, const endpoint *end, const packet_record *p) noexcept nogil:
    """Not after a gap of ours: it may be the first time, and what overtook it all that was seen."""
    if p.note & NOTE_SENT_BEFORE:
        return True
    return (not c.opening_missed or c.intact) and not (end.unsure and before(p.seq, end.unsure_until))

cdef inline uint32_t late_segment(
    const connection *c, const endpoint *end, const endpoint *peer, const packet_record *p, uint32_t stop
) noexcept nogil:
    """Sent again, and why, or only overtaken on the way?"""
    cdef int64_t bound_ns = OUT_OF_ORDER_NS
    if was_acknowledged(peer, p):
        return RETRANSMISSION | SPURIOUS_RETRANSMISSION
    if not can_tell(c, end, p):
        return 0
    if (
        not peer.missed and not peer.duplicates_unsure
        and peer.duplicate_acks >= FAST_RETRANSMISSION_ACKS and peer.last_ack == p.seq
        and p.time_ns - <uint64_t>peer.last_ns < <uint64_t>FAST_RETRANSMISSION_NS
    ):
        return RETRANSMISSION | FAST_RETRANSMISSION
    if p.note & NOTE_SENT_BEFORE:
        return RETRANSMISSION  # its own socket knows; Wireshark can only go by the time
    if c.opening_missed:
        return 0  # it goes by the time of the handshake
    if c.row.initial_rtt_us > 0:  # it is known
        bound_ns = <int64_t>(c.row.initial_rtt_us * 1000)
    # Unsigned: where the capture's clock was set back, nothing is "just after".
    if p.time_ns - <uint64_t>end.next_ns < <uint64_t>bound_ns and stop != end.next_seq:
        return 0 if peer.duplicates_unsure else OUT_OF_ORDER
    return RETRANSMISSION

cdef inline void count_retransmission(
    direction_row *d, const packet_record *p, uint32_t old_bytes, uint32_t bits
) noexcept nogil:
    """What of the segment is old; of a super-packet that goes on with new bytes, the segments that have old ones."""
    cdef int64_t packets = p.segments, payload_bytes = p.payload_bytes
    if old_bytes < p.payload_bytes:
        packets = (<uint64_t>p.segments * old_bytes + p.payload_bytes - 1) // p.payload_bytes
        payload_bytes = old_bytes
    d.retransmissions += packets
    d.retransmitted_bytes += payload_bytes
    d.fast_retransmissions += packets if bits & FAST_RETRANSMISSION else 0
    d.spurious_retransmissions += packets if bits & SPURIOUS_RETRANSMISSION else 0

cdef inline bint is_keep_alive(const endpoint *end, const packet_record *p) noexcept nogil:
    """RFC 9293 section 3.8.4; Linux probes a zero window the same way.

    One byte may also be sent again because it was lost: only the sender's own socket can tell.
    """
    if p.seq != end.next_seq - 1 or p.payload_bytes > 1 or p.flags & (FLAG_SYN | FLAG_FIN):
        return False
    return p.payload_bytes == 0 or not p.note & NOTE_SENT_BEFORE or end.unacked_first < 0

cdef inline bint is_zero_window_probe(const endpoint *end, const endpoint *peer, const packet_record *p) noexcept nogil:
    """RFC 9293 section 3.8.6.1: the next byte, into a window known to be shut.  It does not count as sent."""
    return (
        p.payload_bytes == 1 and end.seen and not p.flags & (FLAG_SYN | FLAG_FIN)
        and peer.ack_seen and peer.last_window == 0
    )
