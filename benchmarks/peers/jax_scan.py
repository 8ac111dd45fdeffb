"""JAX: one compiled call trains a whole epoch, a `lax.scan` over its batches; its state is donated."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from benchmarks.peers.common import Net, main
from benchmarks.rows import MOMENTUM, Row

STATISTICS_RATE, VARIANCE_FLOOR = 0.1, 1e-5  # of batch normalization, as PyTorch's defaults


def build(row: Row) -> Net:
    """The net of a row on JAX's CPU back end."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp
    from jax import lax

    from benchmarks.synthetic import PROBE_ROWS, class_weights, first_weights, samples

    activations = {
        "sigmoid": jax.nn.sigmoid,
        "relu": jax.nn.relu,
        "gelu": partial(jax.nn.gelu, approximate=False),
    }
    activation = activations[row.activation]
    inputs, targets = map(jnp.asarray, samples(row))
    if row.loss == "softmax_cross_entropy":
        targets = targets.astype(jnp.int32)
    shares = jnp.asarray(class_weights(row))
    params = [{"w": jnp.asarray(weights), "b": jnp.asarray(biases)} for weights, biases in first_weights(row)]
    if row.normalized:
        for layer in params[:-1]:
            layer.update(gain=jnp.ones_like(layer["b"]), shift=jnp.zeros_like(layer["b"]))
    statistics = [
        (jnp.zeros_like(layer["b"]), jnp.ones_like(layer["b"])) for layer in params[:-1] if row.normalized
    ]

    def outputs(params: Any, statistics: Any, x: Any, key: Any) -> tuple[Any, Any]:
        """Training where there is a key: of the batch's moments, and with dropout."""
        moved = []
        for number, layer in enumerate(params[:-1]):
            x = x @ layer["w"] + layer["b"]
            if row.normalized:
                mean, variance = statistics[number]
                if key is not None:
                    mean, variance, rows = x.mean(axis=0), x.var(axis=0), x.shape[0]
                    new = (mean, variance * (rows / (rows - 1)))
                    moved.append(
                        jax.tree.map(
                            lambda old, now: old + STATISTICS_RATE * (now - old), statistics[number], new
                        )
                    )
                x = (x - mean) * lax.rsqrt(variance + VARIANCE_FLOOR) * layer["gain"] + layer["shift"]
            x = activation(x)
            if row.dropout and key is not None:
                kept = jax.random.bernoulli(jax.random.fold_in(key, number), 1 - row.dropout, x.shape)
                x = jnp.where(kept, x / (1 - row.dropout), 0)
        return x @ params[-1]["w"] + params[-1]["b"], moved

    def mean_loss(params: Any, statistics: Any, x: Any, y: Any, key: Any) -> tuple[Any, Any]:
        z, moved = outputs(params, statistics, x, key)
        if row.loss == "mse":
            return jnp.mean(jnp.square(z - y)), moved
        if row.loss == "sigmoid_cross_entropy":
            return jnp.mean(jax.nn.softplus(z) - z * y), moved
        picked = jnp.take_along_axis(z, y[:, None], axis=1, mode="promise_in_bounds")[:, 0]
        losses = jax.nn.logsumexp(z, axis=1) - picked
        if row.class_weights:
            return jnp.sum(losses * shares[y]) / jnp.sum(shares[y]), moved
        return jnp.mean(losses), moved

    def update(params: Any, slots: Any, gradient: Any, number: Any) -> tuple[Any, Any]:
        rate = row.learning_rate
        if row.clip_norm:
            norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradient)))
            scale = jnp.minimum(1.0, row.clip_norm / (norm + 1e-6))
            gradient = jax.tree.map(lambda g: g * scale, gradient)
        if row.l1:
            gradient = [
                {**g, "w": g["w"] + row.l1 * jnp.sign(p["w"])} for g, p in zip(gradient, params, strict=True)
            ]
        if row.optimizer == "momentum":
            slots = (jax.tree.map(lambda b, g: MOMENTUM * b + g, slots[0], gradient),)
            gradient = slots[0]
        elif row.optimizer == "adagrad":
            slots = (jax.tree.map(lambda s, g: s + g * g, slots[0], gradient),)
            gradient = jax.tree.map(lambda s, g: g / (jnp.sqrt(s) + 1e-10), slots[0], gradient)
        elif row.optimizer == "adam":
            first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, slots[0], gradient)
            second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, slots[1], gradient)
            root = jnp.sqrt(1 - 0.999**number)
            rate = rate * root / (1 - 0.9**number)
            gradient = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + 1e-8 * root), first, second)
            slots = (first, second)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient), slots

    def step(state: Any, rows: Any) -> tuple[Any, None]:
        params, slots, statistics, number = state
        # The order holds each row once and none outside the table: a plain copy, no checks.
        x = inputs.at[rows].get(mode="promise_in_bounds", unique_indices=True)
        y = targets.at[rows].get(mode="promise_in_bounds", unique_indices=True)
        key = jax.random.fold_in(seed, number)
        gradient, moved = jax.grad(mean_loss, has_aux=True)(params, statistics, x, y, key)
        params, slots = update(params, slots, gradient, number + 1.0)
        return (params, slots, moved, number + 1), None

    # The faster of JAX's generators here; the default one costs more than the rest of the step.
    seed = jax.random.key(25, impl="unsafe_rbg")
    count = {"sgd": 0, "momentum": 1, "adagrad": 1, "adam": 2}[row.optimizer]
    slots = tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(count))
    state = (params, slots, statistics, jnp.int32(0))
    epoch = jax.jit(lambda state, order: lax.scan(step, state, order)[0], donate_argnums=0)
    probe = jax.jit(
        lambda state: mean_loss(state[0], state[2], inputs[:PROBE_ROWS], targets[:PROBE_ROWS], None)[0]
    )

    def train(order: Any) -> None:
        nonlocal state
        state = jax.block_until_ready(epoch(state, jnp.asarray(order, dtype=jnp.int32)))

    return Net(train, lambda: float(probe(state)))


if __name__ == "__main__":
    main(build)
