"""A job's way through the API, seen by its user and by its runner."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from api_kit import JOB, Api, make_api, problem_of
from distbp_service.api import Limits
from distbp_service.api.schemas import _eta_s
from distbp_service.policy import Room


def test_nobody_says_how_long_batches_of_all_rows_take() -> None:
    progress = {"step": 10, "total_steps": 110, "samples_per_second": 64.0}
    for batch, left in ((32, 50.0), ("full", None)):
        job: Any = SimpleNamespace(state="running", progress=progress, job={"batch_size": batch})
        assert _eta_s(job) == left


def test_submit_watch_and_read(api: Api) -> None:
    answer = api.call("POST", "/v1/jobs", json={"job": JOB, "priority": 5, "deadline_s": 60})
    assert answer.status_code == 202
    job_id = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/jobs/{job_id}"
    job, token = api.start()
    assert (job.priority, job.slots) == (5, 1)
    given = api.call("GET", f"/v1/runner/jobs/{job_id}", token).json()
    assert given["attempt"] == 1 and given["job"]["name"] == "blobs"
    start = {"kind": "attempt_started", "from_step": 0, "at": 5.0, "shards": 1}
    lines = [{"step": s, "epoch": 1, "train_loss": 1.0 / s} for s in (1, 2)]
    answer = api.report(job, token, 1, events=[start], metrics=lines, log="hello\n")
    assert answer.json() == {"received": 1, "command": None, "workers": None, "disk": 64 * 2**30}
    assert api.report(job, token, 1, events=[start]).json()["received"] == 1  # heard before
    late = problem_of(api.report(job, token, 4), 409, "out_of_order")
    assert late["expected"] == 2
    assert api.call("POST", f"/v1/jobs/{job_id}:scale", json={"workers": 3}).status_code == 202
    beat = {"attempt": 1, "progress": {"step": 2}}
    assert api.call("POST", f"/v1/runner/jobs/{job_id}/heartbeats", token, json=beat).json() == {
        "received": 1,
        "command": None,
        "workers": 3,
        "disk": 64 * 2**30,
    }
    assert api.call("POST", f"/v1/jobs/{job_id}:pause").json()["state"] == "pausing"
    answer = api.call("POST", f"/v1/runner/jobs/{job_id}/heartbeats", token, json=beat)
    assert answer.json()["command"] == "pause"
    assert api.report(job, token, 2, end={"outcome": "interrupted"}).status_code == 200
    assert api.call("GET", f"/v1/jobs/{job_id}").json()["state"] == "paused"
    assert api.call("POST", f"/v1/jobs/{job_id}:resume").json()["state"] == "queued"
    problem_of(api.report(job, token, 3), 409, "fenced")

    job, token = api.start()
    end = {
        "outcome": "completed",
        "result": {"steps": 2, "metrics": {"train_loss": 0.5}},
        "model": {"path": f"{job_id}/run/model", "bytes": 10, "params_sha256": "ab"},
    }
    start["from_step"] = 2
    assert api.report(job, token, 1, events=[start], end=end).status_code == 200
    detail = api.call("GET", f"/v1/jobs/{job_id}").json()
    assert detail["state"] == "completed"
    assert detail["result"]["steps"] == 2 and detail["metrics"] == {"train_loss": 0.5}
    assert [a["outcome"] for a in detail["attempts"]] == ["interrupted", "completed"]
    assert api.call("GET", f"/v1/models/{detail['model_id']}").json()["job_id"] == job_id
    metrics = api.call("GET", f"/v1/jobs/{job_id}/metrics?from=2&points=2").json()
    assert metrics == {
        "items": [{"step": 2, "attempt": 1, "data": {"step": 2, "epoch": 1, "train_loss": 0.5}}],
        "total": 1,
    }
    events = api.call("GET", f"/v1/jobs/{job_id}/events?limit=1000").json()
    assert [e["number"] for e in events["items"]] == list(range(1, events["after"] + 1))
    rest = api.call("GET", f"/v1/jobs/{job_id}/events?after={events['after']}").json()
    assert rest == {"items": [], "after": events["after"]}


def test_every_fault_of_a_job_is_named(api: Api) -> None:
    bad = {**JOB, "epochs": 0, "losss": "mse", "optimizer": {"type": "adam", "learning_rate": -1}}
    for path in ("/v1/jobs", "/v1/jobs:validate"):
        body = problem_of(api.call("POST", path, json={"job": bad}), 422, "invalid_job")
        assert {fault["path"] for fault in body["faults"]} >= {"epochs", "losss", "optimizer.learning_rate"}
    valid = api.call("POST", "/v1/jobs:validate", json={"job": JOB}).json()
    assert valid["job"]["optimizer"]["type"] == "adam"
    assert valid["digest"] == api.store.jobs.get("blue", api.submit()).digest


def test_the_same_key_is_the_same_job(api: Api) -> None:
    headers = {"Idempotency-Key": "abc-1"}
    answers = [api.call("POST", "/v1/jobs", json={"job": JOB}, headers=headers) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [a.headers.get("idempotency-replayed") for a in answers] == [None] + ["true"] * 19
    other = api.call("POST", "/v1/jobs", json={"job": {**JOB, "seed": 2}}, headers=headers)
    assert problem_of(other, 409, "conflict")["param"] == "Idempotency-Key"
    again = api.call("POST", "/v1/jobs", "other", json={"job": JOB}, headers=headers)
    assert again.status_code == 202  # another project's keys are its own
    assert len(api.call("GET", "/v1/jobs").json()["items"]) == 1
    for bad in ("", "x" * 201, "a b"):
        problem_of(api.call("POST", "/v1/jobs", json={"job": JOB}, headers={"Idempotency-Key": bad}), 422)


def test_pages_and_filters(api: Api) -> None:
    ids = [api.submit(name=f"job {n}") for n in range(5)]
    first = api.call("GET", "/v1/jobs?limit=2").json()
    second = api.call("GET", f"/v1/jobs?limit=2&cursor={first['cursor']}").json()
    third = api.call("GET", f"/v1/jobs?limit=2&cursor={second['cursor']}").json()
    assert [j["id"] for page in (first, second, third) for j in page["items"]] == ids[::-1]
    assert third["cursor"] is None
    api.call("POST", f"/v1/jobs/{ids[0]}:cancel")
    assert [j["id"] for j in api.call("GET", "/v1/jobs?state=cancelled").json()["items"]] == [ids[0]]
    assert len(api.call("GET", "/v1/jobs?state=cancelled&state=queued").json()["items"]) == 5
    assert [j["id"] for j in api.call("GET", "/v1/jobs?name=JOB%203").json()["items"]] == [ids[3]]
    for query in ("limit=0", "limit=1001", "state=sleeping", "cursor=x", "name=%00", "limit=" + "9" * 5000):
        problem_of(api.call("GET", f"/v1/jobs?{query}"), 422, "invalid")


def test_a_job_goes_with_its_files_and_its_model_stays(api: Api) -> None:
    job_id = api.submit()
    problem_of(api.call("DELETE", f"/v1/jobs/{job_id}"), 409, "conflict")
    job, token = api.start()
    run = api.work / job_id / "run"
    for name in ("model", "checkpoints/step-00000001"):
        (run / name).mkdir(parents=True)
    (run / "job.yaml").write_text("x")
    end = {"outcome": "completed", "model": {"path": f"{job_id}/run/model", "bytes": 1}}
    assert api.report(job, token, 1, end=end).status_code == 200
    assert api.call("DELETE", f"/v1/jobs/{job_id}").status_code == 204
    assert sorted(path.name for path in api.work.rglob("*") if job_id in str(path.parent)) == ["model", "run"]
    problem_of(api.call("GET", f"/v1/jobs/{job_id}"), 404)
    assert len(api.call("GET", "/v1/models").json()["items"]) == 1
    second = api.submit()
    api.call("POST", f"/v1/jobs/{second}:cancel")
    (api.work / second).mkdir()
    assert api.call("DELETE", f"/v1/jobs/{second}").status_code == 204
    assert not (api.work / second).exists()


@pytest.mark.parametrize("order", [("jobs", "models"), ("models", "jobs")])
def test_a_job_and_its_model_are_gone_when_both_were_deleted(api: Api, order: tuple[str, str]) -> None:
    job_id = api.submit()
    job, token = api.start()
    model = api.work / job_id / "run" / "model"
    model.mkdir(parents=True)
    (model / "weights.safetensors").write_bytes(bytes(5000))
    (model.parent / "metrics.jsonl").write_text("{}\n")
    end = {"outcome": "completed", "model": {"path": f"{job_id}/run/model", "bytes": 5000}}
    assert api.report(job, token, 1, disk=9000, end=end).status_code == 200
    assert api.call("GET", "/v1/usage").json()["disk_bytes"] == {"used": 9000, "most": 64 * 2**30}
    ids = {"jobs": job_id, "models": api.call("GET", "/v1/models").json()["items"][0]["id"]}
    assert api.call("DELETE", f"/v1/{order[0]}/{ids[order[0]]}").status_code == 204
    assert model.exists() == (order[0] == "jobs")
    left = 5000 if order[0] == "jobs" else 4000
    assert api.call("GET", "/v1/usage").json()["disk_bytes"]["used"] == left
    assert api.call("DELETE", f"/v1/{order[1]}/{ids[order[1]]}").status_code == 204
    assert not (api.work / job_id).exists()
    assert api.call("GET", "/v1/usage").json()["disk_bytes"]["used"] == 0
    assert api.call("GET", "/v1/models").json()["items"] == []


def test_what_can_never_run_is_refused_with_the_figures(api: Api) -> None:
    wide = {**JOB, "workers": 4096, "shards": 1024, "batch_size": 4096}
    assert api.call("POST", "/v1/jobs:validate", json={"job": {**wide, "workers": 1024}}).status_code == 200
    api.store.queue.announce(Room(2), 2**30)
    for path in ("/v1/jobs", "/v1/jobs:validate"):
        body = problem_of(api.call("POST", path, json={"job": {**wide, "workers": 1024}}), 422, "invalid_job")
        assert body["faults"] == [
            {
                "path": "workers",
                "message": "needs 1,024 slots, and the service has 2: it could never start; ask for at most"
                " 2",
            }
        ]
        ranged = {**wide, "workers": {"min": 3, "max": 8}}
        body = problem_of(api.call("POST", path, json={"job": ranged}), 422, "invalid_job")
        assert body["faults"][0]["path"] == "workers.min"
        for units in (10**6, 10**9, 10**12):
            layers = [{"type": "dense", "units": units}, {"type": "dense", "units": units}]
            body = problem_of(api.call("POST", path, json={"job": {**JOB, "model": {"layers": layers}}}), 422)
            (fault,) = body["faults"]
            assert fault["path"] == "model.layers.1"
            assert "of memory (" in fault["message"] and "service's machine has 1.0 GiB" in fault["message"]
    assert api.submit(workers={"min": 1, "max": 8}, shards=8)
    problem_of(api.call("POST", f"/v1/jobs/{api.submit()}:scale", json={"workers": 9}), 422, "invalid")


def test_a_job_that_waits_says_why_and_one_that_runs_when_it_ends(api: Api) -> None:
    api.store.queue.announce(Room(1))
    first, second = api.submit(), api.submit()
    job, token = api.start()
    waits = second if job.id == first else first
    found = api.call("GET", f"/v1/jobs/{waits}").json()
    assert found["reason"] == found["waiting"]["message"]
    assert found["reason"] == "needs 1 slot of 1, and none is free (in use: blue 1); place 1 in line"
    assert found["waiting"] == {
        "why": "slots",
        "message": found["reason"],
        "needed": 1,
        "free": 0,
        "slots": 1,
        "in_use": [{"project": "blue", "slots": 1, "jobs": 1}],
        "place": 1,
        "retry_at": None,
    }
    listed = {one["id"]: one for one in api.call("GET", "/v1/jobs").json()["items"]}
    assert listed[waits]["waiting"] == found["waiting"] and listed[job.id]["waiting"] is None
    start = {"kind": "attempt_started", "from_step": 0}
    progress: dict[str, Any] = {"step": 10, "total_steps": 110, "samples_per_second": 64.0}
    assert api.report(job, token, 1, events=[start], progress=progress).status_code == 200
    assert api.call("GET", f"/v1/jobs/{job.id}").json()["eta_s"] == 50.0
    assert api.report(job, token, 2, progress={**progress, "samples_per_second": "x"}).status_code == 200
    assert api.call("GET", f"/v1/jobs/{job.id}").json()["eta_s"] is None
    usage = api.call("GET", "/v1/usage").json()
    assert usage["slots"] == {"used": 1, "most": 1} and usage["waiting"]["used"] == 2


def test_a_job_without_a_deadline_gets_that_of_the_service(tmp_path: Path) -> None:
    api = make_api(tmp_path, Limits(deadline_s=600.0))
    for given, after in ((None, 600.0), (5.0, 5.0)):
        body = {"job": JOB} if given is None else {"job": JOB, "deadline_s": given}
        found = api.call("POST", "/v1/jobs", json=body).json()
        assert found["deadline_at"] == found["created_at"] + after
    api.runner.close()
    api.store.close()


def test_a_runner_speaks_for_its_own_attempt_only(api: Api) -> None:
    api.submit()
    api.submit()
    one, token = api.start()
    two, _ = api.start()
    problem_of(api.report(two, token, 1), 404)
    problem_of(api.call("GET", f"/v1/runner/jobs/{two.id}", token), 404)
    body = {"attempt": 2, "seq": 1}
    problem_of(api.call("POST", f"/v1/runner/jobs/{one.id}/reports", token, json=body), 409, "fenced")
    for path in ("../../etc", "/etc/passwd", f"{two.id}/run/model", f"{one.id}/../{two.id}", f"{one.id}//x"):
        end = {"outcome": "completed", "model": {"path": path, "bytes": 1}}
        body = problem_of(api.report(one, token, 1, end=end), 422)
        assert body["param"] == "end.model.path"
    for fields in (
        {"events": [{"kind": "attempt_started"}]},
        {"events": [{"kind": "State!"}]},
        {"metrics": [{"step": -1}]},
        {"metrics": [{"step": 2**63}]},
        {"metrics": [{"loss": 1}]},
        {"log": "x" * (2**20 + 1)},
        {"end": {"outcome": "vanished"}},
    ):
        problem_of(api.report(one, token, 1, **fields), 422)
    assert api.store.jobs.get("blue", one.id).event_count == 2


def test_a_claim_code_works_once(api: Api) -> None:
    api.submit()
    lease = api.store.queue.lease(10, 60.0)
    assert lease is not None
    code = api.store.queue.issue_claim(lease.job.id, 1, 60.0)
    body: dict[str, Any] = {"job": lease.job.id, "attempt": 1, "code": code}
    problem_of(api.call("POST", "/v1/runner/claims", "", json={**body, "code": "x"}), 409, "fenced")
    token = api.call("POST", "/v1/runner/claims", "", json=body).json()["token"]
    assert api.call("GET", f"/v1/runner/jobs/{lease.job.id}", token).status_code == 200
    problem_of(api.call("POST", "/v1/runner/claims", "", json=body), 409, "fenced")


def test_whoami(api: Api) -> None:
    me = api.call("GET", "/v1/whoami", "reads").json()
    assert (me["token"]["project"], me["token"]["scopes"]) == ("blue", ["read"])
    assert me["token"]["created_at"] <= time.time()
