# Rows to ask the kernel about, first in first out: each at most once, so none waits for ever.
from libc.stdint cimport int32_t, uint8_t, uint64_t

cdef struct ask_queue:
    int32_t *rows           # a ring; room for every row of the table
    uint64_t mask
    uint64_t taken
    uint64_t put

# A socket that was asked for and has not been answered for.
cdef struct asked_socket:
    uint64_t id             # of its connection
    int32_t row
    int32_t x

cdef inline void queue_row(ask_queue *queue, uint8_t *queued, int32_t row) noexcept nogil:
    """Once, however often; `queued` is the row's own mark."""
    if queued[0]:
        return
    queued[0] = True
    queue.rows[queue.put & queue.mask] = row
    queue.put += 1
