"""What the fake service holds: jobs in several states, from three recorded runs, and a model."""

from __future__ import annotations

import time
from typing import Any

from fake_service import FakeJob, FakeService, recorded

RUNNING = "job_00000000000000000004"
DONE = "job_00000000000000000003"
FAILED = "job_00000000000000000002"
PAUSED = "job_00000000000000000001"
QUEUED = "job_00000000000000000005"
VALUES = "job_00000000000000000006"
DIVERGED = "job_00000000000000000007"
BEST = "job_00000000000000000008"
WAITING = "job_00000000000000000009"
MODEL = "mdl_00000000000000000001"
FIRST_ROWS = 9  # of the running job


def set_up(service: FakeService) -> None:
    now = time.time()
    adam, momentum, wide = recorded("adam"), recorded("momentum"), recorded("wide")
    _add(service, DONE, adam, "completed", now - 5400, rows=len(adam["metrics"]))
    done = service.jobs[DONE]
    done.result, done.model_id = adam["result"], MODEL
    done.fields["finished_at"] = done.fields["started_at"] + adam["result"]["wall_seconds"]
    _add(service, FAILED, momentum, "failed", now - 90000, rows=3)
    service.jobs[FAILED].fields |= {
        "name": "digits too fast",
        "finished_at": now - 89_990,
        "reason": "a mistake in the job; not tried again",
        "error": {
            "code": "diverged",
            "message": "loss is not finite at step 61: layer 1 (dense), tensor weight, rows 12, 40 and 51 of"
            " the batch. The learning rate 5.0 is likely too high; try 0.5",
        },
    }
    _add(service, PAUSED, wide, "paused", now - 40000, rows=12)
    service.jobs[PAUSED].fields["reason"] = "paused by test"
    _add(service, RUNNING, momentum, "running", now - 9, rows=FIRST_ROWS)
    service.push(RUNNING, progress=progress(service, RUNNING))
    _add(service, QUEUED, momentum, "queued", now - 4, rows=0)
    service.jobs[QUEUED].fields |= {"name": "digits again", "reason": "submitted"}
    metrics = {k: v for k, v in adam["result"]["metrics"].items() if "train" not in k}
    service.models[MODEL] = {
        "id": MODEL,
        "job_id": DONE,
        "name": done.fields["name"],
        "bytes": 29_104,
        "created_at": now - 5300,
        "info": {
            "params_sha256": adam["result"]["params_sha256"],
            "job_digest": adam["digest"],
            "metrics": metrics,
        },
    }


def set_up_more(service: FakeService) -> None:
    """Jobs of which more is to be said: values in place of classes, a run that went wrong, one that stopped
    early and kept its best epoch, and one that waits for room."""
    now = time.time()
    adam = recorded("adam")
    rows = [
        {
            **row,
            **{
                f"validation_{name}": row["validation_loss"] * size
                for name, size in (("mae", 0.7), ("rmse", 1))
            },
            "validation_r2": 1 - row["validation_loss"] / 2,
        }
        for row in adam["metrics"]
    ]
    for row in rows:
        del row["validation_accuracy"]
    _add(
        service,
        VALUES,
        {**adam, "metrics": rows, "job": {**adam["job"], "name": "prices"}},
        "running",
        now - 30,
        rows=12,
    )
    service.push(VALUES, progress={**progress(service, VALUES), "workers": 4}, eta_s=95.0)
    grows = [
        {**row, "train_loss": 2.0 * 3**k, "validation_loss": 2.5 * 3**k, "validation_accuracy": 0.089}
        for k, row in enumerate(adam["metrics"][:10])
    ]
    _add(
        service,
        DIVERGED,
        {**adam, "metrics": grows, "job": {**adam["job"], "name": "digits wild"}},
        "completed",
        now - 300,
        rows=10,
    )
    said = (
        "the training loss ended at 42,156, far above the 2.303 of a constant prediction: the rate is too"
        " high; try a tenth of it"
    )
    wrong = {"diverged": said}
    last = {name: value for name, value in grows[-1].items() if name.endswith(("_loss", "_accuracy"))}
    _end(service, DIVERGED, {**adam["result"], "metrics": last, "unhealthy": wrong, "model_epoch": 10})
    turns = [
        {**row, "validation_loss": row["validation_loss"] if row["epoch"] <= 7 else 2.0 * row["epoch"] / 7}
        for row in adam["metrics"][:12]
    ]
    early = {**adam["job"], "name": "digits early", "early_stopping": {"restore_best": True}}
    _add(service, BEST, {**adam, "metrics": turns, "job": early}, "completed", now - 600, rows=12)
    kept = {name: value for name, value in turns[6].items() if name.endswith(("_loss", "_accuracy"))}
    _end(service, BEST, {**adam["result"], "status": "stopped early", "metrics": kept, "model_epoch": 7})
    service.push(BEST, progress={"step": 240, "total_steps": 480})
    _add(
        service,
        WAITING,
        {**adam, "job": {**adam["job"], "name": "digits waiting"}},
        "queued",
        now - 40,
        rows=0,
    )
    why = "needs 2 slots of 2, and none is free: alpha uses 2; place 3 in line"
    service.push(
        WAITING, reason=why, waiting={"why": "slots", "message": why, "needed": 2, "free": 0, "place": 3}
    )


def _end(service: FakeService, job_id: str, result: dict[str, Any]) -> None:
    job = service.jobs[job_id]
    job.result = result
    job.fields["finished_at"] = job.fields["started_at"] + 30
    job.fields["unhealthy"] = result.get("unhealthy", {})


def progress(service: FakeService, job_id: str) -> dict[str, Any]:
    job = service.jobs[job_id]
    return {
        "step": job.fields["step"] + 7,
        "total_steps": 480,
        "epoch": len(job.rows),
        "samples_per_second": 18_412.5,
    }


def next_row(service: FakeService, job_id: str) -> dict[str, Any]:
    """The recorded row that comes after those the running job has told."""
    row: dict[str, Any] = recorded("momentum")["metrics"][len(service.jobs[job_id].rows)]
    return row


def _add(service: FakeService, job_id: str, run: dict[str, Any], state: str, at: float, *, rows: int) -> None:
    begun = rows > 0
    fields: dict[str, Any] = {
        "id": job_id,
        "name": run["job"]["name"],
        "state": state,
        "reason": None,
        "digest": run["digest"],
        "priority": 0,
        "slots": 1,
        "workers": None,
        "submitted_by": "0123456789ab",
        "created_at": at - 2,
        "updated_at": at,
        "queued_at": at - 2,
        "started_at": at if begun else None,
        "finished_at": None,
        "deadline_at": None,
        "attempt": int(begun),
        "step": 0,
        "progress": None,
        "error": None,
    }
    service.jobs[job_id] = FakeJob(fields, run["job"])
    service.push(
        job_id, event={"kind": "state", "from": None, "to": "queued", "by": "user", "reason": "submitted"}
    )
    if not begun:
        return
    service.jobs[job_id].attempts.append(
        {
            "attempt": 1,
            "state": state if state == "running" else "ended",
            "started_at": at,
            "ended_at": None if state == "running" else at + 30,
            "from_step": 0,
            "outcome": None if state == "running" else state,
            "error": None,
        }
    )
    team = {"from_step": 0, "workers": 3, "exchange": "shared_memory"}
    service.push(job_id, event={"kind": "attempt_started", **run["started"], **team})
    service.push(job_id, log=f"training from step 0 of 480: {run['started']['parameters']} parameters\n")
    for row in run["metrics"][:rows]:
        tell_row(service, job_id, row)


def tell_row(service: FakeService, job_id: str, row: dict[str, Any]) -> None:
    """As a runner tells of an epoch."""
    service.push(
        job_id,
        row=row,
        event={
            "kind": "epoch_ended",
            "epoch": row["epoch"],
            "step": row["step"],
            "samples_per_second": 18_200.0,
            "seconds": 0.07,
            "improved": row["epoch"] % 3 != 0,
        },
        log=f"epoch {row['epoch']}, step {row['step']}: validation_loss {row['validation_loss']}\n",
    )
    if row["epoch"] % 4 == 0:
        service.push(
            job_id,
            event={
                "kind": "checkpoint_saved",
                "step": row["step"],
                "path": f"step-{row['step']:08d}",
                "seconds": 0.012,
            },
        )
