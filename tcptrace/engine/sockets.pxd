# What the kernel says of sockets, and what it means for their connections.
from libc.stdint cimport int64_t, uint8_t

from tcptrace.engine.rows cimport connection
from tcptrace.records cimport packet_record, socket_key, socket_record

cdef packet_record packet_of(const socket_key *key) noexcept nogil
cdef bint is_joined(connection *c, int x, const socket_record *s) noexcept nogil
cdef bint take_socket(connection *c, int x, const socket_record *s) noexcept nogil
cdef bint makes_row(const socket_record *s) noexcept nogil
cdef int begin_with_socket(connection *c, const socket_record *s) noexcept nogil
cdef int begin_with_packet(connection *c, int x, const packet_record *p) noexcept nogil
cdef bint is_older_than_syn(connection *c, const packet_record *p) noexcept nogil
cdef bint is_held_open(connection *c) noexcept nogil
cdef uint8_t shown_state(connection *c) noexcept nogil
cdef bint has_settled(const connection *c, int64_t time_ns) noexcept nogil
cdef int ends_to_ask(connection *c) noexcept nogil
cdef void write_key(const connection *c, int x, socket_key *key) noexcept nogil
cdef void take_silence(connection *c, int x) noexcept nogil
