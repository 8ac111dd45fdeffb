"""Computes losses and update rules number by number (see `loops`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distbp.run.explain.numbers import Spec, Values

Pair = tuple[list[float], list[float]]  # losses with the sum E, and dE/da


def _log(p: float) -> float:
    return max(math.log(p), -100.0) if p > 0 else -100.0


def _huber(y: float, t: float, delta: float) -> tuple[float, float]:
    e = y - t
    if abs(e) <= delta:
        return e * e / 2, e
    return delta * (abs(e) - delta / 2), math.copysign(delta, e)


def _logits(z: float, t: float) -> tuple[float, float]:
    p = 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
    return max(z, 0.0) - z * t + math.log1p(math.exp(-abs(z))), p - t


def _poisson(y: float, t: float, log_input: bool) -> tuple[float, float]:
    if log_input:
        return math.exp(y) - t * y, math.exp(y) - t
    return y - t * math.log(y + 1e-8), 1 - t / (y + 1e-8)


# Losses of values: the loss of one output and its derivative, before division by the number of outputs.
_VALUES: Mapping[str, Callable[[Spec, float, float], tuple[float, float]]] = {
    "quadratic": lambda s, y, t: ((y - t) ** 2 / 2, y - t),
    "mse": lambda s, y, t: ((y - t) ** 2, 2 * (y - t)),
    "mae": lambda s, y, t: (abs(y - t), float(np.sign(y - t))),
    "huber": lambda s, y, t: _huber(y, t, s["delta"]),
    "perceptron": lambda s, y, t: ((float(y > 0) - t) * y, float(y > 0) - t),
    "poisson": lambda s, y, t: _poisson(y, t, s["log_input"]),
    "sigmoid_cross_entropy": lambda s, y, t: _logits(y, t),
    "binary_cross_entropy": lambda s, y, t: (
        -(t * _log(y) + (1 - t) * _log(1 - y)),
        (y - t) / max((1 - y) * y, 1e-12),
    ),
}


def loss_of(spec: Spec, y: Values, target: Any) -> Pair:
    """The losses, whose sum is E, and dE/da, (outputs,)."""
    kind, outputs = spec["type"], len(y)
    if kind in _VALUES:
        summed = kind in ("quadratic", "perceptron") or spec.get("outputs") == "sum"
        share = 1.0 if summed else 1 / outputs
        both = [_VALUES[kind](spec, float(a), float(t)) for a, t in zip(y, target, strict=True)]
        return [share * one for one, _ in both], [share * d for _, d in both]
    label = int(target)
    if kind == "softmax_cross_entropy":
        top = max(y)
        total = math.fsum(math.exp(v - top) for v in y)
        smooth = spec["label_smoothing"]
        wanted = [smooth / outputs + (1 - smooth) * (k == label) for k in range(outputs)]
        logs = [v - top - math.log(total) for v in y]
        return (
            [-math.fsum(w * value for w, value in zip(wanted, logs, strict=True))],
            [math.exp(value) - w for w, value in zip(wanted, logs, strict=True)],
        )
    if kind == "nll":
        d = [-1 / max(y[label], 1e-12) if k == label else 0.0 for k in range(outputs)]
        return [-_log(float(y[label]))], d
    over = [max(spec["margin"] - y[label] + v, 0.0) if k != label else 0.0 for k, v in enumerate(y)]
    power = spec["power"]
    d = [(2 * v if power == 2 else float(v > 0)) / outputs for v in over]
    d[label] = -math.fsum(d)
    return [math.fsum(v**power for v in over) / outputs], d


def clipped(spec: Spec, gradients: Mapping[Any, Values]) -> dict[Any, Values]:
    """The gradients after clipping: first by their joint norm, then each number."""
    norm, value = spec["clip"]["norm"], spec["clip"]["value"]
    factor = 1.0
    if norm is not None:
        length = math.sqrt(math.fsum(float(g) ** 2 for one in gradients.values() for g in one.ravel()))
        factor = min(1.0, norm / (length + 1e-6))
    limit = math.inf if value is None else value
    return {name: np.clip(one * factor, -limit, limit) for name, one in gradients.items()}


def updated(spec: Spec, w: float, g: float, state: Mapping[str, float], decays: bool) -> tuple[float, Any]:
    """One parameter after the update, and its state. g: its gradient after clipping."""
    kind, rate, step = spec["type"], spec["learning_rate"], spec["update"]
    if decays:
        g += spec["penalties"]["l2"] * w + spec["penalties"]["l1"] * float(np.sign(w))
        if kind == "adamw":
            w *= 1 - rate * spec["weight_decay"] * spec["decay_factor"]
        else:
            g += spec["weight_decay"] * w
    if kind == "sgd":
        return w - rate * g, {}
    if kind in ("momentum", "nesterov"):
        mu, scale, last = spec["momentum"], 1.0, rate
        if spec["convention"] == "keras":
            scale, last = rate, 1.0
        b = mu * state["momentum"] + scale * g
        direction = b if kind == "momentum" else scale * g + mu * b
        return w - last * direction, {"momentum": b}
    if kind == "adagrad":
        s = state["sum_of_squares"] + g * g
        return w - rate * g / (math.sqrt(s) + spec["epsilon"]), {"sum_of_squares": s}
    if kind == "rmsprop":
        return _rmsprop(spec, w, g, state)
    m = spec["beta1"] * state["first_moment"] + (1 - spec["beta1"]) * g
    v = spec["beta2"] * state["second_moment"] + (1 - spec["beta2"]) * g * g
    whole_m, whole_v = 1 - spec["beta1"] ** step, 1 - spec["beta2"] ** step
    if spec["epsilon_hat"]:
        u = m * math.sqrt(whole_v) / whole_m / (math.sqrt(v) + spec["epsilon"])
    else:
        u = m / whole_m / (math.sqrt(v / whole_v) + spec["epsilon"])
    return w - rate * u, {"first_moment": m, "second_moment": v}


def _rmsprop(spec: Spec, w: float, g: float, state: Mapping[str, float]) -> tuple[float, Any]:
    decay = spec["decay"]
    after = {"mean_square": decay * state["mean_square"] + (1 - decay) * g * g}
    square = after["mean_square"]
    if spec["centered"]:
        after["mean"] = decay * state["mean"] + (1 - decay) * g
        square = max(square - after["mean"] ** 2, 0.0)
    u = g / (math.sqrt(square) + spec["epsilon"])
    if spec["momentum"]:
        u = after["momentum"] = spec["momentum"] * state["momentum"] + u
    return w - spec["learning_rate"] * u, after
