"""JAX on the networks beside dense ones: a compiled `lax.scan` over batches, or a compiled call a step.

Images have their channels last, as XLA's CPU back end likes them. The faster of the two ways is measured.
"""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks import networks as n
from benchmarks.networks import NetworkRow
from benchmarks.peers.common import Net, main

SCANNED = 32  # steps of one call, at most
TRIAL_S = 0.5
FLOOR = 1e-5  # of variances


def build(row: NetworkRow) -> Net:
    """The net of a row on JAX's CPU back end, in the faster way."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp
    from jax import lax

    from benchmarks.synthetic import PROBE_ROWS, orders, samples

    given, labels = samples(row)
    image = len(row.shape) == 3
    inputs = jnp.asarray(given.transpose(0, 2, 3, 1) if image else given)
    targets = jnp.asarray(labels.astype("int32"))
    params, outputs = network(row)

    def mean_loss(params: Any, x: Any, y: Any) -> Any:
        logs = jax.nn.log_softmax(outputs(params, x))
        return -jnp.take_along_axis(logs, y[:, None], axis=1).mean()

    def step(state: Any, rows: Any) -> tuple[Any, None]:
        params, first, second, number = state
        gradient = jax.grad(mean_loss)(params, inputs[rows], targets[rows])
        rate, number = row.learning_rate, number + 1.0
        if row.optimizer == "sgd":
            params = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
            return (params, first, second, number), None
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
        root = jnp.sqrt(1 - 0.999**number)
        rate = rate * root / (1 - 0.9**number)
        params = jax.tree.map(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8 * root), params, first, second
        )
        return (params, first, second, number), None

    adam = row.optimizer == "adam"

    def fresh() -> Any:
        slots = [jax.tree.map(jnp.zeros_like, params) if adam else jnp.zeros(1) for _ in range(2)]
        return (jax.tree.map(jnp.copy, params), *slots, jnp.float32(0))

    scan = jax.jit(lambda state, order: lax.scan(step, state, order)[0], donate_argnums=0)
    one = jax.jit(lambda state, rows: step(state, rows)[0], donate_argnums=0)
    many = 4 if image else SCANNED  # scans over large steps gain nothing, and compile for minutes
    state = fresh()

    def scanned(order: Any) -> None:
        nonlocal state
        for first in range(0, len(order) - many + 1, many):
            state = scan(state, jnp.asarray(order[first : first + many], jnp.int32))
        for rows in order[len(order) - len(order) % many :]:
            state = one(state, jnp.asarray(rows, jnp.int32))
        jax.block_until_ready(state)

    def stepped(order: Any) -> None:
        nonlocal state
        for rows in order:
            state = one(state, jnp.asarray(rows, jnp.int32))
        jax.block_until_ready(state)

    def rate(train: Any) -> float:
        order = next(orders(row))[:many]
        train(order)
        steps, start, passed = 0, time.perf_counter(), 0.0
        while passed < TRIAL_S:
            train(order)
            steps += len(order)
            passed = time.perf_counter() - start
        return steps / passed

    train = max((scanned, stepped), key=rate)
    state = fresh()
    probe = jax.jit(lambda state: mean_loss(state[0], inputs[:PROBE_ROWS], targets[:PROBE_ROWS]))
    return Net(train, lambda: float(probe(state)))


def network(row: NetworkRow) -> tuple[Any, Any]:
    """The parameters, and the function of them and a batch that gives the scores."""
    import numpy as np
    from jax import numpy as jnp

    random = np.random.default_rng(21)

    def weights(*shape: int, scale: float | None = None) -> Any:
        drawn = random.standard_normal(shape) * (scale or 1 / np.sqrt(np.prod(shape[:-1])))
        return jnp.asarray(drawn, jnp.float32)

    def dense(inputs: int, outputs: int) -> Any:
        return weights(inputs, outputs), jnp.zeros(outputs)

    made = {
        "lenet": _lenet,
        "resnet8": _resnet,
        "lstm": _recurrent,
        "elman": _recurrent,
        "embedding": _average,
        "transformer": _transformer,
    }
    found: tuple[Any, Any] = made[row.name](row, weights, dense)
    return found


def _apply(layer: Any, x: Any) -> Any:
    return x @ layer[0] + layer[1]


def _convolve(x: Any, w: Any, stride: int = 1, padding: str = "SAME") -> Any:
    from jax import lax

    return lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _lenet(row: NetworkRow, weights: Any, dense: Any) -> tuple[Any, Any]:
    import jax
    from jax import lax
    from jax import numpy as jnp

    params = [
        (weights(5, 5, 1, 6), jnp.zeros(6)),
        (weights(5, 5, 6, 16), jnp.zeros(16)),
        *(dense(400, 120), dense(120, 84), dense(84, n.CLASSES)),
    ]

    def pool(x: Any) -> Any:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def outputs(p: Any, x: Any) -> Any:
        x = pool(jax.nn.relu(_convolve(x, p[0][0]) + p[0][1]))
        x = pool(jax.nn.relu(_convolve(x, p[1][0], 1, "VALID") + p[1][1])).reshape(len(x), -1)
        return _apply(p[4], jax.nn.relu(_apply(p[3], jax.nn.relu(_apply(p[2], x)))))

    return params, outputs


def _resnet(row: NetworkRow, weights: Any, dense: Any) -> tuple[Any, Any]:
    import jax
    from jax import lax
    from jax import numpy as jnp

    def normal(filters: int) -> Any:
        return jnp.ones(filters), jnp.zeros(filters)

    def normalize(x: Any, p: Any) -> Any:
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) * lax.rsqrt(variance + FLOOR) * p[0] + p[1]

    def block(before: int, filters: int, stride: int) -> Any:
        made = {
            "one": weights(3, 3, before, filters),
            "two": weights(3, 3, filters, filters),
            "one_normal": normal(filters),
            "two_normal": normal(filters),
        }
        if stride > 1:
            made |= {"short": weights(1, 1, before, filters), "short_normal": normal(filters)}
        return made

    params = {
        "stem": weights(3, 3, 1, 16),
        "stem_normal": normal(16),
        "out": dense(64, n.CLASSES),
        "blocks": [block(16, 16, 1), block(16, 32, 2), block(32, 64, 2)],
    }

    def outputs(p: Any, x: Any) -> Any:
        x = jax.nn.relu(normalize(_convolve(x, p["stem"]), p["stem_normal"]))
        for q, stride in zip(p["blocks"], (1, 2, 2), strict=True):
            deep = jax.nn.relu(normalize(_convolve(x, q["one"], stride), q["one_normal"]))
            deep = normalize(_convolve(deep, q["two"]), q["two_normal"])
            if "short" in q:
                x = normalize(_convolve(x, q["short"], stride), q["short_normal"])
            x = jax.nn.relu(deep + x)
        return _apply(p["out"], x.mean((1, 2)))

    return params, outputs


def _recurrent(row: NetworkRow, weights: Any, dense: Any) -> tuple[Any, Any]:
    import jax
    from jax import lax
    from jax import numpy as jnp

    gates = 4 if row.name == "lstm" else 1
    params = [dense(n.FEATURES, 64 * gates), weights(64, 64 * gates), dense(64, n.CLASSES)]

    def outputs(p: Any, x: Any) -> Any:
        taken = _apply(p[0], x).swapaxes(0, 1)  # one product for all steps
        zeros = jnp.zeros((len(x), 64))

        def elman(h: Any, u: Any) -> tuple[Any, None]:
            return jnp.tanh(u + h @ p[1]), None

        def lstm(state: Any, u: Any) -> tuple[Any, None]:
            h, c = state
            i, f, g, o = jnp.split(u + h @ p[1], 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        if row.name == "elman":
            h, _ = lax.scan(elman, zeros, taken)
        else:
            (h, _), _ = lax.scan(lstm, (zeros, zeros), taken)
        return _apply(p[2], h)

    return params, outputs


def _average(row: NetworkRow, weights: Any, dense: Any) -> tuple[Any, Any]:
    params = [weights(n.WORDS, n.VECTOR, scale=1.0), dense(n.VECTOR, n.CLASSES)]
    return params, lambda p, x: _apply(p[1], p[0][x].mean(1))


def _transformer(row: NetworkRow, weights: Any, dense: Any) -> tuple[Any, Any]:
    import jax
    from jax import lax
    from jax import numpy as jnp

    def normal() -> Any:
        return jnp.ones(n.MODEL), jnp.zeros(n.MODEL)

    def normalize(x: Any, p: Any) -> Any:
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) * lax.rsqrt(variance + FLOOR) * p[0] + p[1]

    def block() -> Any:
        return {
            "taken": dense(n.MODEL, 3 * n.MODEL),
            "given": dense(n.MODEL, n.MODEL),
            "first": normal(),
            "inner": dense(n.MODEL, n.INNER),
            "outer": dense(n.INNER, n.MODEL),
            "second": normal(),
        }

    params = {
        "table": weights(n.SYMBOLS, n.MODEL, scale=1.0),
        "positions": weights(n.LENGTH, n.MODEL, scale=0.02),
        "blocks": [block(), block()],
        "out": dense(n.MODEL, n.CLASSES),
    }
    size = n.MODEL // n.HEADS

    def outputs(p: Any, x: Any) -> Any:
        x = p["table"][x] + p["positions"]
        for q in p["blocks"]:
            parts = _apply(q["taken"], x).reshape(*x.shape[:2], 3, n.HEADS, size)
            query, key, value = parts.transpose(2, 0, 3, 1, 4)
            found = jax.nn.softmax(query @ key.swapaxes(-1, -2) / size**0.5, axis=-1) @ value
            x = normalize(x + _apply(q["given"], found.swapaxes(1, 2).reshape(x.shape)), q["first"])
            x = normalize(x + _apply(q["outer"], jax.nn.relu(_apply(q["inner"], x))), q["second"])
        return _apply(p["out"], x.mean(1))

    return params, outputs


if __name__ == "__main__":
    main(build)
