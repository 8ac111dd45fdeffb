"""The profile `postgres` for real. `make compose-test`; skipped where there is no Docker engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import job, local, same_bits, submit
from stack import Stack, image_of, missing

pytestmark = pytest.mark.compose
URL = "postgresql://distbp@/distbp?host=/var/run/postgresql"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    why = missing()
    if why is not None:
        pytest.skip(why)
    image = image_of("postgres:17-bookworm", "postgres")
    stack = Stack(POSTGRES_IMAGE=image, DISTBP_SERVICE_DATABASE=URL, COMPOSE_PROFILES="postgres")
    try:
        stack.build()
        print(f"healthy after {stack.up():.0f} s, the database is {image}")
        yield stack
    finally:
        stack.down()
    assert stack.left() == ""


def test_a_job_is_kept_in_a_database_that_only_a_socket_reaches(stack: Stack, tmp_path: Path) -> None:
    [database] = stack.containers("postgres")
    found = stack.inspect(database)
    assert found["HostConfig"]["NetworkMode"] == "none"
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["Config"]["User"] == "999:999"

    handle = submit(stack, job(5))
    same_bits(handle.wait(timeout_s=240), local(job(5), tmp_path))

    ask = ["psql", "-U", "distbp", "-d", "distbp", "-Atc", "select state from jobs"]
    assert stack.compose("exec", "-T", "postgres", *ask) == "completed"
    files = stack.compose("exec", "-T", "api", "ls", "/var/lib/distbp/service")
    assert "distbp.db" not in files

    # What is written outlives the database's container.
    stack.compose("rm", "--stop", "--force", "postgres")
    stack.up()
    assert handle.status()["state"] == "completed"
