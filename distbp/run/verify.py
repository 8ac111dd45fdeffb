"""Recomputes steps of a run from a checkpoint, and compares the bits with those that the run recorded.

A run records digests at no cost to its steps: `params_sha256` in lines of metrics.jsonl (in all lines, except
for large networks on little data), and whole states in its checkpoints. Any step lies between two of these
records. Recomputing from the record before a step shows whether the run computed the step right. The number
of workers, crashes and resumes do not matter. Three other things are compared, too: the data, every row; the
model of a finished run, written again from the last checkpoint; its result, with the test set evaluated
again.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distbp.core.arguments import check_kind, path_given
from distbp.core.errors import CheckpointError
from distbp.core.sealed import unseal_json
from distbp.core.storage import read_file
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.evaluation import values
from distbp.job import TrainingJob
from distbp.job.members import networks
from distbp.model.archive import MODEL
from distbp.model.folder import load_model
from distbp.run import agreement, checkpoint
from distbp.run.blueprints import make_blueprint
from distbp.run.checkpoint import Checkpoint
from distbp.run.delivery import (
    delivery_faults,
    metrics_faults,
    model_of,
    result_faults,
    write_run_model,
)
from distbp.run.joining import joined_faults, joined_metrics, member_path
from distbp.run.replay import Comparison, Replay
from distbp.run.result import with_nan
from distbp.run.run_directory import METRICS, is_run, read_job, read_lines, read_result
from distbp.run.run_state import RunState
from distbp.run.splits import Splits, open_splits
from distbp.run.train import Data, by_split
from distbp.run.warm_start import going_on, kept_init
from distbp.team.inline import InlineTeam


@dataclass(frozen=True)
class Verification:
    """`step`: the verified step, counted from 1. `start`: how many steps were done in the state from which it
    was recomputed; `began_with` names that state. `shards`: the SHA-256 of each shard's gradient sums and
    totals in that step, to compare with another run or machine and find the shard that differs. `changed`: a
    text for each change in the job's data, in metrics.jsonl, and in the result and model. `seconds`: the time
    that it took."""

    run_dir: str
    step: int
    start: int
    began_with: str
    comparisons: tuple[Comparison, ...]
    shards: tuple[str, ...]
    seconds: float
    changed: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return not self.changed and all(c.equal for c in self.comparisons)

    def to_json(self) -> dict[str, Any]:
        compared = [{**asdict(c), "equal": c.equal} for c in self.comparisons]
        return {**asdict(self), "comparisons": compared, "equal": self.equal}


@numerics.quiet()
def verify_run(run_dir: str | Path, step: int | None = None, *, data: Data | None = None) -> Verification:
    """Recomputes `step` (counted from 1; None: the last recorded step) in this process; waits.

    Begins with the last checkpoint before the step, or with the initial weights, and ends with the first
    digest recorded at or after the step. Compares all digests on the way, and stops at the first difference.
    Of a job with several networks, verifies each, and the joined model. `data`: as for `train`, if the run
    was given arrays. Changes nothing in the run directory, which may be in use.

    Raises CheckpointError if nothing was recorded at or after the step, FingerprintError if this machine
    computes other bits than the run's.
    """
    began = time.monotonic()
    path = path_given(run_dir, "run_dir")
    check_kind(step, (int, type(None)), "step", "a whole number, counted from 1")
    if not is_run(path):
        raise CheckpointError(f"{path} is not a run directory; give the folder that 'distbp train' wrote to")
    job = read_job(path)
    if networks(job) > 1:
        return _of_members(path, job, step, data, began)
    splits = open_splits(job, path, by_split(data))
    blueprint = going_on(make_blueprint(job, splits), kept_init(path))
    lines = {line["step"]: line for line in read_lines(path / METRICS) if line.get("params_sha256")}
    kept = checkpoint.list_steps(path / "checkpoints")
    recorded = sorted({*lines, *(s for s in kept if s > 0)})
    last = _last_step(path, recorded, step)
    step = last if step is None else step
    start = max((s for s in kept if s < step), default=0)
    with numerics.one_blas_thread():
        begin = checkpoint.load(path / "checkpoints", start) if start else None
        _check_numerics(path, begin, blueprint)
        newest = checkpoint.load(path / "checkpoints", kept[-1]) if kept else None
        changed = [] if newest is None else agreement.data_changes(newest.state, splits.record())
        replay = Replay(blueprint, splits.ready(blueprint), begin, path)
        with closing(replay.team):
            comparisons: list[Comparison] = []
            shards: tuple[str, ...] = ()
            for reached in [s for s in recorded if start < s <= last]:
                if replay.step < step <= reached:
                    replay.run(step - 1)
                    shards = replay.shard_digests()
                replay.run(reached)
                folder = path / "checkpoints" if reached in kept else None
                comparisons.append(replay.compare(lines.get(reached), folder))
                if not comparisons[-1].equal:
                    break
                replay.observe(lines.get(reached))
            changed += _changed(path, newest, blueprint, splits, replay.team)
    name = f"the checkpoint of step {start}" if start else "the first weights"
    seconds = time.monotonic() - began
    return Verification(str(path), step, start, name, tuple(comparisons), shards, seconds, tuple(changed))


def _of_members(
    path: Path, job: TrainingJob, step: int | None, data: Data | None, began: float
) -> Verification:
    """Verifies every network that has recorded `step`, then the joined model."""
    verified: dict[int, Verification] = {}
    for number in range(networks(job)):
        folder = member_path(path, number)
        lines = read_lines(folder / METRICS) if is_run(folder) else []
        if lines and (step is None or lines[-1]["step"] >= step):
            verified[number] = verify_run(folder, step, data=data)
    if not verified:
        raise CheckpointError(f"{path}: no network has recorded anything at or after step {step or 1}")
    changed = [f"network {number}: {text}" for number, each in verified.items() for text in each.changed]
    done = read_result(path)
    if done is not None and not changed:
        changed = joined_faults(path, done, job)
        if not changed and job.members > 1:
            splits = open_splits(job, path, by_split(data))
            blueprint = make_blueprint(job, splits)
            members = [read_result(member_path(path, number)) or {} for number in range(job.members)]
            vectors = load_model(path / "model").vectors
            with numerics.one_blas_thread():
                metrics = [with_nan(member["metrics"]) for member in members]
                changed = result_faults(
                    done, joined_metrics(blueprint, splits.ready(blueprint), vectors, metrics)
                )
    compared = tuple(
        replace(comparison, where=f"network {number}: {comparison.where}")
        for number, each in verified.items()
        for comparison in each.comparisons
    )
    last = max(verified.values(), key=lambda each: each.step)
    return replace(
        last,
        run_dir=str(path),
        comparisons=compared,
        shards=(),
        seconds=time.monotonic() - began,
        changed=tuple(changed),
    )


def _changed(
    path: Path, newest: Checkpoint | None, blueprint: Blueprint, splits: Splits, team: InlineTeam
) -> list[str]:
    """A text for each change in metrics, result and model. `team` evaluates the test set; its parameters are
    then those of the model."""
    done, job = read_result(path), blueprint.job
    if newest is None or done is None or agreement.longer(newest.state, job):
        return [] if newest is None else metrics_faults(path, RunState.from_json(newest.state["run"]))
    faults = delivery_faults(path, done, job, newest)
    state = RunState.from_json(newest.state["run"])
    if faults or not state.ended:
        return faults
    vector, _ = model_of(newest, state, job)
    with tempfile.TemporaryDirectory(prefix="distbp-verify-") as folder:
        write_run_model(Path(folder) / "model", blueprint, splits, vector)
        left, right = (unseal_json(read_file(place / "model" / MODEL)) for place in (path, Path(folder)))
    faults += [
        f"model/{MODEL}: {name} is not what job and data give"
        for name in sorted({*left, *right} - {"distbp", "numerics"})
        if left.get(name) != right.get(name)
    ]
    if "test" in blueprint.rows:
        team.adopt(vector)
        measures = blueprint.measures(blueprint.network(), "test")
        measured = values(measures, team.evaluate("test"))
        faults += result_faults(done, {f"test_{name}": value for name, value in measured.items()})
    return faults


def _last_step(path: Path, recorded: list[int], step: int | None) -> int:
    """The first recorded step at or after `step`; the last one if `step` is None. Raises CheckpointError."""
    if step is not None and step < 1:
        raise CheckpointError(f"step is {step}, but the first step is 1")
    if not recorded:
        raise CheckpointError(
            f"{path} has recorded nothing to compare with yet: digests come with the first epoch or"
            " checkpoint"
        )
    found = [s for s in recorded if step is None or s >= step]
    if not found:
        raise CheckpointError(
            f"{path} has recorded nothing at or after step {step}: the last digest is that of step"
            f" {recorded[-1]}. Ask about that step or an earlier one"
        )
    return found[0] if step is not None else found[-1]


def _check_numerics(path: Path, begin: Checkpoint | None, blueprint: Blueprint) -> None:
    if begin is not None:
        changes = agreement.job_changes(begin.state, blueprint.job)
        if changes:
            raise CheckpointError(
                f"the checkpoint of step {begin.step} belongs to another job; put the old job.yaml back to"
                f" verify the run. Changed is {'; '.join(changes)}"
            )
        if of_shards := agreement.shard_changes(begin.state, blueprint):
            raise CheckpointError(
                f"the checkpoint of step {begin.step}: {of_shards[0]}. Verify it with that one"
            )
        theirs = begin.state["numerics"]
    else:
        theirs = (read_result(path) or {}).get("numerics")
    if theirs is not None:
        mine = numerics.fingerprint(blueprint.kernels)
        numerics.check_same(mine, theirs, "this run was made on a machine that")
