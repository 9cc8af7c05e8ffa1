/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* IPv4, IPv6 with its extension headers, TCP: as lenient as Wireshark, whose counts people compare with. */
#ifndef TCPTRACE_NETWORK_H
#define TCPTRACE_NETWORK_H

#include "reassembly.h"

/* From the ports to the window: what Wireshark wants of a header before it puts it into a stream. */
#define TCP_HEADER_KNOWN_BYTES 16
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV4_OPTION_LOOSE_ROUTE 131
#define IPV4_OPTION_STRICT_ROUTE 137
#define IPV6_FRAGMENT_BYTES 8
#define IPV6_OPTION_JUMBO 0xc2
#define IPV6_ROUTING_TYPE_0 0   /* RFC 2460 */
#define IPV6_ROUTING_TYPE_2 2   /* RFC 6275 */
#define IPV6_ROUTING_SEGMENTS 4 /* RFC 8754 */
#define PROTOCOL_NONE 59
#define PROTOCOL_SHIM6 140

/* Two times no operation, then timestamps: what nearly all segments have that have options. */
#define TIMESTAMPS_ALONE 0x0101080a
#define TIMESTAMPS_HEADER_BYTES 32

/* RFC 9293 section 3.1; of the options what is there. */
static __always_inline int step_tcp(struct walk *w)
{
	struct packet_record *r = w->r;
	const __u8 *p = ahead(w, TCP_HEADER_KNOWN_BYTES);
	struct frame segment;
	__u64 header_bytes, end;

	if (!p)
		return cut_short(w, TCP_HEADER_KNOWN_BYTES, COUNT_MALFORMED_TCP);
	header_bytes = read_tcp(p, r);
	r->payload_bytes = 0;
	if (w->fragmented) /* the segment's length is not known */
		r->note |= NOTE_FIRST_FRAGMENT;
	else if (w->original > header_bytes)
		r->payload_bytes = w->original - header_bytes;
	if (header_bytes == TIMESTAMPS_HEADER_BYTES && ahead(w, TIMESTAMPS_HEADER_BYTES) &&
	    load_be32(p + TCP_HEADER_MIN_BYTES) == TIMESTAMPS_ALONE) {
		r->ts_value = load_be32(p + 24);
		r->ts_echo = load_be32(p + 28);
		r->options = OPTION_TIMESTAMPS;
	} else if (header_bytes > TCP_HEADER_MIN_BYTES) {
		end = header_bytes < w->original ? header_bytes : w->original;
		segment.window = p;
		segment.available = w->captured;
		parse_tcp_options(&segment, TCP_HEADER_MIN_BYTES, end, r);
	}
	return COUNT_TCP;
}

static __always_inline void carried_from(struct walk *w)
{
	w->where->ip = w->at;
	w->where->ip_bytes = w->captured;
	w->where->ip_original_bytes = w->original;
}

/*
 * The rest of the packet is a fragment: keep it, and go on with the payload of the whole datagram if it is complete.
 * `header` and its `header_bytes` then stand before that, in a datagram of their own.  1, or 0 if bytes are missing.
 */
static inline int reassembled(struct walk *w, struct datagram_key *key, __u32 offset, int more, const __u8 *header,
			      __u32 header_bytes)
{
	struct decapsulator *d = w->d;
	__u32 bytes;

	__builtin_memcpy(key->src, w->r->src_addr, 16);
	__builtin_memcpy(key->dst, w->r->dst_addr, 16);
	key->ip_version = w->r->ip_version;
	bytes = add_fragment(d, key, w->time_ns, w->at, offset, w->captured, more);
	if (!bytes)
		return 0;
	w->at = d->whole + DATAGRAM_HEADER_BYTES - header_bytes;
	__builtin_memcpy(d->whole + DATAGRAM_HEADER_BYTES - header_bytes, header, header_bytes);
	w->captured = w->original = header_bytes + bytes;
	carried_from(w);
	pass(w, header_bytes);
	return 1;
}

static inline int is_local(const __u8 *ipv4)
{
	return ipv4[0] == 10 || (ipv4[0] == 172 && ipv4[1] >> 4 == 1) || (ipv4[0] == 192 && ipv4[1] == 168) ||
	       (ipv4[0] == 169 && ipv4[1] == 254);
}

/* RFC 1071, of a header whose own field is 0. */
static inline __u16 ipv4_checksum(const __u8 *header, __u32 bytes)
{
	__u32 i, sum = 0;

	for (i = 0; i < bytes; i += 2)
		sum += load_be16(header + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static inline void store_be16(__u8 *to, __u32 value)
{
	to[0] = value >> 8;
	to[1] = value;
}

/* RFC 791 section 3.2; the header at p is passed, the payload a fragment's. */
static int step_ipv4_fragment(struct walk *w, const __u8 *p, __u32 header_bytes)
{
	__u32 field = load_be16(p + 6);
	struct datagram_key key = { .id = load_be16(p + 4), .protocol = p[9] };
	__u8 header[DATAGRAM_HEADER_BYTES], *whole;

	if (!w->captured || w->captured < w->original || w->ip_cut) {
		if (field & IPV4_FRAGMENT_OFFSET)
			return COUNT_FRAGMENT;
		/* The rest is never to be known, but the segment was seen. */
		w->fragmented = 1;
		return ip_payload(w, p[9]);
	}
	if (is_local(p + 12) || is_local(p + 16)) /* the same addresses may be used in several VLANs */
		key.vlan_id = w->vlan_id;
	__builtin_memcpy(header, p, header_bytes);
	if (!reassembled(w, &key, (field & IPV4_FRAGMENT_OFFSET) * 8, field & IPV4_MORE_FRAGMENTS, header, header_bytes))
		return COUNT_FRAGMENT;
	whole = w->d->whole + DATAGRAM_HEADER_BYTES - header_bytes;
	store_be16(whole + 2, w->where->ip_bytes <= IP_LENGTH_MAX ? w->where->ip_bytes : 0);
	store_be16(whole + 6, 0);
	store_be16(whole + 10, 0);
	store_be16(whole + 10, ipv4_checksum(whole, header_bytes));
	return ip_payload(w, whole[9]);
}

/* RFC 791 section 3.1: a source route's last address is where the packet goes. */
static void read_source_route(struct packet_record *r, const __u8 *p, __u32 header_bytes)
{
	__u32 at = IPV4_HEADER_MIN_BYTES, bytes;

	while (at < header_bytes && p[at] != 0) {
		if (p[at] == 1) {
			at++;
			continue;
		}
		if (at + 2 > header_bytes)
			return;
		bytes = p[at + 1];
		if (bytes < 2 || at + bytes > header_bytes)
			return;
		if (p[at] == IPV4_OPTION_LOOSE_ROUTE || p[at] == IPV4_OPTION_STRICT_ROUTE) {
			if (bytes >= 7 && p[at + 2] >= 4 && p[at + 2] % 4 == 0 && p[at + 2] <= bytes)
				map_ipv4(r->dst_addr, p + at + bytes - 4);
			return;
		}
		at += bytes;
	}
}

/* RFC 791. */
static __always_inline int step_ipv4(struct walk *w)
{
	const __u8 *p = ahead(w, IPV4_HEADER_MIN_BYTES);
	__u32 header_bytes, total_bytes;

	if (!p)
		return cut_short(w, IPV4_HEADER_MIN_BYTES, COUNT_MALFORMED_IPV4);
	if (p[0] >> 4 == 6)
		return LAYER_IPV6;
	header_bytes = (p[0] & 0xf) * 4;
	if (p[0] >> 4 != 4 || header_bytes < IPV4_HEADER_MIN_BYTES)
		return COUNT_MALFORMED_IPV4;
	total_bytes = load_be16(p + 2);
	/* 0 is left to the network card to fill in (segmentation offload): the layer around tells the length. */
	if (total_bytes == 0)
		total_bytes = w->original;
	if (total_bytes < header_bytes)
		return COUNT_MALFORMED_IPV4;
	w->ip_cut = total_bytes > w->original;
	end_after(w, total_bytes);
	if (!ahead(w, header_bytes))
		return cut_short(w, header_bytes, COUNT_MALFORMED_IPV4);
	carried_from(w);
	read_ipv4(p, w->r);
	if (header_bytes > IPV4_HEADER_MIN_BYTES)
		read_source_route(w->r, p, header_bytes);
	pass(w, header_bytes);
	w->fragmented = 0;
	if (load_be16(p + 6) & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))
		return step_ipv4_fragment(w, p, header_bytes);
	return ip_payload(w, p[9]);
}

/* RFC 2675: the length of a jumbogram, in a hop-by-hop header at p of which `bytes` are there; 0 if it is none. */
static __u32 jumbo_bytes(const __u8 *p, __u32 bytes)
{
	__u32 at = 2, end;

	if (bytes < 8)
		return 0;
	end = (p[1] + 1) * 8;
	if (end > bytes)
		end = bytes;
	while (at + 6 <= end) {
		if (p[at] == IPV6_OPTION_JUMBO)
			return p[at + 1] == 4 ? load_be32(p + at + 2) : 0;
		at += p[at] == 0 ? 1 : 2 + p[at + 1];
	}
	return 0;
}

/* RFC 8200. */
static __always_inline int step_ipv6(struct walk *w)
{
	const __u8 *p = ahead(w, IPV6_HEADER_BYTES);
	__u32 payload_bytes, left;

	if (!p)
		return cut_short(w, IPV6_HEADER_BYTES, COUNT_MALFORMED_IPV6);
	if (p[0] >> 4 != 6)
		return COUNT_MALFORMED_IPV6;
	left = w->original - IPV6_HEADER_BYTES;
	payload_bytes = load_be16(p + 4);
	if (payload_bytes == 0 && p[6] == PROTOCOL_HOP_BY_HOP)
		payload_bytes = jumbo_bytes(p + IPV6_HEADER_BYTES, w->captured - IPV6_HEADER_BYTES);
	else if (payload_bytes == 0 && left > IP_LENGTH_MAX)
		payload_bytes = left; /* "big TCP": the layer around tells the length */
	if (payload_bytes == 0)
		return COUNT_MALFORMED_IPV6;
	w->ip_cut = payload_bytes > left;
	if (!w->ip_cut)
		end_after(w, IPV6_HEADER_BYTES + payload_bytes);
	carried_from(w);
	read_ipv6(p, w->r);
	pass(w, IPV6_HEADER_BYTES);
	return ip_payload(w, p[6]);
}

/* RFC 8200 section 4.5; p is the fragment header. */
static int step_ipv6_fragment(struct walk *w, const __u8 *p)
{
	__u32 field = load_be16(p + 2);
	struct datagram_key key = { .id = load_be32(p + 4) };
	__u8 header[IPV6_HEADER_BYTES], *whole, following = p[0];

	pass(w, IPV6_FRAGMENT_BYTES);
	if (!(field & 0xfff9) || w->r->ip_version != 6)
		return ip_payload(w, following);
	if (!w->captured || w->captured < w->original || w->ip_cut)
		return COUNT_FRAGMENT;
	__builtin_memcpy(header, w->where->ip, IPV6_HEADER_BYTES);
	if (!reassembled(w, &key, field & 0xfff8, field & 1, header, IPV6_HEADER_BYTES))
		return COUNT_FRAGMENT;
	/* The headers before the fragment's are left out. */
	whole = w->d->whole + DATAGRAM_HEADER_BYTES - IPV6_HEADER_BYTES;
	store_be16(whole + 4, w->captured <= IP_LENGTH_MAX ? w->captured : 0);
	whole[6] = following;
	w->fragmented = 0;
	return ip_payload(w, following);
}

/* RFC 8200 section 4.4: until no segments are left, the address where the packet goes is in here. */
static void read_routing(struct packet_record *r, const __u8 *p, __u32 bytes)
{
	__u32 at;

	if (p[3] == 0)
		return;
	switch (p[2]) {
	case IPV6_ROUTING_TYPE_0: /* the last */
		at = 8 + (bytes - 8) / 16 * 16 - 16;
		break;
	case IPV6_ROUTING_TYPE_2:
	case IPV6_ROUTING_SEGMENTS: /* the first */
		at = 8;
		break;
	default:
		return;
	}
	if (bytes >= 24)
		__builtin_memcpy(r->dst_addr, p + at, 16);
}

/* RFC 8200 section 4, RFC 4302, RFC 5533: headers that say what follows in their first byte, their length in the next. */
static int step_extension(struct walk *w)
{
	const __u8 *p = ahead(w, 8);
	__u32 bytes;

	if (!p)
		return cut_short(w, 8, COUNT_MALFORMED_IPV6_EXTENSION);
	if (w->protocol == PROTOCOL_FRAGMENT)
		return step_ipv6_fragment(w, p);
	if (w->protocol == PROTOCOL_AUTHENTICATION)
		bytes = (p[1] + 2) * 4;
	else
		bytes = (p[1] + 1) * 8;
	if (!ahead(w, bytes))
		return cut_short(w, bytes, COUNT_MALFORMED_IPV6_EXTENSION);
	if (w->protocol == PROTOCOL_ROUTING && w->r->ip_version == 6)
		read_routing(w->r, p, bytes);
	pass(w, bytes);
	return ip_payload(w, p[0]);
}

#endif
