"""What a run delivers: its result, its model, its metrics. Whether they are those that it left.

The last checkpoint knows: it holds the parameters, the best ones, and what was measured, under its hashes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from distbp.core.arrays import Array
from distbp.core.errors import CheckpointError, ModelError
from distbp.core.storage import DISK, Disk, explained, read_file
from distbp.data.several_targets import classes_of
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.job import TrainingJob
from distbp.model.folder import load_model, params_digest, save_model
from distbp.run.agreement import job_changes
from distbp.run.checkpoint import Checkpoint
from distbp.run.result import Result
from distbp.run.run_directory import METRICS, RESULT
from distbp.run.run_state import RunState
from distbp.run.splits import Splits

BEST = "best"  # the array of a checkpoint that holds the vector of the best evaluation


def delivered(path: Path, done: Mapping[str, Any], job: TrainingJob, last: Checkpoint | None) -> Result:
    """The result of a finished run. Raises CheckpointError where something is not what the run left."""
    check_left(path, delivery_faults(path, done, job, last), "the last checkpoint")
    return Result.from_json(done, path)


def check_left(path: Path, faults: Sequence[str], source: str) -> None:
    """Raises CheckpointError where something is not what the run left. source: of which it can be written
    again."""
    if faults:
        raise CheckpointError(
            f"{path} is not what the run left:\n"
            + "".join(f"  {fault}\n" for fault in faults)
            + f"Put back what it was; or remove {RESULT}, and 'distbp resume' writes model and result again"
            f" from {source}"
        )


def delivery_faults(
    path: Path, done: Mapping[str, Any], job: TrainingJob, last: Checkpoint | None
) -> list[str]:
    """What of job.yaml, metrics.jsonl, result.json and model/ is not what the run left, in words. `last`: its
    last checkpoint; without one only what is left can be compared with each other."""
    unknown = {field.name for field in fields(Result)} - {"path", "fetch", "measured"} ^ done.keys()
    if unknown:
        return [f"{RESULT} has other fields than distbp writes: {', '.join(sorted(unknown))}"]
    if last is None:
        return list(_model_faults(path, done, job, None))
    state = RunState.from_json(last.state["run"])
    found = job_changes(last.state, job)
    if not state.ended:
        return [*found, f"the last checkpoint, of step {last.step}, is not that of the end"]
    found += metrics_faults(path, state, whole=True)
    expected, metrics = model_of(last, state, job)
    found += _model_faults(path, done, job, expected)
    found += result_faults(done, metrics)
    if done["steps"] != last.step:
        found.append(f"{RESULT} says {done['steps']} steps, where {last.step} were trained")
    return found


def model_of(last: Checkpoint, state: RunState, job: TrainingJob) -> tuple[Array, dict[str, Any]]:
    """The vector that the model of an ended run holds, and its metrics (but for those of the test set)."""
    stopping, vector, metrics = job.early_stopping, last.arrays["vector"], state.last_metrics
    if stopping is not None and stopping.restore_best and state.best is not None:
        vector = last.arrays.get(BEST, vector)
        metrics = state.best_metrics
    return vector, {name: value for name, value in metrics.items() if name not in ("epoch", "step")}


def write_run_model(
    path: Path,
    blueprint: Blueprint,
    splits: Splits,
    vector: Array,
    others: Sequence[Array] = (),
    *,
    disk: Disk = DISK,
) -> None:
    """The model folder of a run that came to `vector`, with the vectors of its `others`, if any."""
    save_model(
        path,
        job=blueprint.job,
        network=blueprint.network(),
        vector=vector,
        preprocessing=splits.preprocessing,
        numerics=numerics.fingerprint(blueprint.kernels),
        classes=classes_of(splits.meaning),
        class_weights=blueprint.class_weights,
        columns=splits.tables["train"].columns,
        plan=splits.plan,
        kernels=blueprint.kernels,
        shards=blueprint.shards,
        others=others,
        disk=disk,
    )


def result_faults(done: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """What a result says of `metrics` that was measured otherwise. NaN and infinities are null in JSON."""
    said, found = done["metrics"], []
    for name, value in metrics.items():
        number = value if value is not None and math.isfinite(value) else None
        if not (said.get(name) == number or (number is None and said.get(name) != said.get(name))):
            found.append(f"{RESULT} says {name}: {said.get(name)}, where {number} was measured")
    return found


def metrics_faults(path: Path, state: RunState, *, whole: bool = False) -> list[str]:
    """Whether metrics.jsonl is as it was when a checkpoint with this state was saved. `whole`: with nothing
    after it."""
    with explained(path / METRICS):
        try:
            data = read_file(path / METRICS)
        except FileNotFoundError:
            data = b""
    if hashlib.sha256(data if whole else data[: state.metrics_offset]).hexdigest() == state.metrics_sha256:
        return []
    return [f"{METRICS} is not what it was when the last checkpoint was saved"]


def _model_faults(
    path: Path, done: Mapping[str, Any], job: TrainingJob, expected: Array | None
) -> Iterator[str]:
    if done["job_digest"] != job.digest:
        yield f"{RESULT} is that of another job: it says the digest {done['job_digest']}, not {job.digest}"
    try:
        model = load_model(path / "model")
    except ModelError as error:
        yield str(error)
        return
    digest = model.facts["params_sha256"]
    if model.facts.get("job_digest") != job.digest:
        yield f"model/ is that of another job: it says the digest {model.facts.get('job_digest')}"
    if expected is None:
        if done["params_sha256"] != digest:
            yield f"{RESULT} says params_sha256 {done['params_sha256']}, model/ has {digest}"
        return
    right = params_digest(expected[: model.network.parameter_count])
    for name, said in ((RESULT, done["params_sha256"]), ("model/", digest)):
        if said != right:
            yield f"{name} has params_sha256 {said}, where the run came to {right}"
    held = expected[: model.network.size]  # a model has no states of the series that were trained on
    if digest == right and model.vector.tobytes() != held.astype(model.vector.dtype).tobytes():
        yield "model/ has other running statistics than the run came to"
