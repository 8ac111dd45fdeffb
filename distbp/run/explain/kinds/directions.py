"""The directions in which a recurrent layer goes over the steps, and what it asks of a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distbp.run.explain.numbers import Columns, LayerStep, Ops, Spec, Tensors, Values
from distbp.run.explain.words import at, short, total

Found = dict[str, Values]  # (steps, units) each, in the order in which a direction goes


@dataclass(frozen=True)
class Cell:
    """A row of the table of cells, for one direction.

    `reads`, `back_reads`: from ops, lists of a step each, in the order in which they ran. `forward(spec,
    parameters, x)` and `backward(spec, parameters, x, numbers, dE/dh from above)`: the same by formulas; the
    second also gives the gradients and dE/dx. `deltas`: the derivatives of W x, gate after gate;
    `recurrent_deltas`: those of R h. `keeps`: the gate that hands a part of the state on as it is, or "".
    `made`, `brought`: lines for the unit j of step t.
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
    """The endings of the names of each direction's numbers and parameters."""
    return ("", "_reverse") if options["bidirectional"] else ("",)


def before(end: str, t: int) -> int:
    """The step that a direction takes before t; it may not be there."""
    return t + 1 if end else t - 1


def after(end: str, t: int) -> int:
    return t - 1 if end else t + 1


def there(step: LayerStep, t: int) -> bool:
    return 0 <= t < len(step.x)


def named(end: str, t: int, j: int) -> str:
    return f"{mark(end)}{at((t, j))}"


def mark(end: str) -> str:
    """What stands behind the letters of the second direction."""
    return "'" if end else ""


def past(step: LayerStep, name: str, end: str, t: int, j: int) -> float:
    """A number of the step before; 0 before the first."""
    back = before(end, t)
    return float(step.get(name + end)[back, j]) if there(step, back) else 0.0


def product(*factors: float) -> str:
    return " * ".join(short(float(one)) for one in factors)


def input_terms(step: LayerStep, row: int, t: int, end: str) -> list[tuple[float, float]]:
    """Of one row of W x."""
    return list(zip(step.tensor(f"weight{end}")[row], step.x[t], strict=True))


def recurrent_terms(step: LayerStep, row: int, t: int, end: str) -> list[tuple[float, float]]:
    """Of one row of R h."""
    back = before(end, t)
    if not there(step, back):
        return []
    return list(zip(step.tensor(f"recurrent_weight{end}")[row], step.get(f"states{end}")[back], strict=True))


def gate_sum(step: LayerStep, row: int, t: int, end: str) -> str:
    """One row of W x + R h + b, with numbers."""
    pairs = input_terms(step, row, t, end) + recurrent_terms(step, row, t, end)
    return total(pairs, [step.tensor(f"bias{end}")[row]])
