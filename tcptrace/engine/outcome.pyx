"""How a connection was opened and closed, and the statistics of its round-trip times: for whoever reads the row."""

from libc.math cimport NAN, sqrt
from libc.stdint cimport int64_t, uint32_t

from tcptrace.engine.percentiles cimport at_rank, histogram, histogram_memory, settle
from tcptrace.engine.rows cimport connection, direction_row, endpoint, row_of

from tcptrace import model

# Indices of model.HANDSHAKES, CLOSED_BY and CLOSE_KINDS.
cdef enum:
    HANDSHAKE_COMPLETE = 1
    HANDSHAKE_HALF_OPEN = 2
    HANDSHAKE_REFUSED = 3
    HANDSHAKE_UNANSWERED = 4
    CLOSED_BY_BOTH = 3
    CLOSE_FIN = 1
    CLOSE_RESET = 2

if model.HANDSHAKES != (None, "complete", "half_open", "refused", "unanswered") or model.CLOSE_KINDS[2] != "reset":
    raise ImportError("tcptrace.model and the compiled engine do not match: reinstall tcptrace")

# The rate of a timestamp clock is told from two readings at least this far apart.
cdef int64_t CLOCK_RATE_NS = 500_000_000


cdef void complete_row(histogram_memory *memory, connection *c) noexcept nogil:
    """Fill in the fields of the row that no packet needs."""
    cdef int x
    c.row.handshake = handshake_of(c)
    tell_close(c)
    for x in range(2):
        if c.ends[x].percentiles_of != row_of(c, x).rtt_count:
            tell_rtt(memory, row_of(c, x), &c.ends[x])
        row_of(c, x).timestamp_hz = clock_rate(&c.ends[x])


cdef int handshake_of(const connection *c) noexcept nogil:
    """Index of model.HANDSHAKES."""
    cdef const endpoint *src = &c.ends[0]
    cdef const endpoint *dst = &c.ends[1]
    if dst.syn_seen:
        return HANDSHAKE_COMPLETE if dst.syn_acked else HANDSHAKE_HALF_OPEN
    if not src.syn_seen:
        return 0
    if src.syn_acked:
        return HANDSHAKE_COMPLETE  # the SYN-ACK was missed
    return HANDSHAKE_REFUSED if c.reset and c.first_to_close == 2 else HANDSHAKE_UNANSWERED


cdef void tell_close(connection *c) noexcept nogil:
    """Who closed, how, and for how long the connection was closed on one end only."""
    cdef const endpoint *src = &c.ends[0]
    cdef const endpoint *dst = &c.ends[1]
    cdef int64_t until_ns = c.row.last_ns
    c.row.closed_by = c.first_to_close
    c.row.close_kind = 0
    c.row.half_closed_us = NAN
    if c.first_to_close == 0:
        return
    c.row.close_kind = CLOSE_RESET if c.reset and c.reset_early else CLOSE_FIN
    if src.fin_seen and dst.fin_seen:
        if not src.closed_second and not dst.closed_second:
            c.row.closed_by = CLOSED_BY_BOTH
        c.row.half_closed_us = (src.fin_ns - dst.fin_ns if src.fin_ns > dst.fin_ns else dst.fin_ns - src.fin_ns) / 1000.0
    elif src.fin_seen:
        c.row.half_closed_us = (until_ns - src.fin_ns) / 1000.0
    elif dst.fin_seen:
        c.row.half_closed_us = (until_ns - dst.fin_ns) / 1000.0


cdef double clock_rate(const endpoint *end) noexcept nogil:
    """Ticks a second of the sender's timestamp clock (RFC 7323 section 5.4), which may wrap once in between."""
    cdef int64_t elapsed_ns = end.last_ts_ns - end.first_ts_ns
    if not end.timestamps or elapsed_ns < CLOCK_RATE_NS:
        return NAN
    return <uint32_t>(end.last_ts - end.first_ts) * 1e9 / elapsed_ns


cdef void tell_rtt(histogram_memory *memory, direction_row *d, endpoint *end) noexcept nogil:
    """Standard deviation and percentiles; unknown where samples did not get into the histogram."""
    end.percentiles_of = d.rtt_count
    if d.rtt_count > 1:
        d.rtt_stddev_us = sqrt(end.rtt_squares / (d.rtt_count - 1))
    d.rtt_p50_us = d.rtt_p90_us = d.rtt_p99_us = NAN
    settle(memory, &end.rtts)
    if d.rtt_count == 0 or end.rtts.total != d.rtt_count:
        return
    d.rtt_p50_us = (ranked(d, &end.rtts, (d.rtt_count - 1) // 2) + ranked(d, &end.rtts, d.rtt_count // 2)) / 2
    d.rtt_p90_us = ranked(d, &end.rtts, rank_of(90, d.rtt_count))
    d.rtt_p99_us = ranked(d, &end.rtts, rank_of(99, d.rtt_count))


cdef inline int64_t rank_of(int percent, int64_t count) noexcept nogil:
    """The smallest value that `percent` of all are not above: its place from 0."""
    return (count * percent + 99) // 100 - 1


cdef double ranked(const direction_row *d, const histogram *of, int64_t rank) noexcept nogil:
    """In us; the first and the last are known exactly."""
    if rank == 0:
        return d.rtt_min_us
    if rank == d.rtt_count - 1:
        return d.rtt_max_us
    return min(max(at_rank(of, rank) / 1000.0, d.rtt_min_us), d.rtt_max_us)
