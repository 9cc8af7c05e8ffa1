/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What IP carries besides TCP that may carry TCP itself: IP protocols, and UDP ports as Wireshark knows them. */
#ifndef TCPTRACE_TUNNELS_H
#define TCPTRACE_TUNNELS_H

#include "network.h"
#include "ppp.h"

/* IANA's numbers, besides those of parse.h. */
enum ip_protocol {
	PROTOCOL_IPV4 = 4,
	PROTOCOL_UDP = 17,
	PROTOCOL_IPV6 = 41,
	PROTOCOL_GRE = 47,
	PROTOCOL_ETHERIP = 97,
	PROTOCOL_L2TP = 115,
	PROTOCOL_UDP_LITE = 136,
	PROTOCOL_MPLS = 137,
	PROTOCOL_ETHERNET = 143,
};

enum udp_port {
	PORT_MOBILE_IP = 434,
	PORT_L2TP = 1701,
	PORT_GTP_USER = 2152,
	PORT_GTP_PRIME = 3386,
	PORT_TEREDO = 3544,
	PORT_LISP = 4341,
	PORT_GRE = 4754,
	PORT_VXLAN = 4789,
	PORT_VXLAN_GPE = 4790,
	PORT_AYIYA = 5072,
	PORT_GENEVE = 6081,
	PORT_MPLS = 6635,
	PORT_JUNIPER_MIRROR = 30030,
	PORT_TZSP = 37008,
};

/* GRE's protocols besides ethertypes. */
enum gre_protocol {
	GRE_ERSPAN_3 = 0x22eb,
	GRE_EOIP = 0x6400, /* MikroTik */
	GRE_FRAME_RELAY = 0x6559,
	GRE_PPP = 0x880b,  /* RFC 2637 */
	GRE_WCCP = 0x883e,
	GRE_ERSPAN = 0x88be,
};

#define GRE_CHECKSUM 0x8000
#define GRE_ROUTING 0x4000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_ACKNOWLEDGMENT 0x0080
#define GRE_VERSION 0x0007
#define UDP_HEADER_BYTES 8

/* ERSPAN type II (version 1) has 8 bytes; III (version 2) 12, 8 more with its last bit, and says what the frame is. */
static int step_erspan(struct walk *w)
{
	const __u8 *p = ahead(w, 12);

	if (!p)
		return cut_short(w, 12, COUNT_NOT_TCP);
	switch (p[0] >> 4) {
	case 1:
		return skip_to(w, 8, LAYER_ETHERNET);
	case 2:
		if (p[10] >> 2 & 0x1f)
			return COUNT_NOT_TCP;
		return skip_to(w, p[11] & 1 ? 20 : 12, LAYER_ETHERNET);
	}
	return COUNT_NOT_TCP;
}

static int gre_next(struct walk *w, __u32 flags, __u32 protocol)
{
	const __u8 *p;

	switch (protocol) {
	case ETHERTYPE_IPV4:
	case ETHERTYPE_IPV6:
	case ETHERTYPE_BRIDGED:
	case ETHERTYPE_MPLS:
	case ETHERTYPE_MPLS_MULTICAST:
	case ETHERTYPE_NSH:
		w->protocol = protocol;
		return LAYER_ETHERTYPE;
	case ETHERTYPE_CISCO_METADATA: /* ends with 6 bytes of its own, the protocol in front */
		p = ahead(w, 8);
		if (!p)
			return cut_short(w, 8, COUNT_NOT_TCP);
		pass(w, 8);
		return cisco_next(load_be16(p));
	case GRE_WCCP: /* version 2 has 4 bytes of its own */
		p = ahead(w, 1);
		return skip_to(w, p && *p >> 4 != 4 ? 4 : 0, LAYER_IPV4);
	case GRE_EOIP:
		return LAYER_ETHERNET;
	case GRE_FRAME_RELAY:
		return LAYER_FRAME_RELAY;
	case GRE_PPP:
		return LAYER_PPP_HDLC;
	case GRE_ERSPAN: /* type I has no header, and no sequence numbers */
		return flags & GRE_SEQUENCE ? step_erspan(w) : LAYER_ETHERNET;
	case GRE_ERSPAN_3:
		return step_erspan(w);
	}
	return COUNT_NOT_TCP;
}

/* RFC 1701's source routes, of which the last is empty; 0 if they are all passed, else a verdict. */
static int pass_gre_routes(struct walk *w)
{
	const __u8 *p;
	__u32 bytes;

	for (;;) {
		p = ahead(w, 4);
		if (!p)
			return cut_short(w, 4, COUNT_NOT_TCP);
		bytes = p[3];
		if (!ahead(w, 4 + bytes))
			return cut_short(w, 4 + bytes, COUNT_NOT_TCP);
		pass(w, 4 + bytes);
		if (bytes == 0 && load_be16(p) == 0)
			return 0;
	}
}

/* RFC 2784, RFC 2890; version 1, RFC 2637, has an acknowledgment besides. */
static int step_gre(struct walk *w)
{
	const __u8 *p = ahead(w, 4);
	__u32 flags, protocol, bytes = 4;
	int verdict;

	if (!p)
		return cut_short(w, 4, COUNT_NOT_TCP);
	flags = load_be16(p);
	protocol = load_be16(p + 2);
	if (flags & (GRE_CHECKSUM | GRE_ROUTING))
		bytes += 4;
	if (flags & GRE_KEY)
		bytes += 4;
	if (flags & GRE_SEQUENCE)
		bytes += 4;
	if (protocol == GRE_PPP && flags & GRE_VERSION && flags & GRE_ACKNOWLEDGMENT)
		bytes += 4;
	if (!ahead(w, bytes))
		return cut_short(w, bytes, COUNT_NOT_TCP);
	pass(w, bytes);
	if (flags & GRE_ROUTING) {
		verdict = pass_gre_routes(w);
		if (verdict)
			return verdict;
	}
	return gre_next(w, flags, protocol);
}

/* RFC 8300 section 2.2: what follows a header of `bytes` that says so in the numbers of service function chaining. */
static int chained_next(struct walk *w, __u32 bytes, __u32 number)
{
	static const int next[] = { COUNT_NOT_TCP, LAYER_IPV4, LAYER_IPV6, LAYER_ETHERNET, LAYER_NSH, LAYER_MPLS };

	return number < sizeof(next) / sizeof(*next) ? skip_to(w, bytes, next[number]) : COUNT_NOT_TCP;
}

/* RFC 8300: the length is in words of 4 bytes; type 1 has always 6. */
static int step_nsh(struct walk *w)
{
	const __u8 *p = ahead(w, 8);
	__u32 bytes;

	if (!p)
		return cut_short(w, 8, COUNT_NOT_TCP);
	bytes = p[2] == 1 ? 24 : (p[1] & 0x3f) * 4;
	return chained_next(w, bytes < 8 ? 8 : bytes, p[3]);
}

/* The generic extension of VXLAN (draft-ietf-nvo3-vxlan-gpe). */
static int step_vxlan_gpe(struct walk *w)
{
	const __u8 *p = ahead(w, 8);

	return p ? chained_next(w, 8, p[3]) : cut_short(w, 8, COUNT_NOT_TCP);
}

/* RFC 8926. */
static int step_geneve(struct walk *w)
{
	const __u8 *p = ahead(w, 8);

	if (!p)
		return cut_short(w, 8, COUNT_NOT_TCP);
	return skip_to_type(w, 8 + (p[0] & 0x3f) * 4, load_be16(p + 2));
}

/* RFC 2661 section 3.1: version 2's data messages carry PPP. */
static int step_l2tp(struct walk *w)
{
	const __u8 *p = ahead(w, 2);
	__u32 flags, bytes = 6;

	if (!p)
		return cut_short(w, 2, COUNT_NOT_TCP);
	flags = load_be16(p);
	if ((flags & 0xf) != 2 || flags & 0x8000)
		return COUNT_NOT_TCP;
	if (flags & 0x4000) {
		if (!ahead(w, 4))
			return cut_short(w, 4, COUNT_NOT_TCP);
		end_after(w, load_be16(p + 2));
		bytes += 2;
	}
	if (flags & 0x0800)
		bytes += 4;
	if (flags & 0x0200) { /* padded up to the payload */
		if (!ahead(w, bytes + 2))
			return cut_short(w, bytes + 2, COUNT_NOT_TCP);
		bytes += 2 + load_be16(p + bytes);
	}
	return skip_to(w, bytes, LAYER_PPP_HDLC);
}

/* RFC 4380 section 5.1.1: authentication and origin may stand before the IPv6 packet. */
static int step_teredo(struct walk *w)
{
	const __u8 *p = ahead(w, 4);

	if (p && load_be16(p) == 1) {
		if (!ahead(w, 13 + p[2] + p[3]))
			return cut_short(w, 13 + p[2] + p[3], COUNT_NOT_TCP);
		pass(w, 13 + p[2] + p[3]);
		p = ahead(w, 4);
	}
	if (!p)
		return cut_short(w, 4, COUNT_NOT_TCP);
	return load_be16(p) == 0 ? skip_to(w, 8, LAYER_IPV6) : LAYER_IPV6;
}

/* TaZmen Sniffer Protocol: tags up to an end, then the frame. */
static int step_tzsp(struct walk *w)
{
	const __u8 *p = ahead(w, 4);
	int next;

	if (!p)
		return cut_short(w, 4, COUNT_NOT_TCP);
	if (p[1] == 4 || p[1] == 5) /* keep-alive, port opener */
		return COUNT_NOT_TCP;
	switch (load_be16(p + 2)) {
	case 1:
		next = LAYER_ETHERNET;
		break;
	case 2:
		next = LAYER_TOKEN_RING;
		break;
	case 4:
		next = LAYER_PPP;
		break;
	case 5:
		next = LAYER_FDDI;
		break;
	case 7:
		next = LAYER_RAW_IP;
		break;
	default:
		return COUNT_NOT_TCP;
	}
	pass(w, 4);
	for (;;) {
		p = ahead(w, 1);
		if (!p)
			return cut_short(w, 1, COUNT_NOT_TCP);
		if (*p > 1 && !ahead(w, 2))
			return cut_short(w, 2, COUNT_NOT_TCP);
		if (*p <= 1) { /* 0 is padding, 1 the end */
			pass(w, 1);
			if (*p == 1)
				return next;
		} else if (skip_to(w, 2 + p[1], next) != next) {
			return cut_short(w, 2 + p[1], COUNT_NOT_TCP);
		}
	}
}

/* Anything in anything: lengths of identity and signature in the header. */
static int step_ayiya(struct walk *w)
{
	const __u8 *p = ahead(w, 4);

	if (!p)
		return cut_short(w, 4, COUNT_NOT_TCP);
	if ((p[2] & 0xf) != 1) /* forward */
		return COUNT_NOT_TCP;
	return skip_to(w, 8 + (1u << (p[0] >> 4)) + (p[1] >> 4) * 4, ip_payload(w, p[3]));
}

/* The versions by which headers without a protocol field tell what follows. */
static int ip_behind(struct walk *w, __u32 bytes)
{
	const __u8 *p = ahead(w, bytes + 1);

	if (!p)
		return cut_short(w, bytes + 1, COUNT_NOT_TCP);
	if (p[bytes] >> 4 == 4)
		return skip_to(w, bytes, LAYER_IPV4);
	if (p[bytes] >> 4 == 6)
		return skip_to(w, bytes, LAYER_IPV6);
	return p[bytes] == HDLC_ADDRESS_ALL ? skip_to(w, bytes, LAYER_PPP_HDLC) : COUNT_NOT_TCP;
}

#endif
