/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the kernel itself holds of each TCP socket of one network namespace.  Compiled after followed.c and samples.c.
 *
 * hook -> followed -> image of the socket -> record -> ring, which samples get to in batches
 *
 * Each handler has one body and two ways in: a kprobe, or a raw tracepoint where the kernel has no kprobes.  The loader
 * sets ON_… to KPROBE or RAW_TRACEPOINT, SAMPLE_TICKS, and ALL_EVENTS where every event is wanted.
 */

#include <uapi/linux/ptrace.h>

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
	struct undue *undue = undue_place(sk);
	__u64 now_ticks = bpf_jiffies64();
	struct followed *f;
	struct scratch *s;

	if (is_undue(undue, sk, now_ticks))
		return;
	f = (struct followed *)sockets.lookup(&sk);
	if (f && now_ticks < f->sample_due_ticks) {
		keep_undue(undue, sk, now_ticks, f->sample_due_ticks);
		return;
	}
	s = enter_scratch();
	if (!s)
		return;
	f = f ? f : follow(s, sk);
	if (f && is_wanted(s, sk, f)) {
		READ_VIEW(s->image, sk);
		settle(f, FIELD_total_retrans(s->image), untold_cause(f, s->image));
		tell_sample(ctx, s, f);
	} else if (f && !f->ignored) { /* not chosen so far */
		f->sample_due_ticks = now_ticks + SAMPLE_TICKS;
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
