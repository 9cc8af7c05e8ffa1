/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The image of a socket -> what a record says of it, as tcp_get_info() would.  The image is as much of struct tcp_sock as
 * READ_VIEW has copied, at the kernel's own offsets; HAS_... and FIELD_... come before this, see socket.c.
 */
#ifndef TCPTRACE_SOCKET_VIEW_H
#define TCPTRACE_SOCKET_VIEW_H

#include "records.h"

#define KNOWN(name, value) (HAS_##name ? (value) : -1)

/* include/net/tcp_states.h */
enum { ESTABLISHED = 1, SYN_SENT = 2, SYN_RECV = 3, FIN_WAIT1 = 4, CLOSE = 7, LAST_ACK = 9, LISTEN = 10 };
/* include/uapi/linux/tcp.h, include/net/inet_connection_sock.h, include/linux/socket.h, include/net/tcp.h */
enum { CA_RECOVERY = 3, CA_LOSS = 4 };
#define TIMER_LOSS_PROBE 5
#define FAMILY_INET 2
#define FAMILY_INET6 10
#define PROTOCOL_TCP 6
#define INFINITE_SSTHRESH 0x7fffffff

/* Why the socket sends something again now. */
static __always_inline __u8 cause_of(const __u8 *image)
{
	__u8 state = FIELD_state(image);

	if (state == SYN_SENT)
		return CAUSE_SYN;
	if (state == SYN_RECV)
		return CAUSE_SYN_ACK;
	if (FIELD_ca_state(image) == CA_LOSS)
		return CAUSE_RTO;
	if (FIELD_ca_state(image) == CA_RECOVERY || FIELD_lost_out(image)) /* lost, and the state undone or not there yet */
		return CAUSE_FAST;
	return FIELD_pending(image) == TIMER_LOSS_PROBE ? CAUSE_TLP : CAUSE_OTHER;
}

/* tcp_get_info_chrono_stats() */
static __always_inline void view_times(struct socket_view *v, const __u8 *image)
{
	__u32 running = FIELD_chrono_type(image), since = (__u32)bpf_jiffies64() - FIELD_chrono_start(image);
	__u64 busy = FIELD_chrono_busy(image), window = FIELD_chrono_rwnd(image), buffer = FIELD_chrono_sndbuf(image);

	if (running == 1)
		busy += since;
	if (running == 2)
		window += since;
	if (running == 3)
		buffer += since;
	v->busy_us = KNOWN(chrono_busy, (busy + window + buffer) * TICK_US);
	v->rwnd_limited_us = KNOWN(chrono_rwnd, window * TICK_US);
	v->sndbuf_limited_us = KNOWN(chrono_sndbuf, buffer * TICK_US);
}

/* tcp_compute_delivery_rate() */
static __always_inline __s64 delivery_rate(const __u8 *image)
{
	__u64 interval_us = FIELD_rate_interval_us(image), rate = FIELD_rate_delivered(image);

	if (!HAS_rate_delivered || !interval_us || !rate)
		return -1;
	return rate * FIELD_mss_cache(image) * 1000000 / interval_us;
}

/* As tcp_get_info() puts these numbers; a time of 0 was never measured. */
static __always_inline void view_numbers(struct socket_view *v, const __u8 *image)
{
	__u32 srtt_us = FIELD_srtt_us(image), ssthresh = FIELD_snd_ssthresh(image);
	__u64 pacing = FIELD_pacing_rate(image);

	v->bytes_sent = KNOWN(bytes_sent, FIELD_bytes_sent(image));
	v->bytes_retransmitted = KNOWN(bytes_retrans, FIELD_bytes_retrans(image));
	v->bytes_acked = KNOWN(bytes_acked, FIELD_bytes_acked(image));
	v->bytes_received = KNOWN(bytes_received, FIELD_bytes_received(image));
	v->delivery_rate_bytes_per_s = delivery_rate(image);
	v->pacing_rate_bytes_per_s = HAS_pacing_rate && pacing != ~0ULL ? pacing : -1;
	v->srtt_us = HAS_srtt_us && srtt_us ? srtt_us >> 3 : -1;
	v->rttvar_us = HAS_mdev_us && srtt_us ? FIELD_mdev_us(image) >> 2 : -1;
	v->rtt_min_us = KNOWN(rtt_min, FIELD_rtt_min(image));
	v->rto_us = KNOWN(rto, FIELD_rto(image) * TICK_US);
	v->cwnd_packets = KNOWN(snd_cwnd, FIELD_snd_cwnd(image));
	v->ssthresh_packets = HAS_snd_ssthresh && ssthresh < INFINITE_SSTHRESH ? ssthresh : -1;
	v->lost_packets = KNOWN(lost_out, FIELD_lost_out(image));
	v->sacked_packets = KNOWN(sacked_out, FIELD_sacked_out(image));
	v->in_flight_packets = KNOWN(packets_out, FIELD_packets_out(image) - FIELD_sacked_out(image) -
				     FIELD_lost_out(image) + FIELD_retrans_out(image));
	v->reordering_packets = KNOWN(reordering, FIELD_reordering(image));
	v->delivered_packets = KNOWN(delivered, FIELD_delivered(image));
	v->dsack_duplicates = KNOWN(dsack_dups, FIELD_dsack_dups(image));
	v->snd_wnd_bytes = KNOWN(snd_wnd, FIELD_snd_wnd(image));
	v->rcv_wnd_bytes = KNOWN(rcv_wnd, FIELD_rcv_wnd(image));
	v->retransmissions = KNOWN(total_retrans, FIELD_total_retrans(image));
	v->congestion_state = KNOWN(ca_state, FIELD_ca_state(image));
	view_times(v, image);
}

/* Nothing but who it is and whose. */
static __always_inline void view_nothing(struct socket_view *v)
{
	__builtin_memset(v, 0xff, sizeof(*v));
	__builtin_memset(v->comm, 0, 2 * NAME_BYTES);
	v->role = ROLE_UNKNOWN;
	v->owner_source = OWNER_UNKNOWN;
}

#endif
