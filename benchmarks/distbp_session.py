"""One long `distbp.train` that pauses between measurements.

The public way in, with all that a user's training does at the end of an epoch inside the measured time: the
listener that `train` tells about epochs reads the commands, and holds training up until there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.networks import NetworkRow
from benchmarks.peers.common import answer, fix_threads
from benchmarks.rows import ALL_ROWS, MOMENTUM, AnyRow, Row


def job_of(row: AnyRow, shards: int) -> dict[str, Any]:
    """The fields of the row's training job. No checkpoints and no metrics: no peer has them."""
    optimizer: dict[str, Any] = {"type": row.optimizer, "learning_rate": row.learning_rate}
    if row.optimizer == "momentum":
        optimizer["momentum"] = MOMENTUM
    return {
        **({} if isinstance(row, NetworkRow) else _options(row)),
        "name": row.name,
        "model": {"layers": row.layers if isinstance(row, NetworkRow) else _layers(row)},
        "loss": row.loss,
        "optimizer": optimizer,
        "batch_size": row.batch,
        "epochs": 1_000_000,  # more than anybody will measure
        "drop_last": True,
        "shards": shards,
        "metrics": [],
        "checkpoint": {"every_seconds": None, "keep_best": False},
        "seed": 24,
    }


def _layers(row: Row) -> list[dict[str, Any]]:
    *hidden, classes = row.sizes[1:]
    layers: list[dict[str, Any]] = []
    for units in hidden:
        if row.normalized:
            layers += [{"type": "dense", "units": units}, {"type": "batch_normalization"}]
            layers.append({"type": "activation", "function": row.activation})
        else:
            layers.append({"type": "dense", "units": units, "activation": row.activation})
        if row.dropout:
            layers.append({"type": "dropout", "rate": row.dropout})
    layers.append({"type": "dense", "units": classes})
    for layer in layers:
        if layer["type"] == "dense":
            layer["initializer"] = "glorot_uniform"
    return layers


def _options(row: Row) -> dict[str, Any]:
    apart: dict[str, Any] = {}
    if row.clip_norm:
        apart["clip"] = {"norm": row.clip_norm}
    if row.class_weights:
        classes = row.sizes[-1]
        apart["class_weight"] = {k: 1 + k / classes for k in range(classes)}
    if row.l1:
        apart["regularization"] = {"l1": row.l1}
    return apart


class _DoneError(Exception):
    """Ends the training from within its listener."""


class Stopwatch:
    """A listener. The first epoch warms up; then each command is answered after whole epochs.

    `once`: seconds of the only measurement; None: read them from standard input until it ends.
    """

    def __init__(self, row: AnyRow, workers: int | str, once: float | None) -> None:
        self._row = row
        self._wanted_workers = workers
        self._once = once
        self._wanted_seconds: float | None = None
        self._steps = 0
        self._began = 0.0
        self._loss = float("nan")
        self._loss_before = float("nan")
        self._team: dict[str, Any] = {}
        self._settled = workers != "auto"  # choosing the number of workers is not part of the measurement

    def __call__(self, event: Any) -> None:
        from distbp.run import events

        if isinstance(event, events.Started):
            if isinstance(self._wanted_workers, int) and event.workers != self._wanted_workers:
                raise RuntimeError(f"asked for {self._wanted_workers} workers, got {event.workers}")
            self._team = {"workers": event.workers, "exchange": event.exchange, "kernels": event.kernels}
        elif isinstance(event, events.TeamChanged):
            self._settled = self._settled or event.reason.startswith("workers: auto chose")
            self._team["note"] = event.reason
        elif isinstance(event, events.EpochEnded) and self._settled:
            self._epoch(event.metrics["train_loss"])

    def _epoch(self, loss: float) -> None:
        self._loss = loss
        if self._wanted_seconds is None:
            if self._once is None:
                print(json.dumps({"ready": self._row.name}), flush=True)
        else:
            self._steps += self._row.steps_per_epoch
            passed = time.perf_counter() - self._began
            if passed < self._wanted_seconds:
                return
            measured = answer(self._row, self._steps, passed, self._loss_before, loss)
            print(json.dumps({**measured, **self._team}), flush=True)
            if self._once is not None:
                raise _DoneError
        self._wanted_seconds = self._next_command()
        self._steps, self._loss_before = 0, loss
        self._began = time.perf_counter()

    def _next_command(self) -> float:
        if self._once is not None:
            return self._once
        line = sys.stdin.readline()
        if not line:
            raise _DoneError
        return float(line)


def main(workers: int | str, shards: int, options: argparse.Namespace) -> None:
    """Trains the row with `workers` ("auto" or a number) until told to stop."""
    fix_threads(options.cores, 1)
    import distbp
    from benchmarks.synthetic import samples

    row = ALL_ROWS[options.row]
    job = distbp.TrainingJob(**job_of(row, shards))
    watch = Stopwatch(row, workers, None if options.serve else options.seconds)
    with tempfile.TemporaryDirectory(prefix="distbp-bench-") as folder:
        try:
            distbp.train(job, data=samples(row), output=Path(folder) / "run", workers=workers, listener=watch)
        except _DoneError:
            return
