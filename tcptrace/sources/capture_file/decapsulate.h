/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* One captured frame of any link type -> struct packet_record: so far Ethernet with VLAN tags, and raw IP. */
#ifndef TCPTRACE_DECAPSULATE_H
#define TCPTRACE_DECAPSULATE_H

#include <stdlib.h>
#include <string.h>

#include "parse.h"

#define LINKTYPE_ETHERNET 1
#define LINKTYPE_RAW 101
#define LINKTYPE_IPV4 228
#define LINKTYPE_IPV6 229

#define PARSE_UNSUPPORTED_LINK (COUNTERS + 1)

struct decapsulator {
	struct frame frame;
};

struct carried {
	const __u8 *ip;          /* the IP header that carries the segment */
	__u32 ip_bytes;          /* captured bytes from there on */
	__u32 ip_original_bytes; /* bytes from there on, on the wire */
};

static inline struct decapsulator *decapsulator_new(void)
{
	return calloc(1, sizeof(struct decapsulator));
}

static inline void decapsulator_free(struct decapsulator *d)
{
	free(d);
}

static inline int parse_captured(struct decapsulator *d, const __u8 *bytes, __u32 captured, __u32 original,
				 __u32 link_type, __u64 time_ns, struct packet_record *r, struct carried *where)
{
	struct frame *f = &d->frame;
	enum link_kind link = LINK_RAW_IP;
	int verdict;

	(void)time_ns;
	if (link_type == LINKTYPE_ETHERNET)
		link = LINK_ETHERNET;
	else if (link_type != LINKTYPE_RAW && link_type != LINKTYPE_IPV4 && link_type != LINKTYPE_IPV6)
		return PARSE_UNSUPPORTED_LINK;
	f->available = captured < WINDOW_BYTES ? captured : WINDOW_BYTES;
	f->frame_bytes = original;
	f->merged = 0;
	memcpy(f->window, bytes, f->available);
	verdict = parse_link(f, link, r);
	if (verdict != COUNT_TCP)
		return verdict;
	where->ip = bytes + f->offset;
	where->ip_bytes = captured - f->offset;
	where->ip_original_bytes = original - f->offset;
	return parse_network(f, r);
}

#endif
