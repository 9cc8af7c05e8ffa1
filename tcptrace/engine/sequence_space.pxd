# Where a segment's bytes stand among those already seen.
from libc.stdint cimport uint32_t

from tcptrace.engine.rows cimport connection, finding
from tcptrace.engine.segments cimport segment_pool
from tcptrace.records cimport packet_record

cdef uint32_t take_range(
    segment_pool *pool, connection *c, int x, const packet_record *p, finding *found
) noexcept nogil
