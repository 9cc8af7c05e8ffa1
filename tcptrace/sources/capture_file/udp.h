/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What an IP header's protocol says, and UDP's ports. */
#ifndef TCPTRACE_UDP_H
#define TCPTRACE_UDP_H

#include "gtp.h"
#include "tunnels.h"

/* 0 if nothing is known of that port. */
static int step_port(struct walk *w, __u32 port)
{
	const __u8 *p;

	switch (port) {
	case PORT_MOBILE_IP: /* RFC 3519 section 3.2: type 4 is a tunnel's data */
		p = ahead(w, 4);
		return p && p[0] == 4 ? skip_to(w, 4, LAYER_IPV4) : COUNT_NOT_TCP;
	case PORT_L2TP:
		return step_l2tp(w);
	case PORT_GTP_USER:
	case PORT_GTP_PRIME:
		return step_gtp(w);
	case PORT_TEREDO:
		return step_teredo(w);
	case PORT_LISP: /* RFC 9300 section 5 */
	case PORT_JUNIPER_MIRROR:
		return ip_behind(w, 8);
	case PORT_GRE: /* RFC 8086 */
		return step_gre(w);
	case PORT_VXLAN: /* RFC 7348 */
		return skip_to(w, 8, LAYER_ETHERNET);
	case PORT_VXLAN_GPE:
		return step_vxlan_gpe(w);
	case PORT_AYIYA:
		return step_ayiya(w);
	case PORT_GENEVE:
		return step_geneve(w);
	case PORT_MPLS: /* RFC 7510 */
		return LAYER_MPLS;
	case PORT_TZSP:
		return step_tzsp(w);
	}
	return 0;
}

/* RFC 768; the lower port is the likelier one, the other is tried if nobody knows it. */
static int step_udp(struct walk *w)
{
	const __u8 *p = ahead(w, UDP_HEADER_BYTES);
	__u32 source, destination, bytes;
	int next;

	if (!p)
		return cut_short(w, UDP_HEADER_BYTES, COUNT_NOT_TCP);
	source = load_be16(p);
	destination = load_be16(p + 2);
	bytes = load_be16(p + 4);
	if (w->protocol == PROTOCOL_UDP_LITE || (bytes == 0 && w->r->ip_version == 6)) /* RFC 3828, RFC 2675 section 4 */
		bytes = w->original;
	if (bytes < UDP_HEADER_BYTES)
		return COUNT_NOT_TCP;
	end_after(w, bytes);
	pass(w, UDP_HEADER_BYTES);
	next = step_port(w, source < destination ? source : destination);
	if (!next)
		next = step_port(w, source < destination ? destination : source);
	return next ? next : COUNT_NOT_TCP;
}

static int step_ip_payload(struct walk *w)
{
	switch (w->protocol) {
	case PROTOCOL_HOP_BY_HOP:
	case PROTOCOL_ROUTING:
	case PROTOCOL_FRAGMENT:
	case PROTOCOL_AUTHENTICATION:
	case PROTOCOL_DESTINATION:
	case PROTOCOL_SHIM6:
		return step_extension(w);
	case PROTOCOL_IPV4: /* RFC 2003 */
		return LAYER_IPV4;
	case PROTOCOL_IPV6: /* RFC 2473, RFC 4213 */
		return LAYER_IPV6;
	case PROTOCOL_UDP:
	case PROTOCOL_UDP_LITE:
		return step_udp(w);
	case PROTOCOL_GRE:
		return step_gre(w);
	case PROTOCOL_ETHERIP: /* RFC 3378 */
		return skip_to(w, 2, LAYER_ETHERNET);
	case PROTOCOL_MPLS: /* RFC 4023 */
		return LAYER_MPLS;
	case PROTOCOL_ETHERNET: /* RFC 8986 */
		return LAYER_ETHERNET;
	}
	return COUNT_NOT_TCP;
}

#endif
