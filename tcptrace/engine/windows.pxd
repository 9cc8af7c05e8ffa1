# Receive windows: the last one, the smallest and the largest.
from libc.stdint cimport int64_t, uint16_t

from tcptrace.engine.rows cimport connection, direction_row, endpoint
from tcptrace.records cimport FLAG_SYN, packet_record

cdef inline bint never_offered(const endpoint *end) noexcept nogil:
    return end.syn_seen and not end.scale_offered

cdef inline int scale_of(const connection *c, int x) noexcept nogil:
    """RFC 7323 section 2: by what end x's windows are shifted when both SYNs offered it; -1 where that is not known.

    One SYN without the option rules it out; a SYN-ACK with it says that the SYN had it.
    """
    cdef const endpoint *end = &c.ends[x]
    if never_offered(&c.ends[0]) or never_offered(&c.ends[1]):
        return 0
    if not end.syn_seen or not (c.ends[1 - x].syn_seen or end.syn_ack):
        return -1
    return c.row.sent.window_scale if x == 0 else c.row.received.window_scale

cdef inline int64_t bytes_of_window(const connection *c, int x, uint16_t window, bint on_syn) noexcept nogil:
    """Scaled, but never on a SYN itself; -1 where the scale is not known."""
    cdef int scale = 0 if on_syn else scale_of(c, x)
    return <int64_t>window << scale if scale >= 0 else -1

cdef inline void take_window(connection *c, int x, direction_row *d, const packet_record *p) noexcept nogil:
    """The window that the segment, sent by end x, announces."""
    note_window(d, p.window, bytes_of_window(c, x, p.window, p.flags & FLAG_SYN != 0))

cdef inline void note_window(direction_row *d, uint16_t window, int64_t window_bytes) noexcept nogil:
    """window_bytes: -1 where the scale is not known; 0 is 0 at any."""
    d.window = window
    if window_bytes < 0:
        d.window_bytes = 0 if window == 0 else -1
        if window == 0:
            d.window_min_bytes = 0
        return
    d.window_bytes = window_bytes
    if d.window_min_bytes < 0 or window_bytes < d.window_min_bytes:
        d.window_min_bytes = window_bytes
    d.window_max_bytes = max(d.window_max_bytes, window_bytes)
