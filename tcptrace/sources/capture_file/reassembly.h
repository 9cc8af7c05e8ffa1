/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * IP datagrams put together from their fragments (RFC 791, RFC 8200 section 4.5).
 *
 * As in Wireshark, bytes that come twice are taken from the fragment that begins earlier,
 * and the first last fragment tells the length.  What is kept is bounded; the datagram
 * begun longest ago goes first.
 */
#ifndef TCPTRACE_REASSEMBLY_H
#define TCPTRACE_REASSEMBLY_H

#include <stdlib.h>

#include "layers.h"

/* Enough for a busy link's usual disorder; against captures made of fragments only. */
#define DATAGRAMS_MAX 1024
#define DATAGRAM_BUCKETS 1024
#define FRAGMENTS_BYTES_MAX (16u << 20)
/* Of one datagram: what 8 bytes a fragment would need, so that a flood of copies ends. */
#define FRAGMENTS_MAX 8192
/* RFC 8200 section 4.5; a fragment that comes later belongs to another datagram with the same number. */
#define REASSEMBLY_NS 60000000000ull
/* An IPv4 header with all options. */
#define DATAGRAM_HEADER_BYTES 60

struct fragment {
	struct fragment *next;
	__u32 offset;
	__u32 bytes;
	__u8 data[];
};

struct datagram_key {
	__u8 src[16];
	__u8 dst[16];
	__u32 id;
	__u16 vlan_id;
	__u8 protocol; /* IPv4 only */
	__u8 ip_version;
};

struct datagram {
	struct datagram *next; /* of this bucket */
	struct datagram *older, *newer;
	__u64 begun_ns;
	struct fragment *first, *last; /* by offset */
	__u32 fragments;
	__u32 held_bytes;
	__u32 bytes;      /* of the whole, once ended */
	__u32 bucket;
	__u8 ended;       /* the last fragment is there */
	struct datagram_key key;
};

struct decapsulator {
	struct datagram *buckets[DATAGRAM_BUCKETS];
	struct datagram *oldest, *newest;
	__u32 datagrams;
	__u32 held_bytes;
	__u8 *whole;       /* the datagram completed last, DATAGRAM_HEADER_BYTES of room before it */
	__u32 whole_bytes; /* there is room for */
	__u64 dropped;     /* datagrams given up incomplete */
};

static inline __u32 bucket_of(const struct datagram_key *key)
{
	const __u8 *p = (const __u8 *)key;
	__u32 i, hash = 2166136261u; /* FNV-1a */

	for (i = 0; i < sizeof(*key); i++)
		hash = (hash ^ p[i]) * 16777619u;
	return (hash ^ hash >> 16) % DATAGRAM_BUCKETS;
}

static inline void forget_datagram(struct decapsulator *d, struct datagram *g)
{
	struct datagram **link = &d->buckets[g->bucket];
	struct fragment *f, *next;

	while (*link != g)
		link = &(*link)->next;
	*link = g->next;
	*(g->older ? &g->older->newer : &d->oldest) = g->newer;
	*(g->newer ? &g->newer->older : &d->newest) = g->older;
	d->datagrams--;
	d->held_bytes -= g->held_bytes;
	for (f = g->first; f; f = next) {
		next = f->next;
		free(f);
	}
	free(g);
}

static inline void drop_datagram(struct decapsulator *d, struct datagram *g)
{
	d->dropped++;
	forget_datagram(d, g);
}

/* The datagram begun under `key`, or a new one; 0 without memory. */
static inline struct datagram *datagram_of(struct decapsulator *d, const struct datagram_key *key, __u64 time_ns)
{
	__u32 bucket = bucket_of(key);
	struct datagram *g = d->buckets[bucket];

	while (g && __builtin_memcmp(&g->key, key, sizeof(*key)))
		g = g->next;
	if (g && time_ns > g->begun_ns + REASSEMBLY_NS) {
		drop_datagram(d, g);
		g = 0;
	}
	if (g)
		return g;
	if (d->datagrams >= DATAGRAMS_MAX)
		drop_datagram(d, d->oldest);
	g = calloc(1, sizeof(*g));
	if (!g)
		return 0;
	g->key = *key;
	g->bucket = bucket;
	g->begun_ns = time_ns;
	g->next = d->buckets[bucket];
	d->buckets[bucket] = g;
	g->older = d->newest;
	*(d->newest ? &d->newest->newer : &d->oldest) = g;
	d->newest = g;
	d->datagrams++;
	return g;
}

/* Behind those that begin no later. */
static inline void link_fragment(struct datagram *g, struct fragment *f)
{
	struct fragment **link = &g->first;

	if (g->last && g->last->offset <= f->offset) /* in order, as they mostly come */
		link = &g->last->next;
	while (*link && (*link)->offset <= f->offset)
		link = &(*link)->next;
	f->next = *link;
	*link = f;
	if (!f->next)
		g->last = f;
	g->fragments++;
}

static inline int is_whole(const struct datagram *g)
{
	const struct fragment *f;
	__u32 reached = 0;

	if (!g->ended)
		return 0;
	for (f = g->first; f && f->offset <= reached; f = f->next)
		if (f->offset + f->bytes > reached)
			reached = f->offset + f->bytes;
	return reached >= g->bytes;
}

/* The whole datagram into d->whole; 0 without memory. */
static inline int assemble(struct decapsulator *d, const struct datagram *g)
{
	const struct fragment *f;
	__u32 reached = 0, end;

	if (d->whole_bytes < g->bytes) {
		free(d->whole);
		d->whole = malloc(DATAGRAM_HEADER_BYTES + (size_t)g->bytes);
		d->whole_bytes = d->whole ? g->bytes : 0;
		if (!d->whole)
			return 0;
	}
	for (f = g->first; f && reached < g->bytes; f = f->next) {
		end = f->offset + f->bytes;
		if (end > g->bytes)
			end = g->bytes;
		if (end > reached) {
			__builtin_memcpy(d->whole + DATAGRAM_HEADER_BYTES + reached, f->data + (reached - f->offset),
					 end - reached);
			reached = end;
		}
	}
	return 1;
}

/* Keeps a fragment; the bytes of the datagram now in d->whole, if that was the last one missing, else 0. */
static inline __u32 add_fragment(struct decapsulator *d, const struct datagram_key *key, __u64 time_ns,
				 const __u8 *data, __u32 offset, __u32 bytes, int more)
{
	__u32 held_bytes = sizeof(struct fragment) + bytes, whole_bytes = 0;
	struct datagram *g = datagram_of(d, key, time_ns);
	struct fragment *f;

	if (!g)
		return 0;
	f = malloc(held_bytes);
	if (!f || g->fragments >= FRAGMENTS_MAX) {
		free(f);
		drop_datagram(d, g);
		return 0;
	}
	f->offset = offset;
	f->bytes = bytes;
	__builtin_memcpy(f->data, data, bytes);
	link_fragment(g, f);
	g->held_bytes += held_bytes;
	d->held_bytes += held_bytes;
	if (!more && !g->ended) {
		g->ended = 1;
		g->bytes = offset + bytes;
	}
	if (is_whole(g)) {
		if (assemble(d, g))
			whole_bytes = g->bytes;
		forget_datagram(d, g);
	}
	while (d->held_bytes > FRAGMENTS_BYTES_MAX)
		drop_datagram(d, d->oldest);
	return whole_bytes;
}

#endif
