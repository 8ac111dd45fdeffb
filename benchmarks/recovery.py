"""How long a team on Ray needs from a fault to the next completed step:
`python -m benchmarks.recovery [--write docs/benchmarks.md]`.

worker killed      one of two; the other computes its shards within the same step
worker replaced    the only one; another process must be started
worker frozen      one of two, by SIGSTOP; its shards are late, and computed by the other
server killed      a new attempt: server and workers are started again and load the last state
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.distbp_session import job_of
from benchmarks.rows import ROWS, Row
from benchmarks.synthetic import samples
from benchmarks.table import replace_section
from distbp import TrainingJob
from distbp.core.errors import ServerLostError
from distbp.data.batches import WholeData
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.optim.schedules import PlateauState
from distbp.run.blueprints import make_blueprint
from distbp.run.splits import open_splits
from distbp.team.base import Snapshot, Team
from distbp.team.exchange.shared_data import share_rows
from distbp.team.membership import Options
from distbp.team.ray.session import RaySession

SHARDS = 4
WARM_UP = 20  # steps before the fault
CPUS = 4

Make = Callable[[int, Snapshot, int], Team]  # workers, start, attempt


def maker(row: Row, stack: ExitStack) -> tuple[Blueprint, Make]:
    """How to make teams that train on a row's data."""
    from distbp.team.ray.ray_team import RayTeam  # imports Ray: only within the session

    job = TrainingJob.from_mapping(job_of(row, shards=SHARDS))
    splits = open_splits(job, Path(), {"train": samples(row)})
    blueprint = make_blueprint(job, splits)
    prepared = splits.prepare(job)
    handles = {}
    for name, rows in prepared.items():
        memory, handles[name] = share_rows(rows)
        stack.callback(memory.close)
    data = WholeData(prepared, blueprint.rows, blueprint.sharding())
    return blueprint, lambda workers, start, attempt: RayTeam(
        blueprint, data, start, attempt, Options(workers), handles
    )


def advance(team: Team, steps: int) -> None:
    first = team.snapshot().step
    team.run(first, first + steps, PlateauState(), lambda: False)


def of_worker(make: Make, start: Snapshot, workers: int, fault: signal.Signals) -> float:
    """Seconds from a fault of the first worker to the end of the step after it."""
    team = make(workers, start, 1)
    try:
        advance(team, WARM_UP)
        began = time.perf_counter()
        os.kill(team.places()["worker-1"].pid, fault)  # type: ignore[attr-defined]
        advance(team, 1)
        return time.perf_counter() - began
    finally:
        team.close()


def of_server(make: Make, start: Snapshot) -> float:
    """Seconds from the server's death to the end of the next attempt's first step."""
    team = make(2, start, 1)
    try:
        advance(team, WARM_UP)
        saved = team.snapshot()
        began = time.perf_counter()
        os.kill(team.places()["server"].pid, signal.SIGKILL)  # type: ignore[attr-defined]
        try:
            advance(team, WARM_UP)
        except ServerLostError:
            team.close()
        team = make(2, Snapshot(saved.step, {k: v.copy() for k, v in saved.arrays.items()}), 2)
        advance(team, 1)
        return time.perf_counter() - began
    finally:
        team.close()


def main() -> None:
    known = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known.add_argument("--row", choices=ROWS, default="mnist-256-256", help="the net and its data")
    known.add_argument("--runs", type=int, default=5, help="how often each is measured")
    known.add_argument("--write", type=Path, help="also put the table into this Markdown page")
    options = known.parse_args()
    with ExitStack() as stack:
        stack.enter_context(numerics.one_blas_thread())
        stack.enter_context(np.errstate(over="ignore", invalid="ignore", divide="ignore"))
        session = RaySession(CPUS)
        stack.callback(session.close)
        session.wait()
        blueprint, make = maker(ROWS[options.row], stack)
        start = Snapshot(0, {"vector": blueprint.network().initialize(0)})
        cases: dict[str, Callable[[], float]] = {
            "worker killed": lambda: of_worker(make, start, 2, signal.SIGKILL),
            "worker replaced": lambda: of_worker(make, start, 1, signal.SIGKILL),
            "worker frozen": lambda: of_worker(make, start, 2, signal.SIGSTOP),
            "server killed": lambda: of_server(make, start),
        }
        command = f"python -m benchmarks.recovery --row {options.row} --runs {options.runs}"
        lines = [f"Seconds; made by `{command}`.", "", "| fault | median | worst |", "| --- | ---: | ---: |"]
        print("\n".join(lines))
        for name, measure in cases.items():
            seconds = [measure() for _ in range(options.runs)]
            lines.append(f"| {name} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |")
            print(lines[-1], flush=True)
    if options.write:
        replace_section(options.write, "recovery", "\n".join(lines))


if __name__ == "__main__":
    main()
