"""Counts that lost records cannot touch, and what a gap of ours forbids to say.

Each record says how far the kernel's counts of its direction have come (struct flow_direction), and how many records
the other direction has had.  What they have risen by more than by the record itself was not seen: it counts, and until
both ends are in step again nothing is told from what seems to be missing.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tcptrace.engine.rows cimport connection, direction_row, endpoint, row_of
from tcptrace.engine.segments cimport drop_holes_before, segment_pool
from tcptrace.engine.sequence cimport before
from tcptrace.records cimport (
    FLAG_ACK, FLAG_FIN, FLAG_RST, FLAG_SYN, FLOW_RECORD, FLOW_TIME, NOTE_BEHIND, flow_direction, flow_key, packet_record,
)


cdef void begin_counts_here(connection *c) noexcept nogil:
    """For a new row, whose memory is zero: another one that has left the table may have had what was counted before."""
    c.ends[0].counts_begin_here = c.ends[1].counts_begin_here = True


cdef growth take_counts(connection *c, int x, const packet_record *p, int64_t lost_ns) noexcept nogil:
    """Add the packet, and what was counted before it without having been seen, to the row of what end x sends.

    lost_ns: up to when records were lost.  What end x has had later is complete.
    """
    cdef growth by = growth(packets=p.segments, bytes=p.frame_bytes, payload_bytes=p.payload_bytes)
    if p.flow_count and (p.flow_since == c.flow_since or count_other(c, p.flow_since, lost_ns > 0)):
        by = take_difference(c, x, p, lost_ns)
    add(row_of(c, x), &by)
    return by


cdef growth take_difference(connection *c, int x, const packet_record *p, int64_t lost_ns) noexcept nogil:
    """From what is known of the counts to what the record says of them."""
    cdef endpoint *end = &c.ends[x]
    cdef growth by = growth(packets=p.segments, bytes=p.frame_bytes, payload_bytes=p.payload_bytes)
    cdef int64_t ahead
    if end.counts_begin_here:
        count_from_here(end, p, lost_ns > 0)
    ahead = p.flow_count - end.flow_count
    if ahead > 0:
        by = rise(end, p.flow_count, p.flow_bytes, p.flow_payload_bytes)
        if lost_ns == 0 or end.last_ns > lost_ns:
            end.early_records += (ahead >> 32) - 1
        else:
            end.unseen_records += (ahead >> 32) - 1
            c.row.records_lost += (ahead >> 32) - 1
            end.missed = end.missed or ahead >> 32 > 1
        if lost_ns > 0:
            note_gap(c, x, p, lost_ns)
    elif end.early_records > 0 or end.unseen_records > 0:  # counted with a later one, that came before it
        by = rise(end, end.flow_count, p.flow_bytes, p.flow_payload_bytes)
        take_straggler(c, end)
    return by


cdef inline void take_straggler(connection *c, endpoint *end) noexcept nogil:
    if end.early_records > 0:
        end.early_records -= 1
    else:
        end.unseen_records -= 1
        c.row.records_lost -= 1


cdef bint count_other(connection *c, uint32_t since, bint lossy) noexcept nogil:
    """The kernel had forgotten the flow, or takes it for a new one, its SYN lost; False if `since` is the older one."""
    cdef int x
    if <int32_t>(since - c.flow_since) < 0:
        return False
    c.flow_since = since
    for x in range(2):
        c.ends[x].flow_count = c.ends[x].flow_bytes = c.ends[x].flow_payload_bytes = 0
        c.ends[x].unseen_records = c.ends[x].early_records = 0
        c.ends[x].counts_begin_here = False
        c.ends[x].missed = c.ends[x].duplicates_unsure = lossy
    return True


cdef inline void count_from_here(endpoint *end, const packet_record *p, bint lossy) noexcept nogil:
    """With this packet its row begins."""
    end.counts_begin_here = False
    end.flow_count = p.flow_count - (FLOW_RECORD + p.segments)
    end.flow_bytes = p.flow_bytes - p.frame_bytes
    end.flow_payload_bytes = p.flow_payload_bytes - p.payload_bytes
    end.missed = end.duplicates_unsure = lossy and end.flow_count > 0


cdef inline growth rise(endpoint *end, uint64_t count, uint64_t bytes, uint64_t payload_bytes) noexcept nogil:
    """From what is known to these counts, each of which another CPU may have had its share in already."""
    cdef growth by
    by.packets = <uint32_t>(count - end.flow_count)
    by.bytes = bytes - end.flow_bytes if bytes > end.flow_bytes else 0
    by.payload_bytes = payload_bytes - end.flow_payload_bytes if payload_bytes > end.flow_payload_bytes else 0
    end.flow_count = count
    end.flow_bytes += by.bytes
    end.flow_payload_bytes += by.payload_bytes
    return by


cdef inline void add(direction_row *d, const growth *by) noexcept nogil:
    d.packets += by.packets
    d.bytes += by.bytes
    d.payload_bytes += by.payload_bytes


cdef inline void note_gap(connection *c, int x, const packet_record *p, int64_t lost_ns) noexcept nogil:
    """Maybe records of either end were lost before this one: then what waits for an answer is not measured."""
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    cdef int32_t missing_of_peer = p.reverse_records - <uint32_t>(peer.flow_count >> 32)
    if end.missed:
        end.duplicates_unsure = True
    if missing_of_peer > 0 and peer.last_ns <= lost_ns:
        peer.missed = peer.duplicates_unsure = True
    if end.missed or peer.missed:
        mark_gap(c, p.time_ns)
    if c.has_gap and p.note & NOTE_BEHIND and (p.payload_bytes or p.flags & (FLAG_SYN | FLAG_FIN)):
        end.resent_ns = p.time_ns + 1  # which of them is acknowledged is open (Karn's rule)


cdef inline void mark_gap(connection *c, int64_t now_ns) noexcept nogil:
    c.has_gap = True
    if c.row.recent_total == 0 or c.syn_without_ack:
        c.opening_missed = True
        c.syn_without_ack = False
    # Nor what went out with this one: a coarse clock may give all of them one time.
    c.ends[0].resent_ns = max(c.ends[0].resent_ns, now_ns + 1)
    c.ends[1].resent_ns = max(c.ends[1].resent_ns, now_ns + 1)


cdef void settle(connection *c, int x, const packet_record *p) noexcept nogil:
    """Segment p has been analysed: where its end has come to is known again, unless it says nothing of that.

    The gap is over with an acknowledgment of all that the other end has sent while all of this one's is acknowledged.
    """
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    if p.flags & FLAG_RST:
        return
    end.behind = p.note & NOTE_BEHIND != 0
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


cdef packet_record packet_of_flow(const flow_key *key, uint64_t since_ns) noexcept nogil:
    """As if the end with the lower port had sent a packet when the flow began."""
    cdef packet_record p
    memset(&p, 0, sizeof(p))
    p.time_ns = since_ns
    p.flow_since = FLOW_TIME(since_ns)
    memcpy(p.src_addr, key.lower_addr, 16)
    memcpy(p.dst_addr, key.higher_addr, 16)
    p.src_port = key.lower_port
    p.dst_port = key.higher_port
    p.ip_version = key.ip_version
    return p


cdef growth catch_up(connection *c, int x, const flow_direction *counted) noexcept nogil:
    """What the kernel has counted of end x, all records before it having been seen."""
    cdef endpoint *end = &c.ends[x]
    cdef int64_t ahead = counted.count - end.flow_count
    cdef growth by = growth(packets=0, bytes=0, payload_bytes=0)
    if ahead < 0 or end.counts_begin_here:
        return by
    by = rise(end, counted.count, counted.bytes, counted.payload_bytes)
    add(row_of(c, x), &by)
    if ahead == 0:
        return by  # what was read of it the last time may have been between its count and its bytes
    end.unseen_records += ahead >> 32
    c.row.records_lost += ahead >> 32
    end.missed = True
    c.has_gap = True
    c.row.changed = 1
    return by


cdef void resume(segment_pool *pool, endpoint *end, const packet_record *p) noexcept nogil:
    """Go on at p after a gap of ours: what was jumped over was sent, and may or may not come again."""
    if before(end.next_seq, p.seq) or not p.note & NOTE_BEHIND:
        end.next_seq = p.seq
    if end.hole_count:
        drop_holes_before(pool, end, end.next_seq)
    end.contiguous = end.next_seq
    end.unsure = True
    end.unsure_until = end.next_seq
