"""Recomputes steps of a run from a checkpoint, and compares the bits with those that the run recorded.

A run records digests at no cost to its steps: `params_sha256` in lines of metrics.jsonl (all of them, but for
large networks on little data), and whole states in its checkpoints. Any step lies between two of them;
recomputing from the one before it shows whether the run computed what it should. The number of workers,
crashes and resumes in between do not matter. What a finished run delivers is compared too: the model, written
again from the last checkpoint; the result, and the test set measured again; the data, every row.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distbp.core.arguments import check_kind, path_given
from distbp.core.arrays import Array
from distbp.core.errors import CheckpointError
from distbp.core.reduction import Block
from distbp.core.sealed import unseal_json
from distbp.core.storage import read_file
from distbp.data.batches import Holdings
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.evaluation import values
from distbp.model.folder import MODEL, params_digest
from distbp.nn.network import aligned_vector
from distbp.run import agreement, checkpoint
from distbp.run.checkpoint import Checkpoint
from distbp.run.delivery import (
    BEST,
    delivery_faults,
    metrics_faults,
    model_of,
    result_faults,
    write_run_model,
)
from distbp.run.run_directory import METRICS, is_run, read_job, read_lines, read_result
from distbp.run.run_state import RunState, after_evaluation, gone_on, watched
from distbp.run.splits import Splits, open_splits
from distbp.run.train import Data, by_split, make_blueprint
from distbp.run.warm_start import first_weights
from distbp.team.base import Snapshot
from distbp.team.inline import InlineTeam


@dataclass(frozen=True)
class Comparison:
    """After `step` steps: `recorded` and `computed` SHA-256 of the parameters. `differing`: the arrays of the
    checkpoint of that step that hold other bits. `where`: what recorded it."""

    step: int
    where: str
    recorded: str
    computed: str
    differing: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return self.recorded == self.computed and not self.differing


@dataclass(frozen=True)
class Verification:
    """`step`: the one asked about (the first is 1). `start`: steps done in the state that recomputing began
    with. `changed`: what of the job's data, of metrics.jsonl and of what the run delivered is not what it
    was, in words. `shards`: for each shard the SHA-256 of its gradient sums and totals in that step: what
    another run or machine can be compared with, to find which shard differs."""

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
    """Recomputes `step` (None: the last recorded one) in this process; waits.

    Begins with the last checkpoint before the step (else with the first weights) and ends with the first
    digest recorded at or after it; digests on the way are compared too. At the first difference it stops.
    `data`: as for `train`, where the run was given arrays. Changes nothing in the run directory, which may be
    in use.

    Raises CheckpointError where nothing was recorded at or after the step, FingerprintError where this
    machine computes other bits than the run's.
    """
    began = time.monotonic()
    path = path_given(run_dir, "run_dir")
    check_kind(step, (int, type(None)), "step", "a whole number, counted from 1")
    if not is_run(path):
        raise CheckpointError(f"{path} is not a run directory; give the folder that 'distbp train' wrote to")
    job = read_job(path)
    splits = open_splits(job, path, by_split(data))
    blueprint = make_blueprint(job, splits)
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
        replay = _Replay(blueprint, splits.ready(blueprint), begin, path)
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


def _changed(
    path: Path, newest: Checkpoint | None, blueprint: Blueprint, splits: Splits, team: InlineTeam
) -> list[str]:
    """What of metrics, result and model is not what the run left; `team` is of no use afterwards."""
    done, job = read_result(path), blueprint.job
    if newest is None or done is None or agreement.longer(newest.state, job):
        return [] if newest is None else metrics_faults(path, RunState.from_json(newest.state["run"]))
    found = delivery_faults(path, done, job, newest)
    state = RunState.from_json(newest.state["run"])
    if found or not state.ended:
        return found
    vector, _ = model_of(newest, state, job)
    with tempfile.TemporaryDirectory(prefix="distbp-verify-") as folder:
        write_run_model(Path(folder) / "model", blueprint, splits, vector)
        left, right = (unseal_json(read_file(place / "model" / MODEL)) for place in (path, Path(folder)))
    found += [
        f"model/{MODEL}: {name} is not what job and data give"
        for name in sorted({*left, *right} - {"distbp", "numerics"})
        if left.get(name) != right.get(name)
    ]
    if "test" in blueprint.rows:
        team.adopt(vector)
        metrics = blueprint.measures(blueprint.network(), "test").metrics
        measured = values(metrics, team.evaluate("test"))
        found += result_faults(done, {f"test_{name}": value for name, value in measured.items()})
    return found


class _Replay:
    """The run once more, inline, from a checkpoint (None: from the beginning)."""

    def __init__(self, blueprint: Blueprint, data: Holdings, begin: Checkpoint | None, path: Path) -> None:
        self._blueprint = blueprint
        self._count = blueprint.network().parameter_count
        self._watched = watched(blueprint.job, set(blueprint.rows))
        if begin is None:
            self._state = RunState()
            start = Snapshot(0, {"vector": first_weights(blueprint.network(), blueprint.job.seed, path)})
        else:
            self._state, _ = gone_on(RunState.from_json(begin.state["run"]))
            start = Snapshot(begin.step, {k: array.copy() for k, array in begin.arrays.items() if k != BEST})
        self.step = start.step
        self.team = InlineTeam(blueprint, data, start)

    def run(self, stop: int) -> None:
        if stop > self.step:
            self.team.run(self.step, stop, self._state.plateau, lambda: False)
            self.step = stop

    def shard_digests(self) -> tuple[str, ...]:
        """Of each shard's sums at the next step."""
        worker = self.team.worker
        self.team.server.probe()
        gradient = aligned_vector(self._blueprint.pushed, worker.vector.dtype)
        totals = np.zeros(worker.totals_size)
        found = []
        for shard in range(self._blueprint.shards):
            worker.compute(self.step, Block(shard, shard + 1), gradient, totals)
            found.append(hashlib.sha256(_bytes(gradient) + _bytes(totals)).hexdigest())
        return tuple(found)

    def compare(self, line: Mapping[str, Any] | None, folder: Path | None) -> Comparison:
        """With a line of metrics.jsonl, and with the checkpoint of this step in `folder`."""
        arrays = self.team.snapshot().arrays
        computed = params_digest(arrays["vector"][: self._count])
        if folder is None:
            assert line is not None
            return Comparison(self.step, METRICS, line["params_sha256"], computed)
        saved = {k: v for k, v in checkpoint.load(folder, self.step).arrays.items() if k != BEST}
        differing = tuple(
            name
            for name in sorted({*saved, *arrays})
            if name not in saved or name not in arrays or _bytes(saved[name]) != _bytes(arrays[name])
        )
        recorded = params_digest(saved["vector"][: self._count])
        where = f"the checkpoint of step {self.step}"
        if line is not None:
            where += f" and {METRICS}"
            if recorded == computed:
                recorded = line["params_sha256"]
        return Comparison(self.step, where, recorded, computed, differing)

    def observe(self, line: Mapping[str, Any] | None) -> None:
        """Schedules that follow a metric take it as it was recorded."""
        if line is None or line["epoch"] <= self._epochs_seen():
            return
        job, epoch = self._blueprint.job, line["epoch"]
        if epoch % job.evaluate_every == 0 or line["step"] == self._blueprint.total_steps:
            numbers = {k: math.nan if v is None else v for k, v in line.items()}
            self._state, _ = after_evaluation(self._state, job, self._watched, numbers, epoch, line["step"])

    def _epochs_seen(self) -> int:
        return int(self._state.last_metrics.get("epoch", 0))


def _last_step(path: Path, recorded: list[int], step: int | None) -> int:
    """The first recorded step at or after `step`; None: the last one."""
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
        theirs = begin.state["numerics"]
    else:
        theirs = (read_result(path) or {}).get("numerics")
    if theirs is not None:
        mine = numerics.fingerprint(blueprint.kernels)
        numerics.check_same(mine, theirs, "this run was made on a machine that")


def _bytes(array: Array) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
