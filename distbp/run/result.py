"""What training gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distbp.model.folder import Model


def with_nan(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics from JSON, in which NaN is null."""
    return {name: math.nan if value is None else value for name, value in metrics.items()}


@dataclass(frozen=True)
class Result:
    """`status`: "completed" or "stopped early". `params_sha256`: of the little-endian flat parameter vector
    that the model holds. `samples_per_second`: over training steps only, without those in which kernels may
    have been compiled. `model_epoch`: that the model and `metrics` are of. `path`: the run directory.
    `skipped`: rows left out of each split, by reason. `unhealthy`: what is wrong with the run, by name (see
    `distbp.run.verdict`); empty: nothing. A metric that is not defined on the data is NaN, null in JSON.
    `fetch`: loads the model of a job on a service, which has no run directory here."""

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
    path: Path = field(default=Path(), compare=False)
    fetch: Callable[[], Model] | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Without `path`: a run directory may be moved."""
        data = asdict(replace(self, fetch=None))
        del data["path"], data["fetch"]
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any], path: Path = Path()) -> Result:
        """The inverse of `to_json`, from JSON; fields of a newer version are left out."""
        known = {field.name: data[field.name] for field in fields(Result) if field.name in data}
        known["metrics"] = with_nan(data["metrics"])
        return Result(**{**known, "notes": tuple(data.get("notes") or ()), "path": path})

    def model(self) -> Model:
        """The trained model, from the run directory or the service."""
        if self.fetch is not None:
            return self.fetch()
        from distbp.model.folder import load_model

        return load_model(self.path / "model")
