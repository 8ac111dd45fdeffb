"""Train on arrays from Python, listen while it runs, and use the model: python examples/from_arrays.py

The task is regression: the distance of a point from the origin, which no layer can compute by itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import distbp
from distbp.run import events


def points(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(x, y): points of the plane, (rows, 2), and their distances, (rows,)."""
    x = np.random.default_rng(seed).uniform(-1, 1, (rows, 2))
    return x, np.hypot(x[:, 0], x[:, 1])


def report(event: events.Event) -> None:
    if isinstance(event, events.EpochEnded) and event.epoch % 10 == 0:
        print(f"epoch {event.epoch}: validation loss {event.metrics['validation_loss']:.6f}")


def main() -> None:
    job = distbp.TrainingJob(
        name="distance",
        model={
            "layers": [
                {"type": "dense", "units": 32, "activation": "gelu"},
                {"type": "dense", "units": 32, "activation": "gelu"},
                {"type": "dense", "units": 1},
            ]
        },
        loss="mse",
        optimizer={"type": "adamw", "learning_rate": 0.01, "schedule": {"type": "cosine"}},
        batch_size=64,
        epochs=40,
        early_stopping={"patience": 10},
        workers=0,
    )
    data = {"train": points(2000, 1), "validation": points(500, 2), "test": points(500, 3)}
    with tempfile.TemporaryDirectory() as folder:
        result = distbp.train(job, data=data, output=Path(folder) / "run", listener=report)
        model = result.model()
    print(
        f"{result.status} after {result.epochs:g} epochs; R2 on the test set {result.metrics['test_r2']:.5f}"
    )
    corner = np.array([[0.6, 0.8]])
    print(f"the distance of (0.6, 0.8) is 1, the model says {float(model.predict(corner)[0]):.3f}")


if __name__ == "__main__":
    main()
