"""Reproduces training curves of M. Nielsen, "Neural Networks and Deep Learning" (2015), chapter 3.

The book's program draws from Python's `random` and NumPy's legacy generator, both seeded with 12345678. This
module draws the first weights and the order of the samples in the same way. The engine does the rest: forward
and backward pass, loss, tree of sums, and update.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.core.reduction import Block
from distbp.data.formats import FORMATS
from distbp.engine.blueprint import Blueprint
from distbp.engine.parameter_server import Contribution, ParameterServer
from distbp.engine.totals import BOUND, LIVE, LOSS, ROWS, WEIGHT
from distbp.job import TrainingJob
from distbp.nn import kernels
from distbp.nn.program import Program
from distbp.run.reproduce.figures import Tell

SEED = 12345678
SIZES = (784, 30, 10)
BATCH = 10
Curves = list[list[float]]  # test cost, test accuracy, training cost, training accuracy, by epoch


class Images(NamedTuple):
    """x: (n, 784) float64, pixels / 256; t: (n, 10) one-hot."""

    x: Array
    t: Array


def images(folder: Path, name: str, start: int, stop: int) -> Images:
    """The rows [start, stop) of MNIST's files ("train" or "t10k") in a folder. Raises DataError."""
    files = {"images": f"{name}-images-idx3-ubyte.gz", "labels": f"{name}-labels-idx1-ubyte.gz"}
    table = FORMATS["idx"](**files, rows=(start, stop)).open(folder)
    return Images(table.inputs.reshape(stop - start, -1) / 256, np.eye(10)[table.targets])


class Book:
    """The book's `Network`, with its random numbers and its order of samples, on our engine.

    `rate`: the learning rate. `decay`: the book's lambda. `rows`: of the training set. `slices`: the rows of
    a batch for each shard. `mean_of_means`: shards send means with equal weights, which is wrong for slices
    of different sizes.
    """

    def __init__(
        self,
        rate: float,
        decay: float = 0.0,
        *,
        rows: int,
        slices: Sequence[int] = (BATCH,),
        mean_of_means: bool = False,
    ) -> None:
        self.python, self.legacy = random.Random(SEED), np.random.RandomState(SEED)
        job = TrainingJob.from_mapping(
            {
                "model": {
                    "layers": [
                        {"type": "dense", "units": units, "activation": activation}
                        for units, activation in zip(SIZES[1:], ("sigmoid", "linear"), strict=True)
                    ]
                },
                "loss": {"type": "sigmoid_cross_entropy", "outputs": "sum"},
                "optimizer": {"type": "sgd", "learning_rate": rate},
                "regularization": {"l2": decay / rows},
                "batch_size": BATCH,
                "shards": len(slices),
                "dtype": "float64",
            }
        )
        self.blueprint = Blueprint(job, len(slices), SIZES[:1], {"train": rows}, "numpy")
        self.network = self.blueprint.network()
        self.vector = self.network.initialize(0)
        self.server = ParameterServer(self.blueprint, self.vector)
        self.slices, self.mean_of_means = slices, mean_of_means
        self.order = list(range(rows))  # the book shuffles its training data in place
        self.shards = []
        for shard, count in enumerate(slices):
            gradient = np.zeros_like(self.vector)
            program = Program(
                self.network, count, self.vector, kernels=kernels.NUMPY, loss=job.loss, gradient=gradient
            )
            sums = Contribution(Block(shard, shard + 1), gradient, np.zeros_like(self.server.totals))
            self.shards.append((program, sums))
        self.measuring: dict[int, Program] = {}  # by the number of rows
        self.draw(scaled=True)

    def draw(self, scaled: bool) -> None:
        """Draws the biases, then the weights. scaled: weights are divided by sqrt(fan in); else they are
        those of the book's "large" initializer."""
        biases = [self.legacy.randn(n, 1) for n in SIZES[1:]]
        weights = [self.legacy.randn(n, m) for m, n in itertools.pairwise(SIZES)]
        if scaled:
            weights = [w / np.sqrt(w.shape[1]) for w in weights]
        parts = [part.ravel() for w, b in zip(weights, biases, strict=True) for part in (w, b)]
        self.vector[:] = np.concatenate(parts)

    def shuffle(self) -> None:
        """Shuffles the order of the samples as `random.shuffle` did in Python 2."""
        order, draw = self.order, self.python.random
        for i in reversed(range(1, len(order))):
            j = int(draw() * (i + 1))
            order[i], order[j] = order[j], order[i]

    def epoch(self, data: Images) -> None:
        """Trains on every row once."""
        self.shuffle()
        x, t = data.x[self.order], data.t[self.order]
        for start in range(0, len(x), BATCH):
            self.step(x[start : start + BATCH], t[start : start + BATCH])

    def step(self, x: Array, t: Array) -> None:
        """Makes one update. x: (rows, 784), t: (rows, 10)."""
        start = 0
        for (program, sums), count in zip(self.shards, self.slices, strict=True):
            part = slice(start, start + count)
            start += count
            program.run(x[part], t[part])
            sums.totals[LOSS], sums.totals[WEIGHT], sums.totals[BOUND], *live = program.totals
            sums.totals[LIVE:BOUND] = live
            sums.totals[ROWS] = count
            if self.mean_of_means:
                np.divide(sums.gradient, count, out=sums.gradient)
                sums.totals[WEIGHT] = 1
        self.server.apply(self.server.step, [sums for _, sums in self.shards])

    def measure(self, data: Images) -> tuple[float, int]:
        """Returns (cost, number of right answers)."""
        rows = len(data.x)
        if rows not in self.measuring:
            self.measuring[rows] = Program(
                self.network,
                rows,
                self.vector,
                kernels=kernels.NUMPY,
                loss=self.blueprint.job.loss,
                forward_only=True,
            )
        program = self.measuring[rows]
        program.run(data.x, data.t)
        right = program.outputs(rows).argmax(axis=1) == data.t.argmax(axis=1)
        return float(program.totals[LOSS]) / rows, int(right.sum())


def _nobody(text: str) -> None:
    pass


def overfitting(
    mnist: Path,
    epochs: int,
    *,
    slices: Sequence[int] = (BATCH,),
    mean_of_means: bool = False,
    tell: Tell = _nobody,
) -> Curves:
    """Trains on the first 1,000 images and returns the four curves. slices, mean_of_means: see `Book`."""
    train, test = images(mnist, "train", 0, 1000), images(mnist, "t10k", 0, 10_000)
    book = Book(0.5, rows=1000, slices=slices, mean_of_means=mean_of_means)
    book.draw(scaled=False)
    curves: Curves = [[], [], [], []]
    for epoch in range(epochs):
        book.epoch(train)
        values = (*book.measure(test), *book.measure(train))
        for curve, value in zip(curves, values, strict=True):
            curve.append(value)
        if epoch < 5 or epoch % 10 == 9:
            tell(f"epoch {epoch + 1} of {epochs}: {curves[1][-1]:,.0f} of 10,000 test images right")
    return curves


def weight_initialization(mnist: Path, kind: str, epochs: int, tell: Tell = _nobody) -> list[int]:
    """The number of right answers on the validation images, by epoch. kind: "default" or "large". The book
    trains the "large" network after the default one, so its generators begin in the state after 30
    epochs."""
    train, validation = images(mnist, "train", 0, 50_000), images(mnist, "train", 50_000, 60_000)
    book = Book(0.1, 5.0, rows=50_000)
    if kind == "large":
        for _ in range(30):
            book.shuffle()
        book.draw(scaled=False)
    found = []
    for epoch in range(epochs):
        book.epoch(train)
        found.append(book.measure(validation)[1])
        tell(
            f"{kind} weights, epoch {epoch + 1} of {epochs}: {found[-1]:,} of 10,000 validation images right"
        )
    return found
