"""Counts that lost records cannot touch, and what a gap of ours forbids to say.

What was lost of a connection the kernel has counted (struct flow_count), and each record written after a loss says how
far those counts have come, for both directions.  What they have risen by counts, and until both ends are in step again
nothing is told from what seems to be missing.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tcptrace.engine.rows cimport connection, endpoint, row_of
from tcptrace.engine.segments cimport drop_holes_before, segment_pool
from tcptrace.engine.sequence cimport before
from tcptrace.records cimport FLOW_TIME, flow_direction, flow_key, packet_record

# A record may be counted as lost after one that was written later on another CPU: by a tick, and some.
cdef uint32_t BATCH_TIME = FLOW_TIME(100_000_000)


cdef void begin_counts_here(connection *c, uint32_t since) noexcept nogil:
    """What was counted since then, but before this new row, was another connection's."""
    c.flow_known = True
    c.flow_since = since
    c.ends[0].counts_begin_here = c.ends[1].counts_begin_here = True


cdef growth take_lost(connection *c, int x, const packet_record *p) noexcept nogil:
    """What was lost of end x since the counts were last told; of its peer, that something was."""
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    if <int32_t>(p.reverse_records - <uint32_t>(peer.flow_count >> 32)) > 0:
        peer.missed = peer.duplicates_unsure = True
    if end.counts_begin_here:
        count_from_here(c, end, p.flow_count, p.flow_bytes, p.flow_payload_bytes)
    return rise(c, end, p.flow_count, p.flow_bytes, p.flow_payload_bytes)


cdef bint is_its_count(connection *c, uint32_t since, uint32_t forgotten) noexcept nogil:
    """Whether counts that began at `since` are of this connection; if they are not those so far, they begin anew."""
    cdef int x
    cdef bint is_older
    if c.flow_known and since == c.flow_since:
        return True
    if c.flow_known and <int32_t>(since - c.flow_since) < 0:
        return False
    # Another connection between the same ports may have had what was counted before this one began.
    is_older = <int32_t>(since - forgotten) <= 0 and <int32_t>(since + BATCH_TIME - FLOW_TIME(c.row.start_ns)) < 0
    c.flow_known = True
    c.flow_since = since
    for x in range(2):
        c.ends[x].flow_count = c.ends[x].flow_bytes = c.ends[x].flow_payload_bytes = 0
        c.ends[x].counts_begin_here = is_older
    return True


cdef inline void count_from_here(
    connection *c, endpoint *end, uint64_t count, uint64_t bytes, uint64_t payload_bytes
) noexcept nogil:
    """What was counted before is not of this row; but part of it may be."""
    end.counts_begin_here = False
    end.flow_count, end.flow_bytes, end.flow_payload_bytes = count, bytes, payload_bytes
    end.missed = end.duplicates_unsure = end.missed or count > 0
    c.base_unsure = c.base_unsure or count > 0


cdef growth rise(
    connection *c, endpoint *end, uint64_t count, uint64_t bytes, uint64_t payload_bytes
) noexcept nogil:
    """From what is known to these counts, each of which another CPU may have had its share in already."""
    cdef growth by = growth(packets=0, bytes=0, payload_bytes=0)
    cdef int64_t ahead = count - end.flow_count
    if ahead > 0:
        by.packets = <uint32_t>(count - end.flow_count)
        c.row.records_lost += ahead >> 32
        end.flow_count = count
        end.missed = True
    by.bytes = bytes - end.flow_bytes if bytes > end.flow_bytes else 0
    by.payload_bytes = payload_bytes - end.flow_payload_bytes if payload_bytes > end.flow_payload_bytes else 0
    end.flow_bytes += by.bytes
    end.flow_payload_bytes += by.payload_bytes
    return by


cdef inline bint is_opening(const connection *c) noexcept nogil:
    """Some of its handshake was seen, and not yet all of it."""
    return c.syn_without_ack or ((c.ends[0].syn_seen or c.ends[1].syn_seen) and not c.row.initial_rtt_us > 0)


cdef void mark_gap(connection *c, int64_t now_ns) noexcept nogil:
    c.has_gap = True
    c.intact = c.in_step = False
    if c.row.recent_total == 0 or is_opening(c):
        c.opening_missed = True
        c.syn_without_ack = False
    # Nor what went out with this one: a coarse clock may give all of them one time.
    c.ends[0].resent_ns = max(c.ends[0].resent_ns, now_ns + 1)
    c.ends[1].resent_ns = max(c.ends[1].resent_ns, now_ns + 1)


cdef void nothing_was_lost(connection *c) noexcept nogil:
    """What was unsure of this connection was for the sake of others."""
    cdef int x
    c.has_gap = False
    c.intact = True
    for x in range(2):
        c.ends[x].missed = c.ends[x].unsure = c.ends[x].behind = False
        c.ends[x].contiguous = c.ends[x].next_seq


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


cdef growth catch_up(connection *c, int x, const flow_direction *counted, int64_t now_ns) noexcept nogil:
    """What the kernel has counted of end x, all records before now_ns having been seen."""
    cdef endpoint *end = &c.ends[x]
    cdef uint64_t known = end.flow_count
    cdef growth by
    if end.counts_begin_here:
        count_from_here(c, end, counted.count, counted.bytes, counted.payload_bytes)
    by = rise(c, end, counted.count, counted.bytes, counted.payload_bytes)
    if end.missed and counted.passed and (not (end.seen or end.next_told) or before(end.next_seq, counted.next_seq)):
        end.next_seq = counted.next_seq  # what was sent by then is what came and what was lost
        end.next_told = True
    add(row_of(c, x), &by)
    if end.flow_count != known:
        end.duplicates_unsure = True
        mark_gap(c, now_ns)
        c.row.changed = 1
    return by


cdef void resume(segment_pool *pool, endpoint *end, const packet_record *p) noexcept nogil:
    """Go on at p after a gap of ours: what was jumped over was sent, and may or may not come again."""
    if before(end.next_seq, p.seq) or not is_behind(end, p):
        end.next_seq = p.seq
    if end.hole_count:
        drop_holes_before(pool, end, end.next_seq)
    end.contiguous = end.next_seq
    end.unsure = True
    end.unsure_until = end.next_seq
