"""Metrics: measures of outputs and targets besides the loss. First the contract, then each metric.

A metric is bound to a loss and a number of outputs. There are two kinds:

- Sums: a vector of `size` float64 sums. `accumulate` adds a slice of rows to it. The sums of slices are added
  up in the fixed tree of the shards, so the value does not depend on the workers. `finish` turns the total
  into the value. Sums of squares are taken in a `Frame`.
- Collected (`collect` true, `size` 0): `finish_collected` needs all rows at once, to rank them.

    outputs  (rows, outputs) of the network; `Loss.predictions` turns them into the unit of the targets
    targets  classification: labels (rows,), or one-hot rows (rows, classes); else values (rows, outputs)
    weights  (rows,); None: all are 1

A value that is not defined (no rows, or only one class) is NaN. Sums of unweighted counts are exact.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distbp.core.arrays import Array, Shape
from distbp.core.errors import Fault, JobError, cut
from distbp.core.metric_names import SPLITS
from distbp.nn.losses.base import Loss, Takes, Task

Sums = NDArray[np.float64]
Accumulate = Callable[[Array, Array, Array | None, Sums], None]
Collected = Callable[[Array, Array, Array | None], float]


def _no_sums(*_: Any) -> Any:
    raise RuntimeError("this metric needs every row at once: call finish_collected")


def _no_collected(*_: Any) -> Any:
    raise RuntimeError("this metric is made of sums: call accumulate and finish")


@dataclass(frozen=True)
class BoundMetric:
    """`accumulate(outputs, targets, weights, sums)` adds to `sums`, (size,); see the module. Functions of the
    other kind of metric raise RuntimeError."""

    name: str
    size: int = 0
    collect: bool = False
    accumulate: Accumulate = _no_sums
    finish: Callable[[Sums], float] = _no_sums
    finish_collected: Collected = _no_collected


class Frame(NamedTuple):
    """Center and size of a set's targets, for each output. Sums of squares are taken of (target - center) /
    size, so that they keep their digits and do not overflow. Sizes are powers of two."""

    center: tuple[float, ...]
    size: tuple[float, ...]

    def part(self, columns: tuple[int, int]) -> Frame:
        """The frame of some outputs. columns: the first output, and their number."""
        first, count = columns
        return Frame(self.center[first : first + count], self.size[first : first + count])


def frame_of(targets: Array, weights: Array | None = None) -> Frame:
    """The frame of targets (rows, outputs). Rows with weight 0 do not count. center: the mean. size: at least
    the largest distance from the center; if all targets are equal, at least their absolute value."""
    t = targets if weights is None else targets[weights > 0]
    origin = t[0].astype(np.float64) if len(t) else np.zeros(targets.shape[1])
    shift, low, high = np.zeros((3, targets.shape[1]))
    for start in range(0, len(t), 1 << 16):
        away = t[start : start + (1 << 16)] - origin
        shift += away.sum(axis=0)
        low, high = np.minimum(low, away.min(axis=0)), np.maximum(high, away.max(axis=0))
    shift /= max(1, len(t))
    away = np.maximum(shift - low, high - shift)
    exponent = np.frexp(np.where(away > 0, away, np.abs(origin)))[1]
    return Frame(
        tuple((origin + shift).tolist()), tuple(np.ldexp(1.0, np.clip(exponent, -1000, 1023)).tolist())
    )


@dataclass(frozen=True)
class Binding:
    """The facts that a metric is bound to. `outputs`: their number. `takes`, `predictions`: of the loss. `k`:
    the number in `top_k`, else 0. `frame`: that of the targets; None: not known."""

    name: str
    task: Task
    outputs: int
    takes: Takes
    predictions: Callable[[Array], Array]
    k: int = 0
    frame: Frame | None = None

    @property
    def center(self) -> Array:
        return np.array(self.frame.center) if self.frame else np.broadcast_to(0.0, self.outputs)

    @property
    def size(self) -> Array:
        return np.array(self.frame.size) if self.frame else np.broadcast_to(1.0, self.outputs)


def metrics_for(
    loss: Loss, output_shape: Shape, names: Sequence[str] | None = None, frame: Frame | None = None
) -> list[BoundMetric]:
    """The metrics called `names`, each once, in this order; None: the usual metrics of the loss.
    `output_shape`: of one row. `frame`: that of the targets to measure, the same for all parts of a set.

    Raises JobError with a fault at `metrics.<i>` for every name that is not known or does not apply.
    """
    outputs = math.prod(output_shape)
    faults: list[Fault] = []
    bound: dict[str, BoundMetric] = {}
    for i, name in enumerate(DEFAULTS[loss.task] if names is None else names):
        kind, k = _parse(name)
        problem = _problem(name, kind, k, loss.task, outputs)
        if problem:
            faults.append(Fault(f"metrics.{i}", problem))
        else:
            bound[name] = METRICS[kind].bind(
                Binding(name, loss.task, outputs, loss.takes, loss.predictions, k, frame)
            )
    if faults:
        raise JobError(faults)
    return list(bound.values())


def less_is_better(name: str) -> bool:
    """Whether lower values of a metric or of the loss are better; False for an unknown metric. name: may
    begin with the set, and the output if there are several: `validation_digit.loss`."""
    split, _, rest = name.partition("_")
    own = (rest if split in SPLITS else name).rpartition(".")[2]
    return own == "loss" or (own in METRICS and METRICS[own].less_is_better)


def _parse(name: str) -> tuple[str, int]:
    """("top_k", 5) for "top_5"; (name, 0) for any other name."""
    head, _, number = name.rpartition("_")
    return ("top_k", int(number)) if head == "top" and number.isdecimal() and len(number) < 10 else (name, 0)


def _problem(name: str, kind: str, k: int, task: Task, outputs: int) -> str | None:
    if kind not in METRICS:
        name = cut(name, 60)
        near = difflib.get_close_matches(name, METRICS, n=1)
        mean = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(METRICS)}"
        return f"{name!r} is not known; {mean}"
    if task not in METRICS[kind].tasks:
        fitting = ", ".join(other for other, row in METRICS.items() if task in row.tasks)
        return f"{name!r} does not apply to a {task} loss; use {fitting}"
    if kind == "class_accuracy" and outputs < 2:
        return f"{name!r} compares the outputs of a row, but there is only 1; leave it out"
    if kind == "top_k" and not 1 <= k <= outputs:
        return f"{name!r}: write top_1 to top_{outputs}, as there are {outputs} classes"
    return None


# Classification: labels and decisions -------------------------------------------------------------------


def _labels(targets: Array) -> Array:
    return targets if targets.ndim == 1 else targets.argmax(axis=1)


def _threshold(takes: Takes) -> float:
    """The threshold above which an output means yes: 0.5 for probabilities, which is 0 for logits."""
    return 0.5 if takes == "probabilities" else 0.0


def _total(values: Array, weights: Array | None) -> float:
    """The weighted sum of values, (rows,) or (rows, outputs), in float64."""
    if weights is not None:
        values = values * weights.reshape(-1, *[1] * (values.ndim - 1))
    return float(np.sum(values, dtype=np.float64))


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else math.nan


def _mean_metric(
    name: str,
    outputs: int,
    row_values: Callable[[Array, Array], Array],
    last: Callable[[float], float] = float,
) -> BoundMetric:
    """A metric whose value is `last` of the weighted mean of `row_values`, (rows,) or (rows, outputs)."""

    def accumulate(y: Array, targets: Array, weights: Array | None, sums: Sums) -> None:
        values = row_values(y, targets)
        sums[0] += _total(values, weights)
        rows = float(len(y)) if weights is None else float(np.sum(weights, dtype=np.float64))
        sums[1] += rows * (outputs if values.ndim == 2 else 1)

    return BoundMetric(name, 2, accumulate=accumulate, finish=lambda sums: last(_ratio(sums[0], sums[1])))


def _accuracy(setting: Binding) -> BoundMetric:
    """The share of right answers. For several yes-or-no outputs, the share of right outputs, as Keras's
    binary accuracy; scikit-learn counts rows in which all outputs are right."""
    threshold = _threshold(setting.takes)

    def right_class(y: Array, targets: Array) -> Array:
        return np.asarray(y.argmax(axis=1) == _labels(targets))

    def right_side(y: Array, targets: Array) -> Array:
        return np.equal(y > threshold, targets > 0.5)

    rule = right_class if setting.task == "classification" else right_side
    return _mean_metric(setting.name, setting.outputs, rule)


def _class_accuracy(setting: Binding) -> BoundMetric:
    """The share of rows whose highest output and highest target have the same place: the accuracy of a
    network that learns one-hot targets by a loss on values, as in Nielsen's book."""
    return _mean_metric(setting.name, 1, lambda y, t: np.equal(y.argmax(axis=1), t.argmax(axis=1)))


def _top_k(setting: Binding) -> BoundMetric:
    """The share of rows whose class is among the k highest outputs. Among equal outputs the lower class
    number comes first, as in argmax, so top_1 is the accuracy."""
    classes = np.arange(setting.outputs)

    def hits(y: Array, targets: Array) -> Array:
        labels = _labels(targets)[:, None]
        own = np.take_along_axis(y, labels, axis=1)
        ahead = (y > own) | ((y == own) & (classes < labels))
        hit: Array = (ahead.sum(axis=1) < setting.k) & ~np.isnan(own[:, 0])
        return hit

    return _mean_metric(setting.name, setting.outputs, hits)


def _of_counts(value: Callable[[Sums, Sums, Sums], Sums]) -> Callable[[Binding], BoundMetric]:
    """A metric of counts: the mean of value(both, predicted, actual) over the classes that occur in targets
    or predictions, as scikit-learn's average="macro". predicted: the weight of rows predicted as a class;
    actual: of rows of the class; both: of rows in both. A single output has one class, the positive one."""

    def bind(setting: Binding) -> BoundMetric:
        n, threshold = setting.outputs, _threshold(setting.takes)

        def accumulate_labels(y: Array, targets: Array, weights: Array | None, sums: Sums) -> None:
            both, predicted, actual = sums.reshape(3, n)
            guess, label = y.argmax(axis=1), _labels(targets)
            right = guess == label
            predicted += np.bincount(guess, weights, n)
            actual += np.bincount(label, weights, n)
            both += np.bincount(label[right], None if weights is None else weights[right], n)

        def accumulate_sides(y: Array, targets: Array, weights: Array | None, sums: Sums) -> None:
            both, predicted, actual = sums.reshape(3, n)
            guess, truth = y > threshold, targets > 0.5
            for counted, rows in ((both, guess & truth), (predicted, guess), (actual, truth)):
                counted += np.sum(rows if weights is None else rows * weights[:, None], 0, dtype=np.float64)

        def finish(sums: Sums) -> float:
            both, predicted, actual = sums.reshape(3, n)
            occurs = (predicted + actual) > 0
            if n == 1:  # without positive rows the value is 0, as with scikit-learn's zero_division=0
                occurs = np.ones(1, dtype=bool)
            return float(value(both, predicted, actual)[occurs].mean()) if occurs.any() else math.nan

        accumulate = accumulate_labels if setting.task == "classification" else accumulate_sides
        return BoundMetric(setting.name, 3 * n, accumulate=accumulate, finish=finish)

    return bind


def _share(a: Sums, b: Sums) -> Sums:
    """a / b, element by element; 0 if b is 0."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


_precision = _of_counts(lambda both, predicted, actual: _share(both, predicted))
_recall = _of_counts(lambda both, predicted, actual: _share(both, actual))
_f1 = _of_counts(lambda both, predicted, actual: _share(2 * both, predicted + actual))


# Ranks ---------------------------------------------------------------------------------------------------


def auc_of(scores: Array, positive: Array, weights: Array | None = None) -> float:
    """The area under the ROC curve: the probability that a positive row scores above a negative row; ties
    count half (Mann and Whitney, 1947). All (rows,), `positive` bool. NaN if no row or each is positive."""
    w = np.ones(len(scores)) if weights is None else weights.astype(np.float64)
    values, group = np.unique(scores, return_inverse=True)
    up = np.bincount(group, w * positive, len(values))
    down = np.bincount(group, w * ~positive, len(values))
    below = np.cumsum(down) - down
    return _ratio(float(np.sum(up * (below + down / 2))), float(up.sum() * down.sum()))


def _auc(setting: Binding) -> BoundMetric:
    """The area under the ROC curve. For several outputs, the mean over the outputs for which positive and
    negative rows occur. For classification, each class against the rest, on probabilities."""

    def evaluate(y: Array, targets: Array, weights: Array | None) -> float:
        scores = y.astype(np.float64)
        if setting.task == "classification":
            scores = setting.predictions(scores)  # only probabilities can be compared between rows
            positive = _labels(targets)[:, None] == np.arange(setting.outputs)
        else:
            positive = targets > 0.5
        areas = [auc_of(scores[:, i], positive[:, i], weights) for i in range(setting.outputs)]
        known = [area for area in areas if not math.isnan(area)]
        return _ratio(math.fsum(known), len(known))

    return BoundMetric(setting.name, collect=True, finish_collected=evaluate)


# Regression ----------------------------------------------------------------------------------------------


def _errors(setting: Binding) -> Callable[[Array, Array], Array]:
    return lambda y, targets: np.asarray(setting.predictions(y.astype(np.float64)) - targets)


def _mae(setting: Binding) -> BoundMetric:
    """The mean over rows and outputs of |y - t|."""
    errors = _errors(setting)
    return _mean_metric(setting.name, setting.outputs, lambda y, t: np.abs(errors(y, t)))


def _rmse(setting: Binding) -> BoundMetric:
    """The root of the mean over rows and outputs of (y - t)^2."""
    errors, size = _errors(setting), float(setting.size.max())

    def squares(y: Array, t: Array) -> Array:
        return np.square(errors(y, t) / size)

    return _mean_metric(setting.name, setting.outputs, squares, lambda mean: math.sqrt(mean) * size)


def _r2(setting: Binding) -> BoundMetric:
    """1 - (sum of squared errors) / (sum of squares around the mean target); the mean over the outputs.

    If the targets of an output do not vary, its value is 1 without any error, else 0, as in scikit-learn. A
    standard deviation below a millionth of the targets' distance from the frame's center counts as 0: the
    sums have too few digits.
    """
    n, errors, center, size = setting.outputs, _errors(setting), setting.center, setting.size

    def accumulate(y: Array, targets: Array, weights: Array | None, sums: Sums) -> None:
        weight, error, first, second = sums[:1], *sums[1:].reshape(3, n)
        w = np.ones(len(y)) if weights is None else weights.astype(np.float64)
        t = (targets - center) / size
        weight += np.sum(w)
        error += np.sum(w[:, None] * np.square(errors(y, targets) / size), axis=0)
        first += np.sum(w[:, None] * t, axis=0)
        second += np.sum(w[:, None] * t * t, axis=0)

    def finish(sums: Sums) -> float:
        weight, (error, first, second) = sums[0], sums[1:].reshape(3, n)
        if not weight:
            return math.nan
        spread = second - first * first / weight
        varies = spread > 1e-12 * second
        flat = np.where(error > 0, 0.0, 1.0)
        return float(np.where(varies, 1 - error / np.where(varies, spread, 1), flat).mean())

    return BoundMetric(setting.name, 1 + 3 * n, accumulate=accumulate, finish=finish)


@dataclass(frozen=True)
class MetricRow:
    tasks: tuple[Task, ...]
    bind: Callable[[Binding], BoundMetric]
    less_is_better: bool = False


_CLASSES: tuple[Task, ...] = ("classification", "binary")

METRICS: Mapping[str, MetricRow] = MappingProxyType(
    {
        "accuracy": MetricRow(_CLASSES, _accuracy),
        "class_accuracy": MetricRow(("binary", "regression"), _class_accuracy),
        "top_k": MetricRow(("classification",), _top_k),
        "precision": MetricRow(_CLASSES, _precision),
        "recall": MetricRow(_CLASSES, _recall),
        "f1": MetricRow(_CLASSES, _f1),
        "auc": MetricRow(_CLASSES, _auc),
        "mae": MetricRow(("regression",), _mae, less_is_better=True),
        "rmse": MetricRow(("regression",), _rmse, less_is_better=True),
        "r2": MetricRow(("regression",), _r2),
    }
)

DEFAULTS: Mapping[Task, tuple[str, ...]] = MappingProxyType(
    {"classification": ("accuracy",), "binary": ("accuracy",), "regression": ("rmse", "r2")}
)
