/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * A walk through the headers of one captured frame.
 *
 * Every header is a step: it looks at the bytes ahead, passes them, and says which layer
 * comes next, or the verdict that ends the walk.  `original` is what the headers so far
 * say of the bytes that follow, as far as the frame goes; `captured` is never more.
 */
#ifndef TCPTRACE_LAYERS_H
#define TCPTRACE_LAYERS_H

#include "parse.h"

/* A verdict besides enum counter's and PARSE_NEED_MORE: the file's link type is not known. */
#define PARSE_UNSUPPORTED_LINK (COUNTERS + 1)

/* What a step may say instead of a verdict. */
enum layer {
	LAYER_ETHERNET = PARSE_UNSUPPORTED_LINK + 1,
	LAYER_ETHERTYPE, /* walk.protocol is an ethertype */
	LAYER_LLC,
	LAYER_SNAP,
	LAYER_TOKEN_RING,
	LAYER_FDDI,
	LAYER_MPLS,
	LAYER_PPP,
	LAYER_PPP_HDLC,
	LAYER_FRAME_RELAY,
	LAYER_NSH,
	LAYER_RAW_IP, /* whichever version the first byte tells */
	LAYER_IPV4,
	LAYER_IPV6,
	LAYER_IP_PAYLOAD, /* walk.protocol is an IP protocol */
	LAYER_TCP,
};

/* Where in the frame the TCP segment was found. */
struct carried {
	const __u8 *ip;          /* the IP header that carries the segment */
	__u32 ip_bytes;          /* captured bytes of that packet */
	__u32 ip_original_bytes; /* its bytes on the wire */
};

struct decapsulator;

struct walk {
	const __u8 *at;    /* the header looked at next */
	__u32 captured;    /* bytes there are from there on */
	__u32 original;    /* bytes there were on the wire */
	__u32 protocol;    /* what comes next, for LAYER_ETHERTYPE and LAYER_IP_PAYLOAD */
	__u32 vlan_tags;
	__u16 vlan_id;     /* of the first tag that is not 0 */
	__u8 ip_cut;       /* the IP packet says it is longer than what is around it */
	__u8 fragmented;   /* the IP payload is that of a first fragment alone */
	__u64 time_ns;
	struct packet_record *r;
	struct carried *where;
	struct decapsulator *d;
};

/* The next `bytes`, or 0 where they are not all there. */
static __always_inline const __u8 *ahead(const struct walk *w, __u32 bytes)
{
	return bytes <= w->captured ? w->at : 0;
}

/* What is wrong where ahead() gave nothing: `verdict`, if there never was more. */
static __always_inline int cut_short(const struct walk *w, __u32 bytes, int verdict)
{
	return bytes > w->original ? verdict : PARSE_NEED_MORE;
}

/* Goes on behind `bytes` that are there. */
static __always_inline void pass(struct walk *w, __u32 bytes)
{
	w->at += bytes;
	w->captured -= bytes;
	w->original -= bytes;
}

/* What follows the next `bytes` does not belong to this layer: padding, trailers, checksums. */
static __always_inline void end_after(struct walk *w, __u32 bytes)
{
	if (w->original > bytes)
		w->original = bytes;
	if (w->captured > bytes)
		w->captured = bytes;
}

/* To the layer `next`, behind `bytes` that need not be looked at. */
static __always_inline int skip_to(struct walk *w, __u32 bytes, int next)
{
	if (bytes > w->captured)
		return cut_short(w, bytes, COUNT_NOT_TCP);
	pass(w, bytes);
	return next;
}

/* The same, to what an ethertype says. */
static __always_inline int skip_to_type(struct walk *w, __u32 bytes, __u32 ethertype)
{
	w->protocol = ethertype;
	return skip_to(w, bytes, LAYER_ETHERTYPE);
}

static __always_inline int ip_payload(struct walk *w, __u32 protocol)
{
	w->protocol = protocol;
	return protocol == PROTOCOL_TCP ? LAYER_TCP : LAYER_IP_PAYLOAD;
}

#endif
