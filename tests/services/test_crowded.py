"""A service that many knock at and few talk to, with the files that a process may open by default."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import WAIT_S, command, environment

FILES = 1024
JOB = {
    "data": {"train": {"format": "blobs", "samples": 64}},
    "model": {"layers": [{"type": "dense", "units": 3}]},
    "loss": "softmax_cross_entropy",
    "batch_size": 32,
    "epochs": 1,
    "workers": 0,
}


class Crowded:
    def __init__(self, folder: Path, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url
        self.port = int(url.rpartition(":")[2])
        self.home = folder / "data" / "distbp"
        self.environment = environment(folder)
        self.token = (folder / "data" / "distbp" / "token").read_text().strip()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.request(
            method, f"{self.url}{path}", headers=headers, timeout=10, trust_env=False, **more
        )


@contextmanager
def crowded(folder: Path) -> Iterator[Crowded]:
    words = [sys.executable, "-m", "distbp.cli.main", "serve", "--port", "0", "--slots", "1"]
    with (
        open(folder / "serve.err", "ab") as err,
        subprocess.Popen(
            ["prlimit", f"--nofile={FILES}:{FILES}", *words],
            stdout=subprocess.PIPE,
            stderr=err,
            env=environment(folder),
            cwd=folder,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("distbp serves at "), (folder / "serve.err").read_text()
            yield Crowded(folder, process, first.split()[-1])
        finally:
            process.terminate()
            assert process.wait(WAIT_S) == 0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowded]:
    with crowded(tmp_path_factory.mktemp("crowded")) as found:
        yield found


def ended(one: socket.socket) -> bool:
    """Whether the service has closed it, or does so in time."""
    with suppress(ConnectionError):
        while one.recv(65536):
            pass
    return True


def test_half_requests_leave_room_for_whole_ones(service: Crowded) -> None:
    halves = (b"", b"GET /livez HTTP/1.1\r\nHost: local", b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n")
    with ExitStack() as stack:
        many = [stack.enter_context(service.connect()) for _ in range(1100)]
        for number, one in enumerate(many):
            with suppress(ConnectionError):
                one.sendall(halves[number % 3])
        assert service.ask("GET", "/livez").status_code == 200
        made = service.ask("POST", "/v1/jobs", json={"job": JOB})
        assert made.status_code == 202
        assert all(ended(one) for one in many)
    deadline = time.monotonic() + WAIT_S
    while service.ask("GET", f"/v1/jobs/{made.json()['id']}").json()["state"] != "completed":
        assert time.monotonic() < deadline and service.process.poll() is None  # the dispatcher works, too
        time.sleep(0.1)


def test_a_request_with_two_lengths_is_the_last_of_its_connection(service: Crowded) -> None:
    smuggled = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for head, allowed in [
        (b"POST /livez HTTP/1.1\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n", False),
        (b"POST /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n", False),
        (b"POST /livez HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n", False),
        (b"POST /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", True),
    ]:
        with service.connect() as one:
            one.sendall(head + b"Host: localhost\r\n\r\n0\r\n\r\n" + smuggled)
            one.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: one.recv(65536), b""))
        assert answer.count(b"HTTP/1.1 200") == allowed, answer
        assert (b"says twice how long its body is" in answer) is not allowed


def test_too_many_headers_are_refused(service: Crowded) -> None:
    many = {f"x-{number}": "a" * 1000 for number in range(100)}
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        assert client.get("/livez", headers=many).status_code in (400, 431)
        assert client.get("/livez").status_code == 200


def test_heavy_validations_of_one_project_leave_the_others_calls_alone(service: Crowded) -> None:
    made = command(
        service.environment, "token", "create", "--project", "red", "--scope", "read", "--data", service.home
    )
    layers = [{"type": "dense", "units": 8, "activation": "relu", "initializer": "he_normal"}] * 180
    heavy = {"job": {**JOB, "model": {"layers": [*layers, {"type": "dense", "units": 3}]}}}
    assert len(json.dumps(heavy)) > 14_000
    with (
        httpx.Client(base_url=service.url, timeout=120, trust_env=False) as client,
        ThreadPoolExecutor(60) as pool,
    ):
        red = {"Authorization": f"Bearer {made.stdout.strip()}"}
        asked = [pool.submit(client.post, "/v1/jobs:validate", json=heavy, headers=red) for _ in range(60)]
        times = []
        while not all(one.done() for one in asked):
            began = time.monotonic()
            assert service.ask("GET", "/v1/jobs").status_code == 200
            assert service.ask("POST", "/v1/jobs:validate", json={"job": JOB}).status_code == 200
            times.append((time.monotonic() - began) / 2)
        assert {one.result().status_code for one in asked} == {200}
    assert statistics.median(times) < 1
