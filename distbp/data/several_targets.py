"""Targets of several outputs. A table holds them as one structured array with a field for each output. The
losses take them as one array of numbers, (rows, columns of all) (see `distbp.nn.losses.several`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.table import Table, target_parts
from distbp.data.targets import Classes, Known, Meaning, as_taken, understand
from distbp.nn.losses.base import Loss, Targets
from distbp.nn.losses.several import Heads, Losses

AllClasses = Classes | Mapping[str, Classes | None] | None  # a mapping: by output, if there are several


def check_names(table: Table, loss: Loss | Losses) -> None:
    """Raises DataError if the targets of a table do not have the names of the outputs of a job or model."""
    if table.targets is None:
        return  # missing targets are an error only where they are needed
    where, names = table.targets_name or table.name, table.targets.dtype.names
    if not isinstance(loss, Losses):
        if names is not None:
            raise DataError(
                f"{where}: the targets have names ({', '.join(names)}), but the job has one loss; give one"
                " array of targets, or a loss for each output"
            )
        return
    wanted = ", ".join(loss.names)
    if names is None:
        raise DataError(
            f"{where}: the outputs {wanted} have a loss each, but the targets are one array without names;"
            " give a mapping from each output to its targets"
        )
    missing = [name for name in loss.names if name not in names]
    strange = [name for name in names if name not in loss.names]
    if missing or strange:
        what = [f"no targets for {name!r}" for name in missing[:1]]
        what += [f"targets for {name!r}, which has no loss" for name in strange[:1]]
        raise DataError(f"{where}: there are {' and '.join(what)}; the outputs are {wanted}")


def part(table: Table, name: str) -> Table:
    """The table with the targets of one output."""
    for field, values, where in target_parts(table):
        if field == name:
            return replace(table, targets=values, targets_name=where)
    return replace(table, targets=None)


def understand_all(
    tables: Mapping[str, Table],
    loss: Loss | Losses,
    heads: Heads | None,
    dtype: np.dtype[Any],
    known: Mapping[str, Known] = MappingProxyType({}),
) -> Meaning:
    """Interprets the targets of all splits for the loss of each output. heads: of the network; None: not
    known. known: classes of a model, by output. Raises DataError as `understand` does, and if an output has
    no targets."""
    for table in tables.values():
        check_names(table, loss)
    if not isinstance(loss, Losses):
        shape = None if heads is None else heads.all[0].shape
        outputs = shape[0] if shape is not None and len(shape) == 1 else None
        return understand(tables, loss, outputs, dtype, known=known.get(""))
    if heads is None or any(len(head.shape) != 1 for head in heads):
        return Meaning(Targets(), parts={name: Meaning(Targets()) for name in loss.names})
    parts = {}
    for head in heads:
        own = {split: part(table, head.name) for split, table in tables.items()}
        parts[head.name] = understand(own, head.loss, head.shape[0], dtype, head.layer, known.get(head.name))
    targets = {}
    if all(meaning.targets for meaning in parts.values()):
        for split in tables:
            own_targets = {name: meaning.targets[split] for name, meaning in parts.items()}
            targets[split] = heads.join(own_targets, dtype)
    return Meaning(Targets(), targets, parts=parts)


def all_as_taken(table: Table, heads: Heads, dtype: np.dtype[Any], classes: AllClasses) -> Array:
    """`as_taken` for all outputs. Raises DataError."""
    if not heads.several:
        assert not isinstance(classes, Mapping)
        head = heads.all[0]
        return as_taken(table, head.loss, head.shape[0], dtype, classes)
    assert isinstance(classes, Mapping)
    targets = {}
    for head in heads:
        own = part(table, head.name)
        targets[head.name] = as_taken(own, head.loss, head.shape[0], dtype, classes[head.name], head.layer)
    return heads.join(targets, dtype)


def classes_of(meaning: Meaning) -> AllClasses:
    """The names of the classes; a mapping by output if there are several."""
    if not meaning.parts:
        return meaning.classes
    return {name: part.classes for name, part in meaning.parts.items()}


def plain_classes(classes: AllClasses) -> Any:
    """The classes as plain values for JSON."""
    if isinstance(classes, Mapping):
        return {name: plain_classes(own) for name, own in classes.items()}
    return None if classes is None else np.asarray(classes).tolist()


def facts_of(meaning: Meaning) -> Iterator[tuple[str, Targets]]:
    """Yields the facts of each output by name; "" is the only output."""
    if not meaning.parts:
        yield "", meaning.facts
    for name, part in meaning.parts.items():
        yield name, part.facts
