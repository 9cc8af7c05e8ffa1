"""Counts of values in buckets that grow with the value: percentiles to 0.4 % in bounded memory.

Below 128 ns each value has its bucket; from there on each doubling is divided into 128.  The middle of a
bucket is at most 1/256 away from what was counted in it.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

# A power of two; its half bounds the relative error.
cdef enum:
    STEPS_BITS = 7
    STEPS = 128
# Buckets are added in groups, so that few samples near each other take one allocation.
cdef int32_t GROUP = 32

cdef extern from *:
    int leading_zeros "__builtin_clzll" (unsigned long long value) nogil


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


cdef inline int64_t size_of(int32_t span) noexcept nogil:
    return sizeof(histogram) + (span - 1) * sizeof(uint32_t)


cdef histogram *grow(histogram_memory *memory, histogram *of, int32_t bucket) noexcept nogil:
    """Room for `bucket`; NULL, and nothing changed, without memory."""
    cdef int32_t first = bucket & ~(GROUP - 1), stop = first + GROUP
    cdef histogram *grown
    if of != NULL:
        first = min(first, of.first)
        stop = max(stop, of.first + of.span)
    if memory.bytes + size_of(stop - first) > memory.limit_bytes:
        return NULL
    grown = <histogram *>malloc(size_of(stop - first))
    if grown == NULL:
        return NULL
    memset(grown, 0, size_of(stop - first))
    grown.first = first
    grown.span = stop - first
    memory.bytes += size_of(grown.span)
    if of != NULL:
        grown.total = of.total
        memcpy(&grown.counts[of.first - first], of.counts, of.span * sizeof(uint32_t))
        release_histogram(memory, of)
    return grown


cdef histogram *add_sample(histogram_memory *memory, histogram *of, int64_t value_ns) noexcept nogil:
    """Count a value; the histogram, which may have moved (NULL in and out: there is none)."""
    cdef int32_t bucket = bucket_of(<uint64_t>max(value_ns, 0))
    cdef histogram *grown
    if of == NULL or bucket < of.first or bucket >= of.first + of.span:
        grown = grow(memory, of, bucket)
        if grown == NULL:
            memory.dropped += 1
            return of
        of = grown
    of.counts[bucket - of.first] += 1
    of.total += 1
    return of


cdef void release_histogram(histogram_memory *memory, histogram *of) noexcept nogil:
    if of != NULL:
        memory.bytes -= size_of(of.span)
        free(of)


cdef double at_rank(const histogram *of, int64_t rank) noexcept nogil:
    """The value that `rank` others come before, in ns; rank < total."""
    cdef int32_t i
    for i in range(of.span):
        rank -= of.counts[i]
        if rank < 0:
            return middle_of(of.first + i)
    return middle_of(of.first + of.span - 1)
