# What one segment says about its connection.
from libc.stdint cimport uint32_t

from tcptrace.engine.rows cimport connection, finding
from tcptrace.engine.shared_memory cimport shared_memory
from tcptrace.records cimport packet_record

cdef void analyse(shared_memory *shared, connection *c, int x, const packet_record *p, finding *found) noexcept nogil
