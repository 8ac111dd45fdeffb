"""Explains one step of one sample with every number of the engine (`distbp explain`).

The equations are those of M. Nielsen, "Neural Networks and Deep Learning", chapter 2. With delta = dE/dz,

    BP1   delta = dE/da * f'(z)                      of an output
    BP2   dE/da = W^T delta of the next layer        of every other layer; then delta as in BP1
    BP3   dE/db = delta
    BP4   dE/dw = delta * (the input of the weight)

The step uses a batch of only this sample, in float64. So the sample's weight in the loss cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distbp.core.arguments import path_given
from distbp.core.arrays import Array
from distbp.core.errors import Fault, JobError, NumericsError
from distbp.core.reduction import Block
from distbp.engine.blueprint import Blueprint
from distbp.engine.diagnosis import diagnose
from distbp.engine.numerics import one_blas_thread, quiet
from distbp.engine.parameter_server import NO_PLATEAU, Contribution, NotFiniteError, ParameterServer
from distbp.engine.totals import BOUND, LIVE, LOSS, ROWS, WEIGHT
from distbp.engine.worker import Worker
from distbp.job import TrainingJob
from distbp.job.kinds import plain
from distbp.nn.losses.several import heads_of
from distbp.nn.network import Network, Tensor
from distbp.nn.tape import ENTRY, TOTALS, position
from distbp.nn.wiring import DATA
from distbp.optim import CHAINS
from distbp.run.blueprints import make_blueprint
from distbp.run.explain.explanation import Explanation
from distbp.run.explain.numbers import LayerStep, Parameter, is_bias
from distbp.run.explain.outputs import OutputStep
from distbp.run.explain.record import Recording, options_of, record
from distbp.run.explain.sample import Sample, check_call, sample_of, with_states
from distbp.run.splits import open_splits
from distbp.run.train import by_split, check_job
from distbp.run.warm_start import check_init, first_arrays, going_on, init_folder
from distbp.team.base import Snapshot


@quiet()
def explain_job(
    job: TrainingJob,
    folder: str | Path = ".",
    *,
    sample: int = 0,
    step: int = 0,
    hold_biases: bool = False,
    given: Mapping[str, Any] | None = None,
    watch: Callable[[int, float], None] = lambda done, loss: None,
) -> Explanation:
    """Trains `step` steps of the job in float64, and explains the next step for one row of the training set.
    Waits.

    sample: the number of the row. hold_biases: no step changes the biases. folder, given: as in `train`.
    watch: called before each update with the number of earlier updates and the loss of the batch. Raises
    ArgumentError, JobError, DataError, NumericsError.
    """
    check_job(job)
    if job.optimizer.type not in CHAINS:
        text = f"{job.optimizer.type} is not explained; explained are {', '.join(CHAINS)}"
        raise JobError([Fault("optimizer", text)])
    wide = job.replace(dtype="float64", workers=0, servers=1)
    place = path_given(folder, "folder")
    splits = open_splits(wide, place, by_split(given))
    blueprint = replace(make_blueprint(wide, splits), kernels="numpy")
    check_call(blueprint, sample, step)
    source = init_folder(wide, place)
    check_init(blueprint, splits, source)
    blueprint = going_on(blueprint, source)
    network, data, count = blueprint.network(), splits.ready(blueprint), blueprint.rows["train"]
    begin = Snapshot(0, first_arrays(blueprint, source, lambda: (data.train(0)[0], count)))
    vector = begin.arrays["vector"]
    with one_blas_thread():
        server = ParameterServer(blueprint, vector, slots=begin.slots)
        held = [t for t in network.tensors if is_bias(t.name)] if hold_biases else []
        worker = Worker(blueprint, vector, data)
        whole = Contribution(Block(0, blueprint.shards), server.gradient, server.totals)
        for number in range(step):
            worker.compute(number, *whole)
            watch(number, float(whole.totals[LOSS] / (whole.totals[WEIGHT] or 1.0)))
            try:
                _apply(server, number, whole, held)
            except NotFiniteError:
                raise diagnose(blueprint, vector, data, number) from None
        row = sample_of(blueprint, network, worker, data, sample, step)
        return _explained(blueprint, network, server, row, step, held)


def _explained(
    blueprint: Blueprint,
    network: Network,
    server: ParameterServer,
    sample: Sample,
    step: int,
    held: list[Tensor],
) -> Explanation:
    job, vector = blueprint.job, server.vector
    before, slots = vector.copy(), {name: values.copy() for name, values in server.slots.items()}
    at = position(step, 0, job.seed, blueprint.total_steps, blueprint.past.steps)

    def recorded(values: Array) -> Recording:
        own = with_states(network, values, before, sample.lane)
        return record(network, job.loss, own, sample.x, sample.target, sample.weights, at)

    found = recorded(vector)
    gradient, totals = found.gradient.copy(), np.zeros_like(server.totals)
    totals[LOSS], totals[WEIGHT], totals[BOUND], totals[ROWS] = *found.totals[:TOTALS], 1
    totals[LIVE:BOUND] = found.totals[TOTALS : TOTALS + len(totals) - LIVE - 1]
    rate = float(server.learning_rate(step, NO_PLATEAU))
    try:
        _apply(server, step, Contribution(Block(0, blueprint.shards), gradient, totals), held)
    except NotFiniteError:
        advice = "Explain an earlier step, or lower optimizer.learning_rate."
        raise NumericsError(step, "the network", "gradient of the sample", "NaN or Inf", (), advice) from None
    fixed = vector.copy()
    for tensor in network.tensors:
        if is_bias(tensor.name):
            fixed[tensor.start : tensor.stop] = before[tensor.start : tensor.stop]

    def parameter(tensor: Tensor, layer: int) -> Parameter:
        def cut(values: Array) -> Array:
            return values[tensor.start : tensor.stop].reshape(tensor.shape).copy()

        decays = any(start <= tensor.start < stop for start, stop in blueprint.decays(network))
        rates = (factor for start, stop, factor in blueprint.rates(network) if start <= tensor.start < stop)
        olds, news = ({n: cut(v) for n, v in s.items()} for s in (slots, server.slots))
        part, owner = found.parts.get((layer, tensor.name)), None
        if part is not None:
            part, owner = part.reshape(tensor.shape), tensor.layer
        return Parameter(
            tensor.name,
            decays,
            next(rates, 1.0),
            cut(before),
            cut(found.gradient),
            cut(vector),
            olds,
            news,
            part,
            owner,
        )

    layers = []
    for index, seen in found.layers.items():
        number = ENTRY if index == DATA else index
        layer, own = network.layer(number), tuple(parameter(t, index) for t in network.used_by(number))
        layers.append(
            LayerStep(
                index, layer.type, layer.name, (DATA - 1,) if index == DATA else network.wiring[index],
                options_of(layer), layer.ends_in, seen.inputs, seen.a, seen.d_a, seen.numbers, own,
            )
        )  # fmt: skip
    clip = job.clip
    return Explanation(
        job.name,
        job.seed,
        sample.number,
        sample.row if blueprint.series else None,
        step,
        blueprint.total_steps,
        blueprint.past.steps,
        bool(held),
        layers[0].x,
        found.length,
        tuple(layers),
        _outputs(network, job, found, sample),
        found.loss,
        recorded(vector).loss,
        recorded(fixed).loss,
        {**plain(job.optimizer), "decay_factor": blueprint.decay()(step)},
        rate,
        {"l1": job.regularization.l1, "l2": job.regularization.l2},
        {"norm": None if clip is None else clip.norm, "value": None if clip is None else clip.value},
    )


def _outputs(network: Network, job: TrainingJob, found: Recording, sample: Sample) -> tuple[OutputStep, ...]:
    heads = heads_of(job.loss, network.answer_shapes)
    if network.carry is not None:  # one output, with a target for each step
        number, (head,), (lost,) = network.outputs[0], heads, found.outputs
        a, steps = found.layers[number].a, found.length
        target = sample.target.reshape(network.answers, -1)[:steps]
        target = target[:, 0] if head.is_label else target
        weights = sample.weights[:steps, 0]
        return (OutputStep(None, number, plain(head.loss), 1.0, target, weights, a, *lost),)
    return tuple(
        OutputStep(
            head.name or None,
            number,
            plain(head.loss),
            head.factor,
            head.targets_of(sample.target)[0].copy(),
            None,
            found.layers[number].a,
            *lost,
        )
        for head, number, lost in zip(heads, network.outputs, found.outputs, strict=True)
    )


def _apply(server: ParameterServer, step: int, whole: Contribution, held: list[Tensor]) -> None:
    """Applies one update. The tensors in `held` stay unchanged, and their gradients count as 0."""
    kept = [server.vector[t.start : t.stop].copy() for t in held]
    for tensor in held:
        whole.gradient[tensor.start : tensor.stop] = 0
    server.apply(step, [whole])
    for tensor, values in zip(held, kept, strict=True):
        server.vector[tensor.start : tensor.stop] = values
