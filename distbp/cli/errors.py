"""Turns errors into exit codes and one readable message on stderr."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

import click

from distbp.core import errors
from distbp.core.interrupts import Terminated

P = ParamSpec("P")

CORRUPTED = 7
REFUSED = 8
FAILED_JOB = 9

# The meaning of each exit code. `distbp --help` shows them, and scripts may rely on them.
EXIT_CODES = {
    0: "done",
    1: "an error inside distbp: please report it",
    2: "the command line or the job is at fault",
    3: "a data file or a model is at fault",
    4: "NaN or Inf appeared in training, or a check of numbers failed (`gradcheck`, `explain`, `reproduce`)",
    5: "no checkpoint can be read or written, or the disk is full",
    6: "processes that train together lost each other",
    CORRUPTED: "bits differ: a run from what was recomputed of it, or one worker from another",
    REFUSED: "no service answers, or it refused what it was asked",
    FAILED_JOB: "a job on a service was cancelled, or failed for another reason than those above",
    130: "stopped by Ctrl-C, after a checkpoint",
    143: "stopped by SIGTERM, after a checkpoint",
}

# The first row with a matching class decides.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.JobError, 2),
    (errors.ArgumentError, 2),
    (errors.SettingsError, 2),
    (errors.DataError, 3),
    (errors.ModelError, 3),
    (errors.NumericsError, 4),
    (errors.CheckpointError, 5),
    (errors.FingerprintError, 6),
    (errors.CorruptionError, CORRUPTED),
    (errors.ExchangeError, 6),
    (errors.RemoteError, REFUSED),
)


def exit_code(error: BaseException) -> int:
    """The exit code for an error; 1 for an unforeseen error."""
    if isinstance(error, errors.Interrupted):
        return 143 if error.signal_name == "SIGTERM" else 130
    if isinstance(error, Terminated):
        return 143
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, errors.JobFailedError):
        return _code_of_job(error.code)
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)


def _code_of_job(name: str) -> int:
    """The exit code for a job that failed on a service: that of the same error here. `name`: of the error,
    such as `hostile_file`."""
    kind = getattr(errors, "".join(part.capitalize() for part in name.split("_")) + "Error", None)
    if not isinstance(kind, type) or not issubclass(kind, errors.DistbpError):
        return FAILED_JOB
    return next((code for parent, code in _CODES if issubclass(kind, parent)), FAILED_JOB)


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Wraps a command so that it ends with a message and an exit code instead of a traceback."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()  # so that errors of writing are handled here, not at exit
        except errors.DistbpError as error:
            _end(str(error), exit_code(error))
        except MemoryError as error:
            _end(f"the memory of this machine ran out: {error}".rstrip(": "), 2)
        except KeyboardInterrupt as error:
            stopped(error)
        except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
            _mute()
            sys.exit(0)
        except OSError as error:
            _mute()
            _end(_os_text(error), 5)
        except UnicodeEncodeError as error:
            words = repr(error.object[error.start : error.end])
            _end(
                f"{words} cannot be written as {error.encoding}: a name or path is in another encoding;"
                " rename it, or set PYTHONUTF8=1",
                2,
            )

    return wrapper


def stopped(error: BaseException | None) -> NoReturn:
    """Ends the process after Ctrl-C, or after SIGTERM if `error` is Terminated."""
    if isinstance(error, Terminated):
        _end("stopped by SIGTERM", 143)
    _end("stopped by Ctrl-C", 130)


def open_streams() -> None:
    """Connects closed standard streams to /dev/null; else the next opened file would get their number.
    Characters that an output's encoding lacks, such as bytes in a file's name, are written as \\xNN."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream: Any = getattr(sys, name)
        if stream is None:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, `number`
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - for good
        elif number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _mute() -> None:
    """Connects stdout to /dev/null, because it accepts no more output."""
    with suppress(OSError, ValueError, AttributeError):  # stdout may not be a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _os_text(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"{error.filename}: {reason}" if error.filename else reason


def _end(message: str, code: int) -> NoReturn:
    prefix = "" if code in (130, 143) else "error: "
    click.echo(f"{prefix}{message}", err=True)
    sys.exit(code)


def internal(error: Exception) -> NoReturn:
    """Ends the process with the traceback of an unforeseen error."""
    traceback.print_exception(error)
    click.echo("\nThis is an error inside distbp. Please report it, with the lines above.", err=True)
    sys.exit(1)


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Adds the name of the job's file to each JobError in the block."""
    try:
        yield
    except errors.JobError as error:
        raise error.within(str(path)) from None
