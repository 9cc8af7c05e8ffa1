# What is worked out of a connection only when somebody looks.
from tcptrace.engine.rows cimport connection

cdef void complete_row(connection *c) noexcept nogil
