/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* GTP's user plane: 3GPP TS 29.281, and version 0 of GSM 09.60. */
#ifndef TCPTRACE_GTP_H
#define TCPTRACE_GTP_H

#include "ethernet.h"

#define GTP_G_PDU 255
#define GTP_PROTOCOL_TYPE 0x10 /* GTP, not GTP' */
#define GTP_ANY_OPTIONAL 0x07
#define GTP_EXTENSION 0x04
#define GTP_HEADER_BYTES 8
#define GTP_V0_HEADER_BYTES 20

/* Section 5.2: extension headers of 4-byte units, each with the next one's type in its last byte. */
static int pass_gtp_extensions(struct walk *w, __u32 next)
{
	const __u8 *p;
	__u32 bytes;

	while (next) {
		p = ahead(w, 1);
		if (!p)
			return cut_short(w, 1, COUNT_NOT_TCP);
		bytes = p[0] * 4;
		if (bytes == 0)
			return COUNT_NOT_TCP;
		if (!ahead(w, bytes))
			return cut_short(w, bytes, COUNT_NOT_TCP);
		next = p[bytes - 1];
		pass(w, bytes);
	}
	return 0;
}

/* Nothing says what is carried; a PPP frame cannot be told from the rest. */
static int gtp_next(struct walk *w)
{
	const __u8 *p = ahead(w, 1);
	__u32 type;

	if (!p)
		return cut_short(w, 1, COUNT_NOT_TCP);
	if (*p >= 0x45 && *p <= 0x4e)
		return LAYER_IPV4;
	if (*p >> 4 == 6)
		return LAYER_IPV6;
	p = ahead(w, ETHERNET_HEADER_BYTES);
	if (!p)
		return COUNT_NOT_TCP;
	type = load_be16(p + 12);
	return type == ETHERTYPE_IPV4 || type == ETHERTYPE_IPV6 ? LAYER_ETHERNET : COUNT_NOT_TCP;
}

static int step_gtp(struct walk *w)
{
	const __u8 *p = ahead(w, GTP_HEADER_BYTES);
	__u32 header_bytes;
	int verdict;

	if (!p)
		return cut_short(w, GTP_HEADER_BYTES, COUNT_NOT_TCP);
	if (p[0] >> 5 > 2 || !(p[0] & GTP_PROTOCOL_TYPE) || p[1] != GTP_G_PDU)
		return COUNT_NOT_TCP;
	header_bytes = p[0] >> 5 ? GTP_HEADER_BYTES : GTP_V0_HEADER_BYTES;
	end_after(w, header_bytes + load_be16(p + 2));
	if (p[0] >> 5 && p[0] & GTP_ANY_OPTIONAL)
		header_bytes += 4;
	if (!ahead(w, header_bytes))
		return cut_short(w, header_bytes, COUNT_NOT_TCP);
	pass(w, header_bytes);
	if (p[0] >> 5 && p[0] & GTP_EXTENSION) {
		verdict = pass_gtp_extensions(w, p[header_bytes - 1]);
		if (verdict)
			return verdict;
	}
	return gtp_next(w);
}

#endif
