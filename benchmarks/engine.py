"""The parts of a training run on a row, put together by hand for measurements inside of a step."""

from __future__ import annotations

from pathlib import Path

from benchmarks.distbp_session import job_of
from benchmarks.rows import Row
from benchmarks.synthetic import samples
from distbp import TrainingJob
from distbp.engine.blueprint import Blueprint
from distbp.run.blueprints import make_blueprint
from distbp.run.splits import open_splits
from distbp.team.base import Snapshot
from distbp.team.inline import InlineTeam


def inline_team(row: Row, shards: int = 1) -> tuple[Blueprint, InlineTeam]:
    """Server and worker in this process on the row's data, at step 0 of a job with so many shards."""
    job = TrainingJob.from_mapping(job_of(row, shards))
    splits = open_splits(job, Path(), {"train": samples(row)})
    blueprint = make_blueprint(job, splits)
    network = blueprint.network()
    data = splits.ready(blueprint)
    start = Snapshot(0, {"vector": network.initialize(job.seed)})
    return blueprint, InlineTeam(blueprint, data, start)
