"""Memory: the hot loop allocates nothing that stays, and a memory-mapped table does not become resident.

python -m benchmarks.memory [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.common import fix_threads
from benchmarks.rows import ROWS, Row

STEPS = 1_000
GROWTH_BAR_BYTES = 4_096
MIB = 2**20
TABLE_MIB = 512
# Resident memory may move by what is kept of the mapped file between two releases, not with the file.
RESIDENT_BAR_MIB = 64


def step_growth(row: Row) -> tuple[int, int]:
    """Bytes that 1,000 steps of training leave behind, and the most they held at once above the start."""
    from benchmarks.engine import inline_team
    from distbp.numerics import one_blas_thread
    from distbp.parameter_server import NO_PLATEAU

    _, team = inline_team(row)
    with one_blas_thread():
        first = row.steps_per_epoch + 10  # past the first epoch, which binds the programs
        team.run(0, first, NO_PLATEAU, lambda: False)
        tracemalloc.start()
        # Once before counting: the tracer itself needs some memory for the places that it has not seen.
        team.run(first, first + STEPS, NO_PLATEAU, lambda: False)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        team.run(first + STEPS, first + 2 * STEPS, NO_PLATEAU, lambda: False)
        after, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    team.close()
    return after - before, peak - before


def resident_mib() -> float:
    """This process's resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


class Watch:
    """Samples the resident memory from a thread and keeps the highest value since the last `restart`."""

    def __init__(self) -> None:
        self.highest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def restart(self) -> float:
        """The highest value so far; the next one starts from now."""
        highest, self.highest = self.highest, 0.0
        return highest

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self.highest = max(self.highest, resident_mib())


def mapped_epochs(epochs: int) -> tuple[float, list[float]]:
    """Resident MiB before training from a memory-mapped table, and the highest of each epoch."""
    import numpy as np

    import distbp
    from distbp import events

    features, classes = 1024, 10
    rows = TABLE_MIB * MIB // (4 * features)
    random = np.random.default_rng(30)
    highest: list[float] = []
    with tempfile.TemporaryDirectory(prefix="distbp-bench-") as name, Watch() as watch:
        folder = Path(name)
        table = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, features))
        for start in range(0, rows, 4096):
            random.standard_normal(out=table[start : start + 4096], dtype=np.float32)
        table.flush()
        del table
        np.save(folder / "y.npy", random.integers(0, classes, rows))
        job = distbp.TrainingJob.from_mapping(
            {
                "data": {"train": {"format": "npy", "inputs": "x.npy", "targets": "y.npy"}},
                "model": {"layers": [{"type": "dense", "units": classes}]},
                "loss": "softmax_cross_entropy",
                "optimizer": {"type": "sgd", "learning_rate": 0.01},
                "batch_size": 256,
                "epochs": epochs,
                "shards": 1,
                "checkpoint": {"keep_best": False},
            }
        )

        def listen(event: events.Event) -> None:
            if isinstance(event, events.EpochEnded):
                highest.append(watch.restart())

        watch.restart()
        before = resident_mib()
        distbp.train(job, folder=folder, output=folder / "run", workers=0, listener=listen)
    return before, highest


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit code is 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    fix_threads(sorted(os.sched_getaffinity(0))[-1:], 1)
    from benchmarks.table import replace_section

    before, highest = mapped_epochs(epochs=3)
    flat = max(highest) - highest[0] <= RESIDENT_BAR_MIB and highest[0] - before <= TABLE_MIB / 2
    verdicts = [
        f"{_verdict(flat)}: training 3 epochs from a memory-mapped table of {TABLE_MIB} MiB: {before:.0f} MiB"
        f" resident before, at most {', '.join(f'{value:.0f}' for value in highest)} MiB in the epochs"
    ]
    met = flat
    for name in ("mnist-30", "mnist-256-256", "covertype-2048"):
        growth, peak = step_growth(ROWS[name])
        met = met and growth <= GROWTH_BAR_BYTES
        verdicts.append(
            f"{_verdict(growth <= GROWTH_BAR_BYTES)}: {STEPS:,} steps of {ROWS[name].label}: {growth:,} bytes"
            f" left behind (bar {GROWTH_BAR_BYTES:,}), at most {peak:,} held at once"
        )
    text = "Made by `python -m benchmarks.memory`.\n\n" + "\n".join(f"- {line}" for line in verdicts) + "\n"
    print(text)
    if options.write:
        replace_section(options.write, "memory", text)
    return int(not met)


def _verdict(met: bool) -> str:
    return "met" if met else "NOT met"


if __name__ == "__main__":
    sys.exit(main())
