/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Included by bcc's helpers, used by none of what we call. */
