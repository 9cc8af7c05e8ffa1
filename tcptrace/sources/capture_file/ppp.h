/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Serial lines: PPP, Cisco HDLC, Frame Relay. */
#ifndef TCPTRACE_PPP_H
#define TCPTRACE_PPP_H

#include "ethernet.h"

#define HDLC_ADDRESS_ALL 0xff
#define HDLC_UNNUMBERED 3
#define HDLC_UNNUMBERED_INFORMATION 0x03
#define CISCO_UNICAST 0x0f
#define CISCO_MULTICAST 0x8f
#define PPP_MULTILINK_BOTH 0xc0 /* first fragment and last */
#define PPP_BRIDGE_CHECKED 0x80
#define PPP_BRIDGE_CONTROL 0x10
#define PPP_BRIDGE_PADDING 0x0f

enum ppp_protocol {
	PPP_IPV4 = 0x21,
	PPP_BRIDGED = 0x31,   /* RFC 3518 */
	PPP_MULTILINK = 0x3d, /* RFC 1990 */
	PPP_IPV6 = 0x57,
	PPP_MPLS = 0x281,     /* RFC 3032 */
	PPP_MPLS_MULTICAST = 0x283,
};

/* RFC 2427, ISO/IEC TR 9577. */
enum network_layer_id {
	NLPID_SNAP = 0x80,
	NLPID_IPV6 = 0x8e,
	NLPID_IPV4 = 0xcc,
	NLPID_PPP = 0xcf,
};

/* RFC 1990: what was not split is as good as plain PPP. */
static int step_ppp_multilink(struct walk *w)
{
	const __u8 *p = ahead(w, 4);

	if (!p)
		return cut_short(w, 4, COUNT_NOT_TCP);
	if ((p[0] & PPP_MULTILINK_BOTH) != PPP_MULTILINK_BOTH)
		return COUNT_NOT_TCP;
	return skip_to(w, 4, LAYER_PPP);
}

/* RFC 3518 section 4.2: flags with the padding behind the frame, then MAC type 1, which is Ethernet. */
static int step_ppp_bridged(struct walk *w)
{
	const __u8 *p = ahead(w, 2);

	if (!p)
		return cut_short(w, 2, COUNT_NOT_TCP);
	if (p[0] & PPP_BRIDGE_CONTROL || p[1] != 1)
		return COUNT_NOT_TCP;
	pass(w, 2);
	if (w->original < (p[0] & PPP_BRIDGE_PADDING))
		return COUNT_MALFORMED_LINK;
	end_after(w, w->original - (p[0] & PPP_BRIDGE_PADDING));
	return p[0] & PPP_BRIDGE_CHECKED ? checked_frame(w, 0) : LAYER_ETHERNET;
}

/* RFC 1661 section 2: an odd first byte is the whole protocol field (section 6.5). */
static int step_ppp(struct walk *w)
{
	const __u8 *p = ahead(w, 1);
	__u32 protocol;

	if (!p)
		return cut_short(w, 1, COUNT_NOT_TCP);
	protocol = p[0];
	if (protocol % 2 == 0) {
		if (!ahead(w, 2))
			return cut_short(w, 2, COUNT_NOT_TCP);
		protocol = load_be16(p);
		pass(w, 1);
	}
	pass(w, 1);
	switch (protocol) {
	case PPP_IPV4:
	case ETHERTYPE_IPV4:
		return LAYER_IPV4;
	case PPP_IPV6:
	case ETHERTYPE_IPV6:
		return LAYER_IPV6;
	case PPP_MPLS:
	case PPP_MPLS_MULTICAST:
		return LAYER_MPLS;
	case PPP_MULTILINK:
		return step_ppp_multilink(w);
	case PPP_BRIDGED:
		return step_ppp_bridged(w);
	}
	return COUNT_NOT_TCP;
}

/* What follows a Cisco HDLC header or a Frame Relay address, in ethertypes; 0 if nothing that leads to IP. */
static int cisco_layer(__u32 type)
{
	switch (type) {
	case ETHERTYPE_IPV4:
		return LAYER_IPV4;
	case ETHERTYPE_IPV6:
		return LAYER_IPV6;
	case ETHERTYPE_MPLS:
	case ETHERTYPE_MPLS_MULTICAST:
		return LAYER_MPLS;
	case ETHERTYPE_BRIDGED:
		return LAYER_ETHERNET;
	}
	return 0;
}

static int cisco_next(__u32 type)
{
	int next = cisco_layer(type);

	return next ? next : COUNT_NOT_TCP;
}

/* RFC 1547 section 4.3.1: address, 0, ethertype. */
static int step_cisco_hdlc(struct walk *w)
{
	const __u8 *p = ahead(w, 4);

	if (!p)
		return cut_short(w, 4, COUNT_MALFORMED_LINK);
	pass(w, 4);
	return cisco_next(load_be16(p + 2));
}

/* RFC 1662: address and control may be left out. */
static int step_ppp_hdlc(struct walk *w)
{
	const __u8 *p = ahead(w, 1);

	if (!p)
		return cut_short(w, 1, COUNT_MALFORMED_LINK);
	if (p[0] == CISCO_UNICAST || p[0] == CISCO_MULTICAST)
		return step_cisco_hdlc(w);
	return skip_to(w, p[0] == HDLC_ADDRESS_ALL ? 2 : 0, LAYER_PPP);
}

/* RFC 2427 section 4: behind the control field, possibly padded. */
static int step_network_layer_id(struct walk *w)
{
	const __u8 *p = ahead(w, 1);

	if (p && *p == 0) {
		pass(w, 1);
		p = ahead(w, 1);
	}
	if (!p)
		return cut_short(w, 1, COUNT_NOT_TCP);
	pass(w, 1);
	switch (*p) {
	case NLPID_SNAP:
		return step_snap(w, 0);
	case NLPID_IPV4:
		return LAYER_IPV4;
	case NLPID_IPV6:
		return LAYER_IPV6;
	case NLPID_PPP:
		return LAYER_PPP;
	}
	return COUNT_NOT_TCP;
}

/* Q.922 section 3.2: an address of 2 to 4 bytes, its last one odd; then Cisco's ethertype or RFC 2427's control field. */
static int step_frame_relay(struct walk *w)
{
	const __u8 *p;
	__u32 bytes = 0;
	int next;

	do {
		bytes++;
		p = ahead(w, bytes + 2);
		if (!p)
			return cut_short(w, bytes + 2, COUNT_MALFORMED_LINK);
	} while (!(p[bytes - 1] & 1));
	pass(w, bytes);
	p += bytes;
	next = p[0] == HDLC_UNNUMBERED_INFORMATION ? 0 : cisco_layer(load_be16(p));
	if (next)
		return skip_to(w, 2, next);
	pass(w, p[0] % 4 == HDLC_UNNUMBERED ? 1 : 2);
	return step_network_layer_id(w);
}

#endif
