"""A finished run is trained further: to the bits of a run that was that long from the start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rigs import classes, make_job

from distbp import resume, train
from distbp.cli import main as cli
from distbp.core.errors import CheckpointError, DistbpError
from distbp.core.sealed import sealed_json, unseal_json
from distbp.run import events
from distbp.run.checkpoint import list_steps
from distbp.run.result import Result
from distbp.run.verify import verify_run

DATA = {"train": classes(70), "validation": classes(33, seed=1), "test": classes(20, seed=2)}
LAYERS = (
    {"type": "dense", "units": 7, "activation": "tanh"},
    {"type": "batch_normalization"},
    {"type": "dense", "units": 3},
)
PLATEAU = {
    "type": "reduce_on_plateau",
    "metric": "validation_loss",
    "patience": 0,
    "threshold": 0.2,
    "factor": 0.5,
}
JOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    # What was measured at the end was measured out of turn: patience and plateau must not count it.
    "evaluated seldom": {
        "evaluate_every": 2,
        "optimizer": {"type": "adam", "learning_rate": 0.05, "schedule": PLATEAU},
        "early_stopping": {"metric": "validation_loss", "patience": 6},
    },
    "in the middle of an epoch": {"max_steps": 13},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    yield


def job(epochs: int = 3, **fields: Any) -> Any:
    return make_job(LAYERS, **{"batch_size": 16, "epochs": epochs, **fields})


def assert_same(result: Result, whole: Result) -> None:
    assert result.params_sha256 == whole.params_sha256
    assert (result.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
    assert dict(result.metrics) == dict(whole.metrics)
    assert (result.job_digest, result.steps, result.status) == (whole.job_digest, whole.steps, whole.status)
    for name in ("weights.safetensors", "model.json"):
        assert (result.path / "model" / name).read_bytes() == (whole.path / "model" / name).read_bytes()


def edit(path: Path, old: str, new: str) -> None:
    text = (path / "job.yaml").read_text()
    assert old in text
    (path / "job.yaml").write_text(text.replace(old, new))


@pytest.mark.parametrize("name", JOBS)
def test_the_bits_of_one_long_run(tmp_path: Path, name: str) -> None:
    fields = JOBS[name]
    longer = {**fields, "max_steps": 35} if "max_steps" in fields else fields
    whole = train(job(7, **longer), data=DATA, output=tmp_path / "whole")
    run = tmp_path / "run"
    first = train(job(3, **fields), data=DATA, output=run)
    assert first.steps < whole.steps
    if "max_steps" in fields:  # only by hand
        edit(run, "max_steps: 13", "max_steps: 35")
    told: list[events.Event] = []
    result = resume(run, data=DATA, epochs=7, listener=told.append)
    began = next(event for event in told if not isinstance(event, events.Waiting))
    assert isinstance(began, events.Started)
    assert (began.first_step, began.notes) == (first.steps, ())
    assert_same(result, whole)
    assert resume(run) == result  # and is a finished run again
    assert verify_run(run, data=DATA).equal


def test_epochs_raised_in_job_yaml(tmp_path: Path) -> None:
    whole = train(job(5), data=DATA, output=tmp_path / "whole")
    run = tmp_path / "run"
    train(job(3), data=DATA, output=run)
    edit(run, "epochs: 3", "epochs: 5")
    assert_same(resume(run, data=DATA), whole)


def test_killed_while_it_goes_on(tmp_path: Path) -> None:
    """The result of the shorter run is no longer that of the run."""
    whole = train(job(6), data=DATA, output=tmp_path / "whole")
    run = tmp_path / "run"
    train(job(3), data=DATA, output=run)

    def listener(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded):
            raise KeyboardInterrupt  # as good as killed: nothing is saved

    with pytest.raises(KeyboardInterrupt):
        resume(run, data=DATA, epochs=6, listener=listener)
    assert not (run / "result.json").exists()
    assert "epochs: 6" in (run / "job.yaml").read_text()
    assert_same(resume(run, data=DATA), whole)


def test_fewer_epochs_than_are_done(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = train(job(3), data=DATA, output=run)
    with pytest.raises(CheckpointError) as caught:
        resume(run, data=DATA, epochs=2)
    assert str(caught.value) == (
        "job.yaml says 2 epochs (epochs: 2), but 3 are done. Give more, or train in a fresh directory"
    )
    assert resume(run) == first  # nothing was changed
    assert resume(run, epochs=3) == first


def test_max_steps_still_counts(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(job(3, max_steps=13), data=DATA, output=run)
    assert resume(run, data=DATA, epochs=9).steps == 13


def test_a_run_that_stopped_early_says_so(tmp_path: Path) -> None:
    stopping = {"metric": "train_loss", "patience": 1, "min_delta": 100.0}
    run = tmp_path / "run"
    first = train(job(9, early_stopping=stopping), data=DATA, output=run)
    assert first.status == "stopped early"
    with pytest.raises(CheckpointError, match=r"stopped early at step 10, .* start a job with init: RUN_DIR"):
        resume(run, data=DATA, epochs=20)
    assert resume(run) == first


def test_a_schedule_that_depends_on_the_length_is_named(tmp_path: Path) -> None:
    optimizer = {"type": "sgd", "learning_rate": 0.1, "schedule": {"type": "cosine"}}
    run = tmp_path / "run"
    train(job(3, optimizer=optimizer), data=DATA, output=run)
    result = resume(run, data=DATA, epochs=5)
    (note,) = result.notes
    assert note == (
        "the schedule 'cosine' depends on the length of training: the first 15 steps had the rates of"
        " epochs: 3, so this is not what epochs: 5 at once would have given"
    )
    assert result.steps == 25


@pytest.mark.parametrize(
    ("rate", "named"), [(0.3, ["the weight decay", "dropout"]), (0.0, ["the weight decay"])]
)
def test_schedules_of_decay_and_dropout_are_named_where_they_differ(
    tmp_path: Path, rate: float, named: list[str]
) -> None:
    dropout = {"type": "dropout", "rate": rate, "schedule": "flat_cosine"}
    fields = {
        "batch_size": 16,
        "optimizer": {"type": "adamw", "learning_rate": 0.05, "decay_schedule": "flat_cosine"},
    }
    train(make_job([LAYERS[0], dropout, LAYERS[2]], **fields, epochs=3), data=DATA, output=tmp_path / "run")
    assert list(resume(tmp_path / "run", data=DATA, epochs=5).notes) == [
        f"the schedule of {what} depends on the length of training: the"
        " first 15 steps had the rates of epochs: 3, so this is not what epochs: 5 at once would have given"
        for what in named
    ]


def test_another_field_is_not_changed_with_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(job(3), data=DATA, output=run)
    edit(run, "seed: 5", "seed: 6")
    with pytest.raises(CheckpointError, match=r"the job: seed was 5, and is 6 in job\.yaml"):
        resume(run, data=DATA, epochs=5)
    assert "epochs: 3" in (run / "job.yaml").read_text()


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "{data: {train: {format: blobs, samples: 100}}, model: {layers: [{type: dense, units: 3}]},"
        " loss: softmax_cross_entropy, epochs: 2, workers: 0}"
    )

    def run(*words: str | Path) -> Any:
        return CliRunner().invoke(cli.group, [str(word) for word in words])

    folder = tmp_path / "run"
    assert run("train", tmp_path / "job.yaml", "--output", folder).exit_code == 0
    more = run("resume", folder, "--epochs", 4)
    assert more.exit_code == 0, more.output
    assert re.search("going on from step 8", more.output)
    assert "completed: 16 steps (4 epochs)" in more.output
    refused = run("resume", "job_01j9ze3k8xq2v5w7y0ab", "--epochs", 4)
    assert "--epochs is for runs; to train the model of a job further" in refused.output


# What a run delivered --------------------------------------------------------------------------------


def swap_model(run: Path, other: Path) -> None:
    (run / "model").rename(run.parent / "old-model")
    (other / "model").rename(run / "model")


CHANGES: dict[str, tuple[Any, str]] = {
    "another run's model": (
        swap_model,
        r"model/ belongs to another job.*model/ has params_sha256 \w+, but the run computed",
    ),
    "no model": (
        lambda run, other: (run / "model").rename(run.parent / "gone"),
        "does not exist; give the model folder",
    ),
    "a forged digest": (
        lambda run, other: forge(run, r'"params_sha256": "\w{4}', '"params_sha256": "0000'),
        r"result\.json has params_sha256 0000\w+, but the run computed \w+",
    ),
    "a forged metric": (
        lambda run, other: forge(run, r'"validation_loss": [\d.]+', '"validation_loss": 0.001'),
        r"result\.json says validation_loss: 0\.001, but \d\.\d+ was measured",
    ),
    "another job's digest": (
        lambda run, other: forge(run, r'"job_digest": "\w{4}', '"job_digest": "0000'),
        r"result\.json belongs to another job: its digest is 0000",
    ),
    "fewer steps": (
        lambda run, other: forge(run, r'"steps": 15', '"steps": 14'),
        r"result\.json says 14 steps, but 15 were trained",
    ),
    "no number": (
        lambda run, other: forge(run, r'"wall_seconds": [^,]+,', ""),
        r"result\.json has other fields than distbp writes: wall_seconds",
    ),
    "no JSON": (
        lambda run, other: (run / "result.json").write_text("[]x"),
        r"result\.json is not what distbp wrote",
    ),
    "metrics": (
        lambda run, other: forge(run, r'"epoch": 2', '"epoch": 3', "metrics.jsonl"),
        r"metrics\.jsonl is not what it was",
    ),
    "more metrics": (
        lambda run, other: forge(run, r"\Z", "{}\n", "metrics.jsonl"),
        r"metrics\.jsonl is not what it was",
    ),
}


def forge(run: Path, old: str, new: str, name: str = "result.json") -> None:
    text = (run / name).read_text()
    assert re.search(old, text)
    (run / name).write_text(re.sub(old, new, text, count=1))


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_run_delivered_is_compared(tmp_path: Path, name: str) -> None:
    change, message = CHANGES[name]
    run = tmp_path / "run"
    train(job(3), data=DATA, output=run)
    train(job(3, seed=9), data=DATA, output=tmp_path / "other")
    assert verify_run(run, data=DATA).equal
    change(run, tmp_path / "other")
    with pytest.raises(CheckpointError) as caught:
        resume(run)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)
    if name in ("no JSON",):
        with pytest.raises(CheckpointError, match=message):
            verify_run(run, data=DATA)
        return
    found = verify_run(run, data=DATA)
    assert not found.equal
    assert re.search(message, "\n".join(found.changed), re.DOTALL)


def test_a_forged_test_metric_is_seen_by_verify(tmp_path: Path) -> None:
    """The last checkpoint does not know it; it is measured again."""
    run = tmp_path / "run"
    train(job(3), data=DATA, output=run)
    forge(run, r'"test_accuracy": [\d.]+', '"test_accuracy": 1.5')
    (change,) = verify_run(run, data=DATA).changed
    assert change.startswith("result.json says test_accuracy: 1.5, but 0.")


def test_a_model_with_other_words_is_seen_by_verify(tmp_path: Path) -> None:
    """With a digest that is right again, as an attacker would."""
    run = tmp_path / "run"
    train(job(3), data=DATA, output=run)
    content = unseal_json((run / "model/model.json").read_bytes())
    content["preprocessing"]["scale"] = 2.0
    (run / "model/model.json").write_bytes(sealed_json(content))
    assert verify_run(run, data=DATA).changed == (
        "model/model.json: preprocessing is not what job and data give",
    )


def test_other_data_are_named_by_verify(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(job(3), data=DATA, output=run)
    x, y = DATA["validation"]
    found = verify_run(run, data={**DATA, "validation": (x, y[::-1])})
    assert "the targets of the validation data are not what they were" in found.changed


def test_without_the_result_it_is_written_again(tmp_path: Path) -> None:
    """As the message says."""
    run = tmp_path / "run"
    first = train(job(3, early_stopping={"metric": "validation_loss"}), data=DATA, output=run)
    (run / "model").rename(tmp_path / "gone")
    (run / "result.json").unlink()
    again = resume(run, data=DATA)
    assert (again.params_sha256, dict(again.metrics)) == (first.params_sha256, dict(first.metrics))
    assert list_steps(run / "checkpoints")[-1] == 15


# Where things lie ----------------------------------------------------------------------------------------


def test_a_run_stays_in_one_place_when_its_caller_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def listener(event: events.Event) -> None:
        monkeypatch.chdir(tmp_path / "there")

    result = train(job(3, checkpoint={"every_steps": 1}), data=DATA, output="run", listener=listener)
    assert result.path == tmp_path / "here/run"
    assert not list((tmp_path / "there").iterdir())
    assert result.model().facts["params_sha256"] == result.params_sha256
    monkeypatch.chdir(tmp_path / "here")
    assert resume("run", data=DATA, epochs=4, listener=listener).path == tmp_path / "here/run"
    assert not list((tmp_path / "there").iterdir())


FILES = """
data: {train: {format: npz, path: data/train.npz}, test: {format: npz, path: data/train.npz}}
model: {layers: [{type: dense, units: 3}]}
loss: softmax_cross_entropy
epochs: 2
workers: 0
"""


def test_a_project_that_was_moved(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    x, y = DATA["train"]
    np.savez(project / "data/train.npz", inputs=x, targets=y)
    (project / "job.yaml").write_text(FILES)

    def run(*words: str | Path) -> Any:
        return CliRunner().invoke(cli.group, [str(word) for word in words])

    assert run("train", project / "job.yaml", "--output", project / "runs/first").exit_code == 0
    project.rename(tmp_path / "moved")
    moved = tmp_path / "moved/runs/first"
    for words in (
        ["resume", moved, "--epochs", 3],
        ["verify", moved],
        ["evaluate", moved],
        ["predict", moved],
    ):
        found = run(*words)
        assert found.exit_code == 0, found.output
    (tmp_path / "moved/data").rename(tmp_path / "data")
    missing = f"data/train.npz: there is no such file in {tmp_path / 'moved'};"
    with pytest.raises(DistbpError, match=re.escape(missing)):
        resume(moved, epochs=4)
