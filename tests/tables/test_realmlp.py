"""The recipe realmlp on a table: written out it gives the same bits, and so does any number of workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from houses import houses, write

from distbp import TrainingJob, resume, train
from distbp.core import settings
from distbp.run.blueprints import check_splits
from distbp.run.splits import open_splits
from distbp.team.ray.session import RaySession


def wanted(path: Path, **fields: Any) -> dict[str, Any]:
    return {
        "data": {
            "train": {"format": "table", "path": str(path)},
            "target": "price",
            "split": {"validation": 0.2, "test": 0.2},
        },
        "model": {"recipe": "realmlp"},
        "loss": "mse",
        "metrics": ["r2"],
        "epochs": 6,
        "batch_size": 32,
        "shards": 4,
        "workers": 0,
        **fields,
    }


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A table, and the digest of the parameters that the recipe comes to."""
    folder = tmp_path_factory.mktemp("realmlp")
    path = write(houses(), folder / "h.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTBP_KERNELS", "numpy")
        patch.setattr("distbp.job.realmlp.HIDDEN", (16, 16, 16))
        result = train(TrainingJob.from_mapping(wanted(path)), output=folder / "run")
    assert result.metrics["validation_r2"] > 0.5
    return path, result.params_sha256


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distbp.job.realmlp.HIDDEN", (16, 16, 16))


def test_written_out(here: tuple[Path, str], tmp_path: Path) -> None:
    path, digest = here
    text = TrainingJob.from_mapping(wanted(path)).to_yaml()
    assert "recipe" not in text
    assert train(TrainingJob.from_yaml(text), output=tmp_path / "run").params_sha256 == digest
    assert resume(tmp_path / "run").params_sha256 == digest


def test_only_patterns_of_the_user_are_noted(tmp_path: Path) -> None:
    """Neither a table without numbers nor arrays have all tensors that the recipe gives rates."""
    table = write(houses().select(["city", "price"]), tmp_path / "h.csv")
    arrays = {"train": {"format": "blobs", "samples": 64, "features": 3, "classes": 3, "seed": 1}}
    jobs = [wanted(table), wanted(table, data=arrays, loss="softmax_cross_entropy", metrics=None)]
    jobs[1]["model"] = {"recipe": "realmlp", "outputs": 3}
    for fields in jobs:
        fields["parameter_groups"] = {"*.nothing": {"rate": 2}}
        job = TrainingJob.from_mapping(fields)
        _, notes = check_splits(job, open_splits(job, tmp_path, {}))
        told = [note for note in notes if "no tensor" in note]
        assert told == ["parameter_groups: no tensor has a name like *.nothing"]


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """For all runs with workers, as it takes seconds to start."""
    with settings.environment({"RAY_prestart_worker_first_driver": "0"}):  # none waits for work
        session = RaySession(4)
        session.wait()
        yield
        session.close()


@pytest.mark.heavy
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers(workers: int, here: tuple[Path, str], tmp_path: Path) -> None:
    path, digest = here
    job = TrainingJob.from_mapping(wanted(path))
    assert train(job, workers=workers, output=tmp_path / "run").params_sha256 == digest


def test_classes(tmp_path: Path) -> None:
    table = houses().drop_columns(["price"])
    rows = write(table, tmp_path / "h.parquet")
    job = wanted(rows, loss="softmax_cross_entropy", model={"recipe": "realmlp", "outputs": 8}, metrics=None)
    job["data"]["target"] = "rooms"
    result = train(TrainingJob.from_mapping(job), output=tmp_path / "run")
    assert result.metrics["validation_accuracy"] > 0.25  # an eighth by chance
    model = result.model()
    kinds = {column.name: column for column in model.plan.columns}
    assert kinds["code"].dimension == 8 and kinds["area"].frequencies == 16
    assert len(model.predict(table.drop_columns(["rooms"]))) == 300
