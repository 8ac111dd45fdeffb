"""The commands for a service, against a real one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from served import QUICK, Served, environment

import distbp
from distbp.cli import main as cli
from distbp.client import settings_file
from distbp.client.service import connect
from distbp.core import settings

JOB = """
name: blobs
data:
  train: {format: npz, path: train.npz}
model:
  layers: [{type: dense, units: 3}]
loss: softmax_cross_entropy
optimizer: {type: sgd, learning_rate: 0.1}
batch_size: 20
epochs: 3
workers: 0
"""


@pytest.fixture(autouse=True)
def client(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find the service by what it wrote down, as a user's do."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, served.environment[name])


@pytest.fixture
def job(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "train.npz", inputs=rng.normal(size=(60, 4)), targets=rng.integers(0, 3, 60))
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def run(*words: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(cli.group, [str(word) for word in words])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_job_from_submit_to_predict(served: Served, job: Path, tmp_path: Path) -> None:
    """A file of this machine is uploaded; the weights are those of a local run."""
    done = run("submit", job, "--wait")
    job_id = done.stdout.splitlines()[0]
    assert re.fullmatch(r"job_\w{20}", job_id)
    assert "queued" in done.stdout and "\n    3  " in done.stdout
    assert f"`distbp models get {job_id} DIR` fetches it" in done.stdout
    with settings.environment(QUICK):
        local = distbp.train(distbp.TrainingJob.from_file(job), folder=tmp_path, output=tmp_path / "run")
    assert local.params_sha256 in done.stdout

    assert run("submit", job, "--key", "once", "--json").stdout  # again: what it uploads is there already
    again = [objects(run("submit", job, "--key", "once", "--json").stdout)[0]["id"] for _ in range(2)]
    assert again[0] == again[1]
    listed = objects(run("list", "--name", "blobs", "--json").stdout)
    assert [one["id"] for one in listed[:2]] == [again[0], job_id]
    sent = objects(run("datasets", "--json").stdout)
    assert [one["name"] for one in sent].count("blobs train") == 1
    assert "blobs train" in run("datasets").stdout

    lines = run("logs", job_id).stdout.splitlines()
    assert all(re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  \S", line) for line in lines)
    assert any("  epoch 3, step 9: train_loss" in line for line in lines)
    assert run("logs", "-f", job_id).stdout == run("logs", job_id).stdout
    status = json.loads(run("status", job_id, "--json").stdout)
    assert status["state"] == "completed"
    assert f"{job_id}  blobs  completed" in run("status", job_id).stdout

    folder = tmp_path / "model"
    assert run("models", "get", job_id, folder).stdout == f"the model is in {folder}\n"
    assert distbp.load_model(folder).facts["params_sha256"] == local.params_sha256
    assert run("predict", folder, tmp_path / "train.npz").stdout.count("\n") == 61
    again_there = run("models", "get", status["model_id"], folder, code=3)
    assert again_there.stderr == (
        f"error: {folder} exists and is not empty; name a folder that is absent or empty\n"
    )
    assert status["model_id"] in run("models").stdout
    assert run("models", "delete", status["model_id"]).stdout == f"{status['model_id']} deleted\n"
    assert status["model_id"] not in run("models", "--json").stdout


def test_json_lines_while_it_trains(job: Path) -> None:
    told = objects(run("submit", job, "--wait", "--json").stdout)
    assert told[0] == {"event": "state_changed", "state": "queued", "reason": "submitted", "attempt": 0}
    assert [one["epoch"] for one in told if one["event"] == "epoch_ended"] == [1, 2, 3]
    assert told[-1]["event"] == "finished" and told[-1]["result"]["status"] == "completed"


def test_pause_scale_resume_cancel(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(
        JOB.replace("path: train.npz", "path: x").replace("{format: npz, path: x}", "{format: blobs}")
    )
    path.write_text(path.read_text().replace("epochs: 3", "epochs: 100000").replace("blobs\n", "long\n", 1))
    job_id = run("submit", path).stdout.strip()
    with connect() as service:
        handle = service.job(job_id)
        for event in handle.events(follow=True):
            if event["kind"] == "epoch_ended":
                break
        assert run("status", job_id).stdout.startswith(f"{job_id}  long  running")
        assert run("pause", "last").stdout in (f"{job_id} pausing\n", f"{job_id} paused\n")
        for event in handle.events(follow=True):
            if event["kind"] == "state" and event["data"]["to"] == "paused":
                break
        assert run("status", job_id).stdout.startswith(f"{job_id}  long  paused")
        assert run("scale", job_id, "--workers", "0").stdout.startswith(f"{job_id}: asked for 0 workers")
        assert run("resume", job_id).stdout.startswith(job_id)
        assert (
            f"{job_id}  long"
            in run("list", "--state", "queued", "--state", "starting", "--state", "running").stdout
        )
        run("cancel", job_id)
        with pytest.raises(distbp.DistbpError, match=rf"^{job_id} was cancelled"):
            handle.wait()
    done = run("status", "--wait", job_id, code=9)
    assert done.stderr.startswith(f"error: {job_id} was cancelled")
    assert run("pause", job_id, code=8).stderr == (
        "error: the job has ended (cancelled) and cannot be paused\n"
    )


def test_compare(job: Path) -> None:
    other = job.with_name("other.yaml")
    other.write_text(JOB.replace("learning_rate: 0.1", "learning_rate: 0.5"))
    ids = [run("submit", path, "--wait").stdout.splitlines()[0] for path in (job, other)]
    rows = {line.split("  ")[0]: line for line in run("compare", *ids).stdout.splitlines()}
    assert rows["optimizer.learning_rate"].split()[1:] == ["0.1000", "0.5000"]
    assert rows["state"].split()[1:] == ["completed", "completed"]
    assert "batch_size" not in rows
    assert "train loss" in rows
    found = json.loads(run("compare", *ids, "--json").stdout)["jobs"]
    assert [len(one["curves"]["train_loss"]) for one in found] == [3, 3]
    assert "name two jobs or more" in run("compare", ids[0], code=2).stderr


def test_a_job_that_fails_ends_with_the_code_of_its_error(job: Path) -> None:
    wide = JOB.replace("layers: [", "layers: [{type: dense, units: 8}, ")
    job.write_text(wide.replace("learning_rate: 0.1", "learning_rate: 1.0e+30"))
    done = run("submit", job, "--wait", code=4)
    assert re.search(r"^error: job_\w+ failed: step \d+: (NaN|Inf|infinity)", done.stderr, re.MULTILINE)
    assert "weights" not in done.stdout


def test_every_fault_at_once_as_validate_names_them(job: Path) -> None:
    job.write_text(JOB.replace("epochs: 3", "epochs: 0").replace("units: 3", "unit: 3"))
    local = run("validate", job, code=2)
    assert run("submit", job, code=2).stderr == local.stderr
    job.write_text(JOB.replace("units: 3", "units: 2"))  # what only the data shows, before it is sent
    assert run("submit", job, code=2).stderr == run("validate", job, code=2).stderr
    job.write_text(JOB.replace("train.npz", "nowhere.npz"))
    assert run("submit", job, code=2).stderr == (
        f"error: {job} has 1 fault:\n  data.train.path: names a file, and this service reads none; upload the"
        " data as a dataset\n"
    )


def test_datasets_by_hand(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 2), np.float32))
    np.save(tmp_path / "y.npy", np.arange(5))
    files = tmp_path / "x.npy", tmp_path / "y.npy"
    made = run("datasets", "upload", *files, "--name", "wine").stdout.strip()
    assert re.fullmatch(r"ds_[0-9a-f]{64}", made)
    assert run("datasets", "upload", *files).stdout.strip() == made
    assert re.search(rf"^{made}  wine +5 ", run("datasets").stdout, re.MULTILINE)
    assert run("datasets", "delete", made).stdout == f"{made} deleted\n"
    assert run("datasets", "delete", made, code=8).stderr == f"error: there is no dataset {made}\n"


def test_tokens(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("token", "create", "--name", "ci", "--scope", "read", "--days", "2")
    secret = made.stdout.strip()
    assert re.fullmatch(r"(\w+) of project main \(read\); it is shown this once\n", made.stderr)
    token_id = made.stderr.split()[0]
    assert re.search(
        rf"^{token_id}  ci +read +good until 20\d\d-\d\d-\d\d  never$",
        run("token", "list").stdout,
        re.MULTILINE,
    )
    monkeypatch.setenv("DISTBP_TOKEN", secret)
    assert "(read)" in run("status").stdout
    assert run("token", "list", code=8).stderr == (
        "error: this token may not do that; it needs the scope 'admin'\n"
    )
    monkeypatch.delenv("DISTBP_TOKEN")
    assert run("token", "revoke", token_id).stdout == f"{token_id} revoked\n"
    assert re.search(rf"^{token_id}  ci .*revoked", run("token", "list").stdout, re.MULTILINE)
    monkeypatch.setenv("DISTBP_TOKEN", secret)
    assert run("list", code=8).stderr == (
        "error: this token opens nothing: it is wrong, revoked or expired. Set DISTBP_TOKEN to one that does"
        " (`distbp token create` makes them)\n"
    )
    other = run("token", "create", "--project", "vision", "--scope", "admin", "--data", served.home)
    monkeypatch.setenv("DISTBP_TOKEN", other.stdout.strip())
    assert "project     vision" in run("status").stdout
    assert run("list").stdout == "no jobs\n"
    assert "there are no jobs yet; submit one" in run("status", "last", code=2).stderr
    assert run("models").stdout == "no models\n"
    assert run("datasets").stdout == "no datasets\n"


def test_no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Path) -> None:
    for name, value in environment(tmp_path).items():
        if name.startswith("XDG_"):
            monkeypatch.setenv(name, value)
    assert run("submit", job, code=8).stderr == (
        "error: no service found: start one with `distbp serve`, or set DISTBP_URL (and DISTBP_TOKEN) to"
        " one that runs\n"
    )
    monkeypatch.setenv("DISTBP_URL", "http://127.0.0.1:1")
    assert run("list", code=8).stderr == (
        "error: no service answers at http://127.0.0.1:1. Start one with `distbp serve`, or set DISTBP_URL to"
        " where one is\n"
    )
    monkeypatch.setenv("DISTBP_URL", "http://no.such.host.invalid")
    assert run("list", code=8).stderr == (
        "error: the name of the host in http://no.such.host.invalid is not known here; set DISTBP_URL to"
        " where the service is\n"
    )
    for token in ("dbp_\u00e9", "Bearer dbp_x", "dbp_a\ndbp_b"):  # the last would be two lines of a request
        monkeypatch.setenv("DISTBP_TOKEN", token)
        assert run("list", code=2).stderr == (
            "error: DISTBP_TOKEN is not a token: it is one word, as dbp_..., as `distbp token create` printed"
            " it\n"
        )
    monkeypatch.delenv("DISTBP_TOKEN")
    assert run("list", "--url", "ftp://x", code=2).stderr == (
        "error: the address given is not a service's address ('ftp://x'); it looks like http://host:8470\n"
    )
    for days in ("nan", "inf", "0", "-1", "1e9"):
        said = run("token", "create", "--days", days, code=2).stderr
        assert said.endswith(f"'--days': {float(days):g} is not more than 0 and at most 36,500\n")
    noted = settings_file.file_path()
    noted.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.delenv("DISTBP_URL")
    for content in ('{"url": 3, "token": null}', '{"url": "http://127.0.0.1:1", "token": 3}', "[]", ""):
        noted.write_text(content)
        assert run("list", code=2).stderr == (
            f"error: {noted} cannot be read; remove it, and start `distbp serve` again or set DISTBP_URL and"
            " DISTBP_TOKEN\n"
        )
    noted.unlink()
    said = run("token", "create", "--project", "vision", code=2).stderr
    assert said == (
        f"error: {tmp_path / 'data' / 'distbp'} is not a service's folder: it holds no distbp.db. Name the"
        " one given to `distbp serve` with --data, or its database with --database\n"
    )


def test_what_is_no_id() -> None:
    assert (
        "'foo' is not a job id; ids look like job_01j9ze3k8xq2v5w7y0ab" in run("logs", "foo", code=2).stderr
    )
    assert "'job_nope' is not a job id; ids look like" in run("status", "job_nope", code=2).stderr
    for kind, word, which in (
        ("models", "a model id; ids look like mdl_", "../x"),
        ("datasets", "a dataset id; ids are ds_ and 64 ", "ds_0"),
    ):
        said = run(kind, "delete", which, code=2).stderr
        assert f"{which!r} is not {word}" in said
        assert f"`distbp {kind}` shows them" in said
    assert "'nope' is not a token id; one is 0643b89eca4d." in run("token", "revoke", "nope", code=2).stderr
    wanted = "--workers and --address are for runs; a job is scaled with `distbp scale`"
    assert wanted in run("resume", "job_1", "--workers", "2", code=2).stderr
