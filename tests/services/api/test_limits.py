"""Rates, sizes and counts, with a clock that the test holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from api_kit import JOB, Api, make_api, problem_of

from services.api import Limits
from services.api.errors import RateError
from services.api.json_text import read_json
from services.api.limits import Buckets, Slots
from services.errors import ServiceError


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    buckets = Buckets(2.0, 3, lambda: now[0])
    for _ in range(3):
        buckets.take("a")
    with pytest.raises(RateError, match="as long as Retry-After says") as caught:
        buckets.take("a")
    assert caught.value.retry_after_s == 1
    buckets.take("b")  # others are not touched
    now[0] = 0.5  # one more, at two a second
    buckets.take("a")
    with pytest.raises(RateError):
        buckets.take("a")
    now[0] = 1000.0  # never more than the burst
    for _ in range(3):
        buckets.take("a")
    with pytest.raises(RateError):
        buckets.take("a")


def test_buckets_are_forgotten_when_there_are_many() -> None:
    buckets = Buckets(1.0, 1, lambda: 0.0)
    for number in range(10_001):
        buckets.take(str(number))
    buckets.take("0")  # its bucket was the one silent for longest
    with pytest.raises(RateError):
        buckets.take("10000")


def test_slots_are_given_back_once() -> None:
    slots = Slots(3, 2)
    first, _ = slots.take("a"), slots.take("a")
    with pytest.raises(RateError, match="too many streams"):
        slots.take("a")
    slots.take("b")
    with pytest.raises(RateError):
        slots.take("c")
    first()
    first()
    assert slots.taken == 2
    slots.take("c")


def test_too_many_requests_are_told_when_to_come_again(tmp_path: Path) -> None:
    api = make_api(tmp_path, Limits(requests_per_s=0.5, requests_burst=2))
    assert [api.call("GET", "/v1/whoami").status_code for _ in range(3)] == [200, 200, 429]
    answer = api.call("GET", "/v1/whoami")
    problem_of(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 2
    assert api.call("GET", "/v1/jobs", "other").status_code == 200
    api.runner.close()
    api.store.close()


def test_bodies_that_are_too_large_are_not_read(api: Api) -> None:
    taken = []

    async def endless():  # type: ignore[no-untyped-def]
        for _ in range(10_000):
            taken.append(1)
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    answer = api.call("POST", "/v1/tokens", content=endless(), headers=headers)
    problem_of(answer, 413, "too_large")
    assert answer.headers["connection"] == "close"
    assert len(taken) <= 4  # the limit is 2,000 bytes
    claimed = {**headers, "Content-Length": "99999999999999999999999999"}
    problem_of(api.call("POST", "/v1/tokens", content=b"{}", headers=claimed), 413)
    problem_of(api.call("GET", "/v1/jobs", content=b"something"), 413)  # takes no body at all


def test_a_project_may_have_so_many_jobs_and_tokens(tmp_path: Path) -> None:
    api = make_api(tmp_path, Limits(waiting_jobs=2, tokens=5))
    api.submit()
    api.submit()
    problem_of(api.call("POST", "/v1/jobs", json={"job": JOB}), 409, "conflict")
    assert api.call("POST", "/v1/tokens", json={"scopes": ["read"]}).status_code == 201
    body = problem_of(api.call("POST", "/v1/tokens", json={"scopes": ["read"]}), 403)
    assert body["message"] == "the project has 5 tokens, and may have no more; revoke some"
    api.runner.close()
    api.store.close()


def test_json_is_read_strictly() -> None:
    assert read_json(b'{"a": [1, 2.5, "\\ud83d\\ude00", null, true]}') == {"a": [1, 2.5, "😀", None, True]}
    for text, message in [
        (b'{"a": {"b": 1, "b": 1}}', "key 'b' twice"),
        (b"[-Infinity]", "-Infinity, which is not JSON"),
        (b"[1e400]", "too large"),
        (b"[1" + b"0" * 500 + b"]", "501 digits"),
        (b"[" * 40 + b"]" * 40, "deeper than 32"),
        (b"[" * 100_000, "deeper than 32|not valid JSON"),
        (b'["\\u0000"]', "NUL"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'["\x00"]', "not valid JSON"),
        (b"[1] []", "line 1, column 5"),
        (b"\xc3", "not UTF-8"),
    ]:
        with pytest.raises(ServiceError, match=message):
            read_json(text)
