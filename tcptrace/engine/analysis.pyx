"""What one segment says: order and loss, acknowledgment and RTT, window.

Names and conditions are Wireshark's (user's guide, "TCP Analysis") unless a comment says otherwise.
The two ends are x, who sent the segment, and y, its peer.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tcptrace.engine.rows cimport connection, direction_row, endpoint
from tcptrace.engine.rtt cimport add_rtt
from tcptrace.engine.segments cimport (
    add_hole, await_ack, drop_holes_before, fill_hole, segment_pool, take_acked, take_back,
)
from tcptrace.engine.sequence cimport at_or_before, before
from tcptrace.engine.states cimport update_states
from tcptrace.records cimport FLAG_ACK, FLAG_FIN, FLAG_RST, FLAG_SYN, NOTE_FIRST_SEND, OPTION_MSS, OPTION_WINDOW_SCALE, packet_record

from tcptrace import model

if model.ANALYSIS[16:] != ("local_drop",) or model.ANALYSIS[12] != "keep_alive":
    raise ImportError("tcptrace.model and the compiled engine do not match: reinstall tcptrace")

# Wireshark's bound for "late, but not sent again" where the handshake gave no RTT.
cdef int64_t OUT_OF_ORDER_NS = 3_000_000
# RFC 7323 section 2.3: the largest shift, and so the largest window where the scale is not known.
cdef int SCALE_MAX = 14


cdef inline direction_row *row_of(connection *c, int x) noexcept nogil:
    return &c.row.sent if x == 0 else &c.row.received


cdef uint32_t analyse(segment_pool *pool, connection *c, int x, const packet_record *p) noexcept nogil:
    """Take segment p, sent by end x, into the connection; bits of model.ANALYSIS."""
    cdef direction_row *d = row_of(c, x)
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    cdef uint32_t found = 0
    if p.flags & FLAG_RST:
        if reset_counts(end, peer, row_of(c, 1 - x), p):
            c.reset = True
        d.window = p.window
    else:
        if p.flags & FLAG_SYN:
            take_syn(c, end, d, p)
        found = duplicate_or_zero_window(end, peer, p)
        found |= take_range(pool, c, x, p)
        if p.flags & FLAG_ACK:
            take_ack(pool, c, x, p)
        if p.flags & FLAG_FIN:
            take_fin(end, peer, p)
        take_window(c, end, d, p)
        end.seen = True
    end.keep_alive_last = (found & KEEP_ALIVE) != 0
    count_findings(d, found, p)
    update_states(c)
    return found


cdef void count_findings(direction_row *d, uint32_t found, const packet_record *p) noexcept nogil:
    """Segments out of order count as wire packets, the others as one; retransmissions are counted where found."""
    if found & OUT_OF_ORDER:
        d.out_of_order += p.segments
    if found & DUPLICATE_ACK:
        d.duplicate_acks += 1
    if found & ZERO_WINDOW:
        d.zero_windows += 1
    if found & KEEP_ALIVE:
        d.keep_alives += 1
    if found & PREVIOUS_NOT_CAPTURED:
        d.gaps += 1


cdef void take_syn(connection *c, endpoint *end, direction_row *d, const packet_record *p) noexcept nogil:
    """The first SYN of this end sets where its sequence numbers begin and what it offers."""
    if end.syn_seen:
        end.syn_count = min(<int>end.syn_count + 1, 255)
        if p.seq == end.initial_seq and not p.flags & FLAG_ACK:
            c.reset = False  # refused, and tried again with the same number, as some hosts do
        return
    end.syn_seen = True
    end.syn_count = 1
    end.syn_ns = p.time_ns
    end.initial_seq = p.seq
    if p.options & OPTION_MSS:
        d.mss_bytes = p.mss
    if p.options & OPTION_WINDOW_SCALE:
        end.scale_offered = True
        d.window_scale = p.window_scale


cdef void take_fin(endpoint *end, const endpoint *peer, const packet_record *p) noexcept nogil:
    """The first FIN of this end; its ACK may have been seen before it."""
    if end.fin_seen:
        return
    end.fin_seen = True
    end.fin_seq = p.seq + p.payload_bytes
    end.closed_second = peer.fin_acked
    end.fin_acked = peer.ack_seen and before(end.fin_seq, peer.acked) and not before(end.next_seq, peer.acked)


cdef bint reset_counts(
    const endpoint *end, const endpoint *peer, const direction_row *peer_row, const packet_record *p
) noexcept nogil:
    """Would the peer take this reset?  RFC 9293 sections 3.10.7.3 (in SYN-SENT) and 3.10.7.4 (within its window)."""
    cdef int64_t window_bytes
    if peer.syn_seen and not peer.ack_seen and not end.seen:
        return p.flags & FLAG_ACK and before(peer.initial_seq, p.ack) and at_or_before(p.ack, peer.next_seq)
    if not peer.ack_seen or (end.seen and p.seq == end.next_seq):
        return True
    window_bytes = peer_row.window_bytes
    if window_bytes < 0:
        window_bytes = <int64_t>peer.last_window << SCALE_MAX
    return at_or_before(peer.acked, p.seq) and at_or_before(p.seq, peer.acked + <uint32_t>window_bytes)


cdef uint32_t duplicate_or_zero_window(endpoint *end, endpoint *peer, const packet_record *p) noexcept nogil:
    """Findings that compare with the same end's last segment, so before that is replaced."""
    cdef uint32_t found = 0
    if p.flags & (FLAG_SYN | FLAG_FIN):
        return 0
    if p.window == 0:
        found |= ZERO_WINDOW
    elif (
        p.payload_bytes == 0
        and p.flags & FLAG_ACK
        and end.ack_seen
        and p.ack == end.acked
        and p.seq == end.next_seq
        and p.window == end.last_window
        and not peer.keep_alive_last
    ):
        found |= DUPLICATE_ACK
    return found


cdef uint32_t take_range(segment_pool *pool, connection *c, int x, const packet_record *p) noexcept nogil:
    """Where the segment's bytes (SYN and FIN count one each) stand among those already seen."""
    cdef endpoint *end = &c.ends[x]
    cdef uint32_t length = p.payload_bytes + (1 if p.flags & FLAG_SYN else 0) + (1 if p.flags & FLAG_FIN else 0)
    cdef uint32_t stop = p.seq + length
    cdef uint32_t found = 0
    if not end.seen:
        end.next_seq = p.seq
    elif p.note & NOTE_FIRST_SEND and before(p.seq, end.next_seq):
        row_of(c, x).local_drops += take_back(pool, end, p.seq)
        end.next_seq = p.seq
    elif is_keep_alive(end, p):
        return KEEP_ALIVE
    if is_zero_window_probe(end, &c.ends[1 - x], p):
        end.probing = True
        return 0
    if before(end.next_seq, p.seq):
        found = PREVIOUS_NOT_CAPTURED
        add_hole(pool, end, end.next_seq, p.seq, p.time_ns)
        end.next_seq = p.seq
    elif length > 0 and before(p.seq, end.next_seq):
        found = late_segment(pool, c, end, p, stop)
        if found == RETRANSMISSION:
            count_retransmission(row_of(c, x), p, end.next_seq - p.seq)
        end.ambiguous = True
        end.ambiguous_until = end.next_seq if before(stop, end.next_seq) else stop
    if before(end.next_seq, stop):
        await_ack(pool, end, p.seq, stop, p.segments, p.time_ns)
        end.next_seq = stop
    return found


cdef void count_retransmission(direction_row *d, const packet_record *p, uint32_t old_bytes) noexcept nogil:
    """What of the segment is old; of a super-packet that goes on with new bytes, the segments that have old ones."""
    if old_bytes >= p.payload_bytes:
        d.retransmissions += p.segments
        d.retransmitted_bytes += p.payload_bytes
        return
    d.retransmissions += (<uint64_t>p.segments * old_bytes + p.payload_bytes - 1) // p.payload_bytes
    d.retransmitted_bytes += old_bytes


cdef inline bint is_keep_alive(const endpoint *end, const packet_record *p) noexcept nogil:
    """RFC 9293 section 3.8.4; Linux probes a zero window the same way.

    One byte that still waits for its ACK is not taken for one (Wireshark does).
    """
    if p.seq != end.next_seq - 1 or p.flags & (FLAG_SYN | FLAG_FIN):
        return False
    return p.payload_bytes == 0 or (p.payload_bytes == 1 and end.unacked_first < 0)


cdef inline bint is_zero_window_probe(const endpoint *end, const endpoint *peer, const packet_record *p) noexcept nogil:
    """RFC 9293 section 3.8.6.1: the next byte, into a window known to be shut.  It does not count as sent."""
    return (
        p.payload_bytes == 1 and end.seen and p.seq == end.next_seq and not p.flags & (FLAG_SYN | FLAG_FIN)
        and peer.ack_seen and peer.last_window == 0
    )


cdef uint32_t late_segment(
    segment_pool *pool, connection *c, endpoint *end, const packet_record *p, uint32_t stop
) noexcept nogil:
    """Sent again, or only overtaken on the way?

    Bytes seen before are a retransmission, always.  Bytes never seen are out of order when they come within
    a round trip of the segment that overtook them: too soon for having been asked for.  (Wireshark goes by
    that time alone, also for bytes it has seen.)
    """
    cdef int64_t overtaken_ns = fill_hole(pool, end, p.seq, stop)
    cdef int64_t bound_ns = OUT_OF_ORDER_NS
    if overtaken_ns < 0:
        return RETRANSMISSION
    if c.row.handshake_rtt_us == c.row.handshake_rtt_us:
        bound_ns = <int64_t>(c.row.handshake_rtt_us * 1000)
    return OUT_OF_ORDER if <int64_t>p.time_ns - overtaken_ns < bound_ns else RETRANSMISSION


cdef void take_ack(segment_pool *pool, connection *c, int x, const packet_record *p) noexcept nogil:
    """The segment acknowledges what y has sent up to p.ack."""
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    cdef bint first = not end.ack_seen
    cdef bint clean, unseen
    cdef int64_t sent_ns
    if end.syn_seen and not p.flags & FLAG_SYN and (not peer.seen or not peer.syn_seen):
        end.syn_acked = True  # it goes on as if its SYN was answered, so it was, unseen
    # An earlier ACK of bytes that nobody was seen to send holds no later one back.
    if not first and not before(end.acked, p.ack) and not before(peer.next_seq, end.acked):
        return
    clean = not (peer.ambiguous and (first or before(end.acked, peer.ambiguous_until)))
    end.ack_seen = True
    end.acked = p.ack
    if not peer.seen:
        return
    if peer.probing and before(peer.next_seq, p.ack):
        peer.next_seq += 1  # the probe's byte was taken after all
    peer.probing = False
    unseen = before(peer.next_seq, p.ack)  # Wireshark's "ACKed unseen segment"
    sent_ns = take_acked(pool, peer, p.ack)
    # Karn's rule (RFC 6298 section 3), for all that was under way when something was sent again or came late.
    if sent_ns >= 0 and clean and not unseen:
        add_rtt(row_of(c, 1 - x), <int64_t>p.time_ns - sent_ns)
    if peer.syn_seen and not peer.syn_acked and before(peer.initial_seq, p.ack):
        peer.syn_acked = True
        handshake_done(c, end, peer, p)
    if unseen:
        return
    if peer.ambiguous and not before(p.ack, peer.ambiguous_until):
        peer.ambiguous = False
    drop_holes_before(pool, peer, p.ack)
    if peer.fin_seen and before(peer.fin_seq, p.ack):
        peer.fin_acked = True


cdef void handshake_done(connection *c, endpoint *end, endpoint *peer, const packet_record *p) noexcept nogil:
    """SYN to the ACK of the SYN-ACK, where neither was sent twice (Wireshark's "initial RTT")."""
    if p.flags & FLAG_SYN or end != &c.ends[0]:
        return
    if end.syn_seen and end.syn_count == 1 and peer.syn_count == 1:
        c.row.handshake_rtt_us = (<int64_t>p.time_ns - end.syn_ns) / 1000.0


cdef void take_window(connection *c, endpoint *end, direction_row *d, const packet_record *p) noexcept nogil:
    """RFC 7323 section 2: scaled when both SYNs offered it, never on a SYN itself; not known without both SYNs."""
    cdef int shift = 0
    cdef int64_t window_bytes
    end.last_window = p.window
    d.window = p.window
    if not p.flags & FLAG_SYN:
        if not (c.ends[0].syn_seen and c.ends[1].syn_seen):
            d.window_bytes = 0 if p.window == 0 else -1
            if p.window == 0:
                d.window_min_bytes = 0
            return
        if c.ends[0].scale_offered and c.ends[1].scale_offered:
            shift = d.window_scale
    window_bytes = <int64_t>p.window << shift
    d.window_bytes = window_bytes
    if d.window_min_bytes < 0 or window_bytes < d.window_min_bytes:
        d.window_min_bytes = window_bytes
    d.window_max_bytes = max(d.window_max_bytes, window_bytes)
