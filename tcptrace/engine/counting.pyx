"""Rows: how they begin, what every packet adds to them, and their rates."""

from libc.math cimport NAN
from libc.stdint cimport int64_t, uint8_t, uint16_t
from libc.string cimport memcpy

from tcptrace.engine.rows cimport connection, connection_row, direction_row, endpoint
from tcptrace.engine.segments cimport clear_endpoint
from tcptrace.records cimport FLAG_ACK, FLAG_SYN, packet_record

cdef void begin_direction(direction_row *d, endpoint *end) noexcept nogil:
    """Nothing is known yet."""
    d.seq = d.ack = d.window = d.window_bytes = d.window_min_bytes = d.window_max_bytes = -1
    d.rtt_last_us = d.rtt_smoothed_us = d.rtt_min_us = d.rtt_max_us = d.rtt_mean_us = d.rtt_jitter_us = NAN
    d.rtt_stddev_us = d.rtt_p50_us = d.rtt_p90_us = d.rtt_p99_us = d.timestamp_hz = NAN
    d.in_flight_bytes = d.in_flight_max_bytes = -1
    d.mss_bytes = d.window_scale = -1
    d.ttl = d.traffic_class = -1
    clear_endpoint(end)


cdef void begin_row(connection *c, uint8_t ip_version, int64_t time_ns) noexcept nogil:
    """A new row, whose memory is zero: nothing is known but when it begins."""
    cdef connection_row *r = &c.row
    r.in_use = 1
    r.start_ns = time_ns
    r.handshake_rtt_us = r.initial_rtt_us = r.half_closed_us = NAN
    r.ip_version = ip_version
    r.vlan_id = -1
    begin_direction(&r.sent, &c.ends[0])
    begin_direction(&r.received, &c.ends[1])


cdef void name_end(connection *c, int x, const uint8_t *address, uint16_t port) noexcept nogil:
    """Who end x is: 0 src, 1 dst."""
    if x == 0:
        memcpy(c.row.src_addr, address, 16)
        c.row.src_port = port
    else:
        memcpy(c.row.dst_addr, address, 16)
        c.row.dst_port = port


cdef int begin(connection *c, const packet_record *p) noexcept nogil:
    """A new row from its first packet; which end sent that: 0 if src.

    A SYN says who opened the connection.  Without one, the lower port is taken for the server's.
    """
    cdef int x
    begin_row(c, p.ip_version, p.time_ns)
    if p.flags & FLAG_SYN:
        c.row.initiator_known = 1
        x = 1 if p.flags & FLAG_ACK else 0
    else:
        x = 1 if p.src_port < p.dst_port else 0
    name_end(c, x, p.src_addr, p.src_port)
    name_end(c, 1 - x, p.dst_addr, p.dst_port)
    return x


cdef void forget_rate(direction_row *d) noexcept nogil:
    d.packets_per_s = d.bytes_per_s = NAN


cdef void refresh_rate(direction_row *d, endpoint *end, double seconds) noexcept nogil:
    d.packets_per_s = (d.packets - end.previous_packets) / seconds
    d.bytes_per_s = (d.bytes - end.previous_bytes) / seconds
    end.previous_packets = d.packets
    end.previous_bytes = d.bytes
