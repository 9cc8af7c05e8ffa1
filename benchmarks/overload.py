"""More than can be taken in, for ten seconds, the reader halted for three of them: are the counts exact?"""

import os
import signal
import time

from measure import Figure, Question
from netns_tools import Namespace, veth
from programs.offered import Offering
from test_overload import assert_exact, direct_to
from tracer import Tracer

FLOWS = 1_000
SECONDS, HALT_S, HALTED_S = 10, 3, 3
STEP = 200_000


def ask() -> list[Question]:
    with Namespace() as near, Namespace() as far:
        veth(near, far, ["10.9.0.1/24"], ["10.9.0.2/24"])
        with Offering(FLOWS) as offering, Tracer(near, "veth0") as tracer:
            direct_to(near, offering)
            elapsed_s = overload(tracer, offering)
            tracer.stop()
        assert_exact(tracer, offering)
    summary = tracer.summary
    figures = [
        Figure("offered", [offering.offered / elapsed_s]),
        Figure("recorded", [summary["records"] / elapsed_s]),
        Figure("counted only", [summary["thinned"] / elapsed_s]),
        Figure("lost to the full ring, and counted", [summary["records_lost"] / elapsed_s]),
    ]
    note = f"packets and bytes of all {FLOWS:,} connections exact, no finding that was not so, gaps marked: all"
    return [Question("Overload of one core, the reader halted for 3 of 10 s", "packets a second", figures, note)]


def overload(tracer: Tracer, offering: Offering) -> float:
    """Seconds that it took."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cpus)})
    begin, is_halted, was_halted = time.monotonic(), False, False
    try:
        while (now := time.monotonic() - begin) < SECONDS:
            if not was_halted and now > HALT_S:
                tracer.process.send_signal(signal.SIGSTOP)
                is_halted = was_halted = True
            if is_halted and now > HALT_S + HALTED_S:
                tracer.process.send_signal(signal.SIGCONT)
                is_halted = False
            offering.offer(STEP)
    finally:
        tracer.process.send_signal(signal.SIGCONT)
        os.sched_setaffinity(0, cpus)
    return time.monotonic() - begin
