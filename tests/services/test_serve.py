"""`distbp serve` and its clients, all of them real processes: the ten lines of the README, a service that is
stopped and killed under a job, its parts apart, and every way in which it cannot start."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from served import QUICK, ROOT, Served, command, environment, run

import distbp
from distbp.cli.main import group
from distbp.client import settings_file
from distbp.client.service import connect
from distbp.core import settings
from distbp.run.events import EpochEnded

LONG = {
    "name": "long",
    "data": {"train": {"format": "blobs", "samples": 2000, "features": 10}},
    "model": {
        "layers": [{"type": "dense", "units": 16, "activation": "relu"}, {"type": "dense", "units": 3}]
    },
    "loss": "softmax_cross_entropy",
    "optimizer": {"type": "sgd", "learning_rate": 0.01},
    "batch_size": 8,
    "epochs": 40,
    "workers": 0,
    "shards": 2,
    "checkpoint": {"every_steps": 100},
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> distbp.Result:
    job = distbp.TrainingJob.from_mapping(LONG)
    with settings.environment(QUICK):
        return distbp.train(job, output=tmp_path_factory.mktemp("undisturbed") / "run")


def until(happened: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := happened()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)
    return found


# As a new user --------------------------------------------------------------------------------------------


def test_the_ten_lines_of_the_readme(served: Served, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = next(block for block in blocks if "distbp.submit(" in block)
    assert len(lines.split("\n")) <= 12
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", lines],
        env=served.environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ *60 +[\d.]+ ", done.stdout, re.MULTILINE), "the table of epochs ends with the last"
    accuracy = re.search(r"^test accuracy ([\d.]+)$", done.stdout, re.MULTILINE)
    assert accuracy is not None and float(accuracy[1]) > 0.96
    assert "[0 1 2 3 4 5 6 7 8 9] [0 1 2 3 4 5 6 7 8 9]" in done.stdout


def test_the_example(served: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / "submit.py"],
        env=served.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"^job_\w+ completed: test accuracy ([\d.]+)$", done.stdout, re.MULTILINE)
    assert accuracy is not None and float(accuracy[1]) > 0.96
    assert "the model sees [0 1 2 3 4 5 6 7 8 9]" in done.stdout


def test_it_says_where_it_is_and_keeps_the_token_to_itself(served: Served) -> None:
    assert served.said.startswith(f"distbp serves at {served.url}\n")
    assert f"token      in {served.home / 'token'}" in served.said
    noted = served.folder / "config" / "distbp" / "service.json"
    assert f"clients of this user find it by {noted}" in served.said
    for path in (noted, served.home / "token"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(served.home.stat().st_mode) == 0o700
    assert json.loads(noted.read_text()) == {"url": served.url, "token": served.token}
    assert re.fullmatch(r"dbp_[0-9a-f]{12}_[\w-]{43}", served.token)
    assert served.token not in served.said + served.errors  # output may be kept in a log


def test_it_prints_a_link_that_signs_in_once(served: Served) -> None:
    found = re.search(rf"^  dashboard  {served.url}/#link=([\w-]{{43}})$", served.said, re.MULTILINE)
    assert found is not None

    def sign_in(code: str) -> httpx.Response:
        return httpx.post(f"{served.url}/v1/sign-in", json={"code": code}, trust_env=False)

    assert sign_in("A" * 43).status_code == 401
    assert sign_in(found[1]).json() == {"secret": served.token}
    again = sign_in(found[1])
    assert again.status_code == 401
    assert again.json()["message"] == "this link was used, or is too old; sign in with a token"


def test_actions_name_the_token_and_its_person(served: Served) -> None:
    me = httpx.get(
        f"{served.url}/v1/whoami", headers={"Authorization": f"Bearer {served.token}"}, trust_env=False
    ).json()["token"]
    assert me["name"] == pwd.getpwuid(os.getuid()).pw_name
    with connect(served.url, served.token) as service:
        job = service.submit(distbp.TrainingJob.from_mapping({**LONG, "epochs": 10_000}))
        job.cancel()
        until(lambda: job.state == "cancelled", "cancelled")
        reasons = [event["data"].get("reason") for event in job.events()]
    assert f"cancelled by {me['name']} (token {me['id']})" in reasons


def test_the_files_of_a_service_are_its_users_alone(served: Served) -> None:
    for path in served.home.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_dashboard_and_health_answer(served: Served) -> None:
    assert "<title>" in httpx.get(f"{served.url}/", trust_env=False).text
    ready = httpx.get(f"{served.url}/readyz", trust_env=False).json()
    assert ready == {"status": "ready", "checks": {"database": "ok", "dispatcher": "ok"}}


# Stopped and killed ---------------------------------------------------------------------------------------


def test_a_job_outlives_a_stopped_and_a_killed_service(tmp_path: Path, undisturbed: distbp.Result) -> None:
    """Ctrl-C, then kill -9, under one job: its clients see each event and epoch once, in order, and the
    weights are those of a local run, to the bit."""
    served = Served(tmp_path)
    served.start()
    with connect(served.url, served.token) as service:
        handle = service.submit(distbp.TrainingJob.from_mapping(LONG))
        told: list[Any] = []
        rows: list[dict[str, Any]] = []
        text: list[str] = []
        results: list[distbp.Result] = []
        watchers = [
            threading.Thread(target=lambda: results.append(handle.wait(listener=told.append))),
            threading.Thread(target=lambda: rows.extend(handle.events(follow=True))),
            threading.Thread(target=lambda: text.extend(handle.logs(follow=True))),
        ]
        for watcher in watchers:
            watcher.start()

        def epochs() -> list[int]:
            return [event.epoch for event in told if isinstance(event, EpochEnded)]

        until(epochs, "the first epoch")
        assert served.stop(signal.SIGINT) == 0
        assert "1 job: waiting for the checkpoint" in served.errors
        before = len(epochs())
        served.start()
        assert handle.status()["attempt"] in (1, 2)
        until(lambda: len(epochs()) > before, "an epoch after the start")
        served.kill()
        served.start()
        for watcher in watchers:
            watcher.join(90)
        status = handle.status()
        metrics = handle.metrics()
    assert served.stop() == 0
    assert "Traceback" not in served.errors
    assert [result.params_sha256 for result in results] == [undisturbed.params_sha256]
    assert status["state"] == "completed"
    assert status["attempt"] >= 2
    assert epochs() == list(range(1, 41))
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    written = [int(n) for n in re.findall(r"^epoch (\d+),", "".join(text), re.MULTILINE)]
    assert written == list(range(1, 41))
    assert metrics["epoch"].tolist() == list(range(1, 41))
    assert metrics["train_loss"][-1] == undisturbed.metrics["train_loss"]


@pytest.fixture(scope="module")
def served_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a service that was started and stopped."""
    service = Served(tmp_path_factory.mktemp("served_before"))
    service.start("--only", "api")
    assert service.stop() == 0
    return service.folder


def test_the_token_stays_and_a_lost_one_is_made_anew(served_before: Path, tmp_path: Path) -> None:
    shutil.copytree(served_before, tmp_path, dirs_exist_ok=True)
    served = Served(tmp_path)
    first = served.token
    served.start("--only", "api")
    assert served.token == first
    served.stop()
    (served.home / "token").write_text("dbp_of another service\n")
    served.start("--only", "api")
    assert served.token != first
    with connect(served.url, served.token) as service:
        assert service.ready()["checks"]["dispatcher"] == "has given no sign yet"
    served.stop()


# In parts -------------------------------------------------------------------------------------------------


def test_api_and_dispatcher_as_two_processes(tmp_path: Path) -> None:
    api, dispatcher = Served(tmp_path), Served(tmp_path)
    api.start("--only", "api")
    dispatcher.start("--only", "dispatcher", "--api-url", api.url, "--slots", "2")
    assert dispatcher.said.startswith("the dispatcher runs; Ctrl-C stops it")
    job = distbp.TrainingJob.from_mapping({**LONG, "epochs": 1, "name": "short"})
    with connect(api.url, api.token) as service:
        assert service.submit(job).result(timeout_s=60).status == "completed"
        assert service.ready()["status"] == "ready"
    dispatcher.stop()
    api.stop()
    assert "Traceback" not in api.errors


# Mistakes -------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, *words: str | Path, **more: str) -> str:
    """What the command says, in this process: one of its own would load the whole service first."""
    done = CliRunner().invoke(group, ["serve", *map(str, words)], env=environment(tmp_path) | more)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    return done.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = command(environment(tmp_path), "serve", "--port", str(port), code=2)
    assert done.stdout == ""
    assert done.stderr == (
        f"error: 127.0.0.1:{port} is in use already, perhaps by another `distbp serve`; stop that one, or"
        " choose another port with --port\n"
    )
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize(
    ("words", "environ", "text"),
    [
        (
            ["--host", "no.such.host.invalid"],
            {},
            "'no.such.host.invalid' is not an address of this machine; try --host 127.0.0.1, or 0.0.0.0 for"
            " all",
        ),
        (
            ["--host", "192.0.2.1", "--port", "0"],
            {},
            "cannot listen on 192.0.2.1:0: cannot assign requested address; choose another with --host",
        ),
        (
            ["--launcher", "ray-jobs", "--port", "0"],
            {},
            "the launcher ray-jobs needs the address of Ray's dashboard: give --ray http://head:8265, or set"
            " DISTBP_SERVICE_RAY",
        ),
        (
            ["--slots", "many"],
            {},
            "the number of slots is 'many', but must be auto or a whole number above 0",
        ),
        (
            ["--files", "nowhere"],
            {},
            "the folder nowhere with files that jobs may name does not exist. Make it",
        ),
        (
            ["--api-url", "api:8470", "--port", "0"],
            {},
            "--api-url (DISTBP_SERVICE_API) is not a service's address ('api:8470'); it looks like"
            " http://host:8470",
        ),
        (
            ["--launcher", "ray-jobs", "--ray", "head", "--port", "0"],
            {},
            "--ray (DISTBP_SERVICE_RAY) is not a service's address ('head'); it looks like http://host:8470",
        ),
        (
            ["--port", "0"],
            {"DISTBP_SERVICE_HOSTS": "api, http://api.example.org/"},
            "DISTBP_SERVICE_HOSTS has 'http://api.example.org/', but takes hosts without ports or"
            " patterns, as api.example.org, with commas between. Mend or unset it.",
        ),
        (
            ["--port", "0"],
            {"DISTBP_SERVICE_HOSTS": "api.example.org:443"},
            "DISTBP_SERVICE_HOSTS has 'api.example.org:443', but takes hosts without ports or patterns, as"
            " api.example.org, with commas between. Mend or unset it.",
        ),
        (
            ["--port", "0"],
            {"DISTBP_SERVICE_HOSTS": "*.example.org"},
            "DISTBP_SERVICE_HOSTS has '*.example.org', but takes hosts without ports or patterns, as"
            " api.example.org, with commas between. Mend or unset it.",
        ),
        (
            ["--port", "0"],
            {"DISTBP_SERVICE_ORIGINS": "https://example.org/"},
            "DISTBP_SERVICE_ORIGINS has 'https://example.org/', but takes origins without a path, as"
            " https://example.org, with commas between. Mend or unset it.",
        ),
        (
            ["--port", "0"],
            {"DISTBP_REMOTE_PRIVATE": "https://store.internal"},
            "DISTBP_REMOTE_PRIVATE names 'https://store.internal', but takes hosts, alone or with a port, as"
            " store.internal:8443, with commas between. Mend or unset it.",
        ),
        (
            [],
            {"DISTBP_SERVICE_PORT": "http"},
            "DISTBP_SERVICE_PORT is 'http', but must be a whole number from 1 to 65535. Mend or unset it.",
        ),
    ],
)
def test_what_it_cannot_do(tmp_path: Path, words: list[str], environ: dict[str, str], text: str) -> None:
    assert refused(tmp_path, *words, **environ) == f"error: {text}\n"


def test_a_slip_in_what_may_be_fetched(tmp_path: Path) -> None:
    said = refused(tmp_path, "--port", "0", DISTBP_REMOTE="httpss")
    assert said.startswith("error: DISTBP_REMOTE names 'httpss', but takes https, http, s3 and gs, alone or")


def test_a_folder_without_a_name(tmp_path: Path) -> None:
    said = refused(tmp_path, "--data", "", "--port", "0")
    assert said.endswith("Error: Invalid value for '--data': it is empty; name a path\n")


def test_a_second_dispatcher(served: Served) -> None:
    """It would give away the slots a second time, and its end would stop the runners of the first."""
    work = served.home / "work"
    text = f"another dispatcher works in {work} already, perhaps of another `distbp serve`; stop that one, or"
    for words in ([], ["--only", "dispatcher", "--database", f"sqlite:///{served.folder / 'other.db'}"]):
        said = refused(served.folder, "--port", "0", *words)
        assert said == f"error: {text} give this one a folder of its own with --data\n"
    with connect(served.url, served.token) as service:
        assert service.ready()["status"] == "ready"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "service"
    assert refused(tmp_path, "--data", folder) == (
        f"error: the folder {folder} cannot be made: not a directory. Name another with --data\n"
    )


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    url = "postgresql://distbp:very-secret@127.0.0.1:1/distbp"
    said = refused(tmp_path, "--database", url)
    assert said.startswith("error: the database cannot be opened: connection ")
    assert said.endswith("Is its server up, and --database right?\n")
    assert "very-secret" not in said


def test_a_token_that_is_no_text(tmp_path: Path) -> None:
    home = tmp_path / "data" / "distbp"
    home.mkdir(parents=True)
    (home / "token").write_bytes(b"\xff\xfe")
    said = refused(tmp_path, "--only", "api", "--port", "0")
    assert said.startswith(
        f"error: {home / 'token'} belongs to a service whose database is gone: the database given is"
    )


@pytest.mark.parametrize("left", [b"", b"no database at all " * 1000, None])
def test_a_database_that_was_lost_is_not_taken_for_a_new_one(
    served_before: Path, tmp_path: Path, left: bytes | None
) -> None:
    shutil.copytree(served_before, tmp_path, dirs_exist_ok=True)
    home, service = tmp_path / "data" / "distbp", Served(tmp_path)
    token = service.token
    for path in home.glob("distbp.db*"):
        path.unlink()
    if left is not None:
        (home / "distbp.db").write_bytes(left)
    said = [refused(tmp_path, "--only", "api", "--port", "0") for _ in range(2)]
    assert said[0] == said[1]
    assert said[0].startswith(
        {
            b"": f"error: {home / 'distbp.db'} is empty, so what the service knew is lost. Put the file back",
            None: f"error: {home / 'token'} belongs to a service whose database is gone: the",
        }.get(left, "error: the database cannot be opened: file is not a database. Is ")
    )
    assert "backup" in said[0]
    assert service.token == token  # nobody made another
    if left is not None:
        assert (home / "distbp.db").read_bytes() == left


def test_another_programs_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as theirs:
        theirs.execute("CREATE TABLE mine (x)")
    said = refused(tmp_path, "--database", f"sqlite:///{tmp_path / 'theirs.db'}", "--port", "0")
    assert said.startswith("error: the database is another program's; name one of distbp, or a file that is")


# Finding it -----------------------------------------------------------------------------------------------


def test_the_token_in_the_file_is_for_its_own_address_only(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISTBP_URL", "DISTBP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(served.folder / "config"))
    assert settings_file.find_access() == settings_file.Access(served.url, served.token)
    assert settings_file.find_access(f"{served.url}/") == settings_file.Access(served.url, served.token)
    assert settings_file.find_access("http://elsewhere:8470") == settings_file.Access(
        "http://elsewhere:8470", ""
    )
    monkeypatch.setenv("DISTBP_URL", "http://elsewhere:8470")
    assert settings_file.find_access() == settings_file.Access("http://elsewhere:8470", "")
    monkeypatch.setenv("DISTBP_TOKEN", "dbp_mine")
    assert settings_file.find_access() == settings_file.Access("http://elsewhere:8470", "dbp_mine")


def test_status_of_the_service(served: Served) -> None:
    said = run(served, "status").stdout
    assert said.startswith(f"{served.url}  distbp {distbp.__version__}, ready\n")
    assert "project     main" in said
