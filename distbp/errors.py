"""Every error that distbp raises on purpose.

    DistbpError
    ├── JobError            the job is at fault: every fault at once, each with its path
    │   └── NoMemoryError       the job needs more memory than is free now, but not more than there is
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
    ├── RemoteError         a service refused what it was asked
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
        # Exception's own __reduce__ calls the constructor with `args`, which breaks every subclass
        # whose constructor takes something else than the message.
        return _rebuild, (type(self), self.args, self.__dict__.copy())


@dataclass(frozen=True)
class Fault:
    """One fault in a job. `path` is dotted (`optimizer.learning_rate`, `model.layers.1.units`)."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class JobError(DistbpError):
    """A job that cannot be trained. `faults` lists every fault found, not only the first."""

    def __init__(self, faults: Sequence[Fault], source: str = "the job") -> None:
        self.faults = tuple(faults)
        self.source = source
        count = len(self.faults)
        head = f"{source} has {count} fault{'s' if count != 1 else ''}:"
        super().__init__("\n".join([head, *(f"  {fault}" for fault in self.faults)]))


class NoMemoryError(JobError):
    pass


class SettingsError(DistbpError):
    pass


class DataError(DistbpError):
    pass


class HostileFileError(DataError):
    pass


class NumericsError(DistbpError):
    """NaN or Inf, found before the update: the parameters are still those of the last good step.

    `rows` are row numbers of the training set (0-based, as in the file), at most ten.
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
    """Training stopped on request. `run_dir` can be resumed from `step`."""

    def __init__(self, run_dir: str, step: int, signal_name: str = "") -> None:
        self.run_dir = run_dir
        self.step = step
        self.signal_name = signal_name
        by = f" by {signal_name}" if signal_name else ""
        super().__init__(
            f"stopped{by} after step {step}; a checkpoint was written. Go on with: distbp resume {run_dir}"
        )


class RemoteError(DistbpError):
    """`code` is for programs (`not_found`, `unauthorized`, ...; "" where nobody gave one). `status`: of HTTP,
    0 where there was no answer. `param`: the field or header at fault, or None."""

    def __init__(self, message: str, *, code: str = "", status: int = 0, param: str | None = None) -> None:
        self.code = code
        self.status = status
        self.param = param
        super().__init__(message)


class UnreachableError(RemoteError):
    pass


class JobFailedError(DistbpError):
    """`code`: the kind of error (`numerics`, `data`, `job`, `runner_died`, ...); `job_id`: which job."""

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
