# Ranges of sequence numbers with a time, in lists over one pool: what waits for an
# acknowledgment, and what has not been seen.
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t

from tcptrace.engine.rows cimport endpoint

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

cdef void clear_endpoint(endpoint *end) noexcept nogil
cdef void release(segment_pool *pool, endpoint *end) noexcept nogil
cdef void await_ack(
    segment_pool *pool, endpoint *end, uint32_t start, uint32_t stop, uint16_t packets, int64_t time_ns
) noexcept nogil
cdef void await_ack_late(
    segment_pool *pool, endpoint *end, uint32_t start, uint32_t stop, uint16_t packets, int64_t time_ns
) noexcept nogil
cdef int64_t take_back(segment_pool *pool, endpoint *end, uint32_t start) noexcept nogil
cdef acked_range take_acked(segment_pool *pool, endpoint *end, uint32_t ack) noexcept nogil
cdef void add_hole(segment_pool *pool, endpoint *end, uint32_t start, uint32_t stop, int64_t time_ns) noexcept nogil
cdef int64_t fill_hole(segment_pool *pool, endpoint *end, uint32_t start, uint32_t stop) noexcept nogil
cdef void drop_holes_before(segment_pool *pool, endpoint *end, uint32_t ack) noexcept nogil
