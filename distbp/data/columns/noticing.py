"""What a table shows that one would want to know before training: columns that say nothing or too much,
classes that a split does not have. Found in the first training rows, so that it costs little. And what of a
table the plan of a model does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np

from distbp.core.arrays import Array
from distbp.data.columns.encoders import CategoryCode
from distbp.data.columns.plan import Plan, Seen
from distbp.data.columns.splitting import OWNERS
from distbp.data.columns.store import CHUNK_ROWS, Column

_SAME = 0.9999  # a correlation that only a copy has
_SHOWN = 8
_MANY = 100  # rows, in which a column of counts or of codes has some value twice


def notices(plan: Plan, columns: Mapping[str, Column], owner: Array, by_class: Set[str]) -> Iterator[str]:
    """Each in a sentence that names the columns. owner: of each row, as `splitting.split_rows` gives it.
    by_class: the targets that are classes."""
    first = owner[:CHUNK_ROWS] == 0
    values = {name: columns[name].values[:CHUNK_ROWS][first] for name in plan.needs}
    constant = [name for name, cells in values.items() if _one_value(cells)]
    if constant and not (owner[CHUNK_ROWS:] == 0).any():
        yield f"columns with one value in all training rows, which say nothing: {_listed(constant)}"
    ids = [one.name for one in plan.columns if one.type == "number" and _differs_always(values[one.name])]
    if ids:
        yield (
            f"columns with another whole number in every training row, as ids have: {_listed(ids)}; drop"
            " those that only name the rows"
        )
    for name in dict.fromkeys(code.name for code in plan.targets.values()):
        target = columns[name]
        own = target.values[:CHUNK_ROWS][first]
        same = [n for n in plan.needs if n != name and _names_each(values[n], own)]
        if same:
            yield (
                f"columns whose values name those of the target {name!r}, one for one: {_listed(same)}; if"
                " they are not known when you predict, drop them"
            )
        if target.levels is not None or name in by_class:
            yield from _absent(target, owner)
            continue
        copies = [
            n
            for n in plan.needs
            if n != name  # its past is known
            and n not in same
            and columns[n].levels is None
            and _follows(values[n], own)
        ]
        if copies:
            yield (
                f"columns that nearly equal the target {name!r}, up to scale: {_listed(copies)}; if they"
                " are not known when you predict, drop them"
            )


def unused_columns(plan: Plan, names: Sequence[str], where: str, roles: Set[str | None]) -> list[str]:
    """What to say of columns that a model's plan does not use. roles: those that count otherwise. Raises
    DataError where the plan needs a column that is not there."""
    return Seen(extra=tuple(name for name in plan.check_names(names, where) if name not in roles)).notes


def unseen_levels(plan: Plan, columns: Mapping[str, Column]) -> list[str]:
    """What to say of levels that a model's plan does not know."""
    known = (code for code in plan.columns if isinstance(code, CategoryCode))
    counts = {c.name: c.unseen(columns[c.name].values, columns[c.name].levels or ()) for c in known}
    return Seen({name: count for name, count in counts.items() if count}).notes


def _missing(cells: Array) -> Array:
    return np.isnan(cells) if cells.dtype.kind == "f" else cells < 0


def _one_value(cells: Array) -> bool:
    missing = _missing(cells)
    return bool(missing.all() or (not missing.any() and (cells == cells[0]).all()))


def _differs_always(cells: Array) -> bool:
    """Whether all cells are whole numbers, and no two the same."""
    return bool(
        len(cells) >= _MANY and (cells == np.floor(cells)).all() and len(np.unique(cells)) == len(cells)
    )


def _names_each(cells: Array, target: Array) -> bool:
    """Whether each value of a column stands for one of the target, and the other way around: a class by
    another name. Values that come less than five times on average show nothing."""
    if len(np.unique(cells[:_MANY])) > len(np.unique(target)):
        return False
    there = ~_missing(cells)
    (names, of_cells), (classes, of_target) = (
        np.unique(values[there], return_inverse=True) for values in (cells, target)
    )
    if not 1 < len(names) == len(classes) <= there.sum() // 5:
        return False
    return len(np.unique(of_cells * len(classes) + of_target)) == len(names)


def _follows(cells: Array, target: Array) -> bool:
    """Whether a column is the target but for a factor and a constant."""
    there = ~np.isnan(cells)
    x, y = cells[there], target[there]
    if len(x) < 20 or x.min() == x.max() or y.min() == y.max():
        return False
    x, y = x - x.mean(), y - y.mean()
    with np.errstate(all="ignore"):
        return bool(abs(x @ y) > _SAME * np.sqrt((x @ x) * (y @ y)))


def _absent(target: Column, owner: Array) -> Iterator[str]:
    """Classes that a split has no row of."""
    found: dict[str, set[float]] = {}
    for number, split in enumerate(OWNERS):
        for part in target.chunks(owner == number):
            if len(part):
                found.setdefault(split, set()).update(np.unique(part).tolist())
    every = set().union(*found.values())
    for split, there in found.items():
        lost = sorted(every - there)
        if lost:
            names = (
                [f"{n:g}" for n in lost] if target.levels is None else [target.levels[int(n)] for n in lost]
            )
            names = names if target.levels is None else sorted(names)
            yield f"the {split} set has no row of class {_listed(names)}"


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
