# What every packet adds to its connection's row, whatever the analysis finds.
from libc.stdint cimport int32_t, uint32_t

from tcptrace.engine.rows cimport connection, direction_row, endpoint
from tcptrace.records cimport packet_record

cdef int begin(connection *c, const packet_record *p) noexcept nogil
cdef void count_packet(connection *c, int x, const packet_record *p, uint32_t found) noexcept nogil
cdef void refresh_rate(direction_row *d, endpoint *end, double seconds) noexcept nogil
cdef void forget_rate(direction_row *d) noexcept nogil
