"""What `distbp explain` has found of one step: every number, as arrays and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distbp.core.arrays import Array
from distbp.run.explain.record import Seen

FORMAT, VERSION = "distbp explain", 1


@dataclass(frozen=True)
class Parameter:
    """A tensor at the step. `state_before`, `state_after`: of the optimizer, by name. `decays`: whether
    penalties and weight decay apply to it. Arrays have the shape of the tensor."""

    name: str
    decays: bool
    before: Array
    gradient: Array
    after: Array
    state_before: Mapping[str, Array]
    state_after: Mapping[str, Array]


@dataclass(frozen=True)
class LayerStep:
    """A layer at the step. `inputs`: what it takes, (*input shape). For `seen` see there."""

    number: int
    type: str
    options: Mapping[str, Any]
    inputs: Array
    seen: Seen
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Explanation:
    """`losses`: of each output, or of the label, (numbers,), which add up to `loss`. `loss_after`: of the
    sample after the update; `loss_biases_held`: after it, had the biases stayed."""

    name: str
    sample: int
    step: int
    hold_biases: bool
    layers: tuple[LayerStep, ...]
    loss: Mapping[str, Any]
    target: Array
    error: float
    losses: Array
    error_after: float
    error_biases_held: float
    optimizer: Mapping[str, Any]
    learning_rate: float
    penalties: Mapping[str, float]
    clip: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Every number, as docs/cli.md describes it."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "job": self.name,
            "sample": self.sample,
            "step": self.step,
            "hold_biases": self.hold_biases,
            "input": self.layers[0].inputs.tolist(),
            "target": self.target.tolist(),
            "loss": {
                **self.loss,
                "values": self.losses.tolist(),
                "E": self.error,
                "E_after": self.error_after,
                "E_after_biases_held": self.error_biases_held,
            },
            "optimizer": {
                **self.optimizer,
                "learning_rate": self.learning_rate,
                "update": self.step + 1,
                "penalties": dict(self.penalties),
                "clip": dict(self.clip),
            },
            "layers": [_layer_json(layer) for layer in self.layers],
        }


def _layer_json(layer: LayerStep) -> dict[str, Any]:
    seen = layer.seen
    numbers = {
        "z": seen.z,
        "f_prime": seen.slope,
        "states": seen.states,
        "a": seen.a,
        "dE_da": seen.d_a,
        "dE_dstates": seen.d_states,
        "delta": seen.delta,
    }
    return {
        "number": layer.number,
        "type": layer.type,
        "options": dict(layer.options),
        "activation": seen.activation,
        **{name: None if values is None else values.tolist() for name, values in numbers.items()},
        "parameters": {
            one.name: {
                "decays": one.decays,
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
