"""Commands that show backpropagation in numbers: a step of a job, and reproductions of published results."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import click

from distbp.cli.errors import named, reports_errors
from distbp.cli.options import JOB
from distbp.cli.paths import NewFile, UserPath, job_at
from distbp.core.errors import ArgumentError, SettingsError
from distbp.core.imports import missing

DIFFERENT = 4
_EVERY = 1000  # steps between lines of progress


@click.command()
@JOB
@click.option("--sample", type=int, default=0, show_default=True, help="Row of the training set, from 0.")
@click.option("--step", type=int, default=0, show_default=True, help="Train this many steps first.")
@click.option("--hold-biases", is_flag=True, help="Do not train the biases.")
@click.option(
    "--format", "kind", type=click.Choice(["text", "html", "json"]),
    help="Default: by the name of the output file, else text.",
)  # fmt: skip
@click.option("-o", "--output", type=NewFile(".txt", ".html", ".json"), help="A file in place of the output.")
@click.option("--check", is_flag=True, help="Compute every number again, without the engine.")
@reports_errors
def explain(
    job_file: Path,
    sample: int,
    step: int,
    hold_biases: bool,
    kind: str | None,
    output: Path | None,
    check: bool,
) -> None:
    """Show one training step of one sample with every number.

    Values, deltas, each derivative by the chain rule, and the update, in float64. With --step it explains the
    step after that many steps of training.

    \b
    Examples:
      distbp explain job.yaml
      distbp explain job.yaml --sample 3 --step 100 -o step.html
      distbp explain job.yaml --format json --check
    """
    from distbp.run.explain.step import explain_job

    job = job_at(job_file)
    with named(job_file):
        found = explain_job(
            job,
            job_file.parent,
            sample=sample,
            step=step,
            hold_biases=hold_biases,
            watch=lambda done, loss: _tell(f"step {done:,} of {step:,}: loss {loss:.6g}", done % _EVERY == 0),
        )
    suffixes = {".html": "html", ".json": "json"}
    kind = kind or (suffixes.get(output.suffix.lower(), "text") if output else "text")
    if kind == "html":
        from distbp.run.explain.page import page

        text = page(found)
    elif kind == "json":
        text = json.dumps(found.to_json()) + "\n"
    else:
        from distbp.run.explain.text import lines

        text = "\n".join(lines(found)) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
        click.echo(f"step {step + 1} of sample {sample} is in {output}")
    if check:
        from distbp.run.explain.check import check as check_step

        checked = check_step(found.to_json())
        click.echo(textwrap.fill(f"check: {checked}", 80), err=kind != "text" and output is None)
        if not checked.passed:
            sys.exit(DIFFERENT)


def _tell(text: str, now: bool = True) -> None:
    """Prints progress if stderr is a terminal."""
    if now and sys.stderr.isatty():
        click.echo(text, err=True)


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--golden", type=UserPath(folder=True), help="The folder with published curves (nielsen/).")
@click.option("--mnist", type=UserPath(folder=True), help="The folder with MNIST's four files.")
@click.option("--epochs", type=click.IntRange(1), help="At most this many epochs, for a first look.")
@click.option("-o", "--output", type=NewFile(".svg", ".png"), help="Draw our curve over the published one.")
@reports_errors
def reproduce(
    name: str | None, golden: Path | None, mnist: Path | None, epochs: int | None, output: Path | None
) -> None:
    """Derive a published result again, figure against figure.

    Without NAME it lists them. Exit code 0: all figures agree within their tolerance; 4: some differ.

    \b
    Examples:
      distbp reproduce
      distbp reproduce mazur -o mazur.svg
      distbp reproduce nielsen/overfitting --golden golden -o overfitting.svg
    """
    from distbp.run.explain.figures import table
    from distbp.run.reproduce.figures import Folders
    from distbp.run.reproduce.results import RESULTS

    if name is None:
        for key, one in RESULTS.items():
            needs = f"needs {' and '.join(one.needs)}; " if one.needs else ""
            click.echo(f"  {key}\n      {one.title}\n      {needs}takes {one.takes}")
        return
    if name not in RESULTS:
        raise ArgumentError(f"{name!r} is not known; known: {', '.join(RESULTS)}")
    if epochs is not None and not RESULTS[name].needs:
        raise ArgumentError(f"--epochs is for results that are curves by epoch, which {name} is not")
    draw = _drawing() if output is not None else None
    found = RESULTS[name].run(Folders(golden, mnist, epochs), lambda text: click.echo(f"  {text}", err=True))
    click.echo(f"{found.title}\n{textwrap.fill(found.source, 80)}\n")
    click.echo("\n".join(table(found.figures)))
    for note in found.notes:
        click.echo("\n" + textwrap.fill(note, 80))
    if output is not None and draw is not None:
        panels = [
            (c.title, c.x_name, list(c.published), list(c.ours), c.dots, c.logarithmic) for c in found.curves
        ]
        draw(panels, output, found.title)
        click.echo(f"\nThe picture is {output}.")
    click.echo("\nAll figures agree." if found.agrees else "\nNot all figures agree.")
    if not found.agrees:
        sys.exit(DIFFERENT)


def _drawing() -> Callable[..., Path]:
    try:
        from distbp.run.curves import draw_over
    except ModuleNotFoundError:
        raise SettingsError(missing("a picture", "matplotlib", "distbp[plot]")) from None
    return draw_over
