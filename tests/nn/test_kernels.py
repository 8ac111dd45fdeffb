"""Both sets of kernels against the plain formulas, and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distbp.nn.activations import ACTIVATIONS, make_scratch
from distbp.nn.kernels import NUMPY, Kernels, load
from distbp.numerics import kernel_set

DTYPES = [np.float32, np.float64]


@pytest.fixture(params=["numpy", "numba", "fma", "mkl", "amx"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return load(request.param)


def close(actual: np.ndarray, expected: np.ndarray, dtype: type, ulps: float = 16) -> None:
    eps = float(np.finfo(dtype).eps)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual, expected, rtol=ulps * eps, atol=ulps * eps * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activate_and_back(kernels: Kernels, name: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    activation = ACTIVATIONS[name]
    z0, bias = rng.normal(size=(9, 5)).astype(dtype), rng.normal(size=5).astype(dtype)
    dy0 = rng.normal(size=(9, 5)).astype(dtype)
    for y_is_z in (False,) if activation.keeps_input else (False, True):
        z = z0.copy()
        y = z if y_is_z else np.empty_like(z)
        scratch = make_scratch(lambda *shape: np.empty(shape, dtype), z.shape)
        kernels.activate(activation, z, bias, y, scratch)()
        expected, other = np.empty_like(z), make_scratch(lambda *shape: np.empty(shape, dtype), z.shape)
        activation.forward(z0 + bias, expected, other)
        close(y, expected, dtype)
        dy, db = dy0.copy(), np.full(5, np.nan, dtype)
        kernels.activate_backward(activation, z, y, scratch, db)(dy)
        expected_dy = dy0.copy()
        activation.backward(expected_dy, z0 + bias, expected, other)
        close(dy, expected_dy, dtype)
        close(db, expected_dy.sum(axis=0, dtype=np.float64), dtype, ulps=64)
        assert y.dtype == dy.dtype == db.dtype == dtype


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_and_extremes(kernels: Kernels, name: str) -> None:
    activation = ACTIVATIONS[name]
    z = np.array([[np.nan, 0.5, -0.5], [1e4, -1e4, 0.0], [-1.0, 1.0, 0.25]], np.float32)
    y = np.empty_like(z) if activation.keeps_input else z
    scratch = make_scratch(lambda *shape: np.empty(shape, np.float32), z.shape)
    kernels.activate(activation, z, np.zeros(3, np.float32), y, scratch)()
    assert np.isnan(y[0, 0])
    assert np.isfinite(y[1:]).all()
    dy, db = np.ones_like(z), np.empty(3, np.float32)
    dy[2, 0] = np.nan
    kernels.activate_backward(activation, z, y, scratch, db)(dy)
    assert np.isnan(dy[2, 0])
    assert np.isnan(db[0])
    assert np.isfinite(dy[1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_cross_entropy_of_the_golden_case(kernels: Kernels, dtype: type) -> None:
    z = np.array([[1, 2, 0.5], [0.2, -0.3, 1]], dtype)
    labels, weights = np.array([0, 2]), np.array([2, 0.5], dtype)
    loss = kernels.softmax_cross_entropy(2, 3, np.dtype(dtype))
    dz = np.empty_like(z)
    rel = 1e-10 if dtype is np.float64 else 1e-6
    assert loss(z, labels, None, dz) / 2 == pytest.approx(1.0038871629, rel=rel)
    assert loss(z, labels, weights, dz) / 2.5 == pytest.approx(1.2801761356, rel=rel)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    close(dz, weights[:, None] * (p - np.eye(3)[labels]), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [5, 77])
def test_softmax_cross_entropy_meets_the_formula(
    kernels: Kernels, dtype: type, weighted: bool, rows: int
) -> None:
    rng = np.random.default_rng(2)
    classes = 7
    z = (rng.normal(size=(rows, classes)) * 4).astype(dtype)
    labels = rng.integers(classes, size=rows)
    weights = rng.random(rows).astype(dtype) if weighted else None
    w = np.ones(rows) if weights is None else weights.astype(np.float64)
    exact = z.astype(np.float64)
    p = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    expected = float((w * -np.log(p[np.arange(rows), labels])).sum())
    loss = kernels.softmax_cross_entropy(rows, classes, np.dtype(dtype))
    kept, dz = z.copy(), np.empty_like(z)
    result = loss(z, labels, weights, dz)
    assert isinstance(result, float)
    assert result == pytest.approx(expected, rel=1e-6 if dtype is np.float32 else 1e-13)
    assert np.array_equal(z, kept)
    close(dz, w[:, None] * (p - np.eye(classes)[labels]), dtype)
    assert loss(kept, labels, weights, kept) == result  # dz may be z
    assert np.array_equal(kept, dz)


def test_softmax_cross_entropy_at_extremes_and_nan(kernels: Kernels) -> None:
    z = np.array([[1e4, -1e4], [-1e4, 1e4], [0, 0]], np.float32)
    labels, dz = np.array([0, 0, 1]), np.empty((3, 2), np.float32)
    loss = kernels.softmax_cross_entropy(3, 2, np.dtype(np.float32))
    assert loss(z, labels, None, dz) == pytest.approx(2e4 + math.log(2))
    assert dz.tolist() == [[0, 0], [-1, 1], [0.5, -0.5]]
    for column in (0, 1):
        bad = z.copy()
        bad[2, column] = np.nan
        assert math.isnan(loss(bad, labels, None, dz))
        assert np.isnan(dz[2]).all()
        assert np.isfinite(dz[:2]).all()


def test_read_only_parameters_are_enough(kernels: Kernels) -> None:
    bias, z = np.ones(3), np.zeros((2, 3))
    bias.flags.writeable = False
    scratch = make_scratch(lambda *shape: np.empty(shape), z.shape)
    kernels.activate(ACTIVATIONS["relu"], z, bias, z, scratch)()
    assert (z == 1).all()


def test_the_set_that_is_there_without_more() -> None:
    assert load("numpy") is NUMPY


def test_a_set_has_the_name_it_is_loaded_by(kernels: Kernels, request: pytest.FixtureRequest) -> None:
    assert kernels.name == request.node.callspec.params["kernels"]


def test_auto_is_for_those_who_choose_and_no_set() -> None:
    assert load(kernel_set("auto")).name == kernel_set("auto")
    with pytest.raises(KeyError):
        load("auto")
