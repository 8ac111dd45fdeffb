"""Notes about a table before training: columns without information, columns that reveal the target, and
classes that a split lacks. Only the first training rows are examined, so this costs little. Also notes about
columns and levels that a model's plan does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.columns.choosing import WantedTarget
from distbp.data.columns.encoders import CategoryCode
from distbp.data.columns.plan import Plan, Seen
from distbp.data.columns.store import CHUNK_ROWS, Column
from distbp.data.table import chunks
from distbp.data.targets import Meaning

_SAME = 0.9999  # the correlation above which a column counts as a copy
_NEARLY = 0.99  # the share of each class's rows above which a column reveals the class
_SHOWN = 8
_MANY = 100  # the fewest cells; so many counts or codes repeat some value, but ids do not


def check_target(column: Column, rows: Array, target: WantedTarget, table: str, in_files: bool) -> list[str]:
    """Checks that the training rows have more than one value of a target. Returns notes, or raises DataError.
    A single value gives only a note for class numbers (the job has the number of classes, and more rows may
    follow) and for numbers from Python, as with arrays."""
    first = column.values[int(rows.argmax())]
    if not all((part == first).all() for part in column.chunks(rows)):
        return []
    shown = column.levels[int(first)] if column.levels is not None else f"{first:g}"
    said = f"the target {target.column!r} is {shown} in all training rows"
    if column.levels is None and (target.by_class or not in_files):
        return [said]
    raise DataError(
        f"{table}: {said}, so there is nothing to learn; give rows with other values, or another target"
    )


def notices(plan: Plan, columns: Mapping[str, Column], owner: Array, by_class: Set[str]) -> Iterator[str]:
    """Yields the notes as sentences that name the columns. owner: the split of each row (see
    `splitting.split_rows`). by_class: the targets that are classes."""
    training = owner == 0
    first = training[:CHUNK_ROWS]
    values = {name: columns[name].values[:CHUNK_ROWS][first] for name in plan.needs}
    constant = [n for n, cells in values.items() if _one_value(cells) and _stays_one(columns[n], training)]
    if constant:
        yield f"columns with one value in all training rows, which say nothing: {_listed(constant)}"
    ids = [one.name for one in plan.columns if one.type == "number" and _differs_always(values[one.name])]
    if ids:
        more = training[CHUNK_ROWS:].any()
        rows = f"each of the first {int(first.sum()):,} training rows" if more else "every training row"
        yield (
            f"columns with another whole number in {rows}, as ids have: {_listed(ids)}; drop"
            " those that only name the rows"
        )
    for name in dict.fromkeys(code.name for code in plan.targets.values()):
        target = columns[name]
        own = target.values[:CHUNK_ROWS][first]
        shares = {n: _names_each(values[n], own) for n in plan.needs if n != name}
        same = [n for n, share in shares.items() if share == 1]
        nearly = [n for n, share in shares.items() if _NEARLY <= share < 1]
        for found, how in ((same, "one for one"), (nearly, "nearly one for one")):
            if found:
                yield (
                    f"columns whose values name those of the target {name!r}, {how}: {_listed(found)}; if"
                    " they are not known when you predict, drop them"
                )
        if target.levels is not None or name in by_class:
            continue
        copies = [
            n
            for n in plan.needs
            if n != name  # in series the past of the target is an input
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
    """Notes on columns that a model's plan does not use. roles: columns with another use, which get no note.
    Raises DataError if a column that the plan needs is missing."""
    return Seen(extra=tuple(name for name in plan.check_names(names, where) if name not in roles)).notes


def unseen_levels(plan: Plan, columns: Mapping[str, Column]) -> list[str]:
    """Notes on levels that a model's plan does not know."""
    known = (code for code in plan.columns if isinstance(code, CategoryCode))
    counts = {c.name: c.unseen(columns[c.name].values, columns[c.name].levels or ()) for c in known}
    return Seen({name: count for name, count in counts.items() if count}).notes


def _missing(cells: Array) -> Array:
    return np.isnan(cells) if cells.dtype.kind == "f" else cells < 0


def _one_value(cells: Array) -> bool:
    missing = _missing(cells)
    return bool(missing.all() or (not missing.any() and (cells == cells[0]).all()))


def _differs_always(cells: Array) -> bool:
    """Whether there are at least `_MANY` cells, all whole numbers and all different."""
    return bool(
        len(cells) >= _MANY and (cells == np.floor(cells)).all() and len(np.unique(cells)) == len(cells)
    )


def _stays_one(column: Column, rows: Array) -> bool:
    """Whether all selected rows have the same value. rows: (n,) bool."""
    one = column.values[int(rows.argmax())]
    return all(_one_value(np.append(part, one)) for part in column.chunks(rows))


def _names_each(cells: Array, target: Array) -> float:
    """How nearly a column is the target's classes under other names: from 0 to 1. For each class and its
    value, it is the share of common rows in the class's rows and in the value's rows, whichever is smaller.
    The result is the smallest over the classes; 0 if a class has no such value, or if values come less than
    five times on average."""
    if len(np.unique(cells[:_MANY])) > 2 * len(np.unique(target)):
        return 0.0
    there = ~_missing(cells)
    (names, of_cells, rows), (classes, of_target, wanted) = (
        np.unique(values[there], return_inverse=True, return_counts=True) for values in (cells, target)
    )
    if not 1 < len(classes) <= min(len(names), int(there.sum()) // 5):
        return 0.0
    pairs, together = np.unique(of_cells * len(classes) + of_target, return_counts=True)
    shares = together / np.maximum(rows[pairs // len(classes)], wanted[pairs % len(classes)])
    found = shares[shares > 0.5]  # at most one for each value, and for each class
    return float(found.min()) if len(found) == len(classes) else 0.0


def _follows(cells: Array, target: Array) -> bool:
    """Whether a column is the target times a factor plus a constant."""
    there = ~np.isnan(cells)
    x, y = cells[there], target[there]
    if len(x) < 20 or x.min() == x.max() or y.min() == y.max():
        return False
    with np.errstate(all="ignore"):
        x, y = _near_one(x), _near_one(y)
        return bool(abs(x @ y) > _SAME * np.sqrt((x @ x) * (y @ y)))


def _near_one(values: Array) -> Array:
    """The differences of values from their mean, scaled so that the largest is 1 and squares stay in
    float64's range."""
    values = values / np.abs(values).max()
    values = values - values.mean()
    return np.asarray(values / np.abs(values).max())


def absent_classes(meaning: Meaning) -> Iterator[str]:
    """Yields notes on classes without a row in a split. meaning: of the targets, from `understand_all`."""
    for one in meaning.parts.values() or (meaning,):
        if one.facts.kind == "labels" or one.classes is not None:
            yield from _absent(one)


def _absent(meaning: Meaning) -> Iterator[str]:
    found: dict[str, set[int]] = {}
    for split, targets in meaning.targets.items():
        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
        if targets.shape[1:] == (1,):  # yes or no
            labels = targets[:, 0].astype(np.intp)
        found[split] = {int(n) for _, part in chunks(labels) for n in np.flatnonzero(np.bincount(part))}
    every = set().union(*found.values())
    for split, there in found.items():
        lost = sorted(every - there)
        if lost:
            names = [str(n if meaning.classes is None else meaning.classes[n]) for n in lost]
            yield f"the {split} set has no row of class {_listed(names)}"


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
