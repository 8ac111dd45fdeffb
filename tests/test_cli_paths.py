"""Paths and streams of the command line: `~`, what is in the way, folders that are gone, full outputs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import distbp
from distbp.cli import main as cli
from distbp.cli.data import write_predictions
from distbp.core import storage
from distbp.core.errors import StorageError

JOB = """
data: {train: {format: moons, samples: 64}, test: {format: moons, samples: 8}}
model: {layers: [{type: dense, units: 2}]}
loss: softmax_cross_entropy
epochs: 1
workers: 0
"""


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.group, [str(word) for word in words])


def call(
    *words: str | Path, folder: Path, command: str = '"$@"', **variables: str
) -> subprocess.CompletedProcess[str]:
    """The program itself, below a shell, with other variables."""
    program = [sys.executable, "-m", "distbp.cli.main", *words]
    environment = {**os.environ, "DISTBP_KERNELS": "numpy", **variables}
    return subprocess.run(
        ["sh", "-c", command, "sh", *program], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder, with a job and its run."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "job.yaml").write_text(JOB)
    result = run("train", folder / "job.yaml", "--output", folder / "run")
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize("command", [["predict", "-o"], ["plan", "--picture"]], ids=lambda words: words[0])
def test_what_is_in_the_way_of_an_output_is_said_before_any_work(
    command: list[str], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distbp.cli.data.open_model", lambda _: pytest.fail("it began"), raising=True)
    monkeypatch.setattr(
        "distbp.run.plan.plan.plan_job", lambda *_, **__: pytest.fail("it began"), raising=True
    )
    name, option = command
    ending = ".csv" if name == "predict" else ".svg"
    folder = tmp_path / f"folder{ending}"
    folder.mkdir()
    (tmp_path / "file").touch()
    lost, below, other = tmp_path / "no" / f"a{ending}", tmp_path / "file" / f"a{ending}", tmp_path / "a.txt"
    for path, words in (
        (lost, f"{lost}: {lost.parent} is not a folder; make it, or choose another"),
        (below, f"{below}: {below.parent} is not a folder; make it, or choose another"),
        (folder, f"{folder} is a folder; name a file in it"),
        (other, f"{other} must end in {'.csv or .npz' if name == 'predict' else '.svg or .png'}"),
    ):
        result = run(name, home / ("run" if name == "predict" else "job.yaml"), option, path)
        assert result.exit_code == 2
        assert " ".join(words.split()) in " ".join(result.stderr.split())
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write everywhere
    result = run(name, home / "run", option, tmp_path / f"a{ending}")
    assert result.exit_code == 2 and f"this user may not write into {tmp_path}" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", folder.name]


def test_a_suffix_may_be_written_in_any_case(home: Path, tmp_path: Path) -> None:
    for name in ("a.CSV", "a.NPZ"):
        assert run("predict", home / "run", "-o", tmp_path / name).exit_code == 0
    assert (tmp_path / "a.CSV").read_text().startswith("row,prediction\n0,")
    assert np.load(tmp_path / "a.NPZ")["prediction"].shape == (8,)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")

    def full(fd: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.DISK, "write", full)
    with pytest.raises(StorageError, match=rf"^disk full: could not write {path}\. .* free some space"):
        write_predictions({"row": np.arange(3)}, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_tilde_is_the_users_own_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert run("validate", "~/job.yaml").exit_code == 0
    assert run("train", "~/job.yaml", "--output=~/other").exit_code == 0
    assert run("predict", "~/other", "-o", "~/out.csv").exit_code == 0
    assert run("verify", "~/other").exit_code == 0
    np.savez(home / "data.npz", inputs=np.zeros((4, 2), "f4"), targets=np.zeros(4, "i8"))
    assert "4 rows" in run("evaluate", "~/run", "~/data.npz").output
    job = distbp.TrainingJob.from_file("~/job.yaml").to_mapping()
    job["data"] = {"train": {"format": "npz", "path": "~/data.npz"}}
    result = distbp.train(distbp.TrainingJob.from_mapping(job), output="~/third", workers=0)
    assert result.path == home / "third"
    assert distbp.resume("~/third").params_sha256 == result.params_sha256
    assert distbp.load_model("~/third/model").predict(np.zeros((1, 2), "f4")).shape == (1,)
    assert list(tmp_path.iterdir()) == []
    assert {"other", "out.csv", "third"} <= {path.name for path in home.iterdir()}


@pytest.mark.parametrize("words", [["validate", "JOB"], ["train", "JOB"], ["predict", "RUN"], ["serve"]])
def test_a_working_directory_that_was_deleted(words: list[str], home: Path, tmp_path: Path) -> None:
    places = {"JOB": home / "job.yaml", "RUN": home / "run"}
    done = call(
        *(places.get(w, w) for w in words),
        folder=tmp_path,
        command='mkdir gone; cd gone; rmdir ../gone; "$@"',
    )
    assert done.stderr == (
        "error: the working directory was deleted; go to another folder (cd), then try again\n"
    )
    assert done.returncode == 5


def test_training_from_python_in_a_working_directory_that_was_deleted(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = distbp.TrainingJob.from_file(home / "job.yaml")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StorageError, match=r"^the working directory was deleted; go to another folder"):
        distbp.train(job, output=tmp_path / "run")


@pytest.mark.heavy
@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["PYTHONIOENCODING=ascii", "LC_ALL=C", "an ASCII locale"],
)
def test_an_ascii_locale(variables: dict[str, str], home: Path, tmp_path: Path) -> None:
    (tmp_path / "jöb.yaml").write_text("model: 3")
    done = call("validate", "jöb.yaml", folder=tmp_path, **variables)
    assert done.returncode == 2 and "faults:" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    done = call("train", home / "job.yaml", "--output", "rün", folder=tmp_path, **variables)
    assert "Traceback" not in done.stderr
    if done.returncode:  # the name is no text in this locale
        assert done.stderr.endswith("rename it, or set PYTHONUTF8=1\n")
        assert done.returncode == 2
    else:
        assert (tmp_path / "rün" / "result.json").exists()


@pytest.mark.parametrize("words", [["validate", "JOB"], ["predict", "RUN"], ["schema"]])
def test_an_output_that_is_full(words: list[str], home: Path, tmp_path: Path) -> None:
    places = {"JOB": home / "job.yaml", "RUN": home / "run"}
    done = call(*(places.get(word, word) for word in words), folder=tmp_path, command='"$@" >/dev/full')
    assert (done.returncode, done.stderr) == (5, "error: no space left on device\n")


@pytest.mark.heavy
def test_outputs_that_are_closed(home: Path, tmp_path: Path) -> None:
    """What opens the streams, and what meets a pipe that nobody reads, is the same for all commands."""
    words = ("validate", home / "job.yaml")
    done = call(*words, folder=tmp_path, command='"$@" >&- 2>&- <&-')
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = call(*words, folder=tmp_path, command='{ "$@"; echo "ended with $?" >&2; } | true')
    assert done.stderr == "ended with 0\n"
