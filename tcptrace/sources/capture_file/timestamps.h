/* SPDX-License-Identifier: MIT */
/* Times as files have them -> nanoseconds since 1970 that fit a signed 64-bit number. */
#ifndef TCPTRACE_TIMESTAMPS_H
#define TCPTRACE_TIMESTAMPS_H

#include <stdint.h>

#define NS_PER_S 1000000000u
/* No time in a trace is later: the year 2262. */
#define TIME_MAX_NS INT64_MAX

/* The unit of an interface's times: units * multiplier / divisor >> shift are nanoseconds. */
struct time_unit {
	uint64_t multiplier; /* at most 10^9 */
	uint64_t divisor;
	uint32_t shift;      /* at most 127 */
	int64_t offset_s;
};

/* if_tsresol: 10^-n, or with the highest bit 2^-n seconds. */
static inline void set_time_unit(struct time_unit *unit, uint8_t resolution, int64_t offset_s)
{
	int n = resolution & 0x7f;

	unit->multiplier = 1;
	unit->divisor = 1;
	unit->shift = 0;
	unit->offset_s = offset_s;
	if (resolution & 0x80) {
		unit->multiplier = NS_PER_S;
		unit->shift = n;
		return;
	}
	for (; n < 9; n++)
		unit->multiplier *= 10;
	for (; n > 9 && unit->divisor <= UINT64_MAX / 10; n--)
		unit->divisor *= 10;
	/* Finer than 10^-28 s: no 64-bit number of these makes a nanosecond. */
	if (n > 9)
		unit->multiplier = 0;
}

/* 0 if the time is outside of what can be told; *ns is then the nearest that can be. */
static inline int units_to_ns(const struct time_unit *unit, uint64_t units, uint64_t *ns)
{
	unsigned __int128 since = (unsigned __int128)units * unit->multiplier;
	__int128 total;

	if (unit->divisor > 1)
		since /= unit->divisor;
	total = (__int128)(since >> unit->shift) + (__int128)unit->offset_s * NS_PER_S;
	*ns = total < 0 ? 0 : total > TIME_MAX_NS ? (uint64_t)TIME_MAX_NS : (uint64_t)total;
	return total >= 0 && total <= TIME_MAX_NS;
}

/*
 * pcap's seconds and fraction, both unsigned.  0 if the fraction is a second or more: up to one second is
 * carried, as writers that add without carrying mean it; of any more the second alone is kept.
 */
static inline int seconds_to_ns(uint32_t seconds, uint64_t fraction_ns, uint64_t *ns)
{
	*ns = (uint64_t)seconds * NS_PER_S + (fraction_ns < 2ull * NS_PER_S ? fraction_ns : 0);
	return fraction_ns < NS_PER_S;
}

#endif
