# From the two ends of a packet to its connection: open addressing over row numbers.
from libc.stdint cimport int32_t, uint32_t, uint64_t

from tcptrace.engine.rows cimport connection
from tcptrace.records cimport packet_record

cdef struct flow_index:
    uint64_t *slots         # row number + 1 in the low half, the hash's high half in the high one; 0 is empty
    uint64_t mask
    uint64_t seed

cdef uint64_t hash_of(const flow_index *index, const packet_record *p) noexcept nogil
cdef int32_t find(const flow_index *index, connection *rows, uint64_t hash, const packet_record *p, int *x) noexcept nogil
cdef void insert(flow_index *index, uint64_t hash, int32_t row) noexcept nogil
cdef void remove(flow_index *index, connection *rows, int32_t row) noexcept nogil
