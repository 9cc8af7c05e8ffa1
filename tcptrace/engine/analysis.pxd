# What one segment says about its connection.
from libc.stdint cimport uint8_t

from tcptrace.records cimport packet_record
from tcptrace.engine.rows cimport connection
from tcptrace.engine.segments cimport segment_pool

# Bits of a segment's analysis, in the order of model.ANALYSIS.
cdef enum:
    RETRANSMISSION = 1
    OUT_OF_ORDER = 2
    DUPLICATE_ACK = 4
    ZERO_WINDOW = 8
    KEEP_ALIVE = 16
    PREVIOUS_NOT_CAPTURED = 32

cdef uint8_t analyse(segment_pool *pool, connection *c, int x, const packet_record *p) noexcept nogil
