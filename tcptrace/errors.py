"""What can go wrong, each kind with its exit code; `cli` turns them into one line on stderr."""


class TcptraceError(Exception):
    """Anything that ends the program with a message: exit code 1."""

    exit_code = 1


class UsageError(TcptraceError):
    """The command line asks for something that cannot be: exit code 2."""

    exit_code = 2


class NotPermittedError(TcptraceError):
    """Needs root, or a capability: exit code 3."""

    exit_code = 3


class MissingFeatureError(TcptraceError):
    """The kernel, bcc or a library lacks something; the message says what to install: exit code 4."""

    exit_code = 4
