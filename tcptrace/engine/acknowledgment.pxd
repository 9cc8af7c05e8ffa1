# Acknowledgments: round-trip times, what is no longer in flight, what was acknowledged without having been seen.
from libc.stdint cimport int64_t, uint32_t

from tcptrace.engine.findings cimport ACKED_UNSEEN, DUPLICATE_SACK
from tcptrace.engine.percentiles cimport add_sample
from tcptrace.engine.rows cimport connection, direction_row, endpoint, finding, row_of
from tcptrace.engine.rtt cimport add_rtt
from tcptrace.engine.segments cimport acked_range, drop_holes_before, take_acked
from tcptrace.engine.sequence cimport at_or_before, before
from tcptrace.engine.shared_memory cimport shared_memory
from tcptrace.records cimport FLAG_ACK, FLAG_RST, FLAG_SYN, packet_record

cdef inline uint32_t take_ack(
    shared_memory *shared, connection *c, int x, const packet_record *p, finding *found
) noexcept nogil:
    """The segment acknowledges what y has sent up to p.ack; bits of engine.findings."""
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    cdef bint first = not end.ack_seen
    cdef bint unseen
    cdef uint32_t bits = acked_unseen(end, peer, p)
    if peer.unsure and at_or_before(peer.unsure_until, p.ack):
        peer.unsure = False  # all of that has arrived: what comes again was sent again
    if end.syn_seen and not p.flags & FLAG_SYN and (not peer.seen or not peer.syn_seen):
        end.syn_acked = True  # it goes on as if its SYN was answered, so it was, unseen
    # An earlier ACK of bytes that nobody was seen to send holds no later one back.
    if not first and not before(end.acked, p.ack) and not (peer.seen and before(peer.next_seq, end.acked)):
        return bits
    end.ack_seen = True
    end.acked = p.ack
    if not peer.seen:
        return bits
    if peer.probing and before(peer.next_seq, p.ack):
        peer.next_seq += 1  # the probe's byte was taken after all
    peer.probing = False
    unseen = before(peer.next_seq, p.ack)
    measure(shared, c, 1 - x, p, found)
    if peer.syn_seen and not peer.syn_acked and before(peer.initial_seq, p.ack):
        peer.syn_acked = True
        handshake_done(c, end, peer, p)
    if unseen:
        return bits
    if peer.hole_count:
        drop_holes_before(&shared.segments, peer, p.ack)
    if peer.fin_seen and before(peer.fin_seq, p.ack):
        peer.fin_acked = True
    row_of(c, 1 - x).in_flight_bytes = -1 if peer.missed else <int64_t>(peer.next_seq - p.ack)
    return bits

cdef inline uint32_t take_reset_ack(
    shared_memory *shared, connection *c, int x, const packet_record *p, finding *found
) noexcept nogil:
    """A reset that acknowledges the SYN it refuses (RFC 9293 section 3.10.7.1) is an answer like another."""
    cdef endpoint *peer = &c.ends[1 - x]
    if peer.missed:
        return 0
    if peer.seen and p.ack == peer.next_seq:
        measure(shared, c, 1 - x, p, found)
    return acked_unseen(&c.ends[x], peer, p)

cdef inline void measure(
    shared_memory *shared, connection *c, int y, const packet_record *p, finding *found
) noexcept nogil:
    """The RTT of the last segment that p acknowledges, where that can be told.

    Not of what was under way when something was sent again: which transmission the ACK answers is open (Karn's
    rule, RFC 6298 section 3).  Not of what had overtaken late bytes: it waited for them.
    """
    cdef endpoint *end = &c.ends[y]
    cdef acked_range acked = take_acked(&shared.segments, end, p.ack)
    cdef int64_t rtt_ns
    if not acked.exact or acked.seen_ns < end.resent_ns:
        return
    if acked.seen_ns < end.overtaken_ns and not acked.late and before(end.overtaken_from, p.ack):
        return
    rtt_ns = <int64_t>p.time_ns - acked.seen_ns
    if rtt_ns < 0:  # the capture's clock was set back
        return
    add_rtt(row_of(c, y), end, rtt_ns)
    add_sample(&shared.histograms, &end.rtts, rtt_ns)
    found.rtt_us = rtt_ns / 1000.0

cdef inline uint32_t acked_unseen(const endpoint *end, endpoint *peer, const packet_record *p) noexcept nogil:
    """An acknowledgment past what was seen of y without a gap.

    Of an end that is not seen at all it is a finding once, until that end's own acknowledgment moves.
    """
    cdef bint is_news = peer.duplicate_acks == 0 and not peer.told_unseen
    if end.missed or peer.missed or peer.duplicates_unsure:  # by us, or said before by what we missed
        peer.contiguous = peer.next_seq
        peer.told_unseen = True
        return 0
    if not peer.seen or not before(peer.contiguous, p.ack):
        return 0
    if before(peer.contiguous, peer.next_seq):
        peer.contiguous = peer.next_seq
        return ACKED_UNSEEN
    peer.told_unseen = True
    peer.duplicate_acks = 0
    return ACKED_UNSEEN if is_news else 0

cdef inline uint32_t take_sack(endpoint *end, direction_row *d, const packet_record *p) noexcept nogil:
    """RFC 2018; a first block below the ACK, or within the second one, is of bytes received twice (RFC 2883)."""
    cdef int first = 0, i
    cdef uint32_t bits = 0
    d.sacks += 1
    end.sacked_bytes = 0
    if p.sack_count == 0:
        return 0
    if at_or_before(p.sack_right[0], p.ack) or (
        p.sack_count > 1 and at_or_before(p.sack_left[1], p.sack_left[0])
        and at_or_before(p.sack_right[0], p.sack_right[1])
    ):
        bits = DUPLICATE_SACK
        first = 1
    for i in range(first, p.sack_count):
        if before(p.sack_left[i], p.sack_right[i]) and at_or_before(p.ack, p.sack_left[i]):
            end.sacked_bytes += p.sack_right[i] - p.sack_left[i]
    return bits

cdef inline void handshake_done(connection *c, endpoint *end, endpoint *peer, const packet_record *p) noexcept nogil:
    """SYN to the ACK of the SYN-ACK, where neither was sent twice."""
    if p.flags & FLAG_SYN or end != &c.ends[0] or c.opening_missed:
        return
    if end.syn_seen and end.syn_count == 1 and peer.syn_count == 1:
        c.row.handshake_rtt_us = (<int64_t>p.time_ns - end.syn_ns) / 1000.0

cdef inline void note_initial_rtt(connection *c, int x, const packet_record *p) noexcept nogil:
    """Wireshark's: from the last SYN to the first segment that acknowledges and is no SYN, whoever sends it."""
    if c.row.initial_rtt_us > 0 or p.flags & (FLAG_SYN | FLAG_ACK) != FLAG_ACK:
        return
    if p.flags & FLAG_RST and x == c.syn_from:
        return  # giving up is no answer
    if <int64_t>p.time_ns < c.recent_syn_ns:  # the capture's clock was set back
        c.syn_without_ack = False
        return
    c.row.initial_rtt_us = (<int64_t>p.time_ns - c.recent_syn_ns) / 1000.0
