"""Evaluations that conjugate gradients and L-BFGS take, by the share of the slope that ends a line search.

python -m benchmarks.line_searches [--write docs/learn.md]

Geometric means over problems of one kind. An evaluation is one step of a job. Nothing is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import replace_section
from distbp.engine.numerics import one_blas_thread
from distbp.optim import Searching, Step
from distbp.optim.whole_batch import LBFGS, ConjugateGradient

Array = np.ndarray[Any, np.dtype[Any]]
Objective = Callable[[Array], tuple[float, Array]]  # the loss and its gradient
Problem = tuple[Objective, Array, float]  # with the start, and the norm of the gradient that ends it
MOST = 6000  # evaluations


class OnAnyLine(ConjugateGradient):
    """Conjugate gradients whose first trial on a parabola is judged as on any other line."""

    on_parabola = 1.0


METHODS: dict[str, Any] = {
    "conjugate gradients, 0.1, without the rule": OnAnyLine(curvature=0.1),
    **{
        f"conjugate gradients, {share}{', the default' if share == 0.2 else ''}": ConjugateGradient(
            curvature=share
        )
        for share in (0.01, 0.1, 0.2, 0.4)
    },
    **{
        f"L-BFGS, {share}{', the default' if share == 0.9 else ''}": LBFGS(curvature=share)
        for share in (0.9, 0.5, 0.2)
    },
}


def bowl(seed: int) -> Problem:
    """Least squares in 100 dimensions with a condition of 100."""
    rng = np.random.default_rng(seed)
    q, v = (np.linalg.qr(rng.normal(size=(rows, 100)))[0] for rows in (200, 100))
    x = q * np.sqrt(200 * np.linspace(1, 100, 100)) @ v
    y = x @ rng.normal(size=100) + 0.5 * rng.normal(size=200)

    def at(w: Array) -> tuple[float, Array]:
        error = x @ w - y
        return float(error @ error) / 200, 2 * x.T @ error / 200

    return at, np.zeros(100), 1e-10


def valley(size: int, seed: int) -> Problem:
    """Rosenbrock's, near its usual start."""

    def at(w: Array) -> tuple[float, Array]:
        x, slack = w[:-1], w[1:] - w[:-1] ** 2
        gradient = np.zeros_like(w)
        gradient[:-1] = -400 * x * slack - 2 * (1 - x)
        gradient[1:] += 200 * slack
        return float((100 * slack**2 + (1 - x) ** 2).sum()), gradient

    moved = 0.1 * np.random.default_rng([5, seed]).normal(size=size)
    return at, np.tile([-1.2, 1.0], size // 2) + moved, 1e-9


def network(seed: int, units: int = 8, rows: int = 150) -> Problem:
    """A layer of tanh units and a linear one over five inputs, squared error, L2 of 1e-3."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5))
    y = np.sin(x[:, 0]) * x[:, 1] + 0.3 * rng.normal(size=rows)

    def at(w: Array) -> tuple[float, Array]:
        first, (b, v), c = w[: 5 * units].reshape(5, units), w[5 * units : -1].reshape(2, units), w[-1]
        h = np.tanh(x @ first + b)
        error = h @ v + c - y
        d = (error[:, None] * v) * (1 - h * h) * 2 / rows
        parts = ((x.T @ d).ravel(), d.sum(axis=0), h.T @ error * 2 / rows, [error.sum() * 2 / rows])
        return float(error @ error / rows + 5e-4 * (w @ w)), np.concatenate(parts) + 1e-3 * w

    return at, 0.4 * np.random.default_rng(seed + 1).normal(size=7 * units + 1), 1e-3


def logistic(seed: int, inputs: int = 40, rows: int = 300) -> Problem:
    """A logistic regression over inputs of very different sizes, L2 of 1e-3."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)) * np.logspace(0, 1.5, inputs)
    y = (x @ rng.normal(size=inputs) / 20 + rng.normal(size=rows) > 0).astype(float)

    def at(w: Array) -> tuple[float, Array]:
        z = x @ w
        loss = (np.logaddexp(0, z) - y * z).mean() + 5e-4 * w @ w
        return float(loss), x.T @ (1 / (1 + np.exp(-z)) - y) / rows + 1e-3 * w

    return at, np.zeros(inputs), 1e-5


PROBLEMS: dict[str, Sequence[Problem]] = {
    "bowl": [bowl(seed) for seed in range(8)],
    "valley of 10": [valley(10, seed) for seed in range(16)],
    "valley of 50": [valley(50, seed) for seed in range(8)],
    "network": [network(seed) for seed in range(12)],
    "logistic": [logistic(seed) for seed in range(8)],
}


def evaluations(method: Any, problem: Problem) -> int:
    """Until the norm of the gradient is as small as the problem asks."""
    objective, start, tolerance = problem
    point = start.copy()
    ends = [(0, point.size)]
    searching = Searching(replace(method, tolerance=tolerance), point, ends, tensors=ends)
    for number in range(1, MOST + 1):
        searching.probe()
        loss, gradient = objective(point)
        searching.apply_measured(gradient, Step(number, 1.0, 0.0, loss), 1.0)
        if searching.verdict:
            return number
    return MOST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", type=Path, help="the page to put the table into")
    given = parser.parse_args()
    lines = ["| method | " + " | ".join(PROBLEMS) + " |", "| --- " * (1 + len(PROBLEMS)) + "|"]
    for name, method in METHODS.items():
        cells = []
        for problems in PROBLEMS.values():
            with one_blas_thread():
                counts = [evaluations(method, problem) for problem in problems]
            cells.append(f"{np.exp(np.mean(np.log(counts))):,.0f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    if given.write is not None:
        replace_section(given.write, "line-searches", "\n".join(lines))


if __name__ == "__main__":
    main()
