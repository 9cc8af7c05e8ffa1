/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Ethernet and its kin: tags, LLC and SNAP, Token Ring, FDDI, MPLS, and what else has an ethertype. */
#ifndef TCPTRACE_ETHERNET_H
#define TCPTRACE_ETHERNET_H

#include "layers.h"

/* IEEE 802.3 section 3.2.6: up to here it is a length; from 0x600 on an ethertype. */
#define LENGTH_MAX 1500
#define FRAME_CHECK_BYTES 4
/* Wireshark's limit; service providers stack two or three. */
#define VLAN_TAGS_MAX 20
#define LLC_UNNUMBERED_INFORMATION 0x03
#define SAP_IP 0x06
#define SAP_SNAP 0xaa
#define SNAP_BYTES 5
#define OUI_ETHERNET 0x000000
#define OUI_CISCO_90 0x0000f8 /* RFC 1042's, as Cisco wrote it for AppleTalk */
#define OUI_BRIDGED 0x0080c2  /* RFC 2427, RFC 2684 */
#define BRIDGED_ETHERNET_FCS 0x0001
#define BRIDGED_ETHERNET 0x0007
#define MPLS_LABEL_BYTES 4
#define MPLS_LABEL_CHANNEL 13   /* RFC 5586 */
#define MPLS_LABEL_OAM_ALERT 14 /* RFC 3429 */
#define CHANNEL_IPV4 0x21
#define CHANNEL_IPV6 0x57

/* Ethertypes besides those of parse.h. */
enum ethertype {
	ETHERTYPE_TRILL = 0x22f3,           /* RFC 6325 */
	ETHERTYPE_BRIDGED = 0x6558,         /* transparent Ethernet bridging, RFC 1701 */
	ETHERTYPE_MPLS = 0x8847,
	ETHERTYPE_MPLS_MULTICAST = 0x8848,
	ETHERTYPE_PPPOE_SESSION = 0x8864,   /* RFC 2516 */
	ETHERTYPE_JUMBO_LLC = 0x8870,
	ETHERTYPE_I_TAG = 0x88e7,           /* IEEE 802.1ah */
	ETHERTYPE_FABRICPATH = 0x8903,
	ETHERTYPE_CISCO_METADATA = 0x8909,
	ETHERTYPE_VN_TAG = 0x8926,
	ETHERTYPE_HSR = 0x892f,             /* IEC 62439-3 */
	ETHERTYPE_E_TAG = 0x893f,           /* IEEE 802.1BR */
	ETHERTYPE_NSH = 0x894f,             /* RFC 8300 */
	ETHERTYPE_QINQ_9100 = 0x9100,
	ETHERTYPE_QINQ_9200 = 0x9200,
	ETHERTYPE_QINQ_9300 = 0x9300,
	ETHERTYPE_R_TAG = 0xf1c1,           /* IEEE 802.1CB */
};

/* What follows a field that is an ethertype or the length of an IEEE 802.3 frame. */
static __always_inline int length_or_type(struct walk *w, __u32 field)
{
	if (field <= LENGTH_MAX && field) {
		end_after(w, field);
		return LAYER_LLC;
	}
	w->protocol = field;
	return LAYER_ETHERTYPE;
}

/* A frame of which the last 4 bytes are its checksum, behind `bytes` of another header. */
static int checked_frame(struct walk *w, __u32 bytes)
{
	if (w->original >= bytes + ETHERNET_HEADER_BYTES + FRAME_CHECK_BYTES)
		end_after(w, w->original - FRAME_CHECK_BYTES);
	return skip_to(w, bytes, LAYER_ETHERNET);
}

/* Cisco's trunks: a frame with a header of 26 bytes and a checksum around it, known by its address. */
static int step_isl(struct walk *w, const __u8 *p)
{
	__u32 length = load_be16(p + 12);

	if (p[5] >> 4)
		return COUNT_NOT_TCP;
	if (length) { /* Wireshark believes it also where the frame is shorter */
		end_after(w, 14 + length);
		w->original = 14 + length;
	}
	return checked_frame(w, 26);
}

/* IEEE 802.3 section 3.1.1; the addresses kept are the outermost. */
static __always_inline int step_ethernet(struct walk *w)
{
	struct packet_record *r = w->r;
	const __u8 *p = ahead(w, ETHERNET_HEADER_BYTES);
	__u32 field;

	if (!p)
		return cut_short(w, ETHERNET_HEADER_BYTES, COUNT_MALFORMED_LINK);
	field = load_be16(p + 12);
	if (!(r->note & NOTE_ETHERNET)) {
		__builtin_memcpy(r->dst_mac, p, 6);
		__builtin_memcpy(r->src_mac, p + 6, 6);
		r->note |= NOTE_ETHERNET;
	}
	if (field <= LENGTH_MAX && (p[0] == 0x01 || p[0] == 0x0c) && p[1] == 0 && p[2] == 0x0c && p[3] == 0 && p[4] == 0)
		return step_isl(w, p);
	if (field == ETHERTYPE_FABRICPATH) /* a second Ethernet header in front, a checksum behind */
		return checked_frame(w, 16);
	if ((field == ETHERTYPE_8021Q || field == ETHERTYPE_8021AD) && ahead(w, 18) &&
	    load_be16(p + 16) == ETHERTYPE_FABRICPATH)
		return checked_frame(w, 20);
	pass(w, ETHERNET_HEADER_BYTES);
	return length_or_type(w, field);
}

/* IEEE 802.1Q section 9.6. */
static int step_vlan_tag(struct walk *w)
{
	struct packet_record *r = w->r;
	const __u8 *p = ahead(w, VLAN_TAG_BYTES);
	__u16 tci;

	if (!p)
		return cut_short(w, VLAN_TAG_BYTES, COUNT_MALFORMED_LINK);
	if (++w->vlan_tags > VLAN_TAGS_MAX)
		return COUNT_NOT_TCP;
	tci = load_be16(p);
	if (!w->vlan_id)
		w->vlan_id = tci & 0xfff;
	if (r->vlan_count == 0)
		r->vlan_outer = tci;
	else if (r->vlan_count == 1)
		r->vlan_inner = tci;
	r->vlan_count++;
	pass(w, VLAN_TAG_BYTES);
	return length_or_type(w, load_be16(p + 2));
}

/* IEEE 802.2: only what carries information has a protocol. */
static int step_llc(struct walk *w)
{
	const __u8 *p = ahead(w, 3);
	__u32 bytes = 3;

	if (!p)
		return cut_short(w, 3, COUNT_NOT_TCP);
	if (p[2] % 2 == 0) /* numbered, two bytes of control field */
		bytes = 4;
	else if (p[2] != LLC_UNNUMBERED_INFORMATION)
		return COUNT_NOT_TCP;
	if (p[0] == SAP_SNAP && p[1] == SAP_SNAP)
		return skip_to(w, bytes, LAYER_SNAP);
	return p[0] == SAP_IP ? skip_to(w, bytes, LAYER_IPV4) : COUNT_NOT_TCP;
}

/* RFC 1042. `padding` is what stands before a bridged frame. */
static int step_snap(struct walk *w, __u32 padding)
{
	const __u8 *p = ahead(w, SNAP_BYTES);
	__u32 oui, type;

	if (!p)
		return cut_short(w, SNAP_BYTES, COUNT_NOT_TCP);
	oui = load_be32(p) >> 8;
	type = load_be16(p + 3);
	if (oui == OUI_ETHERNET || oui == OUI_CISCO_90)
		return skip_to_type(w, SNAP_BYTES, type);
	if (oui == OUI_BRIDGED && type == BRIDGED_ETHERNET_FCS)
		return checked_frame(w, SNAP_BYTES + padding);
	if (oui == OUI_BRIDGED && type == BRIDGED_ETHERNET)
		return skip_to(w, SNAP_BYTES + padding, LAYER_ETHERNET);
	return COUNT_NOT_TCP;
}

/* IEEE 802.5, with a source route if the source address's first bit says so. */
static int step_token_ring(struct walk *w)
{
	const __u8 *p = ahead(w, 15);
	__u32 route_bytes = 0;

	if (!p)
		return cut_short(w, 15, COUNT_MALFORMED_LINK);
	if (p[1] >> 6 != 1) /* not LLC */
		return COUNT_NOT_TCP;
	if (p[8] & 0x80)
		route_bytes = p[14] & 0x1f;
	return skip_to(w, 14 + route_bytes, LAYER_LLC);
}

static int step_fddi(struct walk *w)
{
	const __u8 *p = ahead(w, 1);

	if (!p)
		return cut_short(w, 1, COUNT_MALFORMED_LINK);
	return p[0] >> 4 == 5 ? skip_to(w, 13, LAYER_LLC) : COUNT_NOT_TCP; /* asynchronous, LLC */
}

static int carries_ip(__u32 ethertype)
{
	return ethertype == ETHERTYPE_IPV4 || ethertype == ETHERTYPE_IPV6 || ethertype == ETHERTYPE_8021Q ||
	       ethertype == ETHERTYPE_8021AD || ethertype == ETHERTYPE_MPLS || ethertype == ETHERTYPE_PPPOE_SESSION;
}

/*
 * Behind an MPLS stack, four bits of 0 begin a control word or an address (RFC 4448 section 4.6 leaves it to guesses):
 * an address if that gives two makers' addresses and an ethertype, and the other way does not.
 */
static int is_without_control_word(const struct walk *w)
{
	const __u8 *p = ahead(w, ETHERNET_HEADER_BYTES + 4);

	if (!p || p[0] & 2 || p[6] & 3) /* administered locally, or sent by a group */
		return 0;
	return carries_ip(load_be16(p + 12)) && !carries_ip(load_be16(p + 16));
}

/* RFC 5586, RFC 4385: the channel says what it carries as PPP does. */
static int step_associated_channel(struct walk *w)
{
	const __u8 *p = ahead(w, 4);

	if (!p)
		return cut_short(w, 4, COUNT_NOT_TCP);
	switch (load_be16(p + 2)) {
	case CHANNEL_IPV4:
		return skip_to(w, 4, LAYER_IPV4);
	case CHANNEL_IPV6:
		return skip_to(w, 4, LAYER_IPV6);
	}
	return COUNT_NOT_TCP;
}

/* RFC 3032, RFC 4385: one label; what follows the last is told by its first four bits. */
static int step_mpls(struct walk *w)
{
	const __u8 *p = ahead(w, MPLS_LABEL_BYTES + 1);
	__u32 label;

	if (!p)
		return cut_short(w, MPLS_LABEL_BYTES + 1, COUNT_NOT_TCP);
	label = load_be32(p) >> 12;
	pass(w, MPLS_LABEL_BYTES);
	if (!(p[2] & 1))
		return LAYER_MPLS;
	if (label == MPLS_LABEL_OAM_ALERT)
		return COUNT_NOT_TCP;
	if (label == MPLS_LABEL_CHANNEL)
		return step_associated_channel(w);
	switch (*w->at >> 4) {
	case 0:
		return skip_to(w, is_without_control_word(w) ? 0 : 4, LAYER_ETHERNET);
	case 1:
		return step_associated_channel(w);
	case 4:
		return LAYER_IPV4;
	case 6:
		return LAYER_IPV6;
	}
	return COUNT_NOT_TCP;
}

/* A header of `bytes` that ends with the ethertype, or the length, of what follows. */
static int step_tag(struct walk *w, __u32 bytes)
{
	const __u8 *p = ahead(w, bytes);

	if (!p)
		return cut_short(w, bytes, COUNT_MALFORMED_LINK);
	pass(w, bytes);
	return length_or_type(w, load_be16(p + bytes - 2));
}

/* RFC 2516. */
static int step_pppoe(struct walk *w)
{
	const __u8 *p = ahead(w, 6);

	if (!p)
		return cut_short(w, 6, COUNT_MALFORMED_LINK);
	pass(w, 6);
	end_after(w, load_be16(p + 4));
	return LAYER_PPP;
}

/* RFC 6325 section 3: options of 4 bytes each, then an Ethernet frame. */
static int step_trill(struct walk *w)
{
	const __u8 *p = ahead(w, 6);

	if (!p)
		return cut_short(w, 6, COUNT_MALFORMED_LINK);
	return skip_to(w, 6 + (load_be16(p) >> 6 & 0x1f) * 4, LAYER_ETHERNET);
}

static __always_inline int step_ethertype(struct walk *w)
{
	switch (w->protocol) {
	case ETHERTYPE_IPV4:
		return LAYER_IPV4;
	case ETHERTYPE_IPV6:
		return LAYER_IPV6;
	case ETHERTYPE_8021Q:
	case ETHERTYPE_8021AD:
	case ETHERTYPE_QINQ_9100:
	case ETHERTYPE_QINQ_9200:
	case ETHERTYPE_QINQ_9300:
		return step_vlan_tag(w);
	case ETHERTYPE_MPLS:
	case ETHERTYPE_MPLS_MULTICAST:
		return LAYER_MPLS;
	case ETHERTYPE_PPPOE_SESSION:
		return step_pppoe(w);
	case ETHERTYPE_BRIDGED:
		return LAYER_ETHERNET;
	case ETHERTYPE_JUMBO_LLC:
		return LAYER_LLC;
	case ETHERTYPE_I_TAG:
		return step_tag(w, 18);
	case ETHERTYPE_VN_TAG:
	case ETHERTYPE_HSR:
	case ETHERTYPE_R_TAG:
		return step_tag(w, 6);
	case ETHERTYPE_CISCO_METADATA:
	case ETHERTYPE_E_TAG:
		return step_tag(w, 8);
	case ETHERTYPE_TRILL:
		return step_trill(w);
	case ETHERTYPE_NSH:
		return LAYER_NSH;
	}
	return COUNT_NOT_TCP;
}

#endif
