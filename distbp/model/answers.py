"""Turns a network's outputs into classes, values or probabilities, and scales targets as in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError, ModelError
from distbp.data.columns.plan import Plan
from distbp.data.given import as_array
from distbp.data.sequences import Samples
from distbp.nn.losses.several import Head, Heads


def task_of(heads: Heads) -> str:
    """ "classification", "binary", "regression", or "several" of these."""
    return "several" if heads.several else heads.all[0].loss.task


def predicted(head: Head, y: Array, classes: tuple[Any, ...] | None, plan: Plan | None, x: Samples) -> Array:
    """The predictions of one head for x, as `Model.predict` returns them. y: its outputs (n, outputs), or
    those of every step. classes: the names; None: numbers. plan: of the training table, or None. Raises
    ModelError if outputs that choose classes are not finite."""
    loss = head.loss
    if loss.task != "regression" or classes is not None:
        _check_finite(y, len(x))
    if loss.task == "binary" and (classes is None or y.shape[1] == 1):
        y = (y > (0.5 if loss.takes == "probabilities" else 0)).astype(np.intp)
    elif loss.task == "classification" or classes is not None:
        y = y.argmax(axis=1)[:, None]
    else:
        with np.errstate(over="ignore", under="ignore"):
            y = loss.predictions(y)
            if plan is not None:
                y = plan.targets[head.name].unscale(y + plan.before(x.inputs, x.windows))
    if classes is not None:
        y = np.array(classes)[y]
    return np.asarray(y[:, 0] if y.shape[1:] == (1,) else y)


def _check_finite(y: Array, rows: int) -> None:
    """Raises ModelError if the outputs y (n, outputs) are not all finite. rows: the number of rows that they
    belong to; each row has n / rows of them."""
    bad = ~np.isfinite(y).all(axis=tuple(range(1, y.ndim)))
    if bad.any():
        raise ModelError(
            f"the outputs for row {int(bad.argmax()) * rows // len(y)} are not finite numbers: its inputs are"
            " too large for this network; mend or leave out that row"
        )


def with_probabilities(heads: Heads) -> list[Head]:
    """The heads that have probabilities. Raises ModelError if there are none."""
    found = [
        head
        for head in heads
        if head.loss.task != "regression" and head.loss.takes not in ("scores", "outputs")
    ]
    if not found:
        takes = " and ".join(dict.fromkeys(head.loss.takes for head in heads))
        raise ModelError(
            f"a model trained with the loss {heads.words!r} gives {takes}, no probabilities; use predict"
        )
    return found


def probabilities(head: Head, y: Array, rows: int) -> Array:
    """The probabilities for the outputs y (n, outputs) of one head: (n, classes), or (n,) for one yes-or-no
    output. rows: see `_check_finite`. Raises ModelError if the outputs are not finite."""
    _check_finite(y, rows)
    p = head.loss.predictions(y)
    return np.asarray(p[:, 0] if head.loss.task == "binary" and p.shape[1:] == (1,) else p)


def as_trained(plan: Plan | None, y: Any, x: Samples) -> Any:
    """Scales targets y of x, given in their own units, as for training. With several outputs, y is a mapping
    by name. Raises DataError if a series does not have one target for each window."""
    if plan is not None and plan.series is not None and np.ndim(y) and len(y) != len(x):
        raise DataError(
            f"there are {len(y):,} targets for {len(x):,} windows of {plan.series.length} rows; give one for"
            f" each, that of the row {plan.series.horizon} after its last one"
        )
    if plan is None or not any(code.scaled for code in plan.targets.values()):
        return y
    if not plan.several:
        y = as_array(y, "the targets", labels=True)
        if y.dtype.kind not in "fiub":
            return y  # a later check refuses it
        y = plan.target.scale(y)
        return y if x.windows is None else y.reshape(len(y), -1) - plan.before(x.inputs, x.windows)
    if not isinstance(y, Mapping):
        return y  # a later check refuses it
    codes = {name: code for name, code in plan.targets.items() if code.scaled and name in y}
    return {**y, **{name: code.scale(as_array(y[name], "the targets")) for name, code in codes.items()}}
