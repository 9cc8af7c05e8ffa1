"""Whose a connection is: what the tracer says, against what the processes that connected and accepted say."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from netns_tools import Namespace, veth
from owner_tools import Conductor, Told, cgroup2_folder, ports, processes, said
from tracer import Tracer

LO = "127.0.0.1"
ONE, TWO, THREE, FOUR, FIVE = (f"{number}a2b" * 16 for number in range(1, 6))
CONTAINERS = {
    f"system.slice/docker-{ONE}.scope": ONE,
    f"docker/{TWO}": TWO,
    f"kubepods.slice/pod7.slice/cri-containerd-{THREE}.scope": THREE,
    f"kubepods.slice/pod7.slice/crio-{FOUR}.scope": FOUR,
    f"machine.slice/libpod-{FIVE}.scope/container": FIVE,
    "system.slice/plain.service": None,
}
"""A directory as runtimes name it: the container that it is of."""

SCENARIOS: dict[str, tuple[Any, ...]] = {
    "short": (LO, 7001, 1000, 4),
    "plain": (LO, 7002),
    "handed_on": (LO, 7003),
    "threads": (LO, 7004),
    "nonblocking": (LO, 7005),
    "refused": (LO, 7006),
    "fast_open": (LO, 7007),
    "old_accept": (LO, 7008),
    "accepted_late": (LO, 7009),
    "other_users": (LO, 7010, 4321, 4322),
}
IPV6 = {"over ipv6": ("::1", 7021), "mapped": ("::", 7022, "::ffff:127.0.0.1"), "ipv4 to dual stack": ("::", 7023, LO)}
BEFORE = {"ipv4": (LO, 7031), "ipv6": ("::1", 7032)}


class Seen:
    """One trace of lo, with all that happened meanwhile."""

    def __init__(self) -> None:
        self.told: dict[str, list[Told]] = {}
        """By scenario, the connections as their processes tell them."""
        self.lines: dict[tuple[int, int], dict[str, Any]] = {}
        """The tracer's last line on each connection, by its ports."""
        self.summary: dict[str, Any] = {}
        self.counts: dict[str, int] = {}
        """The namespace's, by their names in /proc/net/netstat."""
        self.cgroups: Path

    def agrees(self, scenario: str) -> int:
        """Assert that the tracer says the same; of how many connections."""
        told = self.told[scenario]
        expected = {ports(one): processes(one) for one in told}
        assert {pair: said(self.lines[pair]) for pair in expected} == expected
        assert len(expected) == len(told)
        return len(told)


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    """Everything in one trace: starting one takes longer than all of this on an emulated machine."""
    seen = Seen()
    with ExitStack() as stack:
        namespace, elsewhere = (stack.enter_context(Namespace()) for _ in range(2))
        seen.cgroups = stack.enter_context(cgroup2_folder())
        for name in CONTAINERS:
            (seen.cgroups / name).mkdir(parents=True)
        # Cookies at both ends; and no port out of TIME-WAIT: a pair of ports is one connection.
        namespace.run(["sysctl", "-qw", "net.ipv4.tcp_fastopen=3", "net.ipv4.tcp_tw_reuse=0"])
        conductor, load = (stack.enter_context(Conductor(one)) for one in (namespace, elsewhere))
        for place in BEFORE.values():
            conductor.call("prepare", *place)
        with Tracer(namespace, "lo", "--interval", "3600") as tracer:
            load.call("pump", LO, 7000, 2)
            for name, arguments in SCENARIOS.items():
                seen.told[name] = conductor.call(name, *arguments)
            for name, arguments in IPV6.items():
                seen.told[name] = conductor.call("plain", *arguments)
            for number, name in enumerate(CONTAINERS):
                folder, next_one = (
                    str(seen.cgroups / list(CONTAINERS)[(number + i) % len(CONTAINERS)]) for i in (0, 1)
                )
                seen.told[name] = conductor.call("in_cgroups", LO, 7041 + number, folder, next_one)
            for name in reversed(BEFORE):
                seen.told[f"before {name}"] = conductor.call("go_on")
            tracer.stop()
        names, values = (line.split()[1:] for line in namespace.output("cat", "/proc/net/netstat").splitlines()[:2])
        seen.counts = dict(zip(names, map(int, values), strict=True))
        seen.lines = tracer.by_ports()
        seen.summary = tracer.summary
        yield seen


def test_a_thousand_short_connections(seen: Seen) -> None:
    """Each of its own process, that is gone at once; the accepted ends of four forked workers."""
    assert seen.agrees("short") == 1000
    clients = {one["src"]["process"]["pid"] for one in seen.told["short"] if one["src"]}
    workers = {one["dst"]["process"]["process"] for one in seen.told["short"] if one["dst"]}
    assert len(clients) == 1000
    assert workers == {"worker-0", "worker-1", "worker-2", "worker-3"}
    assert seen.summary["socket_records_lost"] == 0


@pytest.mark.parametrize("scenario", [*(name for name in SCENARIOS if name != "short"), *IPV6])
def test_who_connects_and_who_accepts(seen: Seen, scenario: str) -> None:
    assert seen.agrees(scenario) == (2 if scenario == "fast_open" else 1)


def test_what_was_refused(seen: Seen) -> None:
    (told,) = seen.told["refused"]
    line = seen.lines[ports(told)]
    assert (line["kernel_state"], line["state"]) == ("CLOSED", "CLOSED")
    assert line["peer_pid"] is None


def test_fast_open_was_used(seen: Seen) -> None:
    """Otherwise its case above would show nothing.  By the kernel's own count, of both ends."""
    assert (seen.counts["TCPFastOpenActive"], seen.counts["TCPFastOpenPassive"]) == (1, 1)
    assert seen.lines[ports(seen.told["fast_open"][1])]["sent_payload_bytes"] == 1237


def test_users(seen: Seen) -> None:
    line = seen.lines[ports(seen.told["other_users"][0])]
    assert (line["uid"], line["peer_uid"]) == (4321, 4322)


@pytest.mark.parametrize("folder", CONTAINERS, ids=[re.sub("[0-9a-f]{64}", "ID", folder) for folder in CONTAINERS])
def test_cgroups_and_containers(seen: Seen, folder: str) -> None:
    assert seen.agrees(folder) == 1
    line = seen.lines[ports(seen.told[folder][0])]
    following = list(CONTAINERS)[(list(CONTAINERS).index(folder) + 1) % len(CONTAINERS)]
    assert line["cgroup_id"] == (seen.cgroups / folder).stat().st_ino
    assert line["peer_cgroup_id"] == (seen.cgroups / following).stat().st_ino
    assert (line["container_id"], line["peer_container_id"]) == (CONTAINERS[folder], CONTAINERS[following])


@pytest.mark.parametrize("name", BEFORE)
def test_opened_before_the_trace(seen: Seen, name: str) -> None:
    """Of the server's end: who accepted, not the child that it left the socket to."""
    assert seen.agrees(f"before {name}") == 1
    line = seen.lines[ports(seen.told[f"before {name}"][0])]
    assert (line["sent_payload_bytes"], line["received_payload_bytes"]) == (1237, 23)


@pytest.mark.parametrize("address", ["10.5.0.2", "fd05::2"])
def test_each_end_on_its_own_host(address: str) -> None:
    """Over a link, with a tracer at each end of it: each knows its own end's process, and no other."""
    with ExitStack() as stack:
        near, far = (stack.enter_context(Namespace()) for _ in range(2))
        veth(near, far, ["10.5.0.1/24", "fd05::1/64"], ["10.5.0.2/24", "fd05::2/64"])
        client, server = (stack.enter_context(Conductor(one)) for one in (near, far))
        tracers = [stack.enter_context(Tracer(one, "veth0", "--interval", "3600")) for one in (near, far)]
        server.call("begin_serving", address, 7000, 3)
        client.call("clients", address, 7000, 237)
        told = server.call("all_served", 237)
        for tracer, other in zip(tracers, ("dst", "src"), strict=True):
            tracer.stop()
            lines = tracer.by_ports()
            expected = {ports(one): processes(one) | {other: None} for one in told}
            assert {pair: said(line) for pair, line in lines.items()} == expected
            assert len(expected) == 237
            assert tracer.summary["socket_records_lost"] == 0
