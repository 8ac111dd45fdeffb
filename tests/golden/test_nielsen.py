"""GOLDEN.md, case 2: the training curves that come with M. Nielsen, "Neural Networks and Deep Learning".

The book's recipe draws from Python's `random` and NumPy's legacy generator, both seeded with 12345678, so the
order of the samples is made here; forward, backward, loss, tree and update are the real ones.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from rigs import make_job

from distbp.core.arrays import Array
from distbp.core.reduction import Block
from distbp.data.formats import FORMATS
from distbp.engine.blueprint import Blueprint
from distbp.engine.parameter_server import Contribution, ParameterServer
from distbp.engine.totals import BOUND, LIVE, LOSS, ROWS, WEIGHT
from distbp.nn import kernels
from distbp.nn.program import Program

SIZES = (784, 30, 10)
BATCH = 10
Curves = list[list[Any]]  # test cost, test accuracy, training cost, training accuracy; one entry an epoch


class Images(NamedTuple):
    """x: (n, 784) float64, pixels / 256; t: (n, 10) one-hot."""

    x: Array
    t: Array


def images(folder: Path, name: str, start: int, stop: int) -> Images:
    files = {"images": f"{name}-images-idx3-ubyte.gz", "labels": f"{name}-labels-idx1-ubyte.gz"}
    table = FORMATS["idx"](**files, rows=(start, stop)).open(folder / "data/mnist")
    return Images(table.inputs.reshape(stop - start, -1) / 256, np.eye(10)[table.targets])


class Book:
    """The book's `Network`: its random numbers, its order of samples, and our engine.

    `slices`: rows of a batch for each shard. `mean_of_means`: shards send means of the same weight, which
    is wrong for slices of different sizes.
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
        self.python, self.legacy = random.Random(12345678), np.random.RandomState(12345678)
        job = make_job(
            [
                {"type": "dense", "units": units, "activation": a}
                for units, a in ((30, "sigmoid"), (10, "linear"))
            ],
            loss={"type": "sigmoid_cross_entropy", "outputs": "sum"},
            optimizer={"type": "sgd", "learning_rate": rate},
            regularization={"l2": decay / rows},
            batch_size=BATCH,
            shards=len(slices),
            dtype="float64",
        )
        self.blueprint = Blueprint(job, len(slices), (784,), {"train": rows}, "numpy")
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
        """Biases first, then weights; `scaled`: divided by sqrt(fan in), else the "large" initializer."""
        biases = [self.legacy.randn(n, 1) for n in SIZES[1:]]
        weights = [self.legacy.randn(n, m) for m, n in itertools.pairwise(SIZES)]
        if scaled:
            weights = [w / np.sqrt(w.shape[1]) for w in weights]
        parts = [part.ravel() for w, b in zip(weights, biases, strict=True) for part in (w, b)]
        self.vector[:] = np.concatenate(parts)

    def shuffle(self) -> None:
        """As `random.shuffle` did in Python 2."""
        order, draw = self.order, self.python.random
        for i in reversed(range(1, len(order))):
            j = int(draw() * (i + 1))
            order[i], order[j] = order[j], order[i]

    def epoch(self, data: Images) -> None:
        self.shuffle()
        x, t = data.x[self.order], data.t[self.order]
        for start in range(0, len(x), BATCH):
            self.step(x[start : start + BATCH], t[start : start + BATCH])

    def step(self, x: Array, t: Array) -> None:
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
        """(cost, number of right answers)"""
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


def golden(folder: Path, name: str) -> Any:
    return json.loads((folder / "golden/nielsen" / name).read_text())


def overfitting(folder: Path, epochs: int, measure_from: int = 0, **options: Any) -> Curves:
    """The four curves; epochs before `measure_from` are trained and not measured."""
    train, test = images(folder, "train", 0, 1000), images(folder, "t10k", 0, 10_000)
    book = Book(0.5, rows=1000, **options)
    book.draw(scaled=False)
    curves: Curves = [[], [], [], []]
    for epoch in range(epochs):
        book.epoch(train)
        if epoch >= measure_from:
            values = (*book.measure(test), *book.measure(train))
            for curve, value in zip(curves, values, strict=True):
                curve.append(value)
    return curves


def assert_met(found: Curves, published: Curves, start: int, stop: int, tolerance: float) -> None:
    expected = [curve[start:stop] for curve in published]
    np.testing.assert_allclose(found[0], expected[0], rtol=tolerance)
    assert found[1] == expected[1]
    np.testing.assert_allclose(found[2], expected[2], rtol=tolerance)
    assert found[3] == expected[3]


def largest_miss(found: Curves, published: Curves) -> float:
    """The largest relative error of a cost."""
    return max(float(np.max(np.abs(np.array(found[i]) / published[i][: len(found[i])] - 1))) for i in (0, 2))


THREE = (4, 3, 3)


@pytest.mark.parametrize("slices", [(BATCH,), THREE], ids=["one shard", "three shards"])
def test_overfitting_begins_as_published(test_data: Path, slices: tuple[int, ...]) -> None:
    found = overfitting(test_data, 20, slices=slices)
    assert_met(found, golden(test_data, "overfitting.json"), 0, 20, 1e-13)


def test_mean_of_means_misses_the_curve(test_data: Path) -> None:
    found = overfitting(test_data, 20, slices=THREE, mean_of_means=True)
    assert largest_miss(found, golden(test_data, "overfitting.json")) > 0.005


@pytest.mark.slow
@pytest.mark.parametrize("slices", [(BATCH,), THREE], ids=["one shard", "three shards"])
def test_overfitting_in_full(test_data: Path, slices: tuple[int, ...]) -> None:
    found = overfitting(test_data, 400, slices=slices)
    published = golden(test_data, "overfitting.json")
    assert_met(found, published, 0, 400, 1e-13)
    assert published[1][-1] == found[1][-1] == 8223


@pytest.mark.slow
def test_mean_of_means_misses_the_whole_curve_by_nine_percent(test_data: Path) -> None:
    found = overfitting(test_data, 400, slices=THREE, mean_of_means=True)
    assert largest_miss(found, golden(test_data, "overfitting.json")) == pytest.approx(0.094, abs=5e-4)


def weight_initialization(folder: Path, kind: str, epochs: int) -> list[int]:
    """Right answers on the validation images. The book trains the "large" network after the default one, with
    the generators as that left them."""
    train, validation = images(folder, "train", 0, 50_000), images(folder, "train", 50_000, 60_000)
    book = Book(0.1, 5.0, rows=50_000)
    if kind == "large":
        for _ in range(30):
            book.shuffle()
        book.draw(scaled=False)
    found = []
    for _ in range(epochs):
        book.epoch(train)
        found.append(book.measure(validation)[1])
    return found


def published(folder: Path, kind: str) -> list[int]:
    curves = golden(folder, "weight_initialization_30.json")[f"{kind}_weight_initialization"]
    return list(curves[1])


@pytest.mark.parametrize("kind", ["default", "large"])
def test_weight_initialization_begins_as_published(test_data: Path, kind: str) -> None:
    assert weight_initialization(test_data, kind, 1) == published(test_data, kind)[:1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["default", "large"])
def test_weight_initialization_in_full(test_data: Path, kind: str) -> None:
    found = weight_initialization(test_data, kind, 30)
    assert found == published(test_data, kind)
    assert found[-1] == {"default": 9650, "large": 9637}[kind]
