"""What a second core is worth on this machine: two one-core trainings that share nothing, against one.

No exchange can make two workers faster than that, where the step is bound by what the cores compute. The
cores of a virtual machine may be two threads of one real core, or share its clock and memory with neighbors.

python -m benchmarks.second_core [--rows mnist-256-256,...] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks.peers import OURS, PEERS
from benchmarks.rows import ROWS, Row
from benchmarks.run import PeerProcess
from benchmarks.table import replace_section


def worth(row: Row, rounds: int, seconds: float) -> list[float]:
    """For each round: samples per second of two trainings at once over those of one of them alone."""
    one, other = (PeerProcess(PEERS[OURS], row, [core]) for core in sorted(os.sched_getaffinity(0))[-2:])
    found = []
    try:
        with ThreadPoolExecutor(2) as pool:
            for _ in range(rounds):
                alone = one.measure(seconds)["samples_per_second"]
                both = list(pool.map(lambda each: each.measure(seconds), (one, other)))
                found.append(sum(each["samples_per_second"] for each in both) / alone)
    finally:
        one.close()
        other.close()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.second_core", description=__doc__)
    parser.add_argument("--rows", default="mnist-256-256,wide-2048,covertype-256,covertype-2048")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    lines = ["| net, batch | two trainings / one | lowest and highest round |", "| --- | ---: | ---: |"]
    for name in options.rows.split(","):
        found = worth(ROWS[name], options.rounds, options.seconds)
        lines.append(f"| {ROWS[name].label} | {median(found):.2f} | {min(found):.2f}-{max(found):.2f} |")
        print(lines[-1], flush=True)
    if options.write:
        words = f"Made by `python -m benchmarks.second_core --rounds {options.rounds}`; medians."
        replace_section(options.write, "second-core", "\n".join([words, "", *lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
