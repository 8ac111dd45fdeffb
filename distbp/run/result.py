"""The result of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distbp.core.errors import StorageError
from distbp.core.imports import missing
from distbp.core.words import counted

if TYPE_CHECKING:
    from distbp.model.predictor import Model
    from distbp.run.curves import Picture
    from distbp.run.measured import Metrics


def with_nan(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics from JSON, in which NaN is null."""
    return {name: math.nan if value is None else value for name, value in metrics.items()}


@dataclass(frozen=True)
class Result:
    """`status`: "completed" or "stopped early". `params_sha256`: of the little-endian flat parameter vector
    of the model. `metrics`: a metric that is not defined on the data is NaN, null in JSON.
    `samples_per_second`: over training steps only, without those in which kernels may have been compiled.
    `model_epoch`: the epoch of the model and of `metrics`. `path`: the run directory. `members`: how each
    network of a job with several ended; `steps` and `epochs` are then those of all networks together, and
    `metrics` those of the joined model. `skipped`: rows left out of each split, by reason. `unhealthy`: what
    is wrong with the run, by name (see `distbp.run.verdict`). `fetch`, `measured`: load the model and the
    rows of metrics.jsonl of a run that has no run directory here, such as a job on a service; else None."""

    status: str
    job_digest: str
    steps: int
    epochs: float
    params_sha256: str
    metrics: Mapping[str, Any]
    samples_per_second: float
    wall_seconds: float
    workers: int
    shards: int
    exchange: str
    numerics: Mapping[str, str]
    attempt: int = 1
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unhealthy: Mapping[str, str] = field(default_factory=dict)
    model_epoch: int | None = None
    members: tuple[Mapping[str, Any], ...] = ()
    path: Path = field(default=Path(), compare=False)
    fetch: Callable[[], Model] | None = field(default=None, compare=False, repr=False)
    measured: Callable[[], Sequence[Mapping[str, Any]]] | None = field(
        default=None, compare=False, repr=False
    )

    def to_json(self) -> dict[str, Any]:
        """Without `path`: a run directory may be moved."""
        data = asdict(replace(self, fetch=None, measured=None))
        del data["path"], data["fetch"], data["measured"]
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any], path: Path = Path()) -> Result:
        """The inverse of `to_json`, from data that was JSON. Unknown fields are left out."""
        known = {field.name: data[field.name] for field in fields(Result) if field.name in data}
        known["metrics"] = with_nan(data["metrics"])
        return Result(
            **{**known, **{name: tuple(data.get(name) or ()) for name in ("notes", "members")}, "path": path}
        )

    def model(self) -> Model:
        """The trained model, from the run directory or the service."""
        if self.fetch is not None:
            return self.fetch()
        from distbp.model.folder import load_model

        return load_model(self.path / "model")

    @property
    def history(self) -> Metrics:
        """The metrics of every epoch: arrays by name, for example `history["validation_loss"]` beside
        `history["step"]`. `.to_frame()` gives a pandas frame, `.rows` all that was recorded. Raises
        StorageError if the run directory has no metrics."""
        from distbp.run.measured import Metrics
        from distbp.run.run_directory import METRICS, read_lines

        if self.measured is not None:
            return Metrics(self.measured())
        if not (self.path / METRICS).is_file():
            raise StorageError(f"{self.path / METRICS} does not exist; was the run directory moved?")
        return Metrics(read_lines(self.path / METRICS))

    def plot(self) -> Picture:
        """The curves of loss and metrics by epoch: a matplotlib figure, which a notebook shows as SVG. Raises
        ImportError if matplotlib is not installed."""
        try:
            from distbp.run.curves import picture
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "matplotlib":
                raise
            raise ImportError(missing("plot()", "matplotlib", "distbp[plot]")) from None
        return picture(self.history.rows)

    def __repr__(self) -> str:
        numbers = {name: value for name, value in self.metrics.items() if isinstance(value, float)}
        said = [f"{name} {value:.4g}" for name, value in numbers.items()]
        return f"<Result {self.status}: {', '.join([counted(self.steps, 'step'), *said])}>"
