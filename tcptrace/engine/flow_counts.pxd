# What the kernel counted of each direction, whether or not its records got here.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tcptrace.engine.rows cimport connection, endpoint
from tcptrace.engine.segments cimport segment_pool
from tcptrace.records cimport flow_direction, flow_key, packet_record

# What a row grows by.
cdef struct growth:
    int64_t packets
    int64_t bytes
    int64_t payload_bytes

cdef void begin_counts_here(connection *c) noexcept nogil
cdef growth take_counts(connection *c, int x, const packet_record *p, int64_t lost_ns) noexcept nogil
cdef bint count_other(connection *c, uint32_t since, bint lossy) noexcept nogil
cdef packet_record packet_of_flow(const flow_key *key, uint64_t since_ns) noexcept nogil
cdef growth catch_up(connection *c, int x, const flow_direction *counted) noexcept nogil
cdef void settle(connection *c, int x, const packet_record *p) noexcept nogil
cdef void resume(segment_pool *pool, endpoint *end, const packet_record *p) noexcept nogil
