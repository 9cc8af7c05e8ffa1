# Percentiles of round-trip times: counts in buckets whose width is at most 1/128 of their value.
from libc.stdint cimport int32_t, int64_t, uint32_t

cdef struct histogram:
    uint32_t *counts        # `span` of them; or, while samples are few, the bucket of each; NULL before the first one
    int32_t first           # the bucket that counts[0] is of; or how many samples there is room for
    int32_t span            # buckets there are; 0 while samples are few
    int32_t waiting         # 1 + the bucket of the last sample, which is not in `counts` yet; 0: none
    int64_t total

# The memory that all histograms together take, and may take.
cdef struct histogram_memory:
    int64_t bytes
    int64_t limit_bytes
    int64_t dropped         # samples that were not counted for want of memory

cdef void add_sample(histogram_memory *memory, histogram *to, int64_t value_ns) noexcept nogil
cdef void release_histogram(histogram_memory *memory, histogram *of) noexcept nogil
cdef void settle(histogram *of) noexcept nogil
cdef double at_rank(const histogram *of, int64_t rank) noexcept nogil
