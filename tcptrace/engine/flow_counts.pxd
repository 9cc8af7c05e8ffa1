# What the kernel counted of each direction that records do not tell.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tcptrace.engine.rows cimport connection, direction_row, endpoint, row_of
from tcptrace.engine.segments cimport segment_pool
from tcptrace.engine.sequence cimport before
from tcptrace.records cimport (
    FLAG_ACK, FLAG_FIN, FLAG_RST, FLAG_SYN, NOTE_BEHIND, NOTE_COUNTED, flow_direction, flow_key, packet_record,
)

# What a row grows by.
cdef struct growth:
    int64_t packets
    int64_t bytes
    int64_t payload_bytes

cdef void begin_counts_here(connection *c, uint32_t since) noexcept nogil
cdef bint is_its_count(connection *c, uint32_t since, uint32_t forgotten) noexcept nogil
cdef packet_record packet_of_flow(const flow_key *key, uint64_t since_ns) noexcept nogil
cdef growth catch_up(connection *c, int x, const flow_direction *counted, int64_t now_ns) noexcept nogil
cdef void nothing_was_lost(connection *c) noexcept nogil
cdef void resume(segment_pool *pool, endpoint *end, const packet_record *p) noexcept nogil
cdef growth take_lost(connection *c, int x, const packet_record *p) noexcept nogil
cdef void mark_gap(connection *c, int64_t now_ns) noexcept nogil

cdef inline bint is_behind(const endpoint *end, const packet_record *p) noexcept nogil:
    """Its first number was passed before, as the kernel saw among what was lost, or as was seen here."""
    if p.note & NOTE_BEHIND:
        return True
    if p.flags & FLAG_SYN and end.syn_seen and p.seq != end.initial_seq:
        return False  # of another connection
    return (end.seen or end.next_told) and before(p.seq, end.next_seq)

cdef inline void add(direction_row *d, const growth *by) noexcept nogil:
    d.packets += by.packets
    d.bytes += by.bytes
    d.payload_bytes += by.payload_bytes

cdef inline void note_gap(connection *c, int x, const packet_record *p) noexcept nogil:
    """Maybe records of either end were lost before this one: then what waits for an answer is not measured."""
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    if end.missed:
        end.duplicates_unsure = True
    if end.missed or peer.missed:
        mark_gap(c, p.time_ns)
    if c.has_gap and is_behind(end, p) and (p.payload_bytes or p.flags & (FLAG_SYN | FLAG_FIN)):
        end.resent_ns = p.time_ns + 1  # which of them is acknowledged is open (Karn's rule)

cdef inline growth take_counts(
    connection *c, int x, const packet_record *p, bint is_unsure, uint32_t forgotten
) noexcept nogil:
    """Add the packet, and what was lost before it, to the row of what end x sends.

    is_unsure: the record does not tell, and some may have been lost.  forgotten: until when others that have left the
    table may have had what was counted.
    """
    cdef growth by = growth(packets=0, bytes=0, payload_bytes=0)
    if is_unsure:
        c.ends[0].missed = c.ends[1].missed = True
    elif p.note & NOTE_COUNTED and p.flow_since and is_its_count(c, p.flow_since, forgotten):
        by = take_lost(c, x, p)
    if is_unsure or c.has_gap or p.note & NOTE_COUNTED:
        note_gap(c, x, p)
    by.packets += p.segments
    by.bytes += p.frame_bytes
    by.payload_bytes += p.payload_bytes
    add(row_of(c, x), &by)
    return by

cdef inline void settle(connection *c, int x, const packet_record *p, bint was_behind) noexcept nogil:
    """Segment p has been analysed: where its end has come to is known again, unless it says nothing of that.

    The gap is over with an acknowledgment of all that the other end has sent while all of this one's is acknowledged.
    """
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    if p.flags & FLAG_RST:
        return
    end.behind = was_behind
    if end.behind:
        return
    # One byte may be a zero-window probe, which does not count as sent, if the window may be shut.
    end.missed = p.payload_bytes == 1 and peer.missed
    if end.missed:
        return
    if not (peer.missed or peer.behind or end.probing or peer.probing) and p.flags & FLAG_ACK and not p.payload_bytes:
        if p.ack == peer.next_seq and peer.ack_seen and peer.acked == end.next_seq and peer.seen:
            c.has_gap = end.unsure = peer.unsure = False
            end.contiguous = end.next_seq
            peer.contiguous = peer.next_seq
