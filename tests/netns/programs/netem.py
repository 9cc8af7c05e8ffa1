"""A slow, lossy or disordering link, made by the kernel's own network emulator where there is one.

netem(far, "veth0", "delay", "40ms")
netem(far, "veth0", "delay", "10ms", "reorder", "25%")
netem(far, "veth0", "loss", "2%")
"""

import pytest
from netns_tools import Namespace


def netem(namespace: Namespace, interface: str, *words: str) -> None:
    """For what leaves by that interface from now on, in tc's words; skips the test on a kernel without netem."""
    command = ["tc", "qdisc", "replace", "dev", interface, "root", "netem", *words]
    result = namespace.run(command, check=False)
    if "qdisc kind is unknown" in result.stderr:
        pytest.skip("this kernel has no netem")
    assert result.returncode == 0, result.stderr
