/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Bytes of one captured frame -> its TCP segment, through whatever carries it.
 *
 * What Wireshark enters by default is the measure: TCP at any depth counts, the outermost
 * header of several; what ICMP errors and sFlow quote does not.
 */
#ifndef TCPTRACE_DECAPSULATE_H
#define TCPTRACE_DECAPSULATE_H

#include <stdlib.h>

#include "link_layers.h"
#include "network.h"

/* Every step takes at least a byte or a layer off; Wireshark gives up a little later. */
#define STEPS_MAX 256

struct decapsulator {
	__u64 fragments_dropped;
};

/* 0 without memory. */
static struct decapsulator *decapsulator_new(void)
{
	return calloc(1, sizeof(struct decapsulator));
}

static void decapsulator_free(struct decapsulator *d)
{
	free(d);
}

static __always_inline int step(struct walk *w, int layer)
{
	switch (layer) {
	case LAYER_ETHERNET:
		return step_ethernet(w);
	case LAYER_ETHERTYPE:
		return step_ethertype(w);
	case LAYER_RAW_IP:
		return step_raw_ip(w);
	case LAYER_IPV4:
		return step_ipv4(w);
	case LAYER_IPV6:
		return step_ipv6(w);
	case LAYER_IP_PAYLOAD:
		return step_ip_payload(w);
	case LAYER_TCP:
		return step_tcp(w);
	}
	return COUNT_NOT_TCP;
}

/*
 * `captured` of `original` bytes of a frame, `link_type` the LINKTYPE_ number of its file.
 *
 * The verdict is enum counter's, PARSE_NEED_MORE where the snap length cut the headers, or PARSE_UNSUPPORTED_LINK.
 * With COUNT_TCP `r` is filled but for time_ns, direction, segments and frame_bytes, and so is `where`, which stays
 * good until the next call.
 */
static int parse_captured(struct decapsulator *d, const __u8 *bytes, __u32 captured, __u32 original, __u32 link_type,
			  __u64 time_ns, struct packet_record *r, struct carried *where)
{
	struct walk w = {
		.at = bytes,
		.captured = captured,
		.original = original > captured ? original : captured,
		.time_ns = time_ns,
		.r = r,
		.where = where,
		.d = d,
	};
	int layer, steps;

	r->vlan_count = 0;
	r->vlan_outer = 0;
	r->vlan_inner = 0;
	r->note = 0;
	__builtin_memset(r->src_mac, 0, 6);
	__builtin_memset(r->dst_mac, 0, 6);
	layer = step_link(&w, link_type);
	for (steps = 0; steps < STEPS_MAX && layer > PARSE_UNSUPPORTED_LINK; steps++)
		layer = step(&w, layer);
	return layer > PARSE_UNSUPPORTED_LINK ? COUNT_NOT_TCP : layer;
}

#endif
