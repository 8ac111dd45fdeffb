"""Datasets in, checkpoints and models out."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_kit import JOB, Api, make_api, problem_of, streaming
from distbp_service.api import Limits
from distbp_service.store.disk import DiskQuota

import distbp

BYTES = {"Content-Type": "application/octet-stream"}


def archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


GOOD = archive(inputs=np.zeros((8, 2)), targets=np.arange(8) % 3)


def upload(api: Api, content: Any, token: str = "all", query: str = "") -> Any:
    return api.call("POST", f"/v1/datasets{query}", token, content=content, headers=BYTES)


def left(api: Api) -> list[str]:
    return sorted(path.name for path in (api.work / "datasets").iterdir() if path.name != ".lock")


def served(api: Api, run: Path) -> str:
    """The path that predicts with the model of a run, which a job has given to the service."""
    job_id = api.submit()
    job, token = api.start()
    shutil.copytree(run, api.work / job_id / "run")
    end = {"outcome": "completed", "model": {"path": f"{job_id}/run/model", "bytes": 1}}
    assert api.report(job, token, 1, end=end).status_code == 200
    return f"/v1/models/{api.call('GET', '/v1/models').json()['items'][0]['id']}:predict"


def test_a_dataset_is_known_by_its_hash(api: Api) -> None:
    async def pieces():  # type: ignore[no-untyped-def]
        for start in range(0, len(GOOD), 100):
            yield GOOD[start : start + 100]

    digest = hashlib.sha256(GOOD).hexdigest()
    answer = upload(api, pieces(), query=f"?name=eight&sha256={digest}")
    assert answer.status_code == 201
    found = answer.json()
    assert found["id"] == f"ds_{digest}" and found["name"] == "eight" and found["bytes"] == len(GOOD)
    assert found["info"] == {
        "rows": 8,
        "arrays": {
            "inputs": {"shape": [8, 2], "dtype": "float64"},
            "targets": {"shape": [8], "dtype": "int64"},
        },
    }
    assert upload(api, GOOD, query="?name=again").json()["name"] == "eight"
    assert left(api) == [f"ds_{digest}.npz"]
    assert (api.work / "datasets" / f"ds_{digest}.npz").read_bytes() == GOOD
    assert api.call("GET", f"/v1/datasets/{found['id']}").json() == found
    problem_of(api.call("GET", f"/v1/datasets/{found['id']}", "other"), 404)
    # Another project has the same bytes: one file, which stays until the last of them forgets it.
    assert upload(api, GOOD, "other").status_code == 201
    assert api.call("DELETE", f"/v1/datasets/{found['id']}").status_code == 204
    assert left(api) == [f"ds_{digest}.npz"]
    assert api.call("DELETE", f"/v1/datasets/{found['id']}", "other").status_code == 204
    assert left(api) == []


def test_a_job_uses_a_dataset_of_its_project_and_its_runner_fetches_it(api: Api) -> None:
    dataset = upload(api, GOOD).json()["id"]
    data = {"train": {"format": "npz", "path": f"dataset:{dataset}"}}
    fault = problem_of(api.call("POST", "/v1/jobs", "other", json={"job": {**JOB, "data": data}}), 422)
    assert fault["faults"][0] == {
        "path": "data.train.path",
        "message": f"there is no dataset {dataset}; upload it first",
    }
    job_id = api.submit(data=data)
    job, token = api.start()
    answer = api.call("GET", f"/v1/runner/jobs/{job_id}/datasets/{dataset}", token)
    assert answer.content == GOOD
    unnamed = upload(api, archive(inputs=np.ones((2, 2)))).json()["id"]
    problem_of(api.call("GET", f"/v1/runner/jobs/{job_id}/datasets/{unnamed}", token), 404)
    api.report(job, token, 1, end={"outcome": "failed", "error": {"code": "x", "message": "y"}})
    problem_of(api.call("GET", f"/v1/runner/jobs/{job_id}/datasets/{dataset}", token), 409, "fenced")


def test_uploads_that_are_not_what_they_say(api: Api) -> None:
    wrong = problem_of(upload(api, GOOD, query=f"?sha256={'0' * 64}"), 422)
    assert wrong["param"] == "sha256"
    for content, message in [
        (b"", "^the body is empty; send an .npz archive"),
        (
            b"not a zip",
            r"^the body is not an archive; send .* or a zip archive of the files of a table \(`zip -0 ",
        ),
        (GOOD[:-30], "not a sound .npz archive"),
        (GOOD.replace(b"\x93NUMPY", b"\x93NUMPX"), "not a .npy file|not a sound"),
        (archive(x=np.zeros(3)), "an array 'x'"),
        (archive(targets=np.zeros(3)), "no array 'inputs'"),
        (archive(inputs=np.zeros((3, 2)), targets=np.zeros(4)), "same number of rows"),
        (archive(inputs=np.float64(3)), "same number of rows"),
        (archive(inputs=np.array([{"a": 1}, None], dtype=object)), "object|pickle"),
        (archive(inputs=np.array(["a", "b"])), "numbers"),
    ]:
        body = problem_of(upload(api, content), 422)
        assert re.search(message, body["message"]), (message, body["message"])
        assert str(api.work) not in str(body)
    assert left(api) == []
    problem_of(api.call("POST", "/v1/datasets", content=GOOD), 415)
    for name in ("../x", "%00", "a" * 101, "%2e%2e%2fx"):
        problem_of(upload(api, GOOD, query=f"?name={name}"), 422)


def test_uploads_stay_within_the_limits(tmp_path: Path) -> None:
    api = make_api(tmp_path, Limits(dataset_bytes=50_000, disk=DiskQuota(60_000, 60_000), datasets=3))
    large = archive(inputs=np.random.default_rng(1).random((5000, 2)))
    problem_of(upload(api, large), 413, "too_large")
    half = [archive(inputs=np.full((2000, 2), float(n))) for n in range(2)]
    assert upload(api, half[0]).status_code == 201
    body = problem_of(upload(api, half[1]), 413, "too_large")
    assert "delete some" in body["message"]
    for n in range(2):
        assert upload(api, archive(inputs=np.full((2, 2), float(n)))).status_code == 201
    problem_of(upload(api, GOOD), 403, "forbidden")
    assert len(left(api)) == 3
    api.runner.close()
    api.store.close()


def test_what_a_killed_service_took_in_by_half_is_removed(api: Api) -> None:
    folder = api.work / "datasets"
    folder.mkdir()
    for name, age_s in ((".incoming-old", 3700), (".incoming-new", 3500)):
        (folder / name).write_bytes(GOOD)
        os.utime(folder / name, (time.time() - age_s,) * 2)
    assert upload(api, GOOD).status_code == 201
    assert sorted(path.name for path in folder.glob(".incoming-*")) == [".incoming-new"]


def test_an_upload_that_breaks_off_leaves_nothing(api: Api) -> None:
    async def send() -> None:
        async with streaming(api, "/v1/datasets", headers=BYTES, method="POST", body=GOOD[:500]) as stream:
            stream.gone.set()

    api.runner.run(send())
    assert left(api) == []
    assert api.app.state.service.uploads.taken == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory."""
    path = tmp_path_factory.mktemp("trained") / "run"
    distbp.train(distbp.TrainingJob.from_mapping({**JOB, "workers": 0}), output=path)
    return path


@pytest.fixture
def finished(api: Api, trained: Path) -> tuple[str, str]:
    """(job id, model id) of a job that ended with the files of `trained`."""
    job_id = api.submit()
    job, token = api.start()
    shutil.copytree(trained, api.work / job_id / "run")
    end = {"outcome": "completed", "model": {"path": f"{job_id}/run/model", "bytes": 1}}
    assert api.report(job, token, 1, end=end).status_code == 200
    return job_id, api.call("GET", "/v1/models").json()["items"][0]["id"]


def test_checkpoints(api: Api, finished: tuple[str, str]) -> None:
    job_id, _ = finished
    items = api.call("GET", f"/v1/jobs/{job_id}/checkpoints").json()["items"]
    assert items
    answer = api.call("GET", f"/v1/jobs/{job_id}/checkpoints/{items[-1]['step']}")
    assert len(answer.content) == items[-1]["bytes"]
    assert hashlib.sha256(answer.content).hexdigest() == items[-1]["sha256"]
    assert answer.headers["x-content-sha256"] == items[-1]["sha256"]
    assert answer.headers["repr-digest"].startswith("sha-256=:")
    for step in ("999", "-1", "x", "1" * 30, "%2e%2e"):
        problem_of(api.call("GET", f"/v1/jobs/{job_id}/checkpoints/{step}"), 404)


def test_links_on_the_work_volume_lead_nowhere(api: Api, finished: tuple[str, str], tmp_path: Path) -> None:
    job_id, model_id = finished
    secret = tmp_path / "secret"
    secret.write_text("secret")
    step = api.call("GET", f"/v1/jobs/{job_id}/checkpoints").json()["items"][-1]["step"]
    state = api.work / job_id / "run" / "checkpoints" / f"step-{step:08d}" / "state.safetensors"
    state.unlink()
    state.symlink_to(secret)
    problem_of(api.call("GET", f"/v1/jobs/{job_id}/checkpoints/{step}"), 404)
    weights = api.work / job_id / "run" / "model" / "weights.safetensors"
    weights.unlink()
    weights.symlink_to(secret)
    problem_of(api.call("GET", f"/v1/models/{model_id}/download"), 404)


def test_a_model_with_several_outputs_answers_with_all(api: Api, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    targets = {"targets.kind": np.where(x[:, 0] > 0, "yes", "no"), "targets.size": x[:, 1:]}
    sent = upload(api, archive(inputs=x, **targets))
    assert sent.status_code == 201 and set(sent.json()["info"]["arrays"]) == {"inputs", *targets}
    fields = {
        "data": {"targets": {"kind": "targets.kind", "size": "targets.size"}},
        "model": {
            "layers": [
                {"type": "dense", "units": 2, "name": "kind"},
                {"type": "dense", "units": 2, "inputs": ["input"], "name": "size"},
            ]
        },
        "loss": {"kind": "softmax_cross_entropy", "size": {"type": "mse", "factor": 0.5}},
        "epochs": 2,
    }
    source = {"format": "npz", "path": f"dataset:{sent.json()['id']}", **fields.pop("data")}
    submitted = api.call("POST", "/v1/jobs", json={"job": {**fields, "data": {"train": source}}})
    assert submitted.status_code == 202, submitted.text
    job, token = api.start()
    (tmp_path / "d.npz").write_bytes(archive(inputs=x, **targets))
    here = {"train": {**source, "path": "d.npz"}}
    made = distbp.TrainingJob.from_mapping({**fields, "data": here})
    distbp.train(made, folder=tmp_path, output=api.work / job.id / "run", workers=0)
    end = {"outcome": "completed", "model": {"path": f"{job.id}/run/model", "bytes": 1}}
    assert api.report(job, token, 1, end=end).status_code == 200
    path = f"/v1/models/{api.call('GET', '/v1/models').json()['items'][0]['id']}"
    found = api.call("POST", f"{path}:predict", json={"inputs": x[:2].tolist(), "probabilities": True}).json()
    model = distbp.load_model(api.work / job.id / "run" / "model")
    said, chances = model.predict(x[:2]), model.predict_proba(x[:2])
    assert found["predictions"] == [
        {"kind": said["kind"][row], "size": said["size"][row].tolist()} for row in range(2)
    ]
    assert found["probabilities"] == [{"kind": chances["kind"][row].tolist()} for row in range(2)]
    inputs = api.call("GET", f"{path}/inputs").json()
    assert inputs["task"] == "several" and inputs["classes"] == {"kind": ["no", "yes"], "size": None}


def test_a_model_is_downloaded_and_loads(api: Api, finished: tuple[str, str], tmp_path: Path) -> None:
    _, model_id = finished
    answers = [api.call("GET", f"/v1/models/{model_id}/download") for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[0].headers["content-length"] == str(len(answers[0].content))
    with tarfile.open(fileobj=io.BytesIO(answers[0].content)) as archive_:
        assert archive_.getnames() == ["model/model.json", "model/weights.safetensors"]
        for name in archive_.getnames():  # no `extractall`: its safe form came with Python 3.11.4
            member = archive_.extractfile(name)
            assert member is not None
            path = tmp_path / "got" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(member.read())
    x = np.array([[1.0, 2.0], [-3.0, 0.5]])
    expected = distbp.load_model(tmp_path / "got" / "model")
    body = {"inputs": x.tolist(), "probabilities": True}
    found = api.call("POST", f"/v1/models/{model_id}:predict", json=body).json()
    assert found["predictions"] == expected.predict(x).tolist()
    assert found["probabilities"] == expected.predict_proba(x).tolist()


def test_a_model_of_named_columns_and_classes(api: Api, tmp_path: Path) -> None:
    x, labels = np.array([[1.0, 2.0], [-3.0, 0.5]] * 4), np.array(["yes", "no"] * 4)
    np.savez(tmp_path / "t.npz", inputs=x, targets=labels, columns=np.array(["age", "pay"]))
    fields = {
        "data": {"train": {"format": "npz", "path": "t.npz", "columns": "columns"}},
        "model": {"layers": [{"type": "dense", "units": 2}]},
        "loss": "softmax_cross_entropy",
        "optimizer": {"type": "adam", "learning_rate": 0.1},
        "epochs": 20,
    }
    result = distbp.train(distbp.TrainingJob(**fields), folder=tmp_path, output=tmp_path / "run", workers=0)
    assert result.model().predict(x).tolist() == labels.tolist()
    path = served(api, tmp_path / "run")
    rows = [{"pay": 2.0, "age": 1.0}, {"pay": 0.5, "age": -3.0}]
    for inputs in (rows, x[:2].tolist()):
        assert api.call("POST", path, json={"inputs": inputs}).json()["predictions"] == ["yes", "no"]
    for inputs, said in (
        ([{"pay": 2.0}], "each row has no column 'age'; training had the columns 'age', 'pay'"),
        ([{"pay": 2.0, "age": 1, "x": 1}], "each row has a column 'x'"),
        ([rows[0], {"pay": 2.0}], "row 1 does not name the columns of row 0"),
        ([rows[0], [1.0, 2.0]], "row 1 does not name the columns of row 0"),
        (
            [rows[0], {"pay": None, "age": 2}],
            "row 1, column 'pay': null is not a number; give one, or leave out",
        ),
        ([[1.0, 2.0], rows[0]], "row 1 is {"),
        ([1.0, 2.0], 'row 0 is 1.0, and no list of numbers; send a list of rows, also for a single one: {"'),
        ([[1.0, 2.0], [1.0]], "row 1 has 1 numbers, and row 0 has 2; give as many in each"),
        ([[1.0, 2.0], ["a", 1]], 'row 1, place 0: "a" is not a number; give one, or leave out that row'),
        ([[True, False]], "row 0, place 0: true is not a number"),
        ([[1.0, 2.0], [1, [None]]], "row 1, place 1, 0: null is not a number"),
    ):
        assert said in problem_of(api.call("POST", path, json={"inputs": inputs}), 422)["message"]


@pytest.mark.heavy
def test_a_model_of_several_inputs_takes_them_by_name(api: Api, tmp_path: Path) -> None:
    layers = [
        {"type": "input", "name": "image", "shape": [1, 2, 2]},
        {"type": "input", "name": "series", "shape": [5000, 2], "ragged": True},
        {"type": "flatten", "inputs": ["image"], "name": "seen"},
        {"type": "gru", "units": 3, "inputs": ["series"], "name": "heard"},
        {"type": "concatenate", "inputs": ["seen", "heard"]},
        {"type": "dense", "units": 2},
    ]
    job = distbp.TrainingJob(model={"layers": layers}, loss="softmax_cross_entropy", epochs=2)
    x = {"image": np.ones((4, 1, 2, 2)), "series": [np.full((n, 2), 0.5) for n in (1, 3, 0, 2)]}
    expected = distbp.train(job, data=(x, [0, 1, 0, 1]), output=tmp_path / "run", workers=0).model()
    path = served(api, tmp_path / "run")
    image = [[[1.0, 2.0], [3.0, 4.0]]]
    rows = [{"image": image, "series": [[1.0, 2.0]]}, {"series": [], "image": image}]
    found = api.call("POST", path, json={"inputs": rows, "probabilities": True}).json()
    assert found["probabilities"] == expected.predict_proba(rows).tolist()
    for inputs, said in (
        ([{"image": image}], "has no input 'series'; the network's inputs are 'image', 'series'"),
        ([rows[0], {"image": image}], "row 1 names other inputs than row 0; name all in each"),
        ([rows[0], [1.0]], "row 1 names other inputs than row 0; name all in each"),
        ([{**rows[0], "image": [[1.0]]}], "input 'image': has the shape (1, 1, 1), but the layer takes"),
        ([[1.0]], "expected inputs of shape (rows, 10005), got (1, 1)"),
        ([1.0], "expected inputs of shape (rows, 10005), got (1,)"),
    ):
        assert said in problem_of(api.call("POST", path, json={"inputs": inputs}), 422)["message"]
    many = {"inputs": [{"image": image, "series": []}] * 4000}
    said = problem_of(api.call("POST", path, json=many), 413)["message"]
    assert said == "the rows would be too large, padded; send fewer rows"


def test_a_model_of_rows_with_lengths_takes_ragged_lists(api: Api, tmp_path: Path) -> None:
    x = [np.full((length, 2), 0.5) for length in (1, 3, 0, 2)]
    fields = {
        "model": {"layers": [{"type": "gru", "units": 3}, {"type": "dense", "units": 2}]},
        "loss": "softmax_cross_entropy",
        "epochs": 2,
    }
    job = distbp.TrainingJob(**fields)
    expected = distbp.train(job, data=(x, [0, 1, 0, 1]), output=tmp_path / "run", workers=0).model()
    path = served(api, tmp_path / "run")
    body = {"inputs": [[[1.0, 2.0]], [], [[0.0, -1.0]] * 3], "probabilities": True}
    found = api.call("POST", path, json=body).json()
    assert found["probabilities"] == expected.predict_proba(body["inputs"]).tolist()
    for inputs, said in (
        ([[[1.0, 2.0]] * 4], "row 0 has 4 steps, but the model takes at most 3"),
        ([[[1.0]], [[1.0, 2.0]]], "a step of row 1 has the shape (2,), but one of row 0 has (1,)"),
        ([[["a", 2.0]]], "row 0 is not an array of numbers"),
        ([[[None, 2.0]]], "row 0 is not an array of numbers"),
        ([1.0, 2.0], "row 0 is not an array of numbers"),
    ):
        assert said in problem_of(api.call("POST", path, json={"inputs": inputs}), 422)["message"]
    # One long row among many empty ones: padded, all would be as long.
    many = [[[1.0, 2.0]] * 4_000, *[[]] * 4_999]
    message = problem_of(api.call("POST", path, json={"inputs": many}), 413)["message"]
    assert message == "the rows would be too large, padded; send fewer rows"


def test_a_model_of_series_predicts_as_many_steps_as_each_has(api: Api, tmp_path: Path) -> None:
    x = [np.full((length, 2), 0.5) for length in (1, 3, 5, 2)]
    job = distbp.TrainingJob(
        data={"truncated_bptt_steps": 2},
        model={
            "layers": [
                {"type": "gru", "units": 3, "return_sequences": True},
                {"type": "dense_steps", "units": 2},
            ]
        },
        loss="softmax_cross_entropy",
        batch_size=2,
        epochs=1,
    )
    data = x, [np.arange(len(one)) % 2 for one in x]
    expected = distbp.train(job, data=data, output=tmp_path / "run", workers=0).model()
    path = served(api, tmp_path / "run")
    inputs = [[[1.0, 2.0]], [], [[0.0, -1.0]] * 3]
    found = api.call("POST", path, json={"inputs": inputs, "probabilities": True}).json()
    for name, answer in (("predictions", expected.predict), ("probabilities", expected.predict_proba)):
        own = [row[: len(given)].tolist() for row, given in zip(answer(inputs), inputs, strict=True)]
        assert found[name] == own


def test_labels_in_a_dataset_may_be_text(api: Api) -> None:
    named = archive(
        inputs=np.zeros((8, 2)), targets=np.array(["a", "b"] * 4), columns=np.array(["age", "pay"])
    )
    answer = upload(api, named)
    assert answer.status_code == 201
    assert answer.json()["info"]["rows"] == 8
    problem_of(upload(api, archive(inputs=np.array([["a", "b"]] * 8))), 422)


def test_inputs_that_do_not_fit(api: Api, finished: tuple[str, str]) -> None:
    _, model_id = finished
    for inputs in (
        [],
        [[1.0]],
        [1.0, 2.0],
        [[1.0, 2.0], [3.0]],
        [["1.0", "2.0"]],
        [[None, 1.0]],
        [[True, False]],
        [[10**300, 1]],
        [[{"a": 1}, 2]],
        [[[1.0], [2.0]]] * 2 + [[1.0]],
        [[1.0, 2.0]] * 10_001,
        [[1e308, 1e308]],
    ):
        problem_of(api.call("POST", f"/v1/models/{model_id}:predict", json={"inputs": inputs}), 422)
    problem_of(api.call("POST", f"/v1/models/{model_id}:predict", json={"inputs": {"a": 1}}), 422)


def test_a_damaged_model_predicts_nothing(api: Api, finished: tuple[str, str]) -> None:
    job_id, model_id = finished
    file = api.work / job_id / "run" / "model" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    answer = api.call("POST", f"/v1/models/{model_id}:predict", json={"inputs": [[1.0, 2.0]]})
    body = problem_of(answer, 409, "conflict")
    assert body["message"] == "the model's files are gone or damaged; train it again"
    assert api.call("DELETE", f"/v1/models/{model_id}").status_code == 204
    problem_of(api.call("GET", f"/v1/models/{model_id}"), 404)
