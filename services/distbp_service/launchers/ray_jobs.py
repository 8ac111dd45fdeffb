"""Runners as jobs of a Ray cluster."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from distbp_service.launchers.base import ClusterAwayError, Handle, LaunchError, Start, last_line


class RayJobs:
    """Runners as jobs of a Ray cluster, through the REST API of its dashboard. This process never joins the
    cluster, so it survives the cluster's end.

    client: makes a `ray.job_submission.JobSubmissionClient`, or a replacement; called when it is first
    needed. work, data: as in `distbp_service.runner`, on a volume that the cluster's nodes share. timeout_s:
    of one call.
    """

    wants: ClassVar[Literal["token", "claim"]] = "claim"

    def __init__(
        self,
        client: Callable[[], Any],
        work: Path,
        *,
        data: Path | None = None,
        command: Sequence[str] = ("python", "-P", "-m", "distbp_service.runner"),
        timeout_s: float = 20.0,
    ) -> None:
        self._make = client
        self._client: Any = None
        self._work = work
        self._data = data
        self._command = tuple(command)
        self._timeout_s = timeout_s
        # The client may hang as long as the head node does, so it has a thread of its own.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ray-jobs")

    @staticmethod
    def connect(address: str) -> Callable[[], Any]:
        """A function that makes a client for the dashboard at `address`, such as http://head:8265. Set
        RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH for this process, too: without them Ray's client sends no
        token, but Ray's head requires one."""

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
            # A duplicate id gives a general error. If the job exists, an earlier call succeeded.
            if not self.alive(handle):
                raise
        return handle

    def alive(self, handle: Handle) -> bool:
        try:
            status = self._call("get_job_status", handle["submission"])
        except _UnknownJobError:
            return False
        return str(getattr(status, "value", status)) in ("PENDING", "RUNNING")

    def last_words(self, handle: Handle) -> str:
        with suppress(LaunchError):
            return last_line(str(self._call("get_job_logs", handle["submission"])))
        return ""

    def stop(self, handle: Handle) -> None:
        with suppress(_UnknownJobError):
            self._call("stop_job", handle["submission"])

    def kill(self, handle: Handle, timeout_s: float = 30.0) -> None:
        # Ray itself kills a job that does not end a few seconds after it was stopped.
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
            failure: LaunchError = ClusterAwayError(
                f"the Ray cluster did not answer within {self._timeout_s:g} s"
            )
        except Exception as error:
            # Ray's client raises RuntimeError for every answer that is not 200, with status and body in its
            # text. The text may hold the entry point with the secret, so it is not kept, not even as the
            # cause.
            if isinstance(error, OSError):  # also the ConnectionError of Ray's HTTP client
                failure = ClusterAwayError(f"the Ray cluster cannot be reached ({type(error).__name__})")
            elif "does not exist" in str(error) and "404" in str(error):
                failure = _UnknownJobError("the Ray cluster knows no such job")
            else:
                failure = LaunchError(f"the Ray cluster refused {name} ({type(error).__name__})")
        raise failure


class _UnknownJobError(LaunchError):
    pass
