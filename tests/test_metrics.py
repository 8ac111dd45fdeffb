"""Metrics against scikit-learn, on data with ties and weights, whole and cut into slices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from distbp.core.errors import JobError
from distbp.nn.losses import (
    MSE,
    NLL,
    BinaryCrossEntropy,
    Hinge,
    Quadratic,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)
from distbp.nn.metrics import DEFAULTS, METRICS, BoundMetric, auc_of, frame_of, less_is_better, metrics_for

sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference for metrics")

ROWS, CLASSES = 400, 5
weighting = pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])


def value_of(metric: BoundMetric, y: Any, t: Any, w: Any, slices: int = 3) -> float:
    """Accumulated over slices of unequal length, or collected."""
    if metric.collect:
        return metric.finish_collected(y, t, w)
    parts = []
    for rows in np.array_split(np.arange(len(y)), slices):
        sums = np.zeros(metric.size)
        metric.accumulate(y[rows], t[rows], None if w is None else w[rows], sums)
        parts.append(sums)
    return metric.finish(np.sum(parts, axis=0))


def only(loss: Any, outputs: int, name: str) -> BoundMetric:
    (metric,) = metrics_for(loss, (outputs,), [name])
    assert metric.name == name
    return metric


def data(outputs: int, weighted: bool, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Logits with many ties, labels and yes-or-no values that depend on them, and weights."""
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(ROWS, outputs)) * 2) / 2
    labels = np.argmax(logits + 2 * rng.normal(size=logits.shape), axis=1)
    yes = (logits + rng.normal(size=logits.shape) > 0).astype(np.float64)
    return logits, labels, yes, rng.uniform(0.1, 3, ROWS) if weighted else None


def softmax(z: Any) -> Any:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@weighting
def test_classes(weighted: bool) -> None:
    z, labels, _, w = data(CLASSES, weighted)
    guess = z.argmax(axis=1)
    macro = {"average": "macro", "sample_weight": w, "zero_division": 0}
    expected = {
        "accuracy": sk.accuracy_score(labels, guess, sample_weight=w),
        "precision": sk.precision_score(labels, guess, **macro),
        "recall": sk.recall_score(labels, guess, **macro),
        "f1": sk.f1_score(labels, guess, **macro),
    }
    for name, value in expected.items():
        assert value_of(only(SoftmaxCrossEntropy(), CLASSES, name), z, labels, w) == pytest.approx(
            value, rel=1e-13
        )
        one_hot = np.eye(CLASSES)[labels]
        assert value_of(only(NLL(), CLASSES, name), softmax(z), one_hot, w) == pytest.approx(value, rel=1e-13)


@weighting
@pytest.mark.parametrize("k", [1, 2, 4])
def test_top_k(weighted: bool, k: int) -> None:
    _, labels, _, w = data(CLASSES, weighted)
    z = np.random.default_rng(1).normal(size=(ROWS, CLASSES))  # no ties: scikit-learn resolves them otherwise
    found = value_of(only(SoftmaxCrossEntropy(), CLASSES, f"top_{k}"), z, labels, w)
    assert found == pytest.approx(
        sk.top_k_accuracy_score(labels, z, k=k, sample_weight=w, labels=range(CLASSES))
    )


def test_top_1_is_the_accuracy_even_with_ties_and_a_nan_is_no_hit() -> None:
    z, labels, _, _ = data(3, False)
    loss = SoftmaxCrossEntropy()
    assert value_of(only(loss, 3, "top_1"), z, labels, None) == value_of(
        only(loss, 3, "accuracy"), z, labels, None
    )
    assert value_of(only(loss, 3, "top_3"), np.full((4, 3), np.nan), np.zeros(4, np.intp), None) == 0


@weighting
def test_a_class_that_never_occurs_is_left_out_of_the_mean(weighted: bool) -> None:
    z, labels, _, w = data(CLASSES, weighted)
    z[:, 3] = -9
    keep = labels != 3
    z, labels, w = z[keep], labels[keep], None if w is None else w[keep]
    expected = sk.f1_score(labels, z.argmax(axis=1), average="macro", sample_weight=w)
    assert value_of(only(Hinge(), CLASSES, "f1"), z, labels, w) == pytest.approx(expected, rel=1e-13)


@weighting
def test_one_yes_or_no_output_on_logits_and_on_probabilities(weighted: bool) -> None:
    z, _, yes, w = data(1, weighted)
    t, guess = yes[:, 0], (z[:, 0] > 0).astype(float)
    expected = {
        "accuracy": sk.accuracy_score(t, guess, sample_weight=w),
        "precision": sk.precision_score(t, guess, sample_weight=w),
        "recall": sk.recall_score(t, guess, sample_weight=w),
        "f1": sk.f1_score(t, guess, sample_weight=w),
        "auc": sk.roc_auc_score(t, z[:, 0], sample_weight=w),
    }
    for name, value in expected.items():
        assert value_of(only(SigmoidCrossEntropy(), 1, name), z, yes, w) == pytest.approx(value, rel=1e-13)
        p = 1 / (1 + np.exp(-z))
        assert value_of(only(BinaryCrossEntropy(), 1, name), p, yes, w) == pytest.approx(value, rel=1e-13)


@weighting
def test_many_yes_or_no_outputs(weighted: bool) -> None:
    z, _, yes, w = data(4, weighted)
    guess = (z > 0).astype(float)
    expected = {
        "accuracy": np.mean([sk.accuracy_score(yes[:, i], guess[:, i], sample_weight=w) for i in range(4)]),
        "precision": sk.precision_score(yes, guess, average="macro", sample_weight=w),
        "recall": sk.recall_score(yes, guess, average="macro", sample_weight=w),
        "f1": sk.f1_score(yes, guess, average="macro", sample_weight=w),
        "auc": sk.roc_auc_score(yes, z, average="macro", sample_weight=w),
    }
    for name, value in expected.items():
        assert value_of(only(SigmoidCrossEntropy(), 4, name), z, yes, w) == pytest.approx(value, rel=1e-13)


@weighting
def test_auc_of_classes_is_one_against_the_rest_on_probabilities(weighted: bool) -> None:
    z, labels, _, w = data(CLASSES, weighted)
    p = np.round(softmax(z), 3) + 0.0
    p /= p.sum(axis=1, keepdims=True)
    expected = sk.roc_auc_score(labels, p, multi_class="ovr", average="macro", sample_weight=w)
    assert value_of(only(NLL(), CLASSES, "auc"), p, labels, w) == pytest.approx(expected, rel=1e-13)
    on_logits = value_of(only(SoftmaxCrossEntropy(), CLASSES, "auc"), z, labels, w)
    assert on_logits == pytest.approx(value_of(only(NLL(), CLASSES, "auc"), softmax(z), labels, w), rel=1e-13)


def test_auc_by_hand_and_where_it_is_not_defined() -> None:
    scores, positive = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])
    # pairs (positive, negative): 2>1, 2=2 (half), 3>1, 3>2: 3.5 of 4
    assert auc_of(scores, positive) == 3.5 / 4
    assert math.isnan(auc_of(scores, np.ones(4, bool)))
    z, labels = np.array([[2.0, 1, 0], [0, 1, 0]]), np.array([0, 1])
    assert value_of(only(Hinge(), 3, "auc"), z, labels, None) == (1.0 + 0.5) / 2  # class 2 never occurs


@weighting
@pytest.mark.parametrize("outputs", [1, 3])
def test_regression(weighted: bool, outputs: int) -> None:
    rng = np.random.default_rng(3)
    t = rng.normal(size=(ROWS, outputs)) * 3 + 1000
    y = t + rng.normal(size=t.shape)
    w = rng.uniform(0.1, 3, ROWS) if weighted else None
    expected = {
        "mae": sk.mean_absolute_error(t, y, sample_weight=w),
        "rmse": math.sqrt(sk.mean_squared_error(t, y, sample_weight=w)),
        "r2": sk.r2_score(t, y, sample_weight=w),
    }
    for name, value in expected.items():
        assert value_of(only(MSE(), outputs, name), y, t, w) == pytest.approx(value, rel=1e-9)


def test_r2_of_constant_targets() -> None:
    metric, t = only(MSE(), 1, "r2"), np.full((50, 1), 1234.1)
    assert value_of(metric, t, t, None) == sk.r2_score(t, t) == 1
    assert value_of(metric, t + 0.5, t, None) == sk.r2_score(t, t + 0.5) == 0


def test_float32_outputs_are_added_up_in_float64() -> None:
    y, t = np.full((3_000_000, 1), 0.1, np.float32), np.zeros((3_000_000, 1), np.float32)
    assert value_of(only(MSE(), 1, "mae"), y, t, None, 1) == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_class_accuracy_of_one_hot_targets() -> None:
    z, labels, _, w = data(CLASSES, True)
    expected = sk.accuracy_score(labels, z.argmax(axis=1), sample_weight=w)
    for loss in (SigmoidCrossEntropy(), Quadratic()):
        found = value_of(only(loss, CLASSES, "class_accuracy"), z, np.eye(CLASSES)[labels], w)
        assert found == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), SigmoidCrossEntropy(), MSE()], ids=lambda x: x.type)
def test_counts_and_slices(loss: Any) -> None:
    """Every metric that applies: the cut does not matter, no input is changed, no rows is nan."""
    z, labels, yes, w = data(3, True)
    t = labels if loss.targets == "labels" else yes
    names = [name.replace("top_k", "top_2") for name, row in METRICS.items() if loss.task in row.tasks]
    before = z.copy(), t.copy()
    for metric in metrics_for(loss, (3,), names):
        whole = value_of(metric, z, t, None, 1)
        assert value_of(metric, z, t, None, 7) == pytest.approx(whole, rel=1e-14)
        assert value_of(metric, z, t, w, 7) == pytest.approx(value_of(metric, z, t, w, 1), rel=1e-12)
        assert type(whole) is float
        assert math.isnan(value_of(metric, z[:0], t[:0], None, 1))
    np.testing.assert_array_equal(z, before[0])
    np.testing.assert_array_equal(t, before[1])


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), SigmoidCrossEntropy(), MSE()], ids=lambda x: x.type)
def test_the_usual_metrics(loss: Any) -> None:
    assert tuple(metric.name for metric in metrics_for(loss, (3,))) == DEFAULTS[loss.task]
    assert metrics_for(loss, (3,), []) == []


def test_each_metric_once_in_the_order_given() -> None:
    found = metrics_for(SoftmaxCrossEntropy(), (9,), ["auc", "top_5", "accuracy", "top_5"])
    assert [metric.name for metric in found] == ["auc", "top_5", "accuracy"]


@pytest.mark.parametrize(
    ("loss", "outputs", "name", "message"),
    [
        (MSE(), 1, "rmsse", "'rmsse' is not known; did you mean 'rmse'?"),
        (
            MSE(),
            1,
            "qqq",
            "'qqq' is not known; known are accuracy, class_accuracy, top_k, precision, recall, f1, auc, mae,"
            " rmse, r2",
        ),
        (
            MSE(),
            1,
            "accuracy",
            "'accuracy' does not apply to a regression loss; use class_accuracy, mae, rmse, r2",
        ),
        (
            SoftmaxCrossEntropy(),
            3,
            "r2",
            "'r2' does not apply to a classification loss; use accuracy, top_k, precision, recall, f1, auc",
        ),
        (SoftmaxCrossEntropy(), 3, "top_5", "'top_5': write top_1 to top_3, as there are 3 classes"),
        (SoftmaxCrossEntropy(), 3, "top_k", "'top_k': write top_1 to top_3, as there are 3 classes"),
        (SoftmaxCrossEntropy(), 3, "top_0", "'top_0': write top_1 to top_3, as there are 3 classes"),
        (
            Quadratic(),
            1,
            "class_accuracy",
            "'class_accuracy' compares the outputs of a row, but there is only 1; leave it out",
        ),
    ],
)
def test_a_name_that_does_not_apply(loss: Any, outputs: int, name: str, message: str) -> None:
    fitting = {"regression": "mae", "classification": "accuracy"}[loss.task]
    with pytest.raises(JobError) as caught:
        metrics_for(loss, (outputs,), [fitting, name])
    assert [str(fault) for fault in caught.value.faults] == [f"metrics.1: {message}"]


def test_the_wrong_half_of_the_contract_says_so() -> None:
    collected, summed = metrics_for(SoftmaxCrossEntropy(), (3,), ["auc", "accuracy"])
    nothing = np.zeros((0, 3))
    with pytest.raises(RuntimeError, match="call finish_collected"):
        collected.accumulate(nothing, nothing, None, np.zeros(0))
    with pytest.raises(RuntimeError, match="call finish_collected"):
        collected.finish(np.zeros(0))
    with pytest.raises(RuntimeError, match="call accumulate and finish"):
        summed.finish_collected(nothing, nothing, None)


@weighting
@pytest.mark.parametrize("size", [1e-200, 1e-50, 1.0, 1e200])
@pytest.mark.parametrize("center", [0.0, 1.7e9])
def test_values_anywhere_and_of_any_size_keep_their_digits(
    center: float, size: float, weighted: bool
) -> None:
    rng = np.random.default_rng(3)
    t = (center + 500 * rng.normal(size=(ROWS, 1))) * size
    t[:, 0].sort()  # each slice has another mean
    y = t + 5e-7 * size * rng.normal(size=t.shape)
    w = rng.uniform(1, 3, ROWS) if weighted else None
    frame = frame_of(t, w)
    r2, rmse, mae = metrics_for(MSE(), (1,), ["r2", "rmse", "mae"], frame)
    assert value_of(r2, y, t, w) == pytest.approx(1, abs=1e-12)
    assert 3e-7 < value_of(rmse, y, t, w) / size < 1e-6
    assert 2e-7 < value_of(mae, y, t, w) / size < 1e-6
    assert value_of(r2, t + 250 * size, t, w) == pytest.approx(0.75, abs=0.1)
    flat = np.full_like(t, (center + 0.1) * size)
    (r2,) = metrics_for(MSE(), (1,), ["r2"], frame_of(flat, w))
    assert value_of(r2, flat, flat, w) == 1 and value_of(r2, flat * (1 + 1e-9), flat, w) == 0


def test_of_which_metrics_less_is_better() -> None:
    """By what a metric is, not by how its name ends: of the set, and of an output with any name."""
    less = {name for name in METRICS if less_is_better(f"validation_{name}")}
    assert less == {"mae", "rmse"}
    for name in ("train_loss", "loss", "test_digit.loss", "validation_a.b_loss.rmse"):
        assert less_is_better(name)
    for name in ("validation_loss.f1", "a_loss.accuracy", "top_5", "no_rmse"):
        assert not less_is_better(name)
