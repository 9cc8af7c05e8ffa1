"""Counts of values in buckets that grow with the value: percentiles to 0.4 % in bounded memory.

Below 128 ns each value has its bucket; from there on each doubling is divided into 128.  The middle of a
bucket is at most 1/256 away from what was counted in it.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

# A power of two; its half bounds the relative error.
cdef enum:
    STEPS_BITS = 7
    STEPS = 128
# Buckets are added in groups, so that few samples near each other take one allocation.
cdef int32_t GROUP = 32

cdef extern from *:
    int leading_zeros "__builtin_clzll" (unsigned long long value) nogil
    void prefetch "__builtin_prefetch" (const void *p) nogil


cdef inline int32_t bucket_of(uint64_t value) noexcept nogil:
    cdef int exponent
    if value < STEPS:
        return <int32_t>value
    exponent = 63 - leading_zeros(value)
    return (exponent - STEPS_BITS + 1) * STEPS + <int32_t>((value >> (exponent - STEPS_BITS)) - STEPS)


cdef inline double middle_of(int32_t bucket) noexcept nogil:
    cdef int exponent = bucket // STEPS - 1
    cdef uint64_t low
    if exponent < 0:
        return bucket
    low = <uint64_t>(STEPS + bucket % STEPS) << exponent
    return low + ((<uint64_t>1 << exponent) - 1) / 2.0


cdef bint grow(histogram_memory *memory, histogram *of, int32_t bucket) noexcept nogil:
    """Room for `bucket`; False, and nothing changed, without memory."""
    cdef int32_t first = bucket & ~(GROUP - 1), stop = first + GROUP
    cdef int64_t bytes, old_bytes = of.span * sizeof(uint32_t)
    cdef uint32_t *counts
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


cdef void add_sample(histogram_memory *memory, histogram *to, int64_t value_ns) noexcept nogil:
    """Count a value, 0 or more."""
    cdef int32_t bucket = bucket_of(<uint64_t>value_ns)
    if (to.counts == NULL or bucket < to.first or bucket >= to.first + to.span) and not grow(memory, to, bucket):
        memory.dropped += 1
        return
    prefetch(&to.counts[bucket - to.first])
    settle(to)
    to.waiting = bucket + 1
    to.total += 1


cdef void settle(histogram *of) noexcept nogil:
    """Count what waits: each sample does until the next one, so that nobody waits for its bucket's memory."""
    if of.waiting:
        of.counts[of.waiting - 1 - of.first] += 1
        of.waiting = 0


cdef void release_histogram(histogram_memory *memory, histogram *of) noexcept nogil:
    """Give its memory back; it is empty then."""
    if of.counts != NULL:
        memory.bytes -= of.span * sizeof(uint32_t)
        free(of.counts)
    memset(of, 0, sizeof(histogram))


cdef double at_rank(const histogram *of, int64_t rank) noexcept nogil:
    """The value that `rank` others come before, in ns; rank < total, and nothing waits."""
    cdef int32_t i
    for i in range(of.span):
        rank -= of.counts[i]
        if rank < 0:
            return middle_of(of.first + i)
    return middle_of(of.first + of.span - 1)
