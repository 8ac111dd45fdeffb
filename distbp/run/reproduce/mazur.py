"""Reproduces Mazur's example: its first step, and 10,000 steps (see `distbp.run.explain.mazur`)."""

from __future__ import annotations

from distbp.job import TrainingJob
from distbp.run.explain.figures import printed
from distbp.run.explain.mazur import B1, B2, RATE, W1, W2, WHERE, T, X, mistaken, page
from distbp.run.explain.step import explain_job
from distbp.run.reproduce.figures import Curve, Folders, Reproduction, Tell

STEPS = 10_000
PAGE_OUTPUTS = ("0.015912196", "0.984065734")  # after 10,000 steps


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


def reproduce(folders: Folders, tell: Tell) -> Reproduction:
    """The page's first step, and its network after 10,000 steps. Needs no data, and takes seconds."""
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
