"""Tables end to end on a real service: files of this machine, a frame, and raw rows through the model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
from click.testing import CliRunner, Result
from pyarrow import csv, parquet
from served import QUICK, Served

import distbp
from distbp.cli import main as cli
from distbp.core import settings
from distbp.core.errors import JobFailedError

ROWS = 120
RAGGED = "area,city,price\n" + "1,a,2\n" * 8 + "2,b\n" + "3,c,4\n" * 8


def homes() -> pa.Table:
    cities = ["Ghent", "Oslo", "Porto"]
    area = [float(30 + (7 * n) % 90) for n in range(ROWS)]
    price = [3 * a + 40 * (n % 3 == 1) for n, a in enumerate(area)]
    city = [None if n % 17 == 0 else cities[n % 3] for n in range(ROWS)]
    code = [f"{n % 20:05d}" for n in range(ROWS)]
    return pa.table({"area": area, "city": city, "code": code, "price": price})


def job(path: str | None, **data: Any) -> distbp.TrainingJob:
    source = {} if path is None else {"train": {"format": "table", "path": path}}
    return distbp.TrainingJob.from_mapping(
        {
            "name": "homes",
            "data": {**source, "target": {"column": "price", "scale": "standard"}, "split": {}, **data},
            "model": {"layers": [{"type": "dense", "units": 1}]},
            "loss": "mse",
            "optimizer": {"type": "adam", "learning_rate": 0.05},
            "epochs": 4,
            "workers": 0,
        }
    )


@pytest.fixture(autouse=True)
def client(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, served.environment[name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With one table in several spellings."""
    folder = tmp_path_factory.mktemp("homes")
    csv.write_csv(homes(), folder / "homes.csv")
    (folder / "parts").mkdir()
    parquet.write_table(homes().slice(0, 50), folder / "parts" / "1.parquet")
    csv.write_csv(homes().slice(50), folder / "parts" / "2.csv")
    return folder


@pytest.fixture(scope="module")
def digest(folder: Path) -> str:
    """Of the weights that training here gives."""
    with settings.environment(QUICK):
        return distbp.train(job("homes.csv"), folder=folder, output=folder / "run").params_sha256


def run(*words: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(cli.group, [str(word) for word in words])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_a_file_from_the_command_line(folder: Path, digest: str, tmp_path: Path) -> None:
    (folder / "job.yaml").write_text(job("homes.csv").to_yaml())
    done = run("submit", folder / "job.yaml", "--wait")
    assert digest in done.stdout
    job_id = done.stdout.splitlines()[0]
    status = json.loads(run("status", job_id, "--json").stdout)
    dataset, _, name = status["job"]["data"]["train"]["path"].partition("/")
    assert dataset.startswith("dataset:ds_") and name == "homes.csv"
    shown = " ".join(run("datasets").stdout.split())
    # The same file may have been sent before, as another set; a dataset keeps its first name.
    assert re.search(f"{dataset.removeprefix('dataset:')} homes [a-z]+ 1 file", shown)
    assert run("datasets", "upload", folder / "homes.csv").stdout == f"{dataset.removeprefix('dataset:')}\n"
    file = tmp_path / "homes.tar"
    assert run("models", "get", job_id, file).stdout == f"the model is in {file}\n"
    assert "exists; name a file that is absent" in run("models", "get", job_id, file, code=3).stderr
    (tmp_path / "new.csv").write_text("city,area,code,note\nOslo,50,00001,x\n,60,00002,y\n")
    assert run("predict", file, tmp_path / "new.csv").stdout.count("\n") == 3


def test_many_files_and_one_that_measures(folder: Path) -> None:
    both = job("parts/*", split=None, validation={"format": "table", "path": "homes.csv"})
    result = distbp.submit(both, folder=folder).result()
    with settings.environment(QUICK):
        local = distbp.train(both, folder=folder, output=folder / "both")
    assert result.params_sha256 == local.params_sha256
    assert result.metrics == local.metrics


def test_a_frame(digest: str) -> None:
    handle = distbp.submit(job(None), data=homes())
    assert handle.result().params_sha256 == digest
    assert handle.model().predict({"city": "Oslo", "area": 50, "code": "00001"}).shape == (1,)


def test_what_is_wrong_with_a_table_is_said_before_it_is_sent(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(RAGGED)
    before = run("datasets", "--json").stdout
    with pytest.raises(distbp.DistbpError, match=r"bad.csv: line 10: 2 cells where the table has 3 columns"):
        distbp.submit(job("bad.csv"), folder=tmp_path)
    with pytest.raises(distbp.JobError, match=r"data\.target: 'cost' is not a column"):
        distbp.submit(job("homes.csv", target="cost"), folder=folder)
    assert run("datasets", "--json").stdout == before


def test_a_table_that_the_runner_cannot_read_fails_with_its_place(folder: Path, tmp_path: Path) -> None:
    """Nobody looks into the files before the runner does."""
    (tmp_path / "bad.csv").write_text(RAGGED)
    dataset = run("datasets", "upload", tmp_path / "bad.csv").stdout.strip()
    handle = distbp.submit(job(f"dataset:{dataset}"))
    with pytest.raises(JobFailedError, match=r"bad.csv: line 10: 2 cells where the table has 3 columns"):
        handle.wait()


def test_a_folder_of_images(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    for number in range(12):
        place = tmp_path / "images" / ("left" if number % 2 else "right") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pillow.new("L", (4, 3), 20 * number).save(place)
    fields = {
        "data": {"train": {"format": "images", "path": "images"}, "scale": 255},
        "model": {"layers": ["flatten", {"type": "dense", "units": 2}]},
        "loss": "softmax_cross_entropy",
        "batch_size": 4,
        "epochs": 2,
        "workers": 0,
    }
    wanted = distbp.TrainingJob.from_mapping(fields)
    with settings.environment(QUICK):
        local = distbp.train(wanted, folder=tmp_path, output=tmp_path / "run")
    (tmp_path / "job.yaml").write_text(wanted.to_yaml())
    assert local.params_sha256 in run("submit", tmp_path / "job.yaml", "--wait").stdout
