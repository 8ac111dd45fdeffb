"""docker-compose.yml under a project name of its own: built, started, asked, hurt, and removed."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def docker(*arguments: str, timeout_s: float = 120) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


def missing() -> str | None:
    """Why containers cannot be started here; None: they can."""
    try:
        docker("info", timeout_s=20)
        docker("compose", "version", timeout_s=20)
    except FileNotFoundError:
        return "docker is not installed"
    except (AssertionError, subprocess.TimeoutExpired):
        return "there is no Docker engine that answers, or no Compose v2"
    return None


def image_of(official: str, folder: str) -> str:
    """The official image or, where no registry can be reached, what the folder here makes in place of it."""
    try:
        docker("pull", "--quiet", official, timeout_s=300)
        return official
    except (AssertionError, subprocess.TimeoutExpired):
        name = f"distbp-test:{folder}"
        docker("build", "--quiet", "--tag", name, str(Path(__file__).parent / folder), timeout_s=600)
        return name


def eventually(check: Callable[[], Any], what: str, timeout_s: float = 120) -> Any:
    """What `check` gives as soon as that is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.2)
    return found


class Stack:
    def __init__(self, **settings: str) -> None:
        self.project = f"distbp-test-{secrets.token_hex(4)}"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.healthy_after_s = float("inf")
        self._settings = {"API_PORT": str(self.port), "IMAGE": "distbp:test", **settings}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.project, *arguments],
            cwd=ROOT,
            env={**os.environ, **self._settings},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}\n{said}"
        return done.stdout.strip()

    def build(self) -> None:
        self.compose("build", "api", timeout_s=1200)

    def up(self, *more: str, workers: int = 2) -> float:
        """Starts what does not run, and waits until all of it is healthy. Seconds that took."""
        began = time.monotonic()
        self.compose(*more, "up", "--wait", "--no-build", "--scale", f"worker={workers}")
        return time.monotonic() - began

    def token(self) -> str:
        return self.compose("exec", "-T", "api", "cat", "/var/lib/distbp/service/token")

    def containers(self, service: str = "") -> list[str]:
        return self.compose("ps", "--all", "--quiet", *([service] if service else [])).split()

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(docker("inspect", container))[0]
        return found

    def down(self, *more: str) -> None:
        self.compose(*more, "down", "--volumes", "--remove-orphans", "--timeout", "20")

    def left(self) -> str:
        """What there still is of it; "" for nothing."""
        mine = f"label=com.docker.compose.project={self.project}"
        found = [docker("ps", "--all", "--quiet", "--filter", mine)]
        found += [docker(kind, "ls", "--quiet", "--filter", mine) for kind in ("volume", "network")]
        return " ".join(filter(None, found))
