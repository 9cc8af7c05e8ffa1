# Percentiles of round-trip times: counts in buckets whose width is at most 1/128 of their value.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memmove

cdef extern from *:
    int leading_zeros "__builtin_clzll" (unsigned long long value) nogil

cdef enum:
    # A power of two; its half bounds the relative error.
    STEPS_BITS = 7
    STEPS = 128
    # Buckets are added in groups, so that few samples near each other take one allocation.
    GROUP = 32
    # Room for samples that are kept one by one: with what malloc() adds 32, 64 and 128 bytes.
    FEW_FIRST = 12
    FEW_MOST = 60
    # Samples that wait to be counted together: their counts are in memory that no cache has, often on one page.
    WAITING_MOST = 11

# A count takes one byte until one of its histogram needs more: all of them have the same width.
ctypedef fused count_type:
    uint8_t
    uint16_t
    uint32_t

cdef struct histogram:
    void *counts            # `span` of them; or, while samples are few, the bucket of each; NULL before the first one
    int32_t first           # the bucket that counts[0] is of; or how many samples there is room for
    int32_t span            # buckets there are; 0 while samples are few
    int64_t total
    uint16_t waiting[WAITING_MOST]  # the buckets of the last samples, which are not in `counts` yet
    uint8_t waiting_count
    uint8_t width           # bytes of each count: 1, 2 or 4

# The memory that all histograms together take, and may take.
cdef struct histogram_memory:
    int64_t bytes
    int64_t limit_bytes
    int64_t dropped         # samples that were not counted for want of memory

cdef bint grow(histogram_memory *memory, histogram *of, int32_t first, int32_t stop) noexcept nogil
cdef bint grow_few(histogram_memory *memory, histogram *of) noexcept nogil
cdef bint widen(histogram_memory *memory, histogram *of) noexcept nogil
cdef bint spread(histogram_memory *memory, histogram *of, int32_t bucket) noexcept nogil
cdef void release_histogram(histogram_memory *memory, histogram *of) noexcept nogil
cdef double at_rank(const histogram *of, int64_t rank) noexcept nogil

cdef inline int32_t bucket_of(uint64_t value) noexcept nogil:
    cdef int exponent
    if value < STEPS:
        return <int32_t>value
    exponent = 63 - leading_zeros(value)
    return (exponent - STEPS_BITS + 1) * STEPS + <int32_t>((value >> (exponent - STEPS_BITS)) - STEPS)

cdef inline bint has_room(histogram_memory *memory, histogram *of, int32_t bucket) noexcept nogil:
    """For one more sample, in this bucket; False, and nothing changed, without memory."""
    if of.span:
        return of.first <= bucket < of.first + of.span or grow(memory, of, bucket, bucket + 1)
    if of.total < of.first:
        return True
    return grow_few(memory, of) if of.first < FEW_MOST else spread(memory, of, bucket)

cdef inline void insert_sorted(uint16_t *buckets, int32_t count, uint16_t bucket) noexcept nogil:
    cdef int32_t at = count
    while at > 0 and buckets[at - 1] > bucket:
        at -= 1
    memmove(buckets + at + 1, buckets + at, (count - at) * sizeof(uint16_t))
    buckets[at] = bucket

cdef inline bint add_one(count_type *counts, int32_t at) noexcept nogil:
    """False, and nothing changed, if that needs more bytes."""
    counts[at] += 1
    if counts[at] == 0:
        counts[at] -= 1
        return False
    return True

cdef inline bint count(const histogram *of, int32_t at) noexcept nogil:
    if of.width == sizeof(uint8_t):
        return add_one(<uint8_t *>of.counts, at)
    if of.width == sizeof(uint16_t):
        return add_one(<uint16_t *>of.counts, at)
    return add_one(<uint32_t *>of.counts, at)

cdef inline void settle(histogram_memory *memory, histogram *of) noexcept nogil:
    """Count what waits."""
    cdef int32_t counted = <int32_t>of.total - of.waiting_count
    cdef int i
    for i in range(of.waiting_count):
        if not of.span:
            insert_sorted(<uint16_t *>of.counts, counted + i, of.waiting[i])
            continue
        while not count(of, of.waiting[i] - of.first):
            if not widen(memory, of):
                of.total -= 1
                memory.dropped += 1
                break
    of.waiting_count = 0

cdef inline void add_sample(histogram_memory *memory, histogram *to, int64_t value_ns) noexcept nogil:
    """Count a value, 0 or more."""
    cdef int32_t bucket = bucket_of(<uint64_t>value_ns)
    if not has_room(memory, to, bucket):
        memory.dropped += 1
        return
    if to.waiting_count == WAITING_MOST:
        settle(memory, to)
    to.waiting[to.waiting_count] = <uint16_t>bucket
    to.waiting_count += 1
    to.total += 1
