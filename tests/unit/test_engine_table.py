"""The connection table: what is one connection, what it counts, when it leaves."""

import numpy as np
import pytest

from tcptrace.engine.table import Table
from tcptrace.model import CONNECTION, END_REASONS, NEAR_ENDS, Rows
from tcptrace.records import (
    DIRECTION_EGRESS,
    DIRECTION_INGRESS,
    DIRECTION_UNKNOWN,
    FLAG_ACK,
    FLAG_FIN,
    FLAG_PSH,
    FLAG_SYN,
    NOTE_ETHERNET,
    PACKET_RECORD,
)

from .conversation import (
    SECOND,
    START_NS,
    Conversation,
    counts,
    feed,
    live_rows,
    merged,
    new_table,
    only_row,
    plain,
    raw_address,
    table_of,
)

COUNTS = ("packets", "bytes", "payload_bytes")


def reasons(rows: Rows) -> list[str | None]:
    return [END_REASONS[reason] for reason in rows["end_reason"]]


def syns(count: int, start_ns: int = START_NS, step_ns: int = 1_000) -> np.ndarray:
    """One SYN each of so many connections."""
    records = np.zeros(count, PACKET_RECORD)
    number = np.arange(count)
    records["time_ns"] = start_ns + number * step_ns
    records["src_addr"] = raw_address("10.0.0.1")
    records["dst_addr"] = raw_address("10.1.0.0")
    records["dst_addr"][:, 14] = number >> 16
    records["src_port"] = number & 0xFFFF
    records["dst_port"] = 443
    records["flags"] = FLAG_SYN
    records["segments"] = 1
    records["frame_bytes"] = 74
    records["ip_version"] = 4
    return records


# --- Who is who, and what is counted.


@pytest.mark.parametrize(
    ("client", "server"),
    [
        (("10.0.0.1", 40_000), ("10.0.0.2", 80)),
        (("10.0.0.2", 80), ("10.0.0.1", 40_000)),
        (("2001:db8::1", 40_000), ("2001:db8::2", 443)),
        (("10.0.0.1", 443), ("10.0.0.1", 444)),
        (("10.0.0.1", 443), ("10.0.0.2", 443)),
    ],
)
def test_both_directions_are_one_connection(client: tuple[str, int], server: tuple[str, int]) -> None:
    talk = Conversation(client, server)
    talk.handshake()
    row = talk.row()
    assert row["src_addr"].tolist() == raw_address(client[0]).tolist()
    assert row["dst_addr"].tolist() == raw_address(server[0]).tolist()
    assert (row["src_port"], row["dst_port"]) == (client[1], server[1])
    assert row["ip_version"] == (6 if ":" in client[0] else 4)
    assert row["initiator_known"] == 1
    assert counts(row, "sent", "packets") + counts(row, "received", "packets") == (2, 1)


@pytest.mark.parametrize("first", ["client", "server"])
def test_without_a_syn_the_lower_port_is_the_servers(first: str) -> None:
    talk = Conversation(("10.0.0.9", 50_000), ("10.0.0.2", 443))
    getattr(talk, first).data(10)
    row = talk.row()
    assert (row["src_port"], row["dst_port"], row["initiator_known"]) == (50_000, 443, 0)
    assert counts(row, "sent", "packets") == ((1,) if first == "client" else (0,))


def test_four_tuples_that_differ_in_one_place_are_different_connections() -> None:
    talks = [
        Conversation(("10.0.0.1", 40_000), ("10.0.0.2", 80)),
        Conversation(("10.0.0.1", 40_001), ("10.0.0.2", 80)),
        Conversation(("10.0.0.1", 40_000), ("10.0.0.2", 81)),
        Conversation(("10.0.0.1", 40_000), ("10.0.0.3", 80)),
        Conversation(("10.0.0.3", 40_000), ("10.0.0.2", 80)),
        Conversation(("10.0.0.1", 80), ("10.0.0.2", 40_000)),
    ]
    for talk in talks:
        talk.handshake()
    rows = live_rows(table_of(*talks))
    assert rows["id"].tolist() == [1, 2, 3, 4, 5, 6]
    assert rows["sent"]["packets"].tolist() == [2] * 6


def test_counts_per_direction() -> None:
    talk = Conversation()
    talk.handshake()
    talk.client.data(100)
    talk.client.data(200)
    talk.server.data(1_000)
    talk.server.data(500)
    talk.server.data(1)
    talk.client.ack()
    row = talk.row()
    assert counts(row, "sent", *COUNTS) == (5, 5 * 54 + 300, 300)
    assert counts(row, "received", *COUNTS) == (4, 4 * 54 + 1_501, 1_501)
    assert (row["start_ns"], row["last_ns"]) == (START_NS + 1_000_000, START_NS + 9_000_000)
    assert counts(row, "sent", "seq", "ack") == (1_301, 6_502)
    assert counts(row, "received", "seq", "ack") == (6_501, 1_301)
    assert row["sent"]["flags_seen"] == FLAG_SYN | FLAG_ACK | FLAG_PSH


def test_super_packets_count_their_segments() -> None:
    talk = Conversation()
    talk.handshake()
    talk.client.data(14_480, segments=10, frame_bytes=14_480 + 10 * 66)
    talk.server.ack()
    row = talk.row()
    assert counts(row, "sent", *COUNTS) == (12, 2 * 54 + 15_140, 14_480)
    assert row["recent"]["segments"][:5].tolist() == [1, 1, 1, 10, 1]
    talk.client.again(2_896, segments=2)
    assert counts(talk.row(), "sent", "retransmissions", "retransmitted_bytes") == (2, 2_896)


def test_what_is_not_known_says_so() -> None:
    talk = Conversation()
    talk.client.syn()
    row = talk.row()
    assert counts(row, "received", *COUNTS) == (0, 0, 0)
    unknown = ("seq", "ack", "window", "window_bytes", "window_min_bytes", "window_max_bytes", "mss_bytes")
    assert counts(row, "received", *unknown, "window_scale", "ttl", "traffic_class") == (-1,) * 10
    rtts = [name for name in row["sent"].dtype.names if name.startswith("rtt_") and name != "rtt_count"]
    assert len(rtts) == 10
    assert all(np.isnan(row[direction][name]) for name in rtts for direction in ("sent", "received"))
    assert np.isnan([row["handshake_rtt_us"], row["initial_rtt_us"], row["half_closed_us"]]).all()
    assert np.isnan(row["sent"]["timestamp_hz"])
    for direction in ("sent", "received"):
        assert counts(row, direction, "in_flight_bytes", "in_flight_max_bytes") == (-1, -1)
    assert row["closed_by"] == row["close_kind"] == row["port_reuse"] == 0
    assert row["sent"]["ack"] == -1
    assert row["vlan_id"] == -1
    assert row["end_reason"] == row["near_end"] == 0
    assert row["sent"]["mac"].tolist() == [0] * 6


def test_vlan_mac_ttl_and_traffic_class() -> None:
    talk = Conversation()
    ours, theirs = [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]
    tagged = {"note": NOTE_ETHERNET, "vlan_count": 2, "vlan_outer": 0xA00 | 5, "vlan_inner": 7}
    talk.client.syn(src_mac=ours, dst_mac=theirs, ttl=64, traffic_class=0x10, **tagged)
    talk.server.syn_ack(src_mac=theirs, dst_mac=ours, ttl=57, traffic_class=0xB9, **tagged)
    talk.client.ack(src_mac=theirs, ttl=63)
    row = talk.row()
    assert row["vlan_id"] == 0xA05
    assert (row["sent"]["mac"].tolist(), row["received"]["mac"].tolist()) == (ours, theirs)
    assert counts(row, "sent", "ttl", "traffic_class") == (63, 0)
    assert counts(row, "received", "ttl", "traffic_class") == (57, 0xB9)


def test_priority_bits_are_not_of_the_vlan_id() -> None:
    talk = Conversation()
    talk.client.syn(vlan_count=1, vlan_outer=0xE005)
    assert talk.row()["vlan_id"] == 5


@pytest.mark.parametrize(
    ("out", "back", "near"),
    [
        (DIRECTION_EGRESS, DIRECTION_INGRESS, "src"),
        (DIRECTION_INGRESS, DIRECTION_EGRESS, "dst"),
        (DIRECTION_EGRESS, DIRECTION_EGRESS, "both"),
        (DIRECTION_INGRESS, DIRECTION_INGRESS, "both"),
        (DIRECTION_UNKNOWN, DIRECTION_UNKNOWN, None),
    ],
)
def test_near_end(out: int, back: int, near: str | None) -> None:
    talk = Conversation()
    talk.client.syn(direction=out)
    talk.server.syn_ack(direction=back)
    assert NEAR_ENDS[talk.row()["near_end"]] == near


def test_recent_packets_are_the_last_five() -> None:
    talk = Conversation()
    talk.handshake()
    for size in (10, 20, 30, 40):
        talk.client.data(size, window=size)
    talk.server.ack()
    row = talk.row()
    assert row["recent_total"] == 8
    ring = row["recent"][[(8 + i) % 5 for i in range(5)]]
    assert ring["payload_bytes"].tolist() == [10, 20, 30, 40, 0]
    assert ring["received"].tolist() == [0, 0, 0, 0, 1]
    assert ring["time_ns"].tolist() == [START_NS + ms * 1_000_000 for ms in (4, 5, 6, 7, 8)]
    assert ring["seq"].tolist() == [1_001, 1_011, 1_031, 1_061, 5_001]
    assert ring["ack"].tolist() == [5_001] * 4 + [1_101]
    assert ring["window"].tolist() == [10, 20, 30, 40, 1_000]
    assert ring["flags"].tolist() == [FLAG_ACK | FLAG_PSH] * 4 + [FLAG_ACK]


# --- Ports used again.


def test_syn_after_the_close_is_a_new_connection() -> None:
    talk = Conversation()
    talk.handshake()
    talk.close()
    again = Conversation(client_seq=90_000, server_seq=70_000, start_ns=talk.now_ns)
    again.handshake()
    table = new_table()
    ended = feed(table, merged(talk, again))
    assert reasons(ended) == ["reused"]
    assert (ended["id"][0], ended["sent"]["packets"][0], ended["received"]["packets"][0]) == (1, 4, 3)
    row = only_row(table)
    assert (row["id"], row["start_ns"]) == (2, talk.now_ns + 1_000_000)
    assert counts(row, "sent", "packets", "retransmissions", "out_of_order") == (2, 0, 0)


def test_other_end_may_open_the_next_connection() -> None:
    talk = Conversation()
    talk.handshake()
    talk.close()
    again = Conversation(("10.0.0.2", 80), ("10.0.0.1", 40_000), start_ns=talk.now_ns)
    again.handshake()
    table = new_table()
    assert reasons(feed(table, merged(talk, again))) == ["reused"]
    assert only_row(table)["src_port"] == 80


def test_syn_with_another_number_on_a_live_connection_is_a_new_connection() -> None:
    """The client crashed and came back, or its RST was not seen."""
    talk = Conversation()
    talk.handshake()
    talk.client.data(100)
    talk.client.syn(seq=900_000)
    table = new_table()
    assert reasons(feed(table, talk.records)) == ["reused"]
    assert only_row(table)["sent"]["packets"] == 1


def test_syn_in_the_middle_of_a_connection_without_a_seen_syn_is_a_new_one() -> None:
    talk = Conversation()
    talk.client.data(100)
    talk.server.ack()
    talk.client.syn(seq=900_000)
    table = new_table()
    assert reasons(feed(table, talk.records)) == ["reused"]


def test_syn_sent_again_is_the_same_connection() -> None:
    talk = Conversation()
    talk.client.syn()
    talk.client.syn(seq=1_000)
    talk.server.syn_ack()
    talk.client.syn(seq=1_000)
    talk.server.syn_ack(seq=5_000)
    talk.client.ack()
    row = talk.row()
    assert (row["id"], counts(row, "sent", "packets")) == (1, (4,))
    assert counts(row, "sent", "retransmissions") + counts(row, "received", "retransmissions") == (2, 1)


def test_simultaneous_open_is_one_connection() -> None:
    talk = Conversation()
    talk.client.syn()
    talk.server.syn()
    talk.server.syn_ack(seq=5_000)
    talk.client.syn_ack(seq=1_000)
    row = talk.row()
    assert (row["src_port"], counts(row, "sent", "packets"), counts(row, "received", "packets")) == (40_000, (2,), (2,))


def test_syn_ack_never_begins_anew() -> None:
    talk = Conversation()
    talk.handshake()
    talk.server.syn_ack(seq=77)
    assert talk.row()["id"] == 1


# --- Leaving.


def test_idle_connection_leaves_after_its_time() -> None:
    talk = Conversation()
    talk.handshake()
    table = table_of(talk, table=new_table(idle_s=10, closed_s=2))
    assert table.expire(talk.now_ns + 10 * SECOND - 1)
    assert len(table.take_ended()) == 0
    assert table.expire(talk.now_ns + 10 * SECOND)
    ended = table.take_ended()
    assert reasons(ended) == ["idle"]
    assert ended.dtype == CONNECTION
    assert ended["sent"]["packets"].tolist() == [2]
    assert len(live_rows(table)) == 0


def test_activity_begins_the_idle_time_anew() -> None:
    early, late = Conversation(), Conversation(("10.0.0.3", 1), step_us=2_000_000)
    early.handshake()
    late.handshake()
    table = table_of(early, late, table=new_table(idle_s=5))
    assert table.expire(START_NS + 6 * SECOND)
    assert table.take_ended()["id"].tolist() == [1]
    assert live_rows(table)["id"].tolist() == [2]


@pytest.mark.parametrize(("how", "reason"), [("fin", "closed"), ("rst", "reset")])
def test_closed_connection_leaves_sooner(how: str, reason: str) -> None:
    talk = Conversation()
    talk.handshake()
    if how == "fin":
        talk.close()
    else:
        talk.client.rst()
    table = table_of(talk, table=new_table(idle_s=10, closed_s=2))
    assert table.expire(talk.now_ns + 2 * SECOND - 1)
    assert len(live_rows(table)) == 1
    assert table.expire(talk.now_ns + 2 * SECOND)
    assert reasons(table.take_ended()) == [reason]


def test_half_closed_connection_is_not_closed() -> None:
    talk = Conversation()
    talk.handshake()
    talk.client.fin()
    talk.server.ack()
    table = table_of(talk, table=new_table(idle_s=10, closed_s=2))
    assert table.expire(talk.now_ns + 9 * SECOND)
    assert len(live_rows(table)) == 1


def test_after_it_left_the_same_ports_are_a_new_connection() -> None:
    talk = Conversation()
    talk.handshake()
    table = table_of(talk, table=new_table(idle_s=1))
    assert table.expire(talk.now_ns + SECOND)
    feed(table, talk.records)
    row = only_row(table)
    assert (row["id"], counts(row, "sent", "packets")) == (2, (2,))


def test_full_table_evicts_the_least_recently_active() -> None:
    talks = [Conversation(("10.0.0.1", port)) for port in (1_001, 1_002, 1_003)]
    for talk in talks:
        talk.client.syn()
        talks[0].wait(10)
    talks[0].client.syn(seq=1_000)  # active again
    newcomer = Conversation(("10.0.0.1", 1_004), start_ns=talks[0].now_ns)
    newcomer.client.syn()
    table = new_table(max_connections=3)
    ended = feed(table, merged(*talks, newcomer))
    assert (ended["src_port"].tolist(), reasons(ended)) == ([1_002], ["evicted"])
    assert live_rows(table)["src_port"].tolist() == [1_001, 1_003, 1_004]
    table.refresh(newcomer.now_ns)
    totals = table.totals()
    assert (totals.evicted, totals.connections, totals.connections_total) == (1, 3, 4)


@pytest.mark.parametrize(("first", "evicted"), [("open", 1_001), ("closed", 1_001)])
def test_eviction_goes_by_activity_among_open_and_closed(first: str, evicted: int) -> None:
    one, two = Conversation(("10.0.0.1", 1_001)), Conversation(("10.0.0.1", 1_002), start_ns=START_NS + SECOND)
    for talk in (one, two):
        talk.handshake()
    (two if first == "open" else one).close()
    newcomer = Conversation(("10.0.0.1", 1_003), start_ns=START_NS + 2 * SECOND)
    newcomer.client.syn()
    ended = feed(new_table(max_connections=2), merged(one, two, newcomer))
    assert ended["src_port"].tolist() == [evicted]


def test_a_table_of_one() -> None:
    table = new_table(max_connections=1)
    ended = feed(table, syns(10))
    assert ended["id"].tolist() == list(range(1, 10))
    assert only_row(table)["id"] == 10


@pytest.mark.parametrize("size", [0, -1])
def test_a_table_has_at_least_one_row(size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Table(size, SECOND, SECOND, 0, 0)


def test_process_stops_when_nobody_takes_the_ended_rows() -> None:
    table = new_table(max_connections=10)
    records = syns(5_000)
    taken = table.process(records)
    assert 10 < taken < 5_000
    assert table.process(records[taken:]) == 0
    ended = table.take_ended()
    assert len(ended) == taken - 10
    rest = feed(table, records[taken:])
    assert np.concatenate([ended, rest])["id"].tolist() == list(range(1, 4_991))
    assert table.process(records[:0]) == 0


def test_expire_stops_when_nobody_takes_the_ended_rows() -> None:
    table = new_table(max_connections=5_000, idle_s=1)
    feed(table, syns(3_000))
    ended = []
    while not table.expire(START_NS + 10 * SECOND):
        rows = table.take_ended()
        assert len(rows) > 0
        ended += rows["id"].tolist()
    ended += table.take_ended()["id"].tolist()
    assert ended == list(range(1, 3_001))
    assert len(live_rows(table)) == 0


def test_every_connection_ends_exactly_once() -> None:
    """70,000 connections through a table of 1,000: each in the table or ended, none twice, none lost."""
    table = new_table(max_connections=1_000)
    count = 70_000
    ended = feed(table, syns(count))
    alive = live_rows(table)
    assert len(ended) == count - 1_000
    assert set(reasons(ended)) == {"evicted"}
    assert alive["id"].tolist() == list(range(count - 999, count + 1))
    assert ended["id"].tolist() == list(range(1, count - 999))
    everything = np.concatenate([ended, alive])
    assert everything["src_port"].tolist() == [number & 0xFFFF for number in range(count)]
    assert (everything["sent"]["packets"] == 1).all()
    assert len(table.rows_view()) == 1_000
    table.refresh(START_NS + SECOND)
    totals = table.totals()
    assert (totals.packets, totals.evicted, totals.connections, totals.connections_total) == (
        count,
        count - 1_000,
        1_000,
        count,
    )


def test_all_are_found_again_after_many_have_left() -> None:
    """Leaving empties slots of the index in the middle of others' ways."""
    table = new_table(max_connections=3_000, idle_s=1)
    records = syns(3_000, step_ns=1_000_000)
    feed(table, records)
    while not table.expire(START_NS + SECOND + 1_500_000_000):
        table.take_ended()
    assert len(table.take_ended()) > 0
    left = live_rows(table)["id"].tolist()
    assert left == list(range(1_502, 3_001))
    again = records[1_501:].copy()
    again["time_ns"] += 3 * SECOND
    feed(table, again)
    rows = live_rows(table)
    assert rows["id"].tolist() == left
    assert (rows["sent"]["packets"] == 2).all()


def test_a_row_used_again_remembers_nothing() -> None:
    talk = Conversation()
    talk.handshake(client_scale=7, server_scale=7)
    talk.client.data(100, vlan_count=1, vlan_outer=9, direction=DIRECTION_EGRESS)
    talk.client.again(100)
    talk.server.ack()
    talk.client.unseen(10)
    talk.client.data(10)
    table = table_of(talk, table=new_table(max_connections=1))
    fresh = Conversation(("10.0.0.7", 7), start_ns=talk.now_ns)
    fresh.handshake()
    feed(table, fresh.records)
    row = only_row(table).copy()
    assert row["id"] == 2
    row["id"] = 1
    assert plain(row) == plain(fresh.row())


# --- Rates and totals.


def test_rates_are_over_the_last_interval() -> None:
    talk = Conversation()
    talk.handshake()
    table = table_of(talk)
    assert table.refresh(START_NS + 2 * SECOND) == 2.0
    row = only_row(table)
    assert counts(row, "sent", "packets_per_s", "bytes_per_s") == (1.0, 54.0)
    assert counts(row, "received", "packets_per_s", "bytes_per_s") == (0.5, 27.0)
    totals = table.totals()
    assert (totals.packets_per_s, totals.bytes_per_s) == (1.5, 81.0)
    table.clear_changed()

    more = Conversation(client_seq=1_001, server_seq=5_001, start_ns=START_NS + 2 * SECOND)
    more.client.data(946)
    feed(table, more.records)
    assert table.refresh(START_NS + 2 * SECOND + SECOND // 2) == 0.5
    row = only_row(table)
    assert counts(row, "sent", "packets_per_s", "bytes_per_s") == (2.0, 2_000.0)
    assert counts(row, "received", "packets_per_s", "bytes_per_s") == (0.0, 0.0)
    table.clear_changed()

    table.refresh(START_NS + 4 * SECOND)
    assert counts(only_row(table), "sent", "packets_per_s", "bytes_per_s") == (0.0, 0.0)
    assert (table.totals().packets_per_s, table.totals().bytes_per_s) == (0.0, 0.0)


def test_refresh_twice_at_the_same_time_divides_by_no_zero() -> None:
    table = new_table()
    table.refresh(START_NS)
    assert table.refresh(START_NS) > 0
    assert table.totals().packets_per_s == 0.0


def test_changed_marks_those_with_a_packet_since() -> None:
    one, two = Conversation(), Conversation(("10.0.0.3", 3))
    one.client.syn()
    two.client.syn()
    table = table_of(one, two)
    assert live_rows(table)["changed"].tolist() == [1, 1]
    table.clear_changed()
    assert live_rows(table)["changed"].tolist() == [0, 0]
    two.client.syn(seq=1_000)
    feed(table, two.records[1:])
    assert live_rows(table)["changed"].tolist() == [0, 1]


def test_totals() -> None:
    one, two = Conversation(), Conversation(("10.0.0.3", 3))
    one.handshake()
    one.client.data(100)
    two.handshake()
    two.close()
    table = table_of(one, two)
    table.refresh(two.now_ns)
    totals = table.totals()
    assert (totals.packets, totals.bytes, totals.payload_bytes) == (11, 11 * 54 + 100, 100)
    assert (totals.connections, totals.connections_total, totals.evicted) == (2, 2, 0)
    assert totals.rtt_samples_dropped == 0
    assert totals.connections_by_state == {"ESTABLISHED": 1, "TIME-WAIT": 1}


def test_rows_view_is_the_table_itself() -> None:
    table = new_table()
    talk = Conversation()
    talk.handshake()
    feed(table, talk.records[:1])
    view = table.rows_view()
    feed(table, talk.records[1:])
    assert view["sent"]["packets"].tolist() == [2]


def test_records_are_not_written_to() -> None:
    talk = Conversation()
    talk.handshake()
    talk.close()
    records = talk.records
    records.flags.writeable = False
    assert new_table().process(records) == 7


def test_seed_changes_no_result() -> None:
    talks = [Conversation(("10.0.0.1", port)) for port in range(1, 50)]
    for talk in talks:
        talk.handshake()
    records = merged(*talks)
    rows = []
    for seed in (0, 1, 2**64 - 1):
        table = new_table(seed=seed)
        feed(table, records)
        rows.append(plain(live_rows(table)))
    assert len(set(rows)) == 1


def test_unfollowed_segments_are_counted() -> None:
    """Nobody acknowledges: of one direction no more than 10,000 segments wait."""
    records = np.zeros(10_500, PACKET_RECORD)
    records["time_ns"] = START_NS + np.arange(len(records))
    records["src_addr"], records["dst_addr"] = raw_address("10.0.0.1"), raw_address("10.0.0.2")
    records["src_port"], records["dst_port"] = 40_000, 80
    records["seq"] = np.arange(len(records)) * 100
    records["payload_bytes"] = 100
    records["segments"] = 1
    records["flags"] = FLAG_ACK
    records["flags"][-1] |= FLAG_FIN
    table = new_table()
    feed(table, records)
    assert table.totals().rtt_samples_dropped == 500
    assert counts(only_row(table), "sent", "packets", "retransmissions", "gaps") == (10_500, 0, 0)
