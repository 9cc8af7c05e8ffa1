/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * How records of sockets get to their ring: events at once, samples in batches.  Compiled after followed.c; handover.c
 * takes what a CPU has gathered when it ticks or goes idle.
 */

/* Samples of this CPU that have not been handed over: to write to the ring costs a third of all that a sample costs. */
struct samples {
	volatile __u64 busy; /* a program is at it, which this one interrupted */
	volatile __u64 count;
	struct socket_record records[BATCH_SAMPLES];
};
/* To bcc just bytes: for each field of a struct it would generate code to print it. */
struct samples_bytes {
	__u64 words[sizeof(struct samples) / 8];
};

BPF_PERCPU_ARRAY(gathered, struct samples_bytes, 1);
BPF_PERF_OUTPUT(socket_records);

static __always_inline void empty_samples(void *ctx, struct samples *samples)
{
	__u64 count = samples->count, bytes = count * sizeof(struct socket_record);

	if (count == 0)
		return;
	samples->count = 0;
	HIDE(bytes); /* alone, and unsigned, or verifiers before Linux 5.11 lose its bounds */
	if (bytes > sizeof(samples->records))
		return;
	if (socket_records.perf_submit(ctx, samples->records, bytes))
		count_socket(SOCKET_RECORDS_LOST, count);
}

/* 0 if a program is at it just now. */
static __always_inline int hand_over_samples(void *ctx)
{
	struct samples *samples;
	int zero = 0;

	samples = (struct samples *)gathered.lookup(&zero);
	if (samples && samples->busy)
		return 0;
	if (samples)
		empty_samples(ctx, samples);
	return 1;
}

/* To its ring, after the samples before it; it is lost if that is full, or if there is none. */
static __always_inline void submit(void *ctx, struct socket_record *r)
{
	hand_over_samples(ctx);
	if (socket_records.perf_submit(ctx, r, sizeof(*r)))
		count_socket(SOCKET_RECORDS_LOST, 1);
}

/* Where a sample is to be written, until keep_sample(); NULL if a program is at it just now. */
static __always_inline struct samples *begin_sample(void)
{
	struct samples *samples;
	int zero = 0;

	samples = (struct samples *)gathered.lookup(&zero);
	if (!samples || samples->busy)
		return NULL;
	samples->busy = 1;
	return samples;
}

static __always_inline void keep_sample(void *ctx, struct samples *samples)
{
	if (++samples->count >= BATCH_SAMPLES)
		empty_samples(ctx, samples);
	samples->busy = 0;
}
