# What every packet adds to its connection's row, whatever the analysis finds.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from tcptrace.engine.rows cimport RECENT_PACKETS, connection, direction_row, endpoint, packet_brief
from tcptrace.records cimport DIRECTION_EGRESS, DIRECTION_INGRESS, FLAG_ACK, NOTE_ETHERNET, packet_record

# Bits that add up to the indices of model.NEAR_ENDS.
cdef enum:
    NEAR_SRC = 1
    NEAR_DST = 2

cdef void begin_row(connection *c, uint8_t ip_version, int64_t time_ns) noexcept nogil
cdef void name_end(connection *c, int x, const uint8_t *address, uint16_t port) noexcept nogil
cdef int begin(connection *c, const packet_record *p) noexcept nogil
cdef void refresh_rate(direction_row *d, endpoint *end, double seconds) noexcept nogil
cdef void forget_rate(direction_row *d) noexcept nogil

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

cdef inline void note_packet(connection *c, int x, const packet_record *p, uint32_t found) noexcept nogil:
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
