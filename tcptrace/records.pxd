# bpf/records.h as Cython needs to know it: names only, layout and values are the header's.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "records.h" nogil:
    enum: BATCH_RECORDS
    enum: COUNTERS
    enum: SACK_BLOCKS
    enum: FRAME_MAX_BYTES
    enum: STAGED_FRAME_MAX_BYTES

    enum: DIRECTION_INGRESS
    enum: DIRECTION_EGRESS

    enum: FLAG_FIN
    enum: FLAG_SYN
    enum: FLAG_RST
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

    struct batch_header:
        uint64_t time_ns
        uint32_t count
        uint32_t resting
        uint64_t counters[16]

    struct frame_head:
        uint32_t original_bytes
        uint32_t captured_bytes
