/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* struct pt_regs is only named by what we use, never looked into. */
struct pt_regs;
