"""More packets than the tracer can take: counts stay exact, what is not complete says so, nothing is made up."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from netns_tools import KERNEL, TIMEOUT_S, Namespace, veth
from programs.offered import RUN, Offering, address, fd_of_program
from tracer import Tracer

FLOWS = 997
# Since this release whoever holds a map's file descriptor may read it.
MAPS_ARE_READ_BY_ANYONE = (5, 19)
RING_MIB = "1"
"""Holds 6,000 records."""

FINDINGS = (
    "retransmissions",
    "out_of_order",
    "gaps",
    "duplicate_acks",
    "acked_unseen_segments",
    "windows_full",
    "zero_windows",
    "keep_alives",
)
"""None of which there was any."""


@pytest.fixture
def near() -> Iterator[Namespace]:
    with Namespace() as near, Namespace() as far:
        veth(near, far, ["10.9.0.1/24"], ["10.9.0.2/24"])
        yield near


def direct_to(near: Namespace, offering: Offering) -> None:
    """The tracer's own program, at the hook for what comes in."""
    (number,) = near.programs("veth0", "ingress")
    fd = fd_of_program(number)
    offering.direct(fd)
    os.close(fd)


def halted(tracer: Tracer, offering: Offering, count: int) -> None:
    """While it does not read."""
    tracer.process.send_signal(signal.SIGSTOP)
    try:
        offering.offer(count)
    finally:
        tracer.process.send_signal(signal.SIGCONT)


def rows_of(tracer: Tracer) -> dict[str, dict[str, Any]]:
    rows = {one["src_ip"]: one for one in tracer.finals}
    assert len(rows) == len(tracer.finals)
    return rows


def assert_exact(tracer: Tracer, offering: Offering) -> None:
    """Every count of every connection, and nothing said that was not so."""
    rows, expected = rows_of(tracer), offering.expected()
    assert set(rows) == set(expected)
    for ip, (client, server) in expected.items():
        row = rows[ip]
        for side, sent in (("sent", client), ("received", server)):
            told = (row[f"{side}_packets"], row[f"{side}_bytes"], row[f"{side}_payload_bytes"])
            assert told == (sent.packets, sent.bytes, sent.payload_bytes)
            assert {name: row[f"{side}_{name}"] for name in FINDINGS} == dict.fromkeys(FINDINGS, 0)
    summary = tracer.summary
    assert summary["packets"] == summary["tcp"] == offering.offered
    assert summary["bytes"] == sum(one.bytes for pair in expected.values() for one in pair)
    assert summary["records"] + summary["thinned"] == offering.offered
    assert sum(row["records_lost"] for row in rows.values()) == summary["records_lost"] + summary["thinned"]


def test_what_the_ring_holds(near: Namespace) -> None:
    """Nothing lost: nothing is marked."""
    with Offering(FLOWS) as offering, Tracer(near, "veth0", "--ring-size", RING_MIB) as tracer:
        direct_to(near, offering)
        offering.offer(4_937)
        tracer.stop()
    assert tracer.summary["records_lost"] == tracer.summary["thinned"] == 0
    assert_exact(tracer, offering)
    assert {row["records_lost"] for row in rows_of(tracer).values()} == {0}


@pytest.mark.matrix
@pytest.mark.skipif(
    KERNEL < MAPS_ARE_READ_BY_ANYONE, reason="this kernel lets only root read its maps: the last counts are missing"
)
def test_a_reader_that_is_kept_away(near: Namespace) -> None:
    """The ring runs full, the rest is counted only; then all is recorded again."""
    with Offering(FLOWS) as offering, Tracer(near, "veth0", "--ring-size", RING_MIB, "--interval", "0.1") as tracer:
        direct_to(near, offering)
        offering.offer(2 * RUN * FLOWS)
        halted(tracer, offering, 100 * RUN * FLOWS)
        recover(tracer, offering)
        tracer.stop()
    assert tracer.summary["records_lost"] > 0
    assert tracer.summary["thinned"] > 0
    assert_exact(tracer, offering)
    assert min(row["records_lost"] for row in rows_of(tracer).values()) > 0


def recover(tracer: Tracer, offering: Offering) -> None:
    """Go on with a few packets at a time, until those of a connection are recorded one and all again."""
    end = time.monotonic() + TIMEOUT_S
    before = {"records_lost": -1}
    while time.monotonic() < end:
        offering.offer(RUN * FLOWS)
        now = caught_up(tracer, offering)
        if now["records_lost"] == before["records_lost"]:
            return
        before = now
    pytest.fail("it goes on thinning")


def caught_up(tracer: Tracer, offering: Offering) -> dict[str, Any]:
    """The first connection, once all that it has had is counted."""
    (sent, received), end = offering.expected()[address(0)], time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        row = tracer.latest(f'"src_ip":"{address(0)}"')
        if row and (row["sent_packets"], row["received_packets"]) == (sent.packets, received.packets):
            return row
    pytest.fail("its counts are not complete")
