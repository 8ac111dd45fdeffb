"""Several networks of one job: members, which are averaged, and restarts, of which the best is kept."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rigs import DATA, STATEFUL_JOB, files_of, make_job

from distbp import TrainingJob, resume, train
from distbp.core.errors import CheckpointError, Interrupted, JobError, ModelError, NumericsError
from distbp.core.interrupts import Control
from distbp.job.members import member_job, seed_of
from distbp.model.archive import MODEL
from distbp.model.folder import load_model
from distbp.nn.losses import LOSSES
from distbp.run import events
from distbp.run.progress import plain_lines
from distbp.run.result import Result
from distbp.run.verify import verify_run

pytestmark = pytest.mark.usefixtures("numpy_kernels")
JOB, MEMBERS = STATEFUL_JOB, 3


@pytest.fixture(scope="module")
def whole(numpy_kernels: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(tmp_path_factory.mktemp("whole") / "run")


def run(path: Path, job: TrainingJob = JOB, **more: Any) -> Result:
    return train(job.replace(members=MEMBERS) if job is JOB else job, data=DATA, output=path, **more)


def test_network_0_is_the_job_without_members(whole: Result, tmp_path: Path) -> None:
    alone = train(JOB, data=DATA, output=tmp_path / "alone")
    first = Result.from_json(json.loads((whole.path / "members/0/result.json").read_text()))
    assert (first.params_sha256, first.metrics) == (alone.params_sha256, alone.metrics)
    lines = (whole.path / "members/0/metrics.jsonl").read_bytes()
    assert lines == (alone.path / "metrics.jsonl").read_bytes()
    assert len({one["params_sha256"] for one in whole.members}) == MEMBERS
    assert whole.members[0]["params_sha256"] == alone.params_sha256


def test_seeds_of_members() -> None:
    assert seed_of(7, 0) == 7
    assert seed_of(7, 1) == 770950368962019818  # part of the numerics
    seeds = {seed_of(seed, number) for seed in range(4) for number in range(1, 5)}
    assert len(seeds) == 16


@pytest.mark.parametrize("processors", ["1", "2", "4"])
def test_the_same_bits_side_by_side_and_one_after_the_other(
    processors: str, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTBP_PROCESSORS", processors)
    found = run(tmp_path / "run")
    assert found.params_sha256 == whole.params_sha256
    assert files_of(found.path) == files_of(whole.path)
    assert found.metrics == whole.metrics


@pytest.mark.parametrize(("processors", "stops"), [("1", 3), ("2", 1)])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    processors: str, stops: int, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTBP_PROCESSORS", processors)
    path = tmp_path / "run"
    for stop in range(stops):
        control, seen = Control(), 0

        def listen(event: events.Event, control: Control = control) -> None:
            nonlocal seen
            seen += isinstance(event, events.EpochEnded)
            if seen == 2:
                control.stop("the test")

        with pytest.raises(Interrupted, match=rf"Go on with: distbp resume {path}$"):
            if stop:
                resume(path, data=DATA, control=control, listener=listen)
            else:
                run(path, control=control, listener=listen)
    found = resume(path, data=DATA)
    assert files_of(found.path) == files_of(whole.path)
    assert found.metrics == whole.metrics


def test_a_run_killed_anywhere_is_what_its_members_left(whole: Result, tmp_path: Path) -> None:
    """A kill leaves some members done, one with checkpoints alone, others not begun; and no model. The newest
    checkpoint is damaged, too."""
    path = tmp_path / "run"
    shutil.copytree(whole.path, path)
    for name in ("result.json", "metrics.jsonl", "members/1/result.json", "members/1/metrics.jsonl"):
        text = (path / name).read_bytes()
        (path / name).unlink()
        if name == "members/1/metrics.jsonl":
            (path / name).write_bytes(text)
    shutil.rmtree(path / "model")
    shutil.rmtree(path / "members/1/model")
    shutil.rmtree(path / "members/2")
    newest = sorted((path / "members/1/checkpoints").iterdir())[-1]
    (newest / "state.safetensors").write_bytes(b"damaged")
    told: list[events.Event] = []
    assert files_of(resume(path, data=DATA, listener=told.append).path) == files_of(whole.path)
    aside = [event for event in told if isinstance(event, events.CheckpointSetAside)]
    assert [newest.name in event.path for event in aside] == [True]


def test_predictions_are_the_mean_of_the_members(whole: Result) -> None:
    model, x = whole.model(), DATA["test"][0]
    members = [load_model(whole.path / "members" / str(number) / "model") for number in range(MEMBERS)]
    mean = np.mean([one.predict_proba(x) for one in members], axis=0)
    np.testing.assert_allclose(model.predict_proba(x), mean, atol=1e-6)
    np.testing.assert_array_equal(model.predict(x), mean.argmax(axis=1))
    picked = mean[np.arange(len(x)), DATA["test"][1]]
    found = model.evaluate(*DATA["test"])
    assert found["loss"] == pytest.approx(-np.log(picked).mean(), abs=1e-5)
    assert found == {
        name.removeprefix("test_"): whole.metrics[name] for name in whole.metrics if "test" in name
    }
    assert model.score(*DATA["test"]) == found["accuracy"]
    assert "3 members" in model.summary()
    assert repr(model).startswith("<Model for classification: 5 to 3, 3 members of 80 parameters")
    assert whole.metrics["train_loss"] == pytest.approx(
        np.mean([one["metrics"]["train_loss"] for one in whole.members])
    )


def test_values_are_averaged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    job = make_job(({"type": "dense", "units": 1},), loss="mse", shards=1, epochs=1, members=2, batch_size=8)
    result = train(job, data=(x, x @ [1.0, 2.0]), output=tmp_path / "run")
    members = [load_model(tmp_path / "run/members" / str(number) / "model") for number in (0, 1)]
    mean = np.mean([one.predict(x) for one in members], axis=0)
    np.testing.assert_allclose(result.model().predict(x), mean, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "first"), [((3, 2), {"type": "gru", "units": 2}), ((1, 4, 4), {"type": "flatten"})], ids=str
)
def test_members_of_samples_of_several_axes(shape: tuple[int, ...], first: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, *shape))
    sets = {name: (x, x.reshape(20, -1)[:, 0]) for name in ("train", "test")}
    job = make_job((first, {"type": "dense", "units": 1}), loss="mse", shards=1, epochs=1, members=2)
    result = train(job, data=sets, output=tmp_path / "run")
    found = result.model().predict(x)
    assert result.metrics["test_loss"] == pytest.approx(np.mean((found - sets["test"][1]) ** 2), rel=1e-5)


@pytest.mark.parametrize("loss", [kind() for kind in LOSSES.values()], ids=lambda loss: loss.type)
def test_outputs_for_predictions(loss: Any) -> None:
    outputs = np.random.default_rng(1).normal(size=(6, 3)) * 8
    there = loss.predictions(np.abs(outputs) if loss.takes == "probabilities" else outputs)
    back = loss.outputs_for(there)
    np.testing.assert_allclose(loss.predictions(back), there, rtol=1e-9, atol=1e-15)
    edge = loss.outputs_for(np.array([[0.0, 1.0]]))
    assert np.isfinite(edge).all()


def test_what_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_PROCESSORS", "2")
    told: list[events.Event] = []
    text = io.StringIO()
    lines = plain_lines(text)

    def listen(event: events.Event) -> None:
        told.append(event)
        lines(event)

    result = run(tmp_path / "run", listener=listen)
    (started,) = [event for event in told if isinstance(event, events.Started)]
    assert (started.members, started.total_steps, started.run_dir) == (3, 75, str(tmp_path / "run"))
    assert [type(event) for event in told].count(events.Finished) == 1
    epochs = [event for event in told if isinstance(event, events.EpochEnded)]
    assert {event.member for event in epochs} == {0, 1, 2}
    rows = result.history.rows
    assert sorted(event.step for event in epochs) == [row["step"] for row in rows]
    assert [row["member"] for row in rows] == sorted(row["member"] for row in rows)
    steps = [event.step for event in told if isinstance(event, events.Progressed)]
    assert steps == sorted(steps)
    assert "job: 3 networks of 80 parameters, 3 shards, in this process" in text.getvalue()
    assert "note: 3 networks of different seeds are trained, 2 at a time" in text.getvalue()
    assert "\n  2:1 " in text.getvalue()


def test_a_member_that_fails_stops_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_PROCESSORS", "2")
    job = make_job(({"type": "dense", "units": 1},), loss="mse", members=4, epochs=40, batch_size=8, shards=1)
    x = np.random.default_rng(0).normal(size=(40, 2))
    job = job.replace(optimizer={"type": "sgd", "learning_rate": 1e30})
    with pytest.raises(NumericsError, match="step"):
        train(job, data=(x, x @ [1.0, 2.0]), output=tmp_path / "run")
    assert not (tmp_path / "run/result.json").exists()


def test_restarts_keep_the_best(whole: Result, tmp_path: Path) -> None:
    found = run(tmp_path / "run", JOB.replace(restarts=MEMBERS))
    losses = [one["metrics"]["validation_loss"] for one in found.members]
    best = int(np.argmin(losses))
    assert [one["params_sha256"] for one in found.members] == [one["params_sha256"] for one in whole.members]
    assert found.params_sha256 == found.members[best]["params_sha256"]
    assert found.metrics == found.members[best]["metrics"]
    assert any(
        note.startswith(f"network {best} is kept, the best by its validation loss") for note in found.notes
    )
    assert not found.model().others
    assert verify_run(found.path, data=DATA).equal
    assert resume(found.path, data=DATA) == found


def test_verify(whole: Result, tmp_path: Path) -> None:
    found = verify_run(whole.path, data=DATA)
    assert found.equal
    assert {one.where.split(":")[0] for one in found.comparisons} == {"network 0", "network 1", "network 2"}
    path = tmp_path / "run"
    shutil.copytree(whole.path, path)
    shutil.rmtree(path / "model")
    shutil.copytree(path / "members/1/model", path / "model")
    assert "model/ has params_sha256" in verify_run(path, data=DATA).changed[0]
    with pytest.raises(CheckpointError, match="but the networks give"):
        resume(path, data=DATA)
    done = json.loads((whole.path / "result.json").read_text())
    done["metrics"]["test_loss"] += 0.5
    shutil.rmtree(path / "model")
    shutil.copytree(whole.path / "model", path / "model")
    (path / "result.json").write_text(json.dumps(done))
    assert "result.json says test_loss" in verify_run(path, data=DATA).changed[0]


def test_more_epochs(tmp_path: Path) -> None:
    job = JOB.replace(early_stopping=None, epochs=2, members=2)
    long = run(tmp_path / "long", job.replace(epochs=4))
    run(tmp_path / "run", job)
    found = resume(tmp_path / "run", data=DATA, epochs=4)
    assert files_of(found.path) == files_of(long.path)


def test_members_that_stopped_early_do_not_go_on(whole: Result, tmp_path: Path) -> None:
    assert any(one["status"] == "stopped early" for one in whole.members)
    shutil.copytree(whole.path, tmp_path / "run")
    before = (tmp_path / "run/job.yaml").read_bytes()
    with pytest.raises(CheckpointError, match="the run stopped early at step"):
        resume(tmp_path / "run", data=DATA, epochs=50)
    assert (tmp_path / "run/job.yaml").read_bytes() == before


def test_one_of_both() -> None:
    with pytest.raises(JobError, match=r"restarts: keeps one network, and members \(2\) averages several"):
        JOB.replace(members=2, restarts=2)
    with pytest.raises(JobError, match="members: must be a whole number at least 1"):
        JOB.replace(members=0)


def test_the_digest_knows_several_networks_only() -> None:
    assert JOB.replace(members=1, restarts=1).digest == JOB.digest
    assert len({JOB.replace(members=2).digest, JOB.replace(restarts=2).digest, JOB.digest}) == 3
    assert member_job(JOB.replace(members=2), 0).digest == JOB.digest


def test_a_network_begins_with_one_model(whole: Result, tmp_path: Path) -> None:
    job = JOB.replace(init=str(whole.path))
    with pytest.raises(JobError, match="has 3 members, and a network begins with one"):
        run(tmp_path / "run", job)
    tuned = run(tmp_path / "tuned", job.replace(init=str(whole.path / "members/1"), members=2, epochs=1))
    assert (tuned.path / "members/1/init/model.json").is_file()


@pytest.mark.parametrize("members", [0, 101, "2", True, 2])
def test_a_folder_with_another_number_of_members(members: Any, whole: Result, tmp_path: Path) -> None:
    from distbp.core.sealed import sealed_json, unseal_json

    shutil.copytree(whole.path / "model", tmp_path / "model")
    content = unseal_json((tmp_path / "model" / MODEL).read_bytes())
    content["members"] = members
    (tmp_path / "model" / MODEL).write_bytes(sealed_json(content))
    with pytest.raises(ModelError, match=r"members is|tensor 'members\.2|bytes, which its layers"):
        load_model(tmp_path / "model")
