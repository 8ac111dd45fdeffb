"""Every loss of the table against its contract, one row a case; and the conventions against PyTorch."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tapes import LossRig

from distbp.nn.activations import ACTIVATIONS
from distbp.nn.gradcheck import check
from distbp.nn.kernels import NUMPY, Kernels
from distbp.nn.losses import (
    LOSSES,
    MAE,
    MSE,
    NLL,
    BinaryCrossEntropy,
    Hinge,
    Huber,
    Perceptron,
    Poisson,
    Quadratic,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)
from distbp.nn.losses.base import _SQUASHES, Targets
from distbp.nn.program import loss_sum

CASES = [
    Quadratic(),
    MSE(),
    MAE(),
    Huber(),
    Huber(delta=0.3),
    Poisson(),
    Poisson(log_input=False),
    SigmoidCrossEntropy(),
    SigmoidCrossEntropy(outputs="sum"),
    BinaryCrossEntropy(),
    BinaryCrossEntropy(outputs="sum"),
    Perceptron(),
    SoftmaxCrossEntropy(),
    SoftmaxCrossEntropy(label_smoothing=0.1),
    NLL(),
    Hinge(),
    Hinge(margin=0.5, power=2),
]
every_loss = pytest.mark.parametrize("loss", CASES, ids=repr)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def example(
    loss: Any, rows: int, outputs: int = 4, dtype: str = "float64", seed: int = 0
) -> tuple[Any, Any, Any]:
    """Outputs, targets and weights that fit `loss`."""
    rng = np.random.default_rng(seed)
    if loss.takes == "probabilities" or (isinstance(loss, Poisson) and not loss.log_input):
        y = rng.uniform(0.05, 0.95, (rows, outputs))
    else:
        y = rng.normal(size=(rows, outputs))
    if loss.targets == "labels":
        t: Any = rng.integers(0, outputs, rows)
    elif loss.task == "binary":
        t = rng.uniform(0, 1, (rows, outputs)).astype(dtype)
    elif isinstance(loss, Poisson):
        t = rng.poisson(2.0, (rows, outputs)).astype(dtype)
    else:
        t = rng.normal(size=(rows, outputs)).astype(dtype)
    return y.astype(dtype), t, rng.uniform(0.1, 3, rows).astype(dtype)


def value_and_gradient(
    loss: Any, y: Any, t: Any, weights: Any = None, kernels: Kernels = NUMPY
) -> tuple[float, Any]:
    rig = LossRig(loss, *y.shape, y.dtype, kernels)
    return rig(y, t, weights), rig.gradient.copy()


def meets_differences(loss: Any, y: Any, t: Any, weights: Any) -> None:
    rig = LossRig(loss, *y.shape)
    rig(y, t, weights)
    report = check(lambda x: rig(x, t, weights), y, rig.gradient.copy())
    assert report.passed, str(report)
    assert report.worst.error < 1e-7


def test_every_loss_of_the_table_is_tested() -> None:
    assert {loss.type for loss in CASES} == set(LOSSES)
    assert all(LOSSES[loss.type] is type(loss) for loss in CASES)


@every_loss
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [2, 4])
def test_gradient_agrees_with_central_differences(loss: Any, weighted: bool, outputs: int) -> None:
    y, t, w = example(loss, 7, outputs, seed=outputs)
    meets_differences(loss, y, t, w if weighted else None)


@every_loss
def test_one_output_where_the_loss_takes_values(loss: Any) -> None:
    if loss.targets == "labels":
        return
    meets_differences(loss, *example(loss, 5, 1))


@every_loss
@every_dtype
def test_sum_over_rows_and_not_a_mean(loss: Any, dtype: str, kernels: Kernels) -> None:
    y, t, w = example(loss, 6, dtype=dtype)
    once, d_once = value_and_gradient(loss, y, t, w, kernels)
    twice, d_twice = value_and_gradient(
        loss, np.tile(y, (2, 1)), np.concatenate([t, t]), np.tile(w, 2), kernels
    )
    assert twice == pytest.approx(2 * once, rel=1e-6)
    np.testing.assert_allclose(d_twice, np.tile(d_once, (2, 1)), rtol=1e-6, atol=1e-7)


@every_loss
@every_dtype
def test_a_weight_of_two_is_the_row_twice(loss: Any, dtype: str, kernels: Kernels) -> None:
    y, t, _ = example(loss, 5, dtype=dtype)
    weights = np.ones(5, dtype)
    weights[3] = 2
    order = [0, 1, 2, 3, 3, 4]
    weighted, d_weighted = value_and_gradient(loss, y, t, weights, kernels)
    repeated, d_repeated = value_and_gradient(loss, y[order], t[order], kernels=kernels)
    assert weighted == pytest.approx(repeated, rel=1e-6)
    np.testing.assert_allclose(d_weighted[3], d_repeated[3] + d_repeated[4], rtol=1e-6)


@every_loss
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 9), cut=st.integers(0, 9))
def test_shards_add_up_and_weights_of_one_change_nothing(loss: Any, seed: int, rows: int, cut: int) -> None:
    y, t, w = example(loss, rows, seed=seed)
    cut = min(cut, rows)
    whole, d = value_and_gradient(loss, y, t, w)
    parts = [
        value_and_gradient(loss, y[s], t[s], w[s]) for s in (slice(0, cut), slice(cut, rows)) if len(y[s])
    ]
    assert whole == pytest.approx(sum(value for value, _ in parts), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(d, np.concatenate([gradient for _, gradient in parts]), rtol=1e-13, atol=1e-15)
    plain, d_plain = value_and_gradient(loss, y, t)
    ones, d_ones = value_and_gradient(loss, y, t, np.ones(rows))
    assert ones == pytest.approx(plain, rel=1e-12, abs=1e-12)
    np.testing.assert_array_equal(d_ones, d_plain)


@every_loss
@every_dtype
def test_losses_of_rows_weights_and_inputs_that_are_not_touched(
    loss: Any, dtype: str, kernels: Kernels
) -> None:
    y, t, w = example(loss, 5, dtype=dtype)
    before = y.copy(), t.copy(), w.copy()
    rig = LossRig(loss, 5, 4, dtype, kernels)
    for weights, total in ((None, 5.0), (w, w.sum(dtype=np.float64))):
        value = rig(y, t, weights)
        assert rig.weight == pytest.approx(total, rel=1e-14)
        assert rig.gradient.dtype == rig.losses.dtype == dtype
        assert np.isfinite(rig.gradient).all()
        rows = rig.losses.sum(axis=1, dtype=np.float64) * loss.op(4).real[0]
        assert value == pytest.approx((rows * (1 if weights is None else w)).sum(), rel=1e-6)
    for array, kept in zip((y, t, w), before, strict=True):
        np.testing.assert_array_equal(array, kept)


@every_loss
def test_float32_agrees_with_float64(loss: Any, kernels: Kernels) -> None:
    y, t, w = example(loss, 200, dtype="float32")
    wide = t if loss.targets == "labels" else t.astype(np.float64)
    narrow, d_narrow = value_and_gradient(loss, y, t, w, kernels)
    exact, d_exact = value_and_gradient(loss, y.astype(np.float64), wide, w.astype(np.float64))
    assert narrow == pytest.approx(exact, rel=2e-6)
    np.testing.assert_allclose(d_narrow, d_exact, rtol=1e-4, atol=1e-6)


@every_loss
@every_dtype
def test_nan_is_never_masked(loss: Any, dtype: str, kernels: Kernels) -> None:
    y, t, w = example(loss, 4, dtype=dtype)
    y[2] = np.nan
    value, d = value_and_gradient(loss, y, t, w, kernels)
    assert np.isnan(value)
    assert np.isnan(d[2]).any() or loss in (
        Hinge(),
        Perceptron(),
    )  # whose derivative is a step; the loss stops the training
    assert np.isfinite(d[[0, 1, 3]]).all()


@every_loss
def test_nothing_grows(loss: Any, kernels: Kernels) -> None:
    y, t, w = example(loss, 16, dtype="float32")
    rig = LossRig(loss, 16, 4, "float32", kernels)
    rig(y, t, w)
    gc.freeze()  # what other tests left is looked at no more: a collection is quick
    tracemalloc.start()
    grown = []
    try:
        for _ in range(50):  # what is made once is not counted
            rig(y, t, w)
        for _ in range(3):  # other threads of the test runner allocate, too, at times
            gc.collect()  # what refers to itself waits for it
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(300):
                rig(y, t, w)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
            grown.append(after - before)
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    assert min(grown) < 512


Y = [[0.5, -1.25, 2.0], [1.5, 0.25, -0.75]]
T = [[1.0, -1.0, 0.0], [1.25, 2.0, 0.5]]
COUNTS = [[1.0, 0.0, 3.0], [2.0, 5.0, 0.0]]
YES = [[1.0, 0.0, 0.25], [0.0, 1.0, 0.5]]
P = [[0.2, 0.7, 0.9], [0.4, 0.35, 0.05]]
SOFT = [[0.2, 0.3, 0.5], [0.6, 0.25, 0.15]]

# Computed with PyTorch 2.13 in float64: the row-wise mean over outputs (reduction="mean" of each row) or for
# labels reduction="sum"; quadratic by hand.
PYTORCH = [
    (Quadratic(), Y, T, 4.5, [[-0.5, -0.25, 2.0], [0.25, -1.75, -1.25]]),
    (MSE(), Y, T, 3.0, [[-1 / 3, -1 / 6, 4 / 3], [1 / 6, -7 / 6, -5 / 6]]),
    (MAE(), Y, T, 2.0, [[-1 / 3, -1 / 3, 1 / 3], [1 / 3, -1 / 3, -1 / 3]]),
    (Huber(), Y, T, 1.2291666666666667, [[-1 / 6, -1 / 12, 1 / 3], [1 / 12, -1 / 3, -1 / 3]]),
    (Huber(delta=0.6), Y, T, 0.8825, [[-1 / 6, -1 / 12, 0.2], [1 / 12, -0.2, -0.2]]),
    (
        Poisson(),
        Y,
        COUNTS,
        1.6041210687525966,
        [[0.216240423567, 0.0955015989534, 1.46301869964], [0.827229690113, -1.23865819444, 0.15745551758]],
    ),
    (
        Poisson(log_input=False),
        P,
        COUNTS,
        3.8690704231529347,
        [[-1.33333325, 0.333333333333, -0.777777765432], [-1.33333329167, -4.42857129252, 0.333333333333]],
    ),
    (
        SigmoidCrossEntropy(),
        Y,
        YES,
        1.797385926848316,
        [
            [-0.125846889599, 0.0742333796084, 0.210265692659],
            [0.272524825398, -0.145941166371, -0.0597262330585],
        ],
    ),
    (
        BinaryCrossEntropy(),
        P,
        YES,
        2.550283399218489,
        [[-1.66666666667, 1.11111111111, 2.40740740741], [0.555555555556, -0.952380952381, -3.15789473684]],
    ),
    (
        SoftmaxCrossEntropy(),
        Y,
        [2, 0],
        0.5632945925092567,
        [
            [0.176820182107, 0.0307267403264, -0.207546922434],
            [-0.281559658849, 0.205836603998, 0.0757230548513],
        ],
    ),
    (
        SoftmaxCrossEntropy(label_smoothing=0.1),
        Y,
        [2, 0],
        0.8382945925092566,
        [
            [0.143486848774, -0.0026065930069, -0.140880255767],
            [-0.214892992182, 0.172503270664, 0.042389721518],
        ],
    ),
    (Perceptron(), Y, YES, 3.375, [[0, 0, 0.75], [1, 0, -0.5]]),  # by hand
    (NLL(), SOFT, [2, 0], 1.203972804325936, [[0.0, 0.0, -2.0], [-1.66666666667, 0.0, 0.0]]),
    (Hinge(), Y, [0, 1], 1.5833333333333335, [[-1 / 3, 0.0, 1 / 3], [1 / 3, -1 / 3, 0.0]]),
    (Hinge(margin=0.5, power=2), Y, [0, 1], 2.3541666666666665, [[-4 / 3, 0, 4 / 3], [7 / 6, -7 / 6, 0]]),
]


@pytest.mark.parametrize(("loss", "outputs", "targets", "value", "gradient"), PYTORCH, ids=repr)
def test_values_of_pytorch(
    loss: Any, outputs: Sequence[Any], targets: Sequence[Any], value: float, gradient: Sequence[Any]
) -> None:
    found, d = value_and_gradient(loss, np.array(outputs), np.array(targets))
    assert found == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(d, gradient, rtol=1e-11, atol=1e-12)


def test_weighted_cross_entropy_conventions() -> None:
    logits, labels = np.array([[1, 2, 0.5], [0.2, -0.3, 1]]), np.array([0, 2])
    weights = np.array([2, 1, 0.5])[labels]
    loss = LossRig(SoftmaxCrossEntropy(), 2, 3)
    weighted = loss(logits, labels, weights)
    assert weighted / weights.sum() == pytest.approx(1.2801761356, abs=5e-11)  # PyTorch, and distbp
    assert weighted / 2 == pytest.approx(1.6002201695, abs=5e-11)  # Keras divides by the rows
    assert loss(logits, labels) / 2 == pytest.approx(1.0038871629, abs=5e-11)


def test_activations_that_losses_speak_of_exist() -> None:
    assert set(_SQUASHES) <= set(ACTIVATIONS)
    assert set(_SQUASHES.values()) <= set(LOSSES)


def test_the_worked_example_of_mazur() -> None:
    outputs, targets = np.array([[0.75136507, 0.772928465]]), np.array([[0.01, 0.99]])
    assert value_and_gradient(Quadratic(), outputs, targets)[0] == pytest.approx(0.298371109, abs=1e-8)


def test_sum_over_outputs_is_the_mean_times_the_outputs() -> None:
    for kind in (SigmoidCrossEntropy, BinaryCrossEntropy):
        y, t, w = example(kind(), 5, 10)
        mean, d_mean = value_and_gradient(kind(), y, t, w)
        total, d_total = value_and_gradient(kind(outputs="sum"), y, t, w)
        assert total == pytest.approx(10 * mean, rel=1e-14)
        np.testing.assert_allclose(d_total, 10 * d_mean, rtol=1e-14)


def test_losses_on_probabilities_agree_with_those_on_logits() -> None:
    z, t, w = example(SigmoidCrossEntropy(), 6)
    on_logits, _ = value_and_gradient(SigmoidCrossEntropy(), z, t, w)
    assert value_and_gradient(BinaryCrossEntropy(), 1 / (1 + np.exp(-z)), t, w)[0] == pytest.approx(on_logits)
    z, labels, w = example(SoftmaxCrossEntropy(), 6)
    on_logits, _ = value_and_gradient(SoftmaxCrossEntropy(), z, labels, w)
    softmax = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert value_and_gradient(NLL(), softmax, labels, w)[0] == pytest.approx(on_logits)


def test_smoothing_is_the_cross_entropy_with_softened_targets() -> None:
    z, labels, _ = example(SoftmaxCrossEntropy(), 6)
    logs = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    soft = 0.8 * np.eye(4)[labels] + 0.2 / 4
    found, d = value_and_gradient(SoftmaxCrossEntropy(label_smoothing=0.2), z, labels)
    assert found == pytest.approx(-(soft * logs).sum())
    np.testing.assert_allclose(d, np.exp(logs) - soft, rtol=1e-12)


@every_dtype
@pytest.mark.parametrize(
    "loss", [SoftmaxCrossEntropy(), SoftmaxCrossEntropy(label_smoothing=0.1), Hinge()], ids=repr
)
def test_labels_with_huge_outputs(loss: Any, dtype: str, kernels: Kernels) -> None:
    z = np.array([[1e4, -1e4, 0], [1e4, -1e4, 0]], dtype)
    value, d = value_and_gradient(loss, z, np.array([0, 1]), kernels=kernels)
    expected = {"SoftmaxCrossEntropy": 2e4, "Hinge": (2e4 + 1 + 1e4 + 1) / 3}[type(loss).__name__]
    if isinstance(loss, SoftmaxCrossEntropy) and loss.label_smoothing:
        expected += 2 * 0.1 / 3 * 3e4 - 0.1 * 2e4  # -log p of the three classes: 0, 2e4, 1e4
    assert value == pytest.approx(expected)
    assert np.isfinite(d).all()


@every_dtype
def test_sigmoid_cross_entropy_with_huge_logits(dtype: str, kernels: Kernels) -> None:
    z = np.array([[1e4], [-1e4], [1e4], [-1e4]], dtype)
    value, d = value_and_gradient(
        SigmoidCrossEntropy(), z, np.array([[1], [0], [0], [1]], dtype), kernels=kernels
    )
    assert value == 2e4
    np.testing.assert_array_equal(d[:, 0], [0, 0, 1, -1])
    # A confident right answer still has a loss, far below the resolution of 1 - sigmoid.
    z = np.array([[40.0]], dtype)
    ones = np.ones((1, 1), dtype)
    value, _ = value_and_gradient(SigmoidCrossEntropy(), z, ones, kernels=kernels)
    assert value == pytest.approx(np.exp(-40))


@every_dtype
def test_probabilities_of_zero_and_one_have_finite_losses(dtype: str, kernels: Kernels) -> None:
    p, t = np.array([[0.0], [1.0], [0.0], [1.0]], dtype), np.array([[0], [1], [1], [0]], dtype)
    value, d = value_and_gradient(BinaryCrossEntropy(), p, t, kernels=kernels)
    assert value == pytest.approx(200)  # PyTorch's bound: no logarithm under -100
    assert np.isfinite(d).all()
    p = np.array([[0.0, 1.0], [0.0, 1.0]], dtype)
    value, d = value_and_gradient(NLL(), p, np.array([0, 1]), kernels=kernels)
    assert value == pytest.approx(100)
    assert np.isfinite(d).all()


@every_dtype
def test_an_overflow_is_inf_and_not_a_wrong_number(dtype: str, kernels: Kernels) -> None:
    y, t = np.array([[1e4]], dtype), np.array([[1.0]], dtype)
    assert value_and_gradient(Poisson(), y, t, kernels=kernels)[0] == np.inf


@pytest.mark.parametrize(
    ("loss", "shape", "activation", "targets", "message"),
    [
        (
            SoftmaxCrossEntropy(),
            (10,),
            "softmax",
            Targets("labels", classes=10),
            "softmax_cross_entropy takes logits and applies the softmax itself, but the last layer ends in"
            " 'softmax'; make that layer's activation 'linear', or use loss 'nll'",
        ),
        (
            SigmoidCrossEntropy(),
            (1,),
            "sigmoid",
            Targets("values", columns=1),
            "sigmoid_cross_entropy takes logits and applies the sigmoid itself, but the last layer ends in"
            " 'sigmoid'; make that layer's activation 'linear', or use loss 'binary_cross_entropy'",
        ),
        (
            Hinge(),
            (3,),
            "softmax",
            Targets(),
            "hinge takes scores, but the last layer ends in 'softmax'; make that layer's activation 'linear',"
            " or use loss 'nll'",
        ),
        (
            NLL(),
            (3,),
            "linear",
            Targets(),
            "nll takes the probabilities of a softmax, but the last layer ends in 'linear'; make its"
            " activation 'softmax', or 'linear' with loss 'softmax_cross_entropy'",
        ),
        (
            BinaryCrossEntropy(),
            (1,),
            "relu",
            Targets(),
            "binary_cross_entropy takes probabilities of independent outputs, but the last layer ends in"
            " 'relu'; make its activation 'sigmoid', or 'linear' with loss 'sigmoid_cross_entropy'",
        ),
        (
            Poisson(log_input=False),
            (1,),
            "linear",
            Targets(),
            "poisson with log_input: false takes rates, which are positive, but the last layer ends in"
            " 'linear'; make its activation 'softplus', or set log_input: true",
        ),
        (
            SoftmaxCrossEntropy(),
            (5,),
            "linear",
            Targets("labels", classes=3, labels="3 classes: -1, 0, 7"),
            "the last layer has 5 outputs, but the labels are of 3 classes: -1, 0, 7; give the last layer 3"
            " units, or number the classes from 0 to 4",
        ),
        (
            SoftmaxCrossEntropy(),
            (1,),
            "linear",
            Targets("labels", classes=2),
            "softmax_cross_entropy chooses between classes, but the last layer has 1 output; give it one unit"
            " for each class, or use 'sigmoid_cross_entropy' for one yes-or-no output",
        ),
        (
            SoftmaxCrossEntropy(),
            (3,),
            None,
            Targets("values", columns=3),
            "softmax_cross_entropy takes one class label for each row, but the targets are values; for"
            " values use 'mse' or 'mae', for yes-or-no values 'sigmoid_cross_entropy'",
        ),
        (
            MSE(),
            (3,),
            None,
            Targets("labels", classes=3),
            "mse takes values, but the targets are class labels; for labels use 'softmax_cross_entropy', or"
            " make the labels one-hot",
        ),
        (
            Quadratic(),
            (3,),
            None,
            Targets("values", columns=2),
            "the last layer has 3 outputs, but the targets have 2 columns; give the last layer 2 units",
        ),
        (
            MSE(),
            (8, 8),
            None,
            Targets(),
            "mse takes one row of numbers for each sample, but the last layer gives shape (8, 8); put a"
            " {type: flatten} layer at the end, or set data.truncated_bptt_steps, where each step has a"
            " target",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_its_mending(
    loss: Any, shape: tuple[int, ...], activation: str | None, targets: Targets, message: str
) -> None:
    assert loss.faults(shape, activation, targets) == (message,)


def test_every_fault_is_reported_at_once() -> None:
    faults = SigmoidCrossEntropy().faults((3,), "sigmoid", Targets("values", columns=2))
    assert len(faults) == 2


@every_loss
def test_a_fitting_loss_has_no_fault(loss: Any) -> None:
    activation = {"nll": "softmax", "binary_cross_entropy": "sigmoid", "poisson": "softplus"}.get(loss.type)
    kind = Targets(loss.targets, classes=3, columns=3)
    assert loss.faults((3,), activation or "linear", kind) == ()
    assert loss.faults((3,), None, Targets()) == ()


@every_dtype
def test_sigmoid_cross_entropy_keeps_the_digits_of_small_derivatives(dtype: str, kernels: Kernels) -> None:
    z = np.array([[-20.0], [20.0], [16.0], [-0.0], [300.0]], dtype)
    t = np.array([[0.0], [1.0], [1.0], [0.25], [0.5]], dtype)
    value, d = value_and_gradient(SigmoidCrossEntropy(), z, t, kernels=kernels)
    rtol = 1e-6 if dtype == "float32" else 1e-14
    small = 2 * np.log1p(np.exp(-20)) + np.log1p(np.exp(-16))
    np.testing.assert_allclose(value, np.log(2) + 150 + small, rtol=rtol)
    want = [2.0611536181902037e-09, -2.0611536181902037e-09, -1.1253516205509499e-07, 0.25, 0.5]
    np.testing.assert_allclose(d[:, 0], want, rtol=rtol)


@every_loss
def test_the_sum_of_given_outputs_is_that_of_the_tape(loss: Any) -> None:
    y, t, w = example(loss, 7)
    for weights in (None, w):
        assert loss_sum(loss, y, t, weights) == value_and_gradient(loss, y, t, weights)[0]


def test_what_outputs_say_in_the_unit_of_the_targets() -> None:
    z = np.array([[-20.0, 0.0, 3.0]], np.float32)
    e = np.exp(z.astype(np.float64))
    wanted = {
        "softmax_cross_entropy": e / e.sum(),
        "sigmoid_cross_entropy": e / (1 + e),
        "poisson": e,
        "perceptron": (z > 0) * 1.0,
    }
    for loss in LOSSES.values():
        found = loss().predictions(z)
        np.testing.assert_allclose(found, wanted.get(loss().type, z), rtol=1e-6)
        assert found.dtype == z.dtype
    assert Poisson(log_input=False).predictions(z) is z
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(SigmoidCrossEntropy().predictions(np.array([[-1e4, 1e4]])), [[0, 1]])
