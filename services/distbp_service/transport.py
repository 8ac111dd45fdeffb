"""A runner's calls to the API, by HTTP or, in tests, by another transport of httpx (ASGITransport)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx

from distbp.core.errors import DataError
from distbp.core.storage import explained
from distbp_service.errors import FencedError, OutOfOrderError, ServiceError
from distbp_service.reports import Answer, Assignment, Report

TIMEOUT_S = 10.0
_BLOCK = 1 << 20


class AwayError(ServiceError):
    """The API does not answer, or asks to try again later."""

    code = "unavailable"
    status = 503


class RefusedError(ServiceError):
    """The API will never accept this call."""

    code = "refused"
    status = 400


class Transport(Protocol):
    """Every call raises AwayError (try again), FencedError (stop) or RefusedError (a fault)."""

    def assignment(self) -> Assignment: ...

    def report(self, report: Report) -> Answer: ...

    def heartbeat(self, progress: Mapping[str, Any] | None, disk: int | None = None) -> Answer: ...

    def fetch_dataset(self, dataset_id: str, path: Path) -> None:
        """Writes the dataset's bytes to `path`. Raises DataError if their digest is not that of the id."""


class HttpTransport:
    """`client`: its base_url is the API's address."""

    def __init__(self, client: httpx.Client, job_id: str, attempt: int, token: str) -> None:
        self._client = client
        self._base = f"/v1/runner/jobs/{job_id}"
        self._attempt = attempt
        self._headers = {"Authorization": f"Bearer {token}"}

    def assignment(self) -> Assignment:
        return Assignment(**self._call("GET", self._base))

    def report(self, report: Report) -> Answer:
        return Answer(**self._call("POST", f"{self._base}/reports", report.to_json()))

    def heartbeat(self, progress: Mapping[str, Any] | None, disk: int | None = None) -> Answer:
        body = {"attempt": self._attempt, "progress": progress, "disk": disk}
        return Answer(**self._call("POST", f"{self._base}/heartbeats", body))

    def fetch_dataset(self, dataset_id: str, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.{self._attempt}")
        digest = hashlib.sha256()
        try:
            with (
                self._client.stream(
                    "GET", f"{self._base}/datasets/{dataset_id}", headers=self._headers
                ) as answer,
                explained(path),
            ):
                if answer.status_code != 200:
                    answer.read()
                    raise _refusal(answer)
                with open(temporary, "wb") as file:
                    for block in answer.iter_bytes(_BLOCK):
                        digest.update(block)
                        file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
        except httpx.TransportError as error:
            raise AwayError(f"the API does not answer: {error}") from error
        if f"ds_{digest.hexdigest()}" != dataset_id:
            temporary.unlink()
            raise DataError(f"the dataset {dataset_id} arrived damaged; upload it again")
        temporary.replace(path)

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return _send(self._client, method, path, body, self._headers)


def claim(client: httpx.Client, job_id: str, attempt: int, code: str) -> str:
    """Exchanges a claim code for the runner token; waits. Raises as Transport does."""
    body = {"job": job_id, "attempt": attempt, "code": code}
    return str(_send(client, "POST", "/v1/runner/claims", body, {})["token"])


def _send(
    client: httpx.Client, method: str, path: str, body: Any, headers: Mapping[str, str]
) -> dict[str, Any]:
    try:
        answer = client.request(method, path, json=body, headers=headers, timeout=TIMEOUT_S)
    except httpx.TransportError as error:
        raise AwayError(f"the API does not answer: {error}") from error
    if answer.status_code not in (200, 201, 202):
        raise _refusal(answer)
    body_in: dict[str, Any] = answer.json()
    return body_in


def _refusal(answer: httpx.Response) -> ServiceError:
    try:
        body = answer.json()
    except ValueError:
        body = {}
    message = str(body.get("message") or f"HTTP status {answer.status_code}")
    code = body.get("code")
    if answer.status_code >= 500 or answer.status_code in (408, 425, 429):
        return AwayError(message)
    if code == "out_of_order":
        return OutOfOrderError(message, int(body["expected"]))
    # A token that is no longer valid and a job that was deleted mean the same as fenced.
    if code == "fenced" or answer.status_code in (401, 403, 404):
        return FencedError(message)
    return RefusedError(message)
