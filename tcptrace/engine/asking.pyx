"""Asking the kernel for sockets: keys out of the rows that wait for it, and what it means when no answer comes."""

from libc.stdlib cimport calloc, free, realloc

from tcptrace.engine.lookahead cimport prefetch
from tcptrace.engine.sockets cimport ends_to_ask, take_silence, write_key
from tcptrace.engine.touched cimport touch

# Rows ahead that are fetched into the CPU's cache while those to ask about are gone through.
cdef uint64_t ASK_AHEAD = 8


cdef int begin_asking(ask_queue *queue, uint64_t size) except -1:
    """An empty queue for so many rows, a power of two."""
    queue.rows = <int32_t *>calloc(size, sizeof(int32_t))
    if queue.rows == NULL:
        raise MemoryError
    queue.mask = size - 1
    return 0


cdef void end_asking(ask_queue *queue) noexcept nogil:
    free(queue.rows)
    free(queue.asked)


cdef int make_room_for_asked(ask_queue *queue, int64_t limit) except -1:
    """For so many sockets asked for at a time."""
    cdef void *larger
    if limit <= queue.asked_room:
        return 0
    larger = realloc(queue.asked, limit * sizeof(asked_socket))
    if larger == NULL:
        raise MemoryError
    queue.asked = <asked_socket *>larger
    queue.asked_room = limit
    return 0


cdef int64_t ask(
    ask_queue *queue, connection *rows, const socket_pair *sockets, socket_key *keys, int64_t limit
) noexcept nogil:
    """Write keys of what waits to be asked, as many as there is room for; how many."""
    cdef int32_t row
    cdef connection *c
    cdef int x, ends
    while queue.taken < queue.put and queue.asked_count + 2 <= limit:
        fetch_ahead(queue, rows, sockets)
        row = queue.rows[queue.taken & queue.mask]
        queue.taken += 1
        c = &rows[row]
        c.queued = 0
        if not c.row.in_use:
            continue
        ends = ends_to_ask(c)
        for x in range(2):
            if ends & 1 << x:
                write_key(c, x, keys + queue.asked_count)
                queue.asked[queue.asked_count] = asked_socket(id=c.row.id, row=row, x=x)
                queue.asked_count += 1
                c.asked |= 1 << x
    return queue.asked_count


cdef inline void fetch_ahead(const ask_queue *queue, const connection *rows, const socket_pair *sockets) noexcept nogil:
    """The row that is looked at some turns later comes into the CPU's cache meanwhile."""
    cdef const connection *c
    cdef int32_t row
    if queue.taken + ASK_AHEAD < queue.put:
        row = queue.rows[(queue.taken + ASK_AHEAD) & queue.mask]
        c = &rows[row]
        prefetch(&c.row.id)
        prefetch(&c.row.src_state)
        prefetch(&sockets[row].src.time_ns)
        prefetch(&sockets[row].src.state)
        prefetch(&sockets[row].dst.state)
        prefetch(&c.told)


cdef void take_silences(ask_queue *queue, connection *rows, touched_rows *touched) noexcept nogil:
    """What was asked for and not answered is not there."""
    cdef int64_t at
    cdef asked_socket *asked
    cdef connection *c
    for at in range(queue.asked_count):
        asked = &queue.asked[at]
        c = &rows[asked.row]
        if c.row.in_use and c.row.id == asked.id and c.asked & 1 << asked.x:
            take_silence(c, asked.x)
            touch(touched, rows, asked.row)
    queue.asked_count = 0
