# Which sockets the kernel is to be asked for, first in first out: each row at most once, so none waits for ever.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from tcptrace.engine.rows cimport connection, socket_pair
from tcptrace.engine.touched cimport touched_rows
from tcptrace.records cimport socket_key

# A socket that was asked for and has not been answered for.
cdef struct asked_socket:
    uint64_t id             # of its connection
    int32_t row
    int32_t x

cdef struct ask_queue:
    int32_t *rows           # a ring; room for every row of the table
    uint64_t mask
    uint64_t taken
    uint64_t put
    asked_socket *asked     # the last time
    int64_t asked_count
    int64_t asked_room

cdef int begin_asking(ask_queue *queue, uint64_t size) except -1
cdef void end_asking(ask_queue *queue) noexcept nogil
cdef int make_room_for_asked(ask_queue *queue, int64_t limit) except -1
cdef int64_t ask(
    ask_queue *queue, connection *rows, const socket_pair *sockets, socket_key *keys, int64_t limit
) noexcept nogil
cdef void take_silences(ask_queue *queue, connection *rows, touched_rows *touched) noexcept nogil

cdef inline void queue_row(ask_queue *queue, uint8_t *queued, int32_t row) noexcept nogil:
    """Once, however often; `queued` is the row's own mark."""
    if queued[0]:
        return
    queued[0] = True
    queue.rows[queue.put & queue.mask] = row
    queue.put += 1
