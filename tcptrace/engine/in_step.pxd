# The short way of most segments: nothing of either end is open, and this is what comes next.
#
# It comes to the same as analyse(), most of whose steps have nothing to do then: what header prediction (RFC 7323
# section 5.6) is to a receiver.
from libc.stdint cimport int64_t, uint32_t

from tcptrace.engine.acknowledgment cimport measure
from tcptrace.engine.analysis cimport ECN_CONGESTION_EXPERIENCED, take_timestamp
from tcptrace.engine.repetition cimport remember_last
from tcptrace.engine.rows cimport connection, direction_row, endpoint, finding, row_of
from tcptrace.engine.segments cimport await_ack
from tcptrace.engine.sequence cimport at_or_before, before
from tcptrace.engine.sequence_space cimport note_in_flight
from tcptrace.engine.shared_memory cimport shared_memory
from tcptrace.engine.windows cimport note_window, scale_of
from tcptrace.records cimport FLAG_ACK, FLAG_PSH, FLAG_SYN, OPTION_SACK, OPTION_TIMESTAMPS, packet_record

cdef inline void note_whether_in_step(connection *c) noexcept nogil:
    """After the long way: whether the next segment may go the short one."""
    c.in_step = not c.has_gap and (not c.syn_without_ack or c.row.initial_rtt_us > 0)
    if c.in_step:
        c.ends[0].scale = scale_of(c, 0)
        c.ends[1].scale = scale_of(c, 1)
        c.in_step = is_in_step(&c.row.sent, &c.ends[0]) and is_in_step(&c.row.received, &c.ends[1])

cdef inline bint is_in_step(const direction_row *d, const endpoint *end) noexcept nogil:
    """Nothing of this end is open, but for bytes that wait for their acknowledgment."""
    if not end.ack_seen or end.fin_seen:
        return False
    if end.syn_seen and not end.syn_acked:
        return False
    if end.last_unsure or end.duplicates_unsure or end.probing or end.hole_count or end.contiguous != end.next_seq:
        return False
    # Of a SYN, or after a reset that was not taken, or where the scale was not known before, the window may be another one.
    return not end.last_flags & FLAG_SYN and d.window_bytes == scaled(end, end.last_window)

cdef inline int64_t scaled(const endpoint *end, int64_t window) noexcept nogil:
    return window << end.scale if end.scale >= 0 else -1

cdef inline bint take_in_step(
    shared_memory *shared, connection *c, int x, const packet_record *p, finding *found
) noexcept nogil:
    """Take segment p, sent by end x, if there is nothing to find in it; False, and nothing changed, if there may be."""
    cdef direction_row *d = row_of(c, x)
    cdef direction_row *peer_row = row_of(c, 1 - x)
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    if not c.in_step or not comes_next(end, peer, peer_row, p):
        return False
    if p.payload_bytes:
        await_ack(&shared.segments, end, p.seq, p.seq + p.payload_bytes, p.segments, p.time_ns)
        end.next_seq = end.contiguous = p.seq + p.payload_bytes
        end.next_ns = p.time_ns
        note_in_flight(d, end, peer, found)
    end.sacked_bytes = 0
    if p.ack != end.acked:
        end.acked = p.ack
        measure(shared, c, 1 - x, p, found)
        peer_row.in_flight_bytes = <int64_t>(peer.next_seq - p.ack)
    if p.window != d.window:
        note_window(d, p.window, scaled(end, p.window))
    if p.options & OPTION_TIMESTAMPS:
        take_timestamp(end, p)
    remember_last(end, p, 0)
    return True

cdef inline bint comes_next(
    const endpoint *end, const endpoint *peer, const direction_row *peer_row, const packet_record *p
) noexcept nogil:
    """New bytes or a new acknowledgment, exactly what follows, and none of what analyse() has a name for."""
    cdef uint32_t stop = p.seq + p.payload_bytes
    if p.flags & ~FLAG_PSH != FLAG_ACK or p.options & OPTION_SACK or p.window == 0:
        return False
    if p.traffic_class & 3 == ECN_CONGESTION_EXPERIENCED:
        return False
    if p.seq != end.next_seq or before(p.ack, end.acked) or before(peer.next_seq, p.ack):
        return False
    if not p.payload_bytes:
        return p.ack != end.last_ack
    if at_or_before(stop, p.seq):  # more than there are numbers for
        return False
    if peer.last_window == 0 or at_or_before(stop, peer.last_ack):  # maybe a zero-window probe; had been acknowledged
        return False
    return peer_row.window_bytes < 0 or stop != peer.last_ack + <uint32_t>peer_row.window_bytes
