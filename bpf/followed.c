/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What is remembered of each TCP socket of one network namespace between two events: whose it is, what it was sent again
 * for, when its next sample is due.  Compiled after packet.c.
 *
 * Set by the loader: NETNS, TICK_US (a jiffy), FOLLOWED_MAX, CPUS; PROCESS_FILTER with the text of current_is_selected() in place of the
 * SELECTION marker; and in place of the LAYOUT marker the running kernel's layout (sources/live/socket_layout.py):
 * FIELD_name(image) and HAS_name for each field, READ_KEY(image, sk) and READ_VIEW(image, sk) to copy them.
 */

/* LAYOUT */

#include "socket_view.h"

#define NO_CAUSE CAUSES

struct followed {
	__u64 sample_due_ticks;
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
/* To bcc just bytes: for each field of a struct it would generate code to print it. */
struct scratch_bytes {
	__u64 words[sizeof(struct scratch) / 8];
};
struct followed_bytes {
	__u64 words[sizeof(struct followed) / 8];
};

BPF_PERCPU_ARRAY(scratches, struct scratch_bytes, LEVELS);
BPF_TABLE("lru_hash", __u64, struct followed_bytes, sockets, FOLLOWED_MAX);
BPF_F_TABLE("array", int, struct socket_counts, socket_counts, CPUS, BPF_F_MMAPABLE);

/*
 * Until when a socket's next sample is not due: for most segments to cost one look at 16 bytes.  Sockets share places; who
 * finds his taken looks at `sockets`.  Not a CPU's own, for follow() to reach all there is of an address used again, and never
 * further ahead than SAMPLE_TICKS: whatever CPUs write here at once, a sample is late by that at most.
 */
struct undue {
	__u64 sk;
	__u64 until_ticks;
};
#define UNDUE_SHIFT 14
BPF_ARRAY(undue_sockets, struct undue, 1 << UNDUE_SHIFT);

static __always_inline struct undue *undue_place(__u64 sk)
{
	int place = (sk * 0x9e3779b97f4a7c15ULL) >> (64 - UNDUE_SHIFT); /* Fibonacci hashing */

	return undue_sockets.lookup(&place);
}

static __always_inline int is_undue(const struct undue *u, __u64 sk, __u64 now_ticks)
{
	return u && u->sk == sk && now_ticks < u->until_ticks;
}

static __always_inline void keep_undue(struct undue *u, __u64 sk, __u64 now_ticks, __u64 due_ticks)
{
	if (!u || now_ticks < u->until_ticks)
		return;
	u->sk = sk;
	u->until_ticks = due_ticks < now_ticks + SAMPLE_TICKS ? due_ticks : now_ticks + SAMPLE_TICKS;
}

static __always_inline void forget_undue(__u64 sk)
{
	struct undue *u = undue_place(sk);

	if (u && u->sk == sk)
		u->until_ticks = 0;
}

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
	copy16(key->local_addr, image + OFFSET_v6_rcv_saddr);
	copy16(key->remote_addr, image + OFFSET_v6_daddr);
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
	forget_undue(sk);
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

/* Of the process, whatever its threads are called.  Up to its end: old kernels leave there what a longer name had. */
static __always_inline void read_current_comm(void *comm)
{
	if (HAS_process_comm)
		bpf_probe_read_kernel_str(comm, NAME_BYTES,
					  (void *)(read_pointer(bpf_get_current_task() + TASK_GROUP_LEADER) + TASK_COMM));
	else
		bpf_get_current_comm(comm, NAME_BYTES);
}

#ifdef PROCESS_FILTER
/* SELECTION */

/* Packets of this socket are wanted, or not any more. */
static __always_inline void select_packets(struct scratch *s, __u64 sk, struct followed *f, __u8 state)
{
	struct socket_key *key = &s->record.key;

	if (!read_key(s, sk, key, 0))
		return;
	if (state == SYN_SENT)
		f->syn_expected = expect_syn(key, f->ignored);
	else if (f->syn_expected) {
		f->syn_expected = 0;
		expect_no_syn(key);
	}
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
