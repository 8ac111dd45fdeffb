"""What a job with several networks delivers: one model, one result, one metrics.jsonl, made of theirs."""

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
from distbp.job.members import member_job, networks
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
    """(network, its step, line) of the metrics.jsonl that the run in `path` has by those of its networks."""
    return [
        (number, line["step"], as_line(line, number, per_member))
        for number in range(count)
        for line in read_lines(member_path(path, number) / METRICS)
    ]


def rewrite_metrics(run: RunDirectory, count: int, per_member: int) -> list[tuple[int, int]]:
    """Makes metrics.jsonl what it is by those of the networks; returns (network, its step) of the lines."""
    run.rewind_metrics(0)
    lines = member_lines(run.path, count, per_member)
    run.append_metric_text(b"".join(line for _, _, line in lines))
    return [(number, step) for number, step, _ in lines]


def kept(job: TrainingJob, rows: Mapping[str, int], metrics: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """Which of several restarts is the best, by what was measured of each, and the metric that says so. What
    is not defined is worse than any; of equals it is the first."""
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
    """Writes the model; says how it all ended. side: networks that trained at a time. draws: curves.svg,
    too."""
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
        values = ", ".join(f"{found.get(metric, math.nan):.4g}" for found in metrics)
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
    """Of the mean of the networks' predictions; `train_loss` is the mean of theirs."""
    found = {"train_loss": sum(float(one["train_loss"]) for one in of_members) / len(of_members)}
    network, kernels = blueprint.network(), kernel_sets.load(blueprint.kernels)
    for split in blueprint.rows:
        if split != "train":
            rows, count = data.splits[split], blueprint.rows[split]
            measures = blueprint.measures(network, split)
            values = measured(measures, network, vectors, kernels, rows, count, blueprint.shards)
            found |= {f"{split}_{name}": value for name, value in values.items()}
    return found


def _vector(result: Result) -> Array:
    return load_model(result.path / "model").vector


def _said(result: Result) -> dict[str, Any]:
    return {
        "status": result.status,
        "steps": result.steps,
        "model_epoch": result.model_epoch,
        "params_sha256": result.params_sha256,
        "metrics": dict(result.metrics),
    }


def joined_delivered(path: Path, done: Mapping[str, Any], job: TrainingJob) -> Result:
    """The result of a finished run of several networks. Raises CheckpointError where something is not what
    the run left."""
    check_left(path, joined_faults(path, done, job), "those of the networks")
    return Result.from_json(done, path)


def joined_faults(path: Path, done: Mapping[str, Any], job: TrainingJob) -> list[str]:
    """What of the run and of its networks is not what they left, in words."""
    found, vectors, results = [], [], []
    for number in range(networks(job)):
        folder = member_path(path, number)
        result = read_result(folder) if is_run(folder) else None
        if result is None:
            found.append(f"{MEMBERS}/{number} has no {RESULT}")
            continue
        last = checkpoint.load_latest(folder / "checkpoints")
        of_it = delivery_faults(folder, result, member_job(job, number), last)
        found += [f"{MEMBERS}/{number}: {fault}" for fault in of_it]
        results.append(result)
        if not of_it:
            vectors.append(load_model(folder / "model"))
    if found:
        return found
    if done["job_digest"] != job.digest:
        return [f"{RESULT} is that of another job: it says the digest {done['job_digest']}, not {job.digest}"]
    if job.restarts > 1:
        rows = {name.partition("_")[0]: 0 for name in results[0]["metrics"]}
        best, _ = kept(job, rows, [Result.from_json(one).metrics for one in results])
        vectors = [vectors[best]]
    right = params_digest(*(one.vector[: one.network.parameter_count] for one in vectors))
    try:
        model = load_model(path / "model")
    except ModelError as error:
        return [str(error)]
    for name, said in ((RESULT, done["params_sha256"]), ("model/", model.facts["params_sha256"])):
        if said != right:
            found.append(f"{name} has params_sha256 {said}, where the networks came to {right}")
    lines = [
        line for number in range(networks(job)) for line in read_lines(member_path(path, number) / METRICS)
    ]
    if [_measured(line) for line in read_lines(path / METRICS)] != [_measured(line) for line in lines]:
        found.append(f"{METRICS} is not what those of the networks give")
    return found


def _measured(line: Mapping[str, Any]) -> dict[str, Any]:
    """Without its place among those of the networks."""
    return {name: value for name, value in line.items() if name not in ("member", "step")}
