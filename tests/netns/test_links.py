"""What is attached by links (TCX, XDP), as the kernel and `ip` see it; and that it goes with whoever attached it."""

import signal
from collections.abc import Iterator

import pytest
from guard_tools import (
    LINKS,
    XDP_NATIVE,
    Place,
    Programs,
    Tracer,
    loaded_programs,
    new_place,
    program_id,
    send_datagrams,
)
from netns_tools import KERNEL, TIMEOUT_S

pytestmark = [pytest.mark.matrix, pytest.mark.skipif(KERNEL < (6, 6), reason="this kernel has no TCX")]

HOOKS = ("ingress", "egress")


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with loaded_programs() as programs:
        yield programs


@pytest.fixture
def place(programs: Programs) -> Iterator[Place]:
    """After a test that passed veth0 is as it was, if it is still there."""
    with new_place(programs, LINKS) as place:
        before = place.traffic_control()
        yield place
        if "veth0" in place.namespace.output("ip", "-brief", "link"):
            assert place.traffic_control() == before
            assert place.xdp() is None


def attached(place: Place) -> list[list[int]]:
    return [place.namespace.tcx_programs("veth0", hook) for hook in HOOKS]


def ids(place: Place) -> list[int]:
    return [program_id(place.programs.tc[hook]) for hook in HOOKS]


def end(tracer: Tracer, way: str) -> None:
    """The last descriptor is closed in the process that ends: once that has been waited for, nothing is left."""
    if way == "close":
        tracer.ask("close")
    else:
        tracer.process.kill()
        assert tracer.process.wait(TIMEOUT_S) == -signal.SIGKILL


@pytest.mark.parametrize("way", ["close", "kill"])
def test_each_hook_has_its_program_until_the_end(place: Place, way: str) -> None:
    # The neighbour entries first, so that only the datagrams pass while we count.
    send_datagrams(place.namespace, "10.9.0.2", 1)
    tracer = place.attached()
    assert attached(place) == [[number] for number in ids(place)]
    start = place.programs.counts()
    send_datagrams(place.namespace, "10.9.0.2", 300)
    outward = place.programs.counts()
    assert 300 <= outward[1] - start[1] < 320
    assert outward[0] - start[0] < 20
    end(tracer, way)
    assert attached(place) == [[], []]


@pytest.mark.parametrize("way", ["close", "kill"])
def test_without_privileges(place: Place, way: str) -> None:
    tracer = place.attached()
    uid, _gid = tracer.ask("drop")
    assert uid != 0
    end(tracer, way)
    assert attached(place) == [[], []]


def test_closed_although_a_forked_process_has_it_too(place: Place) -> None:
    tracer = place.attached()
    tracer.ask("attach_xdp", place.index, place.programs.xdp)
    tracer.ask("fork")
    tracer.ask("close")
    assert (attached(place), place.xdp()) == ([[], []], None)


def test_close_again_is_nothing(place: Place) -> None:
    tracer = place.attached()
    assert [tracer.ask("close"), tracer.ask("close")] == [None, None]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_tracers_end_in_any_order(place: Place, order: tuple[int, int]) -> None:
    """The later one is before the other, and neither takes anything of the other away."""
    tracers = place.attached(), place.start()
    others = dict(zip(HOOKS, reversed(place.programs.tc.values()), strict=True))  # no program goes to a hook twice
    tracers[1].ask("attach_tc", place.index, others)
    first, second = ids(place)
    assert attached(place) == [[second, first], [first, second]]
    end(tracers[order[0]], "close")
    assert attached(place) == ([[second], [first]] if order[0] == 0 else [[first], [second]])
    end(tracers[order[1]], "kill")
    assert attached(place) == [[], []]


def test_a_program_that_takes_all_does_not_hide_packets(place: Place) -> None:
    other = place.start()
    other.ask("attach_tc", place.index, {"egress": place.programs.take_all})
    ours = place.attached()
    assert attached(place)[1] == [ids(place)[1], program_id(place.programs.take_all)]
    start = place.programs.counts()
    send_datagrams(place.namespace, "10.9.0.2", 50)
    assert place.programs.counts()[1] - start[1] >= 50
    ours.ask("close")
    assert attached(place)[1] == [program_id(place.programs.take_all)]
    other.ask("close")


# --- XDP


@pytest.mark.parametrize("way", ["close", "kill"])
@pytest.mark.parametrize(("interface", "mode"), [("veth0", "native"), ("lo", "generic")])
def test_xdp(place: Place, interface: str, mode: str, way: str) -> None:
    tracer = place.start()
    index = place.namespace.index_of(interface)
    assert tracer.ask("attach_xdp", index, place.programs.xdp) == mode
    assert place.xdp(interface) == (mode, program_id(place.programs.xdp))
    end(tracer, way)
    assert place.xdp(interface) is None


@pytest.mark.parametrize("by", ["link", "netlink"])
def test_a_foreign_xdp_program_is_refused_and_kept(place: Place, by: str) -> None:
    if by == "link":
        place.start().ask("attach_xdp", place.index, place.programs.foreign_xdp)
    else:
        place.attach_foreign_xdp(XDP_NATIVE)
    before = place.xdp()
    assert before == ("native", program_id(place.programs.foreign_xdp))
    message = "veth0 has an XDP program already, which stays: ip link show veth0"
    assert place.start().refused("attach_xdp", place.index, place.programs.xdp) == ("TcptraceError", message)
    assert place.xdp() == before
    place.namespace.run(["ip", "link", "delete", "veth0"])


# --- Errors


def test_interface_deleted_while_attached(place: Place) -> None:
    tracer = place.attached()
    tracer.ask("attach_xdp", place.index, place.programs.xdp)
    place.namespace.run(["ip", "link", "delete", "veth0"])
    tracer.ask("close")


def test_no_such_interface(place: Place) -> None:
    tracer = place.start()
    for attach, what in (("attach_xdp", place.programs.xdp), ("attach_tc", place.programs.tc)):
        kind, message = tracer.refused(attach, 9999, what)
        assert kind == "TcptraceError"
        assert "interface number 9999" in message


def test_a_program_of_the_wrong_type_leaves_nothing(place: Place) -> None:
    tracer = place.start()
    wrong = {"ingress": place.programs.tc["ingress"], "egress": place.programs.xdp}
    kind, message = tracer.refused("attach_tc", place.index, wrong)
    assert kind == "TcptraceError"
    assert "veth0" in message
    tracer.ask("close")
    assert attached(place) == [[], []]
