"""Jobs for the stack, and what they have to come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stack import ROOT, Stack

import distbp


def job(epochs: int) -> distbp.TrainingJob:
    found = distbp.TrainingJob.from_file(ROOT / "examples" / "digits.yaml").to_mapping()
    found.update(epochs=epochs, workers=2, checkpoint={"every_seconds": 2.0})
    return distbp.TrainingJob.from_mapping(found)


def submit(stack: Stack, job: distbp.TrainingJob) -> Any:
    return distbp.submit(job, url=stack.url, token=stack.token())


def local(job: distbp.TrainingJob, folder: Path) -> distbp.Result:
    return distbp.train(job, output=folder / "run", workers=0)


def same_bits(found: distbp.Result, wanted: distbp.Result) -> None:
    assert found.numerics == wanted.numerics
    assert found.params_sha256 == wanted.params_sha256
    assert found.metrics == wanted.metrics
