"""Processes that own sockets and say so themselves: run as `python owners.py` inside a namespace; stdlib only.

Each line of its input is the name of a function here and its arguments, as JSON; the answer is a JSON line: a list of
the connections that came of it, each end with what the process that connected or accepted says of itself.
"""

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

REQUEST_BYTES, RESPONSE_BYTES = 1_237, 23
PAYLOAD_BYTES = 23
PIPE_BYTES = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
TCP_FASTOPEN = 23
CGROUP_MOUNTS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")

Process = dict[str, Any]
End = dict[str, Any]
"""port, peer_port (None: not known) and process."""


# --- Who one is, and becoming somebody


def me() -> Process:
    """By /proc and stat alone."""
    with open(f"/proc/{os.getpid()}/comm") as file:
        comm = file.read()[:-1]
    return {"pid": os.getpid(), "process": comm, "uid": os.getuid(), "cgroup_id": cgroup_id()}


def cgroup_id() -> int:
    with open("/proc/self/cgroup") as file:
        path = next(line[3:-1] for line in file if line.startswith("0::"))
    mount = next(mount for mount in CGROUP_MOUNTS if os.path.exists(f"{mount}/cgroup.procs"))
    return os.stat(mount + path).st_ino


def call_me(name: str) -> None:
    with open("/proc/thread-self/comm", "w") as file:
        file.write(name)


def end(one: socket.socket, peer_port: int | None = None) -> End:
    return {"port": one.getsockname()[1], "peer_port": peer_port or one.getpeername()[1], "process": me()}


class Actor:
    """A forked process of that name, which does `work` and leaves its result."""

    def __init__(self, name: str, work: Callable[[], Any], uid: int = 0, cgroup: str | None = None) -> None:
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writer)
            return
        status = 1
        try:
            call_me(name)
            if cgroup is not None:
                with open(f"{cgroup}/cgroup.procs", "w") as file:
                    file.write("0")
            if uid:
                os.setresuid(uid, uid, uid)
            os.write(writer, json.dumps(work()).encode())
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)

    def result(self) -> Any:
        with open(self._reader) as stream:
            text = stream.read()
        assert os.waitpid(self.pid, 0)[1] == 0, "a process has failed"
        return json.loads(text)


def forked(work: Callable[[], None]) -> None:
    """In a helper of this process; returns when that has ended."""
    Actor("helper", work).result()


# --- What is done on a connection


def ask(one: socket.socket) -> None:
    one.sendall(bytes(REQUEST_BYTES))
    assert len(one.recv(RESPONSE_BYTES, socket.MSG_WAITALL)) == RESPONSE_BYTES


def answer(one: socket.socket) -> None:
    assert len(one.recv(REQUEST_BYTES, socket.MSG_WAITALL)) == REQUEST_BYTES
    one.sendall(bytes(RESPONSE_BYTES))
    assert one.recv(1) == b""


def listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    one.bind((address, port))
    one.listen(128)
    return one


def connect_and_ask(address: str, port: int) -> End:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as one:
        one.connect((address, port))
        told = end(one)
        ask(one)
        return told


def accept_and_answer(listener: socket.socket) -> End:
    with listener.accept()[0] as one:
        told = end(one)
        answer(one)
        return told


def both(
    address: str,
    port: int,
    client: Callable[[], End],
    server: Callable[[socket.socket], End],
    client_is: dict[str, Any] | None = None,
    server_is: dict[str, Any] | None = None,
) -> list[Any]:
    """One connection of two new processes; listened on in this one."""
    with listen(address, port) as listener:
        serving = Actor("the server", lambda: server(listener), **server_is or {})
        asking = Actor("the client", client, **client_is or {})
        return [{"src": asking.result(), "dst": serving.result()}]


# --- Scenarios


def plain(address: str, port: int, target: str = "") -> list[Any]:
    return both(address, port, lambda: connect_and_ask(target or address, port), accept_and_answer)


def short(address: str, port: int, count: int, workers: int) -> list[Any]:
    """Clients that connect, say who they are in 23 bytes and exit at once; a server forked before they come."""
    serving = serve(address, port, workers)
    clients(address, port, count)
    return served(serving, count)


Serving = tuple[list[Actor], int]
SERVING: list[Serving] = []


def serve(address: str, port: int, workers: int) -> Serving:
    reader, writer = os.pipe()
    # So that no worker ever waits for the reader.
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def work(listener: socket.socket) -> None:
        myself = me()
        while True:
            one, peer = listener.accept()
            with one:
                pid, name = one.recv(PAYLOAD_BYTES, socket.MSG_WAITALL).decode().split()
                # The client closes first, so that its port is not used again.
                assert one.recv(1) == b""
                client = {**myself, "pid": int(pid), "process": name}
                ends = [
                    {"port": peer[1], "peer_port": port, "process": client},
                    {"port": port, "peer_port": peer[1], "process": myself},
                ]
                line = json.dumps(dict(zip(("src", "dst"), ends, strict=True)))
                # Short of PIPE_BUF, so whole.
                os.write(writer, f"{line}\n".encode())

    with listen(address, port) as listener:
        actors = [Actor(f"worker-{number}", lambda: work(listener)) for number in range(workers)]
    os.close(writer)
    return actors, reader


def served(serving: Serving, count: int) -> list[Any]:
    actors, reader = serving
    with open(reader) as stream:
        told = [json.loads(stream.readline()) for _ in range(count)]
    for actor in actors:
        os.kill(actor.pid, signal.SIGKILL)
        os.waitpid(actor.pid, 0)
    return told


def clients(address: str, port: int, count: int) -> None:
    running = 0
    for number in range(count):
        if os.fork() == 0:
            try:
                call_me(f"client-{number}")
                one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
                one.connect((address, port))
                one.sendall(f"{os.getpid()} client-{number}".ljust(PAYLOAD_BYTES).encode())
            finally:
                os._exit(0)
        running += 1
        if running > 8:
            running -= 1
            os.wait()
    for _ in range(running):
        os.wait()


def begin_serving(address: str, port: int, workers: int) -> None:
    SERVING.append(serve(address, port, workers))


def all_served(count: int) -> list[Any]:
    return served(SERVING.pop(), count)


def handed_on(address: str, port: int) -> list[Any]:
    """Who connected and who accepted leave everything to children that inherit the socket."""

    def client() -> End:
        one = socket.create_connection((address, port))
        told = end(one)
        forked(lambda: finish(one, ask))
        return told

    def server(listener: socket.socket) -> End:
        one = listener.accept()[0]
        told = end(one)
        forked(lambda: finish(one, answer))
        return told

    def finish(one: socket.socket, work: Callable[[socket.socket], None]) -> None:
        work(one)
        one.shutdown(socket.SHUT_RDWR)

    return both(address, port, client, server)


def threads(address: str, port: int) -> list[Any]:
    """Both ends in threads with names of their own."""

    def in_thread(work: Callable[..., End]) -> Callable[..., End]:
        def run(*arguments: Any) -> End:
            told: list[End] = []

            def named() -> None:
                call_me("a thread")
                told.append(work(*arguments))

            thread = threading.Thread(target=named)
            thread.start()
            thread.join()
            return told[0]

        return run

    return both(address, port, in_thread(lambda: connect_and_ask(address, port)), in_thread(accept_and_answer))


def nonblocking(address: str, port: int) -> list[Any]:
    def client() -> End:
        with socket.socket() as one:
            one.setblocking(False)
            one.connect_ex((address, port))
            select.select([], [one], [])
            one.setblocking(True)
            told = end(one)
            ask(one)
            return told

    return both(address, port, client, accept_and_answer)


def refused(address: str, port: int) -> list[Any]:
    def client() -> End:
        with socket.socket() as one:
            one.bind((address, 0))
            told = {"port": one.getsockname()[1], "peer_port": port, "process": me()}
            try:
                one.connect((address, port))
            except ConnectionRefusedError:
                return told
        raise AssertionError("somebody listens")

    return [{"src": Actor("the refused", client).result(), "dst": None}]


def fast_open(address: str, port: int) -> list[Any]:
    """Twice: the first connection gets the cookie, the second one's SYN has data."""

    def client() -> End:
        with socket.socket() as one:
            sent = one.sendto(bytes(REQUEST_BYTES), socket.MSG_FASTOPEN, (address, port))
            assert sent == REQUEST_BYTES
            assert len(one.recv(RESPONSE_BYTES, socket.MSG_WAITALL)) == RESPONSE_BYTES
            return end(one)

    connections = []
    with listen(address, port) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
        for name in ("without cookie", "with cookie"):
            serving = Actor("the server", lambda: accept_and_answer(listener))
            connections.append({"src": Actor(name, client).result(), "dst": serving.result()})
    return connections


def old_accept(address: str, port: int) -> list[Any]:
    """accept(2), where Python uses accept4(2)."""

    def server(listener: socket.socket) -> End:
        fd = LIBC.accept(listener.fileno(), None, None)
        assert fd >= 0
        with socket.socket(fileno=fd) as one:
            told = end(one)
            answer(one)
            return told

    return both(address, port, lambda: connect_and_ask(address, port), server)


def other_users(address: str, port: int, client_uid: int, server_uid: int) -> list[Any]:
    identities = {"uid": client_uid}, {"uid": server_uid}
    return both(address, port, lambda: connect_and_ask(address, port), accept_and_answer, *identities)


def in_cgroups(address: str, port: int, client_cgroup: str, server_cgroup: str) -> list[Any]:
    identities = {"cgroup": client_cgroup}, {"cgroup": server_cgroup}
    return both(address, port, lambda: connect_and_ask(address, port), accept_and_answer, *identities)


def accepted_late(address: str, port: int) -> list[Any]:
    """The client has sent all, and is gone, when its connection is accepted."""

    def client() -> End:
        with socket.create_connection((address, port)) as one:
            one.sendall(bytes(REQUEST_BYTES))
            return end(one)

    def server(listener: socket.socket) -> End:
        with listener.accept()[0] as one:
            told = end(one)
            assert len(one.recv(REQUEST_BYTES, socket.MSG_WAITALL)) == REQUEST_BYTES
            assert one.recv(1) == b""
            return told

    with listen(address, port) as listener:
        asked = Actor("the client", client).result()
        return [{"src": asked, "dst": Actor("the server", lambda: server(listener)).result()}]


# --- Open before somebody looks

PREPARED: list[tuple[Actor, Actor, int]] = []


def prepare(address: str, port: int) -> None:
    """A connection: the client's own; the server has left it to a child."""
    ready, tell_ready = os.pipe()
    wait, go_on = os.pipe()

    def client() -> End:
        with socket.create_connection((address, port)) as one:
            told = end(one)
            os.write(tell_ready, b"c")
            os.read(wait, 1)
            ask(one)
            return told

    def server(listener: socket.socket) -> End:
        one = listener.accept()[0]
        told = end(one)

        def worker() -> None:
            os.write(tell_ready, b"s")
            answer(one)
            one.shutdown(socket.SHUT_RDWR)

        forked(worker)
        return told

    with listen(address, port) as listener:
        serving = Actor("old server", lambda: server(listener))
        asking = Actor("old client", client)
    for _ in range(2):
        os.read(ready, 1)
    PREPARED.append((asking, serving, go_on))


def go_on() -> list[Any]:
    asking, serving, pipe = PREPARED.pop()
    os.write(pipe, b"!")
    return [{"src": asking.result(), "dst": serving.result()}]


# --- Load


@contextmanager
def pumps(address: str, port: int, count: int) -> Iterator[None]:
    """Bulk data, received in softirqs that interrupt whatever runs."""

    def pump(one: socket.socket, receives: bool) -> None:
        data = bytearray(65536)
        while True:
            if receives:
                one.recv_into(data)
            else:
                one.sendall(data)

    children = []
    with listen(address, port) as listener:
        for _ in range(count):
            ends = socket.create_connection((address, port)), listener.accept()[0]
            for number, one in enumerate(ends):
                children.append(Actor("pump", lambda one=one, number=number: pump(one, bool(number))))  # type: ignore[misc]
                one.close()
    yield
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)


def main() -> None:
    call_me("conductor")
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        if name == "pump":
            with pumps(*arguments):
                print("[]", flush=True)
                sys.stdin.read()
            return
        print(json.dumps(globals()[name](*arguments) or []), flush=True)


if __name__ == "__main__":
    main()
