"""The result, model and metrics that a run delivers, and checks that they are unchanged.

The checks compare with the last checkpoint. It holds, under its hashes, the last parameters, the best ones,
and the metrics.
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
    """The result of a finished run. Raises CheckpointError if a file is not what the run left."""
    check_left(path, delivery_faults(path, done, job, last), "the last checkpoint")
    return Result.from_json(done, path)


def check_left(path: Path, faults: Sequence[str], source: str) -> None:
    """Raises CheckpointError if there are faults. source: where 'distbp resume' takes model and result
    from."""
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
    """A text for each part of job.yaml, metrics.jsonl, result.json and model/ that is not what the run left.
    `last`: its last checkpoint; without it the files can only be compared with each other."""
    unknown = {field.name for field in fields(Result)} - {"path", "fetch", "measured"} ^ done.keys()
    if unknown:
        return [f"{RESULT} has other fields than distbp writes: {', '.join(sorted(unknown))}"]
    if last is None:
        return list(_model_faults(path, done, job, None))
    state = RunState.from_json(last.state["run"])
    faults = job_changes(last.state, job)
    if not state.ended:
        return [*faults, f"the last checkpoint, of step {last.step}, is not that of the end"]
    faults += metrics_faults(path, state, whole=True)
    expected, metrics = model_of(last, state, job)
    faults += _model_faults(path, done, job, expected)
    faults += result_faults(done, metrics)
    if done["steps"] != last.step:
        faults.append(f"{RESULT} says {done['steps']} steps, but {last.step} were trained")
    return faults


def model_of(last: Checkpoint, state: RunState, job: TrainingJob) -> tuple[Array, dict[str, Any]]:
    """The vector of an ended run's model, and its metrics, except those of the test set."""
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
    """Writes the model folder of a run. vector: (size,), its parameters; others: of further members."""
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
    """A text for each of `metrics` of which a result has another value. NaN and infinities are null in
    JSON."""
    said, faults = done["metrics"], []
    for name, value in metrics.items():
        number = value if value is not None and math.isfinite(value) else None
        if not (said.get(name) == number or (number is None and said.get(name) != said.get(name))):
            faults.append(f"{RESULT} says {name}: {said.get(name)}, but {number} was measured")
    return faults


def metrics_faults(path: Path, state: RunState, *, whole: bool = False) -> list[str]:
    """A fault if metrics.jsonl does not begin as it was when a checkpoint with this state was saved. `whole`:
    nothing may follow."""
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
        yield f"{RESULT} belongs to another job: its digest is {done['job_digest']}, not {job.digest}"
    try:
        model = load_model(path / "model")
    except ModelError as error:
        yield str(error)
        return
    digest = model.facts["params_sha256"]
    if model.facts.get("job_digest") != job.digest:
        yield f"model/ belongs to another job: its digest is {model.facts.get('job_digest')}"
    if expected is None:
        if done["params_sha256"] != digest:
            yield f"{RESULT} says params_sha256 {done['params_sha256']}, model/ has {digest}"
        return
    right = params_digest(expected[: model.network.parameter_count])
    for name, said in ((RESULT, done["params_sha256"]), ("model/", digest)):
        if said != right:
            yield f"{name} has params_sha256 {said}, but the run computed {right}"
    held = expected[: model.network.size]  # a model has no states, unlike the run's vector
    if digest == right and model.vector.tobytes() != held.astype(model.vector.dtype).tobytes():
        yield "model/ has other running statistics than the run came to"
