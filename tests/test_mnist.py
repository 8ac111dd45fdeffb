"""What the issue promises of MNIST, with the jobs that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distbp import TrainingJob, train
from distbp.run.result import Result

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TRAIN = {"format": "idx", "images": "train-images-idx3-ubyte.gz", "labels": "train-labels-idx1-ubyte.gz"}
DATA = {
    "train": {**TRAIN, "rows": [0, 50_000]},
    "validation": {**TRAIN, "rows": [50_000, 60_000]},
    "test": {"format": "idx", "images": "t10k-images-idx3-ubyte.gz", "labels": "t10k-labels-idx1-ubyte.gz"},
    "scale": 255,
}
SMALL = TrainingJob(
    name="mnist",
    data=DATA,
    model={
        "layers": [{"type": "dense", "units": 30, "activation": "sigmoid"}, {"type": "dense", "units": 10}]
    },
    loss="softmax_cross_entropy",
    optimizer={"type": "momentum", "learning_rate": 0.1, "momentum": 0.9},
    batch_size=128,
    epochs=10,
    shards=4,
    workers=0,
    seed=7,
)
LARGE = SMALL.replace(
    model={
        "layers": [
            {"type": "dense", "units": 256, "activation": "relu"},
            {"type": "dropout", "rate": 0.2},
            {"type": "dense", "units": 128, "activation": "relu"},
            {"type": "dropout", "rate": 0.2},
            {"type": "dense", "units": 10},
        ]
    },
    optimizer={"type": "adamw", "learning_rate": 0.001, "schedule": "cosine"},
    epochs=15,
)


def run(job: TrainingJob, test_data: Path, tmp_path: Path, **options: Any) -> Result:
    return train(job, folder=test_data / "data/mnist", output=tmp_path / "run", **options)


def test_one_epoch(test_data: Path, tmp_path: Path) -> None:
    result = run(SMALL.replace(epochs=1), test_data, tmp_path)
    assert result.metrics["test_accuracy"] >= 0.90


@pytest.mark.slow
def test_thirty_hidden_units(test_data: Path, tmp_path: Path) -> None:
    result = run(SMALL, test_data, tmp_path)
    assert result.metrics["test_accuracy"] >= 0.955


@pytest.mark.slow
def test_two_hidden_layers_with_dropout(test_data: Path, tmp_path: Path) -> None:
    result = run(LARGE, test_data, tmp_path)
    assert result.metrics["test_accuracy"] >= 0.980


@pytest.mark.slow
def test_the_convolutional_job_of_the_examples(test_data: Path, tmp_path: Path) -> None:
    job = TrainingJob.from_file(EXAMPLES / "mnist_convolution.yaml")
    assert run(job, test_data, tmp_path).metrics["test_accuracy"] >= 0.990
