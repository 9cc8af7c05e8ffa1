"""The ways into the kernel that a test is run with, as far as this kernel has them."""

import os

import pytest
from programs.watch import Watch

HAS_KPROBES = os.path.exists("/sys/bus/event_source/devices/kprobe")
WAYS = (pytest.param("kprobes", marks=pytest.mark.matrix), "tracepoints")
"""Parameters: what `--probes` takes."""


def require(way: str) -> None:
    """Skip the test where this kernel does not have it."""
    if way == "kprobes" and not HAS_KPROBES:
        pytest.skip("this kernel has no kprobes")


def check(watch: Watch, way: str) -> None:
    """That the tracer says so."""
    # Retransmissions are told by their tracepoint also where there are kprobes.
    names = {"kprobes": ("kprobes", "kprobes and raw tracepoints"), "tracepoints": ("raw tracepoints",)}
    assert watch.start["probes"] in names[way]
