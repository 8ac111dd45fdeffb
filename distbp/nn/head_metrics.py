"""The metrics of a network with several outputs: those of each, under the name of the output."""

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
    """`metrics_for` of every output. Of several outputs a name is that of the output and of the metric,
    `digit.accuracy`; outputs and targets are then those of all, side by side, and so is `frame`.

    Raises JobError with a fault at `metrics.<i>` for every name that is not known or does not apply.
    """
    if not heads.several:
        return metrics_for(heads.all[0].loss, heads.all[0].shape, names, frame)
    faults: list[Fault] = []
    wanted: dict[str, list[str]] = {head.name: [] for head in heads}
    places: dict[str, int] = {}
    for i, name in enumerate(names or ()):
        # A name of a layer may hold dots.
        output = max((h.name for h in heads if name.startswith(f"{h.name}.")), key=len, default=None)
        if output is None:
            known = ", ".join(head.name for head in heads)
            text = f"{cut(name, 60)!r} names no output; write output.metric, with an output of {known}"
            faults.append(Fault(f"metrics.{i}", text))
        else:
            wanted[output].append(name.removeprefix(f"{output}."))
            places[name] = i
    bound: dict[str, BoundMetric] = {}
    for head in heads:
        try:
            own = None if frame is None else frame.part(head.targets)
            found = metrics_for(head.loss, head.shape, None if names is None else wanted[head.name], own)
        except JobError as error:
            for fault in error.faults:
                name = head.metric(wanted[head.name][int(fault.path.rpartition(".")[2])])
                faults.append(Fault(f"metrics.{places[name]}", fault.message))
            continue
        bound |= {head.metric(metric.name): _of_head(metric, head) for metric in found}
    if faults:
        raise JobError(sorted(faults, key=lambda fault: int(fault.path.rpartition(".")[2])))
    return list(bound.values()) if names is None else [bound[name] for name in dict.fromkeys(names)]


def _of_head(metric: BoundMetric, head: Head) -> BoundMetric:
    """The metric of one output, for the outputs and targets of all."""

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
