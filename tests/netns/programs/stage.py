"""A connection over a wire, each end's namespace with a tracer of its own, and what both say of states."""

import socket
from dataclasses import dataclass

from netns_tools import Namespace
from programs.inside import Sockets, mark
from programs.ss import socket_of
from programs.watch import Watch, settle
from programs.wire import Wire

NEAR, FAR = "10.9.0.1", "10.9.0.2"
PORT = 7000


@dataclass
class Stage:
    """`near` and `far` are the tracers of the wire's ends."""

    wire: Wire
    sockets: Sockets
    near: Watch
    far: Watch

    def connecting(self, port: int = PORT) -> tuple[socket.socket, int]:
        """A socket that has sent its SYN to the server's port, and its own port."""
        client = self.sockets.stream(self.wire.near)
        client.setblocking(False)
        client.connect_ex((FAR, port))
        return client, client.getsockname()[1]

    def ss(self, namespace: Namespace, near_port: int, port: int = PORT) -> str | None:
        """The state of the connection as `ss` has it; None when the kernel has forgotten it."""
        own, other = (near_port, port) if namespace is self.wire.near else (port, near_port)
        found = socket_of(namespace, own, other)
        return found.state if found else None

    def settle(self) -> None:
        """Returns when both tracers have told of all that has happened."""
        settle((self.near, self.far), lambda: mark(self.sockets, self.wire.near, FAR))

    def expect(self, near_port: int, near_state: str | None, far_state: str | None, port: int = PORT) -> None:
        """Both ends are, by `ss`, by their own tracer and by the kernel's word that this tells of, in these states.

        None: nothing left in the kernel.
        """
        self.settle()
        states = self.ss(self.wire.near, near_port, port), self.ss(self.wire.far, near_port, port)
        assert states == (near_state, far_state)
        traced = self.near.latest[near_port, port], self.far.latest[near_port, port]
        assert [event["near_end"] for event in traced] == ["src", "dst"]
        own = traced[0]["src_state"], traced[1]["dst_state"]
        assert (traced[0]["state"], traced[1]["state"]) == own
        kernels = tuple(state or "CLOSED" for state in states)
        assert own == kernels
        for event, state in zip(traced, states, strict=True):
            # What has gone was closed, or never had a socket.
            assert event["kernel_state"] == state or (state is None and event["kernel_state"] == "CLOSED")
