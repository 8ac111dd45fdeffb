"""The directions of a recurrent layer over the steps, and the contract of its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.run.explain.numbers import Columns, LayerStep, Ops, Spec, Tensors, Values
from distbp.run.explain.recurrent_steps import Found
from distbp.run.explain.words import at, short, total

# The names of the states before the first step. Windows of series have them; else the states are 0.
BEGIN: Mapping[str, str] = {"states": "states_before", "memory": "memory_before"}


@dataclass(frozen=True)
class CellKind:
    """A row of the table of cells, for one direction.

    `reads`, `back_reads`: the numbers from ops, as lists over the steps in the order in which they ran.
    `forward(spec, parameters, x)` and `backward(spec, parameters, x, numbers, dE/dh from above)`: the same
    numbers from formulas; `backward` also returns the gradients and dE/dx. `deltas`: the names of the
    derivatives of W x, gate after gate; `recurrent_deltas`: of R h. `keeps`: the gate that passes a part of
    the state on unchanged, or "". `made`, `brought`: lines for the unit j of step t.
    """

    reads: Callable[[Spec, Ops], dict[str, list[Values]]]
    back_reads: Callable[[Spec, Ops], dict[str, list[Values]]]
    forward: Callable[[Spec, Tensors, Values], Found]
    backward: Callable[[Spec, Tensors, Values, Found, Values], tuple[Found, dict[str, Values], Values]]
    rule: Callable[[LayerStep], str]
    back_rules: Sequence[str]
    tables: Sequence[Columns]
    back_tables: Sequence[Columns]
    deltas: tuple[str, ...]
    recurrent_deltas: tuple[str, ...]
    keeps: str
    made: Callable[[LayerStep, int, int, str], list[str]]
    brought: Callable[[LayerStep, int, int, str], list[str]]


def ends_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The suffixes of the names of each direction's numbers and parameters."""
    return ("", "_reverse") if options["bidirectional"] else ("",)


def before(end: str, t: int) -> int:
    """The step before t in a direction. It may not exist."""
    return t + 1 if end else t - 1


def after(end: str, t: int) -> int:
    return t - 1 if end else t + 1


def there(step: LayerStep, t: int) -> bool:
    return 0 <= t < len(step.x)


def named(end: str, t: int, j: int) -> str:
    return f"{mark(end)}{at((t, j))}"


def mark(end: str) -> str:
    """The mark after the letters of the second direction."""
    return "'" if end else ""


def past(step: LayerStep, name: str, end: str, t: int, j: int) -> float:
    """A number of the step before; for the first step, the state before it."""
    back = before(end, t)
    return float((step.get(name + end)[back] if there(step, back) else begin(step, name))[j])


def begin(step: LayerStep, name: str) -> Values:
    """A state before the first step, (units,)."""
    return step.get(BEGIN[name]) if step.has(BEGIN[name]) else np.zeros(step.get(name).shape[1])


def given(spec: Spec, own: Tensors, name: str) -> Values:
    """Like `begin`, for numbers that are computed again."""
    told = spec.get(BEGIN[name])
    return np.zeros(own["recurrent_weight"].shape[1]) if told is None else np.array(told, np.float64)


def first_words(step: LayerStep, letters: str) -> str:
    """The words in a rule about the states before the first step."""
    carried = step.has(BEGIN["states"]) and step.get(BEGIN["states"]).any()
    return f"{letters} = {'what the window before has left' if carried else '0'}"


def product(*factors: float) -> str:
    return " * ".join(short(float(one)) for one in factors)


def input_terms(step: LayerStep, row: int, t: int, end: str) -> list[tuple[float, float]]:
    """The factors of one row of W x."""
    return list(zip(step.tensor(f"weight{end}")[row], step.x[t], strict=True))


def recurrent_terms(step: LayerStep, row: int, t: int, end: str) -> list[tuple[float, float]]:
    """The factors of one row of R h."""
    back, r = before(end, t), step.tensor(f"recurrent_weight{end}")[row]
    if there(step, back):
        return list(zip(r, step.get(f"states{end}")[back], strict=True))
    return list(zip(r, begin(step, "states"), strict=True)) if step.has(BEGIN["states"]) else []


def gate_sum(step: LayerStep, row: int, t: int, end: str) -> str:
    """One row of W x + R h + b with numbers, as text."""
    pairs = input_terms(step, row, t, end) + recurrent_terms(step, row, t, end)
    return total(pairs, [step.tensor(f"bias{end}")[row]])
