"""How a runner is started: as a process of this machine, or through the Ray Jobs API.

A launcher keeps nothing in memory that it needs: `handle(job, attempt)` can be worked out again, so another
dispatcher finds the runners of one that was killed.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from services.errors import ServiceError

Handle = Mapping[str, Any]


class LaunchError(ServiceError):
    """A runner could not be started, or nobody can say how it is."""

    code = "launch"
    status = 503


@dataclass(frozen=True)
class Start:
    """What to start. `secret`: a token or a claim code, as the launcher's `wants` says."""

    job_id: str
    attempt: int
    api_url: str
    secret: str


class Launcher(Protocol):
    """`wants`: the secret it hands on. "token": nobody else can see it. "claim": others may, so it is a code
    that works once, and for minutes.

    Every call but `handle` may raise LaunchError: it is not known what happened.
    """

    wants: ClassVar[Literal["token", "claim"]]

    def handle(self, job_id: str, attempt: int) -> Handle:
        """By which this runner is known; plain values that JSON holds."""

    def start(self, start: Start) -> Handle:
        """Starts a runner. Where this attempt was started before, that one stays the only one."""

    def alive(self, handle: Handle) -> bool:
        """Whether it runs, or waits to."""

    def stop(self, handle: Handle) -> None:
        """Asks it to leave a checkpoint and end; does not wait. Fine where it is gone."""

    def kill(self, handle: Handle) -> None:
        """Ends it, and waits until it is gone. Fine where it is gone."""


class LocalProcess:
    """Runners as processes of this machine, each a session of its own. They outlive the dispatcher.

    folder: the work volume; a job's folder in it gets `runner-N.json` (its process) and `runner-N.log`.
    data: see `services.runner`. The token goes through a pipe: no argument, environment or file holds it.
    """

    wants: ClassVar[Literal["token", "claim"]] = "token"

    def __init__(
        self,
        folder: Path,
        *,
        data: Path | None = None,
        command: Sequence[str] = (sys.executable, "-m", "services.runner"),
    ) -> None:
        self._folder = folder.absolute()
        self._data = data
        self._command = tuple(command)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def handle(self, job_id: str, attempt: int) -> Handle:
        return {"launcher": "local", "job": job_id, "attempt": attempt}

    def start(self, start: Start) -> Handle:
        handle = self.handle(start.job_id, start.attempt)
        path = self._pidfile(handle)
        if path.exists():
            return handle
        arguments = ["--job", start.job_id, "--attempt", str(start.attempt), "--api", start.api_url]
        arguments += ["--work", str(self._folder), "--token-fd", "0"]
        if self._data is not None:
            arguments += ["--data", str(self._data)]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path.with_suffix(".log"), "ab") as log:
                child = subprocess.Popen(
                    [*self._command, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            # The runner does nothing before it has its token, and ends where it gets none. So if we are
            # killed here, there is no runner that nobody knows of.
            self._children[child.pid] = child
            temporary = path.with_suffix(".tmp")
            temporary.write_text(
                json.dumps({"pid": child.pid, "started": _started(child.pid), "boot": _boot()})
            )
            temporary.replace(path)
            assert child.stdin is not None
            with suppress(BrokenPipeError), child.stdin:
                child.stdin.write(start.secret.encode("ascii"))
        except OSError as error:
            raise LaunchError(f"the runner could not be started: {error}") from error
        return handle

    def alive(self, handle: Handle) -> bool:
        return self._pid(handle) is not None

    def stop(self, handle: Handle) -> None:
        self._signal(handle, signal.SIGTERM)

    def kill(self, handle: Handle, timeout_s: float = 10.0) -> None:
        pid = self._pid(handle)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            gone = os.pidfd_open(pid)
            try:
                if self._pid(handle) != pid:
                    return
                os.killpg(pid, signal.SIGKILL)  # it leads its session: its workers too
                poll = select.poll()
                poll.register(gone, select.POLLIN)
                if not poll.poll(timeout_s * 1000):
                    raise LaunchError(f"process {pid} does not end, although it was killed")
            finally:
                os.close(gone)
        self._reap(pid)

    def _signal(self, handle: Handle, number: signal.Signals) -> None:
        pid = self._pid(handle)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            same = os.pidfd_open(pid)
            try:
                # The number may have passed to another process: what is open now is checked once more.
                if self._pid(handle) == pid:
                    signal.pidfd_send_signal(same, number)
            finally:
                os.close(same)

    def _pid(self, handle: Handle) -> int | None:
        """Of the living process; None where it has ended (or never began)."""
        try:
            found = json.loads(self._pidfile(handle).read_text())
        except FileNotFoundError:
            return None
        pid = int(found["pid"])
        self._reap(pid)
        same = found["boot"] == _boot() and found["started"] is not None and found["started"] == _started(pid)
        return pid if same else None

    def _reap(self, pid: int) -> None:
        child = self._children.get(pid)
        if child is not None and child.poll() is not None:
            del self._children[pid]

    def _pidfile(self, handle: Handle) -> Path:
        return self._folder / str(handle["job"]) / f"runner-{int(handle['attempt'])}.json"


def _started(pid: int) -> int | None:
    """When the process began, in ticks since the machine did; None where it is gone, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class RayJobs:
    """Runners as jobs of a Ray cluster, through the REST API of its dashboard. This process never joins the
    cluster, so it outlives it.

    client: makes a `ray.job_submission.JobSubmissionClient`, or what can stand in for one; called when first
    needed. work, data: as `services.runner` has them, on a volume that the cluster's nodes share.
    timeout_s: of one call.
    """

    wants: ClassVar[Literal["token", "claim"]] = "claim"

    def __init__(
        self,
        client: Callable[[], Any],
        work: Path,
        *,
        data: Path | None = None,
        command: Sequence[str] = ("python", "-m", "services.runner"),
        timeout_s: float = 20.0,
    ) -> None:
        self._make = client
        self._client: Any = None
        self._work = work
        self._data = data
        self._command = tuple(command)
        self._timeout_s = timeout_s
        # The client may hang for as long as the head node does: it has a thread of its own to hang in.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ray-jobs")

    @staticmethod
    def connect(address: str) -> Callable[[], Any]:
        """Of the dashboard, such as http://head:8265. It takes Ray's token from where Ray does."""

        def make() -> Any:
            from ray.job_submission import JobSubmissionClient

            return JobSubmissionClient(address)

        return make

    def handle(self, job_id: str, attempt: int) -> Handle:
        return {"launcher": "ray", "submission": f"{job_id}-{attempt}"}

    def start(self, start: Start) -> Handle:
        handle = self.handle(start.job_id, start.attempt)
        arguments = ["--job", start.job_id, "--attempt", str(start.attempt), "--api", start.api_url]
        arguments += ["--work", str(self._work), "--claim", start.secret]
        if self._data is not None:
            arguments += ["--data", str(self._data)]
        entry = shlex.join([*self._command, *arguments])
        try:
            self._call("submit_job", entrypoint=entry, submission_id=handle["submission"])
        except LaunchError:
            # A duplicate id is answered like any error. If the job is there, an earlier try had come through.
            if not self.alive(handle):
                raise
        return handle

    def alive(self, handle: Handle) -> bool:
        try:
            status = self._call("get_job_status", handle["submission"])
        except _UnknownJobError:
            return False
        return str(getattr(status, "value", status)) in ("PENDING", "RUNNING")

    def stop(self, handle: Handle) -> None:
        with suppress(_UnknownJobError):
            self._call("stop_job", handle["submission"])

    def kill(self, handle: Handle, timeout_s: float = 30.0) -> None:
        # Ray itself kills what does not end a few seconds after it was asked to.
        self.stop(handle)
        deadline = time.monotonic() + timeout_s
        while self.alive(handle):
            if time.monotonic() > deadline:
                raise LaunchError(f"Ray job {handle['submission']} does not end, although it was stopped")
            time.sleep(0.2)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        def call() -> Any:
            if self._client is None:
                self._client = self._make()
            return getattr(self._client, name)(*arguments, **named)

        try:
            return self._thread.submit(call).result(self._timeout_s)
        except FutureTimeout:
            failure = LaunchError(f"the Ray cluster did not answer within {self._timeout_s:g} s")
        except Exception as error:
            # Ray's client raises RuntimeError for every answer that is not 200, with status and body in its
            # text. That text may hold the entry point, so it goes nowhere, not even along as the cause.
            unknown = "does not exist" in str(error) and "404" in str(error)
            failure = (
                _UnknownJobError("the Ray cluster knows no such job")
                if unknown
                else LaunchError(f"the Ray cluster refused {name} ({type(error).__name__})")
            )
        raise failure


class _UnknownJobError(LaunchError):
    pass
