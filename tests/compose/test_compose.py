"""The compose file for real. `make compose-test`; skipped where there is no Docker engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import job, local, same_bits, submit
from stack import ROOT, Stack, docker, eventually, missing

pytestmark = pytest.mark.compose


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    why = missing()
    if why is not None:
        pytest.skip(why)
    stack = Stack()
    try:
        stack.build()
        stack.healthy_after_s = stack.up()
        print(f"healthy after {stack.healthy_after_s:.0f} s")
        yield stack
    finally:
        stack.down()
    assert stack.left() == ""


def trains(handle: Any, after: int = 0) -> None:
    def further() -> bool:
        status = handle.status()
        assert status["state"] not in ("completed", "failed", "cancelled"), status
        return status["state"] == "running" and (status["progress"] or {}).get("step", 0) > after

    eventually(further, f"training past step {after}", 240)


def test_healthy_in_time(stack: Stack) -> None:
    assert stack.healthy_after_s < 90


def test_the_ten_lines_of_the_readme(stack: Stack) -> None:
    page = (ROOT / "README.md").read_text("utf-8").partition("## As a service")[2]
    lines = page.partition("```python\n")[2].partition("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=ROOT,
        env={**os.environ, "DISTBP_URL": stack.url, "DISTBP_TOKEN": stack.token()},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    accuracy, predicted = done.stdout.splitlines()[-2:]
    assert float(accuracy.removeprefix("test accuracy ")) > 0.95
    found, wanted = predicted.removeprefix("[").removesuffix("]").split("] [")
    assert len(wanted.split()) == 10
    assert sum(a == b for a, b in zip(found.split(), wanted.split(), strict=True)) >= 8


def test_confined_and_unpublished(stack: Stack) -> None:
    containers = {name: stack.inspect(name) for name in stack.containers()}
    assert len(containers) == 5
    published = []
    for found in containers.values():
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert found["Config"]["User"] == "10001:10001"
        assert host["Memory"] > 0
        assert host["PidsLimit"] > 0
        published += [p for ports in found["NetworkSettings"]["Ports"].values() for p in ports or ()]
    assert [(p["HostIp"], p["HostPort"]) for p in published] == [("127.0.0.1", str(stack.port))]
    secret = stack.compose("exec", "-T", "head", "cat", "/var/lib/distbp/ray/token")
    seen = json.dumps(list(containers.values())) + docker("history", "--no-trunc", "distbp:test")
    for word in (secret, stack.token()):
        assert len(word) >= 40
        assert word not in seen


def test_the_root_file_system_cannot_be_written(stack: Stack) -> None:
    for service in ("head", "worker", "api", "dispatcher"):
        with pytest.raises(AssertionError, match="Read-only file system"):
            stack.compose("exec", "-T", service, "touch", "/opt/distbp/x")


def test_rays_dashboard_wants_the_token(stack: Stack) -> None:
    ask = "import urllib.request as r; r.urlopen('http://head:8265/api/jobs/', timeout=10)"
    with pytest.raises(AssertionError, match="401"):
        stack.compose("exec", "-T", "dispatcher", "python", "-c", ask)


def test_two_worker_containers_train_to_the_bits_of_one_process(stack: Stack, tmp_path: Path) -> None:
    handle = submit(stack, job(20))
    result = handle.wait(timeout_s=300)
    same_bits(result, local(job(20), tmp_path))
    assert "ray objects" in result.exchange  # more than one node


def test_a_worker_the_head_and_the_api_are_killed(stack: Stack, tmp_path: Path) -> None:
    long = job(600)
    handle = submit(stack, long)
    trains(handle)
    docker("kill", stack.containers("worker")[0])
    stack.up()  # Docker restarts a container that crashes, but not one that somebody has killed
    trains(handle, handle.status()["progress"]["step"])
    docker("kill", *stack.containers("head"))
    eventually(lambda: handle.status()["state"] != "running", "the lost head noticed", 240)
    # Does not wait for health: on a busy machine workers are unhealthy until they find the new head.
    stack.compose("up", "--detach", "--no-build", "--scale", "worker=2")
    trains(handle)
    docker("kill", *stack.containers("api"))
    stack.up()
    result = handle.wait(timeout_s=600)
    same_bits(result, local(long, tmp_path))
    steps = [row["step"] for row in handle.metrics().rows]
    assert steps == sorted(set(steps))
    assert len(steps) == long.epochs


def test_a_stop_leaves_checkpoints_and_a_start_goes_on(stack: Stack, tmp_path: Path) -> None:
    long = job(400)
    handle = submit(stack, long)
    trains(handle, 20)
    stack.compose("stop")
    stack.up()
    result = handle.wait(timeout_s=600)
    same_bits(result, local(long, tmp_path))
    assert result.attempt >= 2
    assert handle.status()["attempts"][-1]["from_step"] > 0
    assert "interrupted" in json.dumps(handle.status()["attempts"])
