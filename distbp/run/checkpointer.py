"""The checkpointer of a run writes checkpoints when they are due, and restores a run from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from distbp.core.arrays import Array
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.run import agreement, checkpoint
from distbp.run.checkpoint import Checkpoint
from distbp.run.delivery import BEST
from distbp.run.run_directory import RunDirectory
from distbp.run.run_state import RunState
from distbp.run.splits import Splits
from distbp.run.warm_start import first_arrays, kept_init, past_after
from distbp.team.base import Snapshot


class Restored(NamedTuple):
    snapshot: Snapshot  # the arrays to begin with
    state: RunState
    best: Array | None  # the vector of the best evaluation, if the checkpoint has it
    notes: list[str]  # for the user


class Checkpointer:
    """Checkpoints of one run. clock: returns seconds."""

    def __init__(
        self, run: RunDirectory, blueprint: Blueprint, splits: Splits, clock: Callable[[], float]
    ) -> None:
        self._run = run
        self._blueprint = blueprint
        self._splits = splits
        self._clock = clock
        self._saved_at = 0.0
        self._data: dict[str, Any] | None = None

    def due(self, step: int) -> bool:
        """Whether the job wants a checkpoint before `step`."""
        wanted = self._blueprint.job.checkpoint
        if wanted.every_steps and step % wanted.every_steps == 0:
            return True
        return wanted.every_seconds is not None and self._clock() - self._saved_at >= wanted.every_seconds

    def save(
        self, step: int, snapshot: Snapshot, state: RunState, best: Array | None
    ) -> tuple[RunState, Path]:
        """Writes a checkpoint and removes old ones. Returns the state that it holds, and its folder. Raises
        StorageError."""
        job, disk = self._blueprint.job, self._run.disk
        offset, sha256 = self._run.metrics_seal()
        state = replace(state, metrics_offset=offset, metrics_sha256=sha256)
        arrays = dict(snapshot.arrays)
        if best is not None and state.best_step != step:
            arrays[BEST] = best
        fingerprint = numerics.fingerprint(self._blueprint.kernels)
        record = {
            "run": state.to_json(),
            "past": past_after(self._blueprint, step),
            **agreement.record(self._blueprint, self._recorded(), fingerprint),
        }
        path = checkpoint.save(self._run.checkpoints, step, arrays, record, disk=disk)
        checkpoint.prune(self._run.checkpoints, keep_last=job.checkpoint.keep_last, disk=disk)
        self._saved_at = self._clock()
        return state, path

    def restore(self, start: Checkpoint | None) -> Restored:
        """Restores the run from a checkpoint (None: from the beginning) and cuts metrics.jsonl back to it.
        Raises CheckpointError if job, data or metrics.jsonl have changed since, FingerprintError if this
        machine computes other bits, DataError."""
        self._saved_at = self._clock()
        run, job = self._run, self._blueprint.job
        if start is None:
            rows = self._blueprint.rows["train"]
            arrays = first_arrays(
                self._blueprint, kept_init(run.path), lambda: (self._splits.prepare(job)["train"], rows)
            )
            run.rewind_metrics(0)
            self._recorded()  # digests of the rows as they are before training
            return Restored(Snapshot(0, arrays), RunState(), None, [])
        agreement.check(start, self._blueprint, self._recorded(start.state["data"]))
        mine = numerics.fingerprint(self._blueprint.kernels)
        numerics.check_same(mine, start.state["numerics"], "this run was begun on a machine that")
        former = RunState.from_json(start.state["run"])
        state, text, notes = agreement.continued(start, self._blueprint)
        # A longer run may have been killed after it began: metrics.jsonl may have its lines already.
        if not (text and run.has_metrics(state.metrics_offset, state.metrics_sha256, text)):
            run.check_metrics(former.metrics_offset, former.metrics_sha256)
        arrays = dict(start.arrays)
        best = arrays.pop(BEST, arrays["vector"] if state.best_step == start.step else None)
        run.rewind_metrics(state.metrics_offset, state.metrics_sha256)
        run.append_metric_text(text)
        state = replace(state, attempt=former.attempt + 1)
        return Restored(Snapshot(start.step, arrays), state, best, notes)

    def _recorded(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """See `Splits.record`; computed once in this process."""
        if self._data is None:
            self._data = self._splits.record(known)
        return self._data
