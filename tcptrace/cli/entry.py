"""How the program ends: every way has its exit code, and errors are one line."""

import os
import sys
import traceback

import click

from tcptrace.cli.command import command
from tcptrace.cli.endings import OutputStalled, ReaderGone, say
from tcptrace.errors import NotPermittedError, TcptraceError, UsageError


def main() -> None:
    """Every way to end has its exit code, and errors are one line."""
    verbose = "-v" in sys.argv[1:] or "--verbose" in sys.argv[1:]
    try:
        command.main(standalone_mode=False)
    except ReaderGone:
        discard_output()
        sys.exit(0)
    except OutputStalled:
        discard_output()
        fail(TcptraceError("ended before all output was read"), verbose=False)
    except click.ClickException as error:
        fail(UsageError(error.format_message()), verbose=False)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except TcptraceError as error:
        fail(error, verbose)
    except OSError as error:
        kind = NotPermittedError if isinstance(error, PermissionError) else TcptraceError
        fail(kind(f"{error.filename or 'standard output'}: {error.strerror or error}"), verbose)
    except Exception as error:
        fail(TcptraceError(f"{type(error).__name__}: {error}"), verbose)


def discard_output() -> None:
    """What is still buffered has no reader: the interpreter shall not wait for one, nor complain, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def fail(error: TcptraceError, verbose: bool) -> None:
    """One line on stderr, a traceback before it with -v, and the exit code of the error's kind."""
    if verbose:
        traceback.print_exc()
    say(str(error))
    sys.exit(error.exit_code)
