# The table's rows.  direction_row, packet_brief and whole_row mirror tcptrace.model
# (checked when engine.table is imported); what follows them in `connection` is the engine's own.
from tcptrace.engine.percentiles cimport histogram
from tcptrace.records cimport socket_view
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    RECENT_PACKETS = 5

cdef struct packet_brief:
    int64_t time_ns
    uint32_t seq
    uint32_t ack
    uint32_t payload_bytes
    uint16_t window
    uint16_t flags
    uint16_t segments
    uint16_t received
    uint32_t analysis

cdef struct direction_row:
    int64_t packets
    int64_t bytes
    int64_t payload_bytes
    int64_t seq
    int64_t ack
    int64_t window
    int64_t window_bytes
    int64_t window_min_bytes
    int64_t window_max_bytes
    int64_t in_flight_bytes
    int64_t in_flight_max_bytes
    int32_t mss_bytes
    int32_t window_scale
    uint16_t flags_seen
    int16_t ttl
    int16_t traffic_class
    uint8_t mac[6]
    uint8_t mac_known
    int64_t rtt_count
    double rtt_last_us
    double rtt_smoothed_us
    double rtt_min_us
    double rtt_max_us
    double rtt_mean_us
    double rtt_jitter_us
    double packets_per_s
    double bytes_per_s
    int64_t retransmissions
    int64_t retransmitted_bytes
    int64_t fast_retransmissions
    int64_t spurious_retransmissions
    int64_t local_drops
    int64_t out_of_order
    int64_t duplicate_acks
    int64_t acked_unseen_segments
    int64_t window_updates
    int64_t windows_full
    int64_t zero_windows
    int64_t zero_window_probes
    int64_t zero_window_probe_acks
    int64_t keep_alives
    int64_t keep_alive_acks
    int64_t gaps
    int64_t sacks
    int64_t duplicate_sacks
    int64_t ecn_ce
    int64_t ecn_ece
    int64_t ecn_cwr
    double rtt_stddev_us
    double rtt_p50_us
    double rtt_p90_us
    double rtt_p99_us
    double timestamp_hz

cdef struct connection_row:
    uint64_t id
    int64_t last_ns
    uint64_t recent_total
    double initial_rtt_us
    uint8_t src_addr[16]
    uint8_t dst_addr[16]
    uint16_t src_port
    uint16_t dst_port
    int32_t vlan_id
    uint8_t ip_version
    uint8_t state
    uint8_t src_state
    uint8_t dst_state
    uint8_t initiator_known
    uint8_t near_end
    uint8_t handshake
    uint8_t closed_by
    uint8_t close_kind
    uint8_t port_reuse
    uint8_t end_reason
    uint8_t in_use
    uint8_t changed
    int64_t start_ns
    double handshake_rtt_us
    double half_closed_us
    int64_t records_lost
    direction_row sent
    direction_row received
    packet_brief recent[RECENT_PACKETS]

# What the kernel holds of both ends.  Apart from the rows: memory is only taken where there are sockets.
cdef struct socket_pair:
    socket_view src
    socket_view dst

# model.CONNECTION: a row and its sockets.
cdef struct whole_row:
    connection_row row
    socket_pair sockets

# model.FINDING: what one record came to.
cdef struct finding:
    uint64_t connection_id
    double rtt_us
    int64_t in_flight_bytes
    uint32_t duplicate_ack_number
    uint32_t analysis
    uint32_t received

# What one end has sent, as far as it was seen.  Sequence numbers are raw and wrap (RFC 9293 section 3.4).
cdef struct endpoint:
    uint32_t next_seq       # after the highest byte seen; valid with seen
    uint32_t acked          # the highest acknowledgment it sent; valid with ack_seen
    uint32_t last_ack       # the acknowledgment of its last segment
    uint32_t contiguous     # the end of what was seen without a gap, or acknowledged; valid with seen
    uint32_t last_seq
    uint32_t last_payload_bytes
    uint32_t duplicate_acks  # in a row, up to now
    uint32_t last_found     # what its last segment was found to be
    uint32_t sacked_bytes   # that its last acknowledgment reported beyond `acked`
    uint32_t overtaken_from  # the lowest of the bytes that higher ones had overtaken; valid with overtaken_ns
    int32_t unacked_first   # its segments the peer has not acknowledged yet, oldest first (engine.segments)
    int32_t unacked_last
    int32_t unacked_count
    int32_t holes           # ranges below next_seq that were never seen
    int32_t hole_count
    int64_t next_ns         # when next_seq last moved
    int64_t last_ns         # of its last segment
    int64_t resent_ns       # something was sent again just before
    int64_t overtaken_ns    # bytes came that higher ones had overtaken
    uint16_t last_window    # as in the header
    uint16_t last_flags     # after a SYN, last_window is not scaled
    uint16_t last_ip_id
    uint8_t syn_count       # how often its SYN was seen, up to 255
    uint8_t seen
    uint8_t ack_seen
    uint8_t syn_seen
    uint8_t syn_ack         # it had ACK too
    uint8_t base_known
    uint8_t scale_offered   # its SYN carried a window scale
    uint8_t syn_acked       # the peer acknowledged its SYN
    uint8_t fin_seen
    uint8_t fin_acked
    uint8_t closed_second   # it had received the peer's FIN when it sent its own
    uint8_t told_unseen     # that the peer acknowledges what was not seen, since its own acknowledgment last moved
    uint8_t probing         # its last byte went into a shut window and is not in next_seq
    uint8_t copied          # the segment at hand is the last one, captured twice
    uint8_t timestamps      # first_ts and last_ts are valid
    uint8_t unsure
    uint8_t last_unsure     # what its last segment was cannot be told
    uint8_t duplicates_unsure  # duplicate_acks may be more
    uint8_t behind          # its last segment was one that others had overtaken, or was sent again
    uint8_t next_told       # next_seq is valid although nothing was seen
    uint8_t missed          # records of it were lost since its last one
    uint8_t counts_begin_here  # what had been counted when it was first told is not of this row
    int8_t scale            # its windows are shifted by so much; -1: not known; valid with in_step
    uint32_t last_ts
    int64_t last_ts_ns
    # What was lost, as far as the kernel's counts are known (engine.flow_counts).
    uint64_t flow_count
    uint64_t flow_bytes
    uint64_t flow_payload_bytes
    histogram rtts
    double rtt_squares      # sum of squared distances from the mean (Welford), us^2
    uint32_t initial_seq    # of its SYN; valid with syn_seen
    uint32_t base_seq       # what its SYN had, or must have had; valid with base_known
    uint32_t fin_seq        # of its FIN; valid with fin_seen
    int64_t syn_ns          # time of its first SYN
    int64_t fin_ns          # time of its first FIN
    int64_t first_ts_ns     # its timestamp clock (RFC 7323), first and last reading
    uint32_t first_ts
    int64_t previous_packets  # at the last interval
    int64_t previous_bytes
    int64_t percentiles_of  # rtt_count when the percentiles were last worked out
    uint32_t unsure_until   # below this not all was seen; valid with unsure

cdef struct connection:
    connection_row row
    endpoint ends[2]        # 0: src, 1: dst
    uint64_t hash
    int64_t recent_syn_ns   # of the last SYN without ACK; valid with syn_without_ack
    int32_t newer           # the list of its kind by last activity; -1 at the end
    int32_t older
    uint32_t flow_since     # of the kernel's counts of what was lost; valid with flow_known
    int64_t since_ns        # what that list is in the order of: last packet, or the kernel's word that it is open
    socket_pair *sockets    # always the same
    uint8_t reset
    uint8_t reset_early     # before both FINs were seen
    uint8_t first_to_close  # 1: src, 2: dst; who sent the first FIN, or the RST
    uint8_t syn_without_ack
    uint8_t syn_from        # which end sent the last SYN without ACK
    uint8_t by_activity     # which list it is in (engine.activity)
    uint8_t queued          # it waits in the queue of rows to ask the kernel about (engine.asking)
    uint8_t flow_known      # there are such counts
    uint8_t touched         # it is in the list of rows that may not be as they were (engine.touched)
    uint8_t counted_as      # in the table's sum of what state it is, plus 1; 0: in none
    uint8_t base_unsure     # … of which it may have lost some before they were told
    uint8_t has_gap         # records of it were lost, and not all of it is known again
    uint8_t opening_missed  # maybe some of its handshake
    uint8_t intact          # … but not so: there is only no time of it
    uint8_t confirm         # ask whether its sockets are open, whatever was heard of them
    uint8_t in_step         # its next segment may go the short way (engine.in_step)
    # Of its sockets, one bit an end: 1 src, 2 dst.
    uint8_t told            # there is one
    uint8_t asked           # asked for, and no answer yet
    uint8_t answered        # the kernel has answered for it some time, so it can be asked for
    uint8_t asked_unknown   # asked for while none was known: once is enough

cdef inline direction_row *row_of(connection *c, int x) noexcept nogil:
    """What end x sends."""
    return &c.row.sent if x == 0 else &c.row.received

cdef inline socket_view *socket_of(connection *c, int x) noexcept nogil:
    """What the kernel holds of end x."""
    return &c.sockets.src if x == 0 else &c.sockets.dst
