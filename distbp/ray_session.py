"""Connecting to Ray: a cluster that is there, or one embedded in this machine for the time of a run."""

from __future__ import annotations

import atexit
import functools
import importlib
import importlib.util
import logging
import secrets
import shutil
import sys
import tempfile
import threading
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from distbp import settings
from distbp.errors import ExchangeError
from distbp.imports import missing, without_collections

if TYPE_CHECKING:
    from distbp.head_start import HeadStart

# Ray is imported within the functions: it reads its authentication mode from the environment when it is first
# imported, and keeps it. So with what it prints: by default it writes a paragraph to stdout, among the output
# of the command, for every worker that dies, though the team goes on without it.
_QUIET = MappingProxyType({"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"})


_IMPORTED_BEFORE = (
    "this program imported Ray before distbp started one, without token authentication, and Ray keeps what it"
    " was imported with. Train before the first `import ray`, or call ray.init() first: distbp joins that Ray"
)


def installed() -> bool:
    """Whether there is a Ray to train on: a slim install has none."""
    return importlib.util.find_spec("ray") is not None


def _without_token() -> bool:
    """Whether this process has imported Ray in a mode in which it cannot be a driver of `_own_token`'s."""
    if "ray" not in sys.modules:
        return False
    raylet: Any = importlib.import_module("ray._raylet")
    return bool(raylet.get_authentication_mode() != raylet.AuthenticationMode.TOKEN)


def join_early(workers: int | str | None, address: str | None) -> AbstractContextManager[RaySession | None]:
    """A connection to a cluster that is there, made at once; None where it is not sure that one is needed.

    For a program that begins with it: while it imports its other modules and reads the job, the processes of
    the team are started. Raises ExchangeError.
    """
    address = address or str(settings.get("RAY_ADDRESS")) or None
    if address is None or not isinstance(workers, int) or workers == 0:
        return nullcontext()
    session = RaySession(workers, address, workers)
    try:
        session.wait()
    except BaseException:
        session.close()
        raise
    return session


class RaySession:
    """This process as a Ray driver, from `wait` to `close`.

    Joins `address`, else RAY_ADDRESS, else whatever this process is connected to already; else starts a Ray
    of its own with `cpus` logical CPUs: no dashboard, token authentication, ended by `close`. The constructor
    does not wait: Ray starts in a thread, which takes seconds and leaves the signal handlers of the main
    thread alone. That thread lives as long as the session, since the kernel ends an embedded Ray together
    with the thread that started it.

    `head_start`: the server and the first `workers` of a team, started as soon as Ray is there; known from
    `wait` on. None without workers.
    """

    def __init__(self, cpus: int, address: str | None = None, workers: int = 0) -> None:
        self.head_start: HeadStart | None = None
        self._workers, self._kernels = workers, str(settings.get("DISTBP_KERNELS"))
        self._stack = ExitStack()
        self._error: BaseException | None = None
        self._ready, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            self._start_early()
            return
        if not installed():
            self._error = ExchangeError(missing("training on workers", "Ray", "ray") + "; or say workers: 0")
            return
        address = address or str(settings.get("RAY_ADDRESS")) or None
        if not address and _without_token():
            self._error = ExchangeError(_IMPORTED_BEFORE)
            return
        self._stack.enter_context(settings.environment({**_QUIET, **({} if address else _own_token())}))
        self._thread = threading.Thread(
            target=self._live, args=(address, cpus), name="distbp-ray", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Waits until Ray is there. Raises ExchangeError where it cannot be started or reached."""
        if self._thread is not None:
            self._ready.wait()
        if self._error is not None:
            raise self._error

    @property
    def left(self) -> bool:
        return self._over.is_set()

    def leave(self) -> None:
        """Begins to leave Ray, as `close` does, and does not wait for it."""
        self._over.set()

    def close(self) -> None:
        """Leaves Ray (and ends it, if it was started here). May be called twice."""
        if self.head_start is not None:
            self.head_start.dismiss()
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _live(self, address: str | None, cpus: int) -> None:
        try:
            _connect(address, cpus)
            self._start_early()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._ready.set()
        import ray

        self._over.wait()
        ray.shutdown()

    def _start_early(self) -> None:
        if self._workers:
            from distbp.head_start import HeadStart

            self.head_start = HeadStart(self._workers, self._kernels)


def _connect(address: str | None, cpus: int) -> None:
    with without_collections():
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
    except Exception as error:  # of any class: a slow start is a bare Exception
        if address is None:
            raise ExchangeError(f"Ray cannot be started on this machine: {error}") from None
        raise ExchangeError(
            f"the Ray cluster at {address} cannot be reached ({error}); is it running, and are RAY_AUTH_MODE"
            " and RAY_AUTH_TOKEN_PATH set as there?"
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
    }
