"""How gradients vanish in deep sigmoid networks: python examples/vanishing_gradients.py

The same network of four hidden layers with three activations. On its way back the gradient is multiplied,
layer after layer, by the weights and by the activation's derivative, which is at most 1/4 for the sigmoid and
1 for the others. `health` in metrics.jsonl holds the gradient's norm for every tensor (chapter 5 of
M. Nielsen's "Neural Networks and Deep Learning").
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import distbp

HIDDEN = 4


def job(activation: str) -> distbp.TrainingJob:
    """Digits through HIDDEN layers of 30 units."""
    hidden = {"type": "dense", "units": 30, "activation": activation}
    return distbp.TrainingJob(
        name=activation,
        data={
            "train": {"format": "digits", "split": "train"},
            "validation": {"format": "digits", "split": "validation"},
            "scale": 16,
        },
        model={"layers": [*[hidden] * HIDDEN, {"type": "dense", "units": 10}]},
        loss="softmax_cross_entropy",
        optimizer={"type": "sgd", "learning_rate": 0.1},
        epochs=10,
        seed=1,
        workers=0,
    )


def main() -> None:
    print("Norm of the gradient of each layer's weights, first layer to last, after one epoch:\n")
    for activation in ("sigmoid", "tanh", "relu"):
        with tempfile.TemporaryDirectory() as folder:
            result = distbp.train(job(activation), output=Path(folder) / "run")
            first = json.loads((result.path / "metrics.jsonl").read_text().splitlines()[0])
        tensors = first["health"]["tensors"]
        norms = [tensors[f"layers.{layer}.dense.weight"]["gradient_norm"] for layer in range(HIDDEN + 1)]
        accuracy = result.metrics["validation_accuracy"]
        print(
            f"  {activation:8}",
            *(f"{norm:8.5f}" for norm in norms),
            f"  accuracy after 10 epochs {accuracy:.3f}",
        )


if __name__ == "__main__":
    main()
