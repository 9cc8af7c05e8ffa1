# Findings that compare a segment with the one that the same end sent before it.
from libc.stdint cimport uint32_t

from tcptrace.engine.rows cimport connection, endpoint
from tcptrace.records cimport packet_record

cdef uint32_t compare_with_last(connection *c, int x, const packet_record *p) noexcept nogil
cdef bint is_copy(const endpoint *end, const packet_record *p) noexcept nogil
cdef void remember_last(endpoint *end, const packet_record *p, uint32_t found) noexcept nogil
