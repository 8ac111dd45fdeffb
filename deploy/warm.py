"""Compiles what most jobs need, so that the first job need not: two small jobs are trained, and forgotten."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import distbp


def main() -> None:
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    for loss, units, y in (
        ("softmax_cross_entropy", 2, (x[:, 0] > 0).astype(np.int64)),
        ("mse", 1, x[:, :1]),
    ):
        print(f"compiling what a small network with the loss {loss} needs", flush=True)
        job = distbp.TrainingJob(
            model={
                "layers": [
                    {"type": "dense", "units": 8, "activation": "relu"},
                    {"type": "dense", "units": units},
                ]
            },
            loss=loss,
            batch_size=16,
            epochs=2,
        )
        with tempfile.TemporaryDirectory() as folder:
            data = {"train": (x, y), "validation": (x, y)}
            distbp.train(job, data=data, output=Path(folder) / "run", workers=0)


if __name__ == "__main__":
    main()
