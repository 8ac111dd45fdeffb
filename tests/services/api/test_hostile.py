"""What is sent to do harm is refused, quickly, with a status below 500, and tells nothing."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import pickle
import sqlite3
import struct
import time
import zipfile
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_kit import JOB, Api, make_api, operations, problem_of
from test_data_and_models import BYTES, GOOD, upload

from distbp.core.options import paths
from distbp.data.formats import FORMATS

IDS = [
    "..",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%5c..%5cwindows",
    "%00",
    "job_" + "0" * 20 + "%00",
    "job_" + "0" * 20 + "%0a",
    "job_" + "i" * 20,
    "';DROP TABLE jobs;--",
    "%F0%9F%92%A9",
    "x" * 5000,
    "-1",
]


def test_ids(api: Api) -> None:
    for method, path in operations():
        if "{" not in path:
            continue
        for bad in IDS:
            there = path.replace("{job_id}", bad).replace("{model_id}", bad).replace("{token_id}", bad)
            answer = api.call(method, there.replace("{dataset_id}", bad).replace("{step}", bad))
            assert 400 <= answer.status_code < 500, (method, there, answer.status_code)
            problem_of(answer, answer.status_code)


def paths_refused(api: Api, path: str, format_: str = "npz", **more: Any) -> list[str]:
    fields = {"npz": {"path": path}, "npy": {"inputs": path}, "idx": {"images": path}}[format_]
    data = {"train": {"format": format_, **fields}, **more}
    body = problem_of(api.call("POST", "/v1/jobs", json={"job": {**JOB, "data": data}}), 422, "invalid_job")
    return [fault["message"] for fault in body["faults"]]


HOSTILE_PATHS = [
    "/etc/passwd",
    "../../etc/passwd",
    "..",
    ".",
    "~/.ssh/id_rsa",
    "http://169.254.169.254/latest/meta-data/",
    "https://localhost:8000/v1/jobs",
    "file:///etc/passwd",
    "ftp://host/x.npz",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "\\\\host\\share\\x.npz",
    "s3://bucket/key",
    "dataset:",
    "dataset:../../etc/passwd",
    "dataset:ds_" + "0" * 63,
    "dataset:ds_" + "G" * 64,
    "dataset:ds_" + "0" * 64,
    "dataset:ds_" + "0" * 64 + "/../../x",
    "/proc/self/environ",
    "/dev/zero",
    "x" * 5000,
]


@pytest.mark.parametrize("with_folder", [False, True])
def test_paths_and_addresses_in_jobs(tmp_path: Path, with_folder: bool) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (tmp_path / "secret.npz").write_bytes(GOOD)
    (folder / "link.npz").symlink_to(tmp_path / "secret.npz")
    os.mkfifo(folder / "pipe.npz")
    api = make_api(tmp_path, data_folder=folder if with_folder else None)
    for path in [*HOSTILE_PATHS, "link.npz", "pipe.npz", "../secret.npz", str(tmp_path / "secret.npz")]:
        for format_ in ("npz", "npy", "idx"):
            assert paths_refused(api, path, format_)
    for inner in ("/", "..", "/etc", "../files", "\x01"):
        assert paths_refused(api, "secret.npz", folder=inner)
    assert paths_refused(api, "good.npz", folder=str(tmp_path)) if not with_folder else True
    if with_folder:
        (folder / "good.npz").write_bytes(GOOD)
        api.submit(data={"train": {"format": "npz", "path": "good.npz"}})
    problem_of(api.call("POST", "/v1/jobs", json={"job": {**JOB, "data": {}}}), 422)
    problem_of(
        api.call("POST", "/v1/jobs", json={"job": {**JOB, "data": {"train": {"format": "arrays"}}}}), 422
    )
    api.runner.close()
    api.store.close()


def test_a_misspelt_file_tells_no_names_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "salaries-2026.npz").write_bytes(GOOD)
    api = make_api(tmp_path, data_folder=folder)
    data = {"train": {"format": "npz", "path": "salaries-2025.npz"}}
    body = problem_of(api.call("POST", "/v1/jobs", json={"job": {**JOB, "data": data}}), 422, "invalid_job")
    assert body["faults"][0]["message"] == (
        "salaries-2025.npz: there is no such file; data paths are relative to the data folder"
    )
    api.runner.close()
    api.store.close()


@pytest.mark.heavy  # it waits for the lock
def test_a_locked_database_is_said_soon_and_does_not_stop_who_only_reads(tmp_path: Path) -> None:
    api = make_api(tmp_path)
    assert api.call("GET", "/readyz", "").status_code == 200
    with closing(sqlite3.connect(tmp_path / "service.db", isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        answer = api.call("POST", "/v1/jobs", json={"job": JOB})
        body = problem_of(answer, 503, "unavailable")
        assert body["message"] == "the database does not answer; try again"
        assert int(answer.headers["retry-after"]) >= 1
        ready = api.call("GET", "/readyz", "")
        assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "does not answer")
        assert api.call("GET", "/v1/jobs").status_code == 200
        assert time.monotonic() - began < 20
        another.execute("ROLLBACK")
    assert api.call("GET", "/readyz", "").status_code == 200
    assert api.call("POST", "/v1/jobs", json={"job": JOB}).status_code == 202
    api.runner.close()
    api.store.close()


def test_a_page_of_faults_is_answered_shortly(api: Api) -> None:
    many = {**JOB, **{f"unknown_{number}": 1 for number in range(50_000)}}
    for path in ("/v1/jobs", "/v1/jobs:validate"):
        answer = api.call("POST", path, json={"job": many})
        body = problem_of(answer, 422, "invalid_job")
        assert len(body["faults"]) == 51 and len(answer.content) < 50_000
        assert body["faults"][-1]["message"] == "and 49,950 more faults; mend these first"


def test_files_and_datasets_are_not_mixed(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "good.npz").write_bytes(GOOD)
    api = make_api(tmp_path, data_folder=folder)
    dataset = upload(api, GOOD).json()["id"]
    mixed = paths_refused(api, f"dataset:{dataset}", validation={"format": "npz", "path": "good.npz"})
    assert mixed == ["mixes uploaded datasets with files of the service; use one kind in a job"]
    assert "only for files of the service" in paths_refused(api, f"dataset:{dataset}", folder="x")[0]
    api.runner.close()
    api.store.close()


@pytest.mark.parametrize(
    "path", [*HOSTILE_PATHS[:4], "runs/first", "model:", "model:../x", "model:mdl_" + "0" * 20]
)
def test_a_job_begins_with_models_of_its_project_only(api: Api, path: str) -> None:
    body = problem_of(api.call("POST", "/v1/jobs", json={"job": {**JOB, "init": path}}), 422, "invalid_job")
    (fault,) = body["faults"]
    assert fault["path"] == "init"
    assert (
        "is not a model of this service; write model:ID" in fault["message"]
        or "there is no model mdl_" in fault["message"]
    )


def test_every_option_that_names_a_file_is_known_to_the_check() -> None:
    for name, kind in FORMATS.items():
        texts = {f.name for f in fields(kind) if str(f.type).startswith("str")}
        not_paths = {
            "npz": {"inputs", "targets", "weights", "lengths", "columns"},
            "arrays": {"sha256"},
            "table": {"delimiter", "quote", "encoding"},
        }.get(name, set())
        assert texts - not_paths == set(paths(kind)), name


def bomb(size: int) -> bytes:
    """An archive of zeros that unpacks to `size` bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(  # type: ignore[attr-defined]
        header, {"descr": "<f8", "fortran_order": False, "shape": (size // 8, 1)}
    )
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("inputs.npy", "w") as entry,
    ):
        entry.write(header.getvalue())
        for _ in range(size // 2**20):
            entry.write(b"\0" * 2**20)
    return file.getvalue()


def claims(shape: tuple[int, ...]) -> bytes:
    """An archive whose header claims more than there is."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(  # type: ignore[attr-defined]
        header, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    return zipped({"inputs.npy": header.getvalue() + b"\0" * 64})


def zipped(entries: dict[str, bytes], flag: int = 0) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = flag << 16
            archive.writestr(info, content)
    return file.getvalue()


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("echo hacked > /tmp/distbp-hacked",)


def test_archives(api: Api) -> None:
    objects = io.BytesIO()
    np.savez(objects, inputs=np.array([Evil()], dtype=object))
    good = io.BytesIO()
    np.save(good, np.zeros((2, 2)))
    directory = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 2**31, 0, 0)
    hostile = {
        "a pickle": pickle.dumps(Evil()),
        "a pickled array": objects.getvalue(),
        "a zip bomb": bomb(32 * 2**20),
        "32 GiB claimed": claims((2**32,)),
        "overflow claimed": claims((2**62, 2**62)),
        "a negative shape": claims((-1, 2)),
        "a path out": zipped({"../../inputs.npy": good.getvalue(), "inputs.npy": good.getvalue()}),
        "an absolute path": zipped({"/etc/inputs.npy": good.getvalue(), "inputs.npy": good.getvalue()}),
        "a link": zipped({"inputs.npy": b"/etc/passwd"}, 0o120777),
        "no array": zipped({"inputs.npy": good.getvalue(), "run.sh": b"rm -rf /"}),
        "a table of contents of 2 GiB": directory,
    }
    for what, content in hostile.items():
        answer = upload(api, content)
        assert 400 <= answer.status_code < 500, (what, answer.text)
        problem_of(answer, answer.status_code)
    assert not Path("/tmp/distbp-hacked").exists()
    kept = [path.name for path in (api.work / "datasets").iterdir()]
    assert kept in ([], [".lock"])


def test_yaml_and_pickles_as_bodies(api: Api) -> None:
    for content in (b"!!python/object/apply:os.system ['true']", pickle.dumps(Evil()), b"\x80\x04."):
        for kind in ("application/json", "application/yaml", "application/x-pickle", "text/plain"):
            answer = api.call("POST", "/v1/jobs", content=content, headers={"Content-Type": kind})
            problem_of(answer, 400 if kind == "application/json" else 415)


def test_packed_bodies(api: Api) -> None:
    for path, kind in (("/v1/jobs", "application/json"), ("/v1/datasets", "application/octet-stream")):
        headers = {"Content-Type": kind, "Content-Encoding": "gzip"}
        answer = api.call("POST", path, content=gzip.compress(b"{}"), headers=headers)
        said = problem_of(answer, 415)["message"]
        assert said.startswith("the body is packed (gzip), which is not taken; send it as it is, without the")


def test_jobs_that_ask_for_too_much(api: Api) -> None:
    wide = {**JOB, "model": {"layers": [{"type": "dense", "units": 10**400}]}}
    problem_of(api.call("POST", "/v1/jobs", content=b'{"job": {"seed": ' + b"9" * 4000 + b"}}",
                        headers={"Content-Type": "application/json"}), 400, "bad_json")  # fmt: skip
    text = json.dumps({"job": wide}).encode()
    answer = api.call("POST", "/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    many = {**JOB, "model": {"layers": [{"type": "dense", "units": 3}] * 1001}}
    body = problem_of(api.call("POST", "/v1/jobs", json={"job": many}), 422, "invalid_job")
    assert body["faults"] == [
        {"path": "model.layers", "message": "must be a list of at most 1000, not of 1001"}
    ]
    padded = {"job": {**JOB, "name": "x" * 2**20}}
    problem_of(api.call("POST", "/v1/jobs", json=padded), 413, "too_large")
    for priority in (10**30, -101, 1.5, "5", True):
        problem_of(api.call("POST", "/v1/jobs", json={"job": JOB, "priority": priority}), 422)
    for deadline in (0, -1, 10**400, "60"):
        answer = api.call("POST", "/v1/jobs", json={"job": JOB, "deadline_s": deadline})
        assert answer.status_code in (400, 422)


def test_a_token_appears_nowhere(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    canary = api.tokens["all"].split("_", 2)[2]
    seen = []
    job_id = api.submit()
    for method, path in operations():
        there = path.replace("{job_id}", job_id).replace("{model_id}", "mdl_" + "0" * 20)
        there = there.replace("{dataset_id}", "ds_" + "0" * 64).replace("{token_id}", "0" * 12)
        if there.endswith(":stream") or method == "DELETE":
            continue
        for more in (
            {},
            {"json": {"a": 1}},
            {"content": b"{", "headers": {"Content-Type": "application/json"}},
            {"content": b"x", "headers": BYTES},
        ):
            answer = api.call(method, there.replace("{step}", "1"), **more)
            seen.append(answer.text + str(answer.headers))
    # In the body, in the query, in another header: never repeated.
    seen.append(api.call("POST", "/v1/jobs", json={"job": api.tokens["all"]}).text)
    seen.append(api.call("GET", f"/v1/jobs?limit={api.tokens['all']}").text)
    seen.append(api.call("GET", f"/v1/jobs?cursor={api.tokens['all']}").text)
    seen.append(api.call("POST", "/v1/jobs", json={"job": JOB}, headers={"X": api.tokens["all"]}).text)
    seen.append(api.call("GET", "/metrics").text)
    assert not any(canary in text for text in seen)
    # The client of this test logs what it asks for; the service must not.
    logged = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    assert not any(canary in text for text in logged)
    events = api.store.journal.events(job_id)
    assert not any(canary in str(event) for event in events)
    database = b"".join(path.read_bytes() for path in api.work.parent.glob("service.db*"))
    assert canary.encode() not in database
