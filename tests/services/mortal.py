"""The service as processes that can be killed at any moment, and a supervisor that starts them again.

Everything is the real thing: `distbp serve --only api` and `--only dispatcher`, runners that the dispatcher
starts, a PostgreSQL server, a Ray head node with its Jobs API.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import httpx
from served import QUICK

from benchmarks.postgresql import PostgreSQL

WAIT_S = 120.0
PROGRAMS = Path(sys.executable).parent


class Part:
    """One process, in a session of its own. Its output goes to `log`."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._command, self._environment, self.log = list(command), environment, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Head:
    """A Ray head node, on ports that stay the same, with token authentication."""

    def __init__(self, folder: Path, environment: dict[str, str], log: Path) -> None:
        names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
        ports = free_ports(len(names))
        self.url = f"http://127.0.0.1:{ports[1]}"
        self.address = f"127.0.0.1:{ports[0]}"
        options = [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
        options += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--include-dashboard=true"]
        options += ["--num-cpus=8", "--object-store-memory=100000000", f"--temp-dir={folder}"]
        # Jobs on this cluster carry the address; the dispatcher, which is not of it, has it from --ray.
        mine = {**environment, "RAY_ADDRESS": self.address}
        self.part = Part([str(PROGRAMS / "ray"), "start", "--head", *options, "--block"], mine, log)
        self._folder = folder

    def kill(self) -> None:
        """kill -9 of all that is Ray's own on the node; workers and jobs are left to notice."""
        self.part.kill()
        for pid, words in commands():
            if str(self._folder) in " ".join(words) and any(name in " ".join(words[:3]) for name in RAY_OWN):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


RAY_OWN = (
    "gcs_server",
    "raylet",
    "dashboard.py",
    "dashboard/agent",
    "log_monitor",
    "monitor.py",
    "runtime_env",
)


def free_ports(count: int) -> list[int]:
    """Ports that nobody is given by chance: between those that Ray's workers take and those that the system
    hands out."""
    found: list[int] = []
    chance = Random(os.getpid() ^ time.time_ns())
    while len(found) < count:
        port = chance.randrange(20_000, 31_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found


def commands() -> list[tuple[int, list[str]]]:
    """(pid, words of the command) of every process that lives."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if words != [""]:
                found.append((int(entry.name), words))
    return found


class House:
    """`kill(what)`: "api", "dispatcher", "runner", "database" or "ray"; the first two, and what else has
    ended, start again by themselves. database: None for SQLite. ray: the folder of a Ray head, whose jobs the
    runners are. names: of the parts of `distbp serve`."""

    def __init__(
        self,
        folder: Path,
        *,
        slots: int = 1,
        database: PostgreSQL | None = None,
        ray: Path | None = None,
        names: tuple[str, ...] = ("api", "dispatcher"),
    ) -> None:
        self.home, self.work = folder / "home", folder / "home" / "work"
        self.home.mkdir()
        self._logs = folder
        self._database = database
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        path = f"{PROGRAMS}:{os.environ.get('PATH', '')}"  # a Ray job is started as `python`
        self.environment = {**os.environ, **QUICK, "XDG_CONFIG_HOME": str(folder / "config"), "PATH": path}
        self.head: Head | None = None
        serve = [str(PROGRAMS / "distbp"), "serve", "--port", str(port), "--data", str(self.home)]
        serve += ["--slots", str(slots)]
        if database is not None:
            serve += ["--database", database.url]
        if ray is not None:
            (ray / "token").write_text(secrets.token_hex(32))
            self.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(ray / "token")}
            self.head = Head(ray, self.environment, folder / "ray.log")
            serve += ["--launcher", "ray-jobs", "--ray", self.head.url]
        self.parts = {
            name: Part([*serve, "--only", name], self.environment, folder / f"{name}.log") for name in names
        }
        if self.head is not None:
            self.parts["ray"] = self.head.part
        self.exposed: set[str] = set()
        self.outlived: dict[str, set[int]] = {}  # by job: attempts whose process a later one saw
        self.seen: dict[str, set[int]] = {}
        self._absent: dict[str, float] = {}  # until when a part stays away
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=10)
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> House:
        self._keeper.start()
        until(lambda: (self.home / "token").exists() and self.answers(), self.story)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._keeper.join()
        self._http.close()
        for name, part in self.parts.items():
            if name != "ray":
                part.kill()
        if self.head is not None:
            self.head.part.kill()
        # Whatever a part has started, however indirectly: it carries our environment.
        mark = f"XDG_CONFIG_HOME={self.environment['XDG_CONFIG_HOME']}".encode()
        for pid, _ in commands():
            with suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    os.kill(pid, signal.SIGKILL)

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    def answers(self) -> bool:
        try:
            probe = "readyz" if "dispatcher" in self.parts else "livez"
            return self._http.get(f"/{probe}").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """The JSON of an answer; asks again while the service is away."""
        found: list[Any] = []
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}

        def answered() -> bool:
            try:
                answer = self._http.request(method, path, headers=headers, **more)
            except httpx.TransportError:
                return False
            if answer.status_code in (429, 503):
                return False
            found.append(answer)
            return True

        until(answered, self.story)
        assert found[0].status_code in (200, 202, 409), found[0].text
        return found[0].json()

    def runners(self, among: Sequence[tuple[int, list[str]]] | None = None) -> list[tuple[int, str, int]]:
        """(pid, job, attempt) of the runners that live. among: what `commands` found; None to look now."""
        found = []
        for pid, words in commands() if among is None else among:
            if "distbp_service.runner" in words and str(self.work.absolute()) in words:
                job, attempt = (words[words.index(option) + 1] for option in ("--job", "--attempt"))
                found.append((pid, job, int(attempt)))
        return found

    def kill(self, what: str, chance: Random, away_s: float) -> bool:
        """kill -9. away_s: for how long it stays away. False: there was none to kill."""
        if what == "runner":
            living = sorted(self.runners(), key=lambda one: one[1:])
            if not living:
                return False
            with suppress(ProcessLookupError):
                os.kill(chance.choice(living)[0], signal.SIGKILL)
            return True
        if what == "database":
            assert self._database is not None
            self._database.kill()
            self._over.wait(away_s)
            self._database.start()
            return True
        if not self.parts[what].alive:
            return False
        self._absent[what] = time.monotonic() + away_s
        if what == "ray":
            assert self.head is not None
            self.head.kill()
        else:
            self.parts[what].kill()
        return True

    def story(self) -> str:
        """The ends of the logs, for a test that fails."""
        logs = [*self._logs.glob("*.log"), *self.work.glob("*/runner-*.log")]
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-600:]}" for log in logs)

    def leaks(self) -> list[str]:
        """Where a token was seen that must not be: arguments and environments of processes (at any time),
        and now every file but the two that keep it."""
        found = list(self.exposed)
        secret = self._secret.encode()
        kept = {self.home / "token", Path(self.environment["XDG_CONFIG_HOME"]) / "distbp" / "service.json"}
        for path in self._logs.rglob("*"):
            if path.is_file() and path not in kept:
                content = path.read_bytes()
                if secret in content or b"dbr_job_" in content:
                    found.append(str(path))
        return found

    @property
    def _secret(self) -> str:
        return self.token.split("_", 2)[2]  # It may have underscores of its own.

    def _look_for_secrets(self, among: Sequence[tuple[int, list[str]]]) -> None:
        if not (self.home / "token").exists():
            return
        secret = self._secret
        for pid, words in among:
            if any(secret in word or "dbr_job_" in word for word in words):
                self.exposed.add(f"arguments of {words[:4]}")
            if "distbp_service.runner" in words:
                with suppress(OSError):
                    environment = Path(f"/proc/{pid}/environ").read_bytes()
                    if b"dbr_job_" in environment or secret.encode() in environment:
                        self.exposed.add(f"environment of {words[:4]}")

    def _keep(self) -> None:
        """Starts what has ended, and looks whether two attempts at one job live at the same time."""
        while not self._over.wait(0.05):
            for name, part in self.parts.items():
                if not part.alive and self._absent.get(name, 0) < time.monotonic():
                    part.start()
            processes = commands()
            self._look_for_secrets(processes)
            living: dict[str, set[int]] = {}
            for _, job, attempt in self.runners(processes):
                living.setdefault(job, set()).add(attempt)
                self.seen.setdefault(job, set()).add(attempt)
            for job, attempts in living.items():
                self.outlived.setdefault(job, set()).update(attempts - {max(attempts)})


def until(check: Callable[[], bool], story: Callable[[], str] = str, wait_s: float = WAIT_S) -> None:
    """Waits until `check` holds; fails with `story` where it takes too long."""
    deadline = time.monotonic() + wait_s
    while not check():
        assert time.monotonic() < deadline, story()
        time.sleep(0.05)
