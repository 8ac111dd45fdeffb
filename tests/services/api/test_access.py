"""Who may call what: every route, with no token, a wrong scope, another project's ids, and a bad body."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_kit import Api, make_api, operations, problem_of
from distbp_service.api import Limits, check_protected, config_from_settings
from distbp_service.api.config import is_loopback
from distbp_service.store import Store

from distbp.core.errors import SettingsError

JOB, MODEL = "job_" + "0" * 20, "mdl_" + "0" * 20
DATASET, TOKEN = "ds_" + "0" * 64, "0" * 12

# (method, path): (a token whose scopes do not allow it, whether ids in it belong to a project, takes JSON)
USERS: dict[tuple[str, str], tuple[str, bool, bool]] = {
    ("POST", "/v1/jobs"): ("reads", False, True),
    ("POST", "/v1/jobs:validate"): ("submits", False, True),
    ("GET", "/v1/jobs"): ("submits", False, False),
    ("GET", "/v1/jobs/{job_id}"): ("submits", True, False),
    ("DELETE", "/v1/jobs/{job_id}"): ("reads", True, False),
    ("POST", "/v1/jobs/{job_id}:cancel"): ("submits", True, False),
    ("POST", "/v1/jobs/{job_id}:pause"): ("reads", True, False),
    ("POST", "/v1/jobs/{job_id}:resume"): ("reads", True, False),
    ("POST", "/v1/jobs/{job_id}:scale"): ("reads", True, True),
    ("GET", "/v1/jobs/{job_id}/events"): ("manages", True, False),
    ("GET", "/v1/jobs/{job_id}/events:stream"): ("manages", True, False),
    ("GET", "/v1/jobs/{job_id}/metrics"): ("manages", True, False),
    ("GET", "/v1/jobs/{job_id}/metrics:stream"): ("manages", True, False),
    ("GET", "/v1/jobs/{job_id}/logs"): ("manages", True, False),
    ("GET", "/v1/jobs/{job_id}/logs:stream"): ("manages", True, False),
    ("GET", "/v1/jobs/{job_id}/checkpoints"): ("manages", True, False),
    ("GET", "/v1/jobs/{job_id}/checkpoints/{step}"): ("manages", True, False),
    ("GET", "/v1/models"): ("submits", False, False),
    ("GET", "/v1/models/{model_id}"): ("submits", True, False),
    ("GET", "/v1/models/{model_id}/download"): ("submits", True, False),
    ("GET", "/v1/models/{model_id}/inputs"): ("submits", True, False),
    ("POST", "/v1/models/{model_id}:predict"): ("submits", True, True),
    ("DELETE", "/v1/models/{model_id}"): ("reads", True, False),
    ("POST", "/v1/datasets"): ("reads", False, False),
    ("GET", "/v1/datasets"): ("submits", False, False),
    ("GET", "/v1/datasets/{dataset_id}"): ("submits", True, False),
    ("DELETE", "/v1/datasets/{dataset_id}"): ("reads", True, False),
    ("GET", "/v1/tokens"): ("manages", False, False),
    ("POST", "/v1/tokens"): ("manages", False, True),
    ("DELETE", "/v1/tokens/{token_id}"): ("manages", True, False),
    ("GET", "/v1/whoami"): ("submits", False, False),
    ("GET", "/v1/usage"): ("submits", False, False),
}
RUNNERS = {
    ("GET", "/v1/runner/jobs/{job_id}"): False,
    ("POST", "/v1/runner/jobs/{job_id}/reports"): True,
    ("POST", "/v1/runner/jobs/{job_id}/heartbeats"): True,
    ("GET", "/v1/runner/jobs/{job_id}/datasets/{dataset_id}"): False,
}
OPEN = {
    ("POST", "/v1/sign-in"),
    ("POST", "/v1/runner/claims"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
}
BODIES = {
    "/v1/jobs/{job_id}:scale": {"workers": 2},
    "/v1/models/{model_id}:predict": {"inputs": [[1.0, 2.0]]},
    "/v1/runner/jobs/{job_id}/reports": {"attempt": 1, "seq": 1},
    "/v1/runner/jobs/{job_id}/heartbeats": {"attempt": 1},
}


def address(path: str, job: str = JOB) -> str:
    return path.format(job_id=job, model_id=MODEL, dataset_id=DATASET, token_id=TOKEN, step=5)


def body_of(path: str) -> dict[str, Any]:
    return {"json": BODIES[path]} if path in BODIES else {}


def test_the_tables_have_every_route() -> None:
    assert set(operations()) == {*USERS, *RUNNERS, *OPEN}


def test_no_token_and_wrong_tokens_open_nothing(api: Api) -> None:
    wrong = api.tokens["all"][:-1] + ("a" if api.tokens["all"][-1] != "a" else "b")
    for method, path in [*USERS, *RUNNERS]:
        answer = api.call(method, address(path), "")
        problem_of(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == 'Bearer realm="distbp"'
        problem_of(api.call(method, address(path), wrong), 401, "unauthorized")
    for text in ("", "Bearer", "Bearer ", "Basic YWxs", f"Token {api.tokens['all']}", "Bearer é"):
        problem_of(api.call("GET", "/v1/whoami", "", headers={"Authorization": text.encode()}), 401)
    problem_of(api.call("GET", f"/v1/whoami?token={api.tokens['all']}", ""), 401)


def test_scopes_are_kept_apart(api: Api) -> None:
    job = api.submit()
    for (method, path), (token, _, _) in USERS.items():
        body = problem_of(api.call(method, address(path, job), token), 403, "forbidden")
        assert "it needs the scope" in body["message"]
    for method, path in RUNNERS:
        problem_of(api.call(method, address(path, job), "all"), 403, "forbidden")
    assert api.store.jobs.get("blue", job).state == "queued"


def test_another_projects_ids_are_unknown(api: Api) -> None:
    job = api.submit()
    for (method, path), (_, has_ids, _) in USERS.items():
        if has_ids:
            found = problem_of(api.call(method, address(path, job), "other", **body_of(path)), 404)
            unknown = problem_of(api.call(method, address(path), "other", **body_of(path)), 404)
            assert found["message"].replace(job, JOB) == unknown["message"]  # they look the same
    assert api.call("GET", "/v1/jobs", "other").json()["items"] == []
    assert api.store.jobs.get("blue", job).state == "queued"


def test_bad_bodies_are_refused_everywhere(api: Api) -> None:
    job_id = api.submit()
    leased, runner = api.start()
    assert leased.id == job_id
    routes = [(*route, "all") for route, row in USERS.items() if row[2]]
    routes += [(*route, runner) for route, takes in RUNNERS.items() if takes]
    for method, path, token in routes:
        there = address(path, job_id)
        for content, status, code in [
            (b"", 422, "invalid"),
            (b"[]", 422, "invalid"),
            (b'"text"', 422, "invalid"),
            (b'{"unheard_of": 1}', 422, "invalid"),
            (b"{", 400, "bad_json"),
            (b"\xff\xfe", 400, "bad_json"),
            (b'{"a": 1, "a": 2}', 400, "bad_json"),
            (b'{"a": NaN}', 400, "bad_json"),
            (b'{"a": 1e999}', 400, "bad_json"),
            (b'{"a": ' + b"9" * 500 + b"}", 400, "bad_json"),
            (b"[" * 900 + b"]" * 900, 400, "bad_json"),
            (b'{"a\\u0000": 1}', 422, "invalid"),
            (b'{"a": "\\ud800"}', 422, "invalid"),
        ]:
            headers = {"Content-Type": "application/json"}
            problem_of(api.call(method, there, token, content=content, headers=headers), status, code)
        problem_of(api.call(method, there, token, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
        problem_of(api.call(method, there, token, content=b"{}"), 415, "unsupported_media_type")


def test_parameters_that_do_not_exist_are_named(api: Api) -> None:
    body = problem_of(api.call("GET", "/v1/jobs?stat=queued"), 422, "invalid")
    assert body["message"] == "there is no parameter 'stat' here; known are: cursor, limit, name, state"


def test_a_token_that_is_revoked_or_expired_opens_nothing(api: Api) -> None:
    made = api.call("POST", "/v1/tokens", json={"scopes": ["read"], "name": "laptop"}).json()
    assert api.call("GET", "/v1/whoami", made["secret"]).json()["token"]["name"] == "laptop"
    listed = api.call("GET", "/v1/tokens").json()["items"]
    assert made["token"]["id"] in [token["id"] for token in listed]
    assert made["secret"] not in str(listed)
    assert api.call("DELETE", f"/v1/tokens/{made['token']['id']}").json()["revoked_at"] is not None
    problem_of(api.call("GET", "/v1/whoami", made["secret"]), 401)
    _, expired = api.store.tokens.create("blue", ("read",), expires_at=1.0)
    problem_of(api.call("GET", "/v1/whoami", expired), 401)


def test_a_token_is_for_its_own_project_only(api: Api) -> None:
    made = api.call("POST", "/v1/tokens", "other", json={"scopes": ["admin"]}).json()
    assert made["token"]["project"] == "red"
    answer = api.call("POST", "/v1/tokens", "other", json={"scopes": ["admin"], "project": "blue"})
    problem_of(answer, 422)


def test_hosts_and_origins(api: Api) -> None:
    for host in (
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "",
        "localhost@evil",
        "a/b",
        "[::",
    ):
        problem_of(api.call("GET", "/v1/jobs", headers={"Host": host}), 400, "bad_host")
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1"):
        assert api.call("GET", "/v1/jobs", headers={"Host": host}).status_code == 200
    assert api.call("GET", "/livez", "", headers={"Host": "10.0.0.7:8000"}).status_code == 200
    for origin in ("https://evil.example", "null", "http://localhost.evil.example", "http://testserver:81"):
        for method in ("GET", "POST"):
            answer = api.call(method, "/v1/jobs", headers={"Origin": origin})
            problem_of(answer, 403, "bad_origin")
            assert "access-control-allow-origin" not in answer.headers
    assert api.call("GET", "/v1/jobs", headers={"Origin": "http://testserver"}).status_code == 200


def test_every_answer_carries_the_headers_that_protect(api: Api) -> None:
    for path, token in [("/livez", ""), ("/v1/jobs", "all"), ("/v1/jobs", ""), ("/nowhere", "all")]:
        headers = api.call("GET", path, token).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["x-frame-options"] == "DENY"
    assert api.call("GET", "/v1/jobs").headers["cache-control"] == "no-store"


def test_unknown_addresses_and_methods(api: Api) -> None:
    problem_of(api.call("GET", "/v1/nothing"), 404, "not_found")
    answer = api.call("PUT", "/v1/whoami")
    problem_of(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]
    for page in ("/docs", "/redoc"):
        problem_of(api.call("GET", page), 404)  # FastAPI's load scripts from elsewhere


def test_a_bug_tells_nothing_to_the_caller(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object, **more: object) -> None:
        raise RuntimeError("the secret of the database")

    monkeypatch.setattr(api.store.jobs, "page", fail)
    answer = api.call("GET", "/v1/jobs")
    body = problem_of(answer, 500, "internal")
    assert body["message"] == "the service failed; its log has it"
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "the secret of the database" in caplog.text  # it goes to the log, whole


def test_a_database_that_is_away_is_tried_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    def fail(*args: object, **more: object) -> None:
        raise OperationalError("SELECT secret", {}, Exception("gone"))

    monkeypatch.setattr(api.store.jobs, "page", fail)
    answer = api.call("GET", "/v1/jobs")
    problem_of(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "secret" not in answer.text


def test_health(api: Api, tmp_path: Any) -> None:
    assert api.call("GET", "/livez", "").json() == {"status": "ok"}
    assert api.call("GET", "/readyz", "").json()["status"] == "ready"
    service = api.app.state.service
    api.app.state.service = replace(service, dispatcher_seen=service.places.dispatcher_seen)
    answer = api.call("GET", "/readyz", "")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"database": "ok", "dispatcher": "has given no sign yet"}
    (api.work / "dispatcher.alive").touch()
    assert api.call("GET", "/readyz", "").status_code == 200


def test_prometheus_reads_totals_and_no_names(api: Api) -> None:
    job = api.submit()
    api.call("GET", f"/v1/jobs/{job}")
    page = api.call("GET", "/metrics", "").text
    assert 'distbp_jobs{state="queued"} 1.0' in page
    assert 'distbp_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"} 1.0' in page
    assert job not in page and "blue" not in page


def test_prometheus_may_need_a_token(tmp_path: Any) -> None:
    api = make_api(tmp_path, metrics_open=False)
    problem_of(api.call("GET", "/metrics", ""), 401)
    assert api.call("GET", "/metrics", "reads").status_code == 200
    api.runner.close()
    api.store.close()


def test_it_does_not_listen_unprotected(tmp_path: Any) -> None:
    store = Store(f"sqlite:///{tmp_path}/empty.db")
    for address_ in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        assert is_loopback(address_)
        check_protected(address_, store)
    for address_ in ("0.0.0.0", "::", "192.168.1.5", "myhost", ""):
        with pytest.raises(SettingsError, match="there is no token yet"):
            check_protected(address_, store)
    store.tokens.create("blue", ("read",))
    check_protected("0.0.0.0", store)
    store.close()


@pytest.mark.heavy
def test_the_api_is_no_ray_driver() -> None:
    code = "import sys, distbp_service.api; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_the_dashboard_is_served_beside_the_api(tmp_path: Path) -> None:
    folder = tmp_path / "page"
    (folder / "js").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "js" / "main.js").write_text("1")
    (tmp_path / "secret").write_text("secret")
    (folder / "js" / "link.js").symlink_to(tmp_path / "secret")
    api = make_api(tmp_path, dashboard=folder)
    for path in ("/", "/index.html", "/js/main.js"):
        answer = api.call("GET", path, "")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    for path in ("/js/../../secret", "/js/%2e%2e/%2e%2e/secret", "/js/link.js", "/js/", "/secret", "/v1/x"):
        problem_of(api.call("GET", path, ""), 404)
    answer = api.call("PUT", "/v1/whoami")
    problem_of(answer, 405)
    assert answer.headers["allow"]
    api.runner.close()
    api.store.close()


def test_settings_say_how_the_api_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = config_from_settings(tmp_path)
    assert found.data_folder is None and found.hosts == ("localhost", "127.0.0.1", "[::1]")
    assert (found.limits, found.metrics_open) == (Limits(), True)
    monkeypatch.setenv("DISTBP_SERVICE_HOSTS", "api, api.example.org")
    monkeypatch.setenv("DISTBP_SERVICE_METRICS", "token")
    monkeypatch.setenv("DISTBP_SERVICE_DATASET_BYTES", "1MiB")
    found = config_from_settings(tmp_path)
    assert found.hosts[3:] == ("api", "api.example.org")
    assert (found.limits.dataset_bytes, found.metrics_open) == (2**20, False)
    monkeypatch.setenv("DISTBP_SERVICE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"is not a folder\. Make it, or unset the variable"):
        config_from_settings(tmp_path)


def test_allow_names_all_that_an_address_answers_to(api: Api) -> None:
    by_path: dict[str, set[str]] = {}
    for method, path in operations():
        by_path.setdefault(path, set()).add(method)
    for path, methods in by_path.items():
        there = path.replace("{job_id}", "job_" + "0" * 20).replace("{model_id}", "mdl_" + "0" * 20)
        there = there.replace("{dataset_id}", "ds_" + "0" * 64).replace("{token_id}", "0" * 12)
        answer = api.call("OPTIONS", there.replace("{step}", "1"))
        problem_of(answer, 405)
        assert set(answer.headers["allow"].split(", ")) == methods, path


def test_a_verb_is_no_part_of_an_id(api: Api) -> None:
    job = "/v1/jobs/job_" + "0" * 20
    answer = api.call("GET", f"{job}:scale", json={"workers": 1})
    problem_of(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    problem_of(api.call("GET", f"{job}:dance"), 404, "not_found")
    there = "there is no :cancle of this; known are :cancel, :pause, :resume, :scale"
    assert problem_of(api.call("POST", f"{job}:cancle"), 404, "not_found")["message"] == there
    model = "/v1/models/mdl_" + "0" * 20
    there = "there is no :evaluate of this; known are :predict"
    assert problem_of(api.call("POST", f"{model}:evaluate"), 404, "not_found")["message"] == there


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        (
            "POST",
            "/v1/jobs",
            {"job": {}, "prioritty": 3},
            "prioritty: is not known here; did you mean 'priority'? known: deadline_s, job, priority",
        ),
        ("POST", "/v1/jobs", {"epochs": 3}, "job: is required (and 1 more)"),
        ("POST", "/v1/jobs", {"job": "x"}, "job: must be a valid JSON object"),
        ("POST", "/v1/jobs", {"job": {}, "priority": 101}, "priority: must be less than or equal to 100"),
        ("POST", "/v1/tokens", {"scopes": []}, "scopes: must have at least 1 item, not 0"),
        (
            "POST",
            "/v1/tokens",
            {"scopes": ["reed"]},
            "scopes.0: must be 'read', 'submit', 'manage' or 'admin'",
        ),
        (
            "POST",
            "/v1/tokens",
            {"scopes": ["read"], "name": "a\nb"},
            "name: must be text in one line, without control characters",
        ),
        ("GET", "/v1/models?cursor=x", None, "cursor: must be an id of a model, as mdl_01j9ze3k8xq2v5w7y0ab"),
        ("GET", "/v1/jobs?name=%2f", None, "name: must be 1 to 100 letters, digits, spaces, '.', '_' or '-'"),
    ],
)
def test_what_is_wrong_with_a_field_is_said_with_what_is_allowed(
    api: Api, method: str, path: str, body: Any, message: str
) -> None:
    assert problem_of(api.call(method, path, json=body), 422, "invalid")["message"] == message
