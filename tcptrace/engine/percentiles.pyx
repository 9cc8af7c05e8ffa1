"""Counts of values in buckets that grow with the value: percentiles to 0.4 % in bounded memory.

Below 128 ns each value has its bucket; from there on each doubling is divided into 128.  The middle of a
bucket is at most 1/256 away from what was counted in it.  The first samples are kept one by one, as the buckets they
are of: many connections have no more.
"""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset


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
    of.counts = <uint32_t *>larger
    of.first = room
    return True


cdef bint spread(histogram_memory *memory, histogram *of, int32_t bucket) noexcept nogil:
    """Count by buckets from now on."""
    cdef histogram few = of[0]
    cdef uint16_t *buckets = <uint16_t *>few.counts
    cdef int32_t i
    settle(&few)
    of.counts = NULL
    of.first = of.span = of.waiting_count = 0
    if not grow(memory, of, min(bucket, <int32_t>buckets[0]), max(bucket, <int32_t>buckets[few.total - 1]) + 1):
        of[0] = few
        return False
    for i in range(<int32_t>few.total):
        of.counts[buckets[i] - of.first] += 1
    memory.bytes -= few.first * sizeof(uint16_t)
    free(buckets)
    return True


cdef bint grow(histogram_memory *memory, histogram *of, int32_t first, int32_t stop) noexcept nogil:
    """Room for buckets from `first` up to `stop`; False, and nothing changed, without memory."""
    cdef int64_t bytes, old_bytes = of.span * sizeof(uint32_t)
    cdef uint32_t *counts
    first &= ~(GROUP - 1)
    stop = (stop + GROUP - 1) & ~(GROUP - 1)
    if of.counts != NULL:
        first = min(first, of.first)
        stop = max(stop, of.first + of.span)
    bytes = (stop - first) * sizeof(uint32_t)
    if memory.bytes + bytes - old_bytes > memory.limit_bytes:
        return False
    counts = <uint32_t *>calloc(1, bytes)
    if counts == NULL:
        return False
    if of.counts != NULL:
        memcpy(counts + of.first - first, of.counts, old_bytes)
        free(of.counts)
    memory.bytes += bytes - old_bytes
    of.counts = counts
    of.first = first
    of.span = stop - first
    return True


cdef void release_histogram(histogram_memory *memory, histogram *of) noexcept nogil:
    """Give its memory back; it is empty then."""
    if of.counts != NULL:
        memory.bytes -= of.span * sizeof(uint32_t) if of.span else of.first * sizeof(uint16_t)
        free(of.counts)
    memset(of, 0, sizeof(histogram))


cdef double at_rank(const histogram *of, int64_t rank) noexcept nogil:
    """The value that `rank` others come before, in ns; rank < total, and nothing waits."""
    cdef int32_t at = 0
    cdef uint64_t group
    if not of.span:
        return middle_of((<const uint16_t *>of.counts)[rank])
    while at < of.span - GROUP:
        group = sum_of_group(of.counts + at)
        if <uint64_t>rank < group:
            break
        rank -= group
        at += GROUP
    while at < of.span - 1:
        rank -= of.counts[at]
        if rank < 0:
            break
        at += 1
    return middle_of(of.first + at)


cdef inline uint64_t sum_of_group(const uint32_t *counts) noexcept nogil:
    cdef int32_t i
    cdef uint64_t total = 0
    for i in range(GROUP):
        total += counts[i]
    return total
