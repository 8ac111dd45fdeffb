"""Every kernel set of this machine on the same one-row tapes, against plain formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from kernel_sets import MISSING
from operands import KINDS, exact, operands
from tapes import LossRig, Rig, tape_product

from distbp.engine.numerics import kernel_set
from distbp.nn.kernels import NUMPY, Kernels, load
from distbp.nn.layers import LAYERS
from distbp.nn.losses import SoftmaxCrossEntropy

DTYPES = [np.float32, np.float64]


def close(actual: np.ndarray, expected: np.ndarray, dtype: Any, ulps: float = 16) -> None:
    eps = float(np.finfo(dtype).eps)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual, expected, rtol=ulps * eps, atol=ulps * eps * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (64, 10, 300), (200, 130, 140)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_products(kernels: Kernels, kind: str, shape: tuple[int, int, int], dtype: Any) -> None:
    a, b = (one.astype(dtype) for one in operands(kind, *shape))
    right, bound = exact(kind, a, b), exact(kind, np.abs(a), np.abs(b))
    unit = shape[2] * float(np.finfo(dtype).eps)
    assert (np.abs(tape_product(kernels, kind, a, b) - right) <= unit * bound).all()
    start = np.random.default_rng(1).normal(size=right.shape).astype(dtype)
    more = tape_product(kernels, kind, a, b, start)
    assert (np.abs(more - (right + start)) <= 2 * unit * (bound + np.abs(start))).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_cross_entropy_of_the_golden_case(kernels: Kernels, dtype: Any) -> None:
    z = np.array([[1, 2, 0.5], [0.2, -0.3, 1]], dtype)
    labels, weights = np.array([0, 2]), np.array([2, 0.5], dtype)
    loss = LossRig(SoftmaxCrossEntropy(), 2, 3, dtype, kernels)
    rel = 1e-10 if dtype is np.float64 else 1e-6
    assert loss(z, labels) / 2 == pytest.approx(1.0038871629, rel=rel)
    assert loss(z, labels, weights) / 2.5 == pytest.approx(1.2801761356, rel=rel)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    close(loss.gradient, weights[:, None] * (p - np.eye(3)[labels]), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [5, 77])
def test_softmax_cross_entropy_meets_the_formula(
    kernels: Kernels, dtype: Any, weighted: bool, rows: int
) -> None:
    rng = np.random.default_rng(2)
    classes = 7
    z = (rng.normal(size=(rows, classes)) * 4).astype(dtype)
    labels = rng.integers(classes, size=rows)
    weights = rng.random(rows).astype(dtype) if weighted else None
    w = np.ones(rows) if weights is None else weights.astype(np.float64)
    wide = z.astype(np.float64)
    p = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    expected = float((w * -np.log(p[np.arange(rows), labels])).sum())
    loss = LossRig(SoftmaxCrossEntropy(), rows, classes, dtype, kernels)
    kept = z.copy()
    assert loss(z, labels, weights) == pytest.approx(expected, rel=1e-6 if dtype is np.float32 else 1e-13)
    assert np.array_equal(z, kept)
    close(loss.gradient, w[:, None] * (p - np.eye(classes)[labels]), dtype)


def test_softmax_cross_entropy_at_extremes_and_nan(kernels: Kernels) -> None:
    z = np.array([[1e4, -1e4], [-1e4, 1e4], [0, 0]], np.float32)
    labels = np.array([0, 0, 1])
    loss = LossRig(SoftmaxCrossEntropy(), 3, 2, np.float32, kernels)
    assert loss(z, labels) == pytest.approx(2e4 + math.log(2))
    assert loss.gradient.tolist() == [[0, 0], [-1, 1], [0.5, -0.5]]
    for column in (0, 1):
        bad = z.copy()
        bad[2, column] = np.nan
        assert math.isnan(loss(bad, labels))
        assert np.isnan(loss.gradient[2]).all()
        assert np.isfinite(loss.gradient[:2]).all()


def test_read_only_parameters_are_enough(kernels: Kernels) -> None:
    rig = Rig(LAYERS["dense"](units=3, activation="relu"), (2,), rows=2, kernels=kernels, training=False)
    rig.parameters["weight"][:], rig.parameters["bias"][:] = 0, 1
    rig.vector.flags.writeable = False
    assert (rig.forward(np.zeros((2, 2))) == 1).all()


def test_the_set_that_is_there_without_more() -> None:
    assert load("numpy") is NUMPY


def test_a_set_has_the_name_it_is_loaded_by(kernels: Kernels, request: pytest.FixtureRequest) -> None:
    assert kernels.name == request.node.callspec.params["kernels"]


def test_every_set_can_be_used_here() -> None:
    if MISSING:
        reasons = (f"{name}: {reason}" for name, reason in MISSING.items())
        pytest.skip(f"kernel sets that no test here computes with: {'; '.join(reasons)}")


def test_auto_is_for_those_who_choose_and_no_set() -> None:
    assert load(kernel_set("auto")).name == kernel_set("auto")
    with pytest.raises(KeyError):
        load("auto")
