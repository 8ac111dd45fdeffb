"""One contract, kept by every launcher: runners as local processes, and through the Ray Jobs API."""

from __future__ import annotations

import json
import os
import secrets
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from distbp_service.launchers import ClusterAwayError, Launcher, LaunchError, LocalProcess, RayJobs, Start
from distbp_service.launchers.base import last_line
from distbp_service.store.records import new_id

JOB = new_id("job_")  # of this run: a cluster remembers the ids it has seen
SECRET = "canary-secret"

# Stands in for the runner: tells through a fifo what it was given (and that it runs), sleeps until SIGTERM.
FAKE = """
    import json, os, signal, sys
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    arguments = sys.argv[1:]
    home = arguments[arguments.index("--work") + 1]
    secret = sys.stdin.read() if "--token-fd" in arguments else arguments[arguments.index("--claim") + 1]
    found = {"argv": arguments, "secret": secret, "pid": os.getpid(), "environ": dict(os.environ)}
    with open(os.path.join(home, "fifo"), "w") as fifo:
        json.dump(found, fifo)
    signal.pause()
"""


class FakeRay:
    """What RayJobs uses of ray.job_submission.JobSubmissionClient, with jobs as processes of this machine."""

    def __init__(self) -> None:
        self.jobs: dict[str, subprocess.Popen[bytes]] = {}

    def submit_job(self, *, entrypoint: str, submission_id: str) -> str:
        if submission_id in self.jobs:
            raise RuntimeError(
                f"Request failed with status code 500: Job with submission_id {submission_id} already exists."
            )
        self.jobs[submission_id] = subprocess.Popen(shlex.split(entrypoint))
        return submission_id

    def _job(self, name: str) -> subprocess.Popen[bytes]:
        if name not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {name} does not exist")
        return self.jobs[name]

    def get_job_status(self, name: str) -> str:
        return "RUNNING" if self._job(name).poll() is None else "SUCCEEDED"

    def stop_job(self, name: str) -> bool:
        self._job(name).terminate()
        return True


def local(folder: Path, command: list[str]) -> Iterator[Launcher]:
    yield LocalProcess(folder, command=command)


def ray_fake(folder: Path, command: list[str]) -> Iterator[Launcher]:
    client = FakeRay()
    launcher = RayJobs(lambda: client, folder, command=command)
    yield launcher
    launcher.close()
    for job in client.jobs.values():
        job.kill()
        job.wait()


@pytest.fixture(scope="module")
def ray_dashboard() -> Iterator[str]:
    """The address of a cluster in processes of its own, with its dashboard: this process never joins it."""
    pytest.importorskip("aiohttp_cors", reason="ray[default] is not installed: no Ray Jobs API")
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(4)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in sockets]
    names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
    options = [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    options += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--include-dashboard=true"]
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # not below pytest's: sockets want short paths
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--num-cpus=2", *options]
    (folder / "token").write_text(secrets.token_hex(32))
    # Left alone, the head asks for a token and clients send none.
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
    with open(folder / "log", "wb") as log:
        head = subprocess.Popen([*command, f"--temp-dir={folder}", "--block"], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{ports[1]}"
    launcher = RayJobs(RayJobs.connect(address), folder, timeout_s=60)
    try:
        _eventually(lambda: _answers(launcher), head, folder / "log")
        yield address
    finally:
        launcher.close()
        head.terminate()
        head.wait(60)
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


def ray_real(folder: Path, command: list[str], address: str) -> Iterator[Launcher]:
    launcher = RayJobs(RayJobs.connect(address), folder, command=command, timeout_s=60)
    yield launcher
    launcher.close()


def _answers(launcher: Launcher) -> bool:
    try:
        return not launcher.alive(launcher.handle("nothing", 1))
    except LaunchError:
        return False


def _eventually(check: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(180):
        if check():
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
            pytest.fail(f"Ray ended while it was starting: {log.read_text()}")
    pytest.fail("the Ray Jobs API did not answer in time")


@pytest.fixture(params=[local, ray_fake, pytest.param(ray_real, marks=pytest.mark.slow)])
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Launcher]:
    script = tmp_path / "fake.py"
    script.write_text(textwrap.dedent(FAKE))
    os.mkfifo(tmp_path / "fifo")
    more = (request.getfixturevalue("ray_dashboard"),) if request.param is ray_real else ()
    yield from request.param(tmp_path, [sys.executable, str(script)], *more)


def start(attempt: int = 1) -> Start:
    return Start(JOB, attempt, "http://api", SECRET)


def told(folder: Path) -> dict[str, Any]:
    """What the runner says it was given: waits until it runs."""
    found: dict[str, Any] = json.loads((folder / "fifo").read_text())
    return found


def wait_for_end(pid: int) -> None:
    with suppress(ProcessLookupError):
        same = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(same, select.POLLIN)
        assert poll.poll(20_000)
        os.close(same)


def test_a_runner_lives_until_it_is_stopped(launcher: Launcher, tmp_path: Path) -> None:
    handle = launcher.start(start())
    found = told(tmp_path)
    assert handle == launcher.handle(JOB, 1) == json.loads(json.dumps(handle))
    arguments = dict(zip(found["argv"][::2], found["argv"][1::2], strict=True))
    assert arguments["--job"] == JOB
    assert (arguments["--attempt"], arguments["--api"]) == ("1", "http://api")
    assert found["secret"] == SECRET
    assert launcher.alive(handle)
    launcher.stop(handle)
    wait_for_end(found["pid"])
    launcher.kill(handle)  # waits; there is nothing left
    assert not launcher.alive(handle)
    launcher.stop(handle)


def test_the_same_attempt_is_started_once(launcher: Launcher, tmp_path: Path) -> None:
    handle = launcher.start(start(11))
    first = told(tmp_path)["pid"]
    assert launcher.start(start(11)) == handle
    other = launcher.start(start(12))
    assert told(tmp_path)["pid"] != first
    for each in (handle, other):
        assert launcher.alive(each)
        launcher.kill(each)
        assert not launcher.alive(each)


def test_what_was_never_started_is_not_alive(launcher: Launcher) -> None:
    handle = launcher.handle(JOB, 7)
    assert not launcher.alive(handle)
    launcher.stop(handle)
    launcher.kill(handle)


# What is each one's own ------------------------------------------------------------------------------------


def test_the_token_of_a_local_runner_shows_nowhere(tmp_path: Path) -> None:
    script = tmp_path / "fake.py"
    script.write_text(textwrap.dedent(FAKE))
    os.mkfifo(tmp_path / "fifo")
    launcher = LocalProcess(tmp_path, command=[sys.executable, str(script)])
    handle = launcher.start(start())
    found = told(tmp_path)
    assert SECRET not in str(found["argv"]) + str(found["environ"])
    assert SECRET not in "".join(p.read_text() for p in (tmp_path / JOB).iterdir())
    # Another launcher (of a dispatcher that came after) finds and kills it; its number alone is not enough.
    other = LocalProcess(tmp_path)
    assert other.alive(handle)
    path = tmp_path / JOB / "runner-1.json"
    kept = path.read_text()
    path.write_text(kept.replace('"started": ', '"started": 1'))
    assert not other.alive(handle)
    path.write_text(kept.replace('"boot": "', '"boot": "x'))
    assert not other.alive(handle)
    other.stop(handle)
    path.write_text(kept)
    assert other.alive(handle)
    other.kill(handle)
    assert not other.alive(handle)
    assert not launcher.alive(handle)


def test_a_runner_that_cannot_start_says_why(tmp_path: Path) -> None:
    launcher = LocalProcess(tmp_path, command=[sys.executable, "-P", "-m", "distbp.no_such_module"])
    handle = launcher.start(start())
    wait_for_end(json.loads((tmp_path / JOB / "runner-1.json").read_text())["pid"])
    name = Path(sys.executable).name
    assert not launcher.alive(handle)
    assert launcher.last_words(handle) == f"{name}: No module named distbp.no_such_module"
    assert launcher.last_words(launcher.handle(JOB, 2)) == ""  # there is no such runner


def test_a_runner_of_a_ray_job_that_cannot_start_says_why(tmp_path: Path) -> None:
    class Logs(FakeRay):
        def get_job_logs(self, name: str) -> str:
            self._job(name)
            return "Traceback\n  File ...\nModuleNotFoundError: No module named 'distbp_service'\n\n"

    client = Logs()
    launcher = RayJobs(lambda: client, tmp_path, command=["true"])
    handle = launcher.start(start())
    client.jobs[handle["submission"]].wait()
    assert launcher.last_words(handle) == "ModuleNotFoundError: No module named 'distbp_service'"
    assert launcher.last_words(launcher.handle(JOB, 2)) == ""
    launcher.close()


def test_last_words_are_one_short_line_without_places() -> None:
    log = "first\nOSError: [Errno 2] No such file: '/home/ann/secret/x.npy' \x1b[31m1/2 http://a/b\n \n"
    assert last_line(log) == "OSError: [Errno 2] No such file: 'x.npy' [31m1/2 http://a/b"
    assert last_line("") == ""
    assert len(last_line("x" * 1000)) == 300


def test_nothing_where_the_service_was_called_takes_the_place_of_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders that happen to be called like ours, or like what we import."""
    for name in ("distbp_service", "distbp", "numpy"):
        (tmp_path / "caller" / name).mkdir(parents=True)
        (tmp_path / "caller" / name / "__init__.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path / "caller")
    launcher = LocalProcess(tmp_path / "work")
    handle = launcher.start(Start(JOB, 1, "http://127.0.0.1:9", ""))  # no token: it says so, and ends
    wait_for_end(json.loads((tmp_path / "work" / JOB / "runner-1.json").read_text())["pid"])
    assert not launcher.alive(handle)
    assert launcher.last_words(handle) == "runner: the dispatcher ended before it gave the token"


def test_a_frozen_runner_is_killed(tmp_path: Path) -> None:
    launcher = LocalProcess(tmp_path, command=[sys.executable, "-c", "import signal; signal.pause()"])
    handle = launcher.start(start())
    pid = json.loads((tmp_path / JOB / "runner-1.json").read_text())["pid"]
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)  # else SIGTERM, a lower number, may come first
    launcher.stop(handle)
    assert launcher.alive(handle)
    launcher.kill(handle)
    assert not launcher.alive(handle)


def test_a_command_that_is_not_there_is_a_launch_error(tmp_path: Path) -> None:
    launcher = LocalProcess(tmp_path, command=[str(tmp_path / "nothing")])
    with pytest.raises(LaunchError, match=r"the runner could not be started: .*No such file"):
        launcher.start(start())
    assert not launcher.alive(launcher.handle(JOB, 1))


class Broken:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"Request failed with status code 500: python -m x --claim {SECRET}")


def test_a_cluster_that_fails_tells_no_secret(tmp_path: Path) -> None:
    launcher = RayJobs(Broken, tmp_path)
    for call in (lambda: launcher.start(start()), lambda: launcher.alive(launcher.handle(JOB, 1))):
        with pytest.raises(LaunchError, match="the Ray cluster refused get_job_status") as error:
            call()
        assert error.value.__context__ is None or SECRET not in str(error.value.__context__)
    launcher.close()


def test_a_cluster_that_hangs_does_not_hang_the_dispatcher(tmp_path: Path) -> None:
    release = threading.Event()
    launcher = RayJobs(lambda: release.wait(30), tmp_path, timeout_s=0.05)
    with pytest.raises(ClusterAwayError, match=r"did not answer within 0\.05 s"):
        launcher.alive(launcher.handle(JOB, 1))
    release.set()
    launcher.close()


def test_a_cluster_that_is_not_there_is_away(tmp_path: Path) -> None:
    def absent() -> Any:
        raise ConnectionError("Failed to connect to Ray at address: http://head:8265")

    launcher = RayJobs(absent, tmp_path)
    with pytest.raises(ClusterAwayError, match=r"the Ray cluster cannot be reached \(ConnectionError\)"):
        launcher.start(start())
    launcher.close()


def test_a_runner_has_an_environment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets_of_ours = {
        "DISTBP_TOKEN": "dbp_ours",
        "DISTBP_SERVICE_DATABASE": "postgresql://distbp:secret@db/distbp",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "PGPASSWORD": "secret",
        "ANYTHING": "else",
    }
    wanted = {
        "DISTBP_KERNELS": "numpy",
        "RAY_AUTH_MODE": "token",
        "OMP_NUM_THREADS": "1",
        "LC_ALL": "C.UTF-8",
    }
    for name, value in (secrets_of_ours | wanted).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "fake.py").write_text(textwrap.dedent(FAKE))
    os.mkfifo(tmp_path / "fifo")
    launcher = LocalProcess(tmp_path, command=[sys.executable, str(tmp_path / "fake.py")])
    handle = launcher.start(Start(JOB, 1, "http://127.0.0.1:1", SECRET))
    try:
        with open(tmp_path / "fifo") as fifo:
            found = json.load(fifo)["environ"]
    finally:
        launcher.kill(handle)
    assert not secrets_of_ours.keys() & found.keys()
    assert {name: found[name] for name in (*wanted, "PATH", "HOME")} == {
        name: os.environ[name] for name in (*wanted, "PATH", "HOME")
    }
