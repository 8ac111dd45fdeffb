"""How fast a large table is prepared, in how much memory, beside other libraries (`benchmarks.table_peers`);
and how fast a job trains on it.

    python -m benchmarks.tables FOLDER [--rows N]

FOLDER: where the table lies, Parquet files of 18 numbers with holes, 10 columns of text of 10 to 5,000
levels, a date, and a target of two classes. It is made there where FOLDER does not exist. Every figure is of
a process of its own. Wall times mean little where others use the machine; times of processors mean more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.table_peers import PEERS, prepared_by

LEVELS = (10, 10, 20, 50, 50, 100, 200, 500, 1000, 5000)
PART_ROWS, GROUP_ROWS = 500_000, 100_000
STEPS, ROUNDS, BINS = 200, 7, 32
PREPARATIONS = 3  # of each library


def make(folder: Path, rows: int) -> None:
    """Writes the table."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    names = [pa.array([f"c{j}_{i:05d}" for i in range(n)]) for j, n in enumerate(LEVELS)]
    for number, start in enumerate(range(0, rows, PART_ROWS)):
        n = min(PART_ROWS, rows - start)
        columns: dict[str, Any] = {}
        signal = np.zeros(n)
        for j in range(18):
            x = draw.standard_normal(n)
            x = (x, np.exp(x), np.round(x * 100))[j % 3]
            signal += (x > 0) * (j % 4 - 1)
            columns[f"n{j:02d}"] = pa.array(x, mask=draw.random(n) < 0.05)
        for j, count in enumerate(LEVELS):
            codes = np.minimum((draw.pareto(1.2, n) * count / 20).astype(np.int64), count - 1).astype(
                np.int32
            )
            columns[f"c{j:02d}"] = names[j].take(pa.array(codes, mask=draw.random(n) < 0.02))
        days = draw.integers(0, 2000, n).astype("timedelta64[D]")
        columns["day"] = pa.array(np.datetime64("2020-01-01") + days)
        columns["target"] = pa.array((signal + draw.standard_normal(n) > 1).astype(np.int8))
        parquet.write_table(
            pa.table(columns), folder / f"part-{number:03d}.parquet", row_group_size=GROUP_ROWS
        )


def job(folder: Path) -> Any:
    """What `distbp data describe --write-job` would make, with a network of three layers."""
    from distbp import TrainingJob

    dense = {"type": "dense", "units": 256, "activation": "relu"}
    numbers = {f"n{j:02d}": {"kind": "number", "bins": BINS} for j in range(18)}
    return TrainingJob.from_mapping(
        {
            "data": {
                "train": {"format": "table", "path": str(folder.resolve())},
                "target": "target",
                "columns": {**numbers, "others": "auto"},
                "split": {"validation": 0.15, "test": 0.15},
            },
            "model": {"layers": [dense, dense, dense, {"type": "dense", "units": 2}]},
            "loss": "softmax_cross_entropy",
            "optimizer": {"type": "adamw"},
            "batch_size": 256,
            "workers": 0,
        }
    )


def prepare(folder: Path) -> dict[str, Any]:
    """Opens the job's data."""
    from distbp.run.splits import open_splits

    wanted = job(folder)
    began, cpu = time.perf_counter(), time.process_time()
    splits = open_splits(wanted, Path())
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    rows = sum(splits.rows.values())
    return {"rows": rows, "seconds": wall, "cpu_seconds": cpu, "peak_mb": _peak_mb()}


def prepare_with(peer: str, folder: Path) -> dict[str, Any]:
    """The same by another library, its imports left out as well."""
    import_module("sklearn.compose" if "scikit" in peer else "pyarrow.parquet")
    began, cpu = time.perf_counter(), time.process_time()
    rows = prepared_by(peer, folder)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"rows": rows, "seconds": wall, "cpu_seconds": cpu, "peak_mb": _peak_mb()}


def train(folder: Path, where: str) -> dict[str, Any]:
    """Some hundred steps on one thread. where: "table", or "arrays": the same cells as arrays in memory,
    which enter in the same way."""
    import numpy as np

    from distbp.engine import numerics
    from distbp.optim.schedules import PlateauState
    from distbp.run.blueprints import make_blueprint
    from distbp.run.splits import open_splits
    from distbp.team.base import Snapshot
    from distbp.team.inline import InlineTeam

    wanted = job(folder)
    splits = open_splits(wanted, Path())
    blueprint = make_blueprint(wanted, splits)
    data = splits.ready(blueprint)
    if where == "arrays":
        data.splits["train"].inputs = np.array(data.splits["train"].inputs)
    times, step = [], 0
    with numerics.one_blas_thread(), numerics.quiet():
        start = Snapshot(0, {"vector": blueprint.network().initialize(1)})
        team = InlineTeam(blueprint, data, start, threads=1)
        for _ in range(ROUNDS + 1):
            cpu = time.process_time()
            team.run(step, step + STEPS, PlateauState(), lambda: False)
            step += STEPS
            times.append(time.process_time() - cpu)
        team.close()
    return {"rows_per_cpu_second": STEPS * wanted.batch_size / statistics.median(times[1:])}


def _peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def _apart(*words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.tables", *words]
    with tempfile.TemporaryDirectory() as cache:  # what was prepared before is not found
        environment = {**os.environ, "DISTBP_CACHE": cache} if "prepare" in words else {**os.environ}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _only(what: str, folder: Path) -> dict[str, Any]:
    if what in PEERS:
        return prepare_with(what, folder)
    return prepare(folder) if what == "prepare" else train(folder, what)


def _compare(folder: str) -> None:
    """Prints medians of rounds in which each library has a turn."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("prepare", *PEERS)}
    for _ in range(PREPARATIONS):
        for name, each in found.items():
            each.append(_apart(folder, "--only", name))
    middle = {name: statistics.median(one["seconds"] for one in each) for name, each in found.items()}
    print("preparation              rows/s   rows/s of a processor   MB at most   distbp beside it")
    for name, each in found.items():
        rows, peak = each[0]["rows"], max(one["peak_mb"] for one in each)
        cpu = statistics.median(one["cpu_seconds"] for one in each)
        label = "distbp" if name == "prepare" else name
        print(
            f"{label:<23}{rows / middle[name]:>8,.0f}{rows / cpu:>24,.0f}{peak:>13,.0f}"
            f"{middle[name] / middle['prepare']:>19.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="how fast a table is prepared, and trained on")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=5_000_000)
    only = ("prepare", *PEERS, "table", "arrays")
    parser.add_argument("--only", choices=only, help="one figure, in this process")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(_only(given.only, given.folder)))
        return
    if not given.folder.exists():
        make(given.folder, given.rows)
    _compare(str(given.folder))
    rates: dict[str, list[float]] = {"table": [], "arrays": []}
    for _ in range(3):
        for where, each in rates.items():
            each.append(_apart(str(given.folder), "--only", where)["rows_per_cpu_second"])
    table, arrays = (statistics.median(each) for each in rates.values())
    print(
        f"train: {table:,.0f} rows/s of a processor from the table, {arrays:,.0f} from arrays in memory:"
        f" {table / arrays:.2f}"
    )


if __name__ == "__main__":
    main()
