"""JAX: one compiled call trains a whole epoch, a `lax.scan` over its batches; parameters are donated."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.peers.common import Net, main
from benchmarks.rows import Row


def build(row: Row) -> Net:
    """The net of a row on JAX's CPU back end."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp
    from jax import lax

    from benchmarks.synthetic import PROBE_ROWS, first_weights, samples

    activation = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu}[row.activation]
    inputs, labels = map(jnp.asarray, samples(row))
    labels = labels.astype(jnp.int32)
    params = jax.tree.map(jnp.asarray, first_weights(row))

    def mean_loss(params: Any, x: Any, y: Any) -> Any:
        for weights, biases in params[:-1]:
            x = activation(x @ weights + biases)
        weights, biases = params[-1]
        logits = x @ weights + biases
        picked = jnp.take_along_axis(logits, y[:, None], axis=1, mode="promise_in_bounds")[:, 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)

    def step(params: Any, rows: Any) -> tuple[Any, None]:
        # The order holds each row once and none outside the table: a plain copy, no checks.
        x = inputs.at[rows].get(mode="promise_in_bounds", unique_indices=True)
        y = labels.at[rows].get(mode="promise_in_bounds", unique_indices=True)
        gradient = jax.grad(mean_loss)(params, x, y)
        return jax.tree.map(lambda p, g: p - row.learning_rate * g, params, gradient), None

    epoch = jax.jit(lambda params, order: lax.scan(step, params, order)[0], donate_argnums=0)
    probe = jax.jit(lambda params: mean_loss(params, inputs[:PROBE_ROWS], labels[:PROBE_ROWS]))

    def train(order: Any) -> None:
        nonlocal params
        params = jax.block_until_ready(epoch(params, jnp.asarray(order, dtype=jnp.int32)))

    return Net(train, lambda: float(probe(params)))


if __name__ == "__main__":
    main(build)
