"""One table of layers, every invariant of the contract in `layers/base.py`. A new layer is one row."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from distbp.nn.activations import ACTIVATIONS
from distbp.nn.initializers import Normal
from distbp.nn.kernels import Kernels, load
from distbp.nn.layers import LAYERS
from distbp.nn.layers.base import Array, Binding, Bound, Layer, Position, Shape
from distbp.streams import Purpose, Stream

ROWS = 6
DTYPES = [np.float32, np.float64]

# id: (type, options, input shape, output shape)
TABLE: dict[str, tuple[str, dict[str, Any], Shape, Shape]] = {
    **{f"dense {f}": ("dense", {"units": 3, "activation": f}, (4,), (3,)) for f in ACTIVATIONS},
    **{f"activation {f}": ("activation", {"function": f}, (2, 3), (2, 3)) for f in ACTIVATIONS},
    **{f: (f, {}, (5,), (5,)) for f in ACTIVATIONS},
    "dropout": ("dropout", {"rate": 0.4}, (3, 4), (3, 4)),
    "dropout 0": ("dropout", {"rate": 0.0}, (4,), (4,)),
    "batch_normalization": ("batch_normalization", {}, (4,), (4,)),
    "batch_normalization of positions": ("batch_normalization", {}, (2, 3), (2, 3)),
    "layer_normalization": ("layer_normalization", {}, (4,), (4,)),
    "layer_normalization of positions": ("layer_normalization", {}, (2, 5), (2, 5)),
    "flatten": ("flatten", {}, (2, 3, 2), (12,)),
    "reshape": ("reshape", {"shape": (3, 4)}, (2, 6), (3, 4)),
}
TRAINABLE = [row for row in TABLE if "step" not in row]


@dataclass
class Rig:
    """A layer bound on its own, to random parameters."""

    bound: Bound
    layer: Layer
    parameters: dict[str, Array]
    gradients: dict[str, Array]
    statistics: dict[str, Array]
    statistic_sums: dict[str, Array]
    position: Position


def rig(
    layer: Layer,
    input_shape: Shape,
    *,
    rows: int = ROWS,
    dtype: type = np.float64,
    training: bool = True,
    needs_input_gradient: bool = True,
    kernels: Kernels | None = None,
    index: int = 2,
) -> Rig:
    rng = np.random.default_rng(12)
    parameters = {
        spec.name: (rng.normal(size=spec.shape) + 0.1).astype(dtype) for spec in layer.parameters(input_shape)
    }
    gradients = {name: np.full_like(p, np.nan) for name, p in parameters.items()}
    specs = layer.statistics(input_shape)
    statistics = {s.name: (rng.random(s.shape) + 0.5).astype(dtype) for s in specs}
    sums = {s.name: np.full(s.shape, np.nan, dtype) for s in specs}
    for array in (*parameters.values(), *statistics.values()):
        array.flags.writeable = False
    position = Position()
    binding = Binding(
        rows=rows,
        input_shape=input_shape,
        dtype=np.dtype(dtype),
        training=training,
        needs_input_gradient=needs_input_gradient,
        index=index,
        parameters=parameters,
        gradients=gradients,
        statistics=statistics,
        statistic_sums=sums,
        kernels=kernels or load("numpy"),
        position=position,
        stream=Stream(7, Purpose.DROPOUT),
    )
    return Rig(layer.bind(binding), layer, parameters, gradients, statistics, sums, position)


def make(row: str, **options: Any) -> Rig:
    kind, fields, input_shape, _ = TABLE[row]
    return rig(LAYERS[kind](**fields), input_shape, **options)


def inputs(row: str, dtype: type = np.float64, rows: int = ROWS, seed: int = 0) -> Array:
    x = np.random.default_rng(seed).normal(scale=1.5, size=(rows, *TABLE[row][2]))
    x[np.abs(x) < 1e-3] += 0.01  # away from the kink of relu
    return x.astype(dtype)


def d_outputs(row: str, dtype: type = np.float64, rows: int = ROWS) -> Array:
    return np.random.default_rng(1).normal(size=(rows, *TABLE[row][3])).astype(dtype)


@pytest.fixture(params=["numpy", "numba", "fma", "mkl", "amx"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return load(request.param)


def test_every_layer_has_a_row() -> None:
    assert {kind for kind, *_ in TABLE.values()} == LAYERS.keys()
    assert LAYERS.keys() >= ACTIVATIONS.keys()


@pytest.mark.parametrize("row", TABLE)
class TestEvery:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("training", [True, False])
    def test_shapes_and_dtypes(self, row: str, dtype: type, training: bool, kernels: Kernels) -> None:
        kind, fields, input_shape, output_shape = TABLE[row]
        layer = LAYERS[kind](**fields)
        assert layer.output_shape(input_shape) == output_shape
        for rows in (1, ROWS):
            r = rig(layer, input_shape, rows=rows, dtype=dtype, training=training, kernels=kernels)
            x = inputs(row, dtype, rows)
            x.flags.writeable = False  # forward never writes to it
            y = r.bound.forward(x)
            assert y.shape == (rows, *output_shape)
            assert y.dtype == dtype
            assert np.isfinite(y).all()
            if training:
                dx = r.bound.backward(d_outputs(row, dtype, rows))
                assert dx is not None
                assert dx.shape == x.shape
                assert dx.dtype == dtype
                for written in (*r.gradients.values(), *r.statistic_sums.values()):
                    assert np.isfinite(written).all()

    def test_the_first_trained_layer_gives_no_input_gradient(self, row: str, kernels: Kernels) -> None:
        with_dx, without = make(row, kernels=kernels), make(row, kernels=kernels, needs_input_gradient=False)
        for r in (with_dx, without):
            r.bound.forward(inputs(row))
        assert with_dx.bound.backward(d_outputs(row)) is not None
        assert without.bound.backward(d_outputs(row)) is None
        for name, gradient in with_dx.gradients.items():
            assert np.array_equal(gradient, without.gradients[name])

    def test_gradients_are_sums_over_rows_written_not_added(self, row: str) -> None:
        r = make(row)
        r.bound.forward(inputs(row))
        r.bound.backward(d_outputs(row))
        once = {name: g.copy() for name, g in r.gradients.items()}
        r.bound.forward(inputs(row, seed=5))
        r.bound.backward(d_outputs(row) * 3)
        r.bound.forward(inputs(row))
        r.bound.backward(d_outputs(row))
        for name, gradient in r.gradients.items():
            assert np.array_equal(gradient, once[name])

    def test_the_same_call_gives_the_same_bits(self, row: str, kernels: Kernels) -> None:
        a, b = make(row, kernels=kernels), make(row, kernels=kernels)
        b.bound.forward(inputs(row, seed=9))  # b has a past
        y = a.bound.forward(inputs(row))
        assert np.array_equal(y, b.bound.forward(inputs(row)))
        da, db = a.bound.backward(d_outputs(row)), b.bound.backward(d_outputs(row))
        assert da is not None
        assert np.array_equal(da, db)

    def test_backward_leaves_the_output_alone(self, row: str, kernels: Kernels) -> None:
        # "valid until the next forward": the layer above and the health report may still look at it.
        r = make(row, kernels=kernels)
        y = r.bound.forward(inputs(row))
        kept = y.copy()
        r.bound.backward(d_outputs(row))
        assert np.array_equal(y, kept)

    @pytest.mark.parametrize("training", [True, False])
    def test_nan_is_never_masked(self, row: str, training: bool, kernels: Kernels) -> None:
        x = inputs(row, np.float32)
        x.reshape(ROWS, -1)[2, 1] = np.nan
        y = make(row, dtype=np.float32, training=training, kernels=kernels).bound.forward(x)
        assert np.isnan(y[2]).any()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_extreme_inputs_stay_finite(self, row: str, dtype: type, kernels: Kernels) -> None:
        x = np.sign(inputs(row, dtype)) * dtype(1e4)
        for training in (True, False):
            r = make(row, dtype=dtype, training=training, kernels=kernels)
            assert np.isfinite(r.bound.forward(x)).all()
        r = make(row, dtype=dtype, kernels=kernels)
        r.bound.forward(x)
        dx = r.bound.backward(d_outputs(row, dtype))
        assert dx is not None
        assert np.isfinite(dx).all()

    def test_evaluation_is_the_same_for_each_row_alone(self, row: str) -> None:
        whole = make(row, training=False).bound.forward(inputs(row)).copy()
        one = make(row, training=False, rows=1)
        for i in range(ROWS):
            y = one.bound.forward(inputs(row)[i : i + 1])
            np.testing.assert_allclose(y[0], whole[i], rtol=1e-13, atol=1e-15)

    def test_evaluation_has_no_backward(self, row: str) -> None:
        r = make(row, training=False)
        r.bound.forward(inputs(row))
        with pytest.raises(RuntimeError, match="bound for evaluation: there is no backward pass"):
            r.bound.backward(d_outputs(row))

    def test_the_hot_loop_keeps_no_memory(self, row: str, kernels: Kernels) -> None:
        r, x, dy = make(row, kernels=kernels), inputs(row), d_outputs(row)
        for _ in range(3):
            r.bound.forward(x)
            r.bound.backward(dy)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(50):
                r.bound.forward(x)
                r.bound.backward(dy)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < 2000  # the last call's view objects, nothing for each call

    def test_live_rows_of_each_unit_in_the_last_forward(self, row: str) -> None:
        r = make(row)
        if r.bound.live is None:
            return
        y = r.bound.forward(inputs(row))
        r.bound.backward(d_outputs(row))
        live = r.bound.live()
        assert live.shape == (y[0].size,)
        assert (live >= 0).all() and (live <= len(y)).all()

    def test_pickles_and_compares_by_value(self, row: str) -> None:
        kind, fields, _, _ = TABLE[row]
        layer = LAYERS[kind](**fields)
        assert pickle.loads(pickle.dumps(layer)) == layer
        assert layer.type == kind


def central_difference(f: Callable[[], float], array: Array, h: float = 1e-5) -> Array:
    numeric = np.empty_like(array)
    array.flags.writeable = True
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + h
        up = f()
        array[place] = kept - h
        down = f()
        array[place] = kept
        numeric[place] = (up - down) / (2 * h)
    return numeric


@pytest.mark.parametrize("row", TRAINABLE)
def test_gradients_meet_central_differences(row: str, kernels: Kernels) -> None:
    r, x, dy = make(row, kernels=kernels), inputs(row), d_outputs(row)

    def loss() -> float:
        return float((r.bound.forward(x) * dy).sum())

    loss()
    dx = r.bound.backward(dy.copy())
    assert dx is not None
    exact = {"input": dx.copy(), **{name: g.copy() for name, g in r.gradients.items()}}
    for name, array in {"input": x, **r.parameters}.items():
        numeric = central_difference(loss, array)
        error = np.linalg.norm(exact[name] - numeric) / max(np.linalg.norm(numeric), 1e-3)
        assert error < 1e-7, name


class TestDense:
    def test_by_hand(self) -> None:
        r = rig(LAYERS["dense"](units=1, activation="relu"), (2,), rows=2)
        for array, values in ((r.parameters["weight"], [[2.0, -1.0]]), (r.parameters["bias"], [0.5])):
            array.flags.writeable = True
            array[:] = values
        # Rows: 2*1 - 1*1 + 0.5 = 1.5, and 2*0 - 1*3 + 0.5 = -2.5, which relu cuts off.
        y = r.bound.forward(np.array([[1.0, 1.0], [0.0, 3.0]]))
        assert y.tolist() == [[1.5], [0.0]]
        dx = r.bound.backward(np.array([[10.0], [100.0]]))
        assert dx is not None
        assert dx.tolist() == [[20.0, -10.0], [0.0, 0.0]]
        assert r.gradients["weight"].tolist() == [[10.0, 10.0]]
        assert r.gradients["bias"].tolist() == [10.0]

    def test_parameters_decay_except_biases(self) -> None:
        layer = LAYERS["dense"](units=3, initializer=Normal(std=0.1))
        weight, bias = layer.parameters((5,))
        assert (weight.name, weight.shape, weight.fan_in, weight.fan_out) == ("weight", (3, 5), 5, 3)
        assert (weight.initializer, weight.decays) == (Normal(std=0.1), True)
        assert (bias.name, bias.shape, bias.decays) == ("bias", (3,), False)

    def test_refuses_samples_that_are_not_rows(self) -> None:
        with pytest.raises(ValueError, match=r"given shape \(28, 28\); put a \{type: flatten\} layer before"):
            LAYERS["dense"](units=3).output_shape((28, 28))


class TestDropout:
    def mask(self, step: int, shard: int, dtype: type = np.float64, index: int = 2) -> Array:
        r = rig(LAYERS["dropout"](rate=0.25), (500,), rows=40, dtype=dtype, index=index)
        r.position.step, r.position.shard = step, shard
        return r.bound.forward(np.ones((40, 500), dtype)).copy()

    def test_rate_is_the_share_dropped_and_the_rest_is_scaled(self) -> None:
        y = self.mask(3, 1)
        assert set(np.unique(y)) == {0.0, 1 / 0.75}
        # 20,000 draws: a standard error of the share is 0.003.
        assert (y == 0).mean() == pytest.approx(0.25, abs=0.015)
        assert y.mean() == pytest.approx(1, abs=0.02)

    def test_the_mask_is_a_function_of_the_position(self) -> None:
        here = self.mask(3, 1)
        assert np.array_equal(here, self.mask(3, 1))
        assert np.array_equal(here != 0, self.mask(3, 1, np.float32) != 0)
        for other in (self.mask(4, 1), self.mask(3, 2), self.mask(3, 1, index=3)):
            assert not np.array_equal(here, other)

    def test_backward_uses_the_mask_of_the_forward(self) -> None:
        r = make("dropout")
        r.position.step = 11
        y = r.bound.forward(np.ones((ROWS, 3, 4))).copy()
        assert np.array_equal(r.bound.backward(np.ones((ROWS, 3, 4))), y)

    def test_evaluation_passes_the_input_on(self) -> None:
        x = inputs("dropout")
        assert make("dropout", training=False).bound.forward(x) is x

    def test_a_rate_next_to_one_does_not_divide_by_zero(self) -> None:
        y = rig(LAYERS["dropout"](rate=0.9999999), (9,)).bound.forward(np.ones((ROWS, 9)))
        assert np.isfinite(y).all()


class TestBatchNormalization:
    def test_by_hand(self) -> None:
        r = rig(LAYERS["batch_normalization"](epsilon=1e-12), (1,), rows=4)
        x = np.array([[1.0], [3.0], [5.0], [7.0]])  # mean 4, biased variance 5, unbiased 20 / 3
        y = r.bound.forward(x)
        expected = (x - 4) / np.sqrt(5) * r.parameters["scale"] + r.parameters["shift"]
        np.testing.assert_allclose(y, expected, rtol=1e-11)
        assert r.statistic_sums["mean"] == pytest.approx(4 * 4)  # rows times the statistic
        assert r.statistic_sums["variance"] == pytest.approx(4 * 20 / 3)

    def test_positions_count_as_rows_and_sums_are_weighted_by_rows(self) -> None:
        r = rig(LAYERS["batch_normalization"](), (5, 2), rows=3)
        x = np.random.default_rng(0).normal(size=(3, 5, 2))
        r.bound.forward(x)
        np.testing.assert_allclose(r.statistic_sums["mean"], 3 * x.mean(axis=(0, 1)))
        np.testing.assert_allclose(r.statistic_sums["variance"], 3 * x.var(axis=(0, 1), ddof=1))

    def test_a_slice_of_one_row_gives_the_shift(self) -> None:
        r = rig(LAYERS["batch_normalization"](), (3,), rows=1)
        y = r.bound.forward(np.array([[2.0, 3.0, 4.0]]))
        assert np.array_equal(y[0], r.parameters["shift"])
        assert not r.statistic_sums["mean"].any()  # the worker does not count the row, either
        assert not r.statistic_sums["variance"].any()
        dx = r.bound.backward(np.ones((1, 3)))
        assert dx is not None
        assert not dx.any()

    def test_evaluation_uses_the_running_statistics(self) -> None:
        r = make("batch_normalization", training=False)
        x = inputs("batch_normalization")
        normalized = (x - r.statistics["mean"]) / np.sqrt(r.statistics["variance"] + 1e-5)
        expected = normalized * r.parameters["scale"] + r.parameters["shift"]
        np.testing.assert_allclose(r.bound.forward(x), expected, rtol=1e-12)

    def test_statistics_follow_the_momentum_of_pytorch(self) -> None:
        mean, variance = LAYERS["batch_normalization"](momentum=0.2).statistics((7,))
        assert (mean.name, mean.shape, mean.initial, mean.rate) == ("mean", (7,), 0.0, 0.2)
        assert (variance.name, variance.shape, variance.initial, variance.rate) == (
            "variance",
            (7,),
            1.0,
            0.2,
        )
        assert LAYERS["batch_normalization"]().momentum == 0.1

    @pytest.mark.parametrize("kind", ["batch_normalization", "layer_normalization"])
    def test_starts_as_the_identity_on_normal_data_and_does_not_decay(self, kind: str) -> None:
        scale, shift = LAYERS[kind]().parameters((2, 4))
        draw = np.random.default_rng(0)
        assert scale.initializer.draw(scale.shape, 4, 4, draw).tolist() == [1.0] * 4
        assert shift.initializer.draw(shift.shape, 4, 4, draw).tolist() == [0.0] * 4
        assert not scale.decays
        assert not shift.decays

    @pytest.mark.parametrize("kind", ["batch_normalization", "layer_normalization"])
    def test_needs_features(self, kind: str) -> None:
        with pytest.raises(ValueError, match=f"{kind} needs features on the last axis"):
            LAYERS[kind]().output_shape(())


def test_layer_normalization_normalizes_each_position() -> None:
    r = make("layer_normalization of positions")
    x = inputs("layer_normalization of positions")
    normalized = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    expected = normalized * r.parameters["scale"] + r.parameters["shift"]
    np.testing.assert_allclose(r.bound.forward(x), expected, rtol=1e-12, atol=1e-14)


class TestReshape:
    def test_keeps_the_order_and_copies_nothing(self) -> None:
        r = make("reshape")
        x = inputs("reshape")
        y = r.bound.forward(x)
        assert np.shares_memory(x, y)
        assert np.array_equal(y.ravel(), x.ravel())

    def test_refuses_sizes_that_do_not_fit(self) -> None:
        text = r"a sample has 12 numbers \(shape \[2, 6\]\), but shape \[5, 2\] holds 10"
        with pytest.raises(ValueError, match=text):
            LAYERS["reshape"](shape=(5, 2)).output_shape((2, 6))
        with pytest.raises(ValueError, match=r"sizes of 1 or more, but shape is \[-1, 2\]"):
            LAYERS["reshape"](shape=(-1, 2)).output_shape((2, 6))
