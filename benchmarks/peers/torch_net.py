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
from benchmarks.rows import MOMENTUM, Row
from benchmarks.synthetic import PROBE_ROWS, class_weights, first_weights, orders, samples

# Rows gathered at once: a few batches, so that one index_select serves several small steps and its result
# is still in the cache when they read it.
GATHER_ROWS = 2_048
TRIAL_S = 0.3

Step = Callable[[Tensor, Tensor], None]
Loss = Callable[[Tensor, Tensor], Tensor]
MakeStep = Callable[[nn.Sequential], Step]


def make_net(row: Row) -> nn.Sequential:
    """The dense net of a row, with the first weights that every peer gets."""
    activation = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "gelu": nn.GELU}[row.activation]
    layers: list[nn.Module] = []
    for weights, biases in first_weights(row):
        dense = nn.Linear(*weights.shape)
        with torch.no_grad():
            dense.weight.copy_(torch.from_numpy(weights.T))
            dense.bias.copy_(torch.from_numpy(biases))
        layers.append(dense)
        layers += [nn.BatchNorm1d(weights.shape[1])] if row.normalized else []
        layers.append(activation())
        layers += [nn.Dropout(row.dropout)] if row.dropout else []
    last = max(number for number, layer in enumerate(layers) if isinstance(layer, nn.Linear))
    return nn.Sequential(*layers[: last + 1])


def loss_of(row: Row) -> Loss:
    """The mean loss of outputs (rows, outputs) and targets."""
    if row.loss == "mse":
        return functional.mse_loss
    if row.loss == "sigmoid_cross_entropy":
        return functional.binary_cross_entropy_with_logits
    weights = torch.from_numpy(class_weights(row)) if row.class_weights else None
    return partial(functional.cross_entropy, weight=weights)


def optimizer_step(row: Row, net: nn.Module, **form: bool) -> Step:
    """A step with the row's optimizer in one of its forms (`foreach=False`, `foreach=True`, `fused=True`)."""
    kind = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}.get(row.optimizer, torch.optim.SGD)
    options = {"momentum": MOMENTUM} if row.optimizer == "momentum" else {}
    optimizer = kind(net.parameters(), lr=row.learning_rate, **options, **form)
    loss, parameters = loss_of(row), list(net.parameters())
    weights = [parameter for parameter in parameters if parameter.ndim == 2]

    def step(x: Tensor, y: Tensor) -> None:
        loss(net(x), y).backward()
        if row.clip_norm:
            nn.utils.clip_grad_norm_(parameters, row.clip_norm)
        if row.l1:
            with torch.no_grad():
                signs = torch._foreach_sign(weights)
                torch._foreach_add_([weight.grad for weight in weights], signs, alpha=row.l1)
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
    """The three forms of an optimizer of PyTorch; which one is fastest depends on the net."""
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


def mean_loss(row: Row, net: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Mean loss over the first rows of the table."""
    net.eval()
    with torch.no_grad():
        found = loss_of(row)(net(inputs[:PROBE_ROWS]), labels[:PROBE_ROWS]).item()
    net.train()
    return found


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
    return Net(lambda order: train(step, inputs, labels, order), lambda: mean_loss(row, net, inputs, labels))
