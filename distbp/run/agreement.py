"""Whether a run may go on from a checkpoint: its job and its data must be those of the checkpoint.

A checkpoint records them (`record`). An error names everything that was added, removed or changed since. Only
the length of the training may differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from distbp.core.errors import CheckpointError
from distbp.core.metric_names import SPLITS
from distbp.data.digest import PARTS
from distbp.engine.blueprint import Blueprint
from distbp.job import TrainingJob
from distbp.job.digest import canonical
from distbp.job.shards import automatic_shards
from distbp.nn.layers.dropout import Dropout
from distbp.optim.schedules import PlateauState
from distbp.run.checkpoint import Checkpoint
from distbp.run.run_state import RunState, gone_on, out_of_patience

_LENGTHS = ("epochs", "max_steps")
_MOST_NAMED = 8
_MOST_RATES = 1000  # steps, evenly spread, whose rates are compared


def record(blueprint: Blueprint, data: Mapping[str, Any], numerics: Mapping[str, str]) -> dict[str, Any]:
    """Job, shards, data and numerics, for the state of a checkpoint. `data`: of `Splits.record`."""
    fields = json.loads(canonical(blueprint.job.to_mapping()))
    of_job = {"job": fields, "job_digest": blueprint.job.digest, "shards": blueprint.shards}
    return {**of_job, "data": dict(data), "numerics": dict(numerics)}


def check(start: Checkpoint, blueprint: Blueprint, data: Mapping[str, Any]) -> None:
    """Raises CheckpointError if job or data are not those of the checkpoint. The job's length may differ."""
    changes = [
        *job_changes(start.state, blueprint.job),
        *shard_changes(start.state, blueprint),
        *data_changes(start.state, data),
    ]
    if changes:
        named = changes[:_MOST_NAMED]
        if len(changes) > _MOST_NAMED:
            named.append(f"{len(changes) - _MOST_NAMED} more changes")
        raise CheckpointError(
            f"the checkpoint of step {start.step} was written for another job or other data:\n"
            + "".join(f"  {change}\n" for change in named)
            + "Put them back as they were, or train in a fresh directory"
        )


def job_changes(state: Mapping[str, Any], job: TrainingJob) -> list[str]:
    """A text for each field of the job that has changed, except its length."""
    then, now = dict(_leaves(state["job"])), dict(_leaves(json.loads(canonical(job.to_mapping()))))
    return [
        f"the job: {name} was {_said(then, name)}, and is {_said(now, name)} in job.yaml"
        for name in sorted({*then, *now})
        if name not in _LENGTHS and then.get(name) != now.get(name)
    ]


def shard_changes(state: Mapping[str, Any], blueprint: Blueprint) -> list[str]:
    """A text if another version of distbp resolved `shards: auto` to another number."""
    then, now = state.get("shards"), blueprint.shards
    if then is None:  # from an older version, which gave every slice the same number of rows
        then = automatic_shards(blueprint.batch_size, blueprint.flops)
    if blueprint.job.shards != "auto" or then == now:
        return []
    return [f"shards: auto is {now} with this version of distbp, and was {then} with the one that wrote it"]


def data_changes(state: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """A text for each part of each split that has changed."""
    changes = []
    for split in SPLITS:
        then, now = state["data"].get(split), data.get(split)
        if then is None or now is None:
            if then != now:
                changes.append(f"the {split} data {'was added' if then is None else 'is gone'}")
            continue
        for part in PARTS:
            if then[part] != now[part]:
                how = "were added" if then[part] is None else "are gone" if now[part] is None else ""
                changes.append(f"the {part} of the {split} data {how or 'are not what they were'}")
    return changes


def longer(state: Mapping[str, Any], job: TrainingJob) -> bool:
    """Whether the job's length differs from the length in a checkpoint's state."""
    return any(state["job"].get(name) != getattr(job, name) for name in _LENGTHS)


def continued(start: Checkpoint, blueprint: Blueprint) -> tuple[RunState, bytes, list[str]]:
    """Returns the state to go on with from a checkpoint, the lines to add to metrics.jsonl, and notes.

    Raises CheckpointError if the job's length has changed and is not above the steps done, or if the run
    ended for a reason that a longer job would share.
    """
    job, state = blueprint.job, RunState.from_json(start.state["run"])
    if not longer(start.state, job):
        return state, b"", []
    if blueprint.total_steps < start.step or (blueprint.total_steps == start.step and not state.ended):
        per_epoch = blueprint.steps_per_epoch
        raise CheckpointError(
            f"job.yaml says {blueprint.total_steps / per_epoch:g} epochs ({_lengths(job)}), but"
            f" {start.step / per_epoch:g} are done. Give more, or train in a fresh directory"
        )
    if blueprint.total_steps == start.step:
        return state, b"", []
    if state.ended:
        ended = state.ended
        if ended == "converged":
            raise CheckpointError(
                f"the run converged at step {start.step}, and would have with any number of epochs. For a"
                " smaller gradient lower optimizer.tolerance, and train in a fresh directory"
            )
        state, text = gone_on(state)
        if ended == "early_stopping" or out_of_patience(state, job):
            raise CheckpointError(
                f"the run stopped early at step {start.step}, as early_stopping says, and would have with any"
                " number of epochs. To train its model further, start a job with init: RUN_DIR"
            )
    else:
        text = ""
    return state, text.encode(), list(_about_rates(start, blueprint))


def _about_rates(start: Checkpoint, blueprint: Blueprint) -> Iterator[str]:
    """Yields a note for each schedule whose values at the steps done depend on the job's length."""
    then = {name: start.state["job"].get(name) for name in _LENGTHS}
    old = replace(blueprint, job=blueprint.job.replace(**then))
    steps = set(np.linspace(0, start.step - 1, _MOST_RATES).astype(int).tolist())
    former, rate, nothing = old.learning_rate(), blueprint.learning_rate(), PlateauState()
    changed = []
    if any(former(step, nothing) != rate(step, nothing) for step in steps):
        changed.append(f"the schedule {blueprint.job.optimizer.schedule.type!r}")
    before, decay = old.decay(), blueprint.decay()
    if any(before(step) != decay(step) for step in steps):
        changed.append("the schedule of the weight decay")
    dropouts: list[Any] = [layer for layer in blueprint.job.model.layers if isinstance(layer, Dropout)]
    of_old, of_new = (
        [layer.rate_at(step, length) for layer in dropouts for step in steps]
        for length in (old.total_steps, blueprint.total_steps)
    )
    if of_old != of_new:
        changed.append("the schedule of dropout")
    for what in changed:
        yield (
            f"{what} depends on the length of training: the first {start.step:,} steps had the rates of"
            f" {_lengths_of(then)}, so this is not what {_lengths(blueprint.job)} at once would have given"
        )


def _lengths(job: TrainingJob) -> str:
    return _lengths_of({name: getattr(job, name) for name in _LENGTHS})


def _lengths_of(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items() if value is not None)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _said(fields: Mapping[str, Any], name: str) -> str:
    return json.dumps(fields[name]) if name in fields else "absent"
