"""What it saves to put rows of similar lengths into a batch: an LSTM over rows of 1 to 50 steps.

python -m benchmarks.lengths [--rounds 5]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.common import fix_threads

STEPS, FEATURES, BATCH, ROWS = 50, 8, 64, 12_800
WAYS = ("padded, without lengths", "bucket_by_length: false", "bucket_by_length: true")


def _epochs(inputs: Any, targets: Any, bucketed: bool) -> Callable[[], float]:
    """What trains some epochs, and gives the seconds of all but the first one."""
    import distbp
    from distbp.run import events

    job = distbp.TrainingJob.from_mapping(
        {
            "model": {"layers": [{"type": "lstm", "units": 64}, {"type": "dense", "units": 10}]},
            "loss": "softmax_cross_entropy",
            "batch_size": BATCH,
            "epochs": 3,
            "shards": 1,
            "metrics": [],
            "bucket_by_length": bucketed,
        }
    )

    def run() -> float:
        times: list[float] = []

        def listen(event: Any) -> None:
            if isinstance(event, events.EpochEnded):
                times.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "run"
            distbp.train(job, data=(inputs, targets), workers=0, output=output, listener=listen)
        return times[-1] - times[0]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    fix_threads([1], 1)
    import numpy as np

    draw = np.random.default_rng(0)
    x = draw.normal(size=(ROWS, STEPS, FEATURES)).astype(np.float32)
    y = draw.integers(0, 10, ROWS)
    kinds = {
        "lengths from 1 to 50, all alike": draw.integers(1, STEPS + 1, ROWS),
        "a few long rows": np.clip(draw.geometric(0.1, ROWS), 1, STEPS),
    }
    for kind, lengths in kinds.items():
        given = {"inputs": x, "lengths": lengths}
        ways = [_epochs(x, y, False), _epochs(given, y, False), _epochs(given, y, True)]
        for run in ways:
            run()
        rounds = [[run() for run in ways] for _ in range(options.rounds)]
        middle = [median(times) for times in zip(*rounds, strict=True)]
        print(f"{kind} (mean {lengths.mean():.1f} steps):")
        for way, seconds in zip(WAYS, middle, strict=True):
            print(f"  {way:<26}{2 * ROWS / seconds:>10,.0f} rows/s {middle[0] / seconds:>6.2f}")


if __name__ == "__main__":
    main()
