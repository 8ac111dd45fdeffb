"""Connecting to Ray: a cluster that is there, or one embedded in this machine for the time of a run."""

from __future__ import annotations

import atexit
import functools
import logging
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distbp import settings
from distbp.errors import ExchangeError

# Ray is imported within the functions: it reads its authentication mode from the environment when it is first
# imported, and keeps it.


@contextmanager
def ray_session(cpus: int, address: str | None = None) -> Iterator[str]:
    """Within the block this process is a Ray driver; gives the address, or "embedded".

    Joins `address`, else RAY_ADDRESS, else whatever this process is connected to already; else starts a Ray
    of its own with `cpus` logical CPUs: no dashboard, token authentication, ended with the block.
    Raises ExchangeError where the cluster cannot be reached.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield "connected"
        return
    address = address or str(settings.get("RAY_ADDRESS")) or None
    with settings.environment({"RAY_USAGE_STATS_ENABLED": "0"} if address else _own_token()):
        _connect(address, cpus)
        import ray

        try:
            yield address or "embedded"
        finally:
            ray.shutdown()


def _connect(address: str | None, cpus: int) -> None:
    import ray

    try:
        if address is not None:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if address is None:
            raise ExchangeError(f"Ray cannot be started on this machine: {error}") from None
        raise ExchangeError(
            f"the Ray cluster at {address} cannot be reached ({error}); is it running, and are RAY_AUTH_MODE and"
            " RAY_AUTH_TOKEN_PATH set as there?"
        ) from None


@functools.cache
def _own_token() -> dict[str, str]:
    """Settings for an embedded Ray that no other user of the machine can use. One token for the life of this
    process: Ray reads it once."""
    folder = Path(tempfile.mkdtemp(prefix="distbp-ray-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
