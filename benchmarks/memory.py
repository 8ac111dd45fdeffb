"""Memory: the hot loop leaves nothing behind, and training from a memory-mapped table keeps its size.

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
from typing import NamedTuple

from benchmarks.peers.common import fix_threads
from benchmarks.rows import ROWS, Row

STEPS = 1_000
GROWTH_BAR_BYTES = 4_096
MIB = 2**20
TABLE_MIB = 512
# After the first epoch nothing new should be needed; the process's own memory must not grow with the table.
RESIDENT_BAR_MIB = 16
PRIVATE_BAR_MIB = TABLE_MIB // 4


def step_growth(row: Row) -> tuple[int, int]:
    """Bytes that 1,000 steps of training leave behind, and the most they held at once above the start."""
    from benchmarks.engine import inline_team
    from distbp.engine.numerics import one_blas_thread
    from distbp.engine.parameter_server import NO_PLATEAU

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


class Resident(NamedTuple):
    """Resident memory in MiB: the process's own, and pages of files, which the kernel takes back at need."""

    private: float
    files: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.private + self.files

    def highest(self, other: Resident) -> Resident:
        """The larger value of each kind."""
        return Resident(max(self.private, other.private), max(self.files, other.files))

    def __str__(self) -> str:
        return f"{self.private:.0f} + {self.files:.0f}"


def resident() -> Resident:
    """This process's resident memory now."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    kib = {line[0]: int(line[1]) for line in lines if line and line[0].startswith("Rss")}
    return Resident(kib["RssAnon:"] / 1024, (kib["RssFile:"] + kib["RssShmem:"]) / 1024)


class Watch:
    """Samples the resident memory from a thread and keeps the highest values since the last `restart`."""

    def __init__(self) -> None:
        self._highest = Resident(0, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def restart(self) -> Resident:
        """The highest values so far; the next ones start from now."""
        highest, self._highest = self._highest, resident()
        return highest

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self._highest = self._highest.highest(resident())


def mapped_epochs(epochs: int) -> tuple[Resident, list[Resident]]:
    """Resident memory before training from a memory-mapped table, and the highest in each epoch."""
    import numpy as np

    import distbp
    from distbp.run import events

    features, classes = 1024, 10
    rows = TABLE_MIB * MIB // (4 * features)
    random = np.random.default_rng(30)
    highest: list[Resident] = []
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
        before = resident()
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
    flat = (
        max(epoch.total for epoch in highest) - highest[0].total <= RESIDENT_BAR_MIB
        and highest[-1].private - before.private <= PRIVATE_BAR_MIB
    )
    verdicts = [
        f"{_verdict(flat)}: training {len(highest)} epochs from a memory-mapped table of {TABLE_MIB} MiB:"
        f" resident MiB (own + pages of files) {before} before, at most {', '.join(map(str, highest))} in the"
        f" epochs (bars: {RESIDENT_BAR_MIB} more than in the first epoch, {PRIVATE_BAR_MIB} more of its own"
        " than before). Pages of the table in the page cache count as the process's while it looks at them;"
        " the kernel takes them back at need"
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
