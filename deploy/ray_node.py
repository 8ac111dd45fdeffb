"""Starts a Ray node in a container: python ray_node.py head|worker [OPTION OF RAY START...]

The token that all nodes share (RAY_AUTH_TOKEN_PATH) is made by the head where there is none: it exists in its
volume only. What is not secret (ports, CPUs) stands in docker-compose.yml.
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

# Ray sends SIGTERM to a job that is stopped, and SIGKILL so many seconds later. A runner needs them to leave
# a checkpoint.
STOP_WAIT_S = 45
# A node that is told to stop waits so long for its actors to leave. Ours stay until they are ended.
DRAIN_S = 3


def make_token(path: Path) -> None:
    """Makes the token, where there is none; readable by this user only. Two at once agree on one."""
    if path.exists():
        return
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(new, path)
    new.unlink()


def object_store_bytes(shared_memory: str = "/dev/shm") -> int:
    """Most of the container's shared memory. (Left alone, Ray wants 30 % of all memory, and keeps objects
    in files where shared memory is smaller than that.)"""
    found = os.statvfs(shared_memory)
    return int(0.8 * found.f_blocks * found.f_frsize)


def main(role: str, options: list[str]) -> None:
    command = ["ray", "start", "--block", "--disable-usage-stats", *options]
    command.append(f"--object-store-memory={object_store_bytes()}")
    os.environ.setdefault("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", str(DRAIN_S))
    if role == "head":
        make_token(Path(os.environ["RAY_AUTH_TOKEN_PATH"]))
        command.append("--head")
        os.environ.setdefault("RAY_JOB_STOP_WAIT_TIME_S", str(STOP_WAIT_S))
    os.execvp(command[0], command)  # Ray hears the signals itself


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
