/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The link types of capture files (tcpdump.org/linktypes.html), and Ethernet with its tags. */
#ifndef TCPTRACE_LINK_LAYERS_H
#define TCPTRACE_LINK_LAYERS_H

#include "layers.h"

enum link_type {
	LINKTYPE_NULL = 0,
	LINKTYPE_ETHERNET = 1,
	DLT_RAW = 12,         /* as some systems write it for LINKTYPE_RAW */
	DLT_RAW_OPENBSD = 14, /* the same */
	LINKTYPE_RAW = 101,
	LINKTYPE_LOOP = 108,
	LINKTYPE_LINUX_SLL = 113,
	LINKTYPE_IPV4 = 228,
	LINKTYPE_IPV6 = 229,
	LINKTYPE_LINUX_SLL2 = 276,
};

/* IEEE 802.3: up to here it is a length; from 0x600 on an ethertype. */
#define LENGTH_MAX 1500
#define ETHERTYPE_MIN 0x600
#define SLL_HEADER_BYTES 16
#define SLL2_HEADER_BYTES 20
#define NULL_HEADER_BYTES 4
/* Wireshark's limit; service providers stack two or three. */
#define VLAN_TAGS_MAX 20

#define ETHERTYPE_QINQ_9100 0x9100
#define ETHERTYPE_QINQ_9200 0x9200
#define ETHERTYPE_QINQ_9300 0x9300

/* What comes behind a field that is an ethertype or the length of an IEEE 802.3 frame. */
static __always_inline int length_or_type(struct walk *w, __u32 field)
{
	if (field > LENGTH_MAX || field == 0)
		return ethertype_next(w, field);
	end_after(w, field);
	return LAYER_LLC;
}

/* IEEE 802.3 section 3.1.1; the addresses kept are the outermost. */
static __always_inline int step_ethernet(struct walk *w)
{
	struct packet_record *r = w->r;
	const __u8 *p = ahead(w, ETHERNET_HEADER_BYTES);

	if (!p)
		return cut_short(w, ETHERNET_HEADER_BYTES, COUNT_MALFORMED_LINK);
	if (!(r->note & NOTE_ETHERNET)) {
		__builtin_memcpy(r->dst_mac, p, 6);
		__builtin_memcpy(r->src_mac, p + 6, 6);
		r->note |= NOTE_ETHERNET;
	}
	pass(w, ETHERNET_HEADER_BYTES);
	return length_or_type(w, load_be16(p + 12));
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
	}
	return COUNT_NOT_TCP;
}

static int step_raw_ip(struct walk *w)
{
	const __u8 *p = ahead(w, 1);

	if (!p)
		return cut_short(w, 1, COUNT_MALFORMED_LINK);
	return *p >> 4 == 6 ? LAYER_IPV6 : LAYER_IPV4;
}

/* The operating system's number of an address family, in the byte order of the host that captured. */
static int step_null(struct walk *w)
{
	const __u8 *p = ahead(w, NULL_HEADER_BYTES);
	__u32 family;

	if (!p)
		return cut_short(w, NULL_HEADER_BYTES, COUNT_MALFORMED_LINK);
	pass(w, NULL_HEADER_BYTES);
	family = load_be32(p);
	if (family > 0xffff)
		family = __builtin_bswap32(family);
	switch (family) {
	case 2:
		return LAYER_IPV4;
	case 10: /* Linux */
	case 24: /* NetBSD, OpenBSD */
	case 28: /* FreeBSD */
	case 30: /* macOS */
		return LAYER_IPV6;
	}
	return ethertype_next(w, family);
}

/* Linux cooked capture: the protocol is at byte `at` of the header. */
static int step_sll(struct walk *w, __u32 header_bytes, __u32 at)
{
	const __u8 *p = ahead(w, header_bytes);

	if (!p)
		return cut_short(w, header_bytes, COUNT_MALFORMED_LINK);
	pass(w, header_bytes);
	return ethertype_next(w, load_be16(p + at));
}

/* The first layer of a frame of that link type; what names no protocol is passed here. */
static __always_inline int step_link(struct walk *w, __u32 link_type)
{
	switch (link_type) {
	case LINKTYPE_ETHERNET:
		return LAYER_ETHERNET;
	case LINKTYPE_RAW:
	case DLT_RAW:
	case DLT_RAW_OPENBSD:
		return LAYER_RAW_IP;
	case LINKTYPE_IPV4:
		return LAYER_IPV4;
	case LINKTYPE_IPV6:
		return LAYER_IPV6;
	case LINKTYPE_NULL:
	case LINKTYPE_LOOP:
		return step_null(w);
	case LINKTYPE_LINUX_SLL:
		return step_sll(w, SLL_HEADER_BYTES, 14);
	case LINKTYPE_LINUX_SLL2:
		return step_sll(w, SLL2_HEADER_BYTES, 0);
	}
	return PARSE_UNSUPPORTED_LINK;
}

#endif
