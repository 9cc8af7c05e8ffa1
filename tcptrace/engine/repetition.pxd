# Window updates, zero and full windows, duplicate ACKs, and the answers to keep-alives and probes.
#
# All of them compare a segment with the last one of the same end.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tcptrace.engine.findings cimport (
    DUPLICATE_ACK, KEEP_ALIVE, KEEP_ALIVE_ACK, WINDOW_FULL, WINDOW_UPDATE, ZERO_WINDOW, ZERO_WINDOW_PROBE,
    ZERO_WINDOW_PROBE_ACK,
)
from tcptrace.engine.rows cimport connection, endpoint
from tcptrace.engine.windows cimport bytes_of_window
from tcptrace.records cimport FLAG_ACK, FLAG_FIN, FLAG_SYN, NOTE_SENT_BEFORE, packet_record

cdef enum:
    # No timer sends the last segment again so soon: mirror ports that copy what comes in and what goes out do.
    COPY_NS = 1_000_000

cdef inline uint32_t compare_with_last(connection *c, int x, const packet_record *p) noexcept nogil:
    """Bits of engine.findings, of a segment that is no RST."""
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    cdef uint32_t found = 0
    if p.flags & (FLAG_SYN | FLAG_FIN):
        return 0
    if end.missed or peer.missed or peer.last_unsure:
        end.duplicates_unsure = True
        return ZERO_WINDOW if p.window == 0 else 0
    if p.payload_bytes > 0:
        if fills_the_window(c, 1 - x, p):
            found = WINDOW_FULL
    elif p.flags & FLAG_ACK and end.ack_seen and p.ack == end.last_ack and p.seq == end.next_seq:
        found = repeated_ack(end, peer, p)
    if p.window == 0:
        found |= ZERO_WINDOW
    return found

cdef inline uint32_t repeated_ack(endpoint *end, const endpoint *peer, const packet_record *p) noexcept nogil:
    """An ACK without payload, whose number is that of the segment before."""
    if p.window != end.last_window:
        return WINDOW_UPDATE if p.window else 0
    if p.window == 0:
        return ZERO_WINDOW_PROBE_ACK if peer.last_found & ZERO_WINDOW_PROBE else 0
    if peer.last_found & KEEP_ALIVE:
        return KEEP_ALIVE_ACK
    end.duplicate_acks += 1
    end.told_unseen = False
    return DUPLICATE_ACK

cdef inline bint fills_the_window(const connection *c, int y, const packet_record *p) noexcept nogil:
    """The payload ends where y's last window does, whose scale is known."""
    cdef const endpoint *peer = &c.ends[y]
    cdef int64_t window_bytes
    if not peer.ack_seen:
        return False
    window_bytes = bytes_of_window(c, y, peer.last_window, peer.last_flags & FLAG_SYN != 0)
    return window_bytes >= 0 and p.seq + p.payload_bytes == peer.last_ack + <uint32_t>window_bytes

cdef inline bint is_copy(const endpoint *end, const packet_record *p) noexcept nogil:
    """The capture has the last packet of this end twice: nothing was sent again."""
    return (
        p.seq == end.last_seq and p.ip_id == end.last_ip_id and p.flags == end.last_flags
        and p.payload_bytes == end.last_payload_bytes and p.window == end.last_window and end.seen
        and (p.ack == end.last_ack or not p.flags & FLAG_ACK) and not p.note & NOTE_SENT_BEFORE
        and p.time_ns - <uint64_t>end.last_ns < <uint64_t>COPY_NS
    )

cdef inline void remember_last(endpoint *end, const packet_record *p, uint32_t found) noexcept nogil:
    """What the end's next segment is compared with."""
    if p.flags & FLAG_ACK and p.ack != end.last_ack:
        end.last_ack = p.ack
        end.duplicate_acks = 0
        if end.last_ns and not end.missed:
            end.duplicates_unsure = False
            end.told_unseen = False
    end.last_found = found
    end.last_window = p.window
    end.last_seq = p.seq
    end.last_payload_bytes = p.payload_bytes
    end.last_flags = p.flags
    end.last_ip_id = p.ip_id
    end.last_ns = p.time_ns
