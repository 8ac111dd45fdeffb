"""What the trainer reports of a run: the start event, the health of an epoch, notes, the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from distbp.core.arrays import Array
from distbp.core.imports import missing
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.totals import LOSS, WEIGHT, dead_share
from distbp.model.folder import params_digest
from distbp.run.delivery import write_run_model
from distbp.run.events import Started
from distbp.run.result import Result
from distbp.run.run_directory import METRICS, RunDirectory, json_line, read_lines
from distbp.run.run_state import RunState
from distbp.run.splits import Splits, skipped_note
from distbp.run.verdict import EpochLosses
from distbp.team.base import Snapshot, Team

# Hashing takes some 10 ns a parameter, and training some 0.06 ns for each parameter and row. Once in so many
# rows, hashing takes 0.3 % of the time.
ROWS_WORTH_A_DIGEST = 65536
SMALL_BYTES = 1 << 20  # parameters of at most this size are hashed at every epoch


def digest_every(parameter_bytes: int, rows: int) -> int:
    """The number of epochs from one digest of the parameters in metrics.jsonl to the next. The last epoch
    always has one."""
    return 1 if parameter_bytes <= SMALL_BYTES else max(1, -(-ROWS_WORTH_A_DIGEST // rows))


def training_values(snapshot: Snapshot) -> dict[str, Any]:
    totals = snapshot.arrays["epoch_totals"]
    return {"train_loss": float(totals[LOSS] / totals[WEIGHT]) if totals[WEIGHT] else math.nan}


def observed(state: RunState, snapshot: Snapshot, saturating: Mapping[int, int] | None) -> RunState:
    """The state with the epoch's loss and dead units, from which the verdict on the run is made. saturating:
    see `saturating_layers`; None if the epoch is not whole."""
    losses = EpochLosses.after(state.losses, training_values(snapshot)["train_loss"])
    if saturating is None:
        return replace(state, losses=losses)
    return replace(state, losses=losses, dead=dead_share(saturating, snapshot.arrays["epoch_totals"]))


def health(state: RunState, snapshot: Snapshot, unhealthy: Mapping[str, str]) -> dict[str, Any]:
    """The field "health" of a line in metrics.jsonl: norms of each tensor at the last step of a whole epoch,
    the share of saturated units of each layer, and the verdict on the run."""
    tensors = {
        h.path: {"gradient_norm": h.gradient_norm, "update_ratio": h.update_ratio} for h in snapshot.health
    }
    return {"health": {"tensors": tensors, "saturated": state.dead, "unhealthy": unhealthy}}


def aside(state: RunState, line: Mapping[str, Any] | None, seal: tuple[int, str]) -> dict[str, Any]:
    """For `gone_on`: the state that a longer run would have now, and the line that it would add to
    metrics.jsonl (None: none). seal: length and digest of metrics.jsonl before that line."""
    state = replace(state, metrics_offset=seal[0], metrics_sha256=seal[1])
    return {"state": state.to_json(), "line": json_line(line).decode() if line is not None else ""}


def differ(line: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records are different lines of metrics.jsonl."""
    return json_line(line) != json_line(other)


def notes_beforehand(blueprint: Blueprint, splits: Splits) -> list[str]:
    """Notes of a run before its first step: rows that were left out, and why nothing is compiled."""
    notes = [skipped_note(name, blueprint.rows[name], why) for name, why in splits.skipped.items()]
    if why := numerics.why_not_compiled(blueprint.kernels):
        notes.append(f"kernels are those of NumPy, which are slower: {why}")
    return notes


def save_model(run: RunDirectory, blueprint: Blueprint, splits: Splits, vector: Array) -> None:
    write_run_model(run.model, blueprint, splits, vector, disk=run.disk)


def draw_curves(run: RunDirectory) -> list[str]:
    """Draws curves.svg. Returns a note if matplotlib is missing."""
    lines = read_lines(run.path / METRICS)
    if not lines:
        return []
    try:
        from distbp.run.curves import draw
    except ModuleNotFoundError:  # installed without the extra `plot`
        return [missing("curves.svg", "matplotlib", "distbp[plot]")]
    draw(lines, run.path / "curves.svg")
    return []


def started(
    run: RunDirectory,
    blueprint: Blueprint,
    team: Team,
    splits: Splits,
    *,
    first_step: int,
    attempt: int,
    notes: Sequence[str],
    watched: str | None,
) -> Started:
    return Started(
        name=blueprint.job.name,
        run_dir=str(run.path),
        job_digest=blueprint.job.digest,
        parameters=blueprint.network().parameter_count,
        rows=dict(blueprint.rows),
        shards=blueprint.shards,
        workers=team.workers,
        exchange=team.exchange,
        epochs=-(-blueprint.total_steps // blueprint.steps_per_epoch),
        steps_per_epoch=blueprint.steps_per_epoch,
        total_steps=blueprint.total_steps,
        first_step=first_step,
        attempt=attempt,
        kernels=blueprint.kernels,
        notes=tuple(notes),
        skipped=splits.skipped,
        watched=watched,
    )


def result(
    run: RunDirectory,
    blueprint: Blueprint,
    team: Team,
    splits: Splits,
    state: RunState,
    *,
    vector: Array,
    metrics: Mapping[str, Any],
    samples_per_second: float,
    wall_seconds: float,
    notes: Sequence[str],
    unhealthy: Mapping[str, str],
    restored: bool,
) -> Result:
    per_epoch = blueprint.steps_per_epoch
    steps = state.last_metrics.get("step", blueprint.total_steps)
    return Result(
        status="stopped early" if state.ended == "early_stopping" else "completed",
        job_digest=blueprint.job.digest,
        steps=steps,
        epochs=steps / per_epoch,
        params_sha256=params_digest(vector[: blueprint.network().parameter_count]),
        metrics=dict(metrics),
        samples_per_second=samples_per_second,
        wall_seconds=wall_seconds,
        workers=team.workers,
        shards=blueprint.shards,
        exchange=team.exchange,
        numerics=numerics.fingerprint(blueprint.kernels),
        attempt=state.attempt,
        notes=tuple(notes),
        skipped=splits.skipped,
        unhealthy=unhealthy,
        model_epoch=state.best_epoch if restored else -(-steps // per_epoch),
        path=run.path,
    )
