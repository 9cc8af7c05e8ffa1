# Receive windows: the last one, the smallest and the largest.
from libc.stdint cimport int64_t, uint16_t

from tcptrace.engine.rows cimport connection, direction_row, endpoint
from tcptrace.records cimport FLAG_SYN, packet_record

cdef inline bint never_offered(const endpoint *end) noexcept nogil:
    return end.syn_seen and not end.scale_offered

cdef inline int64_t bytes_of_window(const connection *c, int x, uint16_t window, bint on_syn) noexcept nogil:
    """RFC 7323 section 2: scaled when both SYNs offered it, never on a SYN itself; -1 where that is not known.

    One SYN without the option rules it out; a SYN-ACK with it says that the SYN had it.
    """
    cdef const endpoint *end = &c.ends[x]
    if on_syn or never_offered(&c.ends[0]) or never_offered(&c.ends[1]):
        return window
    if not end.syn_seen or not (c.ends[1 - x].syn_seen or end.syn_ack):
        return -1
    return <int64_t>window << (c.row.sent.window_scale if x == 0 else c.row.received.window_scale)

cdef inline void take_window(connection *c, endpoint *end, direction_row *d, const packet_record *p) noexcept nogil:
    """The window that the segment, sent by `end`, announces; 0 is 0 at any scale."""
    cdef int64_t window_bytes = bytes_of_window(c, 0 if end == &c.ends[0] else 1, p.window, p.flags & FLAG_SYN != 0)
    d.window = p.window
    if window_bytes < 0:
        d.window_bytes = 0 if p.window == 0 else -1
        if p.window == 0:
            d.window_min_bytes = 0
        return
    d.window_bytes = window_bytes
    if d.window_min_bytes < 0 or window_bytes < d.window_min_bytes:
        d.window_min_bytes = window_bytes
    d.window_max_bytes = max(d.window_max_bytes, window_bytes)
