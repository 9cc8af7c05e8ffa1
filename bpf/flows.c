/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What every connection has had so far, whether or not its records reach the reader: a lost record costs detail, never a
 * count.  Compiled into packet.c.  Set by the loader: FLOWS_MAX.
 */

/* To bcc just bytes: for each field of a struct it would generate code to print it. */
struct flow_key_bytes {
	__u64 words[sizeof(struct flow_key) / 8];
};
struct flow_count_bytes {
	__u64 words[sizeof(struct flow_count) / 8];
};

BPF_TABLE("lru_hash", struct flow_key_bytes, struct flow_count_bytes, flows, FLOWS_MAX);

/* 1 if the higher of the two ends sends: both directions of a connection have one key. */
static __always_inline int from_higher_end(const struct packet_record *r)
{
	__u64 src[2], dst[2];

	if (r->src_port != r->dst_port)
		return r->src_port > r->dst_port;
	__builtin_memcpy(src, r->src_addr, 16);
	__builtin_memcpy(dst, r->dst_addr, 16);
	return src[0] > dst[0] || (src[0] == dst[0] && src[1] > dst[1]);
}

static __always_inline void write_flow_key(struct flow_key *key, const struct packet_record *r, int from_higher)
{
	const __u8 *lower = r->src_addr, *higher = r->dst_addr;

	key->lower_port = r->src_port;
	key->higher_port = r->dst_port;
	if (from_higher) {
		lower = r->dst_addr;
		higher = r->src_addr;
		key->lower_port = r->dst_port;
		key->higher_port = r->src_port;
	}
	__builtin_memcpy(key->lower_addr, lower, 16);
	__builtin_memcpy(key->higher_addr, higher, 16);
	key->ip_version = r->ip_version;
}

/* From nothing on; NULL if the kernel has no room.  If it is there meanwhile, by another CPU, it stays unless it is old. */
static __always_inline struct flow_count *begin_flow(struct flow_key *key, __u64 now, int is_old)
{
	struct flow_count fresh = { .since_ns = now };

	if (is_old)
		flows.update((struct flow_key_bytes *)key, (struct flow_count_bytes *)&fresh);
	else
		flows.insert((struct flow_key_bytes *)key, (struct flow_count_bytes *)&fresh);
	return (struct flow_count *)flows.lookup((struct flow_key_bytes *)key);
}

/* The same addresses and ports used again: a SYN whose number is not the one that this direction began with. */
static __always_inline int starts_anew(const struct flow_direction *d, const struct packet_record *r)
{
	return (r->flags & (FLAG_SYN | FLAG_ACK | FLAG_RST)) == FLAG_SYN && d->count && r->seq != d->base_seq;
}

/* Where the numbers of this direction are by now; NOTE_BEHIND if this segment's first one has been passed before. */
static __always_inline int take_sequence(struct flow_direction *d, const struct packet_record *r)
{
	__u32 length = r->payload_bytes + !!(r->flags & FLAG_SYN) + !!(r->flags & FLAG_FIN);
	__s32 ahead = r->seq - d->next_seq;

	if (!d->count || (r->flags & FLAG_SYN && r->seq != d->base_seq)) {
		d->base_seq = r->flags & FLAG_SYN ? r->seq : r->seq - 1;
		d->next_seq = r->seq + length;
		return 0;
	}
	if (ahead + (__s32)length > 0)
		d->next_seq = r->seq + length;
	return ahead < 0 ? NOTE_BEHIND : 0;
}

/* Count the packet at hand, and write into its record how far the counts have come. */
static __always_inline void count_flow(struct packet_record *r)
{
	int x = from_higher_end(r);
	struct flow_key key;
	struct flow_count *flow;
	struct flow_direction *d;

	write_flow_key(&key, r, x);
	flow = (struct flow_count *)flows.lookup((struct flow_key_bytes *)&key);
	if (!flow || starts_anew(x ? &flow->from_higher : &flow->from_lower, r))
		flow = begin_flow(&key, r->time_ns, flow != NULL);
	if (!flow) {
		r->flow_count = r->flow_since = 0;
		return;
	}
	d = x ? &flow->from_higher : &flow->from_lower;
	if (!(r->flags & FLAG_RST) || !d->count)
		r->note |= take_sequence(d, r);
	__sync_fetch_and_add(&d->count, FLOW_RECORD | r->segments);
	__sync_fetch_and_add(&d->bytes, r->frame_bytes);
	if (r->payload_bytes)
		__sync_fetch_and_add(&d->payload_bytes, r->payload_bytes);
	/* Other CPUs may have added more by now: whoever reads takes the highest of what the records say. */
	r->flow_count = *(volatile __u64 *)&d->count;
	r->flow_bytes = *(volatile __u64 *)&d->bytes;
	r->flow_payload_bytes = *(volatile __u64 *)&d->payload_bytes;
	d = x ? &flow->from_lower : &flow->from_higher;
	r->reverse_records = *(volatile __u64 *)&d->count / FLOW_RECORD;
	r->flow_since = FLOW_TIME(flow->since_ns);
}
