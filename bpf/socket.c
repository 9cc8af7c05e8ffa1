/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the kernel itself holds of each TCP socket of one network namespace.  Compiled together with packet.c.
 *
 * hook -> followed (per socket: owner, causes, when to sample) -> image of the socket -> record -> ring, which samples
 * get to in batches (handover.c)
 *
 * Each handler has one body and two ways in: a kprobe, or a raw tracepoint where the kernel has no kprobes.  The loader
 * sets ON_… to KPROBE or RAW_TRACEPOINT, NETNS, TICK_US (a jiffy), SAMPLE_TICKS, FOLLOWED_MAX, CPUS, ALL_EVENTS where every
 * event is wanted, and puts the running kernel's layout (sources/live/socket_layout.py) in place of the LAYOUT marker:
 * FIELD_name(image) and HAS_name for each field, READ_KEY(image, sk) and READ_VIEW(image, sk) to copy them.
 */

#include <uapi/linux/ptrace.h>

/* LAYOUT */

#include "socket_view.h"

#define KPROBE_CONTEXT struct pt_regs
#define RAW_TRACEPOINT_CONTEXT struct bpf_raw_tracepoint_args
#define RAW_TRACEPOINT_ARGUMENT(n) (ctx->args[n])
#if defined(ARCH_X86_64)
#define KPROBE_ARGUMENT_0 (ctx->di)
#define KPROBE_ARGUMENT_1 (ctx->si)
#else /* arm64 */
#define KPROBE_ARGUMENT_0 (ctx->regs[0])
#define KPROBE_ARGUMENT_1 (ctx->regs[1])
#endif
#define KPROBE_ARGUMENT(n) KPROBE_ARGUMENT_##n
#define PASTE(a, b) a##b
#define CONTEXT(way) PASTE(way, _CONTEXT)
#define ARGUMENT(way, n) PASTE(way, _ARGUMENT)(n)

#define NO_CAUSE CAUSES

/* What is remembered of a socket between two events. */
struct followed {
	__u64 sample_due_ticks; /* first, beside its key: the only memory that a segment costs until then */
	__u64 connecting_ns; /* since when it is in SYN-SENT, until that has been told */
	struct socket_key key;
	__s64 cgroup_id;
	__s32 retransmissions_by[CAUSES];
	__u32 retransmissions; /* total_retrans as far as it has a cause */
	__s32 pid;
	__s32 uid;
	__u8 comm[NAME_BYTES];
	__u8 owner_source;
	__u8 role;
	__u8 cause;       /* of the last retransmission */
	__u8 has_key;
	__u8 ignored;     /* of another network namespace, or of a process that is not asked for */
	__u8 syn_expected; /* its SYN is counted in `expected` */
	__u8 has_total;   /* retransmissions has been set: what is more than that happened since */
	__u8 unused[1];
};

/* One for each program that may interrupt another: of a process, of a softirq, of an interrupt. */
#define LEVELS 3
struct scratch {
	volatile __u64 in_use;
	__u8 image[IMAGE_BYTES];
	struct socket_record record;
	struct followed fresh;
};
/* Samples of this CPU that have not been handed over: to write to the ring costs a third of all that a sample costs. */
struct samples {
	volatile __u64 busy; /* a program is at it, which this one interrupted */
	volatile __u64 count;
	struct socket_record records[BATCH_SAMPLES];
};
/* To bcc just bytes: for each field of a struct it would generate code to print it. */
struct scratch_bytes {
	__u64 words[sizeof(struct scratch) / 8];
};
struct samples_bytes {
	__u64 words[sizeof(struct samples) / 8];
};
struct followed_bytes {
	__u64 words[sizeof(struct followed) / 8];
};

BPF_PERCPU_ARRAY(scratches, struct scratch_bytes, LEVELS);
BPF_TABLE("lru_hash", __u64, struct followed_bytes, sockets, FOLLOWED_MAX);
BPF_F_TABLE("array", int, struct socket_counts, socket_counts, CPUS, BPF_F_MMAPABLE);
BPF_PERCPU_ARRAY(gathered, struct samples_bytes, 1);
BPF_PERF_OUTPUT(socket_records);

static __always_inline void count_socket(__u64 counter, __u64 by)
{
	int cpu = bpf_get_smp_processor_id();
	struct socket_counts *counts = socket_counts.lookup(&cpu);

	if (counts)
		__sync_fetch_and_add(&counts->counters[counter], by);
}

/* Memory of this CPU that no program interrupted by this one uses, until leave_scratch(); NULL if there is no more. */
static __always_inline struct scratch *enter_scratch(void)
{
	struct scratch *s;
	int level, at;

#pragma unroll
	for (level = 0; level < LEVELS; level++) {
		at = level;
		s = (struct scratch *)scratches.lookup(&at);
		if (s && !s->in_use) {
			s->in_use = 1;
			return s;
		}
	}
	count_socket(SOCKET_RECORDS_LOST, 1);
	return NULL;
}

static __always_inline void leave_scratch(struct scratch *s)
{
	s->in_use = 0;
}

static __always_inline __u64 read_pointer(__u64 address)
{
	__u64 pointer = 0;

	bpf_probe_read_kernel(&pointer, sizeof(pointer), (void *)address);
	return pointer;
}

/* 0 where the socket is none of TCP over IP, or of another namespace. */
static __always_inline int read_key(struct scratch *s, __u64 sk, struct socket_key *key, int is_request)
{
	__u8 *image = s->image;
	__u32 netns = 0, *remote;

	READ_KEY(image, sk);
	bpf_probe_read_kernel(&netns, sizeof(netns), (void *)(FIELD_net(image) + NETNS_INUM));
	if (netns != NETNS)
		return 0;
	key->netns = netns;
	key->remote_port = __builtin_bswap16(FIELD_dport(image));
	key->local_port = is_request ? FIELD_num(image) : __builtin_bswap16(FIELD_sport(image));
	key->ip_version = 4;
	if (FIELD_family(image) == FAMILY_INET) {
		map_ipv4(key->local_addr, image + OFFSET_rcv_saddr);
		map_ipv4(key->remote_addr, image + OFFSET_daddr);
		return 1;
	}
	if (FIELD_family(image) != FAMILY_INET6)
		return 0;
	__builtin_memcpy(key->local_addr, image + OFFSET_v6_rcv_saddr, 16);
	__builtin_memcpy(key->remote_addr, image + OFFSET_v6_daddr, 16);
	remote = (__u32 *)(image + OFFSET_v6_daddr);
	/* ::ffff:a.b.c.d is IPv4 on the wire */
	if (remote[0] || remote[1] || remote[2] != __builtin_bswap32(0xffff))
		key->ip_version = 6;
	return 1;
}

static __always_inline __s64 read_cgroup_id(__u8 *image)
{
	__s64 id = -1;
	__u64 node;

	if (!HAS_cgroup || !HAS_kernfs_id || FIELD_cgroup(image) == 0 || FIELD_cgroup(image) & 1)
		return -1;
	node = read_pointer((FIELD_cgroup(image)) + CGROUP_KN);
	if (node)
		bpf_probe_read_kernel(&id, sizeof(id), (void *)(node + KERNFS_ID));
	return id;
}

static __always_inline void begin_following(struct followed *f)
{
	__builtin_memset(f, 0, sizeof(*f));
	f->pid = f->uid = -1;
	f->cgroup_id = -1;
	f->cause = NO_CAUSE;
}

/* A socket seen for the first time. */
static __always_inline struct followed *follow(struct scratch *s, __u64 sk)
{
	struct followed *before = (struct followed *)sockets.lookup(&sk);

	begin_following(&s->fresh);
	if (sockets.update(&sk, (struct followed_bytes *)&s->fresh)) {
		count_socket(SOCKET_RECORDS_LOST, 1);
		return NULL;
	}
	if (!before)
		count_socket(SOCKETS_FOLLOWED, 1);
	return (struct followed *)sockets.lookup(&sk);
}

/*
 * For events of which a connection has few.  The kernel passes over a program that interrupts itself (or any other
 * kprobe's), so the end of the socket that was at this address before may not have been seen.
 */
static __always_inline struct followed *followed_of(struct scratch *s, __u64 sk)
{
	struct followed *f = (struct followed *)sockets.lookup(&sk);
	__u64 now[5], before[5], differ = 0; /* addresses, ports, namespace */

	if (f && f->has_key && read_key(s, sk, &s->record.key, 0)) {
		__builtin_memcpy(now, &s->record.key, sizeof(now));
		__builtin_memcpy(before, &f->key, sizeof(before));
		differ = (now[0] ^ before[0]) | (now[1] ^ before[1]) | (now[2] ^ before[2]) | (now[3] ^ before[3]) |
			 (now[4] ^ before[4]);
	}
	return f && !differ ? f : follow(s, sk);
}

/* Whether anything is to be told of it; if not, its segments are passed over from now on. */
static __always_inline void ignore(struct followed *f, __u8 yes)
{
	f->ignored = yes;
	f->sample_due_ticks = yes ? ~0ULL : 0;
}

/* Of the process, whatever its threads are called. */
static __always_inline void read_current_comm(void *comm)
{
	if (HAS_process_comm)
		bpf_probe_read_kernel(comm, NAME_BYTES,
				      (void *)(read_pointer(bpf_get_current_task() + TASK_GROUP_LEADER) + TASK_COMM));
	else
		bpf_get_current_comm(comm, NAME_BYTES);
}

#ifdef PROCESS_FILTER
/* SELECTION */

static __always_inline void select_flow(struct socket_key *key, int yes)
{
	__u8 one = 1;

	if (yes)
		selected.update(key, &one);
	else
		selected.delete(key);
}

static __always_inline int is_selected_flow(struct socket_key *key)
{
	return selected.lookup(key) != NULL;
}

#ifdef HAVE_KPROBES
#define expect_syn(key, f) ((void)0)
#define expect_no_syn(key, f) ((void)0)
#else
/* connect() has begun; which local port it will have is not known yet. */
static __always_inline void expect_syn(struct socket_key *key, struct followed *f)
{
	struct connecting *c;
	__u32 one = 1, *count;
	int zero = 0;

	__u16 port = key->local_port;

	key->local_port = 0;
	c = connecting_now.lookup(&zero);
	if (c) {
		c->is_other = f->ignored;
		__builtin_memcpy(c->destination, key, sizeof(c->destination));
	}
	key->local_port = port;
	if (f->ignored || port)
		return;
	f->syn_expected = 1;
	count = expected.lookup(key);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		expected.update(key, &one);
}

/* connect() is over.  A SYN that did not come this way is not to be mistaken for another one. */
static __always_inline void expect_no_syn(struct socket_key *key, struct followed *f)
{
	__u16 port = key->local_port;

	if (!f->syn_expected)
		return;
	f->syn_expected = 0;
	if (port && is_selected_flow(key))
		return;
	key->local_port = 0;
	take_expected(key);
	key->local_port = port;
}
#endif

/* Packets of this socket are wanted, or not any more. */
static __always_inline void select_packets(struct scratch *s, __u64 sk, struct followed *f, __u8 state)
{
	struct socket_key *key = &s->record.key;

	if (!read_key(s, sk, key, 0))
		return;
	if (state == SYN_SENT)
		expect_syn(key, f);
	else
		expect_no_syn(key, f);
	if (key->local_port)
		select_flow(key, !f->ignored);
}

/*
 * A process listens: packets that open a connection to its port are wanted, until it ceases.  Another one that goes on
 * listening there too (SO_REUSEPORT) has its connections told of from their accept() on.
 */
static __always_inline void select_listener(struct scratch *s, __u64 sk, int begins)
{
	struct socket_key listener = { .netns = NETNS };

	if ((begins && !current_is_selected()) || !read_key(s, sk, &s->record.key, 0))
		return;
	listener.local_port = begins ? FIELD_num(s->image) : s->record.key.local_port;
	select_flow(&listener, begins);
}
#else
#define current_is_selected() 1
#define is_selected_flow(key) 1
#define select_packets(s, sk, f, state) ((void)0)
#define select_listener(s, sk, begins) ((void)0)
#endif

/* Which process has it: the one at work now.  Only to be called on behalf of a process, never from a softirq. */
static __always_inline void owned_by_current(struct followed *f, __u8 source)
{
	if (f->owner_source >= source)
		return;
	f->owner_source = source;
	f->pid = bpf_get_current_pid_tgid() >> 32;
	f->uid = bpf_get_current_uid_gid();
	f->cgroup_id = bpf_get_current_cgroup_id();
	read_current_comm(f->comm);
	if (source == OWNER_OPENED)
		ignore(f, !current_is_selected());
}

/* Retransmissions that were not accounted for yet have this cause. */
static __always_inline void settle(struct followed *f, __u32 retransmissions, __u8 cause)
{
	__s32 more = retransmissions - f->retransmissions;
	__u64 index = cause;

	f->retransmissions = retransmissions;
	f->has_total = 1;
	HIDE(index);
	if (more > 0 && index < CAUSES)
		f->retransmissions_by[index] += more;
}

static __always_inline void view_owner(struct socket_view *v, const struct followed *f)
{
	v->pid = f->pid;
	v->uid = f->uid;
	v->cgroup_id = f->cgroup_id;
	__builtin_memcpy(v->comm, f->comm, NAME_BYTES);
	v->role = f->role;
	v->owner_source = f->owner_source;
	__builtin_memcpy(v->retransmissions_by, f->retransmissions_by, sizeof(v->retransmissions_by));
}

/* 1 if the socket is to be told of; its key has been read then. */
static __always_inline int is_wanted(struct scratch *s, __u64 sk, struct followed *f)
{
	if (f->ignored)
		return 0;
	if (f->has_key)
		return 1;
	if (!read_key(s, sk, &f->key, 0)) {
		ignore(f, 1);
		return 0;
	}
	if (f->owner_source != OWNER_OPENED && !is_selected_flow(&f->key))
		return 0;
	f->has_key = f->key.local_port != 0;
	if (f->cgroup_id < 0)
		f->cgroup_id = read_cgroup_id(s->image);
	return 1;
}

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

/* From CLOSED to SYN-SENT the socket went before it had a port; now it has one. */
static __always_inline void tell_connecting(void *ctx, struct scratch *s, struct followed *f)
{
	struct socket_record *r = &s->record;
	__u8 old_state = r->old_state;

	__builtin_memcpy(&r->key, &f->key, sizeof(r->key));
	view_nothing(&r->view);
	view_owner(&r->view, f);
	r->time_ns = r->view.time_ns = f->connecting_ns;
	f->connecting_ns = 0;
	r->event = SOCKET_STATE;
	r->view.state = SYN_SENT;
	r->old_state = CLOSE;
	r->segments = r->cause = 0;
	submit(ctx, r);
	r->old_state = old_state;
}

/* What the image says. */
static __always_inline void describe(struct socket_record *r, struct scratch *s, struct followed *f, __u64 now, __u8 state)
{
	__builtin_memcpy(&r->key, &f->key, sizeof(r->key));
	r->time_ns = r->view.time_ns = now;
	view_numbers(&r->view, s->image);
	view_owner(&r->view, f);
	__builtin_memset(r->view.congestion_control, 0, NAME_BYTES);
	if (HAS_ca_ops)
		bpf_probe_read_kernel(r->view.congestion_control, NAME_BYTES, (void *)(FIELD_ca_ops(s->image) + CA_OPS_NAME));
	r->view.state = state;
	f->sample_due_ticks = bpf_jiffies64() + SAMPLE_TICKS;
}

/* Write a record of an event, with what the image says, in state `state`. */
static __always_inline void tell(void *ctx, struct scratch *s, struct followed *f, __u64 now, __u8 event, __u8 state)
{
	struct socket_record *r = &s->record;

	if (f->connecting_ns)
		tell_connecting(ctx, s, f);
	describe(r, s, f, now, state);
	r->event = event;
	submit(ctx, r);
}

static __always_inline void describe_sample(struct socket_record *r, struct scratch *s, struct followed *f)
{
	describe(r, s, f, bpf_ktime_get_ns(), FIELD_state(s->image));
	r->event = SOCKET_SAMPLE;
	r->segments = r->cause = r->old_state = 0;
}

/* As tell(), but it may wait for others. */
static __always_inline void tell_sample(void *ctx, struct scratch *s, struct followed *f)
{
	struct samples *samples;

	if (f->connecting_ns)
		tell_connecting(ctx, s, f);
	samples = begin_sample();
	if (samples) {
		describe_sample(&samples->records[samples->count & (BATCH_SAMPLES - 1)], s, f);
		keep_sample(ctx, samples);
	} else {
		describe_sample(&s->record, s, f);
		submit(ctx, &s->record);
	}
}

/* Of retransmissions that no event told of: before the trace, or not sent because the device's queue was full. */
static __always_inline __u8 untold_cause(const struct followed *f, const __u8 *image)
{
	if (!f->has_total)
		return NO_CAUSE;
	return IS_KPROBE_RETRANSMISSION ? f->cause : cause_of(image);
}

/*
 * An acknowledgment or data came in: the numbers as they are, SAMPLE_TICKS apart at least.  Ticks, as most segments cost no
 * more than to see that it is too early, and to read the kernel's clock costs as much as all the rest of that.
 */
static __always_inline void on_segment(void *ctx, __u64 sk)
{
	struct followed *f = (struct followed *)sockets.lookup(&sk);
	struct scratch *s;

	if (f && bpf_jiffies64() < f->sample_due_ticks)
		return;
	s = enter_scratch();
	if (!s)
		return;
	f = f ? f : follow(s, sk);
	if (f && is_wanted(s, sk, f)) {
		READ_VIEW(s->image, sk);
		settle(f, FIELD_total_retrans(s->image), untold_cause(f, s->image));
		tell_sample(ctx, s, f);
	}
	leave_scratch(s);
}

/*
 * Something was sent again; or, by kprobe, is about to be, if the window and the queue permit.  So what total_retrans
 * has grown by is what counts.  Each is told of, sample due or not: it may be the last that happens for long.
 */
static __always_inline void on_retransmission(void *ctx, __u64 sk)
{
	__u64 now = bpf_ktime_get_ns();
	struct scratch *s = enter_scratch();
	struct followed *f;
	__u32 before;

	if (!s)
		return;
	f = followed_of(s, sk);
	if (f && is_wanted(s, sk, f)) {
		READ_VIEW(s->image, sk);
		if (!f->has_total) /* open before the trace: this one is the first that counts */
			f->retransmissions = FIELD_total_retrans(s->image) - !IS_KPROBE_RETRANSMISSION;
		before = f->retransmissions;
		if (IS_KPROBE_RETRANSMISSION)
			settle(f, FIELD_total_retrans(s->image), f->cause);
		f->cause = cause_of(s->image);
		if (!IS_KPROBE_RETRANSMISSION)
			settle(f, FIELD_total_retrans(s->image), f->cause);
		s->record.segments = f->retransmissions - before;
		s->record.cause = f->cause;
		s->record.old_state = 0;
		tell(ctx, s, f, now, SOCKET_RETRANSMISSION, FIELD_state(s->image));
	}
	leave_scratch(s);
}

/* A listener sent its SYN-ACK again, on behalf of a socket that does not exist yet. */
static __always_inline void on_synack(void *ctx, __u64 request)
{
	struct scratch *s = enter_scratch();
	struct socket_record *r;

	if (!s)
		return;
	r = &s->record;
	if (read_key(s, request, &r->key, 1) && is_selected_flow(&r->key)) {
		view_nothing(&r->view);
		r->time_ns = r->view.time_ns = bpf_ktime_get_ns();
		r->view.state = SYN_RECV;
		r->view.role = ROLE_PASSIVE;
		r->event = SOCKET_RETRANSMISSION;
		r->segments = 1;
		r->cause = CAUSE_SYN_ACK;
		r->old_state = 0;
		submit(ctx, r);
	}
	leave_scratch(s);
}

/* The socket goes from one state to another: by connect() and close() in the process, else in a softirq. */
static __always_inline void on_state(void *ctx, __u64 sk, __u8 old_state, __u8 state)
{
	__u64 now = bpf_ktime_get_ns();
	struct scratch *s = enter_scratch();
	struct followed *f;

	if (!s)
		return;
	if (state == LISTEN || (old_state == LISTEN && state != SYN_RECV)) { /* a child begins as a copy of its listener */
		select_listener(s, sk, state == LISTEN);
		leave_scratch(s);
		return;
	}
	if (state == SYN_SENT || old_state == LISTEN)
		f = follow(s, sk); /* a new one, whatever was at this address before */
	else
		f = followed_of(s, sk);
	if (f) {
		if (state == SYN_SENT) {
			f->role = ROLE_ACTIVE;
			f->connecting_ns = ALL_EVENTS ? now : 0;
			owned_by_current(f, OWNER_OPENED);
		}
		/* Both ends may connect at once (RFC 9293 section 3.5): then neither is passive. */
		if (f->role == ROLE_UNKNOWN && (state == SYN_RECV || old_state == SYN_RECV))
			f->role = ROLE_PASSIVE;
		if (state == FIN_WAIT1 || state == LAST_ACK)
			owned_by_current(f, OWNER_USED);
		if (state == SYN_SENT || old_state == SYN_SENT)
			select_packets(s, sk, f, state);
	}
	/* Before the SYN and at a child's birth the addresses are not complete. */
	if (f && state != SYN_SENT && state != SYN_RECV && is_wanted(s, sk, f)) {
		READ_VIEW(s->image, sk);
		settle(f, FIELD_total_retrans(s->image), old_state == SYN_RECV ? CAUSE_SYN_ACK : f->cause);
		s->record.segments = s->record.cause = 0;
		s->record.old_state = old_state;
		tell(ctx, s, f, now, SOCKET_STATE, state);
	}
	leave_scratch(s);
}

/* In the process that connects, the SYN about to be sent (or in the one that accepts): whose the socket is. */
static __always_inline void on_opened(void *ctx, __u64 sk, __u8 role)
{
	struct followed *f;
	struct scratch *s;

	if (!sk)
		return;
	s = enter_scratch();
	if (!s)
		return;
	f = followed_of(s, sk);
	if (f) {
		f->role = role;
		owned_by_current(f, OWNER_OPENED);
		select_packets(s, sk, f, ESTABLISHED);
		if (is_wanted(s, sk, f)) {
			READ_VIEW(s->image, sk);
			tell_sample(ctx, s, f);
		}
	}
	leave_scratch(s);
}

/* --- Ways in. */

int socket_segment(CONTEXT(ON_SEGMENT) *ctx)
{
	on_segment(ctx, ARGUMENT(ON_SEGMENT, 0));
	return 0;
}

int socket_retransmission(CONTEXT(ON_RETRANSMISSION) *ctx)
{
	on_retransmission(ctx, ARGUMENT(ON_RETRANSMISSION, 0));
	return 0;
}

int socket_synack(CONTEXT(ON_SYNACK) *ctx)
{
	on_synack(ctx, ARGUMENT(ON_SYNACK, 1));
	return 0;
}

int socket_destroyed(CONTEXT(ON_DESTROYED) *ctx)
{
	__u64 sk = ARGUMENT(ON_DESTROYED, 0);

	if (sockets.delete(&sk) == 0)
		count_socket(SOCKETS_GONE, 1);
	return 0;
}

static __always_inline int is_tcp(__u64 sk)
{
	__u16 protocol = 0;

	bpf_probe_read_kernel(&protocol, sizeof(protocol), (void *)(sk + OFFSET_protocol));
	return protocol == PROTOCOL_TCP;
}

/* inet_sock_set_state(sk, old, new), which other protocols have too */
int socket_state(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 sk = ctx->args[0];

	if (is_tcp(sk))
		on_state(ctx, sk, ctx->args[1], ctx->args[2]);
	return 0;
}

#ifdef HAVE_KPROBES
/* tcp_connect(sk) */
int socket_connect(struct pt_regs *ctx)
{
	on_opened(ctx, KPROBE_ARGUMENT_0, ROLE_ACTIVE);
	return 0;
}
#endif

#ifdef ACCEPT_BY_KPROBE
/*
 * security_sock_graft(sk, socket): accept() puts the socket that it has got into its file.  Not inet_csk_accept()'s
 * return: of those who wait in there the kernel follows as many as it has CPUs, and none who was there before.
 */
int socket_accept(struct pt_regs *ctx)
{
	if (is_tcp(KPROBE_ARGUMENT_0))
		on_opened(ctx, KPROBE_ARGUMENT_0, ROLE_PASSIVE);
	return 0;
}
#elif defined(HAVE_TASK_FILES)
/* sys_exit(regs, result) of accept(2) and accept4(2): the socket behind the file descriptor that it returns. */
int socket_accept(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 fd = ctx->args[1], number, at;

	if (fd > FD_MAX)
		return 0;
	number = read_pointer(ctx->args[0] + REGS_SYSCALL);
	if (number != SYSCALL_ACCEPT && number != SYSCALL_ACCEPT4)
		return 0;
	at = read_pointer(bpf_get_current_task() + TASK_FILES);
	at = read_pointer(at + FILES_FDT);
	at = read_pointer(at + FDTABLE_FD);
	at = read_pointer(at + 8 * fd);
	at = read_pointer(at + FILE_PRIVATE_DATA);
	at = read_pointer(at + SOCKET_SK);
	if (!at || !is_tcp(at))
		return 0;
	on_opened(ctx, at, ROLE_PASSIVE);
	return 0;
}
#endif
