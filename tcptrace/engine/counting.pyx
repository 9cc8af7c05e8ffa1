"""Rows: how they begin, what every packet adds to them, and their rates."""

from libc.math cimport NAN
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from tcptrace.engine.rows cimport RECENT_PACKETS, connection, connection_row, direction_row, endpoint, packet_brief
from tcptrace.engine.segments cimport clear_endpoint
from tcptrace.records cimport (
    DIRECTION_EGRESS, DIRECTION_INGRESS, FLAG_ACK, FLAG_SYN, NOTE_ETHERNET, packet_record,
)

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


cdef void note_packet(connection *c, int x, const packet_record *p, uint32_t found) noexcept nogil:
    """What the row says of its last packet, whatever the analysis found."""
    cdef direction_row *d = &c.row.sent if x == 0 else &c.row.received
    d.seq = p.seq
    if p.flags & FLAG_ACK:
        d.ack = p.ack
    d.flags_seen |= p.flags
    d.ttl = p.ttl
    d.traffic_class = p.traffic_class
    if p.note & NOTE_ETHERNET:
        memcpy(d.mac, p.src_mac, 6)
        d.mac_known = 1
    if p.vlan_count > 0:
        c.row.vlan_id = p.vlan_outer & 0xfff
    if p.direction == DIRECTION_EGRESS:
        c.row.near_end |= NEAR_SRC if x == 0 else NEAR_DST
    elif p.direction == DIRECTION_INGRESS:
        c.row.near_end |= NEAR_DST if x == 0 else NEAR_SRC
    c.row.last_ns = max(c.row.last_ns, <int64_t>p.time_ns)
    c.row.changed = 1
    remember(c, x, p, found)


cdef inline void remember(connection *c, int x, const packet_record *p, uint32_t found) noexcept nogil:
    """The last few packets, as a ring."""
    cdef packet_brief *brief = &c.row.recent[c.row.recent_total % RECENT_PACKETS]
    c.row.recent_total += 1
    brief.time_ns = p.time_ns
    brief.seq = p.seq
    brief.ack = p.ack
    brief.payload_bytes = p.payload_bytes
    brief.window = p.window
    brief.flags = p.flags
    brief.segments = p.segments
    brief.received = x
    brief.analysis = found


cdef void forget_rate(direction_row *d) noexcept nogil:
    d.packets_per_s = d.bytes_per_s = NAN


cdef void refresh_rate(direction_row *d, endpoint *end, double seconds) noexcept nogil:
    d.packets_per_s = (d.packets - end.previous_packets) / seconds
    d.bytes_per_s = (d.bytes - end.previous_bytes) / seconds
    end.previous_packets = d.packets
    end.previous_bytes = d.bytes
