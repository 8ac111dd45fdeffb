"""Commands that check a job: its faults, its schema, its gradients."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from distbp.cli.errors import named, reports_errors
from distbp.cli.options import JOB, JSON, SET
from distbp.cli.paths import job_at


@click.command()
@JOB
@SET
@click.option("--no-data", is_flag=True, help="Do not open the data; check the job alone.")
@JSON
@reports_errors
def validate(job_file: Path, sets: tuple[str, ...], no_data: bool, as_json: bool) -> None:
    """Name every fault of a job, without training.

    Also opens its data, and checks that the two fit.

    \b
    Example:
      distbp validate job.yaml
    """
    job = job_at(job_file, sets, needs_data=not no_data)
    facts: dict[str, Any] = {"job": str(job_file), "digest": job.digest, "notes": []}
    from distbp.engine.memory_need import check_memory, needed

    with named(job_file):
        check_memory(needed(job, None, {}))
    if not no_data:
        from distbp.job.data_checks import notes_about
        from distbp.run.blueprints import make_blueprint
        from distbp.run.splits import open_splits, skipped_note
        from distbp.run.warm_start import check_init, init_folder

        with named(job_file):
            splits = open_splits(job, job_file.parent)
            blueprint = make_blueprint(job, splits)
            inits = check_init(blueprint, splits, init_folder(job, job_file.parent))
        facts |= {
            "rows": dict(blueprint.rows),
            "parameters": blueprint.network().parameter_count,
            "shards": blueprint.shards,
            "steps_per_epoch": blueprint.steps_per_epoch,
            "total_steps": blueprint.total_steps,
            "skipped": splits.skipped,
            "notes": [
                *inits,
                *blueprint.notes,
                *(skipped_note(name, blueprint.rows[name], why) for name, why in splits.skipped.items()),
                *notes_about(job, blueprint.rows, blueprint.shards),
            ],
        }
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{job_file} is a good job")
    for name, value in facts.items():
        if name == "rows":
            value = ", ".join(f"{count:,} {split}" for split, count in value.items())
        if name not in ("job", "notes", "skipped"):
            click.echo(
                f"  {name.replace('_', ' '):<16}{value:,}"
                if isinstance(value, int)
                else f"  {name:<16}{value}"
            )
    for note in facts["notes"]:
        click.echo(f"  note: {note}")


@click.command()
@reports_errors
def schema() -> None:
    """Print the JSON Schema of a job.

    Draft 2020-12, with a description of every field.

    \b
    Example:
      distbp schema > job.schema.json
    and, as the first line of a job, for editors with yaml-language-server:
      # yaml-language-server: $schema=job.schema.json
    """
    from distbp.job.schema import job_schema

    click.echo(json.dumps(job_schema(), indent=2))


@click.command()
@JOB
@click.option(
    "--coordinates",
    type=click.IntRange(1),
    show_default="20",
    help="How many entries of each tensor to check.",
)
@click.option("--all", "every", is_flag=True, help="Check every entry of each tensor.")
@reports_errors
def gradcheck(job_file: Path, coordinates: int | None, every: bool) -> None:
    """Check the gradients of a job.

    Those of its first batch, in float64, against central differences.

    \b
    Examples:
      distbp gradcheck job.yaml --coordinates 50
      distbp gradcheck job.yaml --all
    """
    if every and coordinates is not None:
        raise click.UsageError("--all checks every entry, so leave --coordinates out")
    from distbp.run.gradcheck import COORDINATES, check_job
    from distbp.run.live import counting

    job = job_at(job_file)
    most = None if every else coordinates or COORDINATES
    with named(job_file), counting(sys.stderr, "entries checked") as watch:
        report = check_job(job, job_file.parent, coordinates=most, watch=watch)
    counts = [f"{part.checked:,} of {part.size:,}" for part in report.parts]
    name_width, width = max(len(part.part) for part in report.parts), max(map(len, counts))
    for part, count in zip(report.parts, counts, strict=True):
        click.echo(
            f"  {part.part:<{name_width}}  {count:>{width}} checked, largest relative error {part.error:.1e}"
        )
    if not report.passed:
        click.echo(f"error: {report}", err=True)
        sys.exit(4)
    click.echo(str(report))
