"""Commands that list and compare what a service has: jobs, models, datasets, tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from distbp.cli.errors import reports_errors
from distbp.cli.options import JSON
from distbp.cli.paths import UserPath
from distbp.cli.service import URL, handle, is_job_id, session
from distbp.client.names import DATASET_ID, MODEL_ID, STATES

_IDS = {
    "models": (MODEL_ID, "a model id; ids look like mdl_01j9ze3k8xq2v5w7y0ab"),
    "datasets": (DATASET_ID, "a dataset id; ids are ds_ and 64 hexadecimal digits"),
}

_LIMIT = click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="List at most this many."
)


@click.command("list")
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES),
    multiple=True,
    help="Only jobs in this state; may be repeated.",
)
@click.option("--name", help="Only jobs with this text in their name.")
@_LIMIT
@URL
@JSON
@reports_errors
def list_jobs(states: tuple[str, ...], name: str | None, limit: int, url: str | None, as_json: bool) -> None:
    """List jobs, newest first.

    \b
    Examples:
      distbp list
      distbp list --state running --state queued
      distbp list --name mnist --json | jq -r .id
    """
    from distbp.cli.text import ago

    def row(job: Mapping[str, Any]) -> Sequence[Any]:
        progress = job["progress"] or {}
        total = progress.get("total_steps")
        done = f"{100 * progress['step'] // total} %" if total and not job["finished_at"] else ""
        state = ", ".join([job["state"], *job.get("unhealthy", {})])
        return job["id"], job["name"], state, done, _headline(job), ago(job["created_at"])

    with session(url) as service:
        jobs = service.jobs(states=states, name=name, limit=limit)
        _print(jobs, as_json, ("job", "name", "state", "done", "metrics", "submitted"), row, "no jobs")


@click.command()
@click.argument("job_ids", metavar="JOB JOB...", nargs=-1, required=True)
@URL
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the curves.")
@reports_errors
def compare(job_ids: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Put jobs side by side: fields that differ, and results.

    \b
    Example:
      distbp compare job_01j9ze3k8xq2v5w7y0ab job_01j9zf0c2d4e6f8g0h2j
    """
    from distbp.cli.text import flat, table
    from distbp.run.measured import is_number

    if len(job_ids) < 2:
        raise click.UsageError("name two jobs or more")
    with session(url) as service:
        jobs = [handle(service, job_id) for job_id in job_ids]
        found = [job.status() for job in jobs]
        if as_json:
            curves = [{name: list(rows) for name, rows in _curves(job).items()} for job in jobs]
            click.echo(
                json.dumps({"jobs": [{**one, "curves": c} for one, c in zip(found, curves, strict=True)]})
            )
            return
    fields = [flat(one["job"]) for one in found]
    names = list(dict.fromkeys(name for one in fields for name in one))
    differ = [name for name in names if len({json.dumps(one.get(name)) for one in fields}) > 1]
    rows: list[list[Any]] = [["state", *(one["state"] for one in found)]]
    rows += [[name, *(one.get(name) for one in fields)] for name in differ if name != "name"]
    metrics = [{n: v for n, v in (one["metrics"] or {}).items() if is_number(v)} for one in found]
    measured = list(dict.fromkeys(name for one in metrics for name in one))
    rows += [[name.replace("_", " "), *(one.get(name) for one in metrics)] for name in measured]
    rows.append(["steps", *(one["step"] for one in found)])
    rows.append(["seconds", *((one["result"] or {}).get("wall_seconds") for one in found)])
    heads = ["", *(f"{one['name']} {one['id'][-6:]}" for one in found)]
    click.echo(table(heads, rows))


@click.group(invoke_without_command=True)
@_LIMIT
@URL
@JSON
@click.pass_context
@reports_errors
def models(context: click.Context, limit: int, url: str | None, as_json: bool) -> None:
    """List the models of jobs; get or delete one.

    \b
    Examples:
      distbp models
      distbp models get last digits-model
      distbp predict digits-model images.npy
      distbp models delete mdl_01j9ze3k8xq2v5w7y0ab
    """
    if context.invoked_subcommand is not None:
        return
    from distbp.cli.text import ago
    from distbp.engine.memory_need import size

    def row(one: Mapping[str, Any]) -> Sequence[Any]:
        known, made = _headline(one["info"]), ago(one["created_at"])
        return one["id"], one["name"], one["job_id"], size(one["bytes"]), known, made

    with session(url) as service:
        found = service.models(limit=limit)
        _print(found, as_json, ("model", "name", "job", "size", "metrics", "made"), row, "no models")


@models.command("get")
@click.argument("model", metavar="MODEL|JOB")
@click.argument("place", metavar="DIR|FILE.tar", type=UserPath())
@URL
@reports_errors
def get_model(model: str, place: Path, url: str | None) -> None:
    """Download a model into a folder, absent or empty, or as one file whose name ends in .tar.

    Its digests are checked. `distbp predict DIR` and `distbp.load_model(DIR)` take it from there; the file in
    place of DIR, too.

    \b
    Examples:
      distbp models get last digits-model
      distbp models get last digits.tar
    """
    from distbp.client.models import fetch_model

    with session(url) as service:
        if is_job_id(model):
            handle(service, model).model(place)
        else:
            fetch_model(service.transport, service.transport.call("GET", _path("models", model)), place)
    click.echo(f"the model is in {place}")


@models.command("delete")
@click.argument("model", metavar="MODEL")
@URL
@reports_errors
def delete_model(model: str, url: str | None) -> None:
    """Delete a model and its weights.

    \b
    Example:
      distbp models delete mdl_01j9ze3k8xq2v5w7y0ab
    """
    _delete(url, "models", model)


@click.group(invoke_without_command=True)
@_LIMIT
@URL
@JSON
@click.pass_context
@reports_errors
def datasets(context: click.Context, limit: int, url: str | None, as_json: bool) -> None:
    """List uploaded data; upload or delete some.

    Jobs name it as {format: npz, path: "dataset:ds_..."}, a table as {format: table, path: "dataset:ds_..."}.
    Submitting a job uploads what it needs by itself.

    \b
    Examples:
      distbp datasets
      distbp datasets upload train.npz
      distbp datasets upload inputs.npy targets.npy --name wine
      distbp datasets upload houses.csv
      distbp datasets delete ds_9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    """
    if context.invoked_subcommand is not None:
        return
    from distbp.cli.text import ago
    from distbp.core.words import counted
    from distbp.engine.memory_need import size

    def row(one: Mapping[str, Any]) -> Sequence[Any]:
        info = one["info"]
        holds = counted(info["files"], "file") if "files" in info else counted(info["rows"], "row")
        return one["id"], one["name"], holds, size(one["bytes"]), ago(one["created_at"])

    with session(url) as service:
        found = service.datasets(limit=limit)
        _print(found, as_json, ("dataset", "name", "holds", "size", "uploaded"), row, "no datasets")


@datasets.command("upload")
@click.argument("data", metavar="DATA...", nargs=-1, required=True)
@click.option("--name", help="A name for people. Default: that of the first file.")
@URL
@reports_errors
def upload_dataset(data: tuple[str, ...], name: str | None, url: str | None) -> None:
    """Upload data, and print its id. The same data gives the same id, and is sent once.

    DATA as for `distbp evaluate`: inputs.npy targets.npy, data.npz, IDX files, or a source as a job has it.
    Or a table: a file (CSV, Parquet, ...), a folder of them, or a pattern in quotes.

    \b
    Examples:
      distbp datasets upload inputs.npy targets.npy --name wine
      distbp datasets upload "parts/*.parquet"
    """
    from distbp.cli.data import source_of
    from distbp.client.uploads import upload
    from distbp.data.columns.files import are_here, looks_like_table
    from distbp.data.formats import TableFiles, load

    source: Any = TableFiles(path=data[0])
    whole = len(data) == 1 and are_here(source, Path())
    if not whole or (Path(data[0]).is_file() and not looks_like_table(Path(data[0]))):
        source = source_of(data, with_targets=True)
    with session(url) as service:
        sent = source if isinstance(source, TableFiles) else load(source, Path())
        click.echo(upload(service.transport, sent, name or Path(data[0]).name))


@datasets.command("delete")
@click.argument("dataset", metavar="DATASET")
@URL
@reports_errors
def delete_dataset(dataset: str, url: str | None) -> None:
    """Forget uploaded data. Jobs that have not fetched it yet will fail.

    \b
    Example:
      distbp datasets delete ds_9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    """
    _delete(url, "datasets", dataset)


def _delete(url: str | None, kind: str, which: str) -> None:
    with session(url) as service:
        service.transport.call("DELETE", _path(kind, which))
    click.echo(f"{which} deleted")


def _path(kind: str, which: str) -> str:
    pattern, wanted = _IDS[kind]
    if not re.fullmatch(pattern, which):
        raise click.UsageError(f"{which!r} is not {wanted}. `distbp {kind}` shows them")
    return f"/v1/{kind}/{which}"


def _print(
    found: Iterator[dict[str, Any]],
    as_json: bool,
    heads: Sequence[str],
    row: Callable[[Mapping[str, Any]], Sequence[Any]],
    none: str,
) -> None:
    """Prints each found item as a line of JSON, or all as a table (the text `none` if there are none)."""
    from distbp.cli.text import table

    if as_json:
        for one in found:
            click.echo(json.dumps(one))
        return
    rows = list(map(row, found))
    click.echo(table(heads, rows) if rows else none)


def _headline(job: Mapping[str, Any]) -> str:
    """The main metric of a job in words: of the test set, else of the validation set, else of the training
    set; "" if it has none."""
    from distbp.core.metric_names import measured
    from distbp.run.epoch_table import number
    from distbp.run.measured import is_number

    found = {n: v for n, v in (job.get("metrics") or {}).items() if is_number(v)}
    order = sorted(measured(found), key=lambda name: name == "loss")
    names = [f"{split}_{name}" for split in ("test", "validation", "train") for name in order]
    return next((f"{name.replace('_', ' ')} {number(found[name])}" for name in names if name in found), "")


def _curves(job: Any) -> dict[str, Any]:
    return {name: [v if v == v else None for v in column.tolist()] for name, column in job.metrics().items()}
