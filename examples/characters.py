"""Two networks learn to write like the pages of this project: python examples/characters.py

Each forecasts the next character from up to 24 before it: an LSTM; and two blocks of causal attention, where
a step sees itself and those before it, so that the forecast is read from the last step. They train on 40,000
places of the pages in docs/, and are measured on 2,000 of docs/learn.md, which they do not train on. "pairs"
knows how often each character follows the one before it. A place near a beginning has fewer characters before
it: rows have lengths (docs/sequences.md), so a network can begin with one letter.

Then each writes on from "T". Half a minute on one core. It printed, for the pages of one day:

    pairs      4.32  0.20
    lstm       3.61  0.37
    attention  4.01  0.31

    lstm writes:

    T_ves on the number are workers and teps one the compes are of the form on the steps sand fom 0 the ...

    attention writes:

    TBYTSTEST, elater eacke.sund `y` andn sofire the cormare the i ses eptwers o the reres semorde each ...
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import distbp

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEFORE, PLACES, MEASURED, WRITTEN = 24, 40_000, 2_000, 150
SIZE = 32  # numbers that stand for a character
Layers = list[dict[str, Any]]
LSTM: Layers = [{"type": "lstm", "units": 64}]


def block(x: str, y: str) -> Layers:
    """A block of a transformer from the layer named `x` to the one named `y`: attention, then a dense network
    on each step, both normalized before and added to what they are given."""
    return [
        {"type": "layer_normalization", "inputs": [x]},
        {"type": "attention", "heads": 4, "causal": True, "name": f"{y} found"},
        {"type": "add", "inputs": [x, f"{y} found"], "name": f"{y} half"},
        {"type": "layer_normalization"},
        {"type": "dense_steps", "units": 64, "activation": "gelu"},
        {"type": "dense_steps", "units": SIZE, "name": f"{y} made"},
        {"type": "add", "inputs": [f"{y} half", f"{y} made"], "name": y},
    ]


# Waves of up to 2 pi * 100 steps: which characters stand how far before the last one.
ATTENTION: Layers = [
    {"type": "positional_encoding", "base": 100.0, "name": "x"},
    *block("x", "one"),
    *block("one", "two"),
    {"type": "last_step"},
]


def read() -> tuple[np.ndarray, np.ndarray, str]:
    """The pages to train on and the one to measure, as numbers of characters, and the characters."""
    pages = {page.name: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
    measured = pages.pop("learn.md")
    characters = "".join(sorted(c for c in set("".join(pages.values())) if c.isascii()))
    numbers = {c: number for number, c in enumerate(characters)}

    def coded(text: str) -> np.ndarray:
        return np.array([numbers[c] for c in text if c in numbers])

    return coded("\n".join(pages.values())), coded(measured), characters


def places(text: np.ndarray, count: int, draw: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """At random places what stands before, of 1 to BEFORE characters, and the next one."""
    at = draw.integers(1, len(text), count)
    lengths = np.minimum(at, draw.integers(1, BEFORE + 1, count))
    return [text[i - n : i] for i, n in zip(at, lengths, strict=True)], text[at]


def write(model: distbp.Model, characters: str, draw: np.random.Generator) -> str:
    """Draws one character after the other; likely ones a little more often than the model says."""
    text = [characters.index("T")]
    while len(text) < WRITTEN:
        shares = model.predict_proba([text[-BEFORE:]])[0].astype(np.float64) ** 1.5
        text.append(int(draw.choice(len(shares), p=shares / shares.sum())))
    return "".join(characters[number] for number in text)


def main() -> None:
    text, other, characters = read()
    draw = np.random.default_rng(0)
    train, test = places(text, PLACES, draw), places(other, MEASURED, draw)
    pairs = np.ones((len(characters),) * 2)
    np.add.at(pairs, (text[:-1], text[1:]), 1)
    shares = pairs / pairs.sum(axis=1, keepdims=True)
    last = np.array([row[-1] for row in test[0]])
    print(f"Of {MEASURED:,} characters of docs/learn.md, bits for each, and the share that was right:\n")
    bits, right = -np.log2(shares[last, test[1]]).mean(), (shares[last].argmax(1) == test[1]).mean()
    print(f"pairs      {bits:.2f}  {right:.2f}")
    written = {}
    for name, layers in (("lstm", LSTM), ("attention", ATTENTION)):
        job = distbp.TrainingJob(
            name=name,
            model={
                "layers": [
                    {"type": "embedding", "entries": len(characters), "size": SIZE},
                    *layers,
                    {"type": "dense", "units": len(characters)},
                ]
            },
            loss="softmax_cross_entropy",
            optimizer={"type": "adam", "learning_rate": 0.005, "schedule": {"type": "cosine"}},
            clip={"norm": 1.0},
            batch_size=64,
            epochs=4,
            workers=0,
        )
        with tempfile.TemporaryDirectory() as folder:
            model = distbp.train(job, data=train, output=Path(folder) / "run").model()
        found = model.evaluate(*test)
        print(f"{name:10} {found['loss'] / np.log(2):.2f}  {found['accuracy']:.2f}", flush=True)
        written[name] = write(model, characters, np.random.default_rng(1))
    for name, one in written.items():
        print(f"\n{name} writes:\n\n{one}")


if __name__ == "__main__":
    main()
