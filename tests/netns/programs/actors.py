"""Processes that do with their sockets what they are told: run as `python actors.py` inside a namespace; stdlib only.

Each line of its input is JSON: ["bind", address, port], ["start", name, cgroup or null], or
["do", actor's name, method of Actor, arguments…]; the answer is a JSON line.
"""

import json
import os
import signal
import socket
import sys
import traceback
from typing import Any

REQUEST_BYTES, RESPONSE_BYTES = 1_237, 23
# Whose names begin so inherit what was bound before.
SERVING = ("server", "worker")
BACKLOG = 1024


class Actor:
    """One process's sockets, by the names that it is told."""

    def __init__(self, bound: dict[int, socket.socket]) -> None:
        self._bound = dict(bound)
        self._open: dict[str, socket.socket] = {}

    def listen(self, port: int) -> None:
        """On what was bound before this process was forked, or on a new socket."""
        if port not in self._bound:
            self._bound[port] = bound_socket("::", port)
        self._bound[port].listen(BACKLOG)

    def connect(self, name: str, address: str, port: int) -> int:
        one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        one.connect((address, port))
        self._open[name] = one
        return int(one.getsockname()[1])

    def refused(self, address: str, port: int) -> int:
        one = socket.socket()
        one.bind(("", 0))
        local = int(one.getsockname()[1])
        assert one.connect_ex((address, port)) != 0
        return local

    def accept(self, name: str, port: int) -> None:
        self._open[name] = self._bound[port].accept()[0]

    def request(self, name: str) -> None:
        self._open[name].sendall(bytes(REQUEST_BYTES))

    def respond(self, name: str) -> None:
        assert len(self._open[name].recv(REQUEST_BYTES, socket.MSG_WAITALL)) == REQUEST_BYTES
        self._open[name].sendall(bytes(RESPONSE_BYTES))

    def receive(self, name: str) -> None:
        assert len(self._open[name].recv(RESPONSE_BYTES, socket.MSG_WAITALL)) == RESPONSE_BYTES

    def begin_to_close(self, name: str) -> None:
        self._open[name].shutdown(socket.SHUT_WR)

    def close(self, name: str) -> None:
        """The other end has begun to, or will at once."""
        with self._open.pop(name) as one:
            assert one.recv(1) == b""

    def burst(self, address: str, port: int, count: int) -> list[int]:
        """Connect so often, as fast as can be; the local ports."""
        made = [socket.create_connection((address, port)) for _ in range(count)]
        return [one.getsockname()[1] for one in made]


def bound_socket(address: str, port: int) -> socket.socket:
    one = socket.socket(socket.AF_INET6)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    one.bind((address, port))
    return one


class Started:
    """The conductor's end of an actor."""

    def __init__(self, name: str, cgroup: str | None, bound: dict[int, socket.socket]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid:
            self._socket = ours
            theirs.close()
            return
        try:
            with open("/proc/self/comm", "w") as file:
                file.write(name)
            if cgroup is not None:
                with open(f"{cgroup}/cgroup.procs", "w") as file:
                    file.write("0")
            ours.close()
            if not name.startswith(SERVING):
                for one in bound.values():
                    one.close()
                bound = {}
            actor = Actor(bound)
            theirs.send(b"null")
            while message := theirs.recv(1 << 16):
                method, *arguments = json.loads(message)
                theirs.send(json.dumps(getattr(actor, method)(*arguments)).encode())
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)

    def begin(self, *command: Any) -> None:
        self._socket.send(json.dumps(command).encode())

    def end(self) -> Any:
        answer = self._socket.recv(1 << 16)
        assert answer, "an actor has failed"
        return json.loads(answer)


def main() -> None:
    bound: dict[int, socket.socket] = {}
    actors: dict[str, Started] = {}
    for line in sys.stdin:
        verb, name, *arguments = json.loads(line)
        answer: Any = None
        if verb == "bind":
            bound[arguments[0]] = bound_socket(name, *arguments)
        elif verb == "start":
            actors[name] = Started(name, *arguments, bound)
            actors[name].end()
            answer = actors[name].pid
        elif verb == "do":
            actors[name].begin(*arguments)
            answer = actors[name].end()
        else:  # all at once
            for one in name:
                actors[one].begin(*arguments)
            answer = {one: actors[one].end() for one in name}
        print(json.dumps(answer), flush=True)
    for actor in actors.values():
        os.kill(actor.pid, signal.SIGKILL)
        os.waitpid(actor.pid, 0)


if __name__ == "__main__":
    main()
