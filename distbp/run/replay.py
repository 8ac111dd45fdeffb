"""Repeats a run from a checkpoint, and compares the bits with those that the run recorded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.core.reduction import Block
from distbp.data.batches import Holdings
from distbp.engine.blueprint import Blueprint
from distbp.model.folder import params_digest
from distbp.run import checkpoint
from distbp.run.checkpoint import Checkpoint
from distbp.run.delivery import BEST
from distbp.run.run_directory import METRICS
from distbp.run.run_state import RunState, after_evaluation, gone_on, watched
from distbp.run.warm_start import first_arrays, kept_init
from distbp.team.base import Snapshot
from distbp.team.inline import InlineTeam


@dataclass(frozen=True)
class Comparison:
    """A comparison after `step` steps. `recorded`, `computed`: SHA-256 of the parameters. `differing`: the
    names of the arrays that differ from the checkpoint of that step. `where`: the file that recorded the
    digest."""

    step: int
    where: str
    recorded: str
    computed: str
    differing: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return self.recorded == self.computed and not self.differing


class Replay:
    """Repeats the run in `path`, inline, from the checkpoint `begin` (None: from the beginning)."""

    def __init__(self, blueprint: Blueprint, data: Holdings, begin: Checkpoint | None, path: Path) -> None:
        self._blueprint = blueprint
        self._count = blueprint.network().parameter_count
        self._watched = watched(blueprint.job, set(blueprint.rows))
        if begin is None:
            self._state = RunState()
            rows = blueprint.rows["train"]
            arrays = first_arrays(blueprint, kept_init(path), lambda: (data.train(0)[0], rows))
            start = Snapshot(0, arrays)
        else:
            self._state, _ = gone_on(RunState.from_json(begin.state["run"]))
            start = Snapshot(begin.step, {k: array.copy() for k, array in begin.arrays.items() if k != BEST})
        self.step = start.step
        self.team = InlineTeam(blueprint, data, start)

    def run(self, stop: int) -> None:
        """Trains up to `stop` steps; waits."""
        if stop > self.step:
            self.team.run(self.step, stop, self._state.plateau, lambda: False)
            self.step = stop

    def shard_digests(self) -> tuple[str, ...]:
        """The SHA-256 of each shard's sums at the next step."""
        worker = self.team.worker
        self.team.server.probe()
        gradient = aligned_vector(self._blueprint.pushed, worker.vector.dtype)
        totals = np.zeros(worker.totals_size)
        digests = []
        for shard in range(self._blueprint.shards):
            worker.compute(self.step, Block(shard, shard + 1), gradient, totals)
            digests.append(hashlib.sha256(_bytes(gradient) + _bytes(totals)).hexdigest())
        return tuple(digests)

    def compare(self, line: Mapping[str, Any] | None, folder: Path | None) -> Comparison:
        """Compares the parameters with a line of metrics.jsonl, and all arrays with the checkpoint of this
        step in `folder`. At least one of both must be given."""
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
        """Gives schedules that follow a metric its recorded value, from a line of metrics.jsonl."""
        if line is None or line["epoch"] <= self._state.last_metrics.get("epoch", 0):
            return
        job, epoch = self._blueprint.job, line["epoch"]
        if epoch % job.evaluate_every == 0 or line["step"] == self._blueprint.total_steps:
            numbers = {k: math.nan if v is None else v for k, v in line.items()}
            self._state, _ = after_evaluation(self._state, job, self._watched, numbers, epoch, line["step"])


def _bytes(array: Array) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
