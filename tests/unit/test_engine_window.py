"""The receive window (RFC 7323 section 2): scaled when both SYNs offered it, unknown when they were not seen."""

import pytest

from .conversation import Conversation, counts

WINDOWS = ("window", "window_bytes", "window_min_bytes", "window_max_bytes")


def test_scaled_when_both_offer() -> None:
    talk = Conversation()
    talk.handshake(client_scale=7, server_scale=3)
    talk.client.ack(window=500)
    talk.server.ack(window=501)
    row = talk.row()
    assert counts(row, "sent", "window", "window_bytes", "window_scale") == (500, 500 << 7, 7)
    assert counts(row, "received", "window", "window_bytes", "window_scale") == (501, 501 << 3, 3)


def test_window_of_a_syn_is_never_scaled() -> None:
    talk = Conversation()
    talk.client.window = talk.server.window = 64_240
    talk.client.syn(scale=14)
    talk.server.syn_ack(scale=14)
    row = talk.row()
    assert counts(row, "sent", *WINDOWS) == (64_240,) * 4
    assert counts(row, "received", *WINDOWS) == (64_240,) * 4


@pytest.mark.parametrize(("client", "server"), [(7, None), (None, 7), (None, None)])
def test_not_scaled_unless_both_offer(client: int | None, server: int | None) -> None:
    talk = Conversation()
    talk.handshake(client_scale=client, server_scale=server)
    talk.server.ack()
    row = talk.row()
    assert counts(row, "sent", "window_bytes", "window_max_bytes") == (1_000, 1_000)
    assert counts(row, "received", "window_bytes", "window_max_bytes") == (1_000, 1_000)
    assert row["sent"]["window_scale"] == (-1 if client is None else client)
    assert row["received"]["window_scale"] == (-1 if server is None else server)


def test_shift_of_zero_is_an_offer() -> None:
    talk = Conversation()
    talk.handshake(client_scale=0, server_scale=9)
    talk.server.ack()
    row = talk.row()
    assert counts(row, "sent", "window_scale", "window_bytes") == (0, 1_000)
    assert counts(row, "received", "window_scale", "window_bytes") == (9, 512_000)


def test_largest_window() -> None:
    talk = Conversation()
    talk.handshake(client_scale=14, server_scale=14)
    talk.client.ack(window=65_535)
    assert talk.row()["sent"]["window_bytes"] == 65_535 << 14


def test_syn_ack_with_a_scale_says_that_the_syn_had_one() -> None:
    """It was not known before without both SYNs.  Now the server's is; which one the client offered is not."""
    talk = Conversation()
    talk.client.unseen(1)
    talk.server.syn_ack(scale=7)
    talk.client.ack()
    talk.server.ack()
    row = talk.row()
    assert counts(row, "sent", "window", "window_bytes", "window_scale") == (1_000, -1, -1)
    assert counts(row, "received", "window", "window_bytes", "window_scale") == (1_000, 128_000, 7)


@pytest.mark.parametrize("seen", ["client", "server"])
def test_one_syn_without_a_scale_rules_it_out(seen: str) -> None:
    talk = Conversation()
    if seen == "client":
        talk.client.syn()
        talk.server.unseen(1)
    else:
        talk.client.unseen(1)
        talk.server.syn_ack()
    talk.client.ack()
    talk.server.ack()
    for direction in ("sent", "received"):
        assert counts(talk.row(), direction, "window_bytes", "window_scale") == (1_000, -1)


@pytest.mark.parametrize("missing", ["syn_ack", "both"])
def test_not_known_without_both_syns(missing: str) -> None:
    talk = Conversation()
    if missing == "syn_ack":
        talk.client.syn(scale=7)
        talk.server.unseen(1)
    talk.client.ack()
    talk.server.ack()
    row = talk.row()
    assert counts(row, "sent", "window", "window_bytes") == (1_000, -1)
    assert counts(row, "received", "window", "window_bytes") == (1_000, -1)
    if missing == "both":
        assert counts(row, "sent", *WINDOWS) == (1_000, -1, -1, -1)


def test_zero_is_zero_at_any_scale() -> None:
    talk = Conversation()
    talk.client.ack(window=0)
    assert counts(talk.row(), "sent", *WINDOWS) == (0, 0, 0, -1)
    talk.client.ack(window=10)
    assert counts(talk.row(), "sent", *WINDOWS) == (10, -1, 0, -1)


def test_smallest_and_largest() -> None:
    talk = Conversation()
    talk.handshake(client_scale=2, server_scale=2)
    for window in (2_000, 500, 30_000, 600):
        talk.client.ack(window=window)
    assert counts(talk.row(), "sent", *WINDOWS) == (600, 2_400, 1_000, 120_000)


def test_window_of_a_reset_means_nothing() -> None:
    talk = Conversation()
    talk.handshake(client_scale=2, server_scale=2)
    talk.client.ack()
    talk.client.rst(window=0)
    row = talk.row()
    assert counts(row, "sent", *WINDOWS[1:]) == (4_000, 1_000, 4_000)
    assert row["sent"]["zero_windows"] == 0


def test_mss() -> None:
    talk = Conversation()
    talk.client.syn(mss=1_460)
    talk.server.syn_ack(mss=536)
    talk.client.ack()
    row = talk.row()
    assert (row["sent"]["mss_bytes"], row["received"]["mss_bytes"]) == (1_460, 536)


def test_options_of_a_later_segment_are_no_offer() -> None:
    talk = Conversation()
    talk.handshake()
    talk.client.ack(options=3, mss=9_000, window_scale=9)
    assert counts(talk.row(), "sent", "mss_bytes", "window_scale", "window_bytes") == (-1, -1, 1_000)
