"""Several networks of one job, which differ by their seeds alone: `members` and `restarts`.

Each has a run directory of its own, below `members/` in that of the job, and is trained by the trainer of
every job; so it can be killed, resumed and verified as every run. Where the job needs no workers, as many as
there are processors train side by side, a thread for each; else one after the other, on all workers. Nothing
of this changes a bit. What the job's own directory holds follows from those of its members: metrics.jsonl
has their lines one after the other, the model their weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from distbp.core import settings
from distbp.core.errors import Interrupted
from distbp.core.interrupts import Control
from distbp.data.batches import WholeData
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.job import TrainingJob
from distbp.job.members import member_job, networks
from distbp.run import agreement, checkpoint, events
from distbp.run.control import Requests
from distbp.run.delivery import delivered
from distbp.run.drive import drive
from distbp.run.joining import joined_result, member_path, rewrite_metrics
from distbp.run.members_told import MembersTold
from distbp.run.result import Result
from distbp.run.run_directory import RunDirectory, is_run, job_text, read_result
from distbp.run.run_log import log_events
from distbp.run.splits import Splits
from distbp.run.trainer import MakeTeam
from distbp.run.warm_start import keep_init
from distbp.team.base import Snapshot, Team
from distbp.team.inline import InlineTeam


@dataclass
class _Training:
    """What all members share."""

    run: RunDirectory
    job: TrainingJob  # of all, with its data's folder absolute
    blueprint: Blueprint
    splits: Splits
    data: WholeData
    teams: MakeTeam
    control: Control
    told: MembersTold
    requests: Requests
    init: Path | None
    results: dict[int, Result] = field(default_factory=dict)

    def blueprint_of(self, number: int) -> Blueprint:
        return replace(self.blueprint, job=member_job(self.blueprint.job, number))


def train_members(
    run: RunDirectory,
    job: TrainingJob,
    blueprint: Blueprint,
    splits: Splits,
    teams: MakeTeam,
    listener: events.Listener | None,
    control: Control,
    *,
    workers: Any,
    init: Path | None = None,
    job_text: str | None = None,
    notes: Sequence[str] = (),
) -> Result:
    """Trains, or goes on with, all networks of a job, and makes one model of them; waits.

    job: as job.yaml has it, with its data's folder absolute. workers: that were asked for. `init`: the model
    that each begins with. job_text: of a longer job, for job.yaml. Raises as the trainer does.
    """
    began, count = time.monotonic(), networks(job)
    side = min(count, settings.processors()) if workers in (0, "auto") else 1
    log = log_events(run, listener)
    ways = f"{side} at a time" if side > 1 else "one after the other"
    notes = [f"{count} networks of different seeds are trained, {ways}", *notes]
    told = MembersTold(run, log, blueprint.job, count, blueprint.total_steps, notes)
    with numerics.one_blas_thread(), numerics.quiet():
        data = splits.ready(blueprint)
        requests = Requests(control, run.path)
        training = _Training(run, job, blueprint, splits, data, teams, control, told, requests, init)
        _check_lengths(training, count, log)
        if job_text is not None:
            run.write_job(job_text)
        for number, step in rewrite_metrics(run, count, blueprint.total_steps):
            told.wrote(number, step)
        if side > 1:
            _side_by_side(training, count, side)
        else:
            for number in range(count):
                _one(training, teams, number)
        results = [training.results[number] for number in range(count)]
        rewrite_metrics(run, count, blueprint.total_steps)
        told.waiting("joining the networks")
        result = joined_result(run, blueprint, splits, data, results, side=side, notes=notes, began=began)
    run.write_result(result.to_json())
    log(events.Finished(result.to_json()))
    return result


def _check_lengths(training: _Training, count: int, log: events.Listener) -> None:
    """Raises CheckpointError where a member cannot go on to the job's length, before anything is written.
    Tells of damaged checkpoints, which are set aside by now."""
    for number in range(count):
        path = member_path(training.run.path, number)
        start = checkpoint.load_latest(path / "checkpoints") if is_run(path) else None
        for aside in start.set_aside if start else ():
            log(events.CheckpointSetAside(str(aside.path), aside.reason))
        if start is not None:
            agreement.continued(start, training.blueprint_of(number))


def _side_by_side(training: _Training, count: int, side: int) -> None:
    """Every thread trains one member after the other, inline, with its share of the processors. Where one
    fails the others stop, with a checkpoint."""
    threads = max(1, settings.processors() // side)

    def team(
        blueprint: Blueprint, data: WholeData, start: Snapshot, attempt: int, changed: Callable[[str], None]
    ) -> Team:
        return InlineTeam(blueprint, data, start, attempt, threads, changed)

    def one(number: int) -> None:
        try:
            if number:
                training.told.moves.wait()  # Numba cannot be loaded by two threads at once
            _one(training, team, number)
        except BaseException:
            training.control.stop("the end of another member")
            raise
        finally:
            training.told.moves.set()

    with ThreadPoolExecutor(side, "distbp-members") as pool:
        waiting: list[Future[None]] = [pool.submit(one, number) for number in range(count)]
    errors = [error for error in (future.exception() for future in waiting) if error is not None]
    faults = [error for error in errors if not isinstance(error, Interrupted)]
    for error in (*faults, *errors):
        raise error


def _one(training: _Training, teams: MakeTeam, number: int) -> None:
    """Trains a member from where it is to its end."""
    run, control, told = training.run, training.control, training.told
    path, blueprint = member_path(run.path, number), training.blueprint_of(number)
    job = member_job(training.job, number)
    text = job.to_yaml()
    if control.stopping:
        raise Interrupted(str(run.path), told.steps_done(), control.stopped_by)
    go = partial(
        drive,
        blueprint=blueprint,
        splits=training.splits,
        teams=teams,
        listener=told.listener(number),
        control=control,
        data=WholeData(training.data.splits, training.data.rows, blueprint.sharding()),
        requests=training.requests,
        draws=False,
    )
    training.requests.repeat()
    try:
        if is_run(path):
            with RunDirectory.open(path, disk=run.disk) as one:
                done, start = read_result(path), checkpoint.load_latest(one.checkpoints)
                if done is not None and not (start and agreement.longer(start.state, job)):
                    result = delivered(path, done, job, start)
                    told.ended(number)
                else:
                    keep_init(training.init if start is None else None, path)
                    longer = text if job_text(path) != text else None
                    result = go(one, start=start, job_text=longer)
        else:
            with RunDirectory.create(path, text, disk=run.disk) as one:
                keep_init(training.init, path)
                result = go(one, start=None)
    except Interrupted as stop:
        raise Interrupted(str(run.path), told.steps_done(), stop.signal_name) from None
    training.results[number] = result
