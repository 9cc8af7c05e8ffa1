/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* IPv4, IPv6 with its extension headers, TCP: as lenient as Wireshark, whose counts people compare with. */
#ifndef TCPTRACE_NETWORK_H
#define TCPTRACE_NETWORK_H

#include "layers.h"

/* From the ports to the window: what Wireshark wants of a header before it puts it into a stream. */
#define TCP_HEADER_KNOWN_BYTES 16
#define PROTOCOL_NONE 59
#define PROTOCOL_SHIM6 140

/* RFC 9293 section 3.1; the rest of a header may be cut off. */
static __always_inline int step_tcp(struct walk *w)
{
	struct packet_record *r = w->r;
	const __u8 *p = ahead(w, TCP_HEADER_KNOWN_BYTES);
	struct frame segment;
	__u64 header_bytes, end;

	if (!p)
		return cut_short(w, TCP_HEADER_KNOWN_BYTES, COUNT_MALFORMED_TCP);
	header_bytes = read_tcp(p, r);
	r->payload_bytes = w->original > header_bytes ? w->original - header_bytes : 0;
	if (header_bytes > TCP_HEADER_MIN_BYTES) {
		end = header_bytes < w->original ? header_bytes : w->original;
		segment.window = p;
		segment.available = w->captured;
		parse_tcp_options(&segment, TCP_HEADER_MIN_BYTES, end, r);
	}
	return COUNT_TCP;
}

static __always_inline int ip_payload(struct walk *w, __u32 protocol)
{
	w->protocol = protocol;
	return protocol == PROTOCOL_TCP ? LAYER_TCP : LAYER_IP_PAYLOAD;
}

/* RFC 791. */
static __always_inline int step_ipv4(struct walk *w)
{
	const __u8 *p = ahead(w, IPV4_HEADER_MIN_BYTES);
	__u32 header_bytes, total_bytes, fragment;

	if (!p)
		return cut_short(w, IPV4_HEADER_MIN_BYTES, COUNT_MALFORMED_IPV4);
	if (p[0] >> 4 == 6)
		return LAYER_IPV6;
	header_bytes = (p[0] & 0xf) * 4;
	if (p[0] >> 4 != 4 || header_bytes < IPV4_HEADER_MIN_BYTES)
		return COUNT_MALFORMED_IPV4;
	total_bytes = load_be16(p + 2);
	/* 0 is left to the network card to fill in (segmentation offload). */
	if (total_bytes) {
		if (total_bytes < header_bytes)
			return COUNT_MALFORMED_IPV4;
		end_after(w, total_bytes);
	}
	w->where->ip = p;
	w->where->ip_bytes = w->captured;
	w->where->ip_original_bytes = w->original;
	if (!ahead(w, header_bytes))
		return cut_short(w, header_bytes, COUNT_MALFORMED_IPV4);
	read_ipv4(p, w->r);
	pass(w, header_bytes);
	fragment = load_be16(p + 6) & 0x3fff;
	if (fragment)
		return COUNT_FRAGMENT;
	return ip_payload(w, p[9]);
}

/* RFC 8200. */
static __always_inline int step_ipv6(struct walk *w)
{
	const __u8 *p = ahead(w, IPV6_HEADER_BYTES);
	__u32 payload_bytes;

	if (!p)
		return cut_short(w, IPV6_HEADER_BYTES, COUNT_MALFORMED_IPV6);
	if (p[0] >> 4 != 6)
		return COUNT_MALFORMED_IPV6;
	payload_bytes = load_be16(p + 4);
	/* 0 is a jumbogram (RFC 2675) or left to the network card: the layer around tells the length. */
	if (payload_bytes)
		end_after(w, IPV6_HEADER_BYTES + payload_bytes);
	w->where->ip = p;
	w->where->ip_bytes = w->captured;
	w->where->ip_original_bytes = w->original;
	read_ipv6(p, w->r);
	pass(w, IPV6_HEADER_BYTES);
	return ip_payload(w, p[6]);
}

/* RFC 8200 section 4: extension headers say their length in the second byte. */
static int step_ipv6_extension(struct walk *w)
{
	const __u8 *p = ahead(w, 8);
	__u32 bytes = 8;

	if (!p)
		return cut_short(w, 8, COUNT_MALFORMED_IPV6_EXTENSION);
	if (w->protocol == PROTOCOL_FRAGMENT) {
		if (load_be16(p + 2) & 0xfff9)
			return COUNT_FRAGMENT;
	} else if (w->protocol == PROTOCOL_AUTHENTICATION) {
		bytes = (p[1] + 2) * 4; /* RFC 4302 section 2.2 */
	} else {
		bytes = (p[1] + 1) * 8;
	}
	if (!ahead(w, bytes))
		return cut_short(w, bytes, COUNT_MALFORMED_IPV6_EXTENSION);
	pass(w, bytes);
	return ip_payload(w, p[0]);
}

static int step_ip_payload(struct walk *w)
{
	switch (w->protocol) {
	case PROTOCOL_HOP_BY_HOP:
	case PROTOCOL_ROUTING:
	case PROTOCOL_FRAGMENT:
	case PROTOCOL_AUTHENTICATION:
	case PROTOCOL_DESTINATION:
	case PROTOCOL_MOBILITY:
	case PROTOCOL_SHIM6:
		return step_ipv6_extension(w);
	}
	return COUNT_NOT_TCP;
}

#endif
