"""One table of layers, every invariant of the contract in `layers/base.py`. A new layer is one row."""

from __future__ import annotations

import gc
import itertools
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tapes import Rig

from distbp.nn.activations import ACTIVATIONS
from distbp.nn.gradcheck import check
from distbp.nn.initializers import Normal
from distbp.nn.kernels import NUMPY, Kernels
from distbp.nn.layers import LAYERS
from distbp.nn.layers.base import Array, Shape, no_backward
from distbp.nn.tape import ABSENT, Space

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
    "batch_normalization of channels": ("batch_normalization", {"axis": 0}, (2, 3, 2), (2, 3, 2)),
    "layer_normalization": ("layer_normalization", {}, (4,), (4,)),
    "layer_normalization of positions": ("layer_normalization", {}, (2, 5), (2, 5)),
    "flatten": ("flatten", {}, (2, 3, 2), (12,)),
    "reshape": ("reshape", {"shape": (3, 4)}, (2, 6), (3, 4)),
    "conv2d": ("conv2d", {"filters": 3, "kernel_size": (2, 3)}, (2, 4, 5), (3, 3, 3)),
    "conv2d in groups": (
        "conv2d",
        {"filters": 4, "kernel_size": 3, "stride": 2, "padding": 1, "groups": 2, "activation": "tanh"},
        (2, 4, 5),
        (4, 2, 3),
    ),
    "max_pool2d": ("max_pool2d", {"kernel_size": 2}, (2, 4, 6), (2, 2, 3)),
    "average_pool2d": ("average_pool2d", {"kernel_size": 2}, (2, 4, 6), (2, 2, 3)),
    "global_average_pool2d": ("global_average_pool2d", {}, (3, 4, 2), (3,)),
    "conv1d": ("conv1d", {"filters": 3, "kernel_size": 2, "activation": "tanh"}, (5, 2), (4, 3)),
    "max_pool1d": ("max_pool1d", {"kernel_size": 2}, (4, 3), (2, 3)),
    "average_pool1d": ("average_pool1d", {"kernel_size": 2, "stride": 1}, (4, 3), (3, 3)),
    "elman": ("elman", {"units": 3}, (4, 2), (3,)),
    **{
        f"{kind}{of}": (kind, {"units": 3, **options}, (4, 2), shape)
        for kind in ("elman", "lstm", "gru")
        for of, options, shape in (
            (" of sequences", {"return_sequences": True}, (4, 3)),
            (" both ways", {"bidirectional": True}, (6,)),
            (" of sequences both ways", {"return_sequences": True, "bidirectional": True}, (4, 6)),
        )
    },
    "lstm": ("lstm", {"units": 3}, (4, 2), (3,)),
    "gru": ("gru", {"units": 3}, (4, 2), (3,)),
    **{
        f"dense_steps {f}": ("dense_steps", {"units": 3, "activation": f}, (4, 2), (4, 3))
        for f in ("linear", "gelu", "softmax")
    },
    "attention": ("attention", {"heads": 2}, (4, 6), (4, 6)),
    "attention, causal": ("attention", {"heads": 3, "causal": True, "bias": False}, (5, 3), (5, 3)),
    "attention of other units": ("attention", {"units": 4}, (3, 2), (3, 4)),
    "positional_encoding": ("positional_encoding", {}, (4, 3), (4, 3)),
    "positional_embedding": ("positional_embedding", {}, (4, 3), (4, 3)),
    "average_steps": ("average_steps", {}, (4, 3), (3,)),
    "last_step": ("last_step", {}, (4, 3), (3,)),
    "slice": ("slice", {"start": 1, "stop": 4}, (5,), (3,)),
    "slice of each step": ("slice", {"start": 1}, (4, 3), (4, 2)),
    "input": ("input", {"shape": (2, 2)}, (4,), (2, 2)),
    "dense, ntk": (
        "dense",
        {"units": 3, "activation": "tanh", "parametrization": "ntk"},
        (4,),
        (3,),
    ),
    "scale": ("scale", {}, (4,), (4,)),
    "scale of positions": ("scale", {}, (2, 3), (2, 3)),
    "periodic_embedding": ("periodic_embedding", {"frequencies": 5}, (3,), (12,)),
    **{
        f"parametric_activation {f}": ("parametric_activation", {"function": f}, (2, 3), (2, 3))
        for f in ("selu", "mish", "relu")
    },
}
TRAINABLE = [row for row in TABLE if "step" not in row]


def make(row: str, **options: Any) -> Rig:
    kind, fields, input_shape, _ = TABLE[row]
    return Rig(LAYERS[kind](**fields), input_shape, **options)


def inputs(row: str, dtype: type = np.float64, rows: int = ROWS, seed: int = 0) -> Array:
    x = np.random.default_rng(seed).normal(scale=1.5, size=(rows, *TABLE[row][2]))
    x[np.abs(x) < 1e-3] += 0.01  # away from the kink of relu
    return x.astype(dtype)


def d_outputs(row: str, dtype: type = np.float64, rows: int = ROWS) -> Array:
    return np.random.default_rng(1).normal(size=(rows, *TABLE[row][3])).astype(dtype)


def test_every_layer_has_a_row() -> None:
    """Layers of several inputs have theirs in test_graph.py, layers of ids in test_embedding.py."""
    of_numbers = {name for name, layer in LAYERS.items() if not layer.joins and layer.takes != "ids"}
    assert {kind for kind, *_ in TABLE.values()} == of_numbers
    assert LAYERS.keys() >= ACTIVATIONS.keys()


@pytest.mark.parametrize("row", TABLE)
class TestEvery:
    def test_shapes_and_finite_numbers(self, row: str, kernels: Kernels) -> None:
        kind, fields, input_shape, output_shape = TABLE[row]
        layer = LAYERS[kind](**fields)
        assert layer.output_shape(input_shape) == output_shape
        for rows, dtype, training in itertools.product((1, ROWS), DTYPES, (True, False)):
            r = Rig(layer, input_shape, rows=rows, dtype=dtype, training=training, kernels=kernels)
            x = inputs(row, dtype, rows)
            kept, parameters = x.copy(), r.vector.copy()
            y = r.forward(x)
            assert y.shape == (rows, *output_shape)
            assert y.dtype == dtype
            assert np.isfinite(y).all()
            if training:
                _, dx = r.both(x, d_outputs(row, dtype, rows))
                assert dx is not None
                assert np.isfinite(dx).all()
                assert np.isfinite(r.gradient).all()
            np.testing.assert_array_equal(x, kept)  # nothing is written to the inputs and the parameters
            np.testing.assert_array_equal(r.vector, parameters)

    def test_the_first_trained_layer_gives_no_input_gradient(self, row: str, kernels: Kernels) -> None:
        with_dx, without = make(row, kernels=kernels), make(row, kernels=kernels, wanted=False)
        x, dy = inputs(row), d_outputs(row)
        assert with_dx.both(x, dy)[1] is not None
        found = without.both(x, dy)[1]
        assert found is None or len(without.rows) == len(with_dx.rows)  # what only passes dy on may do so
        np.testing.assert_array_equal(without.gradient, with_dx.gradient)

    def test_gradients_are_sums_over_rows_written_not_added(self, row: str, kernels: Kernels) -> None:
        r = make(row, kernels=kernels)
        r.both(inputs(row), d_outputs(row))
        once = r.gradient.copy()
        r.both(inputs(row, seed=5), d_outputs(row) * 3)
        r.both(inputs(row), d_outputs(row))
        np.testing.assert_array_equal(r.gradient, once)

    def test_the_same_call_gives_the_same_bits(self, row: str, kernels: Kernels) -> None:
        a, b = make(row, kernels=kernels), make(row, kernels=kernels)
        b.both(inputs(row, seed=9), d_outputs(row))  # b has a past
        for one, other in zip(
            a.both(inputs(row), d_outputs(row)), b.both(inputs(row), d_outputs(row)), strict=True
        ):
            np.testing.assert_array_equal(one, other)

    def test_fewer_rows_than_the_tape_is_for(self, row: str, kernels: Kernels) -> None:
        large, small = make(row, kernels=kernels, rows=50), make(row, kernels=kernels)
        for one, other in zip(
            large.both(inputs(row), d_outputs(row)), small.both(inputs(row), d_outputs(row)), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(large.gradient, small.gradient, rtol=1e-12, atol=1e-13)

    def test_backward_leaves_the_output_alone(self, row: str, kernels: Kernels) -> None:
        # The layer above and the health report may still look at it.
        r, x = make(row, kernels=kernels), inputs(row)
        y = r.forward(x).copy()
        np.testing.assert_array_equal(r.both(x, d_outputs(row))[0], y)

    def test_nan_is_never_masked(self, row: str, kernels: Kernels) -> None:
        x = inputs(row, np.float32)
        x.reshape(ROWS, -1)[2, -1 if row == "last_step" else 1] = np.nan  # not in a step that is left out
        for training in (True, False):
            y = make(row, dtype=np.float32, training=training, kernels=kernels).forward(x)
            assert np.isnan(y[2]).any()

    def test_extreme_inputs_stay_finite(self, row: str, kernels: Kernels) -> None:
        for dtype in DTYPES:
            x = np.sign(inputs(row, dtype)) * dtype(1e4)
            for training in (True, False):
                r = make(row, dtype=dtype, training=training, kernels=kernels)
                assert np.isfinite(r.forward(x)).all()
            _, dx = make(row, dtype=dtype, kernels=kernels).both(x, d_outputs(row, dtype))
            assert dx is not None
            assert np.isfinite(dx).all()

    def test_evaluation_is_the_same_for_each_row_alone(self, row: str) -> None:
        whole = make(row, training=False).forward(inputs(row)).copy()
        one = make(row, training=False, rows=1)
        for i in range(ROWS):
            y = one.forward(np.ascontiguousarray(inputs(row)[i : i + 1]))
            np.testing.assert_allclose(y[0], whole[i], rtol=1e-13, atol=1e-15)

    def test_evaluation_has_no_backward(self, row: str) -> None:
        ops = make(row, training=False).rows
        assert not [op for op in ops if op.op.name.endswith("_backward")]
        assert not [op for op in ops if any(ref.space == Space.GRADIENT for ref in op.refs)]

    def test_the_hot_loop_keeps_no_memory(self, row: str, kernels: Kernels) -> None:
        r, x, dy = make(row, kernels=kernels), inputs(row), d_outputs(row)
        for _ in range(3):
            r.both(x, dy)
        gc.freeze()  # what other tests left is looked at no more: a collection is quick
        try:
            gc.collect()  # it empties the lists of free objects, too
            before = sys.getallocatedblocks()
            for _ in range(120):
                r.both(x, dy)
            gc.collect()
            grown = sys.getallocatedblocks() - before
        finally:
            gc.unfreeze()
        assert grown < 100  # the last call's view objects, nothing for each call

    def test_live_rows_of_each_unit(self, row: str, kernels: Kernels) -> None:
        r = make(row, kernels=kernels)
        y, _ = r.both(inputs(row), d_outputs(row))
        for live in r.live():
            assert y[0].size % live.size == 0  # a unit has an output, or as many in every sample
            assert (live >= 0).all() and (
                live <= ROWS * inputs(row)[0].size
            ).all()  # of each place in a sample
        once = [live.copy() for live in r.live()]
        r.both(inputs(row), d_outputs(row))
        for live, before in zip(r.live(), once, strict=True):  # they add up
            np.testing.assert_array_equal(live, 2 * before)

    def test_pickles_and_compares_by_value(self, row: str) -> None:
        kind, fields, _, _ = TABLE[row]
        layer = LAYERS[kind](**fields)
        assert pickle.loads(pickle.dumps(layer)) == layer
        assert layer.type == kind


@pytest.mark.parametrize("row", TRAINABLE)
def test_gradients_meet_central_differences(row: str, kernels: Kernels) -> None:
    r, x, dy = make(row, kernels=kernels), inputs(row), d_outputs(row)
    _, dx = r.both(x, dy)
    assert dx is not None
    # The forward pass writes the sums of the statistics: only the parameters have gradients.
    exact = {"input": dx.copy(), **{name: g.copy() for name, g in r.gradients.items()}}
    for name, array in {"input": x, **r.parameters}.items():
        report = check(lambda _: float((r.forward(x) * dy).sum()), array, exact[name])
        assert report.passed, f"{name}: {report}"


def test_lowered_for_evaluation_there_is_no_backward_pass() -> None:
    with pytest.raises(RuntimeError, match="lowered for evaluation: there is no backward pass"):
        no_backward(ABSENT)


class TestDense:
    def test_by_hand(self, kernels: Kernels) -> None:
        r = Rig(LAYERS["dense"](units=1, activation="relu"), (2,), rows=2, kernels=kernels)
        r.parameters["weight"][:], r.parameters["bias"][:] = [[2.0, -1.0]], [0.5]
        # Rows: 2*1 - 1*1 + 0.5 = 1.5, and 2*0 - 1*3 + 0.5 = -2.5, which relu cuts off.
        y, dx = r.both(np.array([[1.0, 1.0], [0.0, 3.0]]), np.array([[10.0], [100.0]]))
        assert y.tolist() == [[1.5], [0.0]]
        assert dx is not None
        assert dx.tolist() == [[20.0, -10.0], [0.0, 0.0]]
        assert r.gradients["weight"].tolist() == [[10.0, 10.0]]
        assert r.gradients["bias"].tolist() == [10.0]

    @pytest.mark.parametrize("units", [3, 16, 90])
    @pytest.mark.parametrize("rows", [2, 40, 200])
    def test_compiled_as_by_definition(self, units: int, rows: int, kernels: Kernels) -> None:
        """Few and many units and rows: the weights may be turned, and their gradient computed in parts."""
        layer = LAYERS["dense"](units=units, activation="tanh")
        mine, plain = (
            Rig(layer, (130,), rows=rows, dtype=t, kernels=k)
            for t, k in ((np.float32, kernels), (np.float64, NUMPY))
        )
        plain.vector[:] = mine.vector
        rng = np.random.default_rng(0)
        x = rng.normal(scale=0.1, size=(rows, 130)).astype(np.float32)
        dy = rng.normal(size=(rows, units)).astype(np.float32)
        for one, other in zip(
            mine.both(x, dy), plain.both(x.astype(np.float64), dy.astype(np.float64)), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * float(np.abs(other).max()))
        np.testing.assert_allclose(
            mine.gradient, plain.gradient, rtol=0, atol=2e-5 * float(np.abs(plain.gradient).max())
        )

    def test_parameters_decay_except_biases(self) -> None:
        layer = LAYERS["dense"](units=3, initializer=Normal(std=0.1))
        weight, bias = layer.parameters((5,))
        assert (weight.name, weight.shape, weight.fan_in, weight.fan_out) == ("weight", (3, 5), 5, 3)
        assert (weight.initializer, weight.decays) == (Normal(std=0.1), True)
        assert (bias.name, bias.shape, bias.decays) == ("bias", (3,), False)

    def test_refuses_samples_that_are_not_rows(self) -> None:
        text = (
            "a dense layer takes one row of numbers for each sample, but is given shape {}; put a {{type:"
            " flatten}} layer before it{}"
        )
        for shape, more in (
            ((28, 28), ", or take {type: dense_steps} for each step on its own"),
            ((1, 28, 28), ""),
        ):
            with pytest.raises(ValueError) as caught:
                LAYERS["dense"](units=3).output_shape(shape)
            assert str(caught.value) == text.format(shape, more)


class TestDropout:
    def mask(
        self, kernels: Kernels, step: int, shard: int, dtype: type = np.float64, index: int = 2
    ) -> Array:
        r = Rig(LAYERS["dropout"](rate=0.25), (500,), rows=40, dtype=dtype, index=index, kernels=kernels)
        return r.forward(np.ones((40, 500), dtype), step, shard).copy()

    def test_rate_is_the_share_dropped_and_the_rest_is_scaled(self, kernels: Kernels) -> None:
        y = self.mask(kernels, 3, 1)
        assert set(np.unique(y)) == {0.0, 1 / 0.75}
        # 20,000 draws: a standard error of the share is 0.003.
        assert (y == 0).mean() == pytest.approx(0.25, abs=0.015)
        assert y.mean() == pytest.approx(1, abs=0.02)

    def test_the_mask_is_a_function_of_the_position(self, kernels: Kernels) -> None:
        here = self.mask(NUMPY, 3, 1)
        assert np.array_equal(here, self.mask(kernels, 3, 1))
        assert np.array_equal(here != 0, self.mask(kernels, 3, 1, np.float32) != 0)
        for other in (
            self.mask(kernels, 4, 1, np.float32),
            self.mask(kernels, 3, 2, np.float32),
            self.mask(kernels, 3, 1, np.float32, index=3),
        ):
            assert not np.array_equal(here != 0, other != 0)

    def test_backward_uses_the_mask_of_the_forward(self, kernels: Kernels) -> None:
        ones = np.ones((ROWS, 3, 4), np.float32)
        y, dx = make("dropout", kernels=kernels, dtype=np.float32).both(ones, ones, step=11)
        np.testing.assert_array_equal(dx, y)

    def test_evaluation_passes_the_input_on(self) -> None:
        r, x = make("dropout", training=False), inputs("dropout")
        assert np.shares_memory(r.forward(x), x)
        assert r.rows == []

    def test_a_rate_next_to_one_does_not_divide_by_zero(self) -> None:
        y = Rig(LAYERS["dropout"](rate=0.9999999), (9,)).forward(np.ones((ROWS, 9)))
        assert np.isfinite(y).all()


class TestBatchNormalization:
    def test_by_hand(self) -> None:
        r = Rig(LAYERS["batch_normalization"](epsilon=1e-12), (1,), rows=4)
        x = np.array([[1.0], [3.0], [5.0], [7.0]])  # mean 4, biased variance 5, unbiased 20 / 3
        y = r.forward(x)
        expected = (x - 4) / np.sqrt(5) * r.parameters["scale"] + r.parameters["shift"]
        np.testing.assert_allclose(y, expected, rtol=1e-11)
        assert r.statistic_sums["mean"] == pytest.approx(4 * 4)  # rows times the statistic
        assert r.statistic_sums["variance"] == pytest.approx(4 * 20 / 3)

    def test_positions_count_as_rows_and_sums_are_weighted_by_rows(self) -> None:
        r = Rig(LAYERS["batch_normalization"](), (5, 2), rows=3)
        x = np.random.default_rng(0).normal(size=(3, 5, 2))
        r.forward(x)
        np.testing.assert_allclose(r.statistic_sums["mean"], 3 * x.mean(axis=(0, 1)))
        np.testing.assert_allclose(r.statistic_sums["variance"], 3 * x.var(axis=(0, 1), ddof=1))

    def test_a_slice_of_one_row_gives_the_shift(self) -> None:
        r = Rig(LAYERS["batch_normalization"](), (3,), rows=1)
        y, dx = r.both(np.array([[2.0, 3.0, 4.0]]), np.ones((1, 3)))
        assert np.array_equal(y[0], r.parameters["shift"])
        for sums in r.statistic_sums.values():  # one row says nothing of a variance
            assert sums.tolist() == [0.0, 0.0, 0.0]
        assert dx is not None
        assert not dx.any()

    def test_evaluation_uses_the_running_statistics(self) -> None:
        r = make("batch_normalization", training=False)
        x = inputs("batch_normalization")
        normalized = (x - r.statistics["mean"]) / np.sqrt(r.statistics["variance"] + 1e-5)
        expected = normalized * r.parameters["scale"] + r.parameters["shift"]
        np.testing.assert_allclose(r.forward(x), expected, rtol=1e-12)

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
    np.testing.assert_allclose(r.forward(x), expected, rtol=1e-12, atol=1e-14)


class TestReshape:
    def test_keeps_the_order_and_copies_nothing(self) -> None:
        r = make("reshape")
        x = inputs("reshape")
        y = r.forward(x)
        assert np.shares_memory(x, y)
        assert np.array_equal(y.ravel(), x.ravel())

    def test_refuses_sizes_that_do_not_fit(self) -> None:
        text = r"a sample has 12 numbers \(shape \[2, 6\]\), but shape \[5, 2\] holds 10"
        with pytest.raises(ValueError, match=text):
            LAYERS["reshape"](shape=(5, 2)).output_shape((2, 6))
        with pytest.raises(ValueError, match=r"sizes of 1 or more, but shape is \[-1, 2\]"):
            LAYERS["reshape"](shape=(-1, 2)).output_shape((2, 6))


GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "torch_layers.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['type']} {case['options']}")
def test_parity_with_pytorch(case: dict[str, Any]) -> None:
    """Of layers that are not in the files of a family."""
    x, ids = np.array(case["x"]), case["dx"] is None
    rig = Rig(LAYERS[case["type"]](**case["options"]), x.shape[1:], rows=len(x), wanted=not ids)
    for own, theirs in zip(rig.parameters.values(), case["parameters"], strict=True):
        own[:] = theirs
    y, dx = rig.both(x, np.array(case["dy"]))
    near = {"rtol": 0, "atol": 1e-10}
    np.testing.assert_allclose(y, case["outputs"], **near)
    assert (dx is None) == ids
    if dx is not None:
        np.testing.assert_allclose(dx, case["dx"], **near)
    for own, theirs in zip(rig.gradients.values(), case["gradients"], strict=True):
        np.testing.assert_allclose(own, theirs, **near)


def test_every_activation_of_pytorch_is_compared() -> None:
    """It has no step and no smooth_clip; linear gives what it takes."""
    own = {"linear", "step", "smooth_clip"}
    assert {case["type"] for case in GOLDEN} >= ACTIVATIONS.keys() - own
