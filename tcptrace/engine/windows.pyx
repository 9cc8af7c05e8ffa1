"""Receive windows: the last one, the smallest and the largest."""

from libc.stdint cimport int64_t

from tcptrace.engine.rows cimport connection, direction_row, endpoint
from tcptrace.records cimport FLAG_SYN, packet_record


cdef void take_window(connection *c, endpoint *end, direction_row *d, const packet_record *p) noexcept nogil:
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
