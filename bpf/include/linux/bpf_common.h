/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Included by bcc's bpf.h; the classic BPF macros it defines are used by none of what we call. */
