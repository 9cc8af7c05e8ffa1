/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * When the ring is full, fewer packets are recorded, until it is not: openings, ends, repetitions, and every n-th of each
 * direction of a connection.  All are counted (flows.c).  Not where frames are
 * asked for: then as many are recorded as there is room for.
 */
#ifndef TCPTRACE_THINNING_H
#define TCPTRACE_THINNING_H

#include "records.h"

/* The ring has to have had room for so long before more is recorded again: a reader that was kept away is back by then. */
#define THIN_NS 100000000ull
/* At first one in 16, by each further loss one in four of those, at most one in 65536; and back the same way. */
#define THIN_FIRST_SHIFT 4
#define THIN_STEP 2
#define THIN_MAX_SHIFT 16

struct thinning {
	__u64 until_ns;
	__u64 shift; /* one in 2^shift; 0: all */
};

/* Not all packets are recorded at `now`. */
static __always_inline int is_thinning(struct thinning *t, __u64 now)
{
	if (now > t->until_ns + THIN_MAX_SHIFT * THIN_NS)
		t->shift = 0;
	if (t->shift && now > t->until_ns) {
		t->shift -= t->shift > THIN_FIRST_SHIFT ? THIN_STEP : t->shift;
		t->until_ns = now + THIN_NS;
	}
	return t->shift != 0;
}

/* Records were lost at `now`. */
static __always_inline void thin_out(struct thinning *t, __u64 now)
{
	/* What is lost in one go is one reason, however many batches it fills. */
	if (!is_thinning(t, now))
		t->shift = THIN_FIRST_SHIFT;
	else if (now - (t->until_ns - THIN_NS) > THIN_NS / 8 && t->shift < THIN_MAX_SHIFT)
		t->shift += THIN_STEP;
	else
		return;
	t->until_ns = now + THIN_NS;
}

/* While thinning, of the `number`th packet of a direction. */
static __always_inline int is_worth_its_record(const struct thinning *t, const struct packet_record *r, __u32 number)
{
	if (r->flags & (FLAG_SYN | FLAG_FIN | FLAG_RST) || r->note & (NOTE_SENT_BEFORE | NOTE_BEHIND))
		return 1;
	return (number & ((1ull << t->shift) - 1)) == 0;
}

#endif
