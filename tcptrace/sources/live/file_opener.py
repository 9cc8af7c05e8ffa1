"""The small process that opens a capture's next file when the tracer may not any more.

The tracer gives up its privileges before the first packet, and a capture that rotates opens files later, in a folder
that may be root's.  So it forks this process beforehand, with the one pattern of names.  A request is a number, the
answer a descriptor (SCM_RIGHTS): whoever takes over the tracer can have the files of that pattern and no others.
It ends when the tracer does, which the socket between them says.
"""

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from tcptrace.errors import TcptraceError
from tcptrace.sources.live.privileges import User, choose_user
from tcptrace.sources.live.side_process import await_exit, detach, signals_blocked

# As `ps` and /proc/PID/comm show it; the kernel keeps 15 bytes.
PROCESS_NAME: Final = "tcptrace-opener"
# More than a slow network file system takes to make a file.
ANSWER_TIMEOUT_S: Final = 20.0

# What to do, the request's id, the file's number.
REQUEST: Final = struct.Struct("=cIQ")
OPEN: Final = b"o"
REMOVE: Final = b"r"
# The request's id, errno or 0.
ANSWER: Final = struct.Struct("=Ii")

PathOf = Callable[[int], str]
"""A file's number to its path; all of them are in one folder."""


class FileOpener:
    """The tracer's end: start() before privileges go and before there are threads, at last close()."""

    def __init__(self, pid: int, connection: socket.socket, path_of: PathOf) -> None:
        self.pid = pid
        self._connection = connection
        self._pidfd = os.pidfd_open(pid)
        self._path_of = path_of
        self._requests = 0

    @classmethod
    def start(cls, path_of: PathOf) -> "FileOpener":
        """Fork the process.  TcptraceError if that fails, or the folder cannot be opened.

        Files go to the user who called sudo, else to root.
        """
        folder = os.path.dirname(path_of(1)) or "."
        try:
            folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise TcptraceError(f"{folder}: {error.strerror}") from error
        owner = sudo_user(os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID"))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(ANSWER_TIMEOUT_S)
        try:
            with signals_blocked():
                pid = os.fork()
                if pid == 0:
                    _run(ours, theirs, folder_fd, path_of, owner)
            theirs.close()
            return cls(pid, ours, path_of)
        except OSError as error:
            raise TcptraceError(f"cannot start the process that opens files: {error.strerror}") from error
        finally:
            os.close(folder_fd)

    def open(self, number: int) -> int:
        """A new, empty file of that number for writing, in place of an old one; its descriptor.

        OSError as open(2) would give it; TcptraceError if the process is gone.
        """
        fds = self._ask(OPEN, number)
        if not fds:
            raise TcptraceError(f"{PROCESS_NAME} sent no file")
        return fds[0]

    def remove(self, number: int) -> None:
        """Delete the file of that number.  OSError as unlink(2) would give it."""
        self._ask(REMOVE, number)

    def close(self) -> None:
        """Let the process end, and wait for it a while; idempotent."""
        if self._connection.fileno() < 0:
            return
        self._connection.close()
        await_exit(self.pid, self._pidfd)

    def _ask(self, what: bytes, number: int) -> list[int]:
        self._requests += 1
        try:
            self._connection.send(REQUEST.pack(what, self._requests, number))
            error_number, fds = self._answer()
        except TimeoutError as error:
            raise TcptraceError(f"process {self.pid} ({PROCESS_NAME}) does not answer") from error
        except OSError as error:
            raise TcptraceError(f"{PROCESS_NAME} has been ended, so no further file can be opened") from error
        if error_number:
            raise OSError(error_number, os.strerror(error_number), self._path_of(number))
        return fds

    def _answer(self) -> tuple[int, list[int]]:
        """errno and descriptors of the latest request."""
        while True:
            data, fds, _flags, _address = socket.recv_fds(self._connection, ANSWER.size, 1)
            if not data:
                raise ConnectionResetError
            answered, error_number = ANSWER.unpack(data)
            if answered == self._requests:
                for fd in fds:
                    os.set_inheritable(fd, False)
                return error_number, fds
            for fd in fds:  # that of a request whose wait was interrupted
                os.close(fd)


def sudo_user(sudo_uid: str | None, sudo_gid: str | None) -> User | None:
    """Who called sudo, None if nobody did."""
    user = choose_user(sudo_uid, sudo_gid)
    return user if str(user.uid) == sudo_uid else None


def open_for_sudo_user(path: str) -> int:
    """Open the one file of a capture that does not rotate, for writing: before privileges go, without a process.

    A new file goes to the user who called sudo; one that is there (a pipe, too) stays whose it is.  Raises OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    try:
        fd = os.open(path, flags | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, flags, 0o666)
    _give(fd, sudo_user(os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")))
    return fd


def _run(
    tracers_end: socket.socket, connection: socket.socket, folder_fd: int, path_of: PathOf, owner: User | None
) -> NoReturn:
    """The forked child's whole life; never returns into the tracer's code, whatever happens."""
    try:
        tracers_end.close()
        detach(PROCESS_NAME, {connection.fileno(), folder_fd})
        os.chdir("/")
        with suppress(OSError):  # the tracer died in the middle of a request
            while request := connection.recv(REQUEST.size):
                _serve(connection, request, folder_fd, path_of, owner)
    finally:
        os._exit(0)


def _serve(connection: socket.socket, request: bytes, folder_fd: int, path_of: PathOf, owner: User | None) -> None:
    """Do one request and send what came of it."""
    what, request_id, number = REQUEST.unpack(request)
    name = os.path.basename(path_of(number))
    fds = []
    try:
        if what == OPEN:
            fds.append(_create(name, folder_fd, owner))
        else:
            os.unlink(name, dir_fd=folder_fd)
        error_number = 0
    except OSError as error:
        error_number = error.errno or -1
    try:
        socket.send_fds(connection, [ANSWER.pack(request_id, error_number)], fds)
    finally:
        for fd in fds:
            os.close(fd)


def _create(name: str, folder_fd: int, owner: User | None) -> int:
    """Always a file of its own: where somebody else may write, a link in its place could lead to any file."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder_fd)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o666, dir_fd=folder_fd)
    _give(fd, owner)
    return fd


def _give(fd: int, owner: User | None) -> None:
    if owner is not None:
        with suppress(OSError):  # a file system without owners
            os.fchown(fd, owner.uid, owner.gid)
