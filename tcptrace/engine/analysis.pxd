# What one segment says: the steps of its analysis in their order, and what is counted.
#
# Names and conditions are Wireshark's (user's guide, "TCP Analysis") unless a comment says otherwise.
# The two ends are x, who sent the segment, and y, its peer.
from libc.stdint cimport int64_t, uint32_t

from tcptrace.engine.acknowledgment cimport note_initial_rtt, take_ack, take_reset_ack, take_sack
from tcptrace.engine.findings cimport (
    ACKED_UNSEEN, DUPLICATE_ACK, DUPLICATE_SACK, FAST_RETRANSMISSION, KEEP_ALIVE, KEEP_ALIVE_ACK, LOCAL_DROP,
    OUT_OF_ORDER, PORT_REUSE, PREVIOUS_NOT_CAPTURED, SPURIOUS_RETRANSMISSION, WINDOW_FULL, WINDOW_UPDATE,
    ZERO_WINDOW, ZERO_WINDOW_PROBE, ZERO_WINDOW_PROBE_ACK,
)
from tcptrace.engine.repetition cimport compare_with_last, is_copy, remember_last
from tcptrace.engine.rows cimport connection, direction_row, endpoint, finding, row_of
from tcptrace.engine.sequence cimport at_or_before, before
from tcptrace.engine.sequence_space cimport take_range
from tcptrace.engine.shared_memory cimport shared_memory
from tcptrace.engine.states cimport update_states
from tcptrace.engine.windows cimport take_window
from tcptrace.records cimport (
    FLAG_ACK, FLAG_CWR, FLAG_ECE, FLAG_FIN, FLAG_RST, FLAG_SYN, OPTION_MSS, OPTION_SACK, OPTION_TIMESTAMPS,
    OPTION_WINDOW_SCALE, packet_record,
)

cdef enum:
    # RFC 7323 section 2.3: the largest shift, and so the largest window where the scale is not known.
    SCALE_MAX = 14
    # RFC 3168 section 5: both bits of the ECN field set.
    ECN_CONGESTION_EXPERIENCED = 3

cdef inline void analyse(shared_memory *shared, connection *c, int x, const packet_record *p, finding *found) noexcept nogil:
    """Take segment p, sent by end x, into the connection; bits of model.ANALYSIS are added to found.analysis."""
    cdef direction_row *d = row_of(c, x)
    cdef endpoint *end = &c.ends[x]
    cdef endpoint *peer = &c.ends[1 - x]
    if p.flags & FLAG_SYN and end.base_known and p.seq != end.base_seq:
        found.analysis |= PORT_REUSE  # a SYN-ACK of another connection; a SYN has begun a new one
        end.base_seq = p.seq
    learn_base(c, end, peer, p)
    end.copied = is_copy(end, p)
    if p.flags & FLAG_RST:
        take_reset(c, x, p)
        if p.flags & FLAG_ACK:
            found.analysis |= take_reset_ack(shared, c, x, p, found)
        d.window = p.window
    else:
        if p.flags & FLAG_SYN:
            take_syn(c, x, d, p)
        found.analysis |= compare_with_last(c, x, p)
        found.analysis |= take_range(&shared.segments, c, x, p, found)
        if found.analysis & ZERO_WINDOW_PROBE or end.last_unsure:
            found.analysis &= ~<uint32_t>(ZERO_WINDOW | WINDOW_FULL)
        if p.flags & FLAG_ACK:
            if p.options & OPTION_SACK:
                found.analysis |= take_sack(end, d, p)
            else:
                end.sacked_bytes = 0
            found.analysis |= take_ack(shared, c, x, p, found)
        if p.flags & FLAG_FIN:
            take_fin(c, x, p)
        take_window(c, x, d, p)
        end.seen = True
    if c.syn_without_ack:
        note_initial_rtt(c, x, p)
    count_ecn(d, p)
    if p.options & OPTION_TIMESTAMPS:
        take_timestamp(end, p)
    found.duplicate_ack_number = end.duplicate_acks if found.analysis & DUPLICATE_ACK else 0
    if found.analysis:
        count_findings(d, found.analysis, p)
    remember_last(end, p, found.analysis)
    update_states(c)

cdef inline void count_findings(direction_row *d, uint32_t found, const packet_record *p) noexcept nogil:
    """Segments out of order count as wire packets, the others as one; retransmissions are counted where found."""
    d.out_of_order += p.segments if found & OUT_OF_ORDER else 0
    d.gaps += (found & PREVIOUS_NOT_CAPTURED) != 0
    d.duplicate_acks += (found & DUPLICATE_ACK) != 0
    d.acked_unseen_segments += (found & ACKED_UNSEEN) != 0
    d.window_updates += (found & WINDOW_UPDATE) != 0
    d.windows_full += (found & WINDOW_FULL) != 0
    d.zero_windows += (found & ZERO_WINDOW) != 0
    d.zero_window_probes += (found & ZERO_WINDOW_PROBE) != 0
    d.zero_window_probe_acks += (found & ZERO_WINDOW_PROBE_ACK) != 0
    d.keep_alives += (found & KEEP_ALIVE) != 0
    d.keep_alive_acks += (found & KEEP_ALIVE_ACK) != 0
    d.duplicate_sacks += (found & DUPLICATE_SACK) != 0

cdef inline void count_ecn(direction_row *d, const packet_record *p) noexcept nogil:
    """RFC 3168; on a SYN the two flags negotiate and report nothing (section 6.1.1)."""
    if p.traffic_class & 3 == ECN_CONGESTION_EXPERIENCED:
        d.ecn_ce += p.segments
    if p.flags & (FLAG_ECE | FLAG_CWR) and not p.flags & FLAG_SYN:
        d.ecn_ece += p.segments if p.flags & FLAG_ECE else 0
        d.ecn_cwr += p.segments if p.flags & FLAG_CWR else 0

cdef inline void take_timestamp(endpoint *end, const packet_record *p) noexcept nogil:
    """The first and the last reading of the sender's clock (RFC 7323 section 5.4)."""
    if not end.timestamps:
        end.timestamps = True
        end.first_ts = p.ts_value
        end.first_ts_ns = p.time_ns
    end.last_ts = p.ts_value
    end.last_ts_ns = p.time_ns

cdef inline void learn_base(const connection *c, endpoint *end, endpoint *peer, const packet_record *p) noexcept nogil:
    """Where the sequence numbers of both ends begin: by a SYN, else one before the first number seen of it."""
    if c.opening_missed and not p.flags & FLAG_SYN:
        return  # it may have begun long before
    if not end.base_known:
        end.base_known = True
        end.base_seq = p.seq if p.flags & FLAG_SYN else p.seq - 1
    if p.flags & FLAG_ACK and not peer.base_known and not c.opening_missed:
        peer.base_known = True
        peer.base_seq = p.ack - 1

cdef inline void take_syn(connection *c, int x, direction_row *d, const packet_record *p) noexcept nogil:
    """The first SYN of this end sets where its sequence numbers begin and what it offers."""
    cdef endpoint *end = &c.ends[x]
    if not p.flags & FLAG_ACK and not c.opening_missed:
        c.syn_without_ack = True
        c.syn_from = x
        c.recent_syn_ns = p.time_ns
    if end.syn_seen:
        end.syn_count = min(<int>end.syn_count + (not end.copied), 255)
        if p.seq == end.initial_seq and not p.flags & FLAG_ACK:
            c.reset = False  # refused, and tried again with the same number, as some hosts do
            c.first_to_close = 0
        return
    end.syn_seen = True
    end.syn_ack = p.flags & FLAG_ACK != 0
    end.syn_count = 1
    end.syn_ns = p.time_ns
    end.initial_seq = p.seq
    if p.options & OPTION_MSS:
        d.mss_bytes = p.mss
    if p.options & OPTION_WINDOW_SCALE:
        end.scale_offered = True
        d.window_scale = min(<int>p.window_scale, <int>SCALE_MAX)

cdef inline void take_fin(connection *c, int x, const packet_record *p) noexcept nogil:
    """The first FIN of this end; its ACK may have been seen before it."""
    cdef endpoint *end = &c.ends[x]
    cdef const endpoint *peer = &c.ends[1 - x]
    if end.fin_seen:
        return
    end.fin_seen = True
    end.fin_ns = p.time_ns
    end.fin_seq = p.seq + p.payload_bytes
    end.closed_second = peer.fin_acked
    end.fin_acked = peer.ack_seen and before(end.fin_seq, peer.acked) and not before(end.next_seq, peer.acked)
    if c.first_to_close == 0:
        c.first_to_close = 1 + x

cdef inline void take_reset(connection *c, int x, const packet_record *p) noexcept nogil:
    """A reset that the peer takes ends the connection."""
    if c.reset or not reset_counts(&c.ends[x], &c.ends[1 - x], row_of(c, 1 - x), p):
        return
    c.reset = True
    c.reset_early = not (c.ends[0].fin_seen and c.ends[1].fin_seen)
    if c.first_to_close == 0:
        c.first_to_close = 1 + x

cdef inline bint reset_counts(
    const endpoint *end, const endpoint *peer, const direction_row *peer_row, const packet_record *p
) noexcept nogil:
    """Would the peer take this reset?  RFC 9293 sections 3.10.7.3 (in SYN-SENT) and 3.10.7.4 (within its window)."""
    cdef int64_t window_bytes
    if peer.syn_seen and not peer.ack_seen and not end.seen:
        return p.flags & FLAG_ACK and before(peer.initial_seq, p.ack) and at_or_before(p.ack, peer.next_seq)
    if not peer.ack_seen or (end.seen and p.seq == end.next_seq):
        return True
    window_bytes = peer_row.window_bytes
    if window_bytes < 0:
        window_bytes = <int64_t>peer.last_window << SCALE_MAX
    return at_or_before(peer.acked, p.seq) and at_or_before(p.seq, peer.acked + <uint32_t>window_bytes)
