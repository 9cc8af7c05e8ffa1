/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Frame bytes -> struct packet_record, for BPF and for user space alike.
 *
 * struct frame has the first `available` bytes of a frame: in the kernel a copy of
 * at most WINDOW_BYTES, in user space the frame itself, however long.  Every access is
 * checked twice: against `available`, and against the constant REACH_BYTES, which is
 * what the BPF verifier follows.  No maps, no helpers.
 */
#ifndef TCPTRACE_PARSE_H
#define TCPTRACE_PARSE_H

#include "records.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define ETHERNET_HEADER_BYTES 14
#define VLAN_TAG_BYTES 4
#define IPV4_HEADER_MIN_BYTES 20
#define IPV6_HEADER_BYTES 40
#define TCP_HEADER_MIN_BYTES 20
#define IP_LENGTH_MAX 65535
#define TCP_OPTIONS_MAX_BYTES 40
#define MAX_VLAN_TAGS 2
/* RFC 8200 section 4.1 lists seven, none of them useful twice before TCP. */
#define MAX_IPV6_EXTENSIONS 7

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_8021Q 0x8100
#define ETHERTYPE_8021AD 0x88a8

#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_TCP 6
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_AUTHENTICATION 51
#define PROTOCOL_DESTINATION 60
#define PROTOCOL_MOBILITY 135

/* The window held too little although the frame goes on: load more and try again. */
#define PARSE_NEED_MORE COUNTERS

#ifdef IN_KERNEL
#define REACH_BYTES WINDOW_BYTES
#else
#define REACH_BYTES (1ull << 32) /* past any frame: a capture file's lengths have 32 bits */
#endif

struct frame {
#ifdef IN_KERNEL
	__u8 window[WINDOW_BYTES]; /* the frame's first bytes */
#else
	const __u8 *window;
#endif
	__u64 available;   /* bytes of it in the window */
	__u64 frame_bytes; /* bytes of the frame, link header included, of one (super-)packet */
	__u64 offset;      /* of the header parsed next */
	__u32 merged;      /* a super-packet, whose IP header need not give a length */
	__u64 scratch;     /* for the verifier's sake only */
	__u16 ethertype;
};

#ifdef IN_KERNEL
/* Keeps the compiler from moving arithmetic between a bounds check and the access it guards. */
#define HIDE(value) asm volatile("" : "+r"(value))
/*
 * Keeps the verifier from following every value a loop's variables can have: written to map memory and read
 * back they are just numbers, so that all ways through the loop meet in one state instead of multiplying.
 */
#define FORGET(f, value)                                 \
	do {                                             \
		*(volatile __u64 *)&(f)->scratch = value; \
		asm volatile("" ::: "memory");           \
		value = *(volatile __u64 *)&(f)->scratch; \
	} while (0)
static __always_inline __u16 load_be16(const __u8 *p) { return __builtin_bswap16(*(const __u16 *)p); }
static __always_inline __u32 load_be32(const __u8 *p) { return __builtin_bswap32(*(const __u32 *)p); }
static __always_inline void copy4(void *to, const __u8 *p) { *(__u32 *)to = *(const __u32 *)p; }
static __always_inline void copy2(void *to, const __u8 *p) { *(__u16 *)to = *(const __u16 *)p; }
#else
#define HIDE(value) ((void)0)
#define FORGET(f, value) ((void)0)
static __always_inline __u16 load_be16(const __u8 *p) { return (__u16)(p[0] << 8 | p[1]); }
static __always_inline __u32 load_be32(const __u8 *p)
{
	return (__u32)p[0] << 24 | (__u32)p[1] << 16 | (__u32)p[2] << 8 | p[3];
}
static __always_inline void copy4(void *to, const __u8 *p) { __builtin_memcpy(to, p, 4); }
static __always_inline void copy2(void *to, const __u8 *p) { __builtin_memcpy(to, p, 2); }
#endif

/* Of what the compiler does not know the alignment of, it copies one byte at a time. */
static __always_inline void copy_mac(__u8 *to, const __u8 *p)
{
	copy4(to, p);
	copy2(to + 4, p + 4);
}

static __always_inline void copy16(__u8 *to, const __u8 *p)
{
	copy4(to, p);
	copy4(to + 4, p + 4);
	copy4(to + 8, p + 8);
	copy4(to + 12, p + 12);
}

/*
 * The `bytes` at `offset`, or 0 where the window does not hold them all.  The pointer is hidden so that whoever
 * tests it tests it, and not once more the offset: from that, verifiers before 6.8 do not see what the pointer is.
 */
static __always_inline const __u8 *bytes_at(const struct frame *f, __u64 offset, __u64 bytes)
{
	const __u8 *p = 0;

	if (offset + bytes <= f->available) {
		HIDE(offset);
		if (offset <= REACH_BYTES - bytes)
			p = f->window + offset;
	}
	HIDE(p);
	return p;
}

/* What is wrong when `bytes` at `offset` are not in the window: `verdict` where the frame itself ends. */
static __always_inline int missing(const struct frame *f, __u64 offset, __u64 bytes, int verdict)
{
	if (offset + bytes > f->frame_bytes)
		return verdict;
	return offset + bytes > REACH_BYTES ? COUNT_TOO_DEEP : PARSE_NEED_MORE;
}

/* Ethernet and VLAN tags, or no link header at all.  COUNT_TCP means "go on": offset and ethertype are set. */
static __always_inline int parse_link(struct frame *f, enum link_kind link, struct packet_record *r)
{
	const __u8 *p;
	int tag;

	r->vlan_count = 0;
	r->vlan_outer = 0;
	r->vlan_inner = 0;
	r->note = 0;
	if (link == LINK_RAW_IP) {
		__builtin_memset(r->src_mac, 0, 6);
		__builtin_memset(r->dst_mac, 0, 6);
		f->offset = 0;
		p = bytes_at(f, 0, 1);
		if (!p)
			return missing(f, 0, 1, COUNT_MALFORMED_LINK);
		f->ethertype = *p >> 4 == 6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4;
		return COUNT_TCP;
	}
	p = bytes_at(f, 0, ETHERNET_HEADER_BYTES);
	if (!p)
		return missing(f, 0, ETHERNET_HEADER_BYTES, COUNT_MALFORMED_LINK);
	copy_mac(r->dst_mac, p);
	copy_mac(r->src_mac, p + 6);
	r->note = NOTE_ETHERNET;
	f->ethertype = load_be16(p + 12);
	f->offset = ETHERNET_HEADER_BYTES;
#pragma unroll
	for (tag = 0; tag < MAX_VLAN_TAGS; tag++) {
		if (f->ethertype != ETHERTYPE_8021Q && f->ethertype != ETHERTYPE_8021AD)
			break;
		p = bytes_at(f, f->offset, VLAN_TAG_BYTES);
		if (!p)
			return missing(f, f->offset, VLAN_TAG_BYTES, COUNT_MALFORMED_LINK);
		if (tag == 0)
			r->vlan_outer = load_be16(p);
		else
			r->vlan_inner = load_be16(p);
		r->vlan_count = tag + 1;
		f->ethertype = load_be16(p + 2);
		f->offset += VLAN_TAG_BYTES;
	}
	return COUNT_TCP;
}

/* RFC 9293 section 3.2 and the registry: options at `offset` up to `end`, as far as they are available. */
static __always_inline void parse_tcp_options(struct frame *f, __u64 offset, __u64 end, struct packet_record *r)
{
	const __u8 *p;
	__u64 length;
	__u32 i;
	__u8 kind;

	for (i = 0; i < TCP_OPTIONS_MAX_BYTES; i++) {
		FORGET(f, offset);
		if (offset >= end)
			return;
		p = bytes_at(f, offset, 1);
		if (!p)
			return;
		kind = *p;
		if (kind == 0) /* end of option list */
			return;
		if (kind == 1) { /* no operation */
			offset++;
			continue;
		}
		if (offset + 2 > end) {
			r->options |= OPTION_MALFORMED;
			return;
		}
		p = bytes_at(f, offset, 2);
		if (!p)
			return;
		length = p[1];
		if (length < 2 || offset + length > end) {
			r->options |= OPTION_MALFORMED;
			return;
		}
		if (kind == 2 && length == 4) {
			p = bytes_at(f, offset, 4);
			if (p) {
				r->mss = load_be16(p + 2);
				r->options |= OPTION_MSS;
			}
		} else if (kind == 3 && length == 3) {
			p = bytes_at(f, offset, 3);
			if (p) {
				/* RFC 7323 section 2.3: a shift above 14 is taken as 14 */
				r->window_scale = p[2] > 14 ? 14 : p[2];
				r->options |= OPTION_WINDOW_SCALE;
			}
		} else if (kind == 4 && length == 2) {
			r->options |= OPTION_SACK_PERMITTED;
		} else if (kind == 5 && length >= 10 && (length - 2) % 8 == 0) {
			int block;

			r->options |= OPTION_SACK;
			r->sack_count = 0;
#pragma unroll
			for (block = 0; block < SACK_BLOCKS; block++) {
				if (length < 10ull + 8 * block)
					break;
				p = bytes_at(f, offset + 2 + 8 * block, 8);
				if (!p)
					break;
				r->sack_left[block] = load_be32(p);
				r->sack_right[block] = load_be32(p + 4);
				r->sack_count = block + 1;
			}
		} else if (kind == 8 && length == 10) {
			p = bytes_at(f, offset, 10);
			if (p) {
				r->ts_value = load_be32(p + 2);
				r->ts_echo = load_be32(p + 6);
				r->options |= OPTION_TIMESTAMPS;
			}
		} else if (kind == 34) {
			r->options |= OPTION_FAST_OPEN;
		} else {
			r->options |= OPTION_OTHER;
		}
		offset += length;
	}
}

/* RFC 9293 section 3.1, as far as the window; no options yet.  The bytes of header that its data offset tells. */
static __always_inline __u64 read_tcp(const __u8 *p, struct packet_record *r)
{
	__u16 offset_and_flags = load_be16(p + 12);

	r->src_port = load_be16(p);
	r->dst_port = load_be16(p + 2);
	r->seq = load_be32(p + 4);
	r->ack = load_be32(p + 8);
	r->flags = offset_and_flags & 0x1ff;
	r->window = load_be16(p + 14);
	r->tcp_header_bytes = (offset_and_flags >> 12) * 4;
	r->options = 0;
	r->mss = 0;
	r->window_scale = 0;
	r->sack_count = 0;
	r->ts_value = 0;
	r->ts_echo = 0;
	return (__u64)(offset_and_flags >> 12) * 4;
}

/* A header at f->offset with `ip_payload_bytes` of IP payload from there on. */
static __always_inline int parse_tcp(struct frame *f, __u64 ip_payload_bytes, struct packet_record *r)
{
	const __u8 *p = bytes_at(f, f->offset, TCP_HEADER_MIN_BYTES);
	__u64 header_bytes, end;

	if (ip_payload_bytes < TCP_HEADER_MIN_BYTES)
		return COUNT_MALFORMED_TCP;
	if (!p)
		return missing(f, f->offset, TCP_HEADER_MIN_BYTES, COUNT_MALFORMED_TCP);
	header_bytes = read_tcp(p, r);
	if (header_bytes < TCP_HEADER_MIN_BYTES || header_bytes > ip_payload_bytes)
		return COUNT_MALFORMED_TCP;
	end = f->offset + header_bytes;
	if (end > f->available)
		return missing(f, f->offset, header_bytes, COUNT_MALFORMED_TCP);
	r->payload_bytes = ip_payload_bytes - header_bytes;
	if (header_bytes > TCP_HEADER_MIN_BYTES)
		parse_tcp_options(f, f->offset + TCP_HEADER_MIN_BYTES, end, r);
	return COUNT_TCP;
}

/* ::ffff:a.b.c.d, RFC 4291 section 2.5.5.2. */
static __always_inline void map_ipv4(__u8 *to, const __u8 *address)
{
	const __u8 prefix[12] = { [10] = 0xff, [11] = 0xff };

	copy4(to, prefix);
	copy4(to + 4, prefix + 4);
	copy4(to + 8, prefix + 8);
	copy4(to + 12, address);
}

/* What a record says of an IPv4 header. */
static __always_inline void read_ipv4(const __u8 *p, struct packet_record *r)
{
	r->ip_version = 4;
	r->traffic_class = p[1];
	r->ip_id = load_be16(p + 4);
	r->ttl = p[8];
	map_ipv4(r->src_addr, p + 12);
	map_ipv4(r->dst_addr, p + 16);
}

/* RFC 791. */
static __always_inline int parse_ipv4(struct frame *f, struct packet_record *r, __u64 *tcp_bytes)
{
	const __u8 *p = bytes_at(f, f->offset, IPV4_HEADER_MIN_BYTES);
	__u64 header_bytes, total_bytes, left;
	__u16 fragment;

	if (!p)
		return missing(f, f->offset, IPV4_HEADER_MIN_BYTES, COUNT_MALFORMED_IPV4);
	header_bytes = (__u64)(p[0] & 0xf) * 4;
	if (p[0] >> 4 != 4 || header_bytes < IPV4_HEADER_MIN_BYTES)
		return COUNT_MALFORMED_IPV4;
	if (p[9] != PROTOCOL_TCP)
		return COUNT_NOT_TCP;
	left = f->frame_bytes - f->offset;
	total_bytes = load_be16(p + 2);
	/* Super-packets over 64 KiB ("big TCP") and some offloads write 0: the frame's length stands for it. */
	if (total_bytes == 0 && (f->merged || left > IP_LENGTH_MAX))
		total_bytes = left;
	if (total_bytes < header_bytes || total_bytes > left)
		return COUNT_MALFORMED_IPV4;
	fragment = load_be16(p + 6);
	if (fragment & 0x1fff)
		return COUNT_FRAGMENT;
	if (fragment & 0x2000)
		r->note |= NOTE_FIRST_FRAGMENT;
	read_ipv4(p, r);
	f->offset += header_bytes;
	*tcp_bytes = total_bytes - header_bytes;
	return COUNT_TCP;
}

/* What a record says of an IPv6 header. */
static __always_inline void read_ipv6(const __u8 *p, struct packet_record *r)
{
	r->ip_version = 6;
	r->traffic_class = load_be16(p) >> 4;
	r->ip_id = 0;
	r->ttl = p[7];
	copy16(r->src_addr, p + 8);
	copy16(r->dst_addr, p + 24);
}

/* RFC 8200; extension headers are followed up to MAX_IPV6_EXTENSIONS. */
static __always_inline int parse_ipv6(struct frame *f, struct packet_record *r, __u64 *tcp_bytes)
{
	const __u8 *p = bytes_at(f, f->offset, IPV6_HEADER_BYTES);
	__u64 payload_bytes, left, end, bytes;
	__u32 i;
	__u8 protocol;

	if (!p)
		return missing(f, f->offset, IPV6_HEADER_BYTES, COUNT_MALFORMED_IPV6);
	if (p[0] >> 4 != 6)
		return COUNT_MALFORMED_IPV6;
	left = f->frame_bytes - f->offset - IPV6_HEADER_BYTES;
	payload_bytes = load_be16(p + 4);
	/* 0 is a jumbogram (RFC 2675) or "big TCP": the frame's length stands for it. */
	if (payload_bytes == 0 && (f->merged || left > IP_LENGTH_MAX))
		payload_bytes = left;
	if (f->frame_bytes < f->offset + IPV6_HEADER_BYTES || payload_bytes > left)
		return COUNT_MALFORMED_IPV6;
	read_ipv6(p, r);
	protocol = p[6];
	f->offset += IPV6_HEADER_BYTES;
	end = f->offset + payload_bytes;
	for (i = 0; i <= MAX_IPV6_EXTENSIONS; i++) {
		FORGET(f, f->offset);
		if (protocol == PROTOCOL_TCP) {
			*tcp_bytes = end - f->offset;
			return COUNT_TCP;
		}
		if (protocol != PROTOCOL_HOP_BY_HOP && protocol != PROTOCOL_ROUTING &&
		    protocol != PROTOCOL_FRAGMENT && protocol != PROTOCOL_AUTHENTICATION &&
		    protocol != PROTOCOL_DESTINATION && protocol != PROTOCOL_MOBILITY)
			return COUNT_NOT_TCP;
		if (f->offset + 8 > end)
			return COUNT_MALFORMED_IPV6_EXTENSION;
		p = bytes_at(f, f->offset, 8);
		if (!p)
			return missing(f, f->offset, 8, COUNT_MALFORMED_IPV6_EXTENSION);
		bytes = 8;
		if (protocol == PROTOCOL_FRAGMENT) {
			__u16 fragment = load_be16(p + 2);

			if (fragment & 0xfff8)
				return p[0] == PROTOCOL_TCP ? COUNT_FRAGMENT : COUNT_NOT_TCP;
			if (fragment & 1)
				r->note |= NOTE_FIRST_FRAGMENT;
		} else if (protocol == PROTOCOL_AUTHENTICATION) {
			bytes = ((__u64)p[1] + 2) * 4; /* RFC 4302 section 2.2 */
		} else {
			bytes = ((__u64)p[1] + 1) * 8;
		}
		if (f->offset + bytes > end)
			return COUNT_MALFORMED_IPV6_EXTENSION;
		protocol = p[0];
		f->offset += bytes;
	}
	return COUNT_MALFORMED_IPV6_EXTENSION;
}

/* After parse_link: everything above it.  frame_bytes and segments are for the caller, who knows of offloads. */
static __always_inline int parse_network(struct frame *f, struct packet_record *r)
{
	__u64 tcp_bytes = 0;
	int verdict = COUNT_NOT_TCP;

	if (f->ethertype == ETHERTYPE_IPV4)
		verdict = parse_ipv4(f, r, &tcp_bytes);
	else if (f->ethertype == ETHERTYPE_IPV6)
		verdict = parse_ipv6(f, r, &tcp_bytes);
	return verdict == COUNT_TCP ? parse_tcp(f, tcp_bytes, r) : verdict;
}

#endif
