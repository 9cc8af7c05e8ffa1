"""What the kernel says of sockets: which connection it joins, what is kept, what is asked for, what leaves when."""

import numpy as np
import pytest

from tcptrace.engine.table import Table
from tcptrace.model import END_REASONS, NEAR_ENDS, STATES
from tcptrace.records import (
    DIRECTION_EGRESS,
    DIRECTION_INGRESS,
    OWNER_HELD,
    OWNER_OPENED,
    OWNER_UNKNOWN,
    OWNER_USED,
    PACKET_RECORD,
    ROLE_ACTIVE,
    ROLE_PASSIVE,
    SOCKET_FOUND,
    SOCKET_KEY,
    SOCKET_RECORD,
    SOCKET_RETRANSMISSION,
)

from .conversation import SECOND, START_NS, Conversation, counts, feed, live_rows, new_table, only_row, raw_address
from .sockets import (
    CLIENT,
    CLOSE,
    CLOSE_WAIT,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    LISTEN,
    SERVER,
    SYN_RECV,
    SYN_SENT,
    TIME_WAIT,
    asked,
    changed,
    found,
    socket_record,
    tell,
)

MS = 1_000_000
US = 1_000
SETTLED_NS = 30 * MS
"""After this a packet has done to its socket what it does."""


class Near(Conversation):
    """The client is a socket of this host."""

    def add(self, end, fields):  # type: ignore[no-untyped-def]
        direction = DIRECTION_EGRESS if end is self.client else DIRECTION_INGRESS
        super().add(end, {"direction": direction} | fields)


def opened() -> tuple[Near, Table]:
    """A connection after its handshake, and the table that has it."""
    talk, table = Near(), new_table()
    talk.handshake()
    feed_new(table, talk)
    return talk, table


def feed_new(table: Table, talk: Conversation) -> None:
    """What the conversation has had since the last time."""
    records = talk.records
    rows = live_rows(table)
    last = int(rows["last_ns"].max()) if len(rows) else 0
    feed(table, records[records["time_ns"].astype("i8") > last])


def views(table: Table) -> tuple[np.void, np.void]:
    row = only_row(table)
    return row["src_socket"], row["dst_socket"]


def states_shown(table: Table, now_ns: int) -> dict[str, int]:
    table.refresh(now_ns)
    return dict(table.totals().connections_by_state)


def reason(table: Table) -> str | None:
    rows = table.take_ended()
    assert len(rows) == 1
    return END_REASONS[rows[0]["end_reason"]]


# --- Which connection, which end.


def test_local_end_says_which_socket_it_is() -> None:
    talk, table = opened()
    now = talk.now_ns
    assert tell(table, socket_record(now, srtt_us=7)) == [1]
    src, dst = views(table)
    assert (src["srtt_us"], src["time_ns"], src["state"], dst["time_ns"]) == (7, now, ESTABLISHED, 0)
    assert tell(table, socket_record(now + 1, SERVER, CLIENT, srtt_us=9)) == [1]
    src, dst = views(table)
    assert (src["srtt_us"], dst["srtt_us"], dst["time_ns"]) == (7, 9, now + 1)
    assert NEAR_ENDS[only_row(table)["near_end"]] == "src"


def test_connection_with_itself_is_srcs() -> None:
    talk, table = Conversation(SERVER, SERVER), new_table()
    talk.client.syn()
    feed_new(table, talk)
    assert tell(table, socket_record(talk.now_ns, SERVER, SERVER)) == [1]
    assert [view["time_ns"] for view in views(table)] == [talk.now_ns, 0]


@pytest.mark.parametrize(
    "ends",
    [
        (("10.0.0.3", 40_000), SERVER),
        (("10.0.0.1", 40_001), SERVER),
        (CLIENT, ("10.0.0.2", 81)),
        (("::ffff:10.0.0.1", 40_000), ("::ffff:10.0.0.2", 80)),
    ],
)
def test_sockets_of_no_connection_are_dropped(ends: tuple[tuple[str, int], tuple[str, int]]) -> None:
    talk, table = opened()
    records = [
        socket_record(talk.now_ns, *ends),
        changed(talk.now_ns, ESTABLISHED, CLOSE, *ends),
        socket_record(talk.now_ns, *ends, event=SOCKET_RETRANSMISSION),
        found(talk.now_ns, *ends, state=CLOSE),
        found(talk.now_ns, *ends, state=LISTEN),
        found(talk.now_ns, *ends, time_ns=0),
    ]
    assert tell(table, *records) == [0] * 6
    assert table.totals().connections == 1


def test_what_happens_before_there_is_a_socket_is_the_connections_all_the_same() -> None:
    """A SYN-ACK sent again: the kernel has only a request so far."""
    talk, table = opened()
    assert tell(table, socket_record(talk.now_ns, event=SOCKET_RETRANSMISSION, time_ns=0)) == [1]
    assert [view["time_ns"] for view in views(table)] == [0, 0]


def test_records_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError):
        new_table().process_sockets(np.zeros(1, PACKET_RECORD))
    with pytest.raises(TypeError):
        new_table().process_sockets(np.zeros(2, SOCKET_RECORD), np.zeros(1, "u8"))
    assert new_table().process_sockets(np.zeros(0, SOCKET_RECORD)) == 0


# --- Ports are used again.


def test_socket_is_in_syn_sent_before_its_syn_is_seen() -> None:
    talk, table = Near(), new_table()
    talk.client.syn()
    feed_new(table, talk)
    record = changed(talk.now_ns - 30 * US, CLOSE, SYN_SENT, owner_source=OWNER_OPENED, pid=42)
    assert tell(table, record) == [1]
    assert views(table)[0]["pid"] == 42


@pytest.mark.parametrize("state", [ESTABLISHED, FIN_WAIT_1, LAST_ACK, CLOSE, TIME_WAIT])
@pytest.mark.parametrize("before_us", [1, 1_000, 100_000])
def test_late_record_of_the_socket_before_does_not_join_a_row_that_began_with_a_syn(state: int, before_us: int) -> None:
    _, table = opened()
    start = int(only_row(table)["start_ns"])
    assert tell(table, changed(start - before_us * US, LAST_ACK, state)) == [0]
    assert views(table)[0]["time_ns"] == 0


def test_row_that_began_midway_takes_what_came_just_before_its_first_packet() -> None:
    """A socket sends again, or closes, and is told of before the packet is seen."""
    for before_ns, joined in ((20 * US, 1), (5 * SECOND, 0)):
        talk, table = Near(), new_table()
        talk.client.data(10)
        feed_new(table, talk)
        assert tell(table, socket_record(talk.now_ns - before_ns)) == [joined]


def test_next_socket_with_the_same_ports_is_not_the_old_connections() -> None:
    talk, table = opened()
    tell(table, socket_record(talk.now_ns, srtt_us=7, pid=1, owner_source=OWNER_OPENED))
    talk.close()
    feed_new(table, talk)
    now = talk.now_ns
    tell(table, changed(now, LAST_ACK, CLOSE))
    again = changed(now + SECOND, CLOSE, SYN_SENT, pid=2, owner_source=OWNER_OPENED)
    assert tell(table, again) == [0]
    assert tell(table, found(now + SECOND, state=ESTABLISHED)) == [0]
    assert views(table)[0]["pid"] == 1
    # Its SYN comes, and with it its own row.
    talk.wait(1_000_000)
    talk.client.syn(seq=99_000)
    feed_new(table, talk)
    assert tell(table, again) == [2]
    src, _ = views(table)
    assert (src["pid"], src["srtt_us"]) == (2, -1)


def test_connection_that_was_refused_and_tried_again_within_one_batch() -> None:
    talk, table = Near(), new_table()
    talk.client.syn()
    talk.server.rst(ack=talk.client.next_seq)
    first_ns = talk.now_ns
    talk.client.syn(seq=77_000)
    feed(table, talk.records)
    records = [
        changed(first_ns - 1_100 * US, CLOSE, SYN_SENT, pid=1, owner_source=OWNER_OPENED),
        changed(first_ns + 5 * US, SYN_SENT, CLOSE, pid=1, owner_source=OWNER_OPENED),
        changed(talk.now_ns - 10 * US, CLOSE, SYN_SENT, pid=2, owner_source=OWNER_OPENED),
    ]
    assert tell(table, *records)[1:] == [0, 2]
    src = live_rows(table)[0]["src_socket"]
    assert (src["pid"], src["state"]) == (2, SYN_SENT)


def test_answer_in_a_state_before_its_own_fin_is_another_sockets() -> None:
    talk, table = opened()
    talk.client.fin()
    feed_new(table, talk)
    assert tell(table, found(talk.now_ns + 1, state=ESTABLISHED)) == [0]
    assert tell(table, found(talk.now_ns + 1, state=FIN_WAIT_1)) == [1]


def test_socket_that_follows_a_closed_one_in_the_same_row_inherits_nothing() -> None:
    """An old socket answers a SYN with a challenge, is reset, and the next SYN opens a new one."""
    talk, table = opened()
    now = talk.now_ns
    tell(table, changed(now, ESTABLISHED, CLOSE, SERVER, CLIENT, pid=1, owner_source=OWNER_OPENED, srtt_us=5))
    assert tell(table, socket_record(now + MS, SERVER, CLIENT, pid=2, owner_source=OWNER_USED)) == [1]
    dst = views(table)[1]
    assert (dst["pid"], dst["srtt_us"], dst["state"]) == (2, -1, ESTABLISHED)


# --- What is kept.


def test_newest_numbers_count() -> None:
    talk, table = opened()
    now = talk.now_ns
    tell(table, socket_record(now + 100, srtt_us=1, cwnd_packets=10), socket_record(now + 50, srtt_us=2, rto_us=3))
    src, _ = views(table)
    assert (src["time_ns"], src["srtt_us"], src["cwnd_packets"], src["rto_us"]) == (now + 100, 1, 10, 3)
    tell(table, socket_record(now + 200, srtt_us=4, state=CLOSE_WAIT))
    src, _ = views(table)
    assert (src["time_ns"], src["srtt_us"], src["cwnd_packets"], src["state"]) == (now + 200, 4, 10, CLOSE_WAIT)


def test_older_record_does_not_set_the_state_back() -> None:
    talk, table = opened()
    tell(table, socket_record(talk.now_ns + 100, state=CLOSE_WAIT), socket_record(talk.now_ns + 50))
    assert views(table)[0]["state"] == CLOSE_WAIT


def test_what_an_answer_does_not_know_stays() -> None:
    talk, table = opened()
    now = talk.now_ns
    known = {
        "retransmissions_by": [1, 2, 3, 4, 5, 6],
        "rcv_wnd_bytes": 100,
        "bytes_sent": 5,
        "congestion_control": b"cubic",
        "congestion_state": 0,
        "cgroup_id": 8,
    }
    tell(table, socket_record(now, role=ROLE_ACTIVE, **known), found(now + 1, state=0, bytes_sent=6))
    src, _ = views(table)
    assert src["retransmissions_by"].tolist() == [1, 2, 3, 4, 5, 6]
    assert src["congestion_control"].tobytes().rstrip(b"\0") == b"cubic"
    assert [src[name].item() for name in ("rcv_wnd_bytes", "bytes_sent", "congestion_state", "cgroup_id")] == [
        100,
        6,
        0,
        8,
    ]
    assert (src["state"], src["role"], src["time_ns"]) == (ESTABLISHED, ROLE_ACTIVE, now + 1)


def test_causes_that_an_answer_overtook_count() -> None:
    """Only the probes know them, and they only grow."""
    talk, table = opened()
    tell(table, socket_record(talk.now_ns, retransmissions_by=[0, 2, 0, 0, 0, 0]))
    tell(table, found(talk.now_ns + 2 * MS, retransmissions_by=[-1] * 6))
    table.clear_changed()
    tell(table, socket_record(talk.now_ns + MS, retransmissions_by=[0, 3, 0, 0, 0, 0]))
    row = only_row(table)
    assert row["src_socket"]["retransmissions_by"].tolist() == [0, 3, 0, 0, 0, 0]
    assert row["changed"] == 1  # or the line that said otherwise would stay the last one
    table.clear_changed()
    tell(table, socket_record(talk.now_ns + MS, retransmissions_by=[0, 3, 0, 0, 0, 0]))
    assert only_row(table)["changed"] == 0


def test_another_owner_is_news() -> None:
    talk, table = opened()
    tell(table, socket_record(talk.now_ns, pid=1, owner_source=OWNER_USED))
    table.clear_changed()
    tell(table, socket_record(talk.now_ns + 1, pid=2, owner_source=OWNER_OPENED))
    assert only_row(table)["changed"] == 1


def test_slow_start_threshold_becomes_infinite_again() -> None:
    talk, table = opened()
    now = talk.now_ns
    tell(table, socket_record(now, cwnd_packets=10, ssthresh_packets=7), found(now + 1, state=FIN_WAIT_2))
    assert views(table)[0]["ssthresh_packets"] == 7
    tell(table, socket_record(now + 2, cwnd_packets=10))
    assert views(table)[0]["ssthresh_packets"] == -1


def test_last_numbers_of_a_closed_socket_stay() -> None:
    talk, table = opened()
    talk.close()
    feed_new(table, talk)
    now = talk.now_ns
    tell(table, changed(now, FIN_WAIT_2, CLOSE, srtt_us=7, bytes_sent=3))
    tell(table, found(now + 1, state=TIME_WAIT, srtt_us=0, bytes_sent=0))
    src, _ = views(table)
    assert (src["srtt_us"], src["bytes_sent"], src["state"]) == (7, 3, TIME_WAIT)
    assert states_shown(table, now) == {"TIME-WAIT": 1}


@pytest.mark.parametrize(
    ("first", "second", "pid"),
    [
        (OWNER_UNKNOWN, OWNER_USED, 2),
        (OWNER_USED, OWNER_USED, 1),
        (OWNER_USED, OWNER_HELD, 2),
        (OWNER_HELD, OWNER_USED, 1),
        (OWNER_USED, OWNER_OPENED, 2),
        (OWNER_OPENED, OWNER_OPENED, 1),
        (OWNER_OPENED, OWNER_HELD, 1),
    ],
)
def test_better_source_says_who_the_owner_is(first: int, second: int, pid: int) -> None:
    talk, table = opened()
    now = talk.now_ns
    tell(table, socket_record(now, pid=1, uid=10, comm=b"one", owner_source=first))
    tell(table, socket_record(now + 1, pid=2, uid=20, comm=b"two", owner_source=second))
    src, _ = views(table)
    assert (src["pid"], src["uid"], src["owner_source"]) == (pid, 10 * pid, max(first, second))
    assert src["comm"].tobytes().rstrip(b"\0") == (b"one", b"two")[pid - 1]


def test_uid_alone_is_taken_while_nobody_is_known() -> None:
    talk, table = opened()
    tell(table, socket_record(talk.now_ns), found(talk.now_ns + 1, uid=1000), found(talk.now_ns + 2))
    assert views(table)[0]["uid"] == 1000


def test_owner_may_come_with_an_older_record() -> None:
    talk, table = opened()
    now = talk.now_ns
    tell(table, socket_record(now + 9, srtt_us=1), socket_record(now + 3, pid=4, uid=0, owner_source=OWNER_OPENED))
    src, _ = views(table)
    assert (src["pid"], src["time_ns"], src["srtt_us"]) == (4, now + 9, 1)


def test_kernels_state_is_what_is_counted() -> None:
    talk, table = opened()
    now = talk.now_ns
    assert states_shown(table, now) == {"ESTABLISHED": 1}
    tell(table, socket_record(now, state=CLOSE_WAIT), socket_record(now, SERVER, CLIENT, state=FIN_WAIT_2))
    assert states_shown(table, now) == {"CLOSE-WAIT": 1}
    assert STATES[only_row(table)["state"]] == "ESTABLISHED"
    tell(table, changed(now + 1, LAST_ACK, CLOSE))
    assert states_shown(table, now) == {"CLOSED": 1}


def test_row_changes_with_its_sockets_state() -> None:
    talk, table = opened()
    table.clear_changed()
    tell(table, socket_record(talk.now_ns))
    assert only_row(table)["changed"] == 1
    table.clear_changed()
    tell(table, socket_record(talk.now_ns + 1, srtt_us=3))
    assert only_row(table)["changed"] == 0
    tell(table, changed(talk.now_ns + 2, ESTABLISHED, CLOSE_WAIT))
    assert only_row(table)["changed"] == 1


# --- Sockets that were open before the trace began.


@pytest.mark.parametrize(
    ("local", "remote", "fields", "is_src", "known"),
    [
        (CLIENT, SERVER, {}, True, 0),
        (SERVER, CLIENT, {}, False, 0),
        (SERVER, CLIENT, {"role": ROLE_ACTIVE}, True, 1),
        (CLIENT, SERVER, {"role": ROLE_PASSIVE}, False, 1),
        (SERVER, CLIENT, {"state": SYN_SENT}, True, 1),
        (CLIENT, SERVER, {"state": SYN_RECV}, False, 1),
    ],
)
def test_open_socket_is_a_row_without_packets(local, remote, fields, is_src, known) -> None:  # type: ignore[no-untyped-def]
    table = new_table()
    assert tell(table, found(START_NS, local, remote, srtt_us=5, **fields)) == [1]
    row = only_row(table)
    src, dst = (local, remote) if is_src else (remote, local)
    assert (row["src_addr"].tolist(), row["src_port"]) == (raw_address(src[0]).tolist(), src[1])
    assert (row["dst_addr"].tolist(), row["dst_port"]) == (raw_address(dst[0]).tolist(), dst[1])
    assert (row["initiator_known"], NEAR_ENDS[row["near_end"]]) == (known, "src" if is_src else "dst")
    assert (row["start_ns"], row["last_ns"], row["changed"]) == (START_NS, START_NS, 1)
    assert row["src_socket" if is_src else "dst_socket"]["srtt_us"] == 5
    assert counts(row, "sent", "packets", "seq", "window", "ttl") == (0, -1, -1, -1)
    assert np.isnan(row["sent"]["rtt_min_us"])
    table.refresh(START_NS + SECOND)
    assert table.totals().connections_total == 1


def test_both_sockets_of_a_connection_to_this_host_are_one_row() -> None:
    table = new_table()
    assert tell(table, found(START_NS, role=ROLE_ACTIVE), found(START_NS, SERVER, CLIENT, role=ROLE_PASSIVE)) == [1, 1]
    row = only_row(table)
    assert NEAR_ENDS[row["near_end"]] == "both"
    assert (row["src_socket"]["role"], row["dst_socket"]["role"]) == (ROLE_ACTIVE, ROLE_PASSIVE)


def test_packets_join_the_row_of_their_socket() -> None:
    table, talk = new_table(), Near()
    tell(table, found(START_NS, srtt_us=5))
    talk.wait(10 * US)
    talk.server.data(100)
    talk.client.ack()
    feed_new(table, talk)
    row = only_row(table)
    assert (row["id"], row["start_ns"], row["last_ns"]) == (1, START_NS, talk.now_ns)
    assert counts(row, "received", "packets", "payload_bytes", "gaps") == (1, 100, 0)
    assert row["src_socket"]["srtt_us"] == 5


def test_syn_of_a_connection_that_was_asked_for_before_its_packets_came_is_its_own() -> None:
    """The answer is of now, the packets are some milliseconds behind."""
    table, talk = new_table(), Near(("10.0.0.1", 80), ("10.0.0.2", 40_000))
    talk.handshake()
    tell(table, found(talk.now_ns + SETTLED_NS, ("10.0.0.1", 80), ("10.0.0.2", 40_000), srtt_us=5))
    feed(table, talk.records)
    row = only_row(table)
    assert (row["src_port"], row["initiator_known"], NEAR_ENDS[row["near_end"]]) == (80, 1, "src")
    assert (row["start_ns"], row["last_ns"]) == (START_NS + MS, talk.now_ns)
    assert (row["src_socket"]["srtt_us"], row["dst_socket"]["time_ns"]) == (5, 0)
    assert asked(table) == []


def test_syn_ends_the_row_of_a_socket_that_was_past_it() -> None:
    table, talk = new_table(), Near()
    tell(table, found(START_NS))
    talk.client.syn()
    feed(table, talk.records)
    row = only_row(table)
    assert (row["id"], row["port_reuse"], row["src_socket"]["time_ns"]) == (2, 1, 0)


def test_syn_sent_again_is_of_the_socket_in_syn_sent() -> None:
    table, talk = new_table(), Near()
    tell(table, found(START_NS, state=SYN_SENT))
    talk.client.syn()
    feed(table, talk.records)
    row = only_row(table)
    assert (row["id"], row["port_reuse"], row["src_socket"]["state"]) == (1, 0, SYN_SENT)


def sockets(count: int, time_ns: int = START_NS) -> np.ndarray:
    records = np.repeat(found(time_ns), count)
    number = np.arange(count)
    records["key"]["local_port"] = 1_024 + number % 60_000
    records["key"]["remote_addr"][:, 13] = number // 60_000
    return records


def test_full_table_is_not_flushed_by_silent_sockets() -> None:
    table, talk = new_table(3), Conversation(("10.0.0.9", 1), ("10.0.0.8", 2))
    talk.handshake()
    feed(table, talk.records)
    assert tell(table, sockets(5)) == [2, 3, 0, 0, 0]
    totals = table.totals()
    assert (totals.connections, totals.evicted, totals.sockets_without_room) == (3, 0, 3)
    # The silent ones make room for what packets begin.
    for port in (3, 4):
        talk = Conversation(("10.0.0.9", port), ("10.0.0.8", 2), start_ns=START_NS + SECOND)
        talk.handshake()
        feed(table, talk.records)
    assert live_rows(table)["recent_total"].tolist() == [3, 3, 3]


def test_ten_thousand_idle_sockets_are_in_the_table() -> None:
    table = new_table(65_536)
    assert tell(table, sockets(10_000)) == list(range(1, 10_001))
    assert states_shown(table, START_NS) == {"ESTABLISHED": 10_000}
    assert asked(table) == []
    table.clear_changed()
    assert tell(table, sockets(10_000, START_NS + SECOND)) == list(range(1, 10_001))
    assert live_rows(table)["changed"].sum() == 0


def test_row_that_is_used_again_has_nothing_of_the_last_ones_sockets() -> None:
    table = new_table(1)
    tell(table, found(START_NS, srtt_us=5), found(START_NS, SERVER, CLIENT, srtt_us=6))
    talk = Near(("10.0.0.7", 1), ("10.0.0.8", 2))
    for _ in range(2):
        talk.client.syn(seq=len(talk.packets) * 1_000)
    table.process(talk.records)
    ended = table.take_ended()
    assert ended["src_socket"]["srtt_us"].tolist() == [5, 0]
    assert ended["dst_socket"]["time_ns"].tolist() == [START_NS, 0]
    assert [view["time_ns"] for view in views(table)] == [0, 0]
    table.process(Near(CLIENT, SERVER, start_ns=talk.now_ns).records)
    talk.client.syn(seq=9)
    feed_new(table, talk)
    tell(table, socket_record(talk.now_ns, ("10.0.0.7", 1), ("10.0.0.8", 2)))
    talk.client.syn(seq=77)
    feed_new(table, talk)


def test_ended_rows_sockets_are_their_own() -> None:
    """Rows with and without sockets end in turn, through the same memory."""
    table = new_table(1)
    for turn in range(6):
        talk = Near(("10.0.0.7", 1 + turn), ("10.0.0.8", 2), start_ns=START_NS + turn * SECOND)
        talk.client.syn()
        feed_ended = table.process(talk.records)
        assert feed_ended == 1
        ended = table.take_ended()
        assert [bool(row["src_socket"]["time_ns"]) for row in ended] == ([] if turn == 0 else [turn % 2 == 0])
        if turn % 2:
            tell(table, socket_record(talk.now_ns, ("10.0.0.7", 1 + turn), ("10.0.0.8", 2)))


# --- What is asked for.


def test_sockets_with_packets_since_are_asked_for() -> None:
    talk, table = opened()
    tell(table, socket_record(talk.now_ns + SETTLED_NS))
    assert asked(table) == []
    talk.wait(SETTLED_NS)
    talk.client.data(10)
    feed_new(table, talk)
    keys = table.stale_sockets(10)
    assert keys.dtype == SOCKET_KEY
    expected = socket_record(0)["key"]
    expected["netns"] = 0
    assert keys.tobytes() == expected.tobytes()
    tell(table, found(talk.now_ns + SETTLED_NS))
    assert asked(table) == []


def test_answer_that_may_lack_the_last_packets_effects_is_asked_for_again() -> None:
    """A packet is seen before its socket takes it."""
    talk, table = opened()
    talk.client.data(10)
    feed_new(table, talk)
    assert asked(table) == [(40_000, 80)]
    tell(table, found(talk.now_ns + 1, bytes_acked=1))
    table.clear_changed()
    assert asked(table) == [(40_000, 80)]
    tell(table, found(talk.now_ns + SETTLED_NS, bytes_acked=11))
    row = only_row(table)
    assert (row["src_socket"]["bytes_acked"], row["changed"]) == (11, 1)
    assert asked(table) == []


def test_answer_with_the_same_numbers_is_no_news() -> None:
    talk, table = opened()
    tell(table, found(talk.now_ns + 1, bytes_acked=11))
    table.clear_changed()
    tell(table, found(talk.now_ns + SETTLED_NS, bytes_acked=11))
    assert only_row(table)["changed"] == 0


def test_nobody_is_asked_twice_without_packets_between() -> None:
    talk, table = opened()
    tell(table, socket_record(talk.now_ns))
    talk.client.data(10)
    feed_new(table, talk)
    assert asked(table) == [(40_000, 80)]
    assert asked(table) == []
    talk.client.data(10)
    feed_new(table, talk)
    assert asked(table) == [(40_000, 80)]


def test_end_on_this_side_without_a_socket_is_asked_for_once() -> None:
    """It may be only forwarded."""
    talk, table = opened()
    assert asked(table) == [(40_000, 80)]
    talk.client.data(10)
    feed_new(table, talk)
    assert asked(table) == []


def test_both_ends_on_this_side_are_asked_for_once() -> None:
    table, talk = new_table(), Near()
    talk.client.syn()
    talk.client.syn(seq=1_000, direction=DIRECTION_INGRESS)
    feed_new(table, talk)
    assert sorted(asked(table)) == [(80, 40_000), (40_000, 80)]
    assert asked(table) == []


def test_without_directions_nobody_is_asked() -> None:
    table, talk = new_table(), Conversation()
    talk.handshake()
    feed_new(table, talk)
    assert asked(table) == []


def test_what_may_be_left_in_time_wait_is_asked_for() -> None:
    talk, table = opened()
    tell(table, socket_record(talk.now_ns))
    talk.close()
    feed_new(table, talk)
    assert STATES[only_row(table)["src_state"]] == "TIME-WAIT"
    tell(table, changed(talk.now_ns + 1, FIN_WAIT_2, CLOSE))
    assert asked(table) == [(40_000, 80)]
    tell(table, found(talk.now_ns + SETTLED_NS, state=TIME_WAIT))
    assert states_shown(table, talk.now_ns) == {"TIME-WAIT": 1}
    assert asked(table) == []


def test_socket_told_to_be_closed_after_its_last_packet_is_asked_for_then() -> None:
    """An orphan in FIN-WAIT-2 goes to a small socket by itself."""
    talk, table = opened()
    talk.client.fin()
    talk.server.ack()
    feed_new(table, talk)
    tell(table, socket_record(talk.now_ns + SETTLED_NS, state=FIN_WAIT_2))
    assert asked(table) == []
    tell(table, changed(talk.now_ns + SECOND, FIN_WAIT_2, CLOSE))
    assert asked(table) == [(40_000, 80)]
    assert asked(table) == []
    assert states_shown(table, talk.now_ns) == {"CLOSED": 1}


def test_socket_that_closed_second_leaves_nothing_and_is_not_asked_for() -> None:
    table, talk = new_table(), Near()
    talk.handshake()
    talk.server.fin()
    talk.client.fin()
    talk.server.ack()
    feed_new(table, talk)
    tell(table, changed(talk.now_ns + 1, LAST_ACK, CLOSE))
    assert asked(table) == []


def test_answer_that_does_not_come_takes_the_state_back_where_there_was_one_before() -> None:
    talk, table = opened()
    asked(table)
    tell(table, found(talk.now_ns, srtt_us=4, state=CLOSE_WAIT))
    talk.client.data(1)
    feed_new(table, talk)
    assert asked(table) == [(40_000, 80)]
    assert states_shown(table, talk.now_ns) == {"ESTABLISHED": 1}
    src, _ = views(table)
    assert (src["state"], src["srtt_us"]) == (0, 4)


def test_socket_of_another_namespace_is_not_given_up() -> None:
    """The probes tell of it, but it cannot be asked for."""
    talk, table = opened()
    tell(table, socket_record(talk.now_ns, state=CLOSE_WAIT))
    talk.client.data(1)
    feed_new(table, talk)
    assert asked(table) == [(40_000, 80)]
    assert states_shown(table, talk.now_ns) == {"CLOSE-WAIT": 1}
    talk.close()
    feed_new(table, talk)
    assert asked(table) == [(40_000, 80)]
    assert states_shown(table, talk.now_ns) == {"TIME-WAIT": 1}
    assert views(table)[0]["state"] == 0


def test_time_wait_that_is_not_there_any_more_is_closed() -> None:
    talk, table = opened()
    talk.close()
    feed_new(table, talk)
    asked(table)
    tell(table, found(talk.now_ns, state=TIME_WAIT))
    talk.server.fin(seq=talk.server.next_seq - 1)
    feed_new(table, talk)
    assert asked(table) == [(40_000, 80)]
    assert states_shown(table, talk.now_ns) == {"CLOSED": 1}


def test_questions_go_round() -> None:
    """No row waits for ever, however many there are and however often they have packets."""
    table = new_table()
    packets = []
    for port in range(20):
        talk = Near(("10.0.0.1", 1_000 + port), SERVER)
        talk.handshake()
        packets.append(talk.records)
    seen: list[tuple[int, int]] = []
    for turn in range(5):
        for records in packets:
            again = records.copy()
            again["time_ns"] += turn * SECOND
            feed(table, again)
        part = asked(table, 5)
        assert len(part) <= 5
        seen += part
    assert seen == [(1_000 + port, 80) for port in range(20)]
    assert asked(table, 1) == asked(table, 0) == []


def test_rows_that_left_are_not_asked_about() -> None:
    table = new_table(1)
    for port in (1, 2, 3):
        talk = Near(("10.0.0.1", port), SERVER)
        talk.handshake()
        feed(table, talk.records)
    assert asked(table) == [(3, 80)]


# --- What the kernel holds open does not leave.


def test_open_socket_outlives_the_idle_time_while_the_kernel_confirms_it() -> None:
    talk, table = opened()
    asked(table)
    now = talk.now_ns
    tell(table, found(now))
    for _ in range(5):
        now += 301 * SECOND
        assert table.expire(now)
        assert table.totals().connections == 1
        assert asked(table) == [(40_000, 80)]
        tell(table, found(now))
        table.refresh(now)
    now += 301 * SECOND
    table.expire(now)
    assert asked(table) == [(40_000, 80)]
    table.refresh(now)  # no answer
    table.expire(now + 299 * SECOND)
    assert table.totals().connections == 1
    table.expire(now + 300 * SECOND)
    assert table.totals().connections == 0
    assert reason(table) == "idle"


def test_silent_socket_leaves_after_it_is_closed() -> None:
    table = new_table()
    tell(table, found(START_NS))
    tell(table, changed(START_NS + 100 * SECOND, ESTABLISHED, CLOSE))
    assert only_row(table)["changed"] == 1
    table.expire(START_NS + 159 * SECOND)
    assert table.totals().connections == 1
    table.expire(START_NS + 160 * SECOND)
    assert reason(table) == "closed"


def test_what_was_found_in_time_wait_leaves_as_closed() -> None:
    table = new_table()
    tell(table, found(START_NS, state=TIME_WAIT))
    table.expire(START_NS + 60 * SECOND)
    assert reason(table) == "closed"


def test_packets_bring_a_silent_row_back_among_the_live() -> None:
    talk, table = opened()
    tell(table, socket_record(talk.now_ns))
    table.expire(talk.now_ns + 300 * SECOND)
    talk.wait(400e6)
    talk.client.data(1)
    talk.close()
    feed_new(table, talk)
    table.expire(talk.now_ns + 60 * SECOND)
    assert reason(table) == "closed"


def test_idle_time_of_nothing_does_not_hang() -> None:
    table = Table(10, 0, 0, START_NS, 1)
    tell(table, found(START_NS))
    assert table.expire(START_NS)
    assert table.expire(START_NS + 1)
    assert table.totals().connections == 1


def test_found_event_is_the_only_one_that_makes_rows() -> None:
    table = new_table()
    assert tell(table, *[socket_record(START_NS, event=event) for event in range(4)]) == [0, 0, 0, 1]
    assert SOCKET_FOUND == 3
