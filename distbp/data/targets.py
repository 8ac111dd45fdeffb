"""The meaning of targets. A file or an array only holds numbers, booleans or text. Only this module, which
knows the loss, decides whether whole numbers are labels or values.

Labels may be text, booleans, or whole numbers with gaps or below 0. Numbers from 0 to outputs - 1 are the
numbers of the outputs. Otherwise the classes have names: the distinct labels, sorted; the first name belongs
to output 0.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.core.words import counted
from distbp.data.table import Table, chunks
from distbp.nn.losses.base import LAST, Loss, Targets

Classes = tuple[Any, ...]
_SHOWN = 8  # names of classes in a message


@dataclass(frozen=True, eq=False)
class Meaning:
    """The targets of a job, as its loss takes them.

    `facts`: for checking the job. `targets`: by split, (n,) intp or (n, outputs) in the job's dtype; empty if
    they do not fit the job. `classes`: the names of the classes in the order of the outputs (two for a single
    yes-or-no output); None: classes are numbers. `parts`: the meaning for each of several outputs, by name;
    `targets` then holds the columns of all (see `distbp.data.several_targets`).
    """

    facts: Targets
    targets: Mapping[str, Array] = field(default_factory=dict)
    classes: Classes | None = None
    parts: Mapping[str, Meaning] = field(default_factory=dict)


class Known(NamedTuple):
    """Classes that are known from a model: their names; None: they are numbers."""

    classes: Classes | None


def understand(
    tables: Mapping[str, Table],
    loss: Loss,
    outputs: int | None,
    dtype: np.dtype[Any],
    layer: str = LAST,
    known: Known | None = None,
) -> Meaning:
    """Interprets the targets of all splits for `loss`. `outputs`: their number in the network; None: not
    known. `layer`: the layer that gives them, as text. `known`: the classes of a model with the same outputs;
    None: classes are found in the targets.

    Raises DataError for targets that no network could learn with this loss.
    """
    tables = {split: _named(split, table) for split, table in tables.items()}
    train = _required(tables["train"])
    if outputs is None:
        return Meaning(Targets())
    if loss.targets == "labels" and train.ndim == 2 and train.shape[1] != 1:
        return Meaning(Targets("values", columns=train.shape[1]))
    if known is not None and _by_class(train, loss, outputs):
        targets = {
            name: as_taken(table, loss, outputs, dtype, known.classes, layer)
            for name, table in tables.items()
        }
        labels = Targets("labels", classes=outputs, names=known.classes)
        return Meaning(labels if loss.targets == "labels" else Targets("values"), targets, known.classes)
    found = {split: _labels(t) for split, t in tables.items() if _by_class(_required(t), loss, outputs)}
    classes = None
    if "train" in found:
        wanted = 2 if loss.targets == "values" and outputs == 1 else outputs
        classes = _class_names(found, wanted)
        count = len(classes) if classes is not None else _largest(found["train"]) + 1
        if classes is not None and count != wanted:
            if loss.targets == "values":
                if outputs == 1:
                    raise DataError(
                        f"{_name(tables['train'])}: {loss.type} with one output tells two classes apart, but"
                        f" the labels are of {_counted(classes)}; use 'softmax_cross_entropy' and give"
                        f" {layer} {count} units"
                    )
                return Meaning(Targets("values", columns=count))
            return Meaning(Targets("labels", classes=count, labels=_counted(classes)))
        facts = Targets("values")
        if loss.targets == "labels":
            facts = Targets("labels", classes=count, names=classes)
    elif train.ndim == 2 and train.shape[1] != outputs:
        return Meaning(Targets("values", columns=train.shape[1]))
    else:
        facts = Targets("values", columns=outputs)
    targets = {
        split: as_taken(table, loss, outputs, dtype, classes, layer) for split, table in tables.items()
    }
    return Meaning(facts, targets, classes)


def as_taken(
    table: Table,
    loss: Loss,
    outputs: int,
    dtype: np.dtype[Any],
    classes: Classes | None,
    layer: str = LAST,
) -> Array:
    """The targets of a table as `loss` takes them: labels (n,) intp, or values (n, outputs) in `dtype`. For a
    loss that takes values, labels become one-hot columns, or one column of numbers. `layer`: as in
    `understand`.

    Raises DataError with the row of the first target that does not fit.
    """
    targets = _required(table)
    if _by_class(targets, loss, outputs):
        numbers = _numbered(table, _labels(table), outputs, classes, layer)
        if loss.targets == "labels":
            return numbers
        if outputs == 1:
            return numbers.astype(dtype)[:, None]
        one_hot = np.zeros((len(numbers), outputs), dtype)
        one_hot[np.arange(len(numbers)), numbers] = 1
        return one_hot
    if targets.dtype.kind == "U":
        raise DataError(
            f"{_name(table)}: {loss.type} takes numbers, but the targets are text ({str(targets[0])[:40]!r});"
            " for classes use a loss such as 'softmax_cross_entropy'"
        )
    values = targets.astype(np.float64)[:, None] if targets.ndim == 1 else targets
    if values.shape[1] != outputs:
        raise DataError(
            f"{_name(table)}: {counted(values.shape[1], 'target column')}, but {layer} has"
            f" {counted(outputs, 'output')}; give it {counted(values.shape[1], 'unit')}"
        )
    low, high = loss.allowed
    outside = ~((values >= low) & (values <= high)) if low > -np.inf or high < np.inf else np.zeros(0, bool)
    if outside.any():
        row, column = np.unravel_index(int(outside.argmax()), outside.shape)
        limits = f"from {low:g} to {high:g}" if high < np.inf else f"of {low:g} or more"
        hint = "; for labels -1 and 1 give (y + 1) / 2" if (low, high) == (0, 1) else ""
        raise DataError(
            f"{_name(table)}: row {table.row_number(int(row))}, column {column}: {loss.type} takes targets"
            f" {limits}, but this one is {values[row, column]:g}; rescale the targets{hint}"
        )
    return np.ascontiguousarray(values, dtype)


def _by_class(targets: Array, loss: Loss, outputs: int) -> bool:
    """Whether each target names one class of several."""
    if loss.targets == "labels":
        return True
    return targets.ndim == 1 and (outputs > 1 or (loss.task == "binary" and targets.dtype.kind in "bU"))


def _labels(table: Table) -> Array:
    """The targets as labels, (n,): intp, bool or text. One column of whole numbers counts as labels."""
    targets, name = _required(table), _name(table)
    if targets.ndim == 1:
        return targets
    if targets.shape[1] != 1:
        raise DataError(
            f"{name}: {targets.shape[1]} target columns, where the loss takes one label for each row; for"
            " one-hot columns give targets.argmax(axis=1)"
        )
    values = targets[:, 0]
    broken = ~((values == np.floor(values)) & (np.abs(values) <= 2**53))
    if broken.any():
        row = int(broken.argmax())
        raise DataError(
            f"{name}: row {table.row_number(row)}: {values[row]} is not a label; labels are whole numbers,"
            " text or booleans. For values, use a loss such as mse"
        )
    return values.astype(np.intp)


def _class_names(found: Mapping[str, Array], outputs: int) -> Classes | None:
    """The names of the classes; None if the labels are numbers of outputs. A class that is missing in "train"
    but not in another split counts if there is an output for it."""
    kinds = {split: labels.dtype.kind for split, labels in found.items()}
    strange = [split for split, kind in kinds.items() if kind != kinds["train"]]
    if strange:
        raise DataError(
            f"the labels of the {strange[0]} set are {_KINDS[kinds[strange[0]]]}, but those of the training"
            f" set are {_KINDS[kinds['train']]}; give labels of one kind"
        )
    if kinds["train"] == "b":
        return (False, True)
    plain = {
        split: kinds[split] == "i" and _are_numbers_below(outputs, labels) for split, labels in found.items()
    }
    if all(plain.values()):
        return None
    distinct = {split: _distinct(labels) for split, labels in found.items()}
    in_any = np.unique(np.concatenate(list(distinct.values())))
    if len(in_any) != outputs and plain["train"]:
        return None
    return tuple((in_any if len(in_any) == outputs else distinct["train"]).tolist())


def _are_numbers_below(count: int, labels: Array) -> bool:
    return all(part.min() >= 0 and part.max() < count for _, part in chunks(labels))


def _largest(labels: Array) -> int:
    return max(int(part.max()) for _, part in chunks(labels))


def _distinct(labels: Array) -> Array:
    """The distinct labels, sorted."""
    return np.unique(np.concatenate([np.unique(part) for _, part in chunks(labels)]))


_KINDS = {"i": "whole numbers", "b": "booleans", "U": "text"}


def _numbered(table: Table, labels: Array, outputs: int, classes: Classes | None, layer: str) -> Array:
    """The number of the output of each label, (n,) intp. If the names of classes are text, labels may also be
    numbers of outputs."""
    name, text = _name(table), labels.dtype.kind == "U"
    named = classes is not None and isinstance(classes[0], str)
    count = outputs if classes is None else len(classes)
    if text and not named:
        raise DataError(
            f"{name}: the labels are text ({str(labels[0])[:40]!r}), but the classes are"
            f" {shown(classes or tuple(range(count)))}; give labels of that kind"
        )
    if classes is None or (named and not text):
        if not _are_numbers_below(count, labels):
            row = int(((labels < 0) | (labels >= count)).argmax())
            raise DataError(
                f"{name}: row {table.row_number(row)}: label {labels[row]}, but the {count} outputs of"
                f" {layer} allow 0 to {count - 1}; give it {_largest(labels) + 1} units, or mend the labels"
            )
        return np.ascontiguousarray(labels, np.intp)
    names = np.array(classes)
    order = np.argsort(names)
    places = order[np.minimum(np.searchsorted(names, labels, sorter=order), count - 1)]
    strange = names[places] != labels
    if strange.any():
        row = int(strange.argmax())
        raise DataError(
            f"{name}: row {table.row_number(row)}: {shown((labels[row],))} is a class that the model does not"
            f" have; it has {shown(classes)}{_meant(np.unique(labels[strange]), classes) if text else ''}"
        )
    return np.ascontiguousarray(places, np.intp)


def _meant(strange: Array, classes: Classes) -> str:
    """Advice on labels that are similar to the names of classes, or ""."""
    names, near = [*map(str, classes)], {}
    for label in strange[:_SHOWN].tolist():
        if found := difflib.get_close_matches(label, names, 1, cutoff=0.75):
            near[label] = found[0]
    return f"; where it means one of these, say so of its table: replace: {near}" if near else ""


def shown(classes: Classes) -> str:
    """The names of classes for messages; of many, the first few and the last."""
    texts = [label_text(name) for name in classes]
    texts = [t if len(t) <= 40 else f"{t[:37]}..." for t in texts]
    if len(texts) > _SHOWN:
        texts = [*texts[: _SHOWN - 2], "...", texts[-1]]
    return ", ".join(texts)


def label_text(label: Any) -> str:
    """A label as a job writes it: true, not True."""
    return str(label).lower() if isinstance(label, bool | np.bool_) else str(label)


def _counted(classes: Classes) -> str:
    return f"{len(classes)} class{'es' if len(classes) != 1 else ''}: {shown(classes)}"


def _name(table: Table) -> str:
    return table.targets_name or table.name


def _named(split: str, table: Table) -> Table:
    name = _name(table)
    return table if split in name else replace(table, targets_name=f"{split} set, {name}")


def _required(table: Table) -> Array:
    if table.targets is None:
        raise DataError(
            f"{table.name}: the data has no targets, which training and evaluation need; name them"
        )
    return table.targets
