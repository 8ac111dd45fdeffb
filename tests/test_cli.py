"""The command line: what each command prints, its exit codes, and what it never imports."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import distbp
from distbp.cli import main as cli
from distbp.cli.assets import _headline
from distbp.cli.errors import EXIT_CODES, exit_code
from distbp.cli.service import _described
from distbp.core import errors
from distbp.job import TrainingJob
from distbp.run import train as training

JOB = """
name: blobs
data:
  train: {format: blobs, samples: 300, seed: 1, rows: [0, 200]}
  validation: {format: blobs, samples: 300, seed: 1, rows: [200, 300]}
  test: {format: blobs, samples: 400, seed: 1, rows: [300, 400]}
model:
  layers: [{type: dense, units: 8, activation: relu}, {type: dense, units: 3}]
loss: softmax_cross_entropy
optimizer: {type: adam, learning_rate: 0.01}
epochs: 3
shards: 2
workers: 0
"""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """`cli.main` is the whole program: it leaves its handler of SIGTERM behind."""
    former = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, former)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.group, [str(word) for word in words])


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run directory."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "job.yaml").write_text(JOB)
    result = run("train", folder / "job.yaml", "--output", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


# Train and resume --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pictures")
def test_train_says_what_happens_and_where_everything_lies(job: Path, tmp_path: Path) -> None:
    result = run("train", job, "--output", tmp_path / "run")
    assert result.exit_code == 0
    lines = [line for line in result.stdout.splitlines() if not line.startswith("... ")]  # on a slow machine
    assert lines[:4] == [
        "blobs: 51 parameters, 2 shards, in this process",
        "200 train rows, 100 validation rows, 100 test rows; 3 epochs of 7 steps",
        "note: the last batch of every epoch has 8 rows instead of 32",
        "* marks the best epoch so far, by its validation loss",
    ]
    assert lines[5].split() == ["epoch", "loss", "loss", "accuracy", "samples/s"]
    assert [line[:7] for line in lines[6:9]] == ["    1  ", "    2  ", "    3  "]
    assert lines[9].startswith("completed: 21 steps (3 epochs)")
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"  weights       {found['params_sha256']}" in lines
    assert f"  model                 {tmp_path / 'run' / 'model'}" in lines
    assert f"  curves                {tmp_path / 'run' / 'curves.svg'}" in lines
    assert result.stderr == ""


def test_train_with_json_lines(job: Path, tmp_path: Path) -> None:
    result = run("train", job, "--output", tmp_path / "run", "--json", "--workers", "0")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0]["event"] == "started"
    assert events[0]["notes"] == ["the last batch of every epoch has 8 rows instead of 32"]
    assert [e["epoch"] for e in events if e["event"] == "epoch_ended"] == [1, 2, 3]
    assert events[-1]["event"] == "finished"
    assert events[-1]["result"]["status"] == "completed"


def test_paths_in_a_job_are_relative_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    draw = np.random.default_rng(0)
    np.savez(folder / "train.npz", inputs=draw.normal(size=(40, 2)), targets=draw.integers(0, 3, 40))
    (folder / "job.yaml").write_text(
        "data: {train: {format: npz, path: train.npz}}\nloss: softmax_cross_entropy\nepochs: 1\nworkers: 0\n"
        "model: {layers: [{type: dense, units: 3}]}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run("train", "jobs/job.yaml", "--output", "out").exit_code == 0
    result = run("evaluate", "out", "--split", "train")
    assert result.exit_code == 0
    assert result.stdout.startswith("40 rows of train.npz")


def test_a_run_is_not_overwritten(job: Path, trained: Path) -> None:
    result = run("train", job, "--output", trained)
    assert result.exit_code == 2
    assert (
        f"{trained} holds a run; go on with `distbp resume {trained}`, or name another folder"
        in result.stderr
    )


def test_resuming_a_finished_run_gives_its_result(trained: Path) -> None:
    result = run("resume", trained)
    assert result.exit_code == 0
    assert result.stdout.startswith("completed: 21 steps")
    events = [json.loads(line) for line in run("resume", trained, "--json").stdout.splitlines()]
    assert [e["event"] for e in events] == ["finished"]


def test_resuming_what_is_no_run(tmp_path: Path) -> None:
    result = run("resume", tmp_path / "nowhere")
    assert result.exit_code == 5
    assert str(tmp_path / "nowhere") in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(JOB.replace("epochs: 3", "epochs: 100000"))
    command = [
        sys.executable,
        "-m",
        "distbp.cli.main",
        "train",
        str(job),
        "--output",
        str(tmp_path / "run"),
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        while '"epoch_ended"' not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        rest, message = process.communicate()
    assert process.returncode == code
    assert message.startswith(f"stopped by {number.name} after step ")
    assert message.endswith(f"Go on with: distbp resume {tmp_path / 'run'}\n")
    stopped = json.loads(rest.splitlines()[-1])
    assert stopped["event"] == "checkpoint_saved"
    assert Path(stopped["path"]).is_dir()


# Validate, schema, gradcheck ---------------------------------------------------------------------------


def test_validate_says_what_training_would_do(job: Path) -> None:
    result = run("validate", job)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"{job} is a good job"
    assert "  rows            200 train, 100 validation, 100 test" in lines
    assert "  total steps     21" in lines
    assert lines[-1] == "  note: the last batch of every epoch has 8 rows instead of 32"
    facts = json.loads(run("validate", job, "--json").stdout)
    assert facts["digest"] == TrainingJob.from_file(job).digest
    assert facts["parameters"] == 51


def test_validate_without_data(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("model: {layers: [{type: dense, units: 3}]}\nloss: softmax_cross_entropy\n")
    assert run("validate", path, "--no-data").exit_code == 0
    result = run("validate", path)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {path} has 1 fault:\n  data.train: is required on the command line (the training set)\n"
    )


def test_validate_names_every_fault_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.replace("adam", "adem").replace("epochs: 3", "epochs: none"))
    result = run("validate", path)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"error: {path} has 2 faults:",
        "  optimizer.type: 'adem' is not known; did you mean 'adam'? known: adagrad, adam, adamw,"
        " conjugate_gradient, evolution, lbfgs, momentum, nesterov, rmsprop, sgd",
        "  epochs: must be a whole number at least 1, not 'none'",
    ]


def test_a_fault_against_the_data_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.replace("units: 3", "units: 2"))
    for command in ("validate", "train", "gradcheck"):
        result = run(command, path)
        assert result.exit_code == 2
        assert result.stderr == (
            f"error: {path} has 1 fault:\n"
            "  model.layers.1: the last layer has 2 outputs, but the labels are of 3 classes: 0, 1, 2;"
            " give the last layer 3 units, or number the classes from 0 to 1\n"
        )


def test_schema_prints_json() -> None:
    result = run("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_gradcheck_of_a_job(job: Path) -> None:
    result = run("gradcheck", job, "--coordinates", "5")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split(" checked")[0] for line in lines[:-1]] == [
        "  layers.0.dense.weight  5 of 16",
        "  layers.0.dense.bias     5 of 8",
        "  layers.1.dense.weight  5 of 24",
        "  layers.1.dense.bias     3 of 3",
    ]
    assert lines[-1].startswith("gradients agree: 18 of 51 checked")
    assert result.stderr == ""  # where nobody looks


def test_gradcheck_of_every_entry(job: Path) -> None:
    assert "gradients agree: 51 of 51 checked" in run("gradcheck", job, "--all").stdout
    result = run("gradcheck", job, "--all", "--coordinates", "5")
    assert result.exit_code == 2
    assert "--all checks every entry, so leave --coordinates out" in result.stderr


def test_gradcheck_shows_how_far_it_is_on_a_terminal(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    cli.group.main(["gradcheck", str(job)], standalone_mode=False)
    assert "47 of 47 entries checked" in terminal.getvalue()


def test_a_failed_gradcheck_has_its_exit_code(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distbp.nn.gradcheck import Report, Worst
    from distbp.run import gradcheck as job_gradcheck

    worst = Worst("layers.0.dense.weight", 3, 1.0, 2.0, 0.5, 20, 40)
    monkeypatch.setattr(job_gradcheck, "check_job", lambda *a, **k: Report((worst,), 1e-7))
    result = run("gradcheck", job)
    assert result.exit_code == 4
    assert "gradients disagree: layers.0.dense.weight[3] is 1" in result.stderr


# Evaluate and predict ----------------------------------------------------------------------------------


def test_evaluate_the_runs_own_splits(trained: Path) -> None:
    known = json.loads((trained / "result.json").read_text())["metrics"]
    for split in ("validation", "test"):
        found = json.loads(run("evaluate", trained, "--split", split, "--json").stdout)
        assert found["rows"] == 100
        assert found["loss"] == pytest.approx(known[f"{split}_loss"], rel=1e-5)
        assert found["accuracy"] == known[f"{split}_accuracy"]
    lines = run("evaluate", trained, "--metrics", "f1, top_2").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["loss", "f1", "top"]


def test_data_is_named_by_files_or_written_out(trained: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(10, 2)), draw.integers(0, 3, 10)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.savez(tmp_path / "both.npz", inputs=x, targets=y)
    first = run("evaluate", trained, tmp_path / "x.npy", tmp_path / "y.npy", "--json")
    second = run("evaluate", trained / "model", tmp_path / "both.npz", "--json")
    assert json.loads(first.stdout) == json.loads(second.stdout)
    third = run("evaluate", trained, "{format: blobs, samples: 400, seed: 1, rows: [300, 400]}", "--json")
    assert json.loads(third.stdout) == json.loads(run("evaluate", trained, "--json").stdout)


def test_predict_writes_csv_and_npz(trained: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(7, 2))
    np.save(tmp_path / "x.npy", x)
    model = distbp.load_model(trained / "model")
    result = run("predict", trained, tmp_path / "x.npy", "--probabilities")
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [int(row["prediction"]) for row in rows] == model.predict(x).tolist()
    proba = model.predict_proba(x)
    assert [float(row["probability_2"]) for row in rows] == proba[:, 2].tolist()
    file = tmp_path / "out.csv"
    assert run("predict", trained, tmp_path / "x.npy", "--probabilities", "-o", file).exit_code == 0
    assert file.read_text() == result.stdout
    result = run("predict", trained, tmp_path / "x.npy", "-o", tmp_path / "out.npz")
    assert result.stdout == f"7 predictions in {tmp_path / 'out.npz'}\n"
    with np.load(tmp_path / "out.npz") as found:
        assert found["prediction"].tolist() == model.predict(x).tolist()
        assert found["row"].tolist() == list(range(7))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.npz", "x.npy"]


def test_rows_are_numbered_as_in_the_file(trained: Path) -> None:
    result = run("predict", trained, "{format: blobs, samples: 50, rows: [40, 43]}")
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == ["row", "40", "41", "42"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["evaluate", "{run}", "nothing.npy"], 2, "there is no file 'nothing.npy', and as a data format"),
        (["evaluate", "{run}", "{x}", "y.npy"], 2, "there is no file 'y.npy'"),
        (["evaluate", "{run}", "{x}"], 3, "there are no targets to compare with; name them after the inputs"),
        (
            ["predict", "{run}", "{tmp}/rows.csv"],
            2,
            "rows.csv is a table, alone for a model that was trained on one;",
        ),
        (["evaluate", "{run}", "{x}", "{x}", "{x}"], 2, "takes at most two files (inputs, targets), not 3"),
        (
            ["evaluate", "{run}", "{format: blobs, sample: 3}"],
            2,
            "sample: 'sample' is not known; did you mean 'samples'?",
        ),
        (["evaluate", "{run}", "--metrics", "rmse"], 2, "'rmse' does not apply to a classification loss"),
        (["evaluate", "{tmp}"], 3, "model.json"),
        (["predict", "{run}", "{x}", "-o", "out.txt"], 2, "out.txt must end in .csv or .npz"),
        (["predict", "{run}", "{wide}"], 3, "expected inputs of shape (rows, 2), got (4, 5)"),
        (
            ["predict", "{run}", "{x}", "-o", "{tmp}/no/such/folder.csv"],
            2,
            "is not a folder; make it, or choose another",
        ),
        (
            ["train", "{tmp}/missing.yaml"],
            2,
            "missing.yaml has 1 fault:\n  cannot be read: no such file or directory",
        ),
        (
            ["train", "job.yaml", "--workers", "-1"],
            2,
            "'-1' is neither a whole number from 0 to 4096 nor auto",
        ),
        (["train", "job.yaml", "--worker", "1"], 2, "No such option"),
        (["trian", "job.yaml"], 2, "No such command"),
    ],
)
def test_mistakes_get_a_message_and_a_code(
    trained: Path, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    np.save(tmp_path / "wide.npy", np.zeros((4, 5)))
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    places = {"{run}": trained, "{tmp}": tmp_path, "{x}": tmp_path / "x.npy", "{wide}": tmp_path / "wide.npy"}

    def placed(word: str) -> str:
        for name, place in places.items():
            word = word.replace(name, str(place))
        return word

    result = run(*map(placed, words))
    assert message in result.stderr
    assert result.exit_code == code
    assert "Traceback" not in result.output


# Exit codes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (
            errors.JobError([errors.Fault("epochs", "is wrong")]),
            2,
            "job.yaml has 1 fault:\n  epochs: is wrong",
        ),
        (errors.SettingsError("X is bad"), 2, "error: X is bad"),
        (errors.DataError("a.npz: row 3 is bad"), 3, "error: a.npz: row 3 is bad"),
        (errors.HostileFileError("a.npz: claims too much"), 3, "claims too much"),
        (errors.ModelError("no model"), 3, "error: no model"),
        (
            errors.NumericsError(7, "layer 0", "gradient", "NaN"),
            4,
            "error: step 7: NaN in the gradient of layer 0",
        ),
        (errors.CheckpointError("none is left"), 5, "error: none is left"),
        (errors.StorageError("disk full"), 5, "error: disk full"),
        (errors.FingerprintError("another NumPy"), 6, "error: another NumPy"),
        (errors.WorkerLostError("worker 3 died"), 6, "error: worker 3 died"),
        (errors.Interrupted("runs/a", 5, "SIGINT"), 130, "stopped by SIGINT after step 5"),
        (errors.Interrupted("runs/a", 5, "SIGTERM"), 143, "stopped by SIGTERM after step 5"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (PermissionError(13, "Permission denied", "/runs"), 5, "error: /runs: permission denied"),
    ],
)
def test_every_error_has_its_exit_code(
    job: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, shown: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(training, "train", fail)
    result = run("train", job)
    assert result.exit_code == code
    assert shown in result.stderr
    assert "Traceback" not in result.output


def _all_errors(kind: type[errors.DistbpError]) -> list[type[errors.DistbpError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _all_errors(child))]


def test_every_error_that_distbp_raises_has_a_code_of_its_own() -> None:
    for kind in _all_errors(errors.DistbpError)[1:]:
        if kind.__module__.startswith("distbp."):
            error = kind.__new__(kind)
            error.signal_name = error.code = ""  # type: ignore[attr-defined]
            assert exit_code(error) in EXIT_CODES
            assert exit_code(error) > 1, kind


def test_an_internal_error_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("never thought of")

    monkeypatch.setattr(cli, "group", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    shown = capsys.readouterr().err
    assert "RuntimeError: never thought of" in shown
    assert shown.endswith("This is an error inside distbp. Please report it, with the lines above.\n")


@pytest.mark.parametrize(
    ("raised", "code", "shown"),
    [
        (click.Abort(), 130, "stopped by Ctrl-C"),
        (click.UsageError("no such thing"), 2, "no such thing"),
    ],
)
def test_main_ends_with_the_code_of_click(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: Exception,
    code: int,
    shown: str,
) -> None:
    def fail(**_: Any) -> None:
        raise raised

    monkeypatch.setattr(cli, "group", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert shown in capsys.readouterr().err


# Help --------------------------------------------------------------------------------------------------


def test_help_has_examples_and_exit_codes() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "distbp train job.yaml --workers 4 --output runs/first" in result.stdout
    for code, meaning in EXIT_CODES.items():
        assert f"{code:>3}  {meaning}" in result.stdout


@pytest.mark.parametrize("name", sorted(cli.group.commands))
def test_every_command_has_an_example(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert f"  distbp {name}" in result.stdout
    short = next(line for line in run("--help").stdout.splitlines() if line.startswith(f"  {name} "))
    assert not short.endswith("...")


# Imports -----------------------------------------------------------------------------------------------


def _said(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def _modules_after(statement: str) -> set[str]:
    said = _said(f"import sys; {statement}; print(' '.join(sys.modules))")
    return {name.split(".")[0] for name in said.split()}


@pytest.mark.parametrize("program", ["distbp.cli.main", "distbp_service.runner"])
def test_the_garbage_collector_does_not_delay_the_end(program: str) -> None:
    """It goes through no module again. What is registered first is called last."""
    code = f"import atexit, gc, sys; from {program} import main; sys.argv = ['', '--help']; "
    said = _said(code + "atexit.register(lambda: print(gc.get_freeze_count() > 0)); main()")
    assert said.endswith("True\n")


def test_the_command_line_starts_light() -> None:
    heavy = {"ray", "matplotlib", "sklearn", "numpy", "pydantic", "rich", "numba", "yaml"}
    assert not _modules_after("import distbp, distbp.cli.main") & heavy


def test_importing_distbp_never_imports_ray() -> None:
    names = ", ".join(name for name in distbp.__all__ if name != "__version__")
    loaded = _modules_after(f"from distbp import {names}")
    assert "numpy" in loaded
    assert not loaded & {"ray", "matplotlib", "sklearn"}


@pytest.mark.parametrize("name", distbp.__all__)
def test_every_public_name_exists_and_is_listed(name: str) -> None:
    assert getattr(distbp, name) is not None
    assert name in dir(distbp)
    assert "import_module" not in dir(distbp)


def test_an_unknown_public_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'distbp' has no attribute 'tain'; it has Control, "):
        _ = distbp.tain


STATUS = {
    "id": "job_1",
    "name": "prices",
    "state": "completed",
    "reason": None,
    "created_at": 0.0,
    "progress": {"step": 120, "total_steps": 240},
    "workers": None,
    "attempt": 1,
    "metrics": {"train_loss": 42156.0, "validation_rmse": 3.0, "validation_r2": -1.5},
    "model_id": "mdl_1",
    "result": {"model_epoch": 7},
    "attempts": [],
    "error": None,
}


def test_status_says_what_is_wrong_what_the_model_is_and_how_long_it_takes() -> None:
    lines = _described(
        {**STATUS, "unhealthy": {"diverged": "the loss ended high"}, "eta_s": 95.0}
    ).splitlines()
    assert lines[0] == "job_1  prices  completed"
    assert "  step                  120 of 240" in lines
    assert "  time left             1 min 35 s" in lines
    assert "  model of epoch        7" in lines
    assert lines[-1] == "  warning: the loss ended high"
    assert not any("time left" in line for line in _described(STATUS).splitlines())
    long = _described({**STATUS, "metrics": {"validation_kind.accuracy": 0.25, "test_r2": 0.5}}).splitlines()
    assert "  validation kind.accuracy  0.2500" in long and "  test r2                   0.5000" in long


def test_the_metric_of_a_list_is_the_one_that_says_most() -> None:
    assert _headline(STATUS) == "validation r2 -1.5000"
    assert _headline({"metrics": {"train_loss": 0.5, "validation_loss": 0.25}}) == "validation loss 0.2500"
    assert _headline({"metrics": None}) == ""


def test_an_autoencoder_is_evaluated_as_it_was_trained(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((30, 2, 3), dtype=np.float32))
    path = tmp_path / "auto.yaml"
    path.write_text(
        "data:\n  train: {format: npy, inputs: x.npy, rows: [0, 20]}\n"
        "  test: {format: npy, inputs: x.npy, rows: [20, 30]}\n  targets: inputs\n  standardize: true\n"
        "model: {layers: [flatten, {type: dense, units: 2}, {type: dense, units: 6}]}\n"
        "loss: mse\nepochs: 1\nbatch_size: 5\nworkers: 0\n"
    )
    assert run("train", path, "--output", tmp_path / "run").exit_code == 0
    trained = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["test_loss"]
    x = np.load(tmp_path / "x.npy")
    np.save(tmp_path / "new.npy", x[20:])
    np.savez(tmp_path / "new.npz", inputs=x[20:])
    source = f"{{format: npy, inputs: {tmp_path / 'x.npy'}, rows: [20, 30]}}"
    for data in ((), (source,), (tmp_path / "new.npy",), (tmp_path / "new.npz",)):
        found = run("evaluate", tmp_path / "run", *data, "--json")
        assert json.loads(found.stdout)["loss"] == pytest.approx(trained, rel=1e-6), found.output
    model = distbp.load_model(tmp_path / "run" / "model")
    for found in (model.evaluate(x[20:]), model.evaluate(x[20:], x[20:])):
        assert found["loss"] == pytest.approx(trained, rel=1e-6)
    with pytest.raises(errors.DataError, match=r"compares each row with itself, .*; leave y out"):
        model.evaluate(x[20:], x[:10])
