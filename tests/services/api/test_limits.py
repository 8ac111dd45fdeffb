"""Rates, sizes and counts, with a clock that the test holds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from api_kit import JOB, Api, make_api, problem_of
from distbp_service.api import Limits
from distbp_service.api.errors import RateError, SlowError
from distbp_service.api.json_text import read_json
from distbp_service.api.limits import Buckets, Slots, Turns, pieces
from distbp_service.errors import ServiceError
from starlette.requests import Request


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    buckets = Buckets(2.0, 3, lambda: now[0], "too many")
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
    buckets = Buckets(1.0, 1, lambda: 0.0, "too many")
    for number in range(10_001):
        buckets.take(str(number))
    buckets.take("0")  # its bucket was the one silent for longest
    with pytest.raises(RateError):
        buckets.take("10000")


def test_slots_are_given_back_once() -> None:
    slots = Slots(3, 2, "streams are open")
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


def test_a_body_must_come_soon_enough() -> None:
    now = [0.0]

    async def read(*gaps_s: float, size: int) -> int:
        async def receive() -> dict[str, object]:
            gap_s = next(left, None)
            if gap_s is None:
                await asyncio.Event().wait()
            now[0] += gap_s or 0.0
            return {"type": "http.request", "body": b" " * size, "more_body": True}

        left, count = iter(gaps_s), 0
        request = Request({"type": "http", "method": "POST", "headers": []}, receive)  # type: ignore[arg-type]
        with pytest.raises(SlowError, match=r"the body comes too slowly: [0-9,]+ bytes so far"):
            async for piece in pieces(request, 10**6, 0.1, 1000, lambda: now[0]):
                count += len(piece)
        return count

    assert asyncio.run(read(size=1)) == 0  # nothing came
    assert asyncio.run(read(*[0.06] * 100, size=1)) <= 3  # a byte now and then
    assert asyncio.run(read(*[0.06] * 100, size=100)) == 100 * 100  # it is only the end that is missing


def test_the_keys_take_turns_and_one_cannot_take_all() -> None:
    async def main() -> list[str]:
        turns, order, gate = Turns(2, 1, 3), [], asyncio.Event()

        async def work(name: str) -> None:
            async with turns.take(name[0]):
                order.append(name)
                await gate.wait()

        many = [asyncio.create_task(work(f"a{number}")) for number in range(4)]
        await asyncio.sleep(0)
        other = asyncio.create_task(work("b0"))
        await asyncio.sleep(0)
        with pytest.raises(RateError, match="of this project wait already"):
            await work("a4")
        assert order == ["a0", "b0"]
        gate.set()
        await asyncio.gather(*many, other)
        many[0] = asyncio.create_task(work("a5"))  # all is as it was
        await many[0]
        return order

    assert asyncio.run(main()) == ["a0", "b0", "a1", "a2", "a3", "a5"]


def test_sign_ins_that_fail_are_limited_and_others_are_not(tmp_path: Path) -> None:
    api = make_api(tmp_path, Limits(failures_per_s=0.5, failures_burst=3))
    wrong = api.tokens["all"][:-43] + "a" * 43
    for token in ("nonsense", wrong, "dbr_job_1_x"):
        problem_of(api.call("GET", "/v1/whoami", token), 401, "unauthorized")
    for token in ("nonsense", wrong):
        answer = api.call("GET", "/v1/jobs", token)
        problem_of(answer, 429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 2
    claim = {"job": "job_01j9ze3k8xq2v5w7y0ab", "attempt": 1, "code": "guessed"}
    problem_of(api.call("POST", "/v1/runner/claims", "", json=claim), 429, "rate_limited")
    assert api.call("GET", "/v1/whoami").status_code == 200  # who has a token is not locked out by that
    problem_of(api.call("GET", "/v1/whoami", ""), 401)  # and without one there is nothing to guess
    api.runner.close()
    api.store.close()
