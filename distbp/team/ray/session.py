"""Connects to Ray: to a running cluster, or to an embedded Ray on this machine, for the time of a run.

An embedded Ray is for this process alone. Its folder is private, it listens on this machine only, it requires
a token, and a keeper (see `distbp.team.ray.keeper`) ends it with this process.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.util
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from distbp.core import settings
from distbp.core.errors import ExchangeError
from distbp.core.imports import missing, without_collections
from distbp.team.ray import keeper as ray_keeper
from distbp.team.ray.embedding import embedded, keeps_signals

if TYPE_CHECKING:
    from distbp.team.ray.head_start import HeadStart

# Only functions import Ray, because Ray reads the environment at its first import and keeps the settings: the
# authentication mode, and what to print. By default it prints a paragraph to stdout, among the output of the
# command, for every worker that dies, although the team goes on without that worker.
_QUIET = MappingProxyType({"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"})
# The path of a socket has at most 107 bytes. Ray's own names below its folder take 66 of them.
_LONGEST_BASE = 20
_LOOK_S = 0.05
# Ray gives up its start after 30 s, which can be too short on a busy machine. Its error then has these words.
_STARTS, _TOO_SLOW = 4, "timed out during startup"

_IMPORTED_BEFORE = (
    "this program imported Ray before distbp started one, without token authentication, and Ray keeps what it"
    " was imported with. Train before the first `import ray`, or call ray.init() first: distbp joins that Ray"
)

_FORKED = (
    "this process was forked from one that had used Ray, so Ray would wait for ever in it. Start processes"
    " with multiprocessing.get_context('spawn'), or set workers: 0"
)


@functools.cache
def _first_user() -> int:
    """The id of the first process that called this: this process, or one from which it was forked."""
    return os.getpid()


def _connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def installed() -> bool:
    """Whether Ray is installed."""
    return sys.modules.get("ray") is not None or importlib.util.find_spec("ray") is not None


def _without_token() -> bool:
    """Whether this process has imported Ray without token authentication, which an embedded Ray requires."""
    if "ray" not in sys.modules:
        return False
    raylet: Any = importlib.import_module("ray._raylet")
    return bool(raylet.get_authentication_mode() != raylet.AuthenticationMode.TOKEN)


def join_early(workers: int | str | None, address: str | None) -> AbstractContextManager[RaySession | None]:
    """A connection to a running cluster; waits for it. None if it is not certain that the job needs one.

    A program calls this first. The processes of the team then start while the program imports its other
    modules and reads the job. Raises ExchangeError if the cluster cannot be reached."""
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

    If this process is connected already, it uses that connection. Otherwise it joins `address`, or else
    RAY_ADDRESS. Otherwise it starts a Ray of its own with `cpus` logical CPUs, without a dashboard, with
    token authentication; `close` ends it.

    The constructor does not wait. Ray starts in a thread, which takes seconds and leaves the signal handlers
    of the main thread alone. The thread lives as long as the session, because the kernel ends an embedded Ray
    together with the thread that started it.

    head_start: the server and the first `workers` of a team, which start as soon as Ray is there. It is set
    when `wait` returns, and None without workers."""

    def __init__(self, cpus: int, address: str | None = None, workers: int = 0) -> None:
        self.head_start: HeadStart | None = None
        self._workers, self._kernels = workers, str(settings.get("DISTBP_KERNELS"))
        self._stack = ExitStack()
        self._error: BaseException | None = None
        self._ready, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        if _first_user() != os.getpid():
            self._error = ExchangeError(_FORKED)
            return
        if _connected():
            self._start_early()
            return
        if not installed():
            self._error = ExchangeError(missing("training on workers", "Ray", "ray") + "; or set workers: 0")
            return
        address = address or str(settings.get("RAY_ADDRESS")) or None
        if not address and _without_token():
            self._error = ExchangeError(_IMPORTED_BEFORE)
            return
        home = None if address else _place()
        self._stack.enter_context(settings.environment({**_QUIET, **(_of_its_own(home) if home else {})}))
        self._thread = threading.Thread(
            target=self._live, args=(address, cpus, home), name="distbp-ray", daemon=True
        )
        self._thread.start()

    def wait(self, check: Callable[[], None] = lambda: None) -> None:
        """Waits until Ray is there. Calls `check` meanwhile, which may raise an error.

        Raises ExchangeError if Ray cannot be started or reached."""
        while self._thread is not None and not self._ready.wait(_LOOK_S):
            check()
        if self._error is not None:
            raise self._error

    @property
    def left(self) -> bool:
        """Whether `leave` or `close` has been called."""
        return self._over.is_set()

    def leave(self) -> None:
        """Begins to leave Ray, as `close` does. Does not wait."""
        gc.collect()  # dropping a reference to an object of Ray's while Ray ends would abort the process
        self._over.set()

    def close(self) -> None:
        """Leaves Ray, and ends it if this session started it; waits. May be called twice.

        Ctrl-C takes effect afterward, because a process that exits while Ray starts or ends in it is
        aborted."""
        if not self.left:
            self.leave()
        interrupted: KeyboardInterrupt | None = None
        while self._thread is not None and self._thread.is_alive():
            try:
                self._thread.join()
            except KeyboardInterrupt as error:
                interrupted = error
        if self._thread is None and self.head_start is not None:
            self.head_start.dismiss()
        self._stack.close()
        if interrupted is not None:
            raise interrupted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _live(self, address: str | None, cpus: int, home: Path | None) -> None:
        with ExitStack() as ending:
            try:
                for left in reversed(range(_STARTS)):
                    folder_made = None if home is None else ending.enter_context(_kept(home))
                    try:
                        _connect(address, cpus, home, folder_made)
                        break
                    except ExchangeError as error:
                        if not left or self._over.is_set() or _TOO_SLOW not in str(error):
                            raise
                        ending.close()  # ends the parts of Ray that have started
                self._start_early()
            except BaseException as error:
                self._error = error
                return
            finally:
                self._ready.set()
            import ray

            self._over.wait()
            if self.head_start is not None:
                self.head_start.dismiss()
            ray.shutdown()

    def _start_early(self) -> None:
        if self._workers:
            from distbp.team.ray.head_start import HeadStart

            self.head_start = HeadStart(self._workers, self._kernels)


def _connect(
    address: str | None, cpus: int, home: Path | None, folder_made: Callable[[], None] | None
) -> None:
    with without_collections():
        import ray

    try:
        if home is None or folder_made is None:
            with keeps_signals():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            return
        folder_made()
        token = home / "token"
        token.touch(mode=0o600)
        token.write_text(_token())
        with keeps_signals(), embedded():
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(home / "r"),  # all users may read it, so it lies below a private folder
            )
    except Exception as error:  # any class: a slow start raises a bare Exception
        if address is None:
            raise ExchangeError(f"Ray cannot be started on this machine: {error}") from None
        raise ExchangeError(
            f"the Ray cluster at {address} cannot be reached ({error}); is it running, and are RAY_AUTH_MODE"
            " and RAY_AUTH_TOKEN_PATH set as there?"
        ) from None


def _place() -> Path:
    """The path of the private folder for an embedded Ray. Does not make it."""
    base = os.path.realpath(tempfile.gettempdir())
    return Path(base if len(base) <= _LONGEST_BASE else "/tmp", f"distbp-ray-{secrets.token_hex(4)}")


@contextmanager
def _kept(home: Path) -> Iterator[Callable[[], None]]:
    """Starts a keeper for the private folder `home` and the embedded Ray with its files there. The keeper
    removes both when the block ends, or when this process does. Yields a function that waits until the folder
    is there; it raises OSError if the folder cannot be made."""
    command = [sys.executable, "-I", "-S", ray_keeper.__file__, str(home), str(os.getpid())]
    pipe = subprocess.PIPE
    # The keeper has its own session, so it survives when our process group is killed, as the service does.
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
    ) as keeper:
        assert keeper.stdout is not None
        output = keeper.stdout

        def folder_made() -> None:
            said = output.readline().decode(errors="replace")
            if said != "\n":
                raise OSError(said.strip() or "its keeper has ended")

        try:
            yield folder_made
        finally:
            keeper.communicate(b"end")


@functools.cache
def _token() -> str:
    """The token of this process. It never changes, because Ray reads it only once."""
    return secrets.token_hex(32)


def _of_its_own(home: Path) -> dict[str, str]:
    """Environment variables of an embedded Ray. It refuses other users of the machine. Its workers compete
    with other programs as this process does: by default Ray gives them the niceness 15, with which they get
    3 percent of a processor that another program uses too, and every step waits for the slowest worker."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
        "RAY_worker_niceness": "0",
    }
