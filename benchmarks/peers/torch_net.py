"""The PyTorch net, update forms and training loop that the PyTorch peers share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.common import Net
from benchmarks.rows import Row
from benchmarks.synthetic import PROBE_ROWS, first_weights, orders, samples

# Rows gathered at once: a few batches, so that one index_select serves several small steps and its result
# is still in the cache when they read it.
GATHER_ROWS = 2_048
TRIAL_S = 0.3

Step = Callable[[Tensor, Tensor], None]
MakeStep = Callable[[nn.Sequential], Step]


def make_net(row: Row) -> nn.Sequential:
    """The dense net of a row, with the first weights that every peer gets."""
    activation = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}[row.activation]
    layers: list[nn.Module] = []
    for weights, biases in first_weights(row):
        dense = nn.Linear(*weights.shape)
        with torch.no_grad():
            dense.weight.copy_(torch.from_numpy(weights.T))
            dense.bias.copy_(torch.from_numpy(biases))
        layers += [dense, activation()]
    return nn.Sequential(*layers[:-1])


def optimizer_step(row: Row, net: nn.Module, **form: bool) -> Step:
    """A step with torch.optim.SGD in one of its forms (`foreach=False`, `foreach=True`, `fused=True`)."""
    optimizer = torch.optim.SGD(net.parameters(), lr=row.learning_rate, **form)

    def step(x: Tensor, y: Tensor) -> None:
        functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def handwritten_step(row: Row, net: nn.Sequential) -> Step:
    """The same step without torch.optim and without calling modules: the least Python that PyTorch allows."""
    *hidden, last = [(layer.weight, layer.bias) for layer in net if isinstance(layer, nn.Linear)]
    activation = {"sigmoid": torch.sigmoid, "relu": torch.relu}[row.activation]
    parameters = list(net.parameters())

    def step(x: Tensor, y: Tensor) -> None:
        for weight, bias in hidden:
            x = activation(functional.linear(x, weight, bias))
        loss = functional.cross_entropy(functional.linear(x, *last), y)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=row.learning_rate)

    return step


def optimizer_forms(row: Row) -> list[MakeStep]:
    """The three forms of torch.optim.SGD; which one is fastest depends on the net."""
    forms: list[dict[str, bool]] = [{"foreach": False}, {"foreach": True}, {"fused": True}]
    return [partial(optimizer_step, row, **form) for form in forms]


def train(step: Step, inputs: Tensor, labels: Tensor, order: Any) -> None:
    """One epoch over `order` (steps, batch), gathered block by block."""
    batch = order.shape[1]
    for block in torch.from_numpy(order).split(max(1, GATHER_ROWS // batch)):
        rows = block.reshape(-1)
        xs = inputs.index_select(0, rows).split(batch)
        ys = labels.index_select(0, rows).split(batch)
        for x, y in zip(xs, ys, strict=True):
            step(x, y)


def mean_loss(net: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Mean loss over the first rows of the table."""
    with torch.no_grad():
        return functional.cross_entropy(net(inputs[:PROBE_ROWS]), labels[:PROBE_ROWS]).item()


def build_fastest(row: Row, forms: Sequence[MakeStep]) -> Net:
    """A net with the fastest of the forms, on the faster of one thread and one for each core."""
    inputs, labels = map(torch.from_numpy, samples(row))
    order = next(orders(row))

    def trial_rate(form: MakeStep, threads: int) -> float:
        torch.set_num_threads(threads)
        step = form(make_net(row))
        train(step, inputs, labels, order[:2])
        steps, start, passed = 0, time.perf_counter(), 0.0
        while passed < TRIAL_S:
            train(step, inputs, labels, order[steps % len(order) :][:4])
            steps += 4
            passed = time.perf_counter() - start
        return steps / passed

    cores = len(os.sched_getaffinity(0))
    threads = max({1, cores}, key=partial(trial_rate, forms[0]))
    form = max(forms, key=lambda form: trial_rate(form, threads)) if len(forms) > 1 else forms[0]
    torch.set_num_threads(threads)
    net = make_net(row)
    step = form(net)
    return Net(lambda order: train(step, inputs, labels, order), lambda: mean_loss(net, inputs, labels))
