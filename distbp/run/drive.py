"""Drives one run to its end: makes its log and its trainer, and keeps BLAS to one thread."""

from __future__ import annotations

from collections.abc import Sequence

from distbp.core.interrupts import Control
from distbp.data.batches import WholeData
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.run import checkpoint, events
from distbp.run.control import Requests
from distbp.run.result import Result
from distbp.run.run_directory import RunDirectory
from distbp.run.run_log import log_events
from distbp.run.splits import Splits
from distbp.run.trainer import MakeTeam, Trainer
from distbp.run.warm_start import going_on, kept_init


@numerics.quiet()
def drive(
    run: RunDirectory,
    blueprint: Blueprint,
    splits: Splits,
    start: checkpoint.Checkpoint | None,
    teams: MakeTeam,
    listener: events.Listener | None,
    control: Control,
    job_text: str | None = None,
    notes: Sequence[str] = (),
    *,
    data: WholeData | None = None,
    requests: Requests | None = None,
    draws: bool = True,
) -> Result:
    """Trains `run` from `start` (None: the beginning) to its end; waits.

    job_text: of a longer job, for job.yaml. data: the rows of `splits.ready`, if the caller has them already.
    requests: requests for workers; None: those in the run directory. draws: whether to draw curves.svg.
    """
    told, blueprint = log_events(run, listener), going_on(blueprint, kept_init(run.path))
    for aside in start.set_aside if start else ():
        told(events.CheckpointSetAside(str(aside.path), aside.reason))
    requests = Requests(control, run.path) if requests is None else requests
    with numerics.one_blas_thread():
        data = splits.ready(blueprint) if data is None else data
        trainer = Trainer(
            run, blueprint, splits, data, teams, told, control, requests, draws=draws, notes=notes
        )
        return trainer.train(start, job_text)
