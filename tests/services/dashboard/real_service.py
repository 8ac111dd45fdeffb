"""The real API and its store, in this process, for the page to talk to; and what a runner would report."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from distbp_service.store import Store


@dataclass
class Real:
    store: Store
    address: str
    token: str
    app: Any
    work: Path

    def submit(self, run: dict[str, Any]) -> str:
        answer = httpx.post(
            f"{self.address}/v1/jobs",
            json={"job": run["job"]},
            headers={"Authorization": f"Bearer {self.token}"},
            trust_env=False,
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def runner(self) -> Runner:
        """A runner of the next job in the queue, as far as the API knows."""
        lease = self.store.queue.lease(1000, 60.0)
        assert lease is not None
        token = self.store.queue.issue_token(lease.job.id, lease.attempt)
        return Runner(f"{self.address}/v1/runner/jobs/{lease.job.id}/reports", token, lease.attempt)

    def finished(self, run: Path, name: str, job: dict[str, Any]) -> tuple[str, str]:
        """A job that ended with the files of a run directory: its id, and that of its model."""
        job_id = self.submit({"job": {**job, "name": name}})
        runner = self.runner()
        shutil.copytree(run, self.work / job_id / "run")
        started = {"kind": "attempt_started", "from_step": 0, "attempt": 1, "total_steps": 9, "shards": 1}
        told = {"rows": {"train": 60, "validation": 20}, "notes": ["columns left out: 'note'"]}
        skipped = {"train": {"a wrong number of cells": 3}}
        runner.report(events=[{**started, **told, "skipped": skipped}])
        model = {"path": f"{job_id}/run/model", "bytes": 4096}
        runner.report(end={"outcome": "completed", "result": {"metrics": {"test_loss": 0.5}}, "model": model})
        found = self.store.models.of_job("blue", job_id)
        assert found is not None
        return job_id, found.id


@dataclass
class Runner:
    url: str
    token: str
    attempt: int
    seq: int = 0

    def report(self, **fields: Any) -> dict[str, Any]:
        self.seq += 1
        answer = httpx.post(
            self.url,
            json={"attempt": self.attempt, "seq": self.seq, **fields},
            headers={"Authorization": f"Bearer {self.token}"},
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found
