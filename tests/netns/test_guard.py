"""What the guard attaches, as `tc` and `ip` see it, beside what others have attached."""

import subprocess
from collections.abc import Iterator

import pytest
from guard_tools import (
    XDP_GENERIC,
    XDP_NATIVE,
    Place,
    Programs,
    loaded_programs,
    new_place,
    program_id,
    send_datagrams,
)

# Somebody else's filters; classic BPF needs no object file.  TAKE_ALL returns TC_ACT_OK, so no later filter runs.
CLASSIC_BPF = ("bpf", "bytecode", "1,6 0 0 4294967295,")
TAKE_ALL = ("bpf", "direct-action", "bytecode", "1,6 0 0 0,")
U32 = ("protocol", "ip", "u32", "match", "u32", "0", "0", "classid", "1:7")


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with loaded_programs() as programs:
        yield programs


@pytest.fixture
def place(programs: Programs) -> Iterator[Place]:
    with new_place(programs) as place:
        yield place


# --- TC: attaching


def test_both_hooks_are_attached_and_nothing_is_left(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    (ingress,), (egress,) = place.hooks()
    for line, program in zip((ingress, egress), place.programs.tc.values(), strict=True):
        assert "direct-action" in line
        assert f"id {program_id(program)} " in line
        assert "pref 1 " in line
    tracer.end()
    assert place.traffic_control() == before


@pytest.mark.parametrize(("hook", "filters_on"), [("ingress", [1, 0]), ("egress", [0, 1])])
def test_one_hook_alone(place: Place, hook: str, filters_on: list[int]) -> None:
    before = place.traffic_control()
    tracer = place.start()
    tracer.ask("attach_tc", place.index, {hook: place.programs.tc[hook]})
    assert [len(filters) for filters in place.hooks()] == filters_on
    tracer.end()
    assert place.traffic_control() == before


def test_each_hook_has_its_program(place: Place) -> None:
    # The neighbour entries first, so that only the datagrams pass while we count.
    send_datagrams(place.namespace, "10.9.0.2", 1)
    send_datagrams(place.peer, "10.9.0.1", 1)
    place.attached()
    start = place.programs.counts()
    send_datagrams(place.namespace, "10.9.0.2", 300)
    outward = place.programs.counts()
    send_datagrams(place.peer, "10.9.0.1", 500)
    inward = place.programs.counts()
    # Answers (port unreachable, rate limited) and IPv6 chatter come on top.
    assert 300 <= outward[1] - start[1] < 320
    assert 500 <= inward[0] - outward[0] < 520
    assert outward[0] - start[0] < 20
    assert inward[1] - outward[1] < 20


def test_a_filter_that_ends_the_classification_does_not_hide_packets(place: Place) -> None:
    place.tc("qdisc", "add", "dev", "veth0", "clsact")
    place.tc("filter", "add", "dev", "veth0", "egress", "prio", "1", "handle", "1", *TAKE_ALL)
    place.attached()
    start = place.programs.counts()
    send_datagrams(place.namespace, "10.9.0.2", 50)
    assert place.programs.counts()[1] - start[1] >= 50


@pytest.mark.parametrize(("foreign", "priority"), [(CLASSIC_BPF, 1), (U32, 2)])
def test_foreign_filters_stay_as_they_are(place: Place, foreign: tuple[str, ...], priority: int) -> None:
    place.tc("qdisc", "add", "dev", "veth0", "clsact")
    for hook in ("ingress", "egress"):
        place.tc("filter", "add", "dev", "veth0", hook, "prio", "1", *foreign)
    before, others = place.traffic_control(), place.hooks()
    tracer = place.attached()
    for filters, (other, *_) in zip(place.hooks(), others, strict=True):
        assert other in filters
        assert [f"pref {priority} " in line for line in filters if "tcptrace" in line] == [True]
    tracer.end()
    assert place.traffic_control() == before


def test_a_foreign_empty_clsact_stays(place: Place) -> None:
    place.tc("qdisc", "add", "dev", "veth0", "clsact")
    before = place.traffic_control()
    assert "clsact" in before
    tracers = place.attached(), place.attached()
    for tracer in tracers:
        tracer.end()
    assert place.traffic_control() == before


def test_our_clsact_stays_for_a_foreign_filter(place: Place) -> None:
    tracer = place.attached()
    place.tc("filter", "add", "dev", "veth0", "egress", "prio", "5", *U32)
    tracer.end()
    ingress, egress = place.hooks()
    assert ingress == []
    assert [line for line in egress if "tcptrace" in line] == []
    assert len(egress) > 0
    assert "clsact" in place.traffic_control()


def test_a_filter_put_in_our_place_is_not_removed(place: Place) -> None:
    tracer = place.attached()
    (ours,), _ = place.hooks()
    handle = ours.split("handle ")[1].split()[0]
    place.tc("filter", "replace", "dev", "veth0", "ingress", "prio", "1", "handle", handle, *CLASSIC_BPF)
    (theirs,), _ = place.hooks()
    tracer.end()
    assert place.hooks() == [[theirs], []]


# --- Errors


def test_interface_deleted_while_attached(place: Place) -> None:
    tracer = place.attached()
    tracer.ask("attach_xdp", place.index, place.programs.xdp)
    place.namespace.run(["ip", "link", "delete", "veth0"])
    tracer.end()
    assert [one["ifname"] for one in place.namespace.json("ip", "-json", "link")] == ["lo"]


def test_no_such_interface(place: Place) -> None:
    tracer = place.start()
    for attach in ("attach_xdp", "attach_tc"):
        what = place.programs.xdp if attach == "attach_xdp" else place.programs.tc
        kind, message = tracer.refused(attach, 9999, what)
        assert kind == "TcptraceError"
        assert "interface number 9999" in message
    tracer.end()


def test_an_ingress_qdisc_is_in_the_way_and_stays(place: Place) -> None:
    place.tc("qdisc", "add", "dev", "veth0", "ingress")
    before = place.traffic_control()
    tracer = place.start()
    kind, message = tracer.refused("attach_tc", place.index, place.programs.tc)
    assert (kind, "ingress qdisc" in message) == ("TcptraceError", True)
    tracer.end()
    assert place.traffic_control() == before


def test_a_program_of_the_wrong_type_leaves_no_qdisc(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.start()
    kind, message = tracer.refused("attach_tc", place.index, {"ingress": place.programs.xdp})
    assert kind == "TcptraceError"
    assert "veth0" in message
    assert place.traffic_control() == before
    tracer.end()


# --- XDP


def test_xdp_native_on_veth(place: Place) -> None:
    tracer = place.start()
    assert tracer.ask("attach_xdp", place.index, place.programs.xdp) == "native"
    assert place.xdp() == ("native", program_id(place.programs.xdp))
    tracer.end()
    assert place.xdp() is None


def test_xdp_generic_on_lo(place: Place) -> None:
    tracer = place.start()
    assert tracer.ask("attach_xdp", 1, place.programs.xdp) == "generic"
    assert place.xdp("lo") == ("generic", program_id(place.programs.xdp))
    tracer.end()
    assert place.xdp("lo") is None


@pytest.mark.parametrize("flags", [XDP_GENERIC, XDP_NATIVE])
def test_a_foreign_xdp_program_is_refused_and_kept(place: Place, flags: int) -> None:
    place.attach_foreign_xdp(flags)
    before = place.xdp()
    assert before is not None
    tracer = place.start()
    kind, message = tracer.refused("attach_xdp", place.index, place.programs.xdp)
    assert (kind, "has an XDP program already" in message) == ("TcptraceError", True)
    tracer.end()
    assert place.xdp() == before


def test_an_xdp_program_put_in_our_place_is_kept(place: Place) -> None:
    tracer = place.start()
    tracer.ask("attach_xdp", place.index, place.programs.xdp)
    place.attach_foreign_xdp(XDP_NATIVE)
    tracer.end()
    assert place.xdp() == ("native", program_id(place.programs.foreign_xdp))


def test_no_pyroute2(place: Place) -> None:
    """Without it the tracer learns what to install, and ends as usual."""
    code = """
import sys
sys.modules["pyroute2"] = None
from tcptrace.errors import MissingFeatureError
from tcptrace.sources.live.guard import Guard
with Guard.start() as guard:
    try:
        guard.attach_tc(1, {"ingress": 0})
    except MissingFeatureError as error:
        print(error)
"""
    result: subprocess.CompletedProcess[str] = place.namespace.python(code)
    assert "pip install" in result.stdout
