"""What a kernel must let tcptrace do, and the tests in tests/netns that show it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[2]
TESTS: Final = "tests/netns"

# A file, a test of it, or one of a test's cases.  What takes long is left out: everything runs in emulation.
ABILITIES: Final[Mapping[str, Sequence[str]]] = {
    "TC": ("test_counts.py::test_fields[ipv4-tc]",),
    "XDP": (
        "test_counts.py::test_fields[ipv6-xdp]",
        "test_lifecycle.py::test_an_xdp_trace_leaves_nothing[False-as it is]",
    ),
    "kprobes": (
        "test_sockets.py::test_a_quiet_socket[kprobes]",
        "test_sockets.py::test_a_busy_socket[kprobes]",
        "test_socket_states.py::test_states[kprobes]",
        "test_retransmission_causes.py::test_one_cause[kprobes-fast-fast]",
        "test_retransmission_causes.py::test_one_cause[kprobes-tail-tlp]",
        "test_retransmission_causes.py::test_one_cause[kprobes-syn-syn]",
        "test_retransmission_causes.py::test_one_cause[kprobes-syn_ack-syn_ack]",
        "test_retransmission_causes.py::test_the_timer[kprobes]",
        "test_retransmission_causes.py::test_retransmissions_before_the_trace[kprobes]",
        "test_retransmission_causes.py::test_events[kprobes]",
        "test_retransmission_counts.py::test_a_queue_that_is_too_short[kprobes]",
    ),
    "raw tracepoints": ("test_sockets.py::test_a_quiet_socket[tracepoints]",),
    "owners": (
        "test_owners.py::test_a_thousand_short_connections",
        "test_owners.py::test_who_connects_and_who_accepts",
        "test_owners.py::test_cgroups_and_containers",
        "test_owners.py::test_opened_before_the_trace",
    ),
    "filters": (
        "test_live.py::test_the_filter_is_libpcaps[tcp and not (port 80 or port 22)-]",
        "test_process_filters.py::test_over_lo[a process]",
        "test_process_filters.py::test_many_at_once",
    ),
    "netem": ("test_netem.py", "test_retransmission_counts.py::test_a_link_that_loses_one_in_a_hundred[kprobes]"),
    "overload": ("test_overload.py",),
    "cleanup": (
        "test_lifecycle.py::test_an_xdp_trace_leaves_nothing[True-as it is]",
        "test_guard_end.py::test_killed_when_attached",
        "test_probe_cleanup.py",
    ),
}


def selection() -> list[str]:
    """Every test of the table once, as pytest takes them."""
    wanted = dict.fromkeys(one for tests in ABILITIES.values() for one in tests)
    return [f"{TESTS}/{one}" for one in wanted if (CHECKOUT / TESTS / one.partition("::")[0]).exists()]


def shows(test: str, tests: Sequence[str]) -> bool:
    """Whether a test, by its id, is one of an ability's."""
    for one in tests:
        chosen = f"{TESTS}/{one}"
        if test == chosen or test.startswith((f"{chosen}::", f"{chosen}[")):
            return True
    return False
