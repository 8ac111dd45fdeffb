"""`Service`, `connect` and `submit`: a service, as a user's program sees it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distbp.client import arguments as given
from distbp.client.handle import JobHandle
from distbp.client.names import JOB_ID
from distbp.client.transport import Transport, fields
from distbp.client.transport import connect as _connect
from distbp.job import TrainingJob
from distbp.run.train import Data


class Service:
    """A service as seen with one token: the jobs, models and datasets of one project. `connect` makes it. Use
    it in a `with` statement, or call `close`. Its methods raise RemoteError, UnreachableError."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.url = transport.access.url

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        self.transport.close()

    def __repr__(self) -> str:
        return f"Service({self.url!r})"

    def submit(
        self,
        job: TrainingJob,
        data: Data | None = None,
        *,
        folder: str | Path = ".",
        upload: bool = True,
        priority: int = 0,
        deadline_s: float | None = None,
        key: str | None = None,
    ) -> JobHandle:
        """See `distbp.submit`."""
        from distbp.client.uploads import place_data

        given.job(job)
        held, place = given.data(data, job), given.path("folder", folder)
        body: dict[str, Any] = {"priority": given.whole("priority", priority, -100, 100)}
        if deadline_s is not None:
            body["deadline_s"] = given.seconds("deadline_s", deadline_s)
        wanted = "1 to 200 printable characters of ASCII, without spaces"
        # With the key the service makes one job, even if the request must be sent several times.
        key = uuid.uuid4().hex if key is None else given.text("key", key, given.KEY, wanted)
        if given.flag("upload", upload) or held:
            job = place_data(self.transport, job, held, place, files=upload)
        body["job"] = job.to_mapping()
        made = self.transport.call("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key})
        return JobHandle(self.transport, made["id"])

    def ready(self) -> dict[str, Any]:
        """The state of the service: `status`, "ready" or "not ready"; `checks`, for each part "ok" or its
        fault."""
        found: dict[str, Any] = self.transport.call("GET", "/readyz", accepted=(503,))
        return found

    def job(self, job_id: str) -> JobHandle:
        """A handle of the job with this id. Sends no request. Raises RemoteError if it is not an id."""
        return JobHandle(
            self.transport, given.text("job_id", job_id, re.compile(JOB_ID), "an id as job_01j9...")
        )

    def jobs(
        self, *, states: tuple[str, ...] = (), name: str | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """The project's jobs, newest first, as mappings (`id`, `name`, `state`, `metrics`, ...). states: the
        states to list; empty: all. name: a text that names must contain. limit: the most jobs."""
        if name is not None:
            given.text("name", name, given.NAME, "1 to 100 letters, digits, spaces, '.', '_' or '-'")
        return self._pages("/v1/jobs", limit, {"state": given.states("states", states) or None, "name": name})

    def models(self, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """The project's models, newest first. limit: the most models."""
        return self._pages("/v1/models", limit, {})

    def datasets(self, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """The project's datasets, in the order of their ids. limit: the most datasets."""
        return self._pages("/v1/datasets", limit, {})

    def _pages(self, path: str, limit: int | None, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if limit is not None:
            limit = given.whole("limit", limit, 0, 10**9)
        return self._each(path, limit, params)

    def _each(self, path: str, limit: int | None, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        cursor, left = None, limit
        while left is None or left > 0:
            size = 200 if left is None else min(left, 200)
            page = self.transport.call(
                "GET", path, params=fields({**params, "limit": size, "cursor": cursor})
            )
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            cursor = page["cursor"]
            if cursor is None:
                return


def connect(url: str | None = None, token: str | None = None, *, patience_s: float | None = None) -> Service:
    """The service at `url`; None: the address in DISTBP_URL, or the one that `distbp serve` wrote down for
    this user. token: the token; None: that in DISTBP_TOKEN, or the token that `distbp serve` wrote down for
    this address. patience_s: seconds for which a service that has answered before may be away before an error
    is raised; None: 60. Sends no request.

    Raises UnreachableError if no service is known, SettingsError, and RemoteError for a wrong argument.
    """
    return Service(_connect(url, token, patience_s))


def submit(
    job: TrainingJob,
    data: Data | None = None,
    *,
    folder: str | Path = ".",
    upload: bool = True,
    priority: int = 0,
    deadline_s: float | None = None,
    key: str | None = None,
    url: str | None = None,
    token: str | None = None,
) -> JobHandle:
    """Submits `job` to a service and returns a handle. Waits for uploads, not for the job; `.wait()` does.

    data: arrays or frames, as for `train`; they are uploaded unless the service has them. folder: the folder
    to which paths in the job are relative. upload: whether to upload files that exist on this machine, unless
    the service has them; all other files must be files of the service. priority: -100 to 100, higher runs
    first. deadline_s: seconds from now after which the job fails. key: the same key always gives the same
    job; None: a new job. url, token: see `connect`.

    Raises JobError with every fault, DataError, UnreachableError, RemoteError (if its `param` names an
    argument at fault, nothing was sent).
    """
    service = connect(url, token)
    return service.submit(
        job, data, folder=folder, upload=upload, priority=priority, deadline_s=deadline_s, key=key
    )
