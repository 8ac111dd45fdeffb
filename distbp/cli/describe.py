"""The command `distbp describe`: a job's description, at most 80 characters wide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distbp.cli.errors import named, reports_errors
from distbp.cli.options import JOB, SET
from distbp.cli.paths import NewFile, job_at
from distbp.core.words import counted

if TYPE_CHECKING:
    from distbp.run.plan.describe import Description, Operand, TapeRow

_SECTIONS = {
    "forward": "forward: from the inputs to the outputs",
    "loss": "loss: its value, and its gradient with respect to the outputs",
    "backward": "backward: the gradients, from the last layer to the first",
    "update": "update: once for all shards, over every parameter",
}


@click.command()
@JOB
@click.option(
    "--yaml", "in_full", is_flag=True, help="The job itself, with every default and recipe written out."
)
@SET
@click.option("--tape", is_flag=True, help="Also list the ops of a step, each measured on this machine.")
@click.option("--svg", type=NewFile(".svg"), help="Draw the network into this file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@reports_errors
def describe(
    job_file: Path, in_full: bool, sets: tuple[str, ...], tape: bool, svg: Path | None, as_json: bool
) -> None:
    """Show what a job computes: layers, sizes, costs, memory.

    A network that is more than a list of layers is drawn below the list. With --tape also the list of
    operations of one training step. It shows backpropagation op by op. With --yaml the job in full instead,
    to be edited and trained.

    \b
    Examples:
      distbp describe job.yaml
      distbp describe job.yaml --svg network.svg
      distbp describe job.yaml --tape
      distbp describe recipe.yaml --yaml > job.yaml
    """
    from distbp.job.members import networks
    from distbp.run.plan.describe import describe_job
    from distbp.run.plan.picture import draw

    job = job_at(job_file, sets, needs_data=not in_full)
    if in_full:
        click.echo(job.to_yaml(), nl=False)
        return
    with named(job_file):
        found = describe_job(job, job_file.parent, tape=tape)
    if svg is not None:
        svg.write_text(draw(found.graph, found.input_shape, found.name), "utf-8")
    click.echo(json.dumps(found.to_json()) if as_json else "\n".join(lines(found)))
    if networks(job) > 1 and not as_json:
        what = "averaged" if job.members > 1 else "the best kept"
        click.echo(f"\n{networks(job)} such networks are trained, from different seeds; {what}")
        click.echo("They train side by side, each on one processor or worker")


def lines(found: Description) -> Iterator[str]:
    """Yields the lines of the description."""
    from distbp.engine.memory_need import size
    from distbp.job.graph import drawn, is_graph

    yield f"{found.name}: inputs of shape {_shape(found.input_shape)}"
    yield ""
    yield f"  {'no':>3}  {'layer':<22}{'output shape':<16}{'parameters':>13}{'flops/sample':>17}"
    for layer in found.layers:
        number = "-" if layer.number is None else layer.number
        yield (
            f"  {number:>3}  {layer.type:<22}{_shape(layer.output_shape):<16}{layer.parameters:>13,}"
            f"{layer.flops:>17,.0f}"
        )
    yield ""
    if is_graph(found.graph):
        yield from drawn(found.graph, found.input_shape)
        yield ""
    for name, value in (
        ("parameters", f"{found.parameters:,} ({found.dtype})"),
        ("batch", f"{found.batch_size:,} rows in {counted(found.shards, 'shard')}"),
        ("slice", f"at most {counted(found.slice_rows, 'row')}"),
        ("flops of a step", f"{found.flops:,.0f}"),
        ("work of a slice", f"{found.work:,} numbers"),
        ("memory", size(sum(found.memory.values()))),
        *((f"  {name}", size(count)) for name, count in found.memory.items() if count),
    ):
        yield f"  {name:<20}{value}"
    if found.tape is not None:
        yield from _tape(found, found.tape)


def _tape(found: Description, tape: tuple[TapeRow, ...]) -> Iterator[str]:
    yield ""
    yield "The tape: the ops of one step, in order, for a slice of " + counted(found.slice_rows, "row")
    yield f"share: of the time of a step with {counted(found.shards, 'shard')}, each op measured alone on"
    yield f"this machine, on random data, on one core, by the kernel set {found.kernels}"
    for section, rows in groupby(tape, lambda row: row.section):
        yield ""
        yield _SECTIONS[section]
        yield f"  {'no':>3}  {'op':<30}{'layer':>5}{'flops':>18}{'share':>10}"
        for row in rows:
            layer = "-" if row.layer is None else str(row.layer)
            yield f"  {row.number:>3}  {row.op:<30}{layer:>5}{row.flops:>18,}{row.share:>10.2%}"
            for operand in row.operands:
                yield from _operand(operand)
            if row.whole or row.real:
                numbers = ", ".join([*map(str, row.whole), *(f"{number:g}" for number in row.real)])
                yield f"{'':>9}with    {numbers}"
            if row.deferred:
                yield f"{'':>9}may be deferred: computed part by part while the parameters are updated"


def _operand(operand: Operand) -> Iterator[str]:
    line = f"{'':>9}{'writes' if operand.writes else 'reads':<8}{operand}"
    if len(line) <= 80 or operand.tensor is None:
        yield line
        return
    yield line.removesuffix(operand.tensor).rstrip()
    yield f"{'':>17}{operand.tensor}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
