"""However a tracer ends, and at whatever step, nothing of it is left."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from guard_tools import Place, Programs, loaded_programs, new_place
from netns_tools import TIMEOUT_S, exit_of


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with loaded_programs() as programs:
        yield programs


@pytest.fixture
def place(programs: Programs) -> Iterator[Place]:
    with new_place(programs) as place:
        yield place


# --- Several tracers


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("last", ["end", "kill"])
def test_two_tracers_end_in_any_order(place: Place, order: tuple[int, int], last: str) -> None:
    before = place.traffic_control()
    tracers = place.attached(), place.attached()
    assert [len(filters) for filters in place.hooks()] == [2, 2]
    tracers[order[0]].end()
    assert [len(filters) for filters in place.hooks()] == [1, 1]
    getattr(tracers[order[1]], last)()
    assert place.traffic_control() == before


def test_many_tracers_at_once(place: Place) -> None:
    before = place.traffic_control()
    for _ in range(3):
        tracers = [place.start() for _ in range(5)]
        for tracer in tracers:
            tracer.send("attach_tc", place.index, place.programs.tc)
        assert [tracer.receive() for tracer in tracers] == [{"value": None}] * 5
        assert [len(filters) for filters in place.hooks()] == [5, 5]
        with ExitStack() as ends:
            for tracer in tracers:
                ends.enter_context(exit_of(tracer.guard_pid))
            for tracer in tracers[:3]:
                tracer.send("close")
            for tracer in tracers[3:]:
                tracer.process.kill()
            assert [tracer.receive() for tracer in tracers[:3]] == [{"value": None}] * 3
        assert place.traffic_control() == before


# --- The tracer's end, at every step


def test_killed_before_anything_was_asked(place: Place) -> None:
    before = place.traffic_control()
    place.start().kill()
    assert place.traffic_control() == before


@pytest.mark.parametrize("hooks", [["ingress"], ["ingress", "egress"]])
def test_killed_with_a_request_under_way(place: Place, hooks: list[str]) -> None:
    before = place.traffic_control()
    tracer = place.start()
    tracer.ask("die_waiting")
    with exit_of(tracer.guard_pid):
        tracer.send("attach_tc", place.index, {hook: place.programs.tc[hook] for hook in hooks})
    assert tracer.process.wait(TIMEOUT_S) == -signal.SIGKILL
    assert place.traffic_control() == before


def test_killed_when_attached(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    tracer.ask("attach_xdp", place.index, place.programs.xdp)
    assert place.xdp() is not None
    tracer.kill()
    assert place.traffic_control() == before
    assert place.xdp() is None


def test_killed_while_it_waits_for_the_removal(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    tracer.ask("die_waiting")
    with exit_of(tracer.guard_pid):
        tracer.send("close")
    assert tracer.process.wait(TIMEOUT_S) == -signal.SIGKILL
    assert place.traffic_control() == before


def test_killed_after_giving_up_its_privileges(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    uid, _gid = tracer.ask("drop")
    assert uid != 0
    tracer.kill()
    assert place.traffic_control() == before


def test_ended_after_giving_up_its_privileges(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    uid, gid = tracer.ask("drop")
    status = Path(f"/proc/{tracer.process.pid}/status").read_text().splitlines()
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in status
    assert f"Gid:\t{gid}\t{gid}\t{gid}\t{gid}" in status
    assert "NoNewPrivs:\t1" in status
    assert {f"Cap{name}:\t{0:016x}" for name in ("Inh", "Prm", "Eff", "Amb")} <= set(status)
    tracer.end()
    assert place.traffic_control() == before


def test_close_again_is_nothing(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    with exit_of(tracer.guard_pid):
        assert [tracer.ask("close"), tracer.ask("close")] == [None, None]
    assert place.traffic_control() == before


def test_the_guard_outlives_signals_and_holds_no_file_of_the_tracer(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    process = Path(f"/proc/{tracer.guard_pid}")
    assert (process / "comm").read_text() == "tcptrace-guard\n"
    files = {os.readlink(link) for link in (process / "fd").iterdir()}
    assert [name for name in files if name.startswith("pipe:")] == []
    assert "/dev/null" in files
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGUSR1):
        os.kill(tracer.guard_pid, number)
    assert os.getsid(tracer.guard_pid) == tracer.guard_pid
    tracer.ask("attach_xdp", place.index, place.programs.xdp)
    tracer.end()
    assert place.traffic_control() == before


def test_a_killed_guard_is_told_of(place: Place) -> None:
    tracer = place.attached()
    os.kill(tracer.guard_pid, signal.SIGKILL)
    kind, message = tracer.refused("close")
    assert kind == "TcptraceError"
    assert "may be left" in message
