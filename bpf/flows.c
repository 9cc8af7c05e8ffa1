/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What records do not tell: packets whose record did not reach the ring are counted with their connection, so that a lost
 * record costs detail, never a count.  Records written after a loss, until the reader has read the counts, say what was
 * lost of their connection before.  While nothing is lost, nothing is looked up.
 * Compiled into packet.c.  Set by the loader: FLOWS_MAX.
 */

/* To bcc just bytes: for each field of a struct it would generate code to print it. */
struct flow_key_bytes {
	__u64 words[sizeof(struct flow_key) / 8];
};
struct flow_count_bytes {
	__u64 words[sizeof(struct flow_count) / 8];
};

BPF_TABLE("lru_hash", struct flow_key_bytes, struct flow_count_bytes, flows, FLOWS_MAX);

/* Places in loss_times. */
enum loss_time {
	LOSSES_UNTIL_NS, /* a little past the last loss, on any CPU: records were lost, or may be until then */
	/* Both written by the reader, with no loss under way: */
	COUNTS_READ_NS,  /* what was lost before has been read, and taken in */
	LOSS_BOUT,       /* how often that has happened */
	LOSS_TIMES,
};
BPF_ARRAY(loss_times, __u64, LOSS_TIMES);
/* So that what all CPUs read for each packet is written seldom. */
#define LOSS_SPAN_NS 100000000ull

static __always_inline __u64 *loss_time(int which)
{
	return loss_times.lookup(&which);
}

/* Something is lost at `now`. */
static __always_inline void tell_of_losses(__u64 now)
{
	__u64 *until = loss_time(LOSSES_UNTIL_NS);

	if (until && *until < now + LOSS_SPAN_NS / 2)
		*until = now + LOSS_SPAN_NS;
}

/* There were losses that the reader has not taken in yet. */
static __always_inline int is_told_of_losses(void)
{
	__u64 *until = loss_time(LOSSES_UNTIL_NS), *read = loss_time(COUNTS_READ_NS);

	return until && read && *until > *read;
}

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
	copy16(key->lower_addr, lower);
	copy16(key->higher_addr, higher);
	key->ip_version = r->ip_version;
}

/* From nothing on; NULL if the kernel has no room.  If it is there meanwhile, by another CPU, it stays unless it is `old`. */
static __always_inline struct flow_count *begin_flow(struct flow_key *key, __u64 now, const struct flow_count *old)
{
	struct flow_count fresh = { .since_ns = now };

	if (old) {
		/* The two can be told apart. */
		if (FLOW_TIME(fresh.since_ns) <= FLOW_TIME(old->since_ns))
			fresh.since_ns = old->since_ns + FLOW_TIME_UNIT_NS;
		flows.update((struct flow_key_bytes *)key, (struct flow_count_bytes *)&fresh);
	} else {
		flows.insert((struct flow_key_bytes *)key, (struct flow_count_bytes *)&fresh);
	}
	return (struct flow_count *)flows.lookup((struct flow_key_bytes *)key);
}

/*
 * The same addresses and ports used again: a SYN whose number is not the one that this direction began with.  Where that
 * is not known, one that is ahead: a SYN sent again is behind.
 */
static __always_inline int starts_anew(const struct flow_count *flow, int from_higher, const struct packet_record *r)
{
	const struct flow_direction *d = from_higher ? &flow->from_higher : &flow->from_lower;

	/* What is lost is counted late: it may be older than what follows it. */
	if ((r->flags & (FLAG_SYN | FLAG_ACK | FLAG_RST)) != FLAG_SYN || r->time_ns <= flow->since_ns)
		return 0;
	if (!d->passed)
		return 0;
	return d->has_syn ? r->seq != d->base_seq : (__s32)(r->seq - d->next_seq) >= 0;
}

/* Where the numbers of this direction are by now; NOTE_BEHIND if this segment's first one has been passed before. */
static __always_inline int take_sequence(struct flow_direction *d, const struct packet_record *r)
{
	__u32 length = r->payload_bytes + !!(r->flags & FLAG_SYN) + !!(r->flags & FLAG_FIN);
	__s32 ahead = r->seq - d->next_seq;

	if (r->flags & FLAG_RST && d->passed)
		return 0;
	if (!d->passed || (d->has_syn && r->flags & FLAG_SYN && r->seq != d->base_seq)) {
		d->has_syn = !!(r->flags & FLAG_SYN);
		d->base_seq = r->seq;
		d->next_seq = r->seq + length;
		return 0;
	}
	if (ahead + (__s32)length > 0)
		d->next_seq = r->seq + length;
	return ahead < 0 ? NOTE_BEHIND : 0;
}

/* What is counted of the packet's connection, or NULL; with `begin` counting begins if there is none. */
static __always_inline struct flow_count *find_flow(const struct packet_record *r, int from_higher, int begin)
{
	__u64 *bout = loss_time(LOSS_BOUT);
	struct flow_count *flow;
	struct flow_key key __attribute__((aligned(8)));

	write_flow_key(&key, r, from_higher);
	key.bout = bout ? *bout : 0;
	flow = (struct flow_count *)flows.lookup((struct flow_key_bytes *)&key);
	if (flow)
		return starts_anew(flow, from_higher, r) ? begin_flow(&key, r->time_ns, flow) : flow;
	return begin ? begin_flow(&key, r->time_ns, NULL) : NULL;
}

static __always_inline void add_lost(struct flow_direction *d, const struct packet_record *r)
{
	__sync_fetch_and_add(&d->count, FLOW_RECORD | r->segments);
	__sync_fetch_and_add(&d->bytes, r->frame_bytes);
	if (r->payload_bytes)
		__sync_fetch_and_add(&d->payload_bytes, r->payload_bytes);
}

/* This record is lost; 0 if it cannot be counted. */
static __always_inline int count_lost(const struct packet_record *r)
{
	int from_higher = from_higher_end(r);
	struct flow_count *flow = find_flow(r, from_higher, 1);
	struct flow_direction *d;

	if (!flow)
		return 0;
	d = from_higher ? &flow->from_higher : &flow->from_lower;
	take_sequence(d, r);
	d->passed++;
	add_lost(d, r);
	return 1;
}

static __always_inline void write_counts(struct packet_record *r, const struct flow_count *flow, int from_higher)
{
	const struct flow_direction *d = from_higher ? &flow->from_higher : &flow->from_lower;
	const struct flow_direction *reverse = from_higher ? &flow->from_lower : &flow->from_higher;

	/* Other CPUs may be adding: whoever reads takes the highest of what the records say. */
	r->flow_count = *(volatile __u64 *)&d->count;
	r->flow_bytes = *(volatile __u64 *)&d->bytes;
	r->flow_payload_bytes = *(volatile __u64 *)&d->payload_bytes;
	r->reverse_records = *(volatile __u64 *)&reverse->count / FLOW_RECORD;
	r->flow_since = FLOW_TIME(flow->since_ns);
}

/* After a loss: the record says what was lost before, or is counted in its turn instead of being written; 1 if it is written. */
static __always_inline int follow_flow(struct packet_record *r, struct thinning *thinning)
{
	int from_higher = from_higher_end(r), is_thinned = is_thinning(thinning, r->time_ns);
	struct flow_count *flow = find_flow(r, from_higher, is_thinned);
	struct flow_direction *d;
	__u32 number;

	r->note |= NOTE_COUNTED;
	if (!flow) {
		r->flow_count = r->flow_bytes = r->flow_payload_bytes = 0;
		r->reverse_records = r->flow_since = 0;
		return 1;
	}
	d = from_higher ? &flow->from_higher : &flow->from_lower;
	r->note |= take_sequence(d, r);
	number = d->passed++;
	if (is_thinned && !is_worth_its_record(thinning, r, number)) {
		add_lost(d, r);
		tell_of_losses(r->time_ns);
		return 0;
	}
	write_counts(r, flow, from_higher);
	return 1;
}
