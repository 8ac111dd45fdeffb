"""The metrics of a network with several outputs: each output has metrics, named `output.metric`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distbp.core.arrays import Array
from distbp.core.errors import Fault, JobError, cut
from distbp.nn.losses.several import Head, Heads
from distbp.nn.metrics import BoundMetric, Frame, Sums, metrics_for


def metrics_of(
    heads: Heads, names: Sequence[str] | None = None, frame: Frame | None = None
) -> list[BoundMetric]:
    """`metrics_for` every output. With several outputs a name joins the names of output and metric, as in
    `digit.accuracy`. Outputs, targets and `frame` then hold the columns of all outputs, side by side.

    Raises JobError with a fault at `metrics.<i>` for every name that is not known or does not apply.
    """
    if not heads.several:
        return metrics_for(heads.all[0].loss, heads.all[0].shape, names, frame)
    if names is None:
        return [metric for head in heads for metric in _own(head, None, frame)]
    faults: list[Fault] = []
    bound: dict[str, BoundMetric] = {}
    for i, name in enumerate(names):
        # The name of a layer may contain dots.
        fits = [head for head in heads if name.startswith(f"{head.name}.")]
        if not fits:
            known = ", ".join(head.name for head in heads)
            text = f"{cut(name, 60)!r} names no output; write output.metric, with an output of {known}"
            faults.append(Fault(f"metrics.{i}", text))
            continue
        head = max(fits, key=lambda one: len(one.name))
        try:
            (bound[name],) = _own(head, [name.removeprefix(f"{head.name}.")], frame)
        except JobError as error:
            faults += [Fault(f"metrics.{i}", fault.message) for fault in error.faults]
    if faults:
        raise JobError(faults)
    return list(bound.values())


def _own(head: Head, names: Sequence[str] | None, frame: Frame | None) -> list[BoundMetric]:
    """The metrics of one output. They take the outputs and targets of all and pick its columns."""
    own = None if frame is None else frame.part(head.targets)
    return [_of_head(metric, head) for metric in metrics_for(head.loss, head.shape, names, own)]


def _of_head(metric: BoundMetric, head: Head) -> BoundMetric:
    def accumulate(y: Array, targets: Array, weights: Array | None, sums: Sums) -> None:
        metric.accumulate(head.outputs_of(y), head.targets_of(targets), weights, sums)

    def finish_collected(y: Array, targets: Array, weights: Array | None) -> float:
        return metric.finish_collected(head.outputs_of(y), head.targets_of(targets), weights)

    return replace(
        metric,
        name=head.metric(metric.name),
        accumulate=accumulate,
        finish_collected=finish_collected,
    )
