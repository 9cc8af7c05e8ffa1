# What every packet adds to its connection's row, whatever the analysis finds.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from tcptrace.engine.rows cimport connection, direction_row, endpoint
from tcptrace.records cimport packet_record

# Bits that add up to the indices of model.NEAR_ENDS.
cdef enum:
    NEAR_SRC = 1
    NEAR_DST = 2

cdef void begin_row(connection *c, uint8_t ip_version, int64_t time_ns) noexcept nogil
cdef void name_end(connection *c, int x, const uint8_t *address, uint16_t port) noexcept nogil
cdef int begin(connection *c, const packet_record *p) noexcept nogil
cdef void note_packet(connection *c, int x, const packet_record *p, uint32_t found) noexcept nogil
cdef void refresh_rate(direction_row *d, endpoint *end, double seconds) noexcept nogil
cdef void forget_rate(direction_row *d) noexcept nogil
