"""The reference page of the job, made from the models: `python -m distbp.job.reference > docs/job.md`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Set
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from distbp.job.columns import Split, Target, Windows
from distbp.job.faults import JobPart, allowed_field
from distbp.job.kinds import plain
from distbp.job.parts import (
    Checkpoint,
    Data,
    EarlyStopping,
    Model,
    WorkerRange,
)
from distbp.job.schema import KINDS
from distbp.job.tables import TABLES
from distbp.job.training_job import TrainingJob
from distbp.job.updates import Clip, ParameterGroup, Regularization
from distbp.nn.layers.base import LayerFacts
from distbp.nn.metrics import METRICS

_HEAD = """# The job: every field

Made from the code by `python -m distbp.job.reference > docs/job.md`; a test keeps it current.

A job is YAML (or JSON, or `distbp.TrainingJob(...)` in Python). The shortest one that trains:

```yaml
data:
  train: digits
model:
  layers:
    - {type: dense, units: 64, activation: relu}
    - {type: dense, units: 10}
loss: softmax_cross_entropy
```

- `distbp validate JOB.yaml` names every fault at once, with the nearest name for a misspelt one.
- `distbp schema > job.schema.json`, and the line `# yaml-language-server: $schema=job.schema.json` at the
  top of a job, give completion and checking in an editor.
- For a field that takes a layer, loss, optimizer, schedule, initializer or data format, write a mapping with
  its `type` (`format` for data) and options, or the name alone if every option has a default.
- YAML is read as version 1.2 (`1e-3` is a number, `on` is text). Anchors, tags and keys written twice are
  refused; a job may be 1 MiB long and nested 32 levels deep.
- Two spellings of the same job have the same digest. `name`, `workers`, `servers`, `audit`, `checkpoint`
  and `data.folder` do not count, because they cannot change a bit of the weights.
"""
_SEVERAL = """\
A network may have several outputs. Then `loss` is a mapping from the names of their layers to losses, and the
loss of the job is their sum. Besides its options each loss may have a `factor` in that sum, at least 0 (left
out: 1).

```yaml
model:
  layers:
    - {type: dense, units: 32, activation: relu, name: trunk}
    - {type: dense, units: 10, inputs: [trunk], name: digit}
    - {type: dense, units: 1, inputs: [trunk], name: parity}
loss:
  digit: softmax_cross_entropy
  parity: {type: sigmoid_cross_entropy, factor: 0.5}
```

- Each output has targets of its own: an array of an archive (`targets: {digit: labels, parity: odd}`), a
  column of a table (`data.target: {digit: label, parity: {column: odd}}`), or from Python an array
  (`data=(x, {"digit": labels, "parity": odd})`) or a column of a frame.
- A `loss` without `type` is such a mapping, and so is a `data.target` without `column`.
- Every layer is an input of another layer or has a loss. A layer may be both.
- Metrics are named by output: `digit.accuracy`. Evaluations also give the loss of each output without its
  factor: `validation_digit.loss`. `early_stopping` and `reduce_on_plateau` can watch all of them.
- With several outputs there is no `class_weight`, no `data.targets: inputs`, and no `data.windows`.
"""
_PARTS: tuple[tuple[str, type[JobPart]], ...] = (
    ("data", Data),
    ("data.target", Target),
    ("data.split", Split),
    ("data.windows", Windows),
    ("model", Model),
    ("workers as a range", WorkerRange),
    ("regularization", Regularization),
    ("parameter_groups", ParameterGroup),
    ("clip", Clip),
    ("early_stopping", EarlyStopping),
    ("checkpoint", Checkpoint),
)
_TITLES = {
    "layers": "Layers",
    "losses": "Losses",
    "optimizers": "Optimizers",
    "schedules": "Schedules",
    "initializers": "Initializers",
    "formats": "Data formats",
    "columns": "Kinds of columns",
}


def reference() -> str:
    """The page, Markdown."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    yield "## The fields of a job\n"
    yield from _table(TrainingJob)
    for title, part in _PARTS:
        yield f"\n### {title}\n"
        yield f"{_text(part)}\n"
        yield from _table(part)
    for name, title in _TITLES.items():
        yield f"\n## {title}\n"
        kind = KINDS[name]
        everywhere = set()
        if name == "layers":
            everywhere = {field.name for field in dataclasses.fields(LayerFacts)}
            yield "Every layer may have these fields; with them any graph without cycles can be written"
            yield "(`examples/transformer.yaml`: the encoder of a transformer).\n"
            model = kind.model(next(iter(kind.table)))
            yield from _table(model, without=model.model_fields.keys() - everywhere)
        if name == "losses":
            yield _SEVERAL
        for row in sorted(kind.table):
            model = kind.model(row)
            yield f"\n### {kind.what} `{row}`\n"
            if _text(model):
                yield f"{_text(model)}\n"
            if model.model_fields.keys() - everywhere - {kind.key}:
                yield from _table(model, without=everywhere | {kind.key})
    yield "\n## Activations\n"
    yield ", ".join(f"`{name}`" for name in sorted(TABLES["activations"]))
    yield "\n## Metrics\n"
    yield "`top_k` is written with its number: `top_5`.\n"
    yield "| metric | for losses of the task |\n| --- | --- |"
    for name, metric in METRICS.items():
        yield f"| `{name}` | {', '.join(metric.tasks)} |"


def _text(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split()).replace("|", "\\|")


def _table(model: type[BaseModel], without: Set[str] = frozenset()) -> Iterator[str]:
    yield "| field | allowed | default | meaning |\n| --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        if name not in without:
            cells = (f"`{name}`", allowed_field(field), _default(field), field.description or "")
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    if value is None:
        return ""
    shown = plain(value)
    if isinstance(shown, dict) and value == type(value)():  # a kind with all its own defaults
        shown = shown["type"]
    return f"`{shown if isinstance(shown, str) else json.dumps(shown)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
