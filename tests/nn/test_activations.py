"""One row for each activation: an independent formula from `math`, and its derivative by differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tapes import run_op

from distbp.machine.distributions import normal_tail
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.gradcheck import check
from distbp.nn.kernels import Kernels
from distbp.nn.ops import OPS

REFERENCE: dict[str, Callable[[float], float]] = {
    "linear": lambda z: z,
    "step": lambda z: 1.0 if z >= 0 else 0.0,
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: z if z > 0 else 0.01 * z,
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)) if z > -700 else 0.0,
    "tanh": math.tanh,
    "elu": lambda z: z if z > 0 else math.expm1(z),
    "selu": lambda z: 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * math.expm1(z)),
    "smooth_clip": lambda z: z / math.sqrt(1 + (z / 3) ** 2),
    "mish": lambda z: z * math.tanh(max(z, 0.0) + math.log1p(math.exp(-abs(z)))),
    "softplus": lambda z: max(z, 0.0) + math.log1p(math.exp(-abs(z))),
    "silu": lambda z: z / (1 + math.exp(-z)) if z > -700 else 0.0,
    "gelu": lambda z: z * 0.5 * math.erfc(-z / math.sqrt(2)),
}
ROWWISE = {"softmax"}
TRAINABLE = [name for name, a in ACTIVATIONS.items() if a.trainable]


def forward(
    name: str, z: np.ndarray, in_place: bool = False, kernels: Kernels | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(y, kept), of a matrix."""
    nothing, rows = np.empty((0, z.shape[1]), z.dtype), np.full_like(z, np.nan)
    kept = rows if ACTIVATIONS[name].keeps else nothing
    compiled = kernels is not None and kernels.gemm is not None and z.dtype == np.float32
    found = run_op(OPS[name], [z, nothing, 0 if in_place else rows, kept], compiled=compiled)
    return found[2], found[3]


def backward(name: str, z: np.ndarray, dy: np.ndarray, kernels: Kernels | None = None) -> np.ndarray:
    """`run_op` looks at y and at what was kept: backward may not write to them."""
    y, kept = forward(name, z, kernels=kernels)
    compiled = kernels is not None and kernels.gemm is not None and z.dtype == np.float32
    given = [kept, y, dy, np.empty((0, z.shape[1]), z.dtype)]
    return run_op(OPS[f"{name}_backward"], given, compiled=compiled)[2]


def test_every_activation_has_a_row() -> None:
    assert REFERENCE.keys() | ROWWISE == ACTIVATIONS.keys()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", REFERENCE)
def test_values(name: str, dtype: type, kernels: Kernels) -> None:
    z = np.concatenate([np.linspace(-30, 30, 241), np.linspace(-2, 2, 101), [-1e4, 1e4]]).astype(dtype)
    z = z[:, None]
    expected = np.array([[REFERENCE[name](float(v))] for v in z[:, 0]])
    eps = float(np.finfo(dtype).eps)
    y, _ = forward(name, z, kernels=kernels)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, rtol=8 * eps, atol=4 * eps)
    if not ACTIVATIONS[name].keeps:
        assert np.array_equal(forward(name, z, in_place=True, kernels=kernels)[0], y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_values(dtype: type, kernels: Kernels) -> None:
    z = np.array([[1.0, 2.0, 3.0], [1e4, -1e4, 0.0], [5.0, 5.0, 5.0]], dtype)
    e1, e2 = math.exp(-1), math.exp(-2)
    total = 1 + e1 + e2
    expected = [[e2 / total, e1 / total, 1 / total], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]]
    y, _ = forward("softmax", z, kernels=kernels)
    np.testing.assert_allclose(y, expected, rtol=8 * float(np.finfo(dtype).eps))
    assert np.array_equal(forward("softmax", z, in_place=True, kernels=kernels)[0], y)


@pytest.mark.parametrize("name", TRAINABLE)
def test_derivative_meets_central_differences(name: str) -> None:
    rng = np.random.default_rng(4)
    z = rng.normal(scale=2.0, size=(6, 5))
    z[np.abs(z) < 1e-2] += 0.02  # the kink of relu is no place for differences
    dy = rng.normal(size=z.shape)
    report = check(lambda _: float((forward(name, z)[0] * dy).sum()), z, backward(name, z, dy))
    assert report.worst.error < 1e-8, str(report)


@pytest.mark.parametrize("name", ACTIVATIONS)
class TestEvery:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_extreme_inputs_stay_finite(self, name: str, dtype: type, kernels: Kernels) -> None:
        z = np.array([[-1e4, 1e4, 0.0, -0.0, 1e-30, -88.0, 88.0]], dtype)
        assert np.isfinite(forward(name, z, kernels=kernels)[0]).all()
        assert np.isfinite(backward(name, z, np.ones_like(z), kernels)).all()

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_nan_comes_out_where_it_goes_in(self, name: str, dtype: type, kernels: Kernels) -> None:
        z = np.array([[1.0, np.nan, -1.0], [0.5, 1.5, -0.5]], dtype)
        y, _ = forward(name, z, kernels=kernels)
        assert np.isnan(y[0, 1])
        assert np.isfinite(y[1]).all()
        dy = np.array([[1.0, 1.0, 1.0], [1.0, np.nan, np.nan]], dtype)
        dz = backward(name, np.array([[1.0, 2.0, -1.0], [0.5, 1.5, -0.5]], dtype), dy, kernels)
        assert np.isnan(dz[1, 1:]).all()
        assert np.isfinite(dz[0]).all()

    def test_rows_of_any_length(self, name: str, kernels: Kernels) -> None:
        if name in ROWWISE:
            return
        z = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
        for shape in ((24, 1), (1, 24), (3, 8)):
            y, _ = forward(name, z.reshape(shape), kernels=kernels)
            assert np.array_equal(y.reshape(6, 4), forward(name, z, kernels=kernels)[0])
            dz = backward(name, z.reshape(shape), np.ones(shape, np.float32), kernels)
            assert np.array_equal(dz.reshape(6, 4), backward(name, z, np.ones_like(z), kernels))

    def test_units_are_live_in_rows_where_they_are_not_flat(self, name: str, kernels: Kernels) -> None:
        flat = ACTIVATIONS[name].flat
        if flat is None:
            return
        z = np.array([[-50.0, -50.0, 0.3, 0.4], [-50.0, 0.5, -50.0, 0.4]], np.float32)
        y, kept = forward(name, z, kernels=kernels)
        given = [y, kept, np.ones((1, 4))]
        total = run_op(OPS["live_rows"], given, real=flat, compiled=kernels.gemm is not None)[2]
        assert total.tolist() == [[1, 2, 2, 3]]


def test_the_step_function_cannot_train_and_has_no_gradient() -> None:
    assert [name for name, a in ACTIVATIONS.items() if not a.trainable] == ["step"]
    assert not backward("step", np.array([[-1.0, 0.0, 2.0]]), np.ones((1, 3))).any()


@given(st.floats(-37, 37))
def test_normal_tail_meets_the_library_of_c(z: float) -> None:
    # Relative: an error of half an ulp in z^2 / 2 is one of up to z^2 / 2 ulp in its exponential.
    at = np.array([z])
    tail, distance, density = np.empty(1), np.empty(1), np.empty(1)
    normal_tail(at, tail=tail, distance=distance, density=density)
    bound = (8 + z * z) * 2.3e-16
    assert tail[0] == pytest.approx(0.5 * math.erfc(abs(z) / math.sqrt(2)), rel=bound, abs=1e-307)
    assert density[0] == pytest.approx(math.exp(-z * z / 2) / math.sqrt(2 * math.pi), rel=bound)
    assert distance[0] == abs(z)


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_limits_at_infinity(name: str) -> None:
    assert forward(name, np.array([[-np.inf, np.inf]]))[0].tolist() == [[0.0, np.inf]]


# By 60 digits of mpmath.
TAILS = {-16: 1.1253516205509499e-07, -20: 2.0611536181902037e-09, -40: 4.248354255291589e-18, 0: 0.5}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_tail_of_the_sigmoid_keeps_its_digits(kernels: Kernels, dtype: type) -> None:
    z = np.array([[*TAILS, -86, -700 if dtype is np.float64 else -86, -1e30, np.nan, 1e30]], dtype)
    far = np.exp(z[0, -5:-3].astype(np.float64))
    y = forward("sigmoid", z, in_place=True, kernels=kernels)[0][0]
    np.testing.assert_allclose(y[:-3], [*TAILS.values(), *far], rtol=4e-7 if dtype is np.float32 else 1e-15)
    assert y[-3] < 1e-37 and np.isnan(y[-2]) and y[-1] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["silu", "gelu", "mish", "softplus", "elu", "selu", "smooth_clip", "tanh"])
def test_what_is_nearly_zero_keeps_its_digits(name: str, dtype: type) -> None:
    z = np.array([[-1e-30, 1e-30, -1e-4, 3e-5, -8, -9]]).astype(dtype)
    z = z if name in ("silu", "gelu", "mish", "softplus", "smooth_clip") else z[:, :4]
    want = [REFERENCE[name](float(v)) for v in z[0]]
    np.testing.assert_allclose(forward(name, z)[0][0], want, rtol=2e-5 if dtype is np.float32 else 1e-13)
