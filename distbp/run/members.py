"""Trains several networks of one job: `members` and `restarts`. They differ by their seeds, and by their rows
if they have folds.

Each network has a run directory of its own, below `members/` in the job's run directory, and is trained by
the usual trainer. So it can be killed, resumed and verified like any run. Networks train at the same time.
Without workers, each trains in a thread of this process, as many at a time as there are processors; else each
trains in one worker, as many at a time as there are workers. That changes no bit of the results. The files of
the job's own directory are made from the networks': metrics.jsonl has their lines, one network after the
other, and the model has their weights.
"""

from __future__ import annotations

import threading
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
from distbp.job.members import fold_of, has_folds, member_job, networks
from distbp.run import agreement, checkpoint, events
from distbp.run.blueprints import of_fold
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
from distbp.run.warm_start import keep_init, keeps_optimizer
from distbp.team.base import Snapshot, Team
from distbp.team.inline import InlineTeam
from distbp.team.maker import TeamMaker, limits
from distbp.team.training_turns import TrainingTurns

WATCH_S = 0.25  # while a network waits for its turn, it looks this often whether the run is to stop


@dataclass
class _Training:
    """The objects that the threads of all networks share."""

    run: RunDirectory
    job: TrainingJob  # the whole job, with its data's folder absolute
    blueprint: Blueprint
    splits: Splits
    data: WholeData
    control: Control
    told: MembersTold
    requests: Requests
    init: Path | None
    results: dict[int, Result] = field(default_factory=dict)

    def own(self, number: int) -> tuple[Blueprint, Splits]:
        """The blueprint of a network, and the splits that it trains and measures on. Raises DataError."""
        job = member_job(self.blueprint.job, number)
        if has_folds(self.blueprint.job) and number:
            splits = self.splits.of_fold(fold_of(job))
            return of_fold(self.blueprint, job, splits), splits
        return replace(self.blueprint, job=job), self.splits

    def rows_of(self, blueprint: Blueprint, splits: Splits) -> WholeData:
        """The rows of a network, prepared. Rows that all networks have are not copied."""
        prepared = self.data.splits
        if splits is not self.splits:
            own = {name: splits.tables[name] for name in ("train", "validation")}
            prepared = {**prepared, **replace(splits, tables=own).ready(blueprint).splits}
        return WholeData(prepared, self.data.rows, blueprint.sharding())


def train_members(
    run: RunDirectory,
    job: TrainingJob,
    blueprint: Blueprint,
    splits: Splits,
    teams: TeamMaker,
    listener: events.Listener | None,
    control: Control,
    *,
    workers: Any,
    init: Path | None = None,
    job_text: str | None = None,
    notes: Sequence[str] = (),
    draws: bool = True,
) -> Result:
    """Trains all networks of a job, from their checkpoints if they have any, and joins them into one model;
    waits.

    job: as in job.yaml, with its data's folder absolute. workers: as asked for. `init`: the model that each
    network begins with. job_text: of a longer job, for job.yaml. draws: whether to draw curves.svg. Raises
    the errors of `Trainer.train`.
    """
    began, count = time.monotonic(), networks(job)
    least, most = limits(workers)
    turns = TrainingTurns(count, min(count, least or settings.processors()))
    log = log_events(run, listener)
    ways = _at_a_time(turns.at_a_time, min(count, most))
    notes = [f"{count} networks of different seeds are trained, {ways}", *notes]
    if has_folds(job):
        notes.append("each network measures on a fold of its own; validation metrics are means over networks")
    told = MembersTold(run, log, blueprint.job, count, blueprint.total_steps, notes)
    with numerics.one_blas_thread(), numerics.quiet():
        data = splits.ready(blueprint)
        requests = Requests(control, run.path)
        training = _Training(run, job, blueprint, splits, data, control, told, requests, init)
        _check_networks(training, count, log)
        if job_text is not None:
            run.write_job(job_text)
        for number, step in rewrite_metrics(run, count, blueprint.total_steps):
            told.wrote(number, step)
        _side_by_side(
            training,
            turns,
            teams.apart(data, turns, told.waiting) if most else _inline(turns.at_a_time, told.waiting),
        )
        results = [training.results[number] for number in range(count)]
        rewrite_metrics(run, count, blueprint.total_steps)
        told.waiting("joining the networks")
        result = joined_result(
            run, blueprint, splits, data, results, side=turns.most_at_a_time, notes=notes, began=began,
            draws=draws,
        )  # fmt: skip
    run.write_result(result.to_json())
    log(events.Finished(result.to_json()))
    return result


def _check_networks(training: _Training, count: int, log: events.Listener) -> None:
    """Checks all networks before anything is written. Raises DataError if a network cannot train on its fold,
    CheckpointError if it cannot go on to the job's length. Reports damaged checkpoints to `log`."""
    for number in range(count):
        path, (blueprint, _) = member_path(training.run.path, number), training.own(number)
        start = checkpoint.load_latest(path / "checkpoints") if is_run(path) else None
        for aside in start.set_aside if start else ():
            log(events.CheckpointSetAside(str(aside.path), aside.reason))
        if start is not None:
            agreement.continued(start, blueprint)


def _at_a_time(now: int, most: int) -> str:
    if most > now:
        return f"{now} to {most} at a time"
    return f"{now} at a time" if now > 1 else "one after the other"


def _inline(side: int, waiting: Callable[[str], None]) -> Callable[..., Team]:
    """Returns a function that makes teams in this process, each with an equal share of the processors.
    waiting: see `InlineTeam`."""
    threads, loading = max(1, settings.processors() // side), threading.Lock()

    def team(
        number: int,
        blueprint: Blueprint,
        data: WholeData,
        start: Snapshot,
        attempt: int,
        changed: Callable[[str], None],
    ) -> Team:
        with loading:  # Numba cannot be loaded by two threads at once
            return InlineTeam(blueprint, data, start, attempt, threads, waiting)

    return team


def _side_by_side(training: _Training, turns: TrainingTurns, make: Callable[..., Team]) -> None:
    """Trains each network in a thread, when its turn comes; waits. If one fails, the others stop with a
    checkpoint. make: makes a team from the number of a network and the arguments of `MakeTeam`."""
    control = training.control

    def train_in_turn(number: int) -> None:
        try:
            while not turns.enter(number, WATCH_S) and not control.stopping:
                pass
            _train_network(training, partial(make, number), number)
        except BaseException:
            control.stop("the end of another network")
            raise
        finally:
            turns.end(number)

    count = turns.left
    with ThreadPoolExecutor(count, "distbp-members") as pool:
        waiting: list[Future[None]] = [pool.submit(train_in_turn, number) for number in range(count)]
    errors = [error for error in (future.exception() for future in waiting) if error is not None]
    faults = [error for error in errors if not isinstance(error, Interrupted)]
    for error in (*faults, *errors):
        raise error


def _train_network(training: _Training, teams: MakeTeam, number: int) -> None:
    """Trains a network to its end, from its last checkpoint if it has one; waits."""
    run, control, told = training.run, training.control, training.told
    path, (blueprint, splits) = member_path(run.path, number), training.own(number)
    job = member_job(training.job, number)
    text = job.to_yaml()
    if control.stopping:
        raise Interrupted(str(run.path), told.steps_done(), control.stopped_by)
    train = partial(
        drive,
        blueprint=blueprint,
        splits=splits,
        teams=teams,
        listener=told.listener(number),
        control=control,
        data=training.rows_of(blueprint, splits),
        requests=training.requests,
        draws=False,
    )
    try:
        if is_run(path):
            with RunDirectory.open(path, disk=run.disk) as own:
                done, start = read_result(path), checkpoint.load_latest(own.checkpoints)
                if done is not None and not (start and agreement.longer(start.state, job)):
                    result = delivered(path, done, job, start)
                    told.ended(number)
                else:
                    keep_init(
                        training.init if start is None else None,
                        path,
                        optimizer=keeps_optimizer(job),
                        disk=run.disk,
                    )
                    longer = text if job_text(path) != text else None
                    result = train(own, start=start, job_text=longer)
        else:
            with RunDirectory.create(path, text, disk=run.disk) as own:
                keep_init(training.init, path, optimizer=keeps_optimizer(job), disk=run.disk)
                result = train(own, start=None)
    except Interrupted as stop:
        raise Interrupted(str(run.path), told.steps_done(), stop.signal_name) from None
    training.results[number] = result
