"""Programs attached by links (Linux 6.6): the kernel takes them away when this process ends, whatever ends it.

A link lasts as long as somebody holds its descriptor, and nobody but the tracer does: it is closed in programs that are
executed, and no process is forked while there is one.  Closing it needs no privileges.
"""

from collections.abc import Mapping
from typing import Final

from tcptrace.sources.live import bpf_links
from tcptrace.sources.live.hooks import TcHook, XdpMode, attach_xdp, explained, name_of

# enum bpf_attach_type of linux/bpf.h.
BPF_XDP: Final = 37
BPF_TCX: Final[Mapping[TcHook, int]] = {"ingress": 46, "egress": 47}
# Relative to none it means: before all others.
BPF_F_BEFORE: Final = 1 << 3


def are_known(ifindex: int) -> bool:
    """Whether programs can be attached to this interface by links: TCX is what came last, after those of XDP."""
    return bpf_links.is_known(ifindex, BPF_TCX["ingress"])


class Links:
    """Hooks (hooks.py) by links that this process holds."""

    def __init__(self) -> None:
        self._fds: list[int] = []

    def attach_tc(self, ifindex: int, program_fds: Mapping[TcHook, int]) -> None:
        """To TCX, which comes before clsact."""
        for hook, program_fd in program_fds.items():
            try:
                self._fds.append(bpf_links.create(program_fd, ifindex, BPF_TCX[hook], BPF_F_BEFORE))
            except OSError as error:
                raise explained(error, f"cannot attach to {name_of(ifindex)}") from error

    def attach_xdp(self, ifindex: int, program_fd: int) -> XdpMode:
        return attach_xdp(ifindex, lambda mode: self._fds.append(bpf_links.create(program_fd, ifindex, BPF_XDP, mode)))

    def close(self) -> None:
        while self._fds:
            bpf_links.close(self._fds.pop())
