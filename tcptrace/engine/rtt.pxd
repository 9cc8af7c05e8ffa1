# Round-trip times of one direction: data until the ACK that covers it.
from libc.math cimport fabs
from libc.stdint cimport int64_t

from tcptrace.engine.rows cimport direction_row, endpoint

cdef inline void add_rtt(direction_row *d, endpoint *end, int64_t rtt_ns) noexcept nogil:
    """One sample.  Smoothed as RFC 6298 section 2.3 does; jitter as RFC 3550 section 6.4.1, on RTT differences."""
    cdef double rtt_us = rtt_ns / 1000.0, distance
    d.rtt_count += 1
    if d.rtt_count == 1:
        d.rtt_smoothed_us = d.rtt_min_us = d.rtt_max_us = d.rtt_mean_us = rtt_us
    else:
        d.rtt_smoothed_us += (rtt_us - d.rtt_smoothed_us) / 8.0
        d.rtt_min_us = min(d.rtt_min_us, rtt_us)
        d.rtt_max_us = max(d.rtt_max_us, rtt_us)
        distance = rtt_us - d.rtt_mean_us
        d.rtt_mean_us += distance / d.rtt_count
        end.rtt_squares += distance * (rtt_us - d.rtt_mean_us)
        if d.rtt_count == 2:
            d.rtt_jitter_us = fabs(rtt_us - d.rtt_last_us) / 16.0
        else:
            d.rtt_jitter_us += (fabs(rtt_us - d.rtt_last_us) - d.rtt_jitter_us) / 16.0
    d.rtt_last_us = rtt_us
