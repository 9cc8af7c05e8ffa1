/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* bcc brings the BPF interface it was built with. */
#include <bcc/bpf.h>
