/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The loader reads the running kernel's version itself; nothing here depends on it. */
#ifndef LINUX_VERSION_CODE
#define LINUX_VERSION_CODE 0
#endif
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
