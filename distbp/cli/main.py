"""The command line. Commands import heavy modules when they run, so `--help` is quick."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import distbp
from distbp.cli import assets as cli_assets
from distbp.cli import checks as cli_checks
from distbp.cli import describe as cli_describe
from distbp.cli import explain as cli_explain
from distbp.cli import serve as cli_serve
from distbp.cli import service as cli_service
from distbp.cli import tables as cli_tables
from distbp.cli import tokens as cli_tokens
from distbp.cli import tools as cli_tools
from distbp.cli.errors import EXIT_CODES, internal, named, open_streams, reports_errors, stopped
from distbp.cli.options import ADDRESS, DATA, DATA_HELP, JSON, MODEL, SET, SPLIT, WORKERS
from distbp.cli.paths import NewFile, UserPath, job_at
from distbp.core import settings
from distbp.core.imports import without_collections, without_collections_at_the_end
from distbp.core.interrupts import terminate
from distbp.core.storage import absolute, user_path
from distbp.core.words import counted

if TYPE_CHECKING:
    from distbp.job import TrainingJob
    from distbp.run.events import Started
    from distbp.run.result import Result

_EPILOG = """\b
Examples:
  distbp train job.yaml                       train; the run lies in runs/
  distbp train job.yaml --workers 4 --output runs/first
  distbp train houses.csv --target price      a table, without a job file
  distbp resume runs/first                    go on after Ctrl-C, a crash, or kill -9
  distbp evaluate runs/first                  the test set of the run's own job
  distbp predict runs/first images.npy -o predictions.csv
  distbp validate job.yaml                    every fault at once, without training
  distbp schema > job.schema.json             completion and checking in an editor
  distbp serve                                a service on this machine
  distbp submit job.yaml --wait               the same job, on the service
  distbp list                                 its jobs

\b
Exit codes:
""" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())


@click.group(
    epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(distbp.__version__, prog_name="distbp")
@reports_errors
def group() -> None:
    """Distributed minibatch training on CPUs: any number of workers, any failure, the same bits.

    A job is a YAML file; `docs/job.md` lists every field.
    """
    absolute("")  # raises first of all if the working directory was deleted
    for text in settings.misspelled():
        click.echo(f"warning: {text}", err=True)


@group.command()
@click.argument("what", metavar="JOB.yaml|TABLE")
@click.option("--target", help="Of a table: the column to predict. The job is made and printed.")
@click.option(
    "--output",
    type=UserPath(),
    help="The run directory: absent or empty. Default: runs/NAME.",
)
@SET
@WORKERS
@ADDRESS
@JSON
@reports_errors
def train(
    what: str,
    target: str | None,
    sets: tuple[str, ...],
    output: Path | None,
    workers: int | str | None,
    address: str | None,
    as_json: bool,
) -> None:
    """Train a job, or a table without one.

    The run directory then holds the model, its metrics and its curves.

    \b
    Examples:
      distbp train job.yaml
      distbp train job.yaml --output runs/first --workers 2
      distbp train houses.csv --target price
      distbp train job.yaml --set epochs=1 --set optimizer.learning_rate=0.01
      distbp train job.yaml --json | jq 'select(.event == "epoch_ended") | .metrics'

    Ctrl-C and SIGTERM write a checkpoint and stop; `distbp resume` continues.
    """
    with without_collections():
        from distbp.team.ray.session import join_early

        session = click.get_current_context().with_resource(join_early(workers, address))
        from distbp.run.progress import show
        from distbp.run.train import train as train_job

    if target is None and cli_tables.is_table(what):
        raise click.UsageError(
            "to train on a table, name its target: distbp train TABLE --target NAME; `distbp data describe"
            " TABLE` shows the columns"
        )
    job_file = user_path(what)
    job = job_at(job_file, sets) if target is None else _job_of_table(what, target, sets, as_json)
    if output is not None and (output / "job.yaml").exists():
        raise click.UsageError(
            f"{output} holds a run; go on with `distbp resume {output}`, or name another folder"
        )
    _load_kernels(job.workers if workers is None else workers)
    with (
        named(job_file),
        show(sys.stdout, as_json=as_json, notes=lambda event: _notes(job, event, workers)) as listener,
    ):
        result = train_job(
            job,
            output=output,
            folder=job_file.parent if target is None else Path(),
            workers=workers,
            listener=listener,
            address=address,
            session=session,
        )
    _close(result, as_json)
    if target is not None and not as_json:
        click.echo(f"predict rows: distbp predict {shlex.quote(str(result.path))} ROWS.csv")


def _load_kernels(workers: Any) -> None:
    """Loads Numba without SciPy if this process will surely compute. Nothing else here needs SciPy."""
    from distbp.machine.lean_numba import load_numba

    if workers in (0, "auto") and settings.get("DISTBP_KERNELS") != "numpy":
        with without_collections():
            load_numba()


@group.command()
@click.argument("run_dir", metavar="RUN_DIR|JOB", type=UserPath())
@click.option(
    "--epochs", type=click.IntRange(1), help="Replaces the job's number; a finished run continues to it."
)
@WORKERS
@ADDRESS
@cli_service.URL
@JSON
@reports_errors
def resume(
    run_dir: Path,
    epochs: int | None,
    workers: int | str | None,
    address: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Continue a run, or a job on a service, that was stopped.

    It continues from the last checkpoint, in the middle of an epoch, to the same bits as if it had never
    stopped. A run continues in this process; a paused job is queued again.

    \b
    Examples:
      distbp resume runs/first
      distbp resume runs/first --epochs 40       train a finished run further
      distbp resume job_01j9ze3k8xq2v5w7y0ab
    """
    if cli_service.is_job_id(str(run_dir)):
        if epochs is not None:
            raise click.UsageError(
                "--epochs is for runs; to train the model of a job further, submit a job with init: model:ID"
            )
        if workers is not None or address is not None:
            raise click.UsageError(
                "--workers and --address are for runs; a job is scaled with `distbp scale`"
            )
        cli_service.resume_job(str(run_dir), url)
        return
    from distbp.run.events import Event, Finished
    from distbp.run.progress import show
    from distbp.run.train import resume as resume_run

    with named(run_dir / "job.yaml"), show(sys.stdout, as_json=as_json) as listener:
        told: list[Event] = []

        def listen(event: Event) -> None:
            told[:] = [event]
            listener(event)

        result = resume_run(run_dir, workers=workers, listener=listen, address=address, epochs=epochs)
        if not told:  # the run had already ended
            listener(Finished(result.to_json()))
    _close(result, as_json)


@group.command(
    help=f"""Measure a model on data.

    {DATA_HELP}
    \b
    Examples:
      distbp evaluate runs/first
      distbp evaluate runs/first --split validation
      distbp evaluate runs/first/model test.npz --metrics accuracy,f1
    """
)
@MODEL
@DATA
@SPLIT
@click.option("--metrics", help="Names, divided by commas. Default: those of the training job.")
@JSON
@reports_errors
def evaluate(model_dir: Path, data: tuple[str, ...], split: str, metrics: str | None, as_json: bool) -> None:
    from distbp.cli.data import given_for, open_model
    from distbp.core.errors import DataError
    from distbp.run.epoch_table import number
    from distbp.run.splits import skipped_note

    model = open_model(model_dir)
    table = given_for(model, model_dir, data, split, with_targets=True)
    if table.targets is None and not model.compares_with_inputs:
        raise DataError(f"{table.name}: there are no targets to compare with; name them after the inputs")
    names = None if metrics is None else [name.strip() for name in metrics.split(",")]
    found = model.evaluate(table.inputs, table.targets, weights=table.weights, metrics=names)
    if as_json:
        from distbp.run.run_directory import as_json as plain

        click.echo(json.dumps(plain({"rows": len(table), **found})))
        return
    click.echo(f"{counted(len(table), 'row')} of {table.name}")
    if table.skipped:
        click.echo("  " + skipped_note(split if not data else "", len(table), table.skipped))
    wide = max([16, *(len(name) + 2 for name in found)])
    for name, value in found.items():
        click.echo(f"  {name.replace('_', ' '):<{wide}}{number(value)}")
    for note in (*table.notes, *(model.plan.units if model.plan else ())):
        click.echo(f"note: {note}", err=True)


@group.command(
    help=f"""Predict with a model, as CSV or npz.

    {DATA_HELP}
    \b
    Examples:
      distbp predict runs/first inputs.npy
      distbp predict runs/first inputs.npy -o predictions.csv --probabilities
      distbp predict runs/first '{{format: digits, split: test}}' -o predictions.npz
    """
)
@MODEL
@DATA
@SPLIT
@click.option(
    "-o", "--output", type=NewFile(".csv", ".npz"), help="A .csv or .npz file. Default: CSV to the output."
)
@click.option("--probabilities", is_flag=True, help="Add the probability of each class.")
@reports_errors
def predict(
    model_dir: Path, data: tuple[str, ...], split: str, output: Path | None, probabilities: bool
) -> None:
    from distbp.cli.data import csv_text, given_for, open_model, predictions, write_predictions

    model = open_model(model_dir)
    table = given_for(model, model_dir, data, split, with_targets=False)
    columns = predictions(model, table, probabilities=probabilities)
    for note in table.notes:
        click.echo(f"note: {note}", err=True)
    if output is None:
        click.echo(csv_text(columns).encode(), nl=False)  # UTF-8 as in a file, on any terminal
    else:
        write_predictions(columns, output)
        click.echo(f"{len(table):,} predictions in {output}")


def _job_of_table(path: str, target: str, sets: tuple[str, ...], as_json: bool) -> TrainingJob:
    """Makes the first job for a table, and prints it unless `as_json`."""
    from distbp.job import TrainingJob

    page = cli_tables.job_for_table(path, target, sets)
    if not as_json:
        click.echo(page)
    return TrainingJob.from_yaml(page)


def _notes(job: TrainingJob, event: Started, workers: int | str | None) -> list[str]:
    from distbp.job.data_checks import notes_about

    return notes_about(job, event.rows, event.shards, workers)


def _close(result: Result, as_json: bool) -> None:
    from distbp.run.progress import summary

    if not as_json:
        click.echo(summary(result))


for _command in (
    cli_checks.validate,
    cli_checks.schema,
    cli_checks.gradcheck,
    cli_tools.verify,
    cli_tools.scale,
    cli_tools.plan,
    cli_describe.describe,
    cli_explain.explain,
    cli_explain.reproduce,
    cli_tables.data,
    cli_serve.serve,
    cli_service.submit,
    cli_service.status,
    cli_service.logs,
    cli_service.cancel,
    cli_service.pause,
    cli_assets.list_jobs,
    cli_assets.compare,
    cli_assets.models,
    cli_assets.datasets,
    cli_tokens.token,
):
    group.add_command(_command)


def main() -> None:
    """The entry point of the `distbp` command."""
    without_collections_at_the_end()
    signal.signal(signal.SIGTERM, terminate)
    open_streams()
    try:
        # Click's standalone mode is off, because it ends with code 1 on Ctrl-C.
        code = group(prog_name="distbp", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as stop:
        stopped(stop.__cause__ if isinstance(stop, click.Abort) else stop)
    except Exception as error:  # only here every error is caught: the process ends next
        internal(error)


if __name__ == "__main__":
    main()
