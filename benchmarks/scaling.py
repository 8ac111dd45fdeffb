"""Measures what the model of a step's time needs, checks it, and writes docs/scaling.md's tables and picture:
`python -m benchmarks.scaling --write docs/scaling.md`.

The exchange alone (2 workers), joins and updates at three sizes, calls over Ray, the six rows' shards; then
the model's step with two workers beside a measured one, and beside the simulation to 1,024 workers.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine as facts_of
from benchmarks.distbp_session import job_of
from benchmarks.rows import ROWS, Row
from benchmarks.synthetic import samples
from benchmarks.table import replace_section
from distbp import TrainingJob
from distbp.core import settings
from distbp.engine import numerics
from distbp.run.blueprints import make_blueprint
from distbp.run.curves import draw_lines
from distbp.run.plan import calibrate
from distbp.run.plan.plan import predict
from distbp.run.plan.simulate import simulate
from distbp.run.plan.speed_model import Layout, Machine, Work, node_limit, step_time
from distbp.run.splits import open_splits

# Floats -> milliseconds that a round of the exchange alone may take with two workers.
EXCHANGE_BARS = {25_000: 0.15, 1_000_000: 1.0, 10_000_000: 15.0}
FLOAT = np.dtype(np.float32)
# The net of the fourth row on more machines: 1,024 shards of 8 rows.
LARGE_SHARDS, LARGE_ROWS = 1024, 8
NODE_CORES = 8
LAYOUTS = {
    "one server": Layout(combine=False),
    "nodes combine first": Layout(),
    "... and 4 servers": Layout(servers=4),
    "... and 16 servers": Layout(servers=16),
}
SIMULATED = (1, 8, 16, 64, 256, 1024)


@dataclass(frozen=True)
class Calls:
    """Over Ray: seconds of a call and back, and of the server's process for one of many calls."""

    call_s: float
    serve_s: float


def exchanges(seconds: float) -> dict[int, list[float]]:
    """Floats -> seconds of each round of the exchange alone."""
    from distbp.optim.updater import WORTH_A_THREAD

    # On as many threads as the server joins with in training.
    return {
        floats: calibrate.exchange_times(
            floats,
            FLOAT,
            seconds=seconds,
            threads=max(1, min(settings.processors(), floats // WORTH_A_THREAD)),
        )
        for floats in EXCHANGE_BARS
    }


def calls(count: int = 200) -> Calls:
    """Measured with an actor on an embedded Ray, which gets 100 KB with each call."""
    from distbp.team.ray.session import RaySession

    session = RaySession(2)
    try:
        session.wait()
        import ray

        class Echo:
            def echo(self, values: Any) -> None:
                return None

        actor = ray.remote(num_cpus=0, max_concurrency=4)(Echo).remote()
        values = np.zeros(25_000, FLOAT)
        ray.get(actor.echo.remote(values))
        times = calibrate.repeat(lambda: ray.get(actor.echo.remote(values)), 1.0)
        began = time.perf_counter()
        ray.get([actor.echo.remote(values) for _ in range(count)])
        return Calls(statistics.median(times), (time.perf_counter() - began) / count)
    finally:
        session.close()


def work_of(row: Row, shards: int, batch: int, seconds: float) -> Work:
    """The row's step, measured in this process."""
    job = TrainingJob.from_mapping({**job_of(row, shards), "batch_size": batch, "epochs": 1000})
    splits = open_splits(job, Path(), {"train": samples(row)})
    blueprint = make_blueprint(job, splits)
    with numerics.one_blas_thread():
        return calibrate.measure_work(blueprint, splits.ready(blueprint), seconds)


def fitted(times: dict[int, list[float]], found: Calls | None, seconds: float) -> Machine:
    """The constants: wake-ups from the smallest exchange, joins as the server does them."""
    largest = max(times)
    join_s = statistics.median(calibrate.join_times(largest, FLOAT, seconds))
    made = calibrate.measure_machine(largest, FLOAT, seconds)
    made = replace(made, join_s_per_byte=join_s / (largest * FLOAT.itemsize))
    return made if found is None else replace(made, call_s=found.call_s, serve_s=found.serve_s)


# The report ----------------------------------------------------------------------------------------------


def exchange_table(times: dict[int, list[float]]) -> str:
    lines = ["| floats | median | 9 of 10 within | bar | |", "| ---: | ---: | ---: | ---: | --- |"]
    for floats, values in times.items():
        middle = statistics.median(values) * 1e3
        most = statistics.quantiles(values, n=10)[-1] * 1e3
        bar = EXCHANGE_BARS[floats]
        met = "met" if middle <= bar else "NOT met"
        lines.append(f"| {floats:,} | {middle:.3f} ms | {most:.3f} ms | {bar:g} ms | {met} |")
    return "\n".join(lines)


def constants_table(machine: Machine, calls_measured: bool) -> str:
    rows = [
        ("wake-up, there and back", f"{machine.wake_s * 1e6:.0f} us"),
        ("joining two vectors", f"{machine.join_s_per_byte * 4e6 * 1e3:.3f} ms for each million floats"),
        ("a call to another actor and back", f"{machine.call_s * 1e3:.2f} ms"),
        ("the server's time for such a call", f"{machine.serve_s * 1e3:.2f} ms"),
    ]
    if not calls_measured:
        rows[2:] = [(name, f"{value} (not measured in this run)") for name, value in rows[2:]]
    return "\n".join(["| constant | measured |", "| --- | ---: |", *(f"| {a} | {b} |" for a, b in rows)])


def rows_table(works: dict[str, Work], machine: Machine) -> str:
    lines = [
        "| net, batch | a shard | update | inline | 1 worker | 2 workers | speed-up, 2 to 1 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, work in works.items():
        totals = [step_time(work, machine, n).total_s for n in (0, 1, 2)]
        cells = [f"{t * 1e3:.3f} ms" for t in (work.shard_s, work.update_s, *totals)]
        lines.append(f"| {ROWS[name].label} | {' | '.join(cells)} | {totals[1] / totals[2]:.2f} |")
    return "\n".join(lines)


def simulation_table(work: Work, machine: Machine) -> tuple[str, float]:
    """The table, and the largest relative difference between closed form and simulation."""
    lines = [
        "| workers | " + " | ".join(LAYOUTS) + " |",
        "| ---: |" + " ---: |" * len(LAYOUTS),
    ]
    worst = 0.0
    for workers in SIMULATED:
        cells = []
        for layout in LAYOUTS.values():
            predicted = step_time(work, machine, workers, layout).total_s
            played = simulate(work, machine, workers, layout)
            worst = max(worst, abs(predicted / played - 1))
            cells.append(f"{predicted * 1e3:,.1f} / {played * 1e3:,.1f}")
        lines.append(f"| {workers:,} | {' | '.join(cells)} |")
    limits = [str(node_limit(work, machine, layout)) for layout in LAYOUTS.values()]
    lines.append(f"| nodes that still help | {' | '.join(limits)} |")
    return "\n".join(lines), worst


def draw(work: Work, machine: Machine, path: Path) -> None:
    """Speed-up by workers for each layout."""
    inline = step_time(work, machine, 0).total_s
    counts = [2**k for k in range(11)]
    lines = {
        name: [(float(n), inline / step_time(work, machine, n, layout).total_s) for n in counts]
        for name, layout in LAYOUTS.items()
    }
    lines["ideal"] = [(1.0, 1.0), (1024.0, 1024.0)]
    draw_lines(lines, path, "Predicted speed-up: 1024-2048-2048-10, batch 8,192", "workers, 8 on a node")


def report(seconds: float, with_ray: bool, picture: Path | None, command: str) -> str:
    """Measures everything; the Markdown."""
    times = exchanges(seconds)
    found = calls() if with_ray else None
    machine = fitted(times, found, seconds)
    works = {name: work_of(row, 2, row.batch, seconds) for name, row in ROWS.items()}
    wide = ROWS["wide-2048"]
    # One shard of the large job is a batch of 8 rows.
    alone = work_of(wide, 1, LARGE_ROWS, seconds)
    large = replace(alone, shards=LARGE_SHARDS, jitter=min(alone.jitter, 0.1))
    nodes = replace(machine, cores=NODE_CORES)
    simulated, worst = simulation_table(large, nodes)
    if picture is not None:
        draw(large, nodes, picture)
    here, _ = predict(works["wide-2048"], machine, Layout())
    facts = "\n".join(f"- {name}: {value}" for name, value in facts_of.facts().items())
    return (
        f"Made by `{command}`.\n\n"
        "The exchange alone, 2 workers: every worker writes all of its vector in place, and the server joins"
        " the two on as many threads as in training.\n\n"
        f"{exchange_table(times)}\n\n"
        f"The constants:\n\n{constants_table(machine, found is not None)}\n\n"
        f"The six rows of the [benchmarks](benchmarks.md), 2 shards, as the model has them:\n\n"
        f"{rows_table(works, machine)}\n\n"
        f"With two workers most of a step of {wide.label} is {here[-1].limit}.\n\n"
        f"### To 1,024 workers\n\n"
        f"{wide.label.rsplit(',', 1)[0]} with batches of {LARGE_SHARDS * LARGE_ROWS:,} rows in"
        f" {LARGE_SHARDS:,} shards ({large.shard_s * 1e3:.2f} ms each, {large.bytes / 1e6:.1f} MB of"
        f" gradient), nodes of {NODE_CORES} cores, 10 Gbit/s. Milliseconds of a step, predicted /"
        f" simulated:\n\n{simulated}\n\n"
        f"The largest difference between the two is {worst:.0%}.\n\n"
        f"The machine:\n\n{facts}\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and puts the tables into a page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement (default 2)")
    parser.add_argument("--no-ray", action="store_true", help="do not measure calls over Ray")
    parser.add_argument("--exchange", action="store_true", help="the exchange alone, as JSON; nothing else")
    parser.add_argument("--write", type=Path, help="put the tables into this page, and scaling.svg beside it")
    options = parser.parse_args(arguments)
    if options.exchange:
        found = {str(n): statistics.median(t) for n, t in exchanges(options.seconds).items()}
        print(json.dumps(found))
        return int(any(found[str(n)] * 1e3 > bar for n, bar in EXCHANGE_BARS.items()))
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "benchmarks.scaling", *words])
    picture = options.write.with_name("scaling.svg") if options.write else None
    text = report(options.seconds, not options.no_ray, picture, command)
    print(text)
    if options.write:
        replace_section(options.write, "measured", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
