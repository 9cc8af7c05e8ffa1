# What the kernel counted of each direction that records do not tell.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tcptrace.engine.rows cimport connection, endpoint
from tcptrace.engine.segments cimport segment_pool
from tcptrace.records cimport flow_direction, flow_key, packet_record

# What a row grows by.
cdef struct growth:
    int64_t packets
    int64_t bytes
    int64_t payload_bytes

cdef void begin_counts_here(connection *c, uint32_t since) noexcept nogil
cdef growth take_counts(connection *c, int x, const packet_record *p, bint is_unsure, uint32_t forgotten) noexcept nogil
cdef bint is_its_count(connection *c, uint32_t since, uint32_t forgotten) noexcept nogil
cdef bint is_behind(const endpoint *end, const packet_record *p) noexcept nogil
cdef packet_record packet_of_flow(const flow_key *key, uint64_t since_ns) noexcept nogil
cdef growth catch_up(connection *c, int x, const flow_direction *counted, int64_t now_ns) noexcept nogil
cdef void nothing_was_lost(connection *c) noexcept nogil
cdef void settle(connection *c, int x, const packet_record *p, bint was_behind) noexcept nogil
cdef void resume(segment_pool *pool, endpoint *end, const packet_record *p) noexcept nogil
