/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The link types of capture files (tcpdump.org/linktypes.html): where their frames begin. */
#ifndef TCPTRACE_LINK_LAYERS_H
#define TCPTRACE_LINK_LAYERS_H

#include "tunnels.h"

/* Those of 802.11 are not among them: its frames are mostly encrypted, or in pieces. */
enum link_type {
	LINKTYPE_NULL = 0,
	LINKTYPE_ETHERNET = 1,
	LINKTYPE_TOKEN_RING = 6,
	LINKTYPE_ARCNET = 7,
	LINKTYPE_PPP = 9,
	LINKTYPE_FDDI = 10,
	DLT_RAW = 12,         /* LINKTYPE_RAW as some systems write it */
	DLT_RAW_OPENBSD = 14, /* the same */
	LINKTYPE_PPP_HDLC = 50,
	LINKTYPE_PPP_ETHER = 51,
	LINKTYPE_SYMANTEC = 99,
	LINKTYPE_ATM_RFC1483 = 100,
	LINKTYPE_RAW = 101,
	LINKTYPE_C_HDLC = 104,
	LINKTYPE_ATM_CLIP = 106,
	LINKTYPE_FRELAY = 107,
	LINKTYPE_LOOP = 108,
	LINKTYPE_ENC = 109,
	LINKTYPE_NETBSD_HDLC = 112,
	LINKTYPE_LINUX_SLL = 113,
	LINKTYPE_PFLOG = 117,
	LINKTYPE_IP_OVER_FC = 122,
	LINKTYPE_TZSP = 128,
	LINKTYPE_ARCNET_LINUX = 129,
	LINKTYPE_APPLE_IP_OVER_1394 = 138,
	LINKTYPE_PPI = 192,
	LINKTYPE_PPP_WITH_DIR = 204,
	LINKTYPE_MPLS = 219,
	LINKTYPE_IPV4 = 228,
	LINKTYPE_IPV6 = 229,
	LINKTYPE_NFLOG = 239,
	LINKTYPE_IPOIB = 242,
	LINKTYPE_PKTAP = 258,
	LINKTYPE_LINUX_SLL2 = 276,
};

#define SLL_HEADER_BYTES 16
#define SLL2_HEADER_BYTES 20
/* Linux's own protocol numbers end here, and ethertypes begin. */
#define SLL_OWN_PROTOCOLS_MAX 1536
#define ARPHRD_FRAD 770
#define ARPHRD_IPGRE 778
#define ARPHRD_NETLINK 824
#define NFLOG_PACKET_HEADER 1
#define NFLOG_PAYLOAD 9
#define PKTAP_PACKET 1
#define ARCNET_IP_1051 240
#define ARCNET_IP_1201 212
#define ARCNET_IPV6 196

static __u32 load_le32(const __u8 *p)
{
	return __builtin_bswap32(load_be32(p));
}

static __u32 load_le16(const __u8 *p)
{
	return __builtin_bswap16(load_be16(p));
}

/* The address families of the systems that write them into files. */
static int family_next(struct walk *w, __u32 family)
{
	switch (family) {
	case 2:
		return LAYER_IPV4;
	case 10: /* Linux */
	case 24: /* NetBSD, OpenBSD */
	case 28: /* FreeBSD */
	case 30: /* macOS */
		return LAYER_IPV6;
	}
	w->protocol = family;
	return family > LENGTH_MAX ? LAYER_ETHERTYPE : COUNT_NOT_TCP;
}

/* A header of `bytes` that begins with an address family, in the byte order of the host that captured. */
static int step_family(struct walk *w, __u32 bytes)
{
	const __u8 *p = ahead(w, bytes);
	__u32 family;

	if (!p)
		return cut_short(w, bytes, COUNT_MALFORMED_LINK);
	if (load_be16(p) == 0xff03)
		return LAYER_PPP_HDLC;
	pass(w, bytes);
	family = load_be32(p);
	return family_next(w, family > 0xffff ? __builtin_bswap32(family) : family);
}

/* Raw IP, also behind what some systems leave of PPP. */
static int step_raw_ip(struct walk *w)
{
	const __u8 *p = ahead(w, 2);

	if (!p)
		return cut_short(w, 2, COUNT_MALFORMED_LINK);
	if (load_be16(p) == 0xff03)
		return LAYER_PPP_HDLC;
	return *p >> 4 == 6 ? LAYER_IPV6 : LAYER_IPV4;
}

/* Linux cooked capture: protocol and hardware type are at those bytes of the header. */
static int step_sll(struct walk *w, __u32 header_bytes, __u32 protocol_at, __u32 hardware_at)
{
	const __u8 *p = ahead(w, header_bytes);
	__u32 protocol, hardware;

	if (!p)
		return cut_short(w, header_bytes, COUNT_MALFORMED_LINK);
	protocol = load_be16(p + protocol_at);
	hardware = load_be16(p + hardware_at);
	pass(w, header_bytes);
	if (hardware == ARPHRD_NETLINK)
		return COUNT_NOT_TCP;
	if (protocol > SLL_OWN_PROTOCOLS_MAX) {
		if (hardware == ARPHRD_IPGRE)
			return gre_next(w, 0, protocol);
		w->protocol = protocol;
		return LAYER_ETHERTYPE;
	}
	if (hardware == ARPHRD_FRAD)
		return LAYER_FRAME_RELAY;
	switch (protocol) {
	case 3: /* ETH_P_ALL */
		return LAYER_ETHERNET;
	case 4: /* ETH_P_802_2 */
		return LAYER_LLC;
	case 7: /* ETH_P_WAN_PPP */
		return LAYER_PPP_HDLC;
	}
	return COUNT_NOT_TCP;
}

/* Attributes of 4 bytes and their value, padded to 4, in the byte order of the host; the payload is one of them. */
static int step_nflog(struct walk *w)
{
	const __u8 *p = ahead(w, 4);
	__u32 protocol = 0, length, type;

	if (!p)
		return cut_short(w, 4, COUNT_MALFORMED_LINK);
	if (p[0] == 2)
		protocol = ETHERTYPE_IPV4;
	if (p[0] == 10)
		protocol = ETHERTYPE_IPV6;
	pass(w, 4);
	while ((p = ahead(w, 4))) {
		length = load_le16(p);
		type = load_le16(p + 2) & 0x7fff;
		if (length < 4)
			return COUNT_MALFORMED_LINK;
		if (type == NFLOG_PAYLOAD) {
			end_after(w, length);
			return skip_to_type(w, 4, protocol);
		}
		if (type == NFLOG_PACKET_HEADER && length == 8 && ahead(w, 6))
			protocol = load_be16(p + 4);
		length = (length + 3) / 4 * 4;
		if (!ahead(w, length))
			return cut_short(w, length, COUNT_NOT_TCP);
		pass(w, length);
	}
	return cut_short(w, 4, COUNT_NOT_TCP);
}

/* OpenBSD's packet filter: its length, padded to 4, and the address family in the first two bytes. */
static int step_pflog(struct walk *w)
{
	const __u8 *p = ahead(w, 2);
	int next;

	if (!p)
		return cut_short(w, 2, COUNT_MALFORMED_LINK);
	next = family_next(w, p[1]);
	return skip_to(w, (p[0] + 3) / 4 * 4, next);
}

/* RFC 1051 has nothing before the packet, RFC 1201 a split flag, once more behind an exception flag, and a number. */
static int step_arcnet(struct walk *w, __u32 type_at, int exceptions)
{
	const __u8 *p = ahead(w, type_at + 2);
	__u32 bytes = type_at + 1;
	__u8 type;

	if (!p)
		return cut_short(w, type_at + 2, COUNT_MALFORMED_LINK);
	type = p[type_at];
	if (type != ARCNET_IP_1051)
		bytes += exceptions && p[type_at + 1] == 0xff ? 7 : 3;
	if (type == ARCNET_IP_1051 || type == ARCNET_IP_1201)
		return skip_to(w, bytes, LAYER_IPV4);
	return type == ARCNET_IPV6 ? skip_to(w, bytes, LAYER_IPV6) : COUNT_NOT_TCP;
}

/* Two kinds of header, told apart by where the ethertype is. */
static int step_symantec(struct walk *w)
{
	const __u8 *p = ahead(w, 12);

	if (!p)
		return cut_short(w, 12, COUNT_MALFORMED_LINK);
	if (load_be16(p + 10))
		return load_be16(p + 6) ? COUNT_NOT_TCP : skip_to_type(w, 56, load_be16(p + 10));
	return skip_to_type(w, 44, load_be16(p + 6));
}

/* A header of `bytes` with an ethertype at byte `at`. */
static int step_typed(struct walk *w, __u32 bytes, __u32 at)
{
	const __u8 *p = ahead(w, bytes);

	if (!p)
		return cut_short(w, bytes, COUNT_MALFORMED_LINK);
	return skip_to_type(w, bytes, load_be16(p + at));
}

/* Headers that name the link type of what follows: that type, or their own where they are no such header. */
static __u32 pass_link_header(struct walk *w, __u32 link_type)
{
	const __u8 *p = ahead(w, 12);
	__u32 bytes, inner;

	if (!p)
		return link_type;
	bytes = link_type == LINKTYPE_PPI ? load_le16(p + 2) : load_le32(p);
	inner = link_type == LINKTYPE_PPI ? load_le32(p + 4) : load_le32(p + 8);
	if (bytes < 8 || !ahead(w, bytes) || (link_type == LINKTYPE_PKTAP && load_le32(p + 4) != PKTAP_PACKET))
		return link_type;
	pass(w, bytes);
	return inner;
}

/* The first layer of a frame. */
static __always_inline int step_link(struct walk *w, __u32 link_type)
{
	if (link_type == LINKTYPE_PPI || link_type == LINKTYPE_PKTAP) {
		link_type = pass_link_header(w, link_type);
		if (link_type == LINKTYPE_PPI || link_type == LINKTYPE_PKTAP)
			return COUNT_MALFORMED_LINK;
	}
	switch (link_type) {
	case LINKTYPE_ETHERNET:
		return LAYER_ETHERNET;
	case LINKTYPE_RAW:
	case DLT_RAW:
	case DLT_RAW_OPENBSD:
		return LAYER_RAW_IP;
	case LINKTYPE_IPV4:
	case LINKTYPE_ATM_CLIP:
		return LAYER_IPV4;
	case LINKTYPE_IPV6:
		return LAYER_IPV6;
	case LINKTYPE_NULL:
	case LINKTYPE_LOOP:
		return step_family(w, 4);
	case LINKTYPE_ENC:
		return step_family(w, 12);
	case LINKTYPE_LINUX_SLL:
		return step_sll(w, SLL_HEADER_BYTES, 14, 2);
	case LINKTYPE_LINUX_SLL2:
		return step_sll(w, SLL2_HEADER_BYTES, 0, 8);
	case LINKTYPE_PPP:
	case LINKTYPE_PPP_HDLC:
		return LAYER_PPP_HDLC;
	case LINKTYPE_PPP_WITH_DIR:
		return skip_to(w, 1, LAYER_PPP_HDLC);
	case LINKTYPE_PPP_ETHER:
		return skip_to_type(w, 0, ETHERTYPE_PPPOE_SESSION);
	case LINKTYPE_C_HDLC:
	case LINKTYPE_NETBSD_HDLC:
		return step_cisco_hdlc(w);
	case LINKTYPE_FRELAY:
		return LAYER_FRAME_RELAY;
	case LINKTYPE_NFLOG:
		return step_nflog(w);
	case LINKTYPE_PFLOG:
		return step_pflog(w);
	case LINKTYPE_ARCNET:
		return step_arcnet(w, 2, 1);
	case LINKTYPE_ARCNET_LINUX:
		return step_arcnet(w, 4, 0);
	case LINKTYPE_TOKEN_RING:
		return LAYER_TOKEN_RING;
	case LINKTYPE_FDDI:
		return LAYER_FDDI;
	case LINKTYPE_ATM_RFC1483:
		return LAYER_LLC;
	case LINKTYPE_IP_OVER_FC: /* RFC 2625: two addresses of 8 bytes */
		return skip_to(w, 16, LAYER_LLC);
	case LINKTYPE_IPOIB: /* RFC 4391: behind a global routing header */
		return step_typed(w, 44, 40);
	case LINKTYPE_APPLE_IP_OVER_1394:
		return step_typed(w, 18, 16);
	case LINKTYPE_SYMANTEC:
		return step_symantec(w);
	case LINKTYPE_TZSP:
		return step_tzsp(w);
	case LINKTYPE_MPLS:
		return LAYER_MPLS;
	}
	return PARSE_UNSUPPORTED_LINK;
}

#endif
