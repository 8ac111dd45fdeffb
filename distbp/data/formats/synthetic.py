"""Synthetic data sets. Row i is a function of the options, the seed and i alone; `samples` only ends the set.

So a training and a test set can be two ranges of `rows` of the same set, and a larger set begins with the
same rows. Rows are made in blocks of 4,096, each from its own position of the Philox stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from distbp.core import settings
from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.core.options import option
from distbp.core.streams import Purpose, Stream, generator
from distbp.data.formats.base import RowRange
from distbp.data.table import Table, build, check_range

BLOCK = 4096
Block = Callable[[np.random.Generator], tuple[Array, Array]]  # -> float32 inputs, targets of BLOCK rows
Begin = Callable[[np.random.Generator], Block]  # draws the numbers that all rows of the set share

_SAMPLES = "number of rows in the set"
_ROWS = "[first, one past the last] row to use, counted from 0"
_SEED = "seed of the set; the same options and seed give the same rows"


def _generate(
    name: str, samples: int, rows: RowRange, seed: int, width: int, begin: Begin, shared: int = 0
) -> Table:
    """Makes some rows of a set. width: numbers in a row. shared: how many numbers `begin` draws. Raises
    DataError, before any is drawn, if the numbers would take more memory than is allowed."""
    start, stop = check_range(rows, samples, name)
    limit = settings.get("DISTBP_MAX_UNPACKED_BYTES")
    for what, size, remedy in (
        (f"{stop - start:,} rows of {width:,} numbers", (stop - start) * width * 4, "fewer rows"),
        (f"a block of {BLOCK:,} rows of {width:,} numbers", BLOCK * width * 8, "fewer numbers in a row"),
        (f"the {shared:,} numbers that all rows share", shared * 8, "fewer features, classes or units"),
    ):
        if size > limit:
            raise DataError(
                f"{name}: {what} take more than the {limit:,} bytes allowed; use {remedy}, or raise"
                " DISTBP_MAX_UNPACKED_BYTES"
            )
    make = begin(generator(seed, Purpose.SYNTHETIC, 0))
    stream = Stream(seed, Purpose.SYNTHETIC)
    inputs, targets = [], []
    for block in range(start // BLOCK, (stop - 1) // BLOCK + 1):
        x, y = make(stream.at(1, block))
        cut = slice(max(start - block * BLOCK, 0), stop - block * BLOCK)
        inputs.append(x[cut].copy())
        targets.append(y[cut].copy())
    return build(np.concatenate(inputs), np.concatenate(targets), name=name).at_row(start)


@dataclass(frozen=True, kw_only=True)
class Blobs:
    """Classes as round clouds around random centers, which are uniform in [-10, 10] for each feature."""

    type: Literal["blobs"] = "blobs"
    samples: int = option(1000, help=_SAMPLES, gt=0)
    features: int = option(2, help="number of inputs", gt=0)
    classes: int = option(3, help="number of clouds", gt=1)
    noise: float = option(1.0, help="standard deviation of a cloud", ge=0)
    seed: int = option(0, help=_SEED, ge=0)
    rows: tuple[int, int] | None = option(None, help=_ROWS)

    def open(self, folder: Path, confined: bool = False) -> Table:
        def begin(fixed: np.random.Generator) -> Block:
            centers = fixed.uniform(-10, 10, (self.classes, self.features))

            def make(random: np.random.Generator) -> tuple[Array, Array]:
                labels = random.integers(self.classes, size=BLOCK)
                points = centers[labels] + self.noise * random.standard_normal((BLOCK, self.features))
                return points.astype(np.float32), labels

            return make

        shared = self.classes * self.features
        return _generate("blobs", self.samples, self.rows, self.seed, self.features, begin, shared)


@dataclass(frozen=True, kw_only=True)
class Moons:
    """Two interleaved half circles of radius 1, which no straight line separates."""

    type: Literal["moons"] = "moons"
    samples: int = option(1000, help=_SAMPLES, gt=0)
    noise: float = option(0.1, help="standard deviation added to each coordinate", ge=0)
    seed: int = option(0, help=_SEED, ge=0)
    rows: tuple[int, int] | None = option(None, help=_ROWS)

    def open(self, folder: Path, confined: bool = False) -> Table:
        def make(random: np.random.Generator) -> tuple[Array, Array]:
            labels = random.integers(2, size=BLOCK)
            angle = random.uniform(0, np.pi, BLOCK)
            sign = 1 - 2 * labels  # the second moon hangs upside down, 1 to the right and 0.5 down
            points = np.column_stack((sign * np.cos(angle) + labels, sign * np.sin(angle) + 0.5 * labels))
            points += self.noise * random.standard_normal(points.shape)
            return points.astype(np.float32), labels

        return _generate("moons", self.samples, self.rows, self.seed, 2, lambda _: make)


@dataclass(frozen=True, kw_only=True)
class Spirals:
    """Spiral arms that wind around the origin from radius 0 to 1, one for each class."""

    type: Literal["spirals"] = "spirals"
    samples: int = option(1000, help=_SAMPLES, gt=0)
    classes: int = option(2, help="number of arms", gt=1)
    turns: float = option(1.0, help="how often an arm winds around", gt=0)
    noise: float = option(0.02, help="standard deviation added to each coordinate", ge=0)
    seed: int = option(0, help=_SEED, ge=0)
    rows: tuple[int, int] | None = option(None, help=_ROWS)

    def open(self, folder: Path, confined: bool = False) -> Table:
        def make(random: np.random.Generator) -> tuple[Array, Array]:
            labels = random.integers(self.classes, size=BLOCK)
            radius = np.sqrt(random.uniform(0, 1, BLOCK))  # so the arm is evenly covered
            angle = 2 * np.pi * (self.turns * radius + labels / self.classes)
            points = radius[:, None] * np.column_stack((np.cos(angle), np.sin(angle)))
            points += self.noise * random.standard_normal(points.shape)
            return points.astype(np.float32), labels

        return _generate("spirals", self.samples, self.rows, self.seed, 2, lambda _: make)


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Inputs N(0, 1); targets from a random network of one tanh layer, which a student can learn.

    The weights have the variances 1 / features and 1 / hidden. The targets are the outputs (regression), or
    the number of the largest output (classification). Noise is added to the outputs first.
    """

    type: Literal["teacher"] = "teacher"
    samples: int = option(1000, help=_SAMPLES, gt=0)
    features: int = option(20, help="number of inputs", gt=0)
    hidden: int = option(32, help="units in the teacher's hidden layer", gt=0)
    outputs: int = option(1, help="number of values, or of classes", gt=0)
    task: Literal["regression", "classification"] = option("regression", help="what the targets are")
    noise: float = option(0.0, help="standard deviation added to the teacher's outputs", ge=0)
    seed: int = option(0, help=_SEED, ge=0)
    rows: tuple[int, int] | None = option(None, help=_ROWS)

    def open(self, folder: Path, confined: bool = False) -> Table:
        if self.task == "classification" and self.outputs < 2:
            raise DataError(
                "teacher: classification needs at least 2 outputs, one for each class; set outputs: 2 or more"
            )

        def begin(fixed: np.random.Generator) -> Block:
            first = fixed.standard_normal((self.features, self.hidden)) / np.sqrt(self.features)
            second = fixed.standard_normal((self.hidden, self.outputs)) / np.sqrt(self.hidden)

            def make(random: np.random.Generator) -> tuple[Array, Array]:
                x = random.standard_normal((BLOCK, self.features), dtype=np.float32)
                y = np.tanh(x.astype(np.float64) @ first) @ second
                y += self.noise * random.standard_normal(y.shape)
                return x, y.argmax(axis=1) if self.task == "classification" else y

            return make

        width = self.features + self.outputs
        shared = self.hidden * max(width, BLOCK)  # the values of the hidden layer, for a block, too
        return _generate("teacher", self.samples, self.rows, self.seed, width, begin, shared)
