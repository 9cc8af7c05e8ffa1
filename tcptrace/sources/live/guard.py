"""The small process that stays root on kernels without TCX (see links.py): it attaches and removes programs, and does
nothing else.

The tracer gives up its privileges once all is set up, and may be killed at any moment; somebody who still may must
take the TC filters and the XDP program away then.  So the tracer forks a guard first thing and asks it to attach.
Whenever the tracer ends - the socket between them says so, and the tracer's pidfd - the guard removes what it attached
and exits.

A request is one JSON datagram, the programs' fds beside it (SCM_RIGHTS); so is the answer.
Importing this is cheap: pyroute2 is imported in the guard alone, while the tracer compiles its programs.
"""

import json
import os
import select
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, cast

from tcptrace.errors import MissingFeatureError, NotPermittedError, TcptraceError
from tcptrace.sources.live.hooks import TcHook, XdpMode
from tcptrace.sources.live.side_process import await_exit, detach, signals_blocked

if TYPE_CHECKING:
    from tcptrace.sources.live.guard_netlink import Attachments

# As `ps` and /proc/PID/comm show it; the kernel keeps 15 bytes.
PROCESS_NAME = "tcptrace-guard"
MESSAGE_BYTES = 4096
# A program for each hook, at most.
REQUEST_FDS = 2
# More than the guard's import of pyroute2 and its wait for another tracer's lock, on a busy machine.
ANSWER_TIMEOUT_S = 20.0

ERROR_KINDS = {kind.__name__: kind for kind in (TcptraceError, MissingFeatureError, NotPermittedError)}


class Guard:
    """The tracer's end, Hooks (hooks.py) of its: start() first of all, then attach, at last close()."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection = connection
        self._pidfd = os.pidfd_open(pid)
        self._requests = 0
        self._closed = False

    @classmethod
    def start(cls) -> "Guard":
        """Fork the guard; call it before there are threads and before large imports.  TcptraceError if fork fails."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(ANSWER_TIMEOUT_S)
        tracer_pid = os.getpid()
        try:
            with signals_blocked():
                pid = os.fork()
                if pid == 0:
                    _run_guard(ours, theirs, tracer_pid)
            theirs.close()
            return cls(pid, ours)
        except OSError as error:
            raise TcptraceError(f"cannot start the process that removes the filters: {error.strerror}") from error

    def attach_tc(self, ifindex: int, program_fds: Mapping[TcHook, int]) -> None:
        """To clsact, all or none.

        MissingFeatureError if the kernel has no clsact or cls_bpf, TcptraceError if an ingress qdisc is in the way.
        """
        self._ask([*program_fds.values()], do="attach_tc", ifindex=ifindex, hooks=[*program_fds])

    def attach_xdp(self, ifindex: int, program_fd: int) -> XdpMode:
        return cast(XdpMode, self._ask([program_fd], do="attach_xdp", ifindex=ifindex))

    def close(self) -> None:
        """Waits for the guard's end, too."""
        if self._closed:
            return
        self._closed = True
        try:
            self._ask([], do="remove")
        finally:
            self._connection.close()
            await_exit(self.pid, self._pidfd)

    def __enter__(self) -> "Guard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, program_fds: list[int], **request: Any) -> Any:
        """One request and its answer's value; raises what the guard reports."""
        self._requests += 1
        message = json.dumps({"id": self._requests, **request}).encode()
        try:
            socket.send_fds(self._connection, [message], program_fds)
            while True:
                reply = self._connection.recv(MESSAGE_BYTES)
                if not reply:
                    raise ConnectionResetError
                answer = json.loads(reply)
                if answer["id"] == self._requests:  # else that of a request whose wait was interrupted
                    break
        except TimeoutError as error:
            raise TcptraceError(f"process {self.pid} ({PROCESS_NAME}) does not answer") from error
        except OSError as error:
            raise TcptraceError(
                f"{PROCESS_NAME} has been ended, so filters may be left behind: tc filter show dev INTERFACE ingress"
            ) from error
        if "error" in answer:
            raise ERROR_KINDS[answer["error"]](answer["message"])
        return answer["value"]


def _run_guard(tracers_end: socket.socket, connection: socket.socket, tracer_pid: int) -> NoReturn:
    """The forked child's whole life; never returns into the tracer's code, whatever happens."""
    try:
        tracers_end.close()
        detach(PROCESS_NAME, {connection.fileno()})
        tracer = os.pidfd_open(tracer_pid)
        if os.getppid() == tracer_pid:  # else it is dead already, and its number may be another's
            _serve(connection, tracer)
    finally:
        os._exit(0)


def _serve(connection: socket.socket, tracer: int) -> None:
    """Answer requests until the tracer's end, then remove everything."""
    attachments, missing = _open_attachments()
    os.chdir("/")  # only now: Python may find modules relative to where it was started
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    poller.register(tracer, select.POLLIN)
    try:
        while tracer not in dict(poller.poll()):
            request, fds, _flags, _address = socket.recv_fds(connection, MESSAGE_BYTES, REQUEST_FDS)
            if not request:
                break
            _answer(connection, attachments, missing, json.loads(request), fds)
    except OSError:
        pass  # the tracer died in the middle of a request
    finally:
        if attachments is not None:
            attachments.remove_all()


def _open_attachments() -> "tuple[Attachments | None, str]":
    """Import pyroute2 and open its socket; without it, what to tell the tracer."""
    try:
        from tcptrace.sources.live.guard_netlink import Attachments

        return Attachments(), ""
    except ImportError as error:
        return None, f"the Python package pyroute2 cannot be used: {error} (pip install 'pyroute2>=0.9')"
    except OSError as error:
        return None, f"the kernel does not talk rtnetlink: {error}"


def _answer(
    connection: socket.socket, attachments: "Attachments | None", missing: str, request: dict[str, Any], fds: list[int]
) -> None:
    """Do one request and send its value or its error."""
    answer: dict[str, Any] = {"id": request["id"]}
    try:
        if attachments is None:
            if request["do"] != "remove":
                raise MissingFeatureError(missing)
            answer["value"] = None
        else:
            answer["value"] = _perform(attachments, request, fds)
    except TcptraceError as error:
        answer |= {"error": type(error).__name__, "message": str(error)}
    except Exception as error:
        answer |= {"error": TcptraceError.__name__, "message": f"{type(error).__name__}: {error}"}
    connection.send(json.dumps(answer).encode())


def _perform(attachments: "Attachments", request: dict[str, Any], fds: list[int]) -> str | None:
    """The request's value; closes the programs' fds unless one was kept on purpose."""
    if request["do"] == "attach_xdp":
        try:
            return attachments.attach_xdp(request["ifindex"], fds[0])
        except BaseException:
            os.close(fds[0])
            raise
    if request["do"] == "attach_tc":
        try:
            attachments.attach_tc(request["ifindex"], dict(zip(request["hooks"], fds, strict=True)))
        finally:
            for fd in fds:
                os.close(fd)
    elif request["do"] == "remove":
        attachments.remove_all()
    else:
        raise TcptraceError(f"the guard does not know the request {request['do']!r}")
    return None
