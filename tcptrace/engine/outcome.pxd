# What is worked out of a connection only when somebody looks.
from tcptrace.engine.percentiles cimport histogram_memory
from tcptrace.engine.rows cimport connection

cdef void complete_row(histogram_memory *memory, connection *c) noexcept nogil
