# Ranges of sequence numbers, kept in linked lists over one pool that all connections share.
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t
from libc.stdlib cimport realloc

from tcptrace.engine.rows cimport endpoint
from tcptrace.engine.sequence cimport at_or_before, before

cdef struct segment:
    uint32_t start
    uint32_t end
    uint16_t packets        # wire packets, of what waits for an acknowledgment
    uint16_t late           # higher bytes were seen before it
    int32_t next            # -1 at the end
    int64_t time_ns

# What an acknowledgment took off the list.
cdef struct acked_range:
    int64_t seen_ns         # when the last of it was seen; -1: it took nothing
    bint late               # that one came late
    bint exact              # the acknowledgment ends where one of the segments does

cdef struct segment_pool:
    segment *items
    int32_t count           # handed out at some time
    int32_t capacity
    int32_t limit           # capacity never exceeds this
    int32_t free            # first of the list of returned ones, -1 if empty
    int64_t dropped         # segments not followed because a limit was reached

cdef enum:
    # One direction's share, so that a connection whose ACKs are never seen cannot take the pool
    # (Wireshark stops at 10,000 too).
    UNACKED_MAX = 10_000
    # Holes past this are not told apart: what fills them counts as retransmission.
    HOLES_MAX = 64
    # So far into what waits for an ACK is looked for the place of a late segment.
    LATE_STEPS_MAX = 256
    NONE = -1

cdef inline int32_t take(segment_pool *pool) noexcept nogil:
    """A segment of the pool, or -1 when it has reached its limit."""
    cdef int32_t index = pool.free
    cdef int32_t grown
    cdef segment *items
    if index != NONE:
        pool.free = pool.items[index].next
        return index
    if pool.count == pool.capacity:
        grown = min(pool.limit, max(pool.capacity * 2, 1024))
        if grown == pool.capacity:
            return NONE
        items = <segment *>realloc(pool.items, grown * sizeof(segment))
        if items == NULL:
            return NONE
        pool.items = items
        pool.capacity = grown
    pool.count += 1
    return pool.count - 1

cdef inline void give_back(segment_pool *pool, int32_t index) noexcept nogil:
    pool.items[index].next = pool.free
    pool.free = index

cdef inline void clear_endpoint(endpoint *end) noexcept nogil:
    """Empty lists, for an endpoint whose memory is zero."""
    end.unacked_first = end.unacked_last = end.holes = NONE

cdef inline void release_list(segment_pool *pool, int32_t index) noexcept nogil:
    cdef int32_t following
    while index != NONE:
        following = pool.items[index].next
        give_back(pool, index)
        index = following

cdef inline void release(segment_pool *pool, endpoint *end) noexcept nogil:
    """Return all of an endpoint's segments to the pool."""
    release_list(pool, end.unacked_first)
    release_list(pool, end.holes)
    end.unacked_first = end.unacked_last = end.holes = NONE
    end.unacked_count = end.hole_count = 0

cdef inline void await_ack(
    segment_pool *pool, endpoint *end, uint32_t start, uint32_t stop, uint16_t packets, int64_t time_ns
) noexcept nogil:
    """Bytes start..stop went out at time_ns for the first time; ranges come in rising order."""
    cdef int32_t index
    if end.unacked_count >= UNACKED_MAX:
        index = end.unacked_first
        end.unacked_first = pool.items[index].next
        end.unacked_count -= 1
        pool.dropped += 1
    else:
        index = take(pool)
        if index == NONE:
            pool.dropped += 1
            return
    pool.items[index].start = start
    pool.items[index].end = stop
    pool.items[index].packets = packets
    pool.items[index].late = 0
    pool.items[index].time_ns = time_ns
    pool.items[index].next = NONE
    if end.unacked_first == NONE:
        end.unacked_first = index
    else:
        pool.items[end.unacked_last].next = index
    end.unacked_last = index
    end.unacked_count += 1

cdef inline void await_ack_late(
    segment_pool *pool, endpoint *end, uint32_t start, uint32_t stop, uint16_t packets, int64_t time_ns
) noexcept nogil:
    """As await_ack, of bytes that higher ones have overtaken; the list stays in rising order."""
    cdef int32_t index, previous = NONE, following = end.unacked_first
    cdef int32_t steps = 0
    while following != NONE and before(pool.items[following].start, start):
        previous = following
        following = pool.items[following].next
        steps += 1
        if steps > LATE_STEPS_MAX:
            pool.dropped += 1
            return
    index = take(pool) if end.unacked_count < UNACKED_MAX else NONE
    if index == NONE:
        pool.dropped += 1
        return
    pool.items[index] = segment(start=start, end=stop, packets=packets, late=1, next=following, time_ns=time_ns)
    if previous == NONE:
        end.unacked_first = index
    else:
        pool.items[previous].next = index
    if following == NONE:
        end.unacked_last = index
    end.unacked_count += 1

cdef inline int64_t take_back(segment_pool *pool, endpoint *end, uint32_t start) noexcept nogil:
    """What begins at `start` or after it was not sent after all: how many packets that are."""
    cdef int64_t packets = 0
    cdef int32_t index = end.unacked_first, last = NONE
    while index != NONE and before(pool.items[index].start, start):
        last = index
        index = pool.items[index].next
    if last == NONE:
        end.unacked_first = NONE
    else:
        pool.items[last].next = NONE
    end.unacked_last = last
    while index != NONE:
        last = pool.items[index].next
        packets += pool.items[index].packets
        give_back(pool, index)
        end.unacked_count -= 1
        index = last
    return packets

cdef inline acked_range take_acked(segment_pool *pool, endpoint *end, uint32_t ack) noexcept nogil:
    """Forget what `ack` covers whole: when the last of that was seen."""
    cdef int32_t index = end.unacked_first
    cdef acked_range acked = acked_range(seen_ns=-1, late=False, exact=False)
    cdef segment *item
    while index != NONE and at_or_before(pool.items[index].end, ack):
        item = &pool.items[index]
        if item.time_ns >= acked.seen_ns:
            acked.seen_ns = item.time_ns
            acked.late = item.late
        acked.exact = item.end == ack
        end.unacked_first = item.next
        end.unacked_count -= 1
        give_back(pool, index)
        index = end.unacked_first
    if index == NONE:
        end.unacked_last = NONE
    elif pool.items[index].packets > 1 and before(pool.items[index].start, ack):
        acked.exact = True  # as far as can be told of a super-packet
    return acked

cdef inline void add_hole(segment_pool *pool, endpoint *end, uint32_t start, uint32_t stop, int64_t time_ns) noexcept nogil:
    """Bytes start..stop were jumped over at time_ns."""
    cdef int32_t index
    if end.hole_count >= HOLES_MAX:
        return
    index = take(pool)
    if index == NONE:
        return
    pool.items[index].start = start
    pool.items[index].end = stop
    pool.items[index].time_ns = time_ns
    pool.items[index].next = end.holes
    end.holes = index
    end.hole_count += 1

cdef inline void unlink_hole(segment_pool *pool, endpoint *end, int32_t previous, int32_t index) noexcept nogil:
    if previous == NONE:
        end.holes = pool.items[index].next
    else:
        pool.items[previous].next = pool.items[index].next
    end.hole_count -= 1
    give_back(pool, index)

cdef inline int64_t fill_hole(segment_pool *pool, endpoint *end, uint32_t start, uint32_t stop) noexcept nogil:
    """Bytes start..stop came late: when their hole was made, or -1 if they touch none (they were seen before)."""
    cdef int32_t index = end.holes, previous = NONE, following
    cdef int64_t made_ns = -1
    cdef segment *hole
    cdef uint32_t hole_end
    while index != NONE:
        hole = &pool.items[index]
        following = hole.next
        if before(start, hole.end) and before(hole.start, stop):
            made_ns = hole.time_ns
            hole_end = hole.end
            if at_or_before(start, hole.start) and at_or_before(hole_end, stop):
                unlink_hole(pool, end, previous, index)
                index = following
                continue
            if at_or_before(start, hole.start):
                hole.start = stop
            else:
                hole.end = start
                if before(stop, hole_end):
                    add_hole(pool, end, stop, hole_end, made_ns)  # may move pool.items
        previous = index
        index = following
    return made_ns

cdef inline void drop_holes_before(segment_pool *pool, endpoint *end, uint32_t ack) noexcept nogil:
    """The receiver has everything before `ack`: what we did not see of it will not come."""
    cdef int32_t index = end.holes, previous = NONE, following
    while index != NONE:
        following = pool.items[index].next
        if at_or_before(pool.items[index].end, ack):
            unlink_hole(pool, end, previous, index)
        else:
            previous = index
        index = following
