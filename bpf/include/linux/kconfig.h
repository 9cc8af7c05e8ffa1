/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* bcc includes this first; of a kernel's configuration its headers ask for this alone. */
#ifndef CONFIG_BPF_SYSCALL
#define CONFIG_BPF_SYSCALL 1
#endif
