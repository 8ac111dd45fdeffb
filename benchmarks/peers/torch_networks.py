"""PyTorch eager on the networks beside dense ones, in its fastest form.

The forms: optimizers plain, foreach and fused; images channels first and channels last; attention as
`TransformerEncoderLayer` and by `scaled_dot_product_attention`; averaged vectors as `Embedding` and as
`EmbeddingBag` with sparse gradients; one thread and one for each core.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import networks as n
from benchmarks.networks import NetworkRow
from benchmarks.peers.common import Net, main
from benchmarks.synthetic import PROBE_ROWS, orders, samples

TRIAL_S = 0.4
_STANDARD, _OTHER = "standard", "other"


class _Residual(nn.Module):
    """Two normalized convolutions beside what skips them."""

    def __init__(self, before: int, filters: int, stride: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            nn.Conv2d(before, filters, 3, stride, 1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, 1, 1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.short: nn.Module = nn.Identity()
        if stride > 1:
            once = nn.Conv2d(before, filters, 1, stride, bias=False)
            self.short = nn.Sequential(once, nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.deep(x) + self.short(x))


class _LastState(nn.Module):
    """A recurrent layer, and dense outputs of its last state."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.recurrent, self.out = kind(n.FEATURES, 64, batch_first=True), nn.Linear(64, n.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(x)
        return self.out(states[:, -1])  # type: ignore[no-any-return]


class _Average(nn.Module):
    """Outputs of the average vector of the ids."""

    def __init__(self, bag: bool) -> None:
        super().__init__()
        self.bag = bag
        kind: Any = nn.EmbeddingBag if bag else nn.Embedding
        self.table = kind(n.WORDS, n.VECTOR, **({"mode": "mean", "sparse": True} if bag else {}))
        self.out = nn.Linear(n.VECTOR, n.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.table(x) if self.bag else self.table(x).mean(1))  # type: ignore[no-any-return]


class _Encoder(nn.Module):
    """A block that normalizes after each sum, on `scaled_dot_product_attention`."""

    def __init__(self) -> None:
        super().__init__()
        self.taken, self.given = nn.Linear(n.MODEL, 3 * n.MODEL), nn.Linear(n.MODEL, n.MODEL)
        self.inner, self.outer = nn.Linear(n.MODEL, n.INNER), nn.Linear(n.INNER, n.MODEL)
        self.first, self.second = nn.LayerNorm(n.MODEL), nn.LayerNorm(n.MODEL)

    def forward(self, x: Tensor) -> Tensor:
        rows, steps, _ = x.shape
        parts = self.taken(x).view(rows, steps, 3, n.HEADS, n.MODEL // n.HEADS).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(*parts)
        x = self.first(x + self.given(found.transpose(1, 2).reshape(x.shape)))
        return self.second(x + self.outer(functional.relu(self.inner(x))))  # type: ignore[no-any-return]


class _Transformer(nn.Module):
    """Vectors of ids and of positions, two blocks, outputs of the average step."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(n.SYMBOLS, n.MODEL)
        self.positions = nn.Parameter(torch.randn(n.LENGTH, n.MODEL) * 0.02)
        if own:
            self.blocks: nn.Module = nn.Sequential(_Encoder(), _Encoder())
        else:
            block = nn.TransformerEncoderLayer(n.MODEL, n.HEADS, n.INNER, dropout=0.0, batch_first=True)
            self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.out = nn.Linear(n.MODEL, n.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.table(x) + self.positions).mean(1))  # type: ignore[no-any-return]


def _lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, n.CLASSES)),
    )


def _resnet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(_Residual(16, 16, 1), _Residual(16, 32, 2), _Residual(32, 64, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n.CLASSES)),
    )


def make(row: NetworkRow, form: str) -> nn.Module:
    """The net of a row; `form`: standard, or the other way in which PyTorch can write it."""
    torch.manual_seed(21)
    other = form == _OTHER
    made: dict[str, Callable[[], nn.Module]] = {
        "lenet": _lenet,
        "resnet8": _resnet,
        "lstm": lambda: _LastState(nn.LSTM),
        "elman": lambda: _LastState(nn.RNN),
        "embedding": lambda: _Average(other),
        "transformer": lambda: _Transformer(other),
    }
    net = made[row.name]()
    image = len(row.shape) == 3
    return net.to(memory_format=torch.channels_last) if image and other else net  # type: ignore[call-overload, no-any-return]


def _trainer(row: NetworkRow, form: str, optimizer_form: dict[str, bool]) -> tuple[nn.Module, Any]:
    net = make(row, form)
    kind = torch.optim.Adam if row.optimizer == "adam" else torch.optim.SGD
    optimizer = kind(net.parameters(), lr=row.learning_rate, **optimizer_form)
    inputs, labels = map(torch.from_numpy, samples(row))
    if form == _OTHER and len(row.shape) == 3:
        inputs = inputs.contiguous(memory_format=torch.channels_last)

    def train(order: Any) -> None:
        for rows in torch.from_numpy(order):
            functional.cross_entropy(net(inputs[rows]), labels[rows]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return net, train


def build(row: NetworkRow) -> Net:
    """The fastest form."""
    forms = [_STANDARD] if row.name in ("lstm", "elman") else [_STANDARD, _OTHER]
    optimizers: list[dict[str, bool]] = [{"foreach": False}, {"foreach": True}, {"fused": True}]
    threads = sorted({1, len(os.sched_getaffinity(0))})
    order = next(orders(row))

    def rate(form: str, optimizer: dict[str, bool], count: int) -> float:
        torch.set_num_threads(count)
        try:
            _, train = _trainer(row, form, optimizer)
            train(order[:2])
        except RuntimeError:  # sparse gradients have one form of SGD
            return 0.0
        steps, start, passed = 0, time.perf_counter(), 0.0
        while passed < TRIAL_S:
            train(order[steps % len(order) :][:2])
            steps += 2
            passed = time.perf_counter() - start
        return steps / passed

    form, optimizer, count = max(product(forms, optimizers, threads), key=lambda each: rate(*each))
    torch.set_num_threads(count)
    net, train = _trainer(row, form, optimizer)
    inputs, labels = map(torch.from_numpy, samples(row))

    def loss() -> float:
        net.eval()
        with torch.no_grad():
            found = functional.cross_entropy(net(inputs[:PROBE_ROWS]), labels[:PROBE_ROWS]).item()
        net.train()
        return found

    return Net(train, loss)


if __name__ == "__main__":
    main(build)
