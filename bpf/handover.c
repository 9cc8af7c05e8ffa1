/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What a CPU has gathered goes to its rings, and how far it has come is said.  Compiled last: after packet.c and, with
 * SOCKETS, samples.c.  A batch's time says that all packets before it have been handed over.  Samples of sockets go first
 * here, but a full batch of packets does not take them along: they are a tick late at most.
 */
#ifndef SOCKETS
#define hand_over_samples(ctx) 1
#endif

#define CPU_IDLE_EXIT 0xffffffff /* PWR_EVENT_EXIT */

/* What the batch holds so far goes to the ring. */
static __always_inline void hand_over(void *ctx, struct cpu_state *cpu, __u32 resting)
{
	cpu->batch.header.time_ns = bpf_ktime_get_ns();
	cpu->batch.header.resting = resting;
	submit_batch(ctx, cpu);
}

/* 50 times a second on every CPU that works: hand over what has gathered, and say how far the CPU has come. */
int tick(struct bpf_perf_event_data *ctx)
{
	struct cpu_state *cpu = this_cpu();

	if (cpu && !cpu->busy && hand_over_samples(ctx))
		hand_over(ctx, cpu, 0);
	return 0;
}

/*
 * Raw tracepoint cpu_idle(state, cpu).  Some hypervisors' idle CPUs do not tick, so a CPU that goes idle hands
 * over first, and says so.
 */
int going_idle(struct bpf_raw_tracepoint_args *ctx)
{
	struct cpu_state *cpu;

	if ((__u32)ctx->args[0] == CPU_IDLE_EXIT)
		return 0;
	cpu = this_cpu();
	if (cpu && !cpu->busy && hand_over_samples(ctx) && (cpu->batch.header.count || !cpu->batch.header.resting))
		hand_over(ctx, cpu, 1);
	return 0;
}
