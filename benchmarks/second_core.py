"""What a second core is worth on this machine: two trainings against one, and two workers against one.

Two one-core trainings that share nothing, at the same time, are the most that a second core can give: the
cores of a virtual machine may be two threads of one real core, or share its clock and memory with neighbors.
Two workers train one model, and meet at every step. No other peer is there meanwhile.

python -m benchmarks.second_core [--rows mnist-256-256,...] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.peer_process import PeerProcess
from benchmarks.peers import OURS, PEERS
from benchmarks.rows import ROWS, Row
from benchmarks.table import replace_section

BAR = 1.6  # two workers to one, on rows whose step takes more than a millisecond on one core
LONG_STEP_S = 1e-3


class Worth(NamedTuple):
    """Of one round: `trainings`, two over one; `workers`, two over one; `step_s` of one training."""

    trainings: float
    workers: float
    step_s: float


def worth(row: Row, rounds: int, seconds: float) -> list[Worth]:
    """Samples per second against samples per second, round by round."""
    cores = sorted(os.sched_getaffinity(0))[-2:]
    found = []
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:

        def start(name: str, where: Sequence[int]) -> PeerProcess:
            process = PeerProcess(PEERS[name], row, where)
            stack.callback(process.close)
            return process

        one, other = (start(OURS, [core]) for core in cores)
        team, single = start("distbp 2 workers", cores), start("distbp 1 worker", cores)
        for _ in range(rounds):
            alone, two, worker = (speed(each, seconds) for each in (one, team, single))
            both = sum(pool.map(lambda each: speed(each, seconds), (one, other)))
            found.append(Worth(both / alone, two / worker, row.batch / alone))
    return found


def speed(process: PeerProcess, seconds: float) -> float:
    return float(process.measure(seconds)["samples_per_second"])


def line(row: Row, found: Sequence[Worth]) -> str:
    """A row of the table."""
    trainings, workers = ([each[column] for each in found] for column in (0, 1))
    cells = [f"{median(each):.2f} ({min(each):.2f}-{max(each):.2f})" for each in (trainings, workers)]
    long = median(each.step_s for each in found) > LONG_STEP_S
    verdict = f"{BAR}: {'met' if median(workers) >= BAR else 'NOT met'}" if long else ""
    return f"| {row.label} | {' | '.join(cells)} | {verdict} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.second_core", description=__doc__)
    parser.add_argument("--rows", default="mnist-256-256,wide-2048,covertype-256,covertype-2048")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    lines = ["| net, batch | two trainings / one | two workers / one | bar |", "| --- | ---: | ---: | --- |"]
    for name in options.rows.split(","):
        lines.append(line(ROWS[name], worth(ROWS[name], options.rounds, options.seconds)))
        print(lines[-1], flush=True)
    if options.write:
        command = f"python -m benchmarks.second_core --rounds {options.rounds}"
        words = f"Made by `{command}`; medians, lowest and highest round."
        replace_section(options.write, "second-core", "\n".join([words, "", *lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
