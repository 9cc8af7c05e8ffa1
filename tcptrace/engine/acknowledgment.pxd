# What a segment's ACK and SACK blocks say about the other end's bytes.
from libc.stdint cimport uint32_t

from tcptrace.engine.rows cimport connection, direction_row, endpoint, finding
from tcptrace.engine.shared_memory cimport shared_memory
from tcptrace.records cimport packet_record

cdef uint32_t take_ack(
    shared_memory *shared, connection *c, int x, const packet_record *p, finding *found
) noexcept nogil
cdef uint32_t take_reset_ack(
    shared_memory *shared, connection *c, int x, const packet_record *p, finding *found
) noexcept nogil
cdef uint32_t take_sack(endpoint *end, direction_row *d, const packet_record *p) noexcept nogil
cdef void note_initial_rtt(connection *c, int x, const packet_record *p) noexcept nogil
