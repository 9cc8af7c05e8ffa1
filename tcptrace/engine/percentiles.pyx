"""Counts of values in buckets that grow with the value: percentiles to 0.4 % in bounded memory.

Below 128 ns each value has its bucket; from there on each doubling is divided into 128.  The middle of a bucket is
at most 1/256 away from what was counted in it.  Counts are as narrow as they can be.  The first samples are kept one
by one, as the buckets they are of: many connections have no more.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

ctypedef fused narrow_type:
    uint8_t
    uint16_t

ctypedef fused wide_type:
    uint16_t
    uint32_t


cdef inline double middle_of(int32_t bucket) noexcept nogil:
    cdef int exponent = bucket // STEPS - 1
    cdef uint64_t low
    if exponent < 0:
        return bucket
    low = <uint64_t>(STEPS + bucket % STEPS) << exponent
    return low + ((<uint64_t>1 << exponent) - 1) / 2.0


cdef bint grow_few(histogram_memory *memory, histogram *of) noexcept nogil:
    cdef int32_t room = FEW_FIRST if of.first == 0 else 2 * of.first + 4
    cdef int64_t more_bytes = (room - of.first) * sizeof(uint16_t)
    cdef void *larger
    if memory.bytes + more_bytes > memory.limit_bytes:
        return False
    larger = realloc(of.counts, room * sizeof(uint16_t))
    if larger == NULL:
        return False
    memory.bytes += more_bytes
    of.counts = larger
    of.first = room
    return True


cdef bint spread(histogram_memory *memory, histogram *of, int32_t bucket) noexcept nogil:
    """Count by buckets from now on."""
    cdef histogram few = of[0]
    cdef uint16_t *buckets = <uint16_t *>few.counts
    cdef int32_t i
    settle(memory, &few)
    of.counts = NULL
    of.first = of.span = 0
    of.waiting_count = 0
    of.width = sizeof(uint8_t)
    if not grow(memory, of, min(bucket, <int32_t>buckets[0]), max(bucket, <int32_t>buckets[few.total - 1]) + 1):
        of[0] = few
        return False
    for i in range(<int32_t>few.total):
        (<uint8_t *>of.counts)[buckets[i] - of.first] += 1
    memory.bytes -= few.first * sizeof(uint16_t)
    free(buckets)
    return True


cdef bint grow(histogram_memory *memory, histogram *of, int32_t first, int32_t stop) noexcept nogil:
    """Room for buckets from `first` up to `stop`; False, and nothing changed, without memory."""
    cdef int64_t bytes, old_bytes = of.span * of.width
    cdef uint8_t *counts
    first &= ~(GROUP - 1)
    stop = (stop + GROUP - 1) & ~(GROUP - 1)
    if of.counts != NULL:
        first = min(first, of.first)
        stop = max(stop, of.first + of.span)
    bytes = (stop - first) * of.width
    if memory.bytes + bytes - old_bytes > memory.limit_bytes:
        return False
    counts = <uint8_t *>calloc(1, bytes)
    if counts == NULL:
        return False
    if of.counts != NULL:
        memcpy(counts + (of.first - first) * of.width, of.counts, old_bytes)
        free(of.counts)
    memory.bytes += bytes - old_bytes
    of.counts = counts
    of.first = first
    of.span = stop - first
    return True


cdef bint widen(histogram_memory *memory, histogram *of) noexcept nogil:
    """Counts of twice the bytes; False, and nothing changed, without memory or where there are none of more."""
    cdef int64_t old_bytes = of.span * of.width
    cdef void *counts
    if of.width == sizeof(uint32_t) or memory.bytes + old_bytes > memory.limit_bytes:
        return False
    counts = calloc(2, old_bytes)
    if counts == NULL:
        return False
    if of.width == sizeof(uint8_t):
        copy_wider(<uint16_t *>counts, <const uint8_t *>of.counts, of.span)
    else:
        copy_wider(<uint32_t *>counts, <const uint16_t *>of.counts, of.span)
    free(of.counts)
    memory.bytes += old_bytes
    of.counts = counts
    of.width *= 2
    return True


cdef inline void copy_wider(wide_type *to, const narrow_type *counts, int32_t span) noexcept nogil:
    cdef int32_t i
    for i in range(span):
        to[i] = counts[i]


cdef void release_histogram(histogram_memory *memory, histogram *of) noexcept nogil:
    """Give its memory back; it is empty then."""
    if of.counts != NULL:
        memory.bytes -= of.span * of.width if of.span else of.first * sizeof(uint16_t)
        free(of.counts)
    memset(of, 0, sizeof(histogram))


cdef double at_rank(const histogram *of, int64_t rank) noexcept nogil:
    """The value that `rank` others come before, in ns; rank < total, and nothing waits."""
    if not of.span:
        return middle_of((<const uint16_t *>of.counts)[rank])
    if of.width == sizeof(uint8_t):
        return middle_of(of.first + index_at_rank(<const uint8_t *>of.counts, of.span, rank))
    if of.width == sizeof(uint16_t):
        return middle_of(of.first + index_at_rank(<const uint16_t *>of.counts, of.span, rank))
    return middle_of(of.first + index_at_rank(<const uint32_t *>of.counts, of.span, rank))


cdef inline int32_t index_at_rank(const count_type *counts, int32_t span, int64_t rank) noexcept nogil:
    cdef int32_t at = 0
    cdef uint64_t group
    while at < span - GROUP:
        group = sum_of_group(counts + at)
        if <uint64_t>rank < group:
            break
        rank -= group
        at += GROUP
    while at < span - 1:
        rank -= counts[at]
        if rank < 0:
            break
        at += 1
    return at


cdef inline uint64_t sum_of_group(const count_type *counts) noexcept nogil:
    cdef int32_t i
    cdef uint64_t total = 0
    for i in range(GROUP):
        total += counts[i]
    return total
