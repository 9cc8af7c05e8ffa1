/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What a kprobe's program gets: the registers, of which ours read those that hold arguments and results. */
#ifndef TCPTRACE_PTRACE_H
#define TCPTRACE_PTRACE_H

#if defined(ARCH_X86_64)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx;
	unsigned long r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};
#elif defined(ARCH_ARM64)
struct pt_regs {
	unsigned long long regs[31], sp, pc, pstate, orig_x0;
	int syscallno;
};
#else
struct pt_regs;
#endif

#endif
