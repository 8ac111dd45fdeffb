"""M. Mazur, "A Step by Step Backpropagation Example" (2015): a 2-2-2 network of sigmoids, in numbers.

The example does not train its biases. All that its page prints is right but for two lines: the error after
one step, and the outputs after 10,000. They came from a program that updated the output weights before it
computed the hidden deltas.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distbp.core.arrays import Array
from distbp.job import TrainingJob
from distbp.run.explain.explanation import Explanation
from distbp.run.explain.step import explain_job
from distbp.run.reproduce.figures import Curve, Figure, Folders, Reproduction, Tell, printed

X, T = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])
W1, B1 = np.array([[0.15, 0.20], [0.25, 0.30]]), np.array([0.35, 0.35])  # row = hidden unit
W2, B2 = np.array([[0.40, 0.45], [0.50, 0.55]]), np.array([0.60, 0.60])
RATE, STEPS = 0.5, 10_000
PAGE_OUTPUTS = ("0.015912196", "0.984065734")  # after 10,000 steps

WHERE = (
    "The page's program had already updated w5 to w8 when it took the hidden deltas"
    " through them. All deltas must use the weights of the forward pass (BP2)."
)


def job() -> TrainingJob:
    """The example as a job (examples/mazur.yaml), without its data."""
    layers = [
        {
            "type": "dense",
            "units": 2,
            "activation": "sigmoid",
            "initializer": {"type": "values", "values": w.ravel().tolist()},
            "bias_initializer": {"type": "values", "values": b.tolist()},
        }
        for w, b in ((W1, B1), (W2, B2))
    ]
    return TrainingJob.from_mapping(
        {
            "name": "mazur",
            "model": {"layers": layers},
            "loss": "quadratic",
            "optimizer": {"type": "sgd", "learning_rate": RATE},
            "batch_size": 1,
            "max_steps": STEPS + 1,
            "dtype": "float64",
        }
    )


def is_the_example(found: Explanation) -> bool:
    """Whether a step is the one that the page explains."""
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
    """Figure by figure what the page prints of its first step, and what is found here."""
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
    """What the page's program did: E and the outputs (2,) after each step, for ever."""
    w1, w2 = W1.copy(), W2.copy()

    def forward() -> tuple[Array, Array]:
        hidden = 1 / (1 + np.exp(-(w1 @ X[0] + B1)))
        return hidden, 1 / (1 + np.exp(-(w2 @ hidden + B2)))

    while True:
        hidden, out = forward()
        delta = (out - T[0]) * out * (1 - out)
        w2 -= RATE * np.outer(delta, hidden)
        w1 -= RATE * np.outer(w2.T @ delta * hidden * (1 - hidden), X[0])  # w2 is the new one: the mistake
        out = forward()[1]
        yield float(((out - T[0]) ** 2).sum() / 2), out


def reproduce(folders: Folders, tell: Tell) -> Reproduction:
    """The page's first step, and its network after 10,000. Needs nothing, and takes seconds."""
    given = {"train": (X, T)}
    first = explain_job(job(), given=given, hold_biases=True)
    errors: list[tuple[float, float]] = []

    def watch(done: int, error: float) -> None:
        errors.append((float(done), error))
        if done % 1000 == 0:
            tell(f"step {done:,} of {STEPS:,}: E = {error:.4g}")

    last = explain_job(job(), given=given, step=STEPS, hold_biases=True, watch=watch)
    errors.append((float(STEPS), last.error))
    wrong = mistaken()
    after_one = next(wrong)[0]
    for _ in range(STEPS - 1):
        outputs = next(wrong)[1]
    ours = last.layers[1].a
    figures = [
        *page(first),
        printed("  the same, with the page's mistake", "0.291027924", after_one),
    ]
    for number, text in enumerate(PAGE_OUTPUTS):
        name = f"o{number + 1} after 10,000 steps"
        figures.append(printed(name, text, float(ours[number]), differs=True))
        figures.append(printed("  the same, with the page's mistake", text, float(outputs[number])))
    shown = [(n, e) for n, e in errors if n < 100 or n % 50 == 0]
    at_end = sum((float(o) - t) ** 2 / 2 for o, t in zip(PAGE_OUTPUTS, T[0].tolist(), strict=True))
    published = [(0.0, 0.298371109), (1.0, 0.291027924), (float(STEPS), at_end)]
    curve = Curve("E, the biases held", "step", published, shown, True, True)
    notes = (
        WHERE,
        f"E after 10,000 steps is {last.error:.12g}; the right one after one is {first.error_after:.12g}.",
    )
    return Reproduction(
        "One step of backpropagation in numbers",
        "M. Mazur, A Step by Step Backpropagation Example (2015)",
        tuple(figures),
        (curve,),
        notes,
    )
