/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Almost every frame: no VLAN tag, no IP options or extension headers, no fragment, no TCP option but timestamps.  Read where
 * it is, without a copy or a loop; the record comes out as parse.h would leave it.
 *
 * Each length is a constant and compared as a pointer with `end`, which is how the verifier learns what may be read.
 */
#ifndef TCPTRACE_PLAIN_H
#define TCPTRACE_PLAIN_H

#include "parse.h"

/* NOP, NOP, timestamps: as Linux and others write them (RFC 7323 appendix A). */
#define TIMESTAMPS_ALONE 0x0101080a
#define TIMESTAMPS_ALONE_BYTES 12

/* What the header says that it and its payload take; 0 if it is none of those. */
static __always_inline __u64 plain_ipv4(const __u8 *ip, struct packet_record *r)
{
	if (ip[0] != 0x45 || ip[9] != PROTOCOL_TCP || load_be16(ip + 6) & 0x3fff)
		return 0;
	read_ipv4(ip, r);
	return load_be16(ip + 2);
}

static __always_inline __u64 plain_ipv6(const __u8 *ip, struct packet_record *r)
{
	__u64 payload_bytes = load_be16(ip + 4);

	if (ip[0] >> 4 != 6 || ip[6] != PROTOCOL_TCP || payload_bytes == 0)
		return 0;
	read_ipv6(ip, r);
	return IPV6_HEADER_BYTES + payload_bytes;
}

static __always_inline int plain_tcp(const __u8 *tcp, const __u8 *end, __u64 tcp_bytes, struct packet_record *r)
{
	__u64 header_bytes = read_tcp(tcp, r);

	if (header_bytes == TCP_HEADER_MIN_BYTES + TIMESTAMPS_ALONE_BYTES) {
		tcp += TCP_HEADER_MIN_BYTES;
		if (tcp + TIMESTAMPS_ALONE_BYTES > end || load_be32(tcp) != TIMESTAMPS_ALONE)
			return PARSE_NEED_MORE;
		r->ts_value = load_be32(tcp + 4);
		r->ts_echo = load_be32(tcp + 8);
		r->options = OPTION_TIMESTAMPS;
	} else if (header_bytes != TCP_HEADER_MIN_BYTES) {
		return PARSE_NEED_MORE;
	}
	r->payload_bytes = tcp_bytes - header_bytes;
	return tcp_bytes < header_bytes ? PARSE_NEED_MORE : COUNT_TCP;
}

/* COUNT_TCP, or PARSE_NEED_MORE: it is none of those, or not right, and parse.h has to look at it. */
static __always_inline int parse_plain(const __u8 *p, const __u8 *end, __u64 frame_bytes, enum link_kind link,
				       struct packet_record *r)
{
	const __u64 link_bytes = link == LINK_ETHERNET ? ETHERNET_HEADER_BYTES : 0;
	const __u8 *ip = p + link_bytes, *tcp = ip + IPV4_HEADER_MIN_BYTES;
	__u64 ip_bytes, header_bytes = IPV4_HEADER_MIN_BYTES;
	__u16 ethertype;

	if (tcp + TCP_HEADER_MIN_BYTES > end)
		return PARSE_NEED_MORE;
	if (link == LINK_ETHERNET) {
		copy_mac(r->dst_mac, p);
		copy_mac(r->src_mac, p + 6);
		ethertype = load_be16(p + 12);
	} else {
		__builtin_memset(r->src_mac, 0, 6);
		__builtin_memset(r->dst_mac, 0, 6);
		ethertype = ip[0] >> 4 == 6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4;
	}
	r->note = link == LINK_ETHERNET ? NOTE_ETHERNET : 0;
	r->vlan_count = 0;
	r->vlan_outer = 0;
	r->vlan_inner = 0;
	if (ethertype == ETHERTYPE_IPV4) {
		ip_bytes = plain_ipv4(ip, r);
	} else if (ethertype == ETHERTYPE_IPV6) {
		header_bytes = IPV6_HEADER_BYTES;
		tcp = ip + IPV6_HEADER_BYTES;
		if (tcp + TCP_HEADER_MIN_BYTES > end)
			return PARSE_NEED_MORE;
		ip_bytes = plain_ipv6(ip, r);
	} else {
		return PARSE_NEED_MORE;
	}
	if (ip_bytes < header_bytes + TCP_HEADER_MIN_BYTES || ip_bytes > frame_bytes - link_bytes)
		return PARSE_NEED_MORE;
	return plain_tcp(tcp, end, ip_bytes - header_bytes, r);
}

#endif
