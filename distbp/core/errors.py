"""Every error that distbp raises on purpose.

    DistbpError
    ├── JobError            the job is at fault: every fault at once, each with its path
    │   └── NoMemoryError       the job needs more memory than is free now, but not more than there is
    ├── ArgumentError       a function was given an argument that it does not take; also a ValueError
    ├── SettingsError       an environment variable has a value that is not allowed
    ├── DataError           a data file or array is at fault: file, row and column where known
    │   └── HostileFileError    a file that claims or hides more than it may hold
    ├── NumericsError       NaN or Inf appeared; the last good state is kept
    ├── FingerprintError    two processes do not compute the same bits
    ├── CheckpointError     no checkpoint can be read, or it does not belong to this job
    │   └── StorageError        the disk refused a write (full, read-only, not permitted)
    │       └── QuotaError          the disk that a service gives a job is used up
    ├── ModelError          a saved model cannot be read, or does not fit the data given to it
    ├── Interrupted         stopped by a signal after a checkpoint was written
    ├── RemoteError         a service refused a request
    │   └── UnreachableError    no service is known, or none answers
    ├── JobFailedError      a job on a service has failed
    │   └── JobCancelledError   a job on a service was cancelled
    └── ExchangeError       processes that train together lost each other
        ├── WorkerLostError     a worker died, froze or left, and nobody can take its shards
        ├── ServerLostError     the parameter server died or froze
        ├── FencedError         an older attempt spoke after a newer one had begun
        └── CorruptionError     two workers computed different bits for one shard

All of them cross process boundaries: every error pickles with its attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


def _rebuild(kind: type[DistbpError], args: tuple[Any, ...], state: dict[str, Any]) -> DistbpError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class DistbpError(Exception):
    """The root. `str(error)` is a message for a person: what happened and what to do."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own __reduce__ calls the constructor with `args`. That fails for every subclass whose
        # constructor takes other arguments than the message.
        return _rebuild, (type(self), self.args, self.__dict__.copy())


@dataclass(frozen=True)
class Fault:
    """One fault in a job. `path` is dotted (`optimizer.learning_rate`, `model.layers.1.units`)."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


MOST_FAULTS = 50  # the most faults that an error lists; it counts the others
_PATH, _MESSAGE = 200, 2000  # the most characters of a fault's path and message


def cut(text: str, most: int) -> str:
    """`text`, shortened to `most` characters, with "..." at its end, if it is longer."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


class JobError(DistbpError):
    """A job that cannot be trained. `faults` lists every fault found, not only the first. If there are more
    than `MOST_FAULTS`, the last entry counts the rest. `source`: where the job came from, for the message.
    `more`: the number of faults that the caller left out of `faults`. `drawing`: lines of text that show the
    network below the faults; "": none."""

    def __init__(
        self, faults: Sequence[Fault], source: str = "the job", more: int = 0, drawing: str = ""
    ) -> None:
        if more or len(faults) > MOST_FAULTS + 1:
            more += max(0, len(faults) - MOST_FAULTS)
            faults = [*faults[:MOST_FAULTS], Fault("", f"and {more:,} more faults; mend these first")]
        self.faults = tuple(Fault(cut(f.path, _PATH), cut(f.message, _MESSAGE)) for f in faults)
        self.source = source
        self.drawing = drawing
        count = len(self.faults)
        many = f"more than {MOST_FAULTS}" if count > MOST_FAULTS else count
        head = f"{source} has {many} fault{'s' if count != 1 else ''}:"
        below = ["", drawing] if drawing else []
        super().__init__("\n".join([head, *(f"  {fault}" for fault in self.faults), *below]))

    def within(self, source: str) -> JobError:
        """The same error for a job that came from `source`."""
        return JobError(self.faults, source, drawing=self.drawing)


class NoMemoryError(JobError):
    pass


class ArgumentError(DistbpError, ValueError):
    pass


class SettingsError(DistbpError):
    pass


class DataError(DistbpError):
    pass


class HostileFileError(DataError):
    pass


class NumericsError(DistbpError):
    """NaN or Inf was found before the update, so the parameters are still those of the last good step.

    `rows`: numbers of the training rows at fault (0-based, as in the file), at most ten.
    """

    def __init__(
        self, step: int, layer: str, tensor: str, value: str, rows: Sequence[int] = (), advice: str = ""
    ) -> None:
        self.step = step
        self.layer = layer
        self.tensor = tensor
        self.value = value
        self.rows = tuple(int(row) for row in rows)
        where = f" for training rows {', '.join(map(str, self.rows))}" if self.rows else ""
        message = f"step {step}: {value} in the {tensor} of {layer}{where}; the update was not applied."
        super().__init__(f"{message} {advice}".strip())


class FingerprintError(DistbpError):
    pass


class CheckpointError(DistbpError):
    pass


class StorageError(CheckpointError):
    pass


class QuotaError(StorageError):
    pass


class ModelError(DistbpError):
    pass


class Interrupted(DistbpError):  # noqa: N818 - named after what happened, like KeyboardInterrupt
    """Training stopped on request. `run_dir`: the run directory, which can be resumed; "": there is none yet.
    `step`: the last step done, of which there is a checkpoint; None: training had not begun. `signal_name`:
    the signal or the caller that asked for the stop."""

    def __init__(self, run_dir: str, step: int | None, signal_name: str = "") -> None:
        self.run_dir = run_dir
        self.step = step
        self.signal_name = signal_name
        by = f" by {signal_name}" if signal_name else ""
        when = "before training began" if step is None else f"after step {step}; a checkpoint was written"
        how = f"Go on with: distbp resume {run_dir}" if run_dir else "Nothing is lost; start it again"
        super().__init__(f"stopped{by} {when}. {how}")


class RemoteError(DistbpError):
    """A service refused a request. `code`: the reason, for programs (`not_found`, `unauthorized`, ...); "":
    none was given. `status`: the HTTP status; 0: there was no answer. `param`: the field, header or argument
    at fault, or None."""

    def __init__(self, message: str, *, code: str = "", status: int = 0, param: str | None = None) -> None:
        self.code = code
        self.status = status
        self.param = param
        super().__init__(message)


class UnreachableError(RemoteError):
    pass


class JobFailedError(DistbpError):
    """The job `job_id` has failed. `code`: the kind of error (`numerics`, `data`, `runner_died`, ...)."""

    def __init__(self, job_id: str, message: str, code: str = "") -> None:
        self.job_id = job_id
        self.code = code
        super().__init__(message)


class JobCancelledError(JobFailedError):
    pass


class ExchangeError(DistbpError):
    pass


class WorkerLostError(ExchangeError):
    pass


class ServerLostError(ExchangeError):
    pass


class FencedError(ExchangeError):
    pass


class CorruptionError(ExchangeError):
    pass
