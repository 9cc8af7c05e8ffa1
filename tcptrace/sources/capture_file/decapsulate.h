/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Bytes of one captured frame -> its TCP segment, through whatever carries it.
 *
 * What Wireshark enters by default is the measure: TCP at any depth counts, the outermost
 * header of several; what ICMP errors and sFlow quote does not.
 */
#ifndef TCPTRACE_DECAPSULATE_H
#define TCPTRACE_DECAPSULATE_H

#include "link_layers.h"
#include "udp.h"

/* Layers of one frame: against frames made to nest without end. Wireshark's limit, 500, counts other things too. */
#define STEPS_MAX 256

/* The state of one source: IP fragments that wait for others. 0 without memory. */
static inline struct decapsulator *decapsulator_new(void)
{
	return calloc(1, sizeof(struct decapsulator));
}

static inline void decapsulator_free(struct decapsulator *d)
{
	while (d->oldest)
		forget_datagram(d, d->oldest);
	free(d->whole);
	free(d);
}

/* Datagrams given up before all their fragments came: too old, or too many of them. */
static inline __u64 decapsulator_dropped(const struct decapsulator *d)
{
	return d->dropped;
}

static __always_inline int step(struct walk *w, int layer)
{
	switch (layer) {
	case LAYER_ETHERNET:
		return step_ethernet(w);
	case LAYER_ETHERTYPE:
		return step_ethertype(w);
	case LAYER_LLC:
		return step_llc(w);
	case LAYER_SNAP:
		return step_snap(w, 2);
	case LAYER_TOKEN_RING:
		return step_token_ring(w);
	case LAYER_FDDI:
		return step_fddi(w);
	case LAYER_MPLS:
		return step_mpls(w);
	case LAYER_PPP:
		return step_ppp(w);
	case LAYER_PPP_HDLC:
		return step_ppp_hdlc(w);
	case LAYER_FRAME_RELAY:
		return step_frame_relay(w);
	case LAYER_NSH:
		return step_nsh(w);
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
 * good until the next call.  COUNT_TOO_DEEP says that there were more than STEPS_MAX layers.
 */
static inline int parse_captured(struct decapsulator *d, const __u8 *bytes, __u32 captured, __u32 original,
				 __u32 link_type, __u64 time_ns, struct packet_record *r, struct carried *where)
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
	return layer > PARSE_UNSUPPORTED_LINK ? COUNT_TOO_DEEP : layer;
}

#endif
