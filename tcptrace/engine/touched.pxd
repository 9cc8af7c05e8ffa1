# Rows that may not be as they were at the last update: what an interval's end has to look at, however large the table.
from libc.stdint cimport int32_t

from tcptrace.engine.lookahead cimport prefetch
from tcptrace.engine.rows cimport connection, direction_row, endpoint

cdef enum:
    REFRESH_AHEAD = 8       # rows ahead that are fetched into the CPU's cache
    DETAILS_AHEAD = 4       # … that what the row points to is fetched for
    CLEAR_AHEAD = 16        # … where little is needed of each

cdef struct touched_rows:
    int32_t *rows           # in no order, each once; room for every row of the table
    int32_t count

cdef inline void touch(touched_rows *touched, connection *rows, int32_t row) noexcept nogil:
    """Once, however often."""
    if rows[row].touched:
        return
    rows[row].touched = True
    touched.rows[touched.count] = row
    touched.count += 1

cdef inline bint has_rate(const connection *c) noexcept nogil:
    """It is not as it was once the interval after is over, even without a packet: its rate is 0 then."""
    return c.row.sent.packets_per_s > 0 or c.row.received.packets_per_s > 0

cdef inline void fetch_direction(const direction_row *d, const endpoint *end) noexcept nogil:
    prefetch(&d.packets)
    prefetch(&d.rtt_count)
    prefetch(&d.packets_per_s)
    prefetch(&d.timestamp_hz)
    prefetch(&end.seen)
    prefetch(&end.syn_ns)
    prefetch(&end.percentiles_of)

cdef inline void fetch_for_refresh(const connection *c) noexcept nogil:
    prefetch(&c.row.id)
    prefetch(&c.row.changed)
    prefetch(&c.told)
    fetch_direction(&c.row.sent, &c.ends[0])
    fetch_direction(&c.row.received, &c.ends[1])

cdef inline void look_ahead_of(const touched_rows *touched, const connection *rows, int32_t at) noexcept nogil:
    """What refreshing the rows after `at` will need is on its way."""
    cdef const connection *c
    if at + REFRESH_AHEAD < touched.count:
        fetch_for_refresh(&rows[touched.rows[at + REFRESH_AHEAD]])
    if at + DETAILS_AHEAD < touched.count:
        c = &rows[touched.rows[at + DETAILS_AHEAD]]
        prefetch(c.ends[0].rtts.counts)
        prefetch(c.ends[1].rtts.counts)

cdef inline void fetch_for_clearing(const connection *c) noexcept nogil:
    prefetch(&c.row.changed)
    prefetch(&c.touched)
    prefetch(&c.row.sent.packets_per_s)
    prefetch(&c.row.received.packets_per_s)

cdef inline void begin_interval(touched_rows *touched, connection *rows) noexcept nogil:
    """All have been looked at as they are now."""
    cdef int32_t at, row, kept = 0
    cdef connection *c
    for at in range(touched.count):
        if at + CLEAR_AHEAD < touched.count:
            fetch_for_clearing(&rows[touched.rows[at + CLEAR_AHEAD]])
        row = touched.rows[at]
        c = &rows[row]
        c.row.changed = 0
        c.touched = c.row.in_use and has_rate(c)
        if c.touched:
            touched.rows[kept] = row
            kept += 1
    touched.count = kept
