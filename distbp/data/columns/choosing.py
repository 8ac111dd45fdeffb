"""The columns that a job describes, and the kind and use of each column of its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from distbp.core.errors import Fault, JobError
from distbp.data.checks import BadRows
from distbp.data.columns import kinds
from distbp.data.columns.fitting import reads
from distbp.data.columns.loading import Use
from distbp.data.columns.names import unknown_column
from distbp.data.columns.reading import NamedTable
from distbp.data.columns.types import WORDS, ColumnFacts

if TYPE_CHECKING:  # avoids an import cycle
    from distbp.data.columns.plan import Plan

OTHERS = "others"  # the key of `columns` for all columns that no other key matches


@dataclass(frozen=True)
class Window:
    """Samples are windows of `length` rows of a series, one every `stride` rows. The target is `horizon` rows
    after the last row of the window. `difference`: predict its change since that row."""

    length: int
    stride: int
    horizon: int
    difference: bool = False


@dataclass(frozen=True)
class WantedTarget:
    """A column to predict. `scaled`: its values are scaled to mean 0 and standard deviation 1. `clipped`:
    predictions stay in the range of the training rows. `by_class`: the loss takes the values as classes.
    `path`: the field of the job that names the column."""

    column: str
    scaled: bool = False
    clipped: bool = False
    by_class: bool = False
    path: str = "data.target"


@dataclass(frozen=True)
class Wanted:
    """A job's description of its table. `targets`: by output; the key of a single output is "". `columns`:
    kinds by name or pattern. `shares`: the shares of "validation" and "test", from 0 to 1. `window`: samples
    are windows of rows, and the past of a numeric target is an input. `plan`: the plan of a trained model;
    None: a plan is fitted to the training rows."""

    targets: Mapping[str, WantedTarget]
    columns: Mapping[str, Any]
    missing: tuple[str, ...]
    weight: str | None = None
    group: str | None = None
    time: str | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    way: str = "auto"
    seed: int = 0
    bad_rows: BadRows = "refuse"
    dtype: str = "float32"
    window: Window | None = None
    plan: Plan | None = None

    @property
    def target_columns(self) -> set[str]:
        return {target.column for target in self.targets.values()}


def check_columns(wanted: Wanted, raw: NamedTable) -> None:
    """Raises JobError with every column of the job that the table lacks."""
    faults = []
    roles = (
        *((target.path, target.column) for target in wanted.targets.values()),
        ("data.weight", wanted.weight),
        ("data.group", wanted.group),
        ("data.time", wanted.time),
    )
    for path, column in roles:
        if column is not None and column not in raw.names:
            faults.append(Fault(path, unknown_column(column, raw.names)))
    for pattern in wanted.columns:
        if pattern != OTHERS and not any(fnmatchcase(name, pattern) or name == pattern for name in raw.names):
            faults.append(Fault(f"data.columns.{pattern}", unknown_column(pattern, raw.names)))
    if faults:
        raise JobError(faults)


def chosen_kinds(wanted: Wanted, facts: Mapping[str, ColumnFacts]) -> tuple[dict[str, Any], list[str]]:
    """Returns the kind of every input column, and a note on columns left out because they are text. Raises
    JobError if the target is an input or no input is left."""
    targets = wanted.target_columns
    roles = {*targets, wanted.weight, wanted.group, wanted.time}
    chosen: dict[str, Any] = {}
    left_out: list[str] = []
    for name, found in facts.items():
        kind = _written(wanted.columns, name)
        if kind is None:
            if name in roles:
                continue
            kind = wanted.columns.get(OTHERS, kinds.Auto())
        if name in targets:
            raise JobError([Fault(f"data.columns.{name}", "is the target, which cannot be an input too")])
        if isinstance(kind, kinds.Auto):
            kind = kinds.automatic(found, kind)
        if isinstance(kind, kinds.Text):
            many = "many levels" if found.levels is None else f"{len(found.levels):,} levels"
            left_out.append(
                f"{name!r} ({WORDS[found.type]}, {many})" if found.type == "text" else f"{name!r}"
            )
        elif not isinstance(kind, kinds.Drop):
            chosen[name] = kind
    for name in targets if wanted.window is not None else ():  # the target's past is an input
        if facts[name].numeric:
            chosen[name] = kinds.Number()
    if not chosen:
        which = f", for these are left out: {', '.join(left_out)}" if left_out else ""
        text = f"leave no column for the inputs{which}; give one of them another kind"
        raise JobError([Fault("data.columns", text)])
    notes = []
    if left_out:
        notes.append(
            f"columns left out of the inputs: {', '.join(left_out)}; to use one, say in data.columns what"
            " it is"
        )
    return chosen, notes


def _written(columns: Mapping[str, Any], name: str) -> Any:
    """The kind that a job gives a column by its name, else by the longest pattern that matches; else None."""
    if name in columns and name != OTHERS:
        return columns[name]
    fits = [pattern for pattern in columns if pattern != OTHERS and fnmatchcase(name, pattern)]
    return columns[max(fits, key=lambda pattern: (len(pattern), pattern))] if fits else None


def uses_of(wanted: Wanted, chosen: Mapping[str, Any], facts: Mapping[str, ColumnFacts]) -> dict[str, Use]:
    """How each column in use is read, by name. Raises JobError for columns that do not fit their roles."""
    uses = {}
    for name, kind in chosen.items():
        how = reads(kind)
        assert how is not None  # `chosen` has no columns that are left out
        uses[name] = Use(how, facts[name].numeric)
    if wanted.plan is not None:
        uses = {column.name: Use(column.reads, column.numeric) for column in wanted.plan.columns}
    faults = []
    for said in wanted.targets.values():
        target = facts[said.column]
        for option, asked in (("scale", said.scaled), ("clip", said.clipped)):
            if asked and not target.numeric:
                text = f"is for numbers, but {target.name!r} is {WORDS[target.type]}; for classes use a loss"
                text += " such as 'softmax_cross_entropy'"
                faults.append(Fault(f"{said.path}.{option}", text))
        uses[target.name] = Use("number" if target.numeric else "level", False, "target")
    for role, column in (("weight", wanted.weight), ("group", wanted.group), ("time", wanted.time)):
        if column is None:
            continue
        name = column
        kind = facts[name].type
        if role == "time" and kind != "date" and not facts[name].numeric:
            faults.append(
                Fault("data.time", f"must be a column of dates or numbers, but {name!r} is {WORDS[kind]}")
            )
        if role == "weight" and not facts[name].numeric:
            faults.append(Fault("data.weight", f"must be a column of numbers, but {name!r} is {WORDS[kind]}"))
        how = "level" if role == "group" else "date" if kind == "date" else "number"
        before = uses.get(name)
        if before is not None and before.reads != how:
            text = f"reads {name!r} as {how}, but data.columns as {before.reads}; give it one kind"
            faults.append(Fault(f"data.{role}", text))
        uses[name] = Use(how, facts[name].numeric, role)
    if faults:
        raise JobError(faults)
    return uses
