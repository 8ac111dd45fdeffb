"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Any

import click

from distbp.cli.paths import UserPath

JOB = click.argument("job_file", metavar="JOB.yaml", type=UserPath())
ADDRESS = click.option(
    "--address", help="Of a Ray cluster to train on. Default: RAY_ADDRESS, or a Ray of its own."
)
SET = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE",
    help="A field in place of the job's, as epochs=1 or model.layers.0.units=64; may be repeated.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")


class _Workers(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        if not (value.isdecimal() and int(value) <= 4096):
            self.fail(f"{value!r} is neither a whole number from 0 to 4096 nor auto", param, ctx)
        return int(value)


WORKERS = click.option(
    "--workers", type=_Workers(), help="In place of the job's. Changes the time, never the result."
)

MODEL = click.argument("model_dir", metavar="MODEL", type=UserPath())
DATA = click.argument("data", metavar="[DATA]...", nargs=-1)
SPLIT = click.option(
    "--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True,
    help="Where no DATA is named: which set of the run's own job.",
)  # fmt: skip
DATA_HELP = """MODEL is a model folder or a run directory. DATA is one of

    \b
      inputs.npy targets.npy          arrays (rows, features...) and (rows,) or (rows, outputs)
      data.npz                        with arrays `inputs` and `targets`; of several inputs or outputs
                                      with arrays of their names
      images-idx3.gz labels-idx1.gz   IDX files
      rows.csv                        a table, for a model trained on one (also Parquet, ...)
      '{format: digits, split: test}' a source as a job writes it; see docs/job.md
"""
