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
/* Records handed over in one perf sample: 32 bring the cost of the ring down to 0.05 us a packet. */
#define BATCH_RECORDS 32
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
};

/* One TCP segment, or one super-packet of `segments` segments (GSO/GRO). */
struct packet_record {
	__u64 time_ns;       /* CLOCK_MONOTONIC live; the capture's own time from a file */
	__u8 src_addr[16];   /* network order, IPv4 as ::ffff:a.b.c.d */
	__u8 dst_addr[16];
	__u32 seq;
	__u32 ack;
	__u32 payload_bytes; /* TCP payload of all segments */
	__u32 frame_bytes;   /* on the wire, link header included, all segments */
	__u16 src_port;
	__u16 dst_port;
	__u16 window;        /* as sent, not scaled */
	__u16 flags;         /* enum tcp_flag */
	__u16 segments;      /* wire packets */
	__u16 ip_id;         /* IPv4 only, else 0 */
	__u16 mss;           /* valid with OPTION_MSS */
	__u16 vlan_outer;    /* TCI, valid if vlan_count > 0 */
	__u16 vlan_inner;    /* TCI, valid if vlan_count > 1 */
	__u8 direction;      /* enum direction */
	__u8 ip_version;     /* 4 or 6 */
	__u8 ttl;            /* or IPv6 hop limit */
	__u8 traffic_class;  /* DSCP << 2 | ECN */
	__u8 options;        /* enum option_seen */
	__u8 window_scale;   /* shift, valid with OPTION_WINDOW_SCALE */
	__u32 ts_value;      /* valid with OPTION_TIMESTAMPS */
	__u32 ts_echo;
	__u32 sack_left[SACK_BLOCKS];  /* valid below sack_count */
	__u32 sack_right[SACK_BLOCKS];
	__u8 src_mac[6];
	__u8 dst_mac[6];
	__u8 sack_count;
	__u8 vlan_count;
	__u8 tcp_header_bytes;
	__u8 note;           /* enum record_note */
};

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
	COUNT_NESTED,               /* a frame inside another's program: not recorded */
	COUNTERS,
};

/*
 * A perf sample: this header and `count` records, each followed by its frame's bytes where those are asked for
 * (struct frame_head).  It says that everything this CPU saw before time_ns has been handed over, so that CPUs
 * can be merged by time.
 */
struct batch_header {
	__u64 time_ns;
	__u32 count;
	__u32 resting;            /* the CPU is going idle: it may be silent for long */
	__u64 counters[COUNTERS]; /* running totals of this CPU */
};

/* Between a record and the bytes of its frame. */
struct frame_head {
	__u32 original_bytes; /* of the frame on the wire, VLAN tags included; a super-packet is one frame */
	__u32 captured_bytes; /* its first bytes, which follow; a tag aside (NOTE_TAG_ASIDE) is not among them */
};

/* A perf sample's size is 16 bits, of which the kernel takes 12 bytes; it is a multiple of 8. */
#define FRAME_MAX_BYTES (0xfff8 - 16 - sizeof(struct batch_header) - sizeof(struct packet_record) - sizeof(struct frame_head))
/* Up to this snaplen frames are staged with their records: what the parser looks at is at hand. */
#define STAGED_FRAME_MAX_BYTES WINDOW_BYTES
/* From one frame's bytes to the next record. */
#define FRAME_PADDED(bytes) (((bytes) + 7) / 8 * 8)

_Static_assert(sizeof(struct packet_record) == 128, "packet_record has no padding");
_Static_assert(sizeof(struct frame_head) == 8, "frame_head has no padding");
_Static_assert(sizeof(struct batch_header) == 16 + 8 * COUNTERS, "batch_header has no padding");

#endif
