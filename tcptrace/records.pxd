# bpf/records.h as Cython needs to know it: names only, layout and values are the header's.
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "records.h" nogil:
    enum: BATCH_RECORDS
    enum: BATCH_HEAD_BYTES
    enum: SHORT_RECORD_BYTES
    uint32_t BATCH_WITHOUT_COUNTERS
    enum: BATCH_SAMPLES
    enum: COUNT_RECORDS_LOST
    enum: COUNT_THINNED
    enum: COUNTERS
    enum: SACK_BLOCKS
    enum: FRAME_MAX_BYTES
    enum: STAGED_FRAME_MAX_BYTES

    enum: DIRECTION_INGRESS
    enum: DIRECTION_EGRESS

    enum: FLAG_FIN
    enum: FLAG_SYN
    enum: FLAG_RST
    enum: FLAG_PSH
    enum: FLAG_ACK
    enum: FLAG_ECE
    enum: FLAG_CWR

    enum: OPTION_MSS
    enum: OPTION_WINDOW_SCALE
    enum: OPTION_SACK
    enum: OPTION_TIMESTAMPS

    enum: NOTE_ETHERNET
    enum: NOTE_FIRST_SEND
    enum: NOTE_SENT_BEFORE
    enum: NOTE_BEHIND
    enum: NOTE_COUNTED
    enum: NOTE_TAG_ASIDE
    enum: NOTE_TAG_8021AD

    struct packet_record:
        uint64_t time_ns
        uint8_t src_addr[16]
        uint8_t dst_addr[16]
        uint32_t seq
        uint32_t ack
        uint32_t payload_bytes
        uint32_t frame_bytes
        uint16_t src_port
        uint16_t dst_port
        uint16_t window
        uint16_t flags
        uint16_t segments
        uint16_t ip_id
        uint16_t mss
        uint16_t vlan_outer
        uint8_t direction
        uint8_t ip_version
        uint8_t ttl
        uint8_t traffic_class
        uint8_t options
        uint8_t window_scale
        uint32_t ts_value
        uint32_t ts_echo
        uint32_t sack_left[3]
        uint32_t sack_right[3]
        uint8_t src_mac[6]
        uint8_t sack_count
        uint8_t vlan_count
        uint8_t note
        uint64_t flow_count
        uint64_t flow_bytes
        uint64_t flow_payload_bytes
        uint32_t reverse_records
        uint32_t flow_since

    bint is_whole_record(const packet_record *r)

    struct flow_key:
        uint8_t lower_addr[16]
        uint8_t higher_addr[16]
        uint16_t lower_port
        uint16_t higher_port
        uint16_t ip_version

    struct flow_direction:
        uint64_t count
        uint64_t bytes
        uint64_t payload_bytes
        uint32_t next_seq
        uint32_t passed

    struct flow_count:
        flow_direction from_lower
        flow_direction from_higher
        uint64_t since_ns

    enum: FLOW_RECORD
    uint32_t FLOW_TIME(uint64_t ns)

    struct batch_header:
        uint64_t time_ns
        uint32_t count
        uint32_t resting
        uint64_t counters[COUNTERS]

    struct frame_head:
        uint32_t original_bytes
        uint32_t captured_bytes

    enum: CAUSES
    enum: NAME_BYTES

    enum: SOCKET_SAMPLE
    enum: SOCKET_RETRANSMISSION
    enum: SOCKET_STATE
    enum: SOCKET_FOUND

    enum: ROLE_UNKNOWN
    enum: ROLE_ACTIVE
    enum: ROLE_PASSIVE

    enum: OWNER_UNKNOWN
    enum: OWNER_USED
    enum: OWNER_HELD
    enum: OWNER_OPENED

    struct socket_key:
        uint8_t local_addr[16]
        uint8_t remote_addr[16]
        uint16_t local_port
        uint16_t remote_port
        uint32_t netns
        uint8_t ip_version
        uint8_t unused[7]

    struct socket_view:
        int64_t time_ns
        int64_t bytes_sent
        int64_t bytes_retransmitted
        int64_t bytes_acked
        int64_t bytes_received
        int64_t delivery_rate_bytes_per_s
        int64_t pacing_rate_bytes_per_s
        int64_t busy_us
        int64_t rwnd_limited_us
        int64_t sndbuf_limited_us
        int64_t cgroup_id
        int32_t srtt_us
        int32_t rttvar_us
        int32_t rtt_min_us
        int32_t rto_us
        int32_t cwnd_packets
        int32_t ssthresh_packets
        int32_t in_flight_packets
        int32_t lost_packets
        int32_t sacked_packets
        int32_t reordering_packets
        int32_t delivered_packets
        int32_t dsack_duplicates
        int32_t snd_wnd_bytes
        int32_t rcv_wnd_bytes
        int32_t retransmissions
        int32_t retransmissions_by[6]
        int32_t pid
        int32_t uid
        uint8_t comm[16]
        uint8_t congestion_control[16]
        int8_t congestion_state
        uint8_t state
        uint8_t role
        uint8_t owner_source

    struct socket_record:
        uint64_t time_ns
        socket_key key
        socket_view view
        uint32_t segments
        uint8_t event
        uint8_t cause
        uint8_t old_state
        uint8_t unused
