"""A first job for a table: it trains as it is, and says everything that one may want to change.

Network and schedule are those of the recipe for tables (`distbp.job.recipes`), written out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from distbp.core.errors import DataError, Fault, JobError
from distbp.core.words import counted
from distbp.data.columns import kinds
from distbp.data.columns.names import unknown_column
from distbp.data.columns.types import WORDS, ColumnFacts
from distbp.job import recipes
from distbp.job.text import write_yaml
from distbp.job.training_job import TrainingJob

CLASS_LEVELS = 10  # whole numbers of so few levels, each twice on average, are taken for classes
MOST_CLASSES = 1000
SHARE = 0.15  # of the rows, for each of the validation and the test set
_SHOWN = 200  # columns that the job lists


def first_job(source: Mapping[str, Any], facts: Mapping[str, ColumnFacts], target: str) -> tuple[str, str]:
    """The job for the table of `source` (its fields, as a job writes them) as a page of YAML, and why it
    predicts what it does. Raises JobError for a target that the table does not have, DataError for one that
    nothing can be learned of."""
    if target not in facts:
        raise JobError([Fault("target", unknown_column(target, list(facts)))], source["path"])
    outputs, why = task_of(facts[target])
    rows = facts[target].rows
    there = rows - facts[target].missing
    # Each class is split by itself.
    sizes = (facts[target].levels or {}).values() if outputs else (there,)
    measured = any(round(SHARE * size) for size in sizes)
    numbers = [found for name, found in facts.items() if name != target and found.numeric]
    number = recipes.number(rows, [_different(found) for found in numbers])
    kinds_of = {name: _kind(found, number) for name, found in facts.items() if name != target}
    kinds_of |= dict.fromkeys(counting(facts, target), "drop")
    if all(kind in ("text", "drop") for kind in kinds_of.values()):
        raise DataError(f"{source['path']}: no column beside the target {target!r} can be an input")
    page = {
        "name": _name(source["path"]),
        "data": {
            "train": dict(source),
            "target": target if outputs else {"column": target, "scale": "standard"},
            "columns": kinds_of if len(kinds_of) <= _SHOWN else {"others": "auto"},
            **({"split": {"validation": SHARE, "test": SHARE}} if measured else {}),
            **({"bad_rows": "skip"} if facts[target].missing else {}),
        },
        "model": {"layers": recipes.layers(outputs or 1, recipes.HIDDEN)},
        "loss": "softmax_cross_entropy" if outputs else "mse",
        **({} if outputs else {"metrics": ["r2", "mae"]}),
        "optimizer": recipes.optimizer(recipes.EPOCHS),
        "batch_size": recipes.batch_size(rows),
        "epochs": recipes.EPOCHS,
        **({"early_stopping": recipes.stopping()} if measured else {}),
    }
    if facts[target].missing:
        why += f"; {counted(facts[target].missing, 'row')} without one are left out (bad_rows: skip)"
    if not measured:
        why += f"; {counted(there, 'row')} are too few to set some apart, so nothing is measured"
    text = write_yaml(page)
    TrainingJob.from_yaml(text, f"the first job for {source['path']}")
    return text, why


def _different(numbers: ColumnFacts) -> float:
    """The largest possible number of different values in a column; infinite if it is not known."""
    if numbers.type != "whole" or numbers.low is None or numbers.high is None:
        return math.inf
    return numbers.high - numbers.low + 1


def _name(path: str) -> str:
    """A name for people, made from the file's."""
    stem = PurePath(path).name.split(".")[0]
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in stem).strip("-")
    return name[:100] or "table"


def task_of(target: ColumnFacts) -> tuple[int, str]:
    """Returns the number of the target's classes (0: it is predicted as a value), and the reason as text.
    Raises DataError if the column cannot be a target."""
    levels = target.levels
    if target.type == "empty" or (target.low is not None and target.low == target.high):
        raise _constant(target)
    few = levels is not None and 2 * len(levels) <= sum(levels.values()) and len(levels) <= CLASS_LEVELS
    if target.numeric and not (target.type == "whole" and few):
        return 0, f"{target.name!r} holds {WORDS[target.type]}, which are predicted as values"
    if target.type == "date" or target.type == "other":
        raise DataError(f"the target {target.name!r} is {WORDS[target.type]}; it must be numbers or classes")
    if levels is None or len(levels) > MOST_CLASSES:
        raise DataError(
            f"the target {target.name!r} is text of more than {MOST_CLASSES:,} levels, too many for classes"
        )
    if len(levels) < 2:
        raise _constant(target)
    if isinstance(kinds.automatic(target), kinds.Text):
        why = "" if target.plain else f" ({target.why})"
        raise DataError(
            f"the target {target.name!r} is text of {len(levels)} levels in {sum(levels.values())} rows, too"
            f" many for classes{why}; write numbers as plain numbers, such as 1234.5, or choose another"
        )
    return len(levels), f"{target.name!r} has {len(levels)} levels, which are predicted as classes"


def _constant(target: ColumnFacts) -> DataError:
    return DataError(
        f"the target {target.name!r} has one value in all rows, so there is nothing to learn; choose another"
    )


def _kind(facts: ColumnFacts, number: Mapping[str, Any]) -> Any:
    """The kind of a column, as a job writes it. A column whose cells are all missing is dropped. number: the
    kind of columns of numbers."""
    if facts.type == "empty":
        return "drop"
    kind = kinds.automatic(facts)
    return dict(number) if isinstance(kind, kinds.Number) and len(number) > 1 else str(kind.type)


def counting(facts: Mapping[str, ColumnFacts], target: str | None) -> list[str]:
    """The columns that only count the rows; none if there is no other input."""
    inputs = [f for f in facts.values() if f.name != target and kinds.automatic(f).type != "text"]
    counters = [column.name for column in inputs if _counts(column)]
    return counters if len(counters) < len(inputs) else []


def _counts(facts: ColumnFacts) -> bool:
    """Whether a column only counts the rows: whole numbers without gaps, each once."""
    if facts.type != "whole" or facts.missing or facts.low is None or facts.high is None or facts.rows < 20:
        return False
    once = facts.levels is None or len(facts.levels) == facts.rows  # None: too many to be counted
    return once and facts.high - facts.low + 1 == facts.rows
