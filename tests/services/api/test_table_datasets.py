"""Datasets that are tables: taken in, named by jobs, handed to runners."""

from __future__ import annotations

import hashlib
import io
import socket
import zipfile
from pathlib import Path
from typing import Any

import pytest
from api_kit import JOB, Api, make_api, problem_of
from test_data_and_models import GOOD, left, upload

from distbp.core import settings

TABLE = {**JOB, "model": {"layers": [{"type": "dense", "units": 1}]}, "loss": "mse"}


def zipped(files: dict[str, str], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return out.getvalue()


TWO = zipped({"parts/b.csv": "x,y\n1,2\n", "parts/a.csv": "x,y\n3,4\n"})


def faults(api: Api, path: str, format_: str = "table", **fields: Any) -> list[str]:
    data = {"train": {"format": format_, "path": path}, **fields}
    if format_ == "table":
        data["target"] = "y"
    answer = api.call("POST", "/v1/jobs:validate", json={"job": {**TABLE, "data": data}})
    return [] if answer.status_code == 200 else [f["message"] for f in problem_of(answer, 422)["faults"]]


def test_a_table_is_known_by_its_hash_and_its_runner_fetches_it(api: Api) -> None:
    answer = upload(api, TWO, query="?name=two")
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert found["id"] == f"ds_{hashlib.sha256(TWO).hexdigest()}"
    assert found["info"] == {"files": 2, "names": ["parts/a.csv", "parts/b.csv"]}
    assert upload(api, TWO, query="?name=again").json()["name"] == "two"
    dataset = f"dataset:{found['id']}"
    assert faults(api, f"{dataset}/parts/*.csv") == []
    train = {"format": "table", "path": f"{dataset}/parts"}
    job_id = api.submit(**{**TABLE, "data": {"train": train, "target": "y"}})
    _, token = api.start()
    assert api.call("GET", f"/v1/runner/jobs/{job_id}/datasets/{found['id']}", token).content == TWO
    assert api.call("DELETE", f"/v1/datasets/{found['id']}").status_code == 204
    assert left(api) == []


def test_a_job_names_what_is_in_a_dataset(api: Api) -> None:
    table, arrays = (f"dataset:{upload(api, content).json()['id']}" for content in (TWO, GOOD))
    for inner in ("", "/parts", "/parts/a.csv", "/parts/*", "/*/b.csv", "/**/*"):
        assert faults(api, table + inner) == [], inner
    assert faults(api, f"{table}/parts/c.csv") == [
        "the dataset has no file 'parts/c.csv'; it has parts/a.csv, parts/b.csv"
    ]
    assert faults(api, f"{table}/part") == ["the dataset has no file 'part'; it has parts/a.csv, parts/b.csv"]
    for inner in ("/../x.csv", "//etc/passwd", "/parts/../../*"):
        (said,) = faults(api, table + inner)
        assert said.startswith("'..' is not allowed in a data path")
    assert faults(api, table, "npz") == [
        "is an uploaded dataset of files of a table, so the format is 'table', not 'npz'"
    ]
    assert faults(api, arrays) == ["is an uploaded dataset of arrays, so the format is 'npz', not 'table'"]
    assert faults(api, f"{arrays}/x", "npz") == [
        "is an uploaded dataset of arrays, which has no files: end the path after its id"
    ]
    problem = api.call("POST", "/v1/jobs", "other", json={"job": {**TABLE, "data": {
        "train": {"format": "table", "path": table}, "target": "y"}}})  # fmt: skip
    assert "there is no dataset" in problem_of(problem, 422)["faults"][0]["message"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped({"a.csv": "x\n1\n" * 99}, zipfile.ZIP_DEFLATED), "the dataset: the entry 'a.csv' is packed"),
        (zipped({"../a.csv": "x"}), "points outside of it"),
        (zipped({"a.csv": "x", "inputs.npy": "y"}), "the entry 'a.csv' is not an array"),
        (TWO.replace(b"3,4", b"3,5", 1), "not a sound archive of table files"),
        (TWO[:-30], "not a sound"),
    ],
)
def test_archives_that_are_refused(content: bytes, said: str, api: Api) -> None:
    body = problem_of(upload(api, content), 422)
    assert said in body["message"] and str(api.work) not in str(body)
    assert left(api) == []


def test_tables_in_the_folder_of_the_service(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    (folder / "parts").mkdir(parents=True)
    for name in ("1.csv", "2.csv"):
        (folder / "parts" / name).write_text("x,y\n1,2\n")
    (tmp_path / "secret.csv").write_text("x,y\n1,2\n")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    api = make_api(tmp_path, data_folder=folder)
    for path in ("parts", "parts/*.csv", "parts/1.csv"):
        assert faults(api, path) == [], path
    for path in ("*.csv", "link.csv", "parts/../../*.csv", "/etc/*", "none/*", "../*.csv", "s3://x/*.csv"):
        (said,) = faults(api, path)
        assert "secret" not in said, said
    api.runner.close()
    api.store.close()


def test_addresses_of_tables(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting of the service decides, before anything is asked of the network; a runner has it, too."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked the network"))
    url = "https://data.example.org/a.csv"
    (said,) = faults(api, url)
    assert said.startswith(f"{url}: this address may not be followed here. Who runs distbp may set")
    monkeypatch.setenv("DISTBP_REMOTE", "https://data.example.org, s3")
    assert settings.for_runners()["DISTBP_REMOTE"] == "https://data.example.org, s3"
    for path in (url, "s3://bucket/parts", "s3://bucket/parts/*.parquet"):
        assert faults(api, path) == [], path
    (said,) = faults(api, "s3://bucket/a.csv?endpoint_url=http://169.254.169.254")
    assert "options such as endpoint_url are not part of an address" in said
    (said,) = faults(api, "https://169.254.169.254/a.csv")
    assert "may not be followed here: DISTBP_REMOTE allows https://data.example.org, s3" in said
    (said,) = faults(api, url, "npz")  # arrays are not fetched
    assert "names a file, and this service reads none" in said
