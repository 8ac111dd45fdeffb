"""Samples, first weights and sample orders, the same for every peer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from benchmarks.networks import CLASSES, NetworkRow
from benchmarks.rows import AnyRow, Row

PROBE_ROWS = 1_000


def samples(row: AnyRow) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (samples, features) float32, standard normal, and targets that a net can learn:
    labels (samples,) int64, or values (samples, outputs) float32.

    The labels are the largest of random linear scores with a little noise, so that a falling loss shows
    that a peer really trains.
    """
    random = np.random.default_rng(20)
    if isinstance(row, NetworkRow):
        return _network_samples(row, random)
    inputs = random.standard_normal((row.samples, row.sizes[0]), dtype=np.float32)
    teacher = random.standard_normal((row.sizes[0], row.sizes[-1]), dtype=np.float32)
    scores = inputs @ teacher
    scores += random.gumbel(scale=0.1 * np.sqrt(row.sizes[0]), size=scores.shape)
    if row.loss == "mse":
        return inputs, (scores / np.sqrt(row.sizes[0])).astype(np.float32)
    if row.loss == "sigmoid_cross_entropy":
        return inputs, (scores > 0).astype(np.float32)
    return inputs, scores.argmax(axis=1).astype(np.int64)


def _network_samples(row: NetworkRow, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Normal numbers (samples, *shape), or ids; labels of the largest mean of a tenth of the numbers."""
    shape = (row.samples, *row.shape)
    if row.below:
        inputs = random.integers(0, row.below, shape)
        numbers = random.standard_normal(row.below)[inputs]
    else:
        numbers = inputs = random.standard_normal(shape, dtype=np.float32)
    wide = numbers.reshape(row.samples, -1)
    parts = np.array_split(wide, CLASSES, axis=1)
    return inputs, np.argmax([part.mean(axis=1) for part in parts], axis=0).astype(np.int64)


def class_weights(row: Row) -> np.ndarray:
    """Of each class, float32."""
    return (1 + np.arange(row.sizes[-1]) / row.sizes[-1]).astype(np.float32)


def first_weights(row: Row) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each layer its weights (inputs, outputs) and biases (outputs,), float32.

    Glorot uniform, limit sqrt(6 / (inputs + outputs)) (Glorot and Bengio 2010); biases zero.
    """
    random = np.random.default_rng(21)
    layers = []
    for inputs, outputs in pairwise(row.sizes):
        limit = np.sqrt(6 / (inputs + outputs))
        weights = random.uniform(-limit, limit, (inputs, outputs)).astype(np.float32)
        layers.append((weights, np.zeros(outputs, np.float32)))
    return layers


def orders(row: AnyRow, steps: int | None = None, seed: int = 22) -> Iterator[np.ndarray]:
    """Endless stretches of freshly shuffled epochs: arrays (steps, batch) int64 of row numbers.

    `steps`: the longest stretch; None: whole epochs. The sequence of batches does not depend on it.
    """
    random = np.random.default_rng(seed)
    total = row.steps_per_epoch
    while True:
        epoch = random.permutation(row.samples)[: total * row.batch].reshape(total, row.batch)
        for first in range(0, total, steps or total):
            yield epoch[first : first + (steps or total)]
