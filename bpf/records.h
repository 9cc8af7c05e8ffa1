/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What crosses from the kernel to Python: one definition, compiled into the
 * BPF programs and into the Python extensions.  Only fixed-width types, no
 * implicit padding; multi-byte fields are in host byte order except addresses.
 */
#ifndef TCPTRACE_RECORDS_H
#define TCPTRACE_RECORDS_H

#include <linux/types.h>

/* Bytes of a frame that are looked at: the deepest chain of headers parsed. */
#define WINDOW_BYTES 256
/* Records handed over in one perf sample: 64 bring the cost of the ring down to 0.02 us a packet. */
#define BATCH_RECORDS 64
/* Socket records handed over in one perf sample, at most. */
#define BATCH_SAMPLES 16
/* RFC 2018 section 3: three blocks fit beside a timestamp option. */
#define SACK_BLOCKS 3

enum direction {
	DIRECTION_INGRESS = 0,
	DIRECTION_EGRESS = 1,
	DIRECTION_UNKNOWN = 2, /* a capture file that does not say */
};

/* What the first byte of a frame belongs to. */
enum link_kind {
	LINK_ETHERNET = 0,
	LINK_RAW_IP = 1,
};

/* TCP flags, RFC 9293 section 3.1; AE is RFC 7560's and RFC 9768's bit (once NS). */
enum tcp_flag {
	FLAG_FIN = 0x001,
	FLAG_SYN = 0x002,
	FLAG_RST = 0x004,
	FLAG_PSH = 0x008,
	FLAG_ACK = 0x010,
	FLAG_URG = 0x020,
	FLAG_ECE = 0x040,
	FLAG_CWR = 0x080,
	FLAG_AE = 0x100,
};

/* Which TCP options a segment carried. */
enum option_seen {
	OPTION_MSS = 0x01,
	OPTION_WINDOW_SCALE = 0x02,
	OPTION_SACK_PERMITTED = 0x04,
	OPTION_SACK = 0x08,
	OPTION_TIMESTAMPS = 0x10,
	OPTION_FAST_OPEN = 0x20,
	OPTION_OTHER = 0x40,
	OPTION_MALFORMED = 0x80,
};

/* Of record_note. */
enum record_note {
	NOTE_FIRST_FRAGMENT = 0x01, /* payload_bytes is this fragment's, not the segment's */
	NOTE_ETHERNET = 0x02,       /* the MAC addresses are real */
	NOTE_FIRST_SEND = 0x04,     /* its socket on this host has not counted these bytes as sent */
	NOTE_TAG_ASIDE = 0x08,      /* the outer VLAN tag is not in the frame's bytes (skb->vlan_tci) */
	NOTE_TAG_8021AD = 0x10,     /* with NOTE_TAG_ASIDE: its ethertype is 0x88a8, not 0x8100 */
	NOTE_SENT_BEFORE = 0x20,    /* its socket on this host has counted the first of these bytes as sent */
	NOTE_BEHIND = 0x40,         /* its number is below one that was lost, or passed since then, in this direction */
	NOTE_COUNTED = 0x80,        /* it says what was lost of its connection before; without: nothing, or it is not known yet */
};

/*
 * One TCP segment, or one super-packet of `segments` segments (GSO/GRO).  What few need comes last: a record without its
 * frame ends before it in the ring unless is_whole_record(), and whoever reads it finds zeros there.
 */
struct packet_record {
	__u64 time_ns;       /* CLOCK_MONOTONIC live; the capture's own time from a file */
	__u8 src_addr[16];   /* network order, IPv4 as ::ffff:a.b.c.d */
	__u8 dst_addr[16];
	__u32 seq;
	__u32 ack;
	__u32 payload_bytes; /* TCP payload of all segments */
	__u32 frame_bytes;   /* on the wire, link header included, all segments */
	__u32 ts_value;      /* valid with OPTION_TIMESTAMPS */
	__u32 ts_echo;
	__u16 src_port;
	__u16 dst_port;
	__u16 window;        /* as sent, not scaled */
	__u16 flags;         /* enum tcp_flag */
	__u16 segments;      /* wire packets */
	__u16 ip_id;         /* IPv4 only, else 0 */
	__u8 direction;      /* enum direction */
	__u8 ip_version;     /* 4 or 6 */
	__u8 ttl;            /* or IPv6 hop limit */
	__u8 traffic_class;  /* DSCP << 2 | ECN */
	__u8 options;        /* enum option_seen */
	__u8 vlan_count;
	__u8 tcp_header_bytes;
	__u8 note;           /* enum record_note */
	__u8 src_mac[6];
	__u8 dst_mac[6];
	/* With NOTE_COUNTED, how far the counts of its flow (struct flow_count) had come; zeros if there is none. */
	__u64 flow_count;
	__u64 flow_bytes;
	__u64 flow_payload_bytes;
	__u32 reverse_records; /* of the other direction */
	__u32 flow_since;      /* FLOW_TIME() of when counting began: anew for a new connection, a new bout, or one forgotten */
	__u32 sack_left[SACK_BLOCKS];  /* valid below sack_count */
	__u32 sack_right[SACK_BLOCKS];
	__u16 mss;           /* valid with OPTION_MSS */
	__u16 vlan_outer;    /* TCI, valid if vlan_count > 0 */
	__u16 vlan_inner;    /* TCI, valid if vlan_count > 1 */
	__u8 window_scale;   /* shift, valid with OPTION_WINDOW_SCALE */
	__u8 sack_count;
};

/* Of a record that is not whole. */
#define SHORT_RECORD_BYTES __builtin_offsetof(struct packet_record, flow_count)

/* Has it anything to say beyond those? */
static inline __attribute__((always_inline)) int is_whole_record(const struct packet_record *r)
{
	return (r->options & ~OPTION_TIMESTAMPS) || r->vlan_count || (r->note & NOTE_COUNTED);
}

/* A connection some of whose records do not reach the reader, both directions together. */
struct flow_key {
	__u8 lower_addr[16];  /* of the end with the lower port, or, if they are equal, the lower address as two words */
	__u8 higher_addr[16];
	__u16 lower_port;
	__u16 higher_port;
	__u16 ip_version;
	/* Of losses one after the other, until the reader has read all of them: from then on all begins anew. */
	__u16 bout;
};

/* What one end has sent, and the reader does not get. */
struct flow_direction {
	__u64 count;         /* records << 32 | wire packets */
	__u64 bytes;         /* frames, as packet_record.frame_bytes */
	__u64 payload_bytes;
	__u32 next_seq;      /* after the highest byte that was lost, or passed since then; valid with `passed` */
	__u32 base_seq;      /* of its SYN, or its first byte */
	__u32 passed;        /* packets since counting began, lost or not: about, as CPUs may count at once */
	__u32 has_syn;       /* base_seq is a SYN's */
};

struct flow_count {
	struct flow_direction from_lower;
	struct flow_direction from_higher;
	__u64 since_ns;      /* CLOCK_MONOTONIC of the first packet that was followed, lost or not */
};

/* One record in flow_direction.count, above its wire packets, which may wrap: differences of counts are right all the same. */
#define FLOW_RECORD (1ull << 32)
/* Time in units of 2^24 ns, 17 ms, which wraps after two years and more. */
#define FLOW_TIME(ns) ((__u32)((ns) >> 24))
#define FLOW_TIME_UNIT_NS (1ull << 24)

/* What became of a frame.  The first values index batch_header.counters. */
enum counter {
	/* verdicts of the parser, one a frame */
	COUNT_TCP = 0,
	COUNT_NOT_TCP,
	COUNT_FRAGMENT,             /* a fragment that is not the first: no TCP header in it */
	COUNT_MALFORMED_LINK,       /* shorter than its link header or VLAN tags */
	COUNT_MALFORMED_IPV4,       /* version, header length or total length cannot be */
	COUNT_MALFORMED_IPV6,       /* version or payload length cannot be */
	COUNT_MALFORMED_IPV6_EXTENSION, /* extension headers cut off, or more than are followed */
	COUNT_MALFORMED_TCP,        /* TCP header cut off, or its data offset cannot be */
	COUNT_TOO_DEEP,             /* headers reach past WINDOW_BYTES */
	/* what the program did */
	COUNT_FRAMES,               /* frames that passed the hook */
	COUNT_FILTERED,             /* did not match the filter */
	COUNT_FILTER_OUT_OF_REACH,  /* the filter looked past WINDOW_BYTES: taken as no match */
	COUNT_MERGED,               /* larger than the MTU where segments cannot be told (generic XDP) */
	COUNT_RECORDS,              /* records written */
	COUNT_RECORDS_LOST,         /* written, but the ring was full */
	COUNT_NESTED,               /* a frame inside another's program: neither recorded nor counted with its flow */
	COUNT_THINNED,              /* counted with its flow, but not recorded: the ring was full just before */
	COUNT_UNCOUNTED,            /* lost, and not counted with its flow: the kernel had no room */
	COUNTERS,
};

/*
 * A perf sample: this header and `count` records, whole or not, or, where frames' bytes are asked for, whole ones, each
 * followed by those (struct frame_head).  It says that everything this CPU saw before time_ns has been handed over, so that CPUs
 * can be merged by time.
 */
struct batch_header {
	__u64 time_ns;
	__u32 count;
	__u32 resting;            /* the CPU is going idle: it may be silent for long */
	__u64 counters[COUNTERS]; /* running totals of this CPU */
};

/*
 * In batch_header.count, of one record with much of its frame: in place of `resting` are the lowest bits of
 * COUNT_RECORDS_LOST, and the record follows in place of the counters, as its frame may need the room.
 */
#define BATCH_WITHOUT_COUNTERS 0x80000000u
#define BATCH_HEAD_BYTES 16

/* Between a record and the bytes of its frame. */
struct frame_head {
	__u32 original_bytes; /* of the frame on the wire, VLAN tags included; a super-packet is one frame */
	__u32 captured_bytes; /* its first bytes, which follow; a tag aside (NOTE_TAG_ASIDE) is not among them */
};

/*
 * Sockets: what the kernel itself holds of a TCP connection.
 */

/* TASK_COMM_LEN of linux/sched.h and TCP_CA_NAME_MAX of net/tcp.h. */
#define NAME_BYTES 16

/* Why a socket record was written. */
enum socket_event {
	SOCKET_SAMPLE = 0,
	SOCKET_RETRANSMISSION = 1, /* of `segments` segments, for `cause` */
	SOCKET_STATE = 2,          /* from old_state to view.state */
	SOCKET_FOUND = 3,          /* asked for (sock_diag(7)), and it is there */
};

/* Of a retransmission. */
enum cause {
	CAUSE_RTO = 0,     /* the retransmission timer ran out, or what followed it in state Loss (RFC 6298) */
	CAUSE_FAST = 1,    /* in state Recovery (RFC 6675, RFC 8985), or with segments marked as lost otherwise */
	CAUSE_TLP = 2,     /* tail loss probe (RFC 8985 section 7) */
	CAUSE_SYN = 3,
	CAUSE_SYN_ACK = 4,
	CAUSE_OTHER = 5,
	CAUSES,
};

/* Which end of the connection a socket is. */
enum socket_role {
	ROLE_UNKNOWN = 0,
	ROLE_ACTIVE = 1,  /* it connected */
	ROLE_PASSIVE = 2, /* it was accepted, or its port is one that is listened on */
};

/* How the owner of a socket is known; the higher one is the better. */
enum owner_source {
	OWNER_UNKNOWN = 0,
	OWNER_USED = 1,  /* it closed */
	OWNER_HELD = 2,  /* it had the socket open when that was asked for */
	OWNER_OPENED = 3, /* it connected or accepted */
};

/* A connection as a socket sees it. */
struct socket_key {
	__u8 local_addr[16];  /* network order, IPv4 as ::ffff:a.b.c.d */
	__u8 remote_addr[16];
	__u16 local_port;
	__u16 remote_port;
	__u32 netns;          /* inode of the network namespace */
	__u8 ip_version;      /* on the wire: 4 also for an IPv6 socket with mapped addresses */
	__u8 unused[7];
};

/* The kernel's numbers, by their names in struct tcp_info where they have one; -1 is "not known". */
struct socket_view {
	__s64 time_ns;            /* CLOCK_MONOTONIC, when the numbers were read; 0: there is no socket */
	__s64 bytes_sent;         /* payload, retransmissions included */
	__s64 bytes_retransmitted;
	__s64 bytes_acked;
	__s64 bytes_received;
	__s64 delivery_rate_bytes_per_s;
	__s64 pacing_rate_bytes_per_s;
	__s64 busy_us;            /* with data to send; of that time: */
	__s64 rwnd_limited_us;    /* held up by the peer's window */
	__s64 sndbuf_limited_us;  /* held up by the send buffer */
	__s64 cgroup_id;
	__s32 srtt_us;
	__s32 rttvar_us;          /* mdev_us of struct tcp_sock, as in tcp_info */
	__s32 rtt_min_us;
	__s32 rto_us;
	__s32 cwnd_packets;
	__s32 ssthresh_packets;   /* -1 also while it is infinite */
	__s32 in_flight_packets;  /* tcp_packets_in_flight() */
	__s32 lost_packets;
	__s32 sacked_packets;
	__s32 reordering_packets;
	__s32 delivered_packets;
	__s32 dsack_duplicates;
	__s32 snd_wnd_bytes;
	__s32 rcv_wnd_bytes;
	__s32 retransmissions;    /* total_retrans, SYN-ACKs included, since the socket was opened */
	__s32 retransmissions_by[CAUSES]; /* those since tracing began, by enum cause; -1 each where they were not followed */
	__s32 pid;                /* of the owner, as user space calls it (tgid) */
	__s32 uid;
	__u8 comm[NAME_BYTES];    /* of the owner; empty: not known */
	__u8 congestion_control[NAME_BYTES];
	__s8 congestion_state;    /* enum tcp_ca_state of linux/tcp.h: Open, Disorder, CWR, Recovery, Loss */
	__u8 state;               /* of include/net/tcp_states.h, TCP_ESTABLISHED is 1; 0: not known */
	__u8 role;                /* enum socket_role */
	__u8 owner_source;        /* enum owner_source, of pid, uid, comm */
};

/* A perf sample is one of these, or up to BATCH_SAMPLES of event SAMPLE. */
struct socket_record {
	__u64 time_ns;    /* of the event */
	struct socket_key key;
	struct socket_view view;
	__u32 segments;   /* of a retransmission */
	__u8 event;       /* enum socket_event */
	__u8 cause;       /* enum cause, of a retransmission */
	__u8 old_state;
	__u8 unused;
};

/* Of socket_counts.counters. */
enum socket_counter {
	SOCKET_RECORDS_LOST = 0, /* the ring was full, or programs interrupted each other more often than is provided for */
	SOCKETS_FOLLOWED = 1,
	SOCKETS_GONE = 2, /* of those followed; the others are followed still, or had to make room */
};

/* Running totals of a CPU, in memory that is shared with the reader. */
struct socket_counts {
	__u64 counters[8]; /* as many as make a cache line */
};

/* A perf sample's size is 16 bits, of which the kernel takes 12 bytes; it is a multiple of 8. */
#define FRAME_MAX_BYTES (0xfff8 - 16 - BATCH_HEAD_BYTES - sizeof(struct packet_record) - sizeof(struct frame_head))
/* Up to this snaplen frames are staged with their records: what the parser looks at is at hand. */
#define STAGED_FRAME_MAX_BYTES WINDOW_BYTES
/* From one frame's bytes to the next record. */
#define FRAME_PADDED(bytes) (((bytes) + 7) / 8 * 8)

_Static_assert(sizeof(struct packet_record) == 160, "packet_record has no padding");
_Static_assert(SHORT_RECORD_BYTES == 96, "nothing after flow_count is in a short record");
_Static_assert(sizeof(struct flow_key) == 40, "flow_key has no padding");
_Static_assert(sizeof(struct flow_direction) == 40, "flow_direction has no padding");
_Static_assert(sizeof(struct flow_count) == 88, "flow_count has no padding");
_Static_assert(sizeof(struct frame_head) == 8, "frame_head has no padding");
_Static_assert(sizeof(struct socket_key) == 48, "socket_key has no padding");
_Static_assert(sizeof(struct socket_view) == 11 * 8 + (17 + CAUSES) * 4 + 2 * NAME_BYTES + 4, "socket_view has no padding");
_Static_assert(sizeof(struct socket_record) == 8 + 48 + sizeof(struct socket_view) + 8, "socket_record has no padding");
_Static_assert(sizeof(struct socket_counts) == 64, "socket_counts is a cache line");
_Static_assert(sizeof(struct batch_header) == BATCH_HEAD_BYTES + 8 * COUNTERS, "batch_header has no padding");

#endif
