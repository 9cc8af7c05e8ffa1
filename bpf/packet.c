/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Packets of one interface: TC ingress and egress, or XDP for ingress.
 *
 * hook -> parse_plain -> filter -> is_recorded -> this CPU's batch -> ring
 *      -> load_skb or load_xdp -> parse_link -> filter -> parse_network, where that one had to leave it
 *
 * Set by the loader: LINK_KIND (enum link_kind), DIRECTION_MARKER, which it replaces in the compiled code by each hook's
 * enum direction, HOOK_XDP and MTU_BYTES where XDP is used, SNAPLEN where frames' bytes are asked for, PROCESS_FILTER
 * (and LOOPBACK on lo) where packets of some processes' sockets alone are; and in place of the FILTER marker the text of
 * filter_matches(), flows.c, and selected.c if it is wanted.  bcc rewrites map methods in the text that it is handed, not
 * in headers: the loader puts followed.c, samples.c and socket.c, if they are wanted, and handover.c after this.
 */
#define BPF_LICENSE Dual MIT/GPL
#define IN_KERNEL
#include "records.h"
#include "parse.h"
#include "plain.h"
#include "window.h"
#include "thinning.h"

#define TC_GO_ON -1 /* TC_ACT_UNSPEC, TCX_NEXT: the next program decides, as if we were not here */
/* First guess of how much to load; what Ethernet, IPv6 and TCP with all options take. */
#define FIRST_LOAD_BYTES 128

/*
 * How a frame's bytes get to the ring.  Few are staged in the batch like the record, from the parser's window:
 * 0.02 us a packet.  Many are appended by the kernel to a sample of this one frame, copied once, wherever in the
 * skb they are: 0.2 us a packet, and what the copy takes.
 */
#ifndef SNAPLEN
#define STAGED_BYTES 0
#define BATCH_SLOTS BATCH_RECORDS
#elif SNAPLEN <= STAGED_FRAME_MAX_BYTES
#define STAGED_BYTES FRAME_PADDED(SNAPLEN)
#define BATCH_SLOTS BATCH_RECORDS
#else
#define APPEND_FRAMES
#define STAGED_BYTES 0
#define BATCH_SLOTS 1
#endif

struct slot {
	struct packet_record record;
#ifdef SNAPLEN
	struct frame_head head;
	__u8 staged[STAGED_BYTES];
#endif
};

/* The slots follow each other without gaps: without frames they end where their records do (is_whole_record()). */
struct batch {
	struct batch_header header;
	struct slot slots[BATCH_SLOTS];
};

#ifdef APPEND_FRAMES
/* As a batch of one record, but for the counters. */
struct framed {
	__u64 time_ns;
	__u32 count;
	__u32 lost;
	struct slot slot;
};
#endif

struct cpu_state {
	/* Set while a packet program of this CPU is at work, for the tick that may interrupt it. */
	volatile __u32 busy;
	__u32 unused;
	__u64 used;            /* bytes of the batch's slots */
	volatile __u64 walked; /* of those that count_lost_ones() has been through */
	struct frame frame;
	struct thinning thinning;
	struct batch batch;
#ifdef APPEND_FRAMES
	struct framed framed;
#endif
};

/* To bcc just bytes: for each field of a struct it would generate code to print it (0.1 s at every start). */
struct cpu_state_bytes {
	char bytes[sizeof(struct cpu_state)];
};

BPF_PERCPU_ARRAY(cpu_states, struct cpu_state_bytes, 1);
BPF_PERF_OUTPUT(batches);

#define COUNT(cpu, counter) ((cpu)->batch.header.counters[counter]++)

/* FILTER */

#ifndef PROCESS_FILTER
#define is_selected(r, egress) 1
#endif

static __always_inline struct cpu_state *this_cpu(void)
{
	int zero = 0;

	return (struct cpu_state *)cpu_states.lookup(&zero);
}

/* From here until busy is 0 again the tick leaves the batch alone; the time of a record is taken after this. */
static __always_inline int enter(struct cpu_state *cpu)
{
	COUNT(cpu, COUNT_FRAMES);
	if (cpu->busy) {
		COUNT(cpu, COUNT_NESTED);
		return 0;
	}
	cpu->busy = 1;
	cpu->batch.header.resting = 0;
	return 1;
}

/* In a place that slots begin at.  The verifier is to see that all of it is in the batch, and aligned. */
static __always_inline struct slot *slot_at(struct cpu_state *cpu, __u64 bytes)
{
	HIDE(bytes);
	bytes &= 0xfff8;
	if (bytes > sizeof(cpu->batch.slots) - sizeof(struct slot))
		bytes = 0;
	return (struct slot *)((__u8 *)cpu->batch.slots + bytes);
}

static __always_inline __u64 bytes_of_slot(const struct slot *slot)
{
#ifdef SNAPLEN
	return sizeof(struct slot);
#else
	return is_whole_record(&slot->record) ? sizeof(struct packet_record) : SHORT_RECORD_BYTES;
#endif
}

/* Where the next record is written; it does not count until keep(). */
static __always_inline struct slot *next_slot(struct cpu_state *cpu)
{
#ifdef APPEND_FRAMES
	return &cpu->framed.slot;
#else
	return slot_at(cpu, cpu->used);
#endif
}

/* Of the frame, a VLAN tag that is kept aside included. */
static __always_inline __u64 bytes_of(const struct __sk_buff *skb)
{
	return skb->len + (skb->vlan_present ? VLAN_TAG_BYTES : 0);
}

static __always_inline int verdict_of(struct cpu_state *cpu, struct frame *f, struct packet_record *r)
{
	int verdict = parse_link(f, LINK_KIND, r);

	if (verdict != COUNT_TCP)
		return verdict;
	verdict = filter_matches(f);
	if (verdict != COUNT_TCP)
		return verdict;
	return parse_network(f, r);
}

#if STAGED_BYTES /* the window is wanted whatever is in it */
#define plain_verdict(cpu, p, end, frame_bytes, r) PARSE_NEED_MORE
#else
/* COUNT_TCP, what the filter says, or PARSE_NEED_MORE: to be loaded and parsed. */
static __always_inline int plain_verdict(struct cpu_state *cpu, const __u8 *p, const __u8 *end, __u64 frame_bytes,
					 struct packet_record *r)
{
	int verdict = parse_plain(p, end, frame_bytes, LINK_KIND, r);

#ifndef ALL_FRAMES
	if (verdict == COUNT_TCP) {
		show_plain(&cpu->frame, p, end, frame_bytes, LINK_KIND);
		verdict = filter_matches(&cpu->frame);
	}
#endif
	return verdict;
}
#endif

static __always_inline int load_and_parse(struct __sk_buff *skb, struct cpu_state *cpu, struct packet_record *r)
{
	__u64 want = skb->data_end - skb->data; /* what is there without walking fragments */
	struct frame *f = &cpu->frame;
	int verdict, attempt = 0;

	f->merged = skb->gso_size > 0;
	f->frame_bytes = bytes_of(skb);
	if (want > FIRST_LOAD_BYTES)
		want = FIRST_LOAD_BYTES;
	if (want < STAGED_BYTES)
		want = STAGED_BYTES;
	/* Kernels before 6.8 refuse a loop whose end falls through to its head ("back-edge"): keep the head free of loads
	 * that the compiler could move to the end, and the way back out of line.  Nor are r's fields' addresses to be worked
	 * out ahead of the loop: there are 40, which all went by way of the stack. */
#pragma clang loop unroll(disable)
	do {
		asm volatile("" : "+r"(want), "+r"(r) : : "memory");
		f->available = load_skb(skb, f, want);
		verdict = verdict_of(cpu, f, r);
		want = WINDOW_BYTES;
	} while (__builtin_expect(verdict == PARSE_NEED_MORE, 0) && ++attempt < 2);
	/* If still, the kernel could not copy what it says is there. */
	return verdict == PARSE_NEED_MORE ? COUNT_TOO_DEEP : verdict;
}

static __always_inline void count_verdict(struct cpu_state *cpu, int verdict)
{
	if (verdict >= 0 && verdict < COUNTERS)
		COUNT(cpu, verdict);
}

/* The next of the records that the ring did not take. */
static __always_inline const struct packet_record *next_lost(struct cpu_state *cpu)
{
#ifdef APPEND_FRAMES
	return &cpu->framed.slot.record;
#else
	struct slot *slot = slot_at(cpu, cpu->walked);

	cpu->walked += bytes_of_slot(slot); /* in memory: the verifier would follow each sum of lengths by itself */
	return &slot->record;
#endif
}

/* They did not reach the ring.  Whoever reads records of other CPUs that were written before this does not know. */
static __always_inline void count_lost_ones(struct cpu_state *cpu, __u32 count)
{
	__u32 n;

	cpu->walked = 0;
#pragma clang loop unroll(disable)
	for (n = 0; n < BATCH_SLOTS; n++) {
		HIDE(n); /* else the compiler counts in bytes, and the verifier loses the bound */
		if (n >= count)
			break;
		if (!count_lost(next_lost(cpu)))
			COUNT(cpu, COUNT_UNCOUNTED);
	}
	cpu->batch.header.counters[COUNT_RECORDS_LOST] += count;
}

static __always_inline void emptied(struct cpu_state *cpu, __u32 count, int error)
{
	if (error && count) {
		count_lost_ones(cpu, count);
		tell_of_losses(cpu->batch.header.time_ns);
#ifndef SNAPLEN /* who asks for frames wants as many as there is room for */
		thin_out(&cpu->thinning, cpu->batch.header.time_ns);
#endif
	}
	if (error)
		cpu->batch.header.resting = 0; /* whoever reads has not been told */
	cpu->batch.header.count = 0;
	cpu->used = 0;
}

/* To the ring, with what it holds so far. */
static __always_inline void submit_batch(void *ctx, struct cpu_state *cpu)
{
	__u64 count = cpu->batch.header.count, bytes = sizeof(struct batch_header) + cpu->used;

	HIDE(bytes);
	if (bytes > sizeof(struct batch))
		return;
	emptied(cpu, count, batches.perf_submit(ctx, &cpu->batch, bytes));
}

#ifdef SNAPLEN
/* The bytes of the frame at hand, of which `bytes` are the context's own. */
static __always_inline void take_frame(const struct frame *f, struct slot *slot, __u64 frame_bytes, __u64 bytes)
{
	__u64 most = SNAPLEN < FRAME_MAX_BYTES ? SNAPLEN : FRAME_MAX_BYTES;

	if (bytes > most)
		bytes = most;
	slot->head.original_bytes = frame_bytes;
	slot->head.captured_bytes = bytes;
#ifndef APPEND_FRAMES
	__builtin_memcpy(slot->staged, f->window, STAGED_BYTES);
#endif
}
#endif

/* 0 if the packet at hand is only counted.  After a loss its record says what was lost; a SYN may begin a connection anew. */
static __always_inline int is_recorded(struct cpu_state *cpu, struct packet_record *r)
{
	if (!is_told_of_losses() && (r->flags & (FLAG_SYN | FLAG_ACK)) != FLAG_SYN)
		return 1;
	if (follow_flow(r, &cpu->thinning))
		return 1;
	COUNT(cpu, COUNT_THINNED);
	return 0;
}

/* The record at hand is complete: keep it, and hand over the batch if it is now full. */
static __always_inline void keep(void *ctx, struct cpu_state *cpu, const struct slot *slot)
{
#ifdef APPEND_FRAMES
	int error;
#endif

	COUNT(cpu, COUNT_RECORDS);
	cpu->batch.header.time_ns = slot->record.time_ns;
	/* A statement of its own: what bcc makes of perf_submit_skb() ends in a semicolon. */
#ifdef APPEND_FRAMES
	cpu->framed.time_ns = slot->record.time_ns;
	cpu->framed.count = 1 | BATCH_WITHOUT_COUNTERS;
	cpu->framed.lost = cpu->batch.header.counters[COUNT_RECORDS_LOST];
	error = batches.perf_submit_skb(ctx, slot->head.captured_bytes, &cpu->framed, sizeof(cpu->framed));
	emptied(cpu, BATCH_SLOTS, error);
#else
	cpu->used += bytes_of_slot(slot);
	if (++cpu->batch.header.count == BATCH_SLOTS)
		submit_batch(ctx, cpu);
#endif
}

/* Each segment of a super-packet repeats the headers (skb_shinfo()->gso_segs of them). */
static __always_inline void count_segments(struct __sk_buff *skb, __u64 frame_bytes, struct packet_record *r)
{
	__u32 segments = skb->gso_segs, size = skb->gso_size;

	/* Guests and tun may leave gso_segs to be worked out (SKB_GSO_DODGY). */
	if (segments == 0 && size > 0)
		segments = (r->payload_bytes + size - 1) / size;
	if (segments == 0)
		segments = 1;
	r->segments = segments;
	r->frame_bytes = frame_bytes + (segments - 1) * (frame_bytes - r->payload_bytes);
}

/*
 * The sender's own queue refuses segments after this hook.  The socket does not count those as sent, and sends
 * them again with snd_nxt still at their beginning: which is no retransmission (tcp_transmit_skb()'s result).
 */
static __always_inline int sending_note(struct __sk_buff *skb, const struct packet_record *r)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tcp;

	if (!sk)
		return 0;
	tcp = bpf_tcp_sock(sk); /* none if it is a request, or in TIME-WAIT */
	if (!tcp)
		return 0;
	if (tcp->snd_nxt == r->seq)
		return NOTE_FIRST_SEND;
	return (__s32)(r->seq - tcp->snd_nxt) < 0 ? NOTE_SENT_BEFORE : 0;
}

#ifdef APPEND_FRAMES
/* What load_skb() put back in is not in the bytes that the kernel appends. */
static __always_inline void note_tag_aside(struct __sk_buff *skb, struct packet_record *r)
{
	if (!skb->vlan_present)
		return;
	r->note |= NOTE_TAG_ASIDE;
	if (skb->vlan_proto == __builtin_bswap16(ETHERTYPE_8021AD))
		r->note |= NOTE_TAG_8021AD;
}
#endif

/* Nothing in an skb says at which hook it is, so each has a program of its own: this one, loaded with another constant. */
static __always_inline __u64 direction_of_hook(void)
{
	__u64 direction;

	asm volatile("%0 = %1" : "=r"(direction) : "i"(DIRECTION_MARKER));
	return direction;
}

int tc_packet(struct __sk_buff *skb)
{
	struct cpu_state *cpu = this_cpu();
	struct packet_record *r;
	struct slot *slot;
	__u64 frame_bytes;
	int verdict;

	if (!cpu || !enter(cpu))
		return TC_GO_ON;
	slot = next_slot(cpu);
	r = &slot->record;
	frame_bytes = bytes_of(skb);
	verdict = PARSE_NEED_MORE;
	if (!skb->vlan_present)
		verdict = plain_verdict(cpu, (void *)(long)skb->data, (void *)(long)skb->data_end, frame_bytes, r);
	if (verdict == PARSE_NEED_MORE)
		verdict = load_and_parse(skb, cpu, r);
	if (verdict == COUNT_TCP && !is_selected(r, direction_of_hook() == DIRECTION_EGRESS))
		verdict = COUNT_FILTERED;
	count_verdict(cpu, verdict);
	if (verdict == COUNT_TCP) {
		r->time_ns = bpf_ktime_get_ns();
		r->direction = direction_of_hook();
		if (r->direction == DIRECTION_EGRESS && (r->payload_bytes || r->flags & (FLAG_SYN | FLAG_FIN)))
			r->note |= sending_note(skb, r);
		count_segments(skb, frame_bytes, r);
		if (is_recorded(cpu, r)) {
#ifdef APPEND_FRAMES
			note_tag_aside(skb, r);
			take_frame(&cpu->frame, slot, frame_bytes, skb->len);
#elif defined(SNAPLEN)
			take_frame(&cpu->frame, slot, frame_bytes, cpu->frame.available);
#endif
			keep(skb, cpu, slot);
		}
	}
	cpu->busy = 0;
	return TC_GO_ON;
}

#ifdef HOOK_XDP
int xdp_packet(struct xdp_md *ctx)
{
	struct cpu_state *cpu = this_cpu();
	struct packet_record *r;
	struct slot *slot;
	__u64 frame_bytes;
	int verdict;

	if (!cpu || !enter(cpu))
		return XDP_PASS;
	slot = next_slot(cpu);
	r = &slot->record;
	frame_bytes = ctx->data_end - ctx->data;
	verdict = PARSE_NEED_MORE;
#ifdef ALL_FRAMES /* a filter and then load_xdp() are too many ways for the verifier */
	verdict = plain_verdict(cpu, (void *)(long)ctx->data, (void *)(long)ctx->data_end, frame_bytes, r);
#endif
	if (verdict == PARSE_NEED_MORE) {
		cpu->frame.merged = 0;
		cpu->frame.frame_bytes = frame_bytes;
		cpu->frame.available = load_xdp(ctx, &cpu->frame);
		verdict = verdict_of(cpu, &cpu->frame, r);
	}
	if (verdict == COUNT_TCP && !is_selected(r, 0))
		verdict = COUNT_FILTERED;
	count_verdict(cpu, verdict);
	if (verdict == COUNT_TCP) {
		r->time_ns = bpf_ktime_get_ns();
		/* Generic XDP runs after GRO, and nothing here tells how many segments were merged. */
		if (frame_bytes > MTU_BYTES + ETHERNET_HEADER_BYTES + MAX_VLAN_TAGS * VLAN_TAG_BYTES)
			COUNT(cpu, COUNT_MERGED);
		r->direction = DIRECTION_INGRESS;
		r->segments = 1;
		r->frame_bytes = frame_bytes;
		if (is_recorded(cpu, r)) {
#ifdef SNAPLEN
			take_frame(&cpu->frame, slot, frame_bytes, frame_bytes);
#endif
			keep(ctx, cpu, slot);
		}
	}
	cpu->busy = 0;
	return XDP_PASS;
}
#endif
