"""Starts a Ray node in a container: python ray_node.py head|worker [OPTION OF RAY START...]

`python ray_node.py kernels` takes the compiled kernels of the image to where they can be used, and no more.

The token that all nodes share (RAY_AUTH_TOKEN_PATH) is made by the head where there is none: it exists in its
volume only. What is not secret (ports, CPUs) stands in docker-compose.yml.

A worker may be started before the head: it waits for it. At SIGTERM the head first waits for its runners to
leave checkpoints, then stops Ray. So workers, which train until then, are to be stopped after the head.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import end_runners

# Ray sends SIGTERM to a job that is stopped, and SIGKILL so many seconds later. A runner needs them to leave
# a checkpoint.
STOP_WAIT_S = 45
# A node that is told to stop waits so long for its actors to leave. Ours stay until they are ended.
DRAIN_S = 3
LOOK_S = 0.2
KERNELS = Path("/opt/distbp/kernels")


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


def take_kernels(image: Path = KERNELS) -> None:
    """Copies what the image has compiled to NUMBA_CACHE_DIR, where that is not there yet: Numba wants a
    folder that it can write to. Two at once do it twice, and one of them counts."""
    cache = Path(os.environ.get("NUMBA_CACHE_DIR", ""))
    if cache == Path() or cache.exists() or not image.is_dir():
        return
    new = cache.with_name(f".{cache.name}.{secrets.token_hex(4)}")
    try:
        shutil.copytree(image, new)
        new.rename(cache)
    except OSError:  # they will be compiled
        shutil.rmtree(new, ignore_errors=True)


def object_store_bytes(shared_memory: str = "/dev/shm") -> int:
    """Most of the container's shared memory. (Left alone, Ray wants 30 % of all memory, and keeps objects
    in files where shared memory is smaller than that.)"""
    found = os.statvfs(shared_memory)
    return int(0.8 * found.f_blocks * found.f_frsize)


def await_head(token: Path, address: str) -> None:
    """Waits, for as long as it takes, until the token is there and `address` (HOST:PORT) can be reached."""
    host, port = address.rsplit(":", 1)
    while True:
        if token.exists():
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
                return
        time.sleep(LOOK_S)


def hold(command: list[str]) -> int:
    """Runs Ray's head until it ends, or until SIGTERM: then first its runners end, then Ray. Returns Ray's
    status, as a shell would."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    with subprocess.Popen(command) as ray:
        while ray.poll() is None and not asked:
            time.sleep(LOOK_S)
        if asked:
            end_runners.main()
            ray.terminate()
        status = ray.wait()
    return status if status >= 0 else 128 - status


def main(role: str, options: list[str]) -> None:
    take_kernels()
    if role == "kernels":
        return
    command = ["ray", "start", "--block", "--disable-usage-stats", *options]
    command.append(f"--object-store-memory={object_store_bytes()}")
    os.environ.setdefault("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", str(DRAIN_S))
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    if role == "head":
        make_token(token)
        os.environ.setdefault("RAY_JOB_STOP_WAIT_TIME_S", str(STOP_WAIT_S))
        sys.exit(hold([*command, "--head"]))
    address = next(o.removeprefix("--address=") for o in options if o.startswith("--address="))
    await_head(token, address)
    os.execvp(command[0], command)  # Ray hears the signals itself


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
