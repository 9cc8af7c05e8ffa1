/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * A packet of the kernel -> the first bytes of its frame in struct frame's window.  For the BPF programs alone.
 */
#ifndef TCPTRACE_WINDOW_H
#define TCPTRACE_WINDOW_H

#include "parse.h"

/*
 * `bytes` of the skb, or 0 where it has not that many.  One comparison shows the verifier both bounds: those before 6.8
 * learn nothing from a test for 0.
 */
static __always_inline __u64 load_from(struct __sk_buff *skb, __u32 offset, __u8 *to, __u64 bytes, __u64 most)
{
	__u64 but_one = bytes - 1;

	HIDE(but_one);
	if (but_one > most - 1)
		return 0;
	return bpf_skb_load_bytes(skb, offset, to, but_one + 1) < 0 ? 0 : bytes;
}

/* Bring the first bytes of the frame into the window, a VLAN tag that the NIC or kernel keeps aside put back in. */
static __always_inline __u64 load_skb(struct __sk_buff *skb, struct frame *f, __u64 want)
{
	__u64 bytes = skb->len;

	if (bytes > want)
		bytes = want;
	if (skb->vlan_present && bytes > 12) {
		__u64 rest = bytes - 12;
		__u16 tag[2] = { skb->vlan_proto, __builtin_bswap16(skb->vlan_tci) };

		if (bpf_skb_load_bytes(skb, 0, f->window, 12) < 0)
			return 0;
		__builtin_memcpy(f->window + 12, tag, 4);
		if (rest > WINDOW_BYTES - 16)
			rest = WINDOW_BYTES - 16;
		rest = load_from(skb, 12, f->window + 16, rest, WINDOW_BYTES - 16);
		return rest ? rest + 16 : 0;
	}
	return load_from(skb, 0, f->window, bytes, WINDOW_BYTES);
}

/* Headers of a plain frame (plain.h) where the filter looks for them, ports included. */
#define PLAIN_COPIED_BYTES 80

static __always_inline void show_plain(struct frame *f, const __u8 *p, const __u8 *end, __u64 frame_bytes,
				       enum link_kind link)
{
	__u64 at;

#pragma unroll
	for (at = 0; at < PLAIN_COPIED_BYTES; at += 8) {
		if (p + at + 8 > end)
			break;
		*(__u64 *)(f->window + at) = *(const __u64 *)(p + at);
	}
	f->available = at;
	f->frame_bytes = frame_bytes;
	f->offset = link == LINK_ETHERNET ? ETHERNET_HEADER_BYTES : 0;
	f->ethertype = link == LINK_ETHERNET ? load_be16(p + 12) : 0;
}

#ifdef HOOK_XDP
/* Without bpf_xdp_load_bytes(), which came with 5.18: eight bytes at a time, then what is left one by one. */
static __always_inline __u64 load_xdp(struct xdp_md *ctx, struct frame *f)
{
	const __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 at = 0;

#pragma clang loop unroll(disable)
	for (; at <= WINDOW_BYTES - 8; at += 8) {
		const __u8 *from = data + at;

		HIDE(from);
		if (from + 8 > end)
			break;
		*(__u64 *)(f->window + at) = *(const __u64 *)from;
	}
#pragma clang loop unroll(disable)
	for (; at < WINDOW_BYTES; at++) {
		const __u8 *from = data + at;

		HIDE(from);
		if (from + 1 > end)
			break;
		f->window[at] = *from;
	}
	return at;
}
#endif

#endif
