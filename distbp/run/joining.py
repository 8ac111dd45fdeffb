"""Joins the networks of a job: one model, one result and one metrics.jsonl, made from those of the
networks."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distbp.core.arrays import Array
from distbp.core.errors import ModelError
from distbp.data.batches import WholeData
from distbp.engine.blueprint import Blueprint
from distbp.job import TrainingJob
from distbp.job.members import has_folds, member_job, networks
from distbp.model.folder import load_model, params_digest
from distbp.model.joined import measured
from distbp.nn import kernels as kernel_sets
from distbp.nn.metrics import less_is_better
from distbp.run import accounts, checkpoint
from distbp.run.delivery import check_left, delivery_faults, write_run_model
from distbp.run.members_told import as_line
from distbp.run.result import Result
from distbp.run.run_directory import METRICS, RESULT, RunDirectory, is_run, read_lines, read_result
from distbp.run.run_state import watched
from distbp.run.splits import Splits

MEMBERS = "members"


def member_path(path: Path, number: int) -> Path:
    return path / MEMBERS / str(number)


def member_lines(path: Path, count: int, per_member: int) -> list[tuple[int, int, bytes]]:
    """(network, its step, line) for each line that the networks' files give for the run's metrics.jsonl."""
    return [
        (number, line["step"], as_line(line, number, per_member))
        for number in range(count)
        for line in read_lines(member_path(path, number) / METRICS)
    ]


def rewrite_metrics(run: RunDirectory, count: int, per_member: int) -> list[tuple[int, int]]:
    """Writes metrics.jsonl anew from those of the networks; returns (network, its step) of each line."""
    run.rewind_metrics(0)
    lines = member_lines(run.path, count, per_member)
    run.append_metric_text(b"".join(line for _, _, line in lines))
    return [(number, step) for number, step, _ in lines]


def kept(job: TrainingJob, rows: Mapping[str, int], metrics: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """The number of the best restart, and the metric that chose it. metrics: of each restart. NaN is worse
    than any value; of equals the first is the best."""
    metric = watched(job, set(rows)) or "train_loss"
    sign = 1.0 if less_is_better(metric) else -1.0

    def rank(number: int) -> float:
        value = float(metrics[number].get(metric, math.nan))
        return math.inf if math.isnan(value) else sign * value

    return min(range(len(metrics)), key=rank), metric


def joined_result(
    run: RunDirectory,
    blueprint: Blueprint,
    splits: Splits,
    data: WholeData,
    results: Sequence[Result],
    *,
    side: int,
    notes: Sequence[str],
    began: float,
    draws: bool,
) -> Result:
    """Writes the model and returns the result of the whole job. side: how many networks trained at the same
    time. began: by `time.monotonic`. draws: whether to draw curves.svg."""
    job, metrics = blueprint.job, [result.metrics for result in results]
    steps, notes = sum(result.steps for result in results), list(notes)
    notes += [text for result in results for text in result.notes]
    unhealthy = {
        name: f"network {number}: {text}"
        for number, result in reversed([*enumerate(results)])
        for name, text in result.unhealthy.items()
    }
    epoch = None
    if job.restarts > 1:
        best, metric = kept(job, blueprint.rows, metrics)
        values = ", ".join(f"{member.get(metric, math.nan):.4g}" for member in metrics)
        notes.append(f"network {best} is kept, the best by its {metric.replace('_', ' ')} (of {values})")
        vectors, final = [_vector(results[best])], dict(metrics[best])
        epoch = results[best].model_epoch
    else:
        vectors = [_vector(result) for result in results]
        final = joined_metrics(blueprint, data, vectors, metrics)
    write_run_model(run.model, blueprint, splits, vectors[0], vectors[1:], disk=run.disk)
    notes += accounts.draw_curves(run) if draws else []
    parameters = blueprint.network().parameter_count
    early = all(result.status == "stopped early" for result in results)
    return Result(
        status="stopped early" if early else "completed",
        job_digest=job.digest,
        steps=steps,
        epochs=steps / blueprint.steps_per_epoch,
        params_sha256=params_digest(*(vector[:parameters] for vector in vectors)),
        metrics=final,
        samples_per_second=side * sum(result.samples_per_second for result in results) / len(results),
        wall_seconds=time.monotonic() - began,
        workers=max(result.workers for result in results),
        shards=blueprint.shards,
        exchange=results[-1].exchange,
        numerics=results[0].numerics,
        attempt=max(result.attempt for result in results),
        notes=tuple(dict.fromkeys(notes)),
        skipped=splits.skipped,
        unhealthy=unhealthy,
        model_epoch=epoch,
        members=tuple(map(_said, results)),
        path=run.path,
    )


def joined_metrics(
    blueprint: Blueprint,
    data: WholeData,
    vectors: Sequence[Array],
    of_members: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The metrics of the mean of the networks' predictions. `train_loss` is the mean of the networks'. So are
    the metrics of the validation set if each network has a fold of its own, whose rows the others trained
    on."""
    apart = ("train", "validation") if has_folds(blueprint.job) else ("train",)
    names = [name for name in of_members[0] if name.partition("_")[0] in apart]
    joined = {name: sum(float(member[name]) for member in of_members) / len(of_members) for name in names}
    network, kernels = blueprint.network(), kernel_sets.load(blueprint.kernels)
    for split in blueprint.rows:
        if split not in apart:
            rows, count = data.splits[split], blueprint.rows[split]
            measures = blueprint.measures(network, split)
            values = measured(measures, network, vectors, kernels, rows, count, blueprint.shards)
            joined |= {f"{split}_{name}": value for name, value in values.items()}
    return joined


def _vector(result: Result) -> Array:
    return load_model(result.path / "model").vector


def _said(result: Result) -> dict[str, Any]:
    """A network's entry in `Result.members`."""
    return {
        "status": result.status,
        "steps": result.steps,
        "model_epoch": result.model_epoch,
        "params_sha256": result.params_sha256,
        "metrics": dict(result.metrics),
    }


def joined_delivered(path: Path, done: Mapping[str, Any], job: TrainingJob) -> Result:
    """The result of a finished run of several networks. Raises CheckpointError if a file is not what the run
    left."""
    check_left(path, joined_faults(path, done, job), "those of the networks")
    return Result.from_json(done, path)


def joined_faults(path: Path, done: Mapping[str, Any], job: TrainingJob) -> list[str]:
    """A text for each file of the run, or of one of its networks, that is not what the run left."""
    faults, models, results = [], [], []
    for number in range(networks(job)):
        folder = member_path(path, number)
        result = read_result(folder) if is_run(folder) else None
        if result is None:
            faults.append(f"{MEMBERS}/{number} has no {RESULT}")
            continue
        last = checkpoint.load_latest(folder / "checkpoints")
        of_member = delivery_faults(folder, result, member_job(job, number), last)
        faults += [f"{MEMBERS}/{number}: {fault}" for fault in of_member]
        results.append(result)
        if not of_member:
            models.append(load_model(folder / "model"))
    if faults:
        return faults
    if done["job_digest"] != job.digest:
        return [f"{RESULT} belongs to another job: its digest is {done['job_digest']}, not {job.digest}"]
    if job.restarts > 1:
        rows = {name.partition("_")[0]: 0 for name in results[0]["metrics"]}
        best, _ = kept(job, rows, [Result.from_json(result).metrics for result in results])
        models = [models[best]]
    right = params_digest(*(member.vector[: member.network.parameter_count] for member in models))
    try:
        model = load_model(path / "model")
    except ModelError as error:
        return [str(error)]
    for name, said in ((RESULT, done["params_sha256"]), ("model/", model.facts["params_sha256"])):
        if said != right:
            faults.append(f"{name} has params_sha256 {said}, but the networks give {right}")
    lines = [
        line for number in range(networks(job)) for line in read_lines(member_path(path, number) / METRICS)
    ]
    if [_measured(line) for line in read_lines(path / METRICS)] != [_measured(line) for line in lines]:
        faults.append(f"{METRICS} is not what those of the networks give")
    return faults


def _measured(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line without its place among the lines of all networks."""
    return {name: value for name, value in line.items() if name not in ("member", "step")}
