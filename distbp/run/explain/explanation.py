"""The result of `distbp explain`: every number of one step, as arrays and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distbp.core.arrays import Array
from distbp.core.words import counted
from distbp.run.explain.numbers import LayerStep
from distbp.run.explain.outputs import OutputStep
from distbp.run.explain.words import plain, short

FORMAT, VERSION = "distbp explain", 2


@dataclass(frozen=True)
class Explanation:
    """`steps`: of the whole job. `past`: the steps before the job if it continues an optimizer, else 0.
    `length`: of the sample, in steps; None if rows have no lengths. `error`: the sum of the outputs' losses,
    each times its factor. `error_after`: the error of the sample after the update. `error_biases_held`: the
    same if the update left the biases as they were."""

    name: str
    seed: int
    sample: int
    window: int | None
    step: int
    steps: int
    past: int
    hold_biases: bool
    input: Array
    length: int | None
    layers: tuple[LayerStep, ...]
    outputs: tuple[OutputStep, ...]
    error: float
    error_after: float
    error_biases_held: float
    optimizer: Mapping[str, Any]
    learning_rate: float
    penalties: Mapping[str, float]
    clip: Mapping[str, float | None]

    def named(self, number: int) -> str:
        """The name of a layer by its number, or of the layers' input."""
        if number < self.layers[0].number:
            return "the input"
        return "the columns" if number < 0 else f"layer {number}"

    @property
    def when(self) -> str:
        return f"after {counted(self.step, 'step')} of training" if self.step else "before any training"

    @property
    def update(self) -> int:
        """The number of the update as the optimizer counts, from 1."""
        return self.past + self.step + 1

    @property
    def loss_words(self) -> str:
        """The losses in words: `mse`, or `digit: softmax_cross_entropy, size: 0.5 x mse`."""
        return ", ".join(one.words for one in self.outputs)

    @property
    def loss_sum(self) -> str:
        """E of several outputs as a sum of its parts, as text."""
        parts = [(short(one.factor), plain(one.error)) for one in self.outputs]
        return " + ".join(error if factor == "1" else f"{factor} * {error}" for factor, error in parts)

    def to_json(self) -> dict[str, Any]:
        """The numbers as JSON, in the format of docs/cli.md."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "job": self.name,
            "seed": self.seed,
            "sample": self.sample,
            "window": self.window,
            "step": self.step,
            "steps": self.steps,
            "past": self.past,
            "hold_biases": self.hold_biases,
            "input": self.input.tolist(),
            "length": self.length,
            "outputs": [_output_json(one) for one in self.outputs],
            "loss": {
                "E": self.error,
                "E_after": self.error_after,
                "E_after_biases_held": self.error_biases_held,
            },
            "optimizer": {
                **self.optimizer,
                "learning_rate": self.learning_rate,
                "update": self.update,
                "penalties": dict(self.penalties),
                "clip": dict(self.clip),
            },
            "layers": [_layer_json(layer) for layer in self.layers],
        }


def _output_json(one: OutputStep) -> dict[str, Any]:
    return {
        "name": one.name,
        "layer": one.layer,
        **one.loss,
        "factor": one.factor,
        "target": one.target.tolist(),
        "weights": None if one.weights is None else one.weights.tolist(),
        "values": one.losses.tolist(),
        "E": one.error,
        "dE_da": one.d_a.tolist(),
    }


def _layer_json(layer: LayerStep) -> dict[str, Any]:
    return {
        "number": layer.number,
        "type": layer.type,
        "name": layer.name,
        "inputs": list(layer.sources),
        "options": dict(layer.options),
        "activation": layer.activation,
        **{name: _listed(values) for name, values in layer.numbers.items()},
        "a": layer.a.tolist(),
        "dE_da": _listed(layer.d_a),
        "parameters": {
            one.name: {
                "decays": one.decays,
                "rate": one.rate,
                **({} if one.part is None else {"owner": one.owner, "part": one.part.tolist()}),
                "before": one.before.tolist(),
                "dE_dw": one.gradient.tolist(),
                "update": (one.after - one.before).tolist(),
                "after": one.after.tolist(),
                "state_before": {name: values.tolist() for name, values in one.state_before.items()},
                "state_after": {name: values.tolist() for name, values in one.state_after.items()},
            }
            for one in layer.parameters
        },
    }


def _listed(values: Array | None) -> Any:
    return None if values is None else values.tolist()
