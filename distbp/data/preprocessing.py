"""Preprocessing turns stored inputs into the numbers that the first layer takes.

    scale         x / scale
    standardize   (x - mean) / std, for each feature, with the statistics of the training rows alone

It is element-wise, so its bits do not depend on how rows are cut into chunks. A fitted `Preprocessing` is
kept in the model, because prediction needs the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.core.errors import DataError
from distbp.data.table import Table, chunks


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """`mean` and `std` have the shape of one row of inputs, float64; None: do not standardize.

    `mean` and `std` are those of the stored inputs: with both options the scale cancels.
    """

    scale: float = 1.0
    mean: Array | None = None
    std: Array | None = None

    def apply(self, raw: Array, out: Array) -> None:
        """Writes the prepared rows into `out`, float32 or float64, of the shape of `raw`.

        Takes one or two NumPy calls. Allocates memory only to standardize for float32: the differences.
        """
        if self.mean is None or self.std is None:
            if self.scale == 1:
                np.copyto(out, raw, casting="same_kind")
            else:
                np.divide(raw, self.scale, out=out, dtype=_precision(raw, out), casting="same_kind")
            return
        # Differences are in float64: in float32 those of large values (years, prices) have few digits left,
        # and those of tiny values none.
        wide = out if out.dtype == np.float64 else np.empty(out.shape)
        np.subtract(raw, self.mean, out=wide, dtype=np.float64)
        np.divide(wide, self.std, out=out, casting="same_kind")

    def as_targets(self, raw: Array, dtype: np.dtype[Any]) -> Array:
        """Inputs as targets, (n, numbers of a row), as the first layer takes them: `data.targets: inputs`."""
        prepared = np.empty(raw.shape, dtype)
        self.apply(raw, prepared)
        return prepared.reshape(len(raw), -1)

    def is_identity(self, dtype: Any) -> bool:
        """Whether `apply` does not change inputs stored as `dtype`, for a network of the same dtype."""
        stored = np.dtype(dtype)
        return stored.kind in "fi" and stored.isnative and self.scale == 1 and self.mean is None

    def check(self, features: Shape, name: str) -> None:
        """Raises DataError unless rows of the shape `features` can be prepared."""
        if self.mean is not None and self.mean.shape != tuple(features):
            raise DataError(
                f"{name}: one row has the shape {tuple(features)}, but the model was trained on"
                f" {self.mean.shape}; give the same columns as in training"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists; floats keep every bit through JSON."""
        result: dict[str, Any] = {"scale": self.scale}
        if self.mean is not None and self.std is not None:
            result["features"] = list(self.mean.shape)
            result["mean"] = self.mean.ravel().tolist()
            result["std"] = self.std.ravel().tolist()
        return result

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_json`. Raises DataError where `data` is damaged."""
        try:
            scale = float(data["scale"])
            _check_scale(scale)
            if "mean" not in data:
                return Preprocessing(scale)
            shape = tuple(int(n) for n in data["features"])
            mean = np.array(data["mean"], dtype=np.float64).reshape(shape)
            std = np.array(data["std"], dtype=np.float64).reshape(shape)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the model's preprocessing is damaged ({error}); save the model again") from None
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise DataError(
                "the model's preprocessing is damaged (a mean or std is not a number); save it again"
            )
        return Preprocessing(scale, mean, std)


def fit(table: Table, scale: float = 1.0, standardize: bool = False) -> Preprocessing:
    """Fits the preprocessing to a training table.

    mean = sum x / n, std = sqrt(sum (x - mean)^2 / n), in float64. The sums run over fixed chunks in row
    order, so memory stays flat and the bits are the same on every machine. Each column is first divided by a
    power of two, which rounds nothing, so that neither sums nor squares overflow. A constant column gets
    `scale` (by default 1) as its std, so it becomes 0. For rows with lengths, statistics are those of a
    feature over all steps that are not padding. Raises DataError if `scale` is not above 0, or if differences
    would overflow.
    """
    _check_scale(scale)
    if not standardize:
        return Preprocessing(float(scale))
    if table.lengths is not None:
        own = np.arange(table.features[0]) < table.lengths[:, None]
        if not own.any():
            raise DataError(f"{table.name}: all rows have length 0, so there is nothing to standardize by")
        steps = table.inputs[own]
        of_steps = fit(Table(steps.reshape(len(steps), -1), name=table.name), scale, True)
        assert of_steps.mean is not None and of_steps.std is not None
        mean, std = (a.reshape(steps.shape[1:]) for a in (of_steps.mean, of_steps.std))
        return Preprocessing(float(scale), *(np.broadcast_to(a, table.features).copy() for a in (mean, std)))
    exponent = exponents(table.inputs)
    if exponent.max(initial=0) > _MOST:
        raise DataError(f"{table.name}: values are too large to standardize in float64; scale the data down")
    # Around the first row: exact for constant columns, and no cancellation for large values.
    origin = np.ldexp(table.inputs[0].astype(np.float64), -exponent)
    mean = origin + _sum_rows(table.inputs, exponent, origin, 1) / len(table)
    # The second term takes away what the rounding of the mean added (Chan, Golub and LeVeque, 1983).
    residue = _sum_rows(table.inputs, exponent, mean, 1) / len(table)
    variance = _sum_rows(table.inputs, exponent, mean, 2) / len(table) - residue * residue
    std = np.ldexp(np.sqrt(np.maximum(variance, 0)), exponent)
    std[std == 0] = scale
    return Preprocessing(float(scale), np.ldexp(mean, exponent), std)


_MOST = 1023  # a difference of two smaller numbers is a float64


def exponents(inputs: Array) -> Array:
    """The exponent e of each column with max |x| < 2^e; 0 for types narrower than float64, whose sums of
    squares cannot overflow float64."""
    if inputs.dtype.kind != "f" or inputs.dtype.itemsize < 8:
        return np.zeros(inputs.shape[1:], np.int32)
    largest = np.zeros(inputs.shape[1:])
    for _, chunk in chunks(inputs):
        np.maximum(largest, np.abs(chunk).max(axis=0), out=largest)
    return np.asarray(np.frexp(largest)[1])


def _sum_rows(inputs: Array, exponent: Array, center: Array, power: int) -> Array:
    total = np.zeros(inputs.shape[1:])
    for _, chunk in chunks(inputs):
        rows = np.array(chunk, dtype=np.float64, order="C")
        if exponent.any():
            np.ldexp(rows, -exponent, out=rows)
        rows -= center
        if power == 2:
            rows *= rows
        total += rows.sum(axis=0)
    return total


def _precision(raw: Array, out: Array) -> type[np.floating[Any]]:
    """The dtype of a quotient: float32 if stored values are exact in it, so that the quotient is rounded
    once; else float64."""
    exact = raw.dtype.itemsize <= (4 if raw.dtype.kind == "f" else 2)
    return np.float32 if out.dtype == np.float32 and exact else np.float64


def _check_scale(scale: float) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise DataError(f"scale is {scale}, but must be a number above 0, such as 255 for pixels")
