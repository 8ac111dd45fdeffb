"""Commands for a run: verify its bits, change its workers, predict its speed."""

from __future__ import annotations

import json
import sys
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distbp.cli import service as cli_service
from distbp.cli.errors import CORRUPTED, named, reports_errors
from distbp.cli.paths import NewFile, UserPath, job_at
from distbp.core.words import counted

if TYPE_CHECKING:
    from distbp.run.verify import Verification

_SHOWN = 10  # the most equal digests of a verification that are shown
_RUN = click.argument("run_dir", metavar="RUN_DIR", type=UserPath())
_RUN_OR_JOB = click.argument("run_dir", metavar="RUN_DIR|JOB", type=UserPath())
_ABOVE_0 = click.FloatRange(0, min_open=True)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")


@click.command()
@_RUN
@click.option("--step", type=click.IntRange(1), help="The step, from 1. Default: the last one recorded.")
@_JSON
@reports_errors
def verify(run_dir: Path, step: int | None, as_json: bool) -> None:
    """Recompute a step of a run, compare bits, check what it left.

    It starts from the last checkpoint before the step, and ends at the first digest that the run recorded at
    or after it. Exit code 0: equal; 7: different.

    \b
    Examples:
      distbp verify runs/first
      distbp verify runs/first --step 1200
    """
    from distbp.run.verify import verify_run

    with named(run_dir / "job.yaml"):
        found = verify_run(run_dir, step)
    click.echo(json.dumps(found.to_json()) if as_json else _verification(found))
    if not found.equal:
        sys.exit(CORRUPTED)


@click.command()
@_RUN_OR_JOB
@click.option("--workers", type=click.IntRange(0, 4096), required=True, help="The number wanted.")
@cli_service.URL
@reports_errors
def scale(run_dir: Path, workers: int, url: str | None) -> None:
    """Change the workers of a run or job while it trains.

    The run trains in another process of this machine; a job trains on a service. Changes the time, never
    the result.

    \b
    Examples:
      distbp scale runs/first --workers 4
      distbp scale job_01j9ze3k8xq2v5w7y0ab --workers 8
    """
    if cli_service.is_job_id(str(run_dir)):
        cli_service.scale_job(str(run_dir), workers, url)
        return
    from distbp.run.control import scale_run

    scale_run(run_dir, workers)
    click.echo(f"asked for {counted(workers, 'worker')}; {run_dir / 'events.jsonl'} will record the change")


@click.command()
@click.argument("job_file", metavar="JOB.yaml", type=UserPath())
@click.option("--bandwidth", type=_ABOVE_0, default=10.0, show_default=True, help="Between nodes, Gbit/s.")
@click.option("--latency", type=_ABOVE_0, default=0.1, show_default=True, help="Between nodes, one way, ms.")
@click.option("--picture", type=NewFile(".svg", ".png"), help="Draw the speed-up into this .svg or .png.")
@_JSON
@reports_errors
def plan(job_file: Path, bandwidth: float, latency: float, picture: Path | None, as_json: bool) -> None:
    """Predict how fast a job trains with each number of workers.

    It measures a few steps and an exchange on this machine (about two seconds). It prints the best number of
    workers and what limits it, here and on more machines like this one.

    \b
    Example:
      distbp plan job.yaml --bandwidth 25
    """
    from distbp.run.plan.plan import describe, draw_speedups, plan_job

    job = job_at(job_file)
    with named(job_file):
        found = plan_job(job, folder=job_file.parent, bandwidth_gbits=bandwidth, latency_ms=latency)
    if picture is not None:
        draw_speedups(found, picture)
    click.echo(json.dumps(found.to_json()) if as_json else describe(found))


def _verification(found: Verification) -> str:
    last = found.comparisons[-1]
    steps = last.step - found.start
    lines = [
        f"recomputed {steps:,} step{'s' if steps != 1 else ''} from {found.began_with} in"
        f" {found.seconds:.1f} s"
    ]
    equal = sum(1 for _ in takewhile(lambda one: one.equal, found.comparisons))
    left_out = max(0, equal - _SHOWN)
    if left_out:
        lines.append(f"  {counted(left_out, 'digest')} before these: equal (--json has all)")
    for one in found.comparisons[left_out:]:
        what = "equal" if one.equal else "DIFFERS"
        lines.append(f"  after step {one.step:<8} {what:<8} {one.computed}  ({one.where})")
        if one.recorded != one.computed:
            lines.append(f"  {'':<19} recorded {one.recorded}")
        if one.differing:
            lines.append(f"  {'':<19} other bits in: {', '.join(one.differing)}")
    if found.shards:
        lines.append(f"gradient sums of step {found.step}, by shard (SHA-256):")
        lines += [f"  shard {number:<4} {digest}" for number, digest in enumerate(found.shards)]
    lines += [f"changed: {change}" for change in found.changed]
    if found.equal:
        lines.append(f"step {found.step} is as the run computed it")
    elif not last.equal:
        lines.append(
            f"the bits differ within steps {_before(found) + 1} to {last.step}. Either the training data"
            " changed since, or a processor or its memory computed wrong, then or now. Verify again,"
            " here and on another machine, and compare the digests of the shards"
        )
    return "\n".join(lines)


def _before(found: Verification) -> int:
    """The last step that is known to be right."""
    return found.comparisons[-2].step if len(found.comparisons) > 1 else found.start
