"""Commands around a run: check its bits, change its workers, predict its speed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distbp.cli_errors import CORRUPTED, named, reports_errors

if TYPE_CHECKING:
    from distbp.verify import Verification

_RUN = click.argument("run_dir", metavar="RUN_DIR", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")


@click.command()
@_RUN
@click.option("--step", type=click.IntRange(1), help="Counted from 1. Default: the last that was recorded.")
@_JSON
@reports_errors
def verify(run_dir: Path, step: int | None, as_json: bool) -> None:
    """Recompute a step of a run and compare the bits.

    From the last checkpoint before the step to the first digest that the run recorded at or after it. Exit
    code 0: equal; 7: they differ.

    \b
    Examples:
      distbp verify runs/first
      distbp verify runs/first --step 1200
    """
    from distbp.verify import verify_run

    with named(run_dir / "job.yaml"):
        found = verify_run(run_dir, step)
    click.echo(json.dumps(found.to_json()) if as_json else _verification(found))
    if not found.equal:
        sys.exit(CORRUPTED)


@click.command()
@_RUN
@click.option("--workers", type=click.IntRange(0, 4096), required=True, help="How many there shall be.")
@reports_errors
def scale(run_dir: Path, workers: int) -> None:
    """Change the workers of a run while it trains.

    In another process of this machine. Changes the time, never the result.

    \b
    Example:
      distbp scale runs/first --workers 4
    """
    from distbp.control import scale_run

    scale_run(run_dir, workers)
    click.echo(f"asked for {workers} workers; what came of it will stand in {run_dir / 'events.jsonl'}")


def _verification(found: Verification) -> str:
    last = found.comparisons[-1]
    steps = last.step - found.start
    lines = [
        f"recomputed {steps:,} step{'s' if steps != 1 else ''} from {found.began_with} in"
        f" {found.seconds:.1f} s"
    ]
    for one in found.comparisons:
        what = "equal" if one.equal else "DIFFERS"
        lines.append(f"  after step {one.step:<8} {what:<8} {one.computed}  ({one.where})")
        if one.recorded != one.computed:
            lines.append(f"  {'':<19} recorded {one.recorded}")
        if one.differing:
            lines.append(f"  {'':<19} other bits in: {', '.join(one.differing)}")
    if found.shards:
        lines.append(f"gradient sums of step {found.step}, by shard (SHA-256):")
        lines += [f"  shard {number:<4} {digest}" for number, digest in enumerate(found.shards)]
    if found.equal:
        lines.append(f"step {found.step} is as the run computed it")
    else:
        lines.append(
            f"the bits differ within steps {_before(found) + 1} to {last.step}. Either the training data"
            " changed since, or a processor or its memory computed wrong, then or now. Verify again,"
            " here and on another machine, and compare the digests of the shards"
        )
    return "\n".join(lines)


def _before(found: Verification) -> int:
    """The last step known to be right."""
    return found.comparisons[-2].step if len(found.comparisons) > 1 else found.start
