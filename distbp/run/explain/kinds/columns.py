"""The entry that turns the cells of a table's row into columns: numbers, codes, embeddings (see
`distbp.nn.layers.columns`). `CELLS` has a row for each kind of cell."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from distbp.run.explain.kinds.units import periodic, periodic_back
from distbp.run.explain.numbers import (
    Back,
    Kind,
    LayerStep,
    Numbers,
    Spec,
    Tensors,
    Values,
    Weight,
    unread,
)
from distbp.run.explain.words import MISSING, Place, at, plain, short, total

CellSpec = Mapping[str, Any]  # kind, column, width, and its options
_PERIODIC = ("frequency", "phase", "weight", "bias")


@dataclass(frozen=True)
class _Enters:
    """`forward(cell, parameters, x)`: the columns (rows, width) of the cells x (rows,). `backward(cell,
    parameters, x, d)`: each row's part of the gradients, (rows, *shape). `told(cell, x, k)`: the computation
    of column k of a cell, as text."""

    forward: Callable[[CellSpec, Tensors, Values], Values]
    told: Callable[[CellSpec, float, int], str]
    backward: Callable[[CellSpec, Tensors, Values, Values], dict[str, Values]] = lambda cell, own, x, d: {}


# Numbers ----------------------------------------------------------------------------------------------


def _value(cell: CellSpec, x: Values) -> Values:
    return np.where(x <= MISSING, cell["fill"], x)


def _bins(cell: CellSpec) -> list[tuple[float, float]]:
    """The low edge and the width of each bin."""
    edges = sorted(set(cell["edges"]))
    return [(low, high - low) for low, high in itertools.pairwise(edges)]


def _height(cell: CellSpec) -> float:
    """The code of a bin rises from -height to height; 0: from 0 to 1."""
    return float(cell.get("bin_height", 0))  # older descriptions of a step lack it


def _tensor(cell: CellSpec, name: str) -> str:
    return f"periodic_embedding.{cell['column']}.{name}"


def _own(cell: CellSpec, own: Tensors) -> Tensors:
    return {name: own[_tensor(cell, name)] for name in _PERIODIC}


def _number(cell: CellSpec, own: Tensors, x: Values) -> Values:
    value = _value(cell, x)
    height = _height(cell)
    codes = np.full((len(x), max(0, len(cell["edges"]) - 1)), -height)
    for n, (low, width) in enumerate(_bins(cell)):
        share = np.clip((value - low) / width, 0, 1)
        codes[:, n] = height * (2 * share - 1) if height else share
    parts = [value[:, None], codes]
    parts += [(x <= MISSING)[:, None]] if cell["indicator"] else []
    if cell["frequencies"]:
        made = [periodic({}, _own(cell, own), [one])["a"] for one in value[:, None]]
        parts.append(np.array([one[1:] for one in made if one is not None]))
    return np.concatenate(parts, axis=1)


def _number_back(cell: CellSpec, own: Tensors, x: Values, d: Values) -> dict[str, Values]:
    if not cell["frequencies"]:
        return {}
    mine, found = _own(cell, own), []
    for value, row in zip(_value(cell, x)[:, None], d, strict=True):
        beside = np.concatenate([[0.0], row[-mine["bias"].size :]])
        found.append(periodic_back({}, mine, [value], periodic({}, mine, [value]), beside).gradients)
    return {_tensor(cell, name): np.array([one[name] for one in found]) for name in _PERIODIC}


def _number_told(cell: CellSpec, x: float, k: int) -> str:
    value, bins = float(_value(cell, np.array(x))), _bins(cell)
    if k == 0:
        return "0, which stands for what is missing" if x <= MISSING and not value else f"x = {plain(value)}"
    if k - 1 < len(bins):
        (low, width), height = bins[k - 1], _height(cell)
        share = "min(max((x - low) / width, 0), 1)"
        code = f"{height:g} (2 {share} - 1)" if height else share
        return f"{code} with x = {plain(value)}, low {low:g}, width {width:g}"
    if cell["indicator"] and k == max(1, len(cell["edges"])):
        return "1 where x is missing, else 0"
    return f"the sum of w cos(2 pi f x + phase) + b with x = {plain(value)}"


# Whole numbers ----------------------------------------------------------------------------------------


def _one_hot(cell: CellSpec, own: Tensors, x: Values) -> Values:
    hot = (x[:, None] == np.arange(1, cell["levels"] + 1)).astype(float)
    return np.concatenate([hot, (x <= 0)[:, None]], axis=1) if cell["other"] else hot


def _one_hot_told(cell: CellSpec, x: float, k: int) -> str:
    wanted = f"level {k + 1}" if k < cell["levels"] else "another level"
    return f"1 where the cell is {wanted}, else 0; it is {int(x)}"


def _entry(name: str) -> str:
    return f"embedding.{name}.weight"


def _embedded_back(cell: CellSpec, own: Tensors, x: Values, d: Values) -> dict[str, Values]:
    name = _entry(cell["column"])
    found = np.zeros((len(x), *own[name].shape))
    found[np.arange(len(x)), x.astype(int)] = d
    return {name: found}


CELLS: Mapping[str, _Enters] = {
    "number": _Enters(_number, _number_told, _number_back),
    "one_hot": _Enters(_one_hot, _one_hot_told),
    "table": _Enters(
        lambda cell, own, x: np.array(cell["rows"])[x.astype(int)],
        lambda cell, x, k: f"number {k} of row {int(x)} of a fixed table",
    ),
    "embedding": _Enters(
        lambda cell, own, x: own[_entry(cell["column"])][x.astype(int)],
        lambda cell, x, k: f"w[{int(x)}, {k}], as the cell is entry {int(x)} of the table",
        _embedded_back,
    ),
}


# The whole row ----------------------------------------------------------------------------------------


def _apart(
    cells: Sequence[CellSpec], x: Values, a: Values | None
) -> Iterator[tuple[CellSpec, Values, Values]]:
    """Yields each cell with its numbers (rows,) and its columns (rows, width) in a."""
    given, first = x.reshape(-1, len(cells)), 0
    made = np.zeros((len(given), sum(cell["width"] for cell in cells))) if a is None else a
    made = made.reshape(len(given), -1)
    for number, cell in enumerate(cells):
        yield cell, given[:, number], made[:, first : first + cell["width"]]
        first += cell["width"]


def _forward(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    parts = [
        CELLS[cell["kind"]].forward(cell, own, x)
        for cell, x, _ in _apart(spec["options"]["cells"], inputs[0], None)
    ]
    return {"a": np.concatenate(parts, axis=1).reshape(spec["shape"])}


def _by_row(cells: Sequence[CellSpec], own: Tensors, x: Values, d: Values) -> dict[str, Values]:
    """Each row's part of the gradients, (rows, *shape)."""
    found: dict[str, Values] = {}
    for cell, values, part in _apart(cells, x, d):
        found |= CELLS[cell["kind"]].backward(cell, own, values, part)
    return found


def _backward(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    found = _by_row(spec["options"]["cells"], own, inputs[0], d)
    return Back({}, {name: rows.sum(axis=0) for name, rows in found.items()}, [np.zeros_like(inputs[0])])


def _place(step: LayerStep, place: Place) -> tuple[CellSpec, float, int]:
    """The cell of a place of the output, the cell's number, and the column within the cell."""
    cells = step.options["cells"]
    of = [(number, k) for number, cell in enumerate(cells) for k in range(cell["width"])]
    row, column = divmod(int(np.ravel_multi_index(place, step.a.shape)), len(of))
    number, k = of[column]
    return cells[number], float(step.x.reshape(-1, len(cells))[row, number]), k


def _made(step: LayerStep, place: Place) -> list[str]:
    cell, x, k = _place(step, place)
    told = CELLS[cell["kind"]].told(cell, x, k)
    return [f"a{at(place)} = {plain(step.a[place])}, of {cell['column']}: {told}"]


def _terms(name: str, step: LayerStep, place: Place) -> str:
    own = {one.name: one.before for one in step.parameters}
    rows = _by_row(step.options["cells"], own, step.x, step.get("dE_da"))[name]
    return total([], [float(row[place]) for row in rows if row[place]])


def _weights(step: LayerStep) -> Mapping[str, Weight]:
    rules = {
        "embedding": "dE/dw[entry, k] = dE/da of column k where the cell is this entry, else 0",
        "frequency": "dE/df[0, k] = 2 pi x dE/dangle[k],  dE/dangle = -sin(angle) * (W^T dE/da)",
        "phase": "dE/dphase[0, k] = dE/dangle[k]",
        "weight": "dE/dw[0, m, k] = dE/da of column m * cos(angle[k])",
        "bias": "dE/db[0, m] = dE/da of column m",
    }
    used = {_entry(column): entries for column, entries in _entries(step).items()}
    found = {}
    for one in step.parameters:
        last = one.name.rsplit(".", 1)[-1]
        letter = {"frequency": "f", "bias": "b", "weight": "w"}.get(last, last)
        rule = f"{one.name}: {rules['embedding' if one.name in used else last]}"
        found[one.name] = Weight(letter, rule, partial(_terms, one.name), rows=used.get(one.name))
    return found


def _entries(step: LayerStep) -> dict[str, tuple[int, ...]]:
    """The entries of embedding tables that the row uses, by column."""
    return {
        cell["column"]: tuple(dict.fromkeys(x.astype(int).tolist()))
        for cell, x, _ in _apart(step.options["cells"], step.x, None)
        if cell["kind"] == "embedding"
    }


def _rule(step: LayerStep) -> str:
    named = [f"{column} is entry {', '.join(map(str, them))}" for column, them in _entries(step).items()]
    rule = "a = the columns that the cells of the row become, one cell after the other"
    return f"{rule};  {', '.join(named)} of a table of its own" if named else rule


COLUMNS = Kind(
    read=unread,
    forward=_forward,
    backward=_backward,
    rule=_rule,
    made=_made,
    hands_rule=lambda step: "",
    hands=lambda step, which, place: short(0.0),
    weights=_weights,
    unit=lambda step, place: f"{at(place)} {_place(step, place)[0]['column']}"[:24],
)
