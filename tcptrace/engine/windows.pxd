# Receive windows, scaled.
from libc.stdint cimport int64_t, uint16_t

from tcptrace.engine.rows cimport connection, direction_row, endpoint
from tcptrace.records cimport packet_record

cdef inline int64_t bytes_of_window(const connection *c, int x, uint16_t window, bint on_syn) noexcept nogil:
    """RFC 7323 section 2: scaled when both SYNs offered it, never on a SYN itself; -1 without both SYNs."""
    if on_syn:
        return window
    if not (c.ends[0].syn_seen and c.ends[1].syn_seen):
        return -1
    if c.ends[0].scale_offered and c.ends[1].scale_offered:
        return <int64_t>window << (c.row.sent.window_scale if x == 0 else c.row.received.window_scale)
    return window

cdef void take_window(connection *c, endpoint *end, direction_row *d, const packet_record *p) noexcept nogil
