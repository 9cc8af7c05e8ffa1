/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Which packets are wanted, where the user asks for those of some processes' sockets alone.  Compiled into packet.c,
 * behind the filter: packets ask is_selected(); what socket.c learns of processes comes in by select_flow() and
 * expect_syn().
 */

/*
 * Connections of the processes that are asked for: put in by socket.c, and by the loader for those that were open before.
 * Without the remote end it is a port that such a process listens on.
 */
BPF_TABLE("lru_hash", struct socket_key, __u8, selected, FOLLOWED_MAX);
#ifndef HAVE_KPROBES
/* How many of their SYNs are on the way from sockets that had no local port yet, which is 0 here. */
BPF_TABLE("lru_hash", struct socket_key, __u32, expected, FOLLOWED_MAX);

/*
 * Which connect() began last on this CPU, of whichever process: its SYN comes a few microseconds later, almost always on
 * the same CPU, and is not to be mistaken for one that is expected from another.
 */
struct connecting {
	__u64 destination[5]; /* of struct socket_key: addresses and ports */
	__u64 is_other;       /* the process is not asked for, and the SYN has not been seen */
};
BPF_PERCPU_ARRAY(connecting_now, struct connecting, 1);

static __always_inline int is_others(const struct socket_key *key)
{
	struct connecting *c;
	__u64 its[5];
	int zero = 0;

	c = connecting_now.lookup(&zero);
	if (!c || !c->is_other)
		return 0;
	__builtin_memcpy(its, key, sizeof(its));
	if ((its[0] ^ c->destination[0]) | (its[1] ^ c->destination[1]) | (its[2] ^ c->destination[2]) |
	    (its[3] ^ c->destination[3]) | (its[4] ^ c->destination[4]))
		return 0;
	c->is_other = 0;
	return 1;
}

/* One of those that are expected has come, or will not come. */
static __always_inline int take_expected(const struct socket_key *key)
{
	__u32 *count = expected.lookup(key);

	if (!count || !*count)
		return 0;
	__sync_fetch_and_add(count, -1);
	return 1;
}

static __always_inline int is_expected(const struct socket_key *key)
{
	return !is_others(key) && take_expected(key);
}
#else
#define is_expected(key) 0 /* whoever connects is known before the SYN */
#endif

static __always_inline int is_selected_by(struct socket_key *key, const struct packet_record *r, int local_is_src)
{
	__u16 local_port = local_is_src ? r->src_port : r->dst_port;
	__u8 yes = 1;

	__builtin_memset(key, 0, sizeof(*key));
	key->netns = NETNS;
	key->ip_version = r->ip_version;
	key->local_port = local_port;
	copy16(key->local_addr, local_is_src ? r->src_addr : r->dst_addr);
	copy16(key->remote_addr, local_is_src ? r->dst_addr : r->src_addr);
	key->remote_port = local_is_src ? r->dst_port : r->src_port;
	if (selected.lookup(key))
		return 1;
	if ((r->flags & (FLAG_SYN | FLAG_ACK)) != FLAG_SYN)
		return 0;
	/* A SYN: the first packet of a connection that is expected. */
	if (local_is_src) {
		key->local_port = 0;
		if (!is_expected(key))
			return 0;
	} else {
		struct socket_key listener = { .netns = NETNS, .local_port = local_port };

		if (!selected.lookup(&listener))
			return 0;
	}
	key->local_port = local_port;
	selected.update(key, &yes);
	return 1;
}

static __always_inline int is_selected(const struct packet_record *r, int egress)
{
	struct socket_key key;

#ifdef LOOPBACK /* each packet is seen once, and either end may be the one */
	if (is_selected_by(&key, r, 1))
		return 1;
	return is_selected_by(&key, r, 0);
#else
	return is_selected_by(&key, r, egress);
#endif
}

/* --- From the sockets. */

static __always_inline void select_flow(struct socket_key *key, int yes)
{
	__u8 one = 1;

	if (yes)
		selected.update(key, &one);
	else
		selected.delete(key);
}

static __always_inline int is_selected_flow(struct socket_key *key)
{
	return selected.lookup(key) != NULL;
}

#ifdef HAVE_KPROBES
#define expect_syn(key, is_other) 0
#define expect_no_syn(key) ((void)0)
#else
/* connect() has begun; which local port it will have may not be known yet.  1 if its SYN is expected from now on. */
static __always_inline int expect_syn(struct socket_key *key, int is_other)
{
	struct connecting *c;
	__u32 one = 1, *count;
	__u16 port = key->local_port;
	int zero = 0;

	key->local_port = 0;
	c = connecting_now.lookup(&zero);
	if (c) {
		c->is_other = is_other;
		__builtin_memcpy(c->destination, key, sizeof(c->destination));
	}
	if (!is_other && !port) {
		count = expected.lookup(key);
		if (count)
			__sync_fetch_and_add(count, 1);
		else
			expected.update(key, &one);
	}
	key->local_port = port;
	return !is_other && !port;
}

/* connect() is over.  A SYN that was expected and did not come this way is not to be mistaken for another one. */
static __always_inline void expect_no_syn(struct socket_key *key)
{
	__u16 port = key->local_port;

	if (port && is_selected_flow(key))
		return;
	key->local_port = 0;
	take_expected(key);
	key->local_port = port;
}
#endif
