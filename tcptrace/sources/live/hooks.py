"""What attaching needs, be it by links or by the guard: which hooks there are, and the kernel's refusals in words."""

import errno
import socket
from collections.abc import Callable, Mapping
from typing import Final, Literal, Protocol

from tcptrace.errors import MissingFeatureError, NotPermittedError, TcptraceError

TcHook = Literal["ingress", "egress"]
XdpMode = Literal["native", "generic"]

# In the driver if it can, else in the stack; XDP_FLAGS_*_MODE of linux/if_link.h.
XDP_MODES: Final[Mapping[XdpMode, int]] = {"native": 1 << 2, "generic": 1 << 1}


class Hooks(Protocol):
    """Attaches programs to interfaces, and takes them away again however the tracer ends."""

    def attach_tc(self, ifindex: int, program_fds: Mapping[TcHook, int]) -> None:
        """A BPF_PROG_TYPE_SCHED_CLS program to each of these hooks, ahead of others.

        NotPermittedError, MissingFeatureError or TcptraceError (interface gone); then close() is what is left to do.
        """

    def attach_xdp(self, ifindex: int, program_fd: int) -> XdpMode:
        """A BPF_PROG_TYPE_XDP program, in the driver if it can; says where.

        TcptraceError if the interface has an XDP program already: it is never replaced.
        """

    def close(self) -> None:
        """Have everything removed; idempotent.  TcptraceError if something is left."""


def name_of(ifindex: int) -> str:
    """The interface's name for messages; its number once it is gone."""
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"interface number {ifindex}"


def explained(error: OSError, what: str) -> TcptraceError:
    """Our kind of error for the kernel's; `what` names the attempt, the kernel's own words follow it."""
    message = f"{what}: {error.strerror}"
    if error.errno in (errno.EPERM, errno.EACCES):
        return NotPermittedError(message)
    if error.errno == errno.EOPNOTSUPP:
        return MissingFeatureError(message)
    return TcptraceError(message)


def attach_xdp(ifindex: int, attach: Callable[[int], None]) -> XdpMode:
    """Have it attached in one of XDP_MODES; attach(flag) raises OSError where the kernel does not want it so."""
    name = name_of(ifindex)
    for mode, flag in XDP_MODES.items():
        try:
            attach(flag)
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EEXIST):
                raise TcptraceError(f"{name} has an XDP program already, which stays: ip link show {name}") from error
            if mode == "generic" or error.errno in (errno.EPERM, errno.ENODEV):
                raise explained(error, f"cannot attach an XDP program to {name}") from error
        else:
            break
    return mode
