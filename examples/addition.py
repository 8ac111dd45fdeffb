"""An Elman network learns to add: python examples/addition.py

Two numbers of 8 bits enter as two bits a step, the lowest first. After every step the network says one bit
of the sum, so it has to keep the carry in its state. It trains on 4,000 pairs and is asked for 1,000 others.
A sum with one wrong bit is an error. Three seconds on one core. It prints:

    epoch  5: loss 0.00443
    epoch 10: loss 0.00089
    epoch 15: loss 0.00039
    epoch 20: loss 0.00021
    epoch 25: loss 0.00013
    epoch 30: loss 0.00008

     170 +   64 =  234
     244 +  109 =  353
     199 +  157 =  356
      12 +   26 =   38
      34 +   42 =   76

    errors on 1000 pairs that were never trained on: 0
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import distbp
from distbp.run import events

BITS = 8
TRAINED, ASKED = 4000, 1000


def pairs() -> np.ndarray:
    """Different pairs of numbers, in an order by chance: (rows, 2)."""
    chosen = np.random.default_rng(1).choice(4**BITS, TRAINED + ASKED, replace=False)
    return np.stack([chosen >> BITS, chosen % 2**BITS], axis=1)


def bits_of(numbers: np.ndarray) -> np.ndarray:
    """(...) whole numbers -> (..., steps) bits, the lowest first. A sum has one more than the numbers."""
    return numbers[..., None] >> np.arange(BITS + 1) & 1


def as_steps(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x, y): the bits of both numbers, (rows, steps, 2), and those of their sums, (rows, steps)."""
    return bits_of(numbers).swapaxes(1, 2), bits_of(numbers.sum(axis=1))


def report(event: events.Event) -> None:
    if isinstance(event, events.EpochEnded) and event.epoch % 5 == 0:
        print(f"epoch {event.epoch:2}: loss {event.metrics['train_loss']:.5f}")


def main() -> None:
    job = distbp.TrainingJob(
        name="addition",
        model={
            "layers": [
                {"type": "elman", "units": 16, "return_sequences": True},
                {"type": "dense_steps", "units": 1},
                "flatten",
            ]
        },
        loss="sigmoid_cross_entropy",
        optimizer={"type": "adam", "learning_rate": 0.01},
        epochs=30,
        seed=1,
        workers=0,
    )
    numbers = pairs()
    trained, asked = numbers[:TRAINED], numbers[TRAINED:]
    with tempfile.TemporaryDirectory() as folder:
        data = {"train": as_steps(trained)}
        result = distbp.train(job, data=data, output=Path(folder) / "run", listener=report)
        model = result.model()
    found = model.predict(as_steps(asked)[0])
    sums = (found.astype(int) << np.arange(BITS + 1)).sum(axis=1)
    print()
    for (a, b), total in zip(asked[:5], sums, strict=False):
        print(f"{a:4} + {b:4} = {total:4}" + ("" if total == a + b else f", wrong: {a + b}"))
    print(f"\nerrors on {ASKED} pairs that were never trained on: {int((sums != asked.sum(axis=1)).sum())}")


if __name__ == "__main__":
    main()
