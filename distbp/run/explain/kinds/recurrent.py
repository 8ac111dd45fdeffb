"""Recurrent layers in one or both directions over the steps.

A row of `CELLS` computes a cell over the steps in one direction. The names of the second direction's numbers
and parameters have the suffix `_reverse`. Its numbers are in the order of the steps, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from distbp.run.explain.kinds.cells import CELLS
from distbp.run.explain.kinds.dense import below
from distbp.run.explain.kinds.directions import BEGIN, CellKind, after, begin, ends_of, mark, product, there
from distbp.run.explain.numbers import (
    Back,
    Columns,
    Kind,
    LayerStep,
    Numbers,
    Ops,
    Spec,
    Tensors,
    Values,
    Weight,
    first_steps,
)
from distbp.run.explain.words import Place, at, plain, total


def _order(end: str) -> slice:
    return slice(None, None, -1) if end else slice(None)


def _own(own: Tensors, end: str) -> Tensors:
    """The parameters of one direction."""
    names = ("weight", "recurrent_weight", "bias", "recurrent_bias")
    return {name: own[name + end] for name in names if name + end in own}


# Computed ---------------------------------------------------------------------------------------------


def _read(spec: Spec, ops: Ops) -> Numbers:
    cell, ends = CELLS[spec["type"]], ends_of(spec["options"])
    begun = [one.reshape(-1) for one in ops.after("load_states", 3)]
    found: Numbers = dict(zip(BEGIN.values(), begun, strict=False))
    for backward, parts in ((False, cell.reads(spec, ops)), (True, cell.back_reads(spec, ops))):
        for name, steps in parts.items():
            many = len(steps) // len(ends)
            for number, end in enumerate(ends):
                values = [one.reshape(-1) for one in steps[number * many : (number + 1) * many]]
                if backward:  # the backward pass begins at the last step
                    values.reverse()
                found[name + end] = np.array(values)[_order(end)] if values else None
    return found


def _forward(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    cell, found, given = CELLS[spec["type"]], Numbers(), []
    for end in ends_of(spec["options"]):
        one = cell.forward(spec, _own(own, end), inputs[0][_order(end)])
        found |= {name + end: values[_order(end)] for name, values in one.items()}
        given.append(one["states"][_order(end)] if spec["options"]["return_sequences"] else one["states"][-1])
    return {**found, "a": np.concatenate(given, axis=-1)}


def _backward(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    cell, found, gradients = CELLS[spec["type"]], Numbers(), dict[str, Values]()
    d_x, ends = np.zeros_like(inputs[0]), ends_of(spec["options"])
    for end, part in zip(ends, np.split(d, len(ends), axis=-1), strict=True):
        seen = {
            name.removesuffix(end): values[_order(end)]
            for name, values in numbers.items()
            if values is not None and name != "a" and name.endswith(end) and (end or "_reverse" not in name)
        }
        handed = np.zeros_like(seen["states"])  # in the direction's order; 0 for unused outputs
        if spec["options"]["return_sequences"]:
            handed[:] = part[_order(end)]
        else:
            handed[-1] = part
        more, own_gradients, dx = cell.backward(spec, _own(own, end), inputs[0][_order(end)], seen, handed)
        found |= {name + end: values[_order(end)] for name, values in more.items()}
        gradients |= {name + end: values for name, values in own_gradients.items()}
        d_x += dx[_order(end)]
    return Back(found, gradients, [d_x])


# Told -------------------------------------------------------------------------------------------------


def _tables(step: LayerStep, columns: Sequence[Columns]) -> Sequence[Columns]:
    """The tables of all directions."""
    return [
        tuple((head + mark(end), name + end) for head, name in one if step.has(name + end))
        for end in ends_of(step.options)
        for one in columns
    ]


def _first_tables(step: LayerStep) -> Sequence[Columns]:
    """The tables of all directions, then that of the states before the first step."""
    begun = tuple((f"{head}[-1]", BEGIN[name]) for head, name in (("h", "states"), ("c", "memory")))
    there = tuple(one for one in begun if step.has(one[1]))
    return [*_tables(step, CELLS[step.type].tables), *([there] if there else [])]


def _made(step: LayerStep, place: Place) -> list[str]:
    t, j = place
    cell = CELLS[step.type]
    return [line for end in ends_of(step.options) for line in cell.made(step, t, j, end)]


def _brought(step: LayerStep, place: Place, from_above: Callable[[Place], str]) -> list[str]:
    (t, j), lines = place, []
    for end in ends_of(step.options):
        d = plain(step.get(f"dE_dstates{end}")[t, j])
        lines.append(f"dE/dh{mark(end)}{at(place)} = {_arrives(step, t, j, end, from_above)} = {d}")
        lines += CELLS[step.type].brought(step, t, j, end)
    return lines


def _arrives(step: LayerStep, t: int, j: int, end: str, from_above: Callable[[Place], str]) -> str:
    """The terms of a unit's dE/dh, as text."""
    ends, cell = ends_of(step.options), CELLS[step.type]
    first = ends.index(end) * (step.a.shape[-1] // len(ends))
    later, parts = after(end, t), []
    if step.options["return_sequences"]:
        parts.append(from_above((t, first + j)))
    elif not there(step, later):
        parts.append(from_above((first + j,)))
    if there(step, later):
        delta = _delta(step, cell.recurrent_deltas, end)[later]
        parts.append(total(zip(step.tensor(f"recurrent_weight{end}")[:, j], delta, strict=True)))
        if cell.keeps:  # a part of the state is passed on unchanged
            handed = (step.get(name + end)[later, j] for name in (cell.keeps, "dE_dstates"))
            parts.append(product(*handed))
    if len(parts) > 1:  # the letters of BP1 would stand for the first part only
        parts[0] = parts[0].rpartition(" = ")[2]
    return " + ".join(parts)


def _delta(step: LayerStep, names: Sequence[str], end: str) -> Values:
    """The deltas (steps, gates * units), in the order of the weights' rows."""
    return np.concatenate([step.get(name + end) for name in names], axis=1)


def _hands(step: LayerStep, which: int, place: Place) -> str:
    t, k = place
    pairs: list[tuple[float, float]] = []
    for end in ends_of(step.options):
        delta = _delta(step, CELLS[step.type].deltas, end)[t]
        pairs += list(zip(step.tensor(f"weight{end}")[:, k], delta, strict=True))
    return total(pairs)


def _weights(step: LayerStep) -> Mapping[str, Weight]:
    cell = CELLS[step.type]
    found: dict[str, Weight] = {}
    for end in ends_of(step.options):
        found |= _weights_of(step, cell, end)
    return {name: one for name, one in found.items() if any(p.name == name for p in step.parameters)}


def _weights_of(step: LayerStep, cell: CellKind, end: str) -> Mapping[str, Weight]:
    prime = mark(end)
    back = "t+1" if end else "t-1"

    def weight(step: LayerStep, place: Place) -> str:
        j, k = place
        return total(zip(_delta(step, cell.deltas, end)[:, j], step.x[:, k], strict=True))

    def recurrent(step: LayerStep, place: Place) -> str:
        (j, i), h = place, step.get(f"states{end}")
        delta = _delta(step, cell.recurrent_deltas, end)
        rows, before = (delta[:-1], h[1:]) if end else (delta[1:], h[:-1])
        if step.has(BEGIN["states"]):
            rows, before = delta, np.concatenate([begin(step, "states")[np.newaxis], before])
        return total(zip(rows[:, j], before[:, i], strict=True))

    def bias(step: LayerStep, place: Place) -> str:
        return total([], [float(v) for v in _delta(step, cell.deltas, end)[:, place[0]]])

    def inner(step: LayerStep, place: Place) -> str:
        return total([], [float(v) for v in step.get(cell.recurrent_deltas[-1] + end)[:, place[0]]])

    return {
        f"weight{end}": Weight(
            f"w{prime}", f"dE/dw{prime}[j, k] = sum over t of delta[t, j] * x[t, k]", weight
        ),
        f"recurrent_weight{end}": Weight(
            f"r{prime}", f"dE/dr{prime}[j, i] = sum over t of delta[t, j] * h[{back}, i]", recurrent
        ),
        f"bias{end}": Weight(f"b{prime}", f"dE/db{prime} = the sum of delta over t", bias, "BP3"),
        f"recurrent_bias{end}": Weight(
            f"b_q{prime}", f"dE/db_q{prime} = the sum of delta_q over t", inner, "BP3"
        ),
    }


def _drawn(step: LayerStep) -> tuple[str, str]:
    if step.options["bidirectional"]:
        return "a", "dE_da"
    return "states", "delta" if "delta" in step.numbers else "dE_dstates"


def _ended(numbers: Numbers, length: int) -> Numbers:
    """Like `first_steps`; the states before the window have no axis of steps."""
    begins = {name: numbers[name] for name in BEGIN.values() if name in numbers}
    return first_steps(numbers, length) | begins


RECURRENT = Kind(
    read=_read,
    forward=_forward,
    backward=_backward,
    rule=lambda step: CELLS[step.type].rule(step),
    back_rules=lambda step: CELLS[step.type].back_rules,
    tables=_first_tables,
    back_tables=lambda step: _tables(step, CELLS[step.type].back_tables),
    made=_made,
    brought=_brought,
    hands_rule=below,
    hands=_hands,
    weights=_weights,
    unit=lambda step, place: f"t={place[0]} [{place[1]}]" if len(place) == 2 else at(place),
    drawn=_drawn,
    ended=_ended,
)
