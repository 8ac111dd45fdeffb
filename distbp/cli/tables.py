"""The command `distbp data describe`, and training from a table without a job file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distbp.cli.errors import reports_errors
from distbp.cli.options import JSON
from distbp.cli.paths import NewFile
from distbp.core.words import counted

if TYPE_CHECKING:
    from distbp.data.columns.reading import RawTable
    from distbp.data.columns.types import ColumnFacts

_LEVELS = 4  # the most levels of a column that are shown
_CLASSES = 10


@click.group()
def data() -> None:
    """Look at data before training.

    \b
    Example:
      distbp data describe abalone.csv
    """


@data.command()
@click.argument("path", metavar="TABLE")
@click.option("--target", help="The column to predict; its number where there is no header.")
@click.option("--write-job", type=NewFile(".yaml", ".yml"), help="Write a first job here; needs --target.")
@JSON
@reports_errors
def describe(path: str, target: str | None, write_job: Path | None, as_json: bool) -> None:
    """Show what a table holds: each column's type and why, missing cells, range, levels.

    TABLE is a file (CSV, TSV, Parquet, Arrow, Feather, JSON lines), a folder, a pattern in quotes, or
    '{format: table, path: ..., delimiter: ";"}' as a job writes it. All of it is read.

    \b
    Examples:
      distbp data describe abalone.csv
      distbp data describe abalone.csv --target 8 --write-job job.yaml
    """
    from distbp.data.columns.kinds import automatic
    from distbp.job.first_job import first_job

    if write_job is not None and target is None:
        raise click.UsageError("--write-job needs --target, the column to predict")
    source, table, facts = look(path)
    page, why = (None, None) if target is None else first_job(source, facts, target)
    if as_json:
        columns = [_plain(found, automatic(found).type) for found in facts.values()]
        found = {"table": table.name, "rows": _rows(facts), "csv": _dialect(table), "columns": columns}
        click.echo(json.dumps({**found, "job": page}))
    else:
        click.echo("\n".join(lines(table, facts, target)))
        if why:
            click.echo(f"\n{why}")
    if write_job is not None and page is not None:
        from distbp.core.storage import commit_file, explained

        with explained(write_job):
            commit_file(write_job, _beside(page, source, write_job).encode())
        if not as_json:
            click.echo(f"a first job is in {write_job}; train it: distbp train {shlex.quote(str(write_job))}")


def is_table(path: str) -> bool:
    """Whether a path or address names a table, by its text."""
    from distbp.data.addresses import is_address
    from distbp.data.columns.files import looks_like_table

    return is_address(path) or looks_like_table(Path(path))


def job_for_table(path: str, target: str, sets: tuple[str, ...] = ()) -> str:
    """The YAML of the job that `distbp train TABLE --target NAME` trains. `sets`: fields to replace, as
    NAME=VALUE. Raises JobError, DataError."""
    from distbp.job.first_job import first_job
    from distbp.job.overrides import overridden
    from distbp.job.recipes import with_folds
    from distbp.job.text import read_yaml, write_yaml

    # These fields decide how the table is read, so they are needed first.
    first = [one for one in sets if one.partition("=")[0].strip() in ("data.bad_rows", "data.missing")]
    data = overridden({}, first, f"the first job for {path}").get("data", {})
    missing = data.get("missing")
    texts = missing if isinstance(missing, list) and all(isinstance(one, str) for one in missing) else None
    source, table, facts = look(path, skip=data.get("bad_rows") == "skip", missing=texts)
    page, why = first_job(source, facts, target)
    if sets:
        fields = overridden(read_yaml(page), sets, f"the first job for {table.name}")
        page = write_yaml(with_folds(fields, facts[target].rows))
    return f"# {why}\n{page}"


def look(
    path: str, *, skip: bool = False, missing: Sequence[str] | None = None
) -> tuple[dict[str, Any], RawTable, dict[str, ColumnFacts]]:
    """The source of a path (or of a mapping as a job writes it), its table, and the facts of its columns.
    Reads the whole table. skip: leave out rows that cannot be split into cells. missing: the texts of missing
    cells; None: the usual texts. Raises JobError, DataError."""
    from distbp.cli.data import source_of
    from distbp.core.errors import Fault, JobError
    from distbp.core.storage import user_path
    from distbp.data.addresses import is_address
    from distbp.data.columns.cells import MISSING
    from distbp.data.columns.reading import open_raw
    from distbp.data.columns.types import survey
    from distbp.data.formats import TableFiles

    written = "{" in path and not Path(path).exists()
    plain = path if is_address(path) else str(user_path(path))
    source = source_of([path], with_targets=True) if written else TableFiles(path=plain)
    if not isinstance(source, TableFiles):
        raise JobError([Fault("", f"is of the format {source.type}; a table is described")], "TABLE")
    table = open_raw(source, Path(), skip=skip)
    fields = {name: f.default for name, f in TableFiles.__dataclass_fields__.items()}
    given = {n: getattr(source, n) for n, default in fields.items() if getattr(source, n) != default}
    if table.dialect is not None:
        given |= {"header": table.dialect.header}
    return (
        {"format": "table", **given},
        table,
        survey(table, MISSING if missing is None else missing, deep=True),
    )


def lines(table: RawTable, facts: Mapping[str, ColumnFacts], target: str | None) -> Iterator[str]:
    """Yields the lines of the description, at most 80 characters wide if names are short."""
    from distbp.data.columns.kinds import automatic
    from distbp.data.columns.types import WORDS
    from distbp.job.first_job import counting, task_of

    files = "" if len(table.files) == 1 else f" in {counted(len(table.files), 'file')}"
    yield f"{table.name}: {counted(_rows(facts), 'row')}, {counted(len(facts), 'column')}{files}"
    if table.dialect is not None:
        delimiter = {"\t": "tabs", " ": "blanks"}.get(table.dialect.delimiter, repr(table.dialect.delimiter))
        yield f"CSV, cells divided by {delimiter}; {table.dialect.why}"
    if table.keys:
        yield f"from the names of folders (key=value): {', '.join(table.keys)}"
    yield ""
    width = min(24, max(8, *(len(name) for name in facts)))
    yield f"  {'column':<{width}}  {'type':<14}{'enters as':<12}{'missing':>9}  range or levels"
    for name, found in facts.items():
        kind = "target" if name == target else automatic(found).type
        missing = f"{found.missing:,}" if found.missing else "-"
        yield (
            f"  {_cut(name, width):<{width}}  {WORDS[found.type]:<14}{kind:<12}{missing:>9}  {_range(found)}"
        )
        if not found.plain:
            yield f"  {'':<{width}}  because {found.why}"
    if dropped := counting(facts, target):
        yield f"\ncolumns that only number the rows, and are dropped by a first job: {', '.join(dropped)}"
    if target is not None and target in facts and task_of(facts[target])[0]:
        yield from _balance(facts[target])


def _balance(found: ColumnFacts) -> Iterator[str]:
    if not found.levels:
        return
    yield ""
    yield f"classes of {found.name!r}:"
    total = sum(found.levels.values())
    every = sorted(found.levels.items(), key=lambda one: (-one[1], one[0]))
    shown = every if len(every) <= _CLASSES + 1 else every[:_CLASSES]
    for level, count in shown:
        yield f"  {_cut(level, 24):<24}{count:>12,}{count / total:>9.1%}"
    if rest := every[len(shown) :]:
        count = sum(count for _, count in rest)
        yield f"  {f'{len(rest):,} more':<24}{count:>12,}{count / total:>9.1%}"
        yield f"  the rarest is {_cut(rest[-1][0], 24)} ({rest[-1][1]:,})"


def _range(found: ColumnFacts) -> str:
    if found.low is not None and found.high is not None:
        if found.type == "date":
            return f"{_day(found.low)} to {_day(found.high)}"
        distinct = f", {len(found.levels):,} distinct" if found.levels and len(found.levels) <= 100 else ""
        return f"{found.low:.6g} to {found.high:.6g}{distinct}"
    if found.levels is None:
        return "more than 10,000 levels"
    first = sorted(found.levels.items(), key=lambda one: (-one[1], one[0]))[:_LEVELS]
    shown = ", ".join(f"{_cut(level, 16)} ({count:,})" for level, count in first)
    return f"{counted(len(found.levels), 'level')}: {shown}" if first else ""


def _day(seconds: float) -> str:
    import numpy as np

    return str(np.datetime64(int(seconds), "s"))[:10]


def _cut(text: str, most: int) -> str:
    """Cuts a text to `most` characters. Control characters are written as escapes, such as \\n."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _rows(facts: Mapping[str, ColumnFacts]) -> int:
    return next(iter(facts.values())).rows


def _dialect(table: RawTable) -> dict[str, Any] | None:
    """The delimiter of a CSV table, whether it has a header, and why; None for other formats."""
    found = table.dialect
    return found and {"delimiter": found.delimiter, "header": found.header, "why": found.why}


def _plain(found: ColumnFacts, kind: str) -> dict[str, Any]:
    levels = found.levels and dict(sorted(found.levels.items(), key=lambda one: (-one[1], one[0]))[:100])
    return {
        "name": found.name,
        "type": found.type,
        "why": found.why,
        "enters_as": kind,
        "missing": found.missing,
        "low": found.low,
        "high": found.high,
        "distinct": None if found.levels is None else len(found.levels),
        "levels": levels,
    }


def _beside(page: str, source: Mapping[str, Any], job: Path) -> str:
    """The YAML with the table's path made relative to the job's folder."""
    import os

    from distbp.data.addresses import is_address
    from distbp.job.text import read_yaml, write_yaml

    path = str(source["path"])
    if Path(path).is_absolute() or is_address(path):
        return page
    fields = read_yaml(page)
    fields["data"]["train"]["path"] = os.path.relpath(path, job.parent)
    return write_yaml(fields)
