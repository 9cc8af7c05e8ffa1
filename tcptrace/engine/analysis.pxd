# What one segment says about its connection.
from libc.stdint cimport uint32_t

from tcptrace.records cimport packet_record
from tcptrace.engine.rows cimport connection
from tcptrace.engine.segments cimport segment_pool

# Bits of a segment's analysis, in the order of model.ANALYSIS.
cdef enum:
    RETRANSMISSION = 0x1
    FAST_RETRANSMISSION = 0x2
    SPURIOUS_RETRANSMISSION = 0x4
    OUT_OF_ORDER = 0x8
    PREVIOUS_NOT_CAPTURED = 0x10
    DUPLICATE_ACK = 0x20
    ACKED_UNSEEN = 0x40
    WINDOW_UPDATE = 0x80
    WINDOW_FULL = 0x100
    ZERO_WINDOW = 0x200
    ZERO_WINDOW_PROBE = 0x400
    ZERO_WINDOW_PROBE_ACK = 0x800
    KEEP_ALIVE = 0x1000
    KEEP_ALIVE_ACK = 0x2000
    PORT_REUSE = 0x4000
    DUPLICATE_SACK = 0x8000
    LOCAL_DROP = 0x10000

cdef uint32_t analyse(segment_pool *pool, connection *c, int x, const packet_record *p) noexcept nogil
