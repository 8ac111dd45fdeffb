"""The cheap gradient principle: forward plus backward over forward alone, on the dense rows.

python -m benchmarks.gradient_cost [--rows mnist-30,...] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.peers.common import fix_threads
from benchmarks.rows import ROWS, Row

BAR = 3.0


def costs(row: Row, rounds: int, seconds: float) -> tuple[float, float]:
    """Medians in seconds of one forward pass with its loss, and of that with the backward pass."""
    import numpy as np

    from benchmarks.distbp_session import job_of
    from benchmarks.synthetic import samples
    from distbp import TrainingJob
    from distbp.core.arrays import aligned_vector
    from distbp.engine.numerics import kernel_set, one_blas_thread
    from distbp.nn import kernels as kernel_sets
    from distbp.nn.network import Network
    from distbp.nn.program import Program

    inputs, labels = samples(row)
    x, y = inputs[: row.batch], labels[: row.batch].astype(np.int64)
    job = TrainingJob.from_mapping(job_of(row, shards=1))
    network = Network(job.model.layers, (row.sizes[0],))
    kernels = kernel_sets.load(kernel_set("auto"))
    gradient = aligned_vector(network.size, network.dtype)
    vector = network.initialize(0)
    ahead = Program(network, row.batch, vector, kernels=kernels, loss=job.loss, forward_only=True)
    whole = Program(network, row.batch, vector, kernels=kernels, loss=job.loss, gradient=gradient)

    def forward() -> None:
        ahead.run(x, y)

    def both() -> None:
        whole.run(x, y)

    with one_blas_thread():
        repeats = _repeats(both, seconds)
        pairs = [(_timed(forward, repeats), _timed(both, repeats)) for _ in range(rounds)]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def _timed(call: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _repeats(call: Callable[[], None], seconds: float) -> int:
    call()
    return max(1, round(seconds / _timed(call, 3)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit code is 1 when the bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradient_cost", description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    fix_threads(sorted(os.sched_getaffinity(0))[-1:], 1)
    from benchmarks.table import replace_section

    lines = ["| net, batch | forward | forward and backward | ratio |", "| --- | ---: | ---: | ---: |"]
    worst = 0.0
    for name in options.rows.split(","):
        forward, both = costs(ROWS[name], options.rounds, options.seconds)
        worst = max(worst, both / forward)
        lines.append(
            f"| {ROWS[name].label} | {forward * 1e6:,.1f} us | {both * 1e6:,.1f} us | {both / forward:.2f} |"
        )
    verdict = f"The largest ratio is {worst:.2f} (bar {BAR:g}): {'met' if worst <= BAR else 'NOT met'}."
    text = (
        "One step's passes on one core, medians; both with the loss, without the update; made by"
        " `python -m benchmarks.gradient_cost`.\n\n" + "\n".join(lines) + f"\n\n{verdict}\n"
    )
    print(text)
    if options.write:
        replace_section(options.write, "gradient-cost", text)
    return int(worst > BAR)


if __name__ == "__main__":
    sys.exit(main())
