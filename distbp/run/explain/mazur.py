"""M. Mazur, "A Step by Step Backpropagation Example" (2015): a 2-2-2 network of sigmoids, in numbers.

The example does not train its biases. Its page is right except for the error after one step and the outputs
after 10,000 steps. These came from a program that updated the output weights before it computed the hidden
deltas.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distbp.core.arrays import Array
from distbp.run.explain.explanation import Explanation
from distbp.run.explain.figures import Figure, printed

X, T = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])
W1, B1 = np.array([[0.15, 0.20], [0.25, 0.30]]), np.array([0.35, 0.35])  # row = hidden unit
W2, B2 = np.array([[0.40, 0.45], [0.50, 0.55]]), np.array([0.60, 0.60])
RATE = 0.5

WHERE = (
    "The page's program had already updated w5 to w8 when it took the hidden deltas"
    " through them. All deltas must use the weights of the forward pass (BP2)."
)


def is_the_example(found: Explanation) -> bool:
    """Whether a step is the one on the page."""
    layers = found.layers
    if (
        found.step
        or [layer.type for layer in layers] != ["dense", "dense"]
        or found.outputs[0].loss["type"] != "quadratic"
    ):
        return False
    if found.optimizer["type"] != "sgd" or found.learning_rate != RATE:
        return False
    pairs = [(layers[0].x, X[0]), (found.outputs[0].target, T[0])]
    for layer, tensors in zip(layers, ((W1, B1), (W2, B2)), strict=True):
        if layer.activation != "sigmoid":
            return False
        pairs += list(zip([one.before for one in layer.parameters], tensors, strict=True))
    return all(np.array_equal(a, b) for a, b in pairs)


def page(found: Explanation) -> list[Figure]:
    """The page's figures of its first step, each with ours."""
    first, second = found.layers
    (w1, _), (w2, _) = first.parameters, second.parameters
    rows = [
        ("out h1", "0.593269992", first.a[0]),
        ("out h2", "0.596884378", first.a[1]),
        ("net o1", "1.105905967", second.get("z")[0]),
        ("out o1", "0.75136507", second.a[0]),
        ("out o2", "0.772928465", second.a[1]),
        ("E o1", "0.274811083", found.outputs[0].losses[0]),
        ("E o2", "0.023560026", found.outputs[0].losses[1]),
        ("E total", "0.298371109", found.error),
        ("dE/dw5", "0.082167041", w2.gradient[0, 0]),
        ("dE/dw1", "0.000438568", w1.gradient[0, 0]),
    ]
    after = ("0.35891648", "0.408666186", "0.511301270", "0.561370121")
    rows += [(f"w{n} after", p, w) for n, p, w in zip(range(5, 9), after, w2.after.ravel(), strict=True)]
    after = ("0.149780716", "0.19956143", "0.24975114", "0.29950229")
    rows += [(f"w{n} after", p, w) for n, p, w in zip(range(1, 5), after, w1.after.ravel(), strict=True)]
    figures = [printed(name, text, float(ours)) for name, text, ours in rows]
    return [*figures, printed("E after the step", "0.291027924", found.error_biases_held, differs=True)]


def mistaken() -> Iterator[tuple[float, Array]]:
    """Repeats the mistake of the page's program. Yields E and the outputs (2,) after each step, endlessly."""
    w1, w2 = W1.copy(), W2.copy()

    def forward() -> tuple[Array, Array]:
        hidden = 1 / (1 + np.exp(-(w1 @ X[0] + B1)))
        return hidden, 1 / (1 + np.exp(-(w2 @ hidden + B2)))

    while True:
        hidden, out = forward()
        delta = (out - T[0]) * out * (1 - out)
        w2 -= RATE * np.outer(delta, hidden)
        w1 -= RATE * np.outer(w2.T @ delta * hidden * (1 - hidden), X[0])  # the mistake: w2 is updated
        out = forward()[1]
        yield float(((out - T[0]) ** 2).sum() / 2), out
