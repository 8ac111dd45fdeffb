"""Streams: nothing is missed, nothing comes twice, whatever breaks in between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from api_kit import Api, make_api, problem_of, streaming
from distbp_service.api import Limits
from distbp_service.reports import Report
from distbp_service.store import Job, Store


def running(api: Api) -> tuple[Job, str]:
    api.submit()
    job, token = api.start()
    start = {"kind": "attempt_started", "from_step": 0}
    assert api.report(job, token, 1, events=[start]).status_code == 200
    return job, token


def tell(api: Api, job: Job, seq: int, **fields: Any) -> None:
    """A report, as another process would bring it in: straight to the store."""
    api.store.runs.report(job.id, Report.from_json({"attempt": job.attempt, "seq": seq, **fields}))


def test_events_come_as_they_happen_and_the_end_is_said(api: Api) -> None:
    job, _ = running(api)

    async def watch() -> None:
        async with streaming(api, f"/v1/jobs/{job.id}/events:stream") as stream:
            first = [await stream.data() for _ in range(4)]
            assert [m["id"] for m in first if m] == ["1", "2", "3", "4"]
            kinds = [m["data"]["kind"] for m in first if m]
            assert kinds == ["state", "state", "state", "attempt_started"]
            await asyncio.to_thread(tell, api, job, 2, events=[{"kind": "checkpoint_saved", "step": 3}])
            saved = await stream.data()
            assert saved is not None
            assert (saved["id"], saved["event"]) == ("5", "event")
            assert saved["data"]["data"] == {"step": 3}
            await asyncio.to_thread(tell, api, job, 3, end={"outcome": "completed", "result": {"steps": 3}})
            last = [await stream.data() for _ in range(2)]
            assert [m["event"] for m in last if m] == ["event", "end"]
            assert last[1] == {"event": "end", "data": {"state": "completed"}}
            assert await stream.data() is None

    api.runner.run(watch())


def test_a_client_that_comes_back_misses_nothing(api: Api) -> None:
    job, _ = running(api)

    async def watch() -> list[int]:
        seen: list[int] = []
        for round_ in range(10):
            headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
            async with streaming(api, f"/v1/jobs/{job.id}/events:stream", headers=headers) as stream:
                tell(api, job, round_ + 2, events=[{"kind": "epoch_ended", "epoch": round_}] * 3)
                for _ in range(2):  # and away it goes, in the middle
                    message = await stream.data()
                    assert message is not None
                    seen.append(int(message["id"]))
        tell(api, job, 12, end={"outcome": "completed"})
        path = f"/v1/jobs/{job.id}/events:stream?after={seen[-1]}"
        async with streaming(api, path) as stream:
            seen += [int(message["id"]) for message in await stream.all("event")]
        return seen

    assert api.runner.run(watch()) == list(range(1, 36))  # 4, 30 of the epochs, and the end


def test_more_than_a_batch_comes_whole(api: Api) -> None:
    job, _ = running(api)
    for seq in range(2, 5):
        tell(api, job, seq, events=[{"kind": "epoch_ended", "n": seq}] * 500)
    tell(api, job, 5, end={"outcome": "completed"})

    async def watch() -> list[dict[str, Any]]:
        async with streaming(api, f"/v1/jobs/{job.id}/events:stream") as stream:
            return await stream.all("event")

    assert [int(m["id"]) for m in api.runner.run(watch())] == list(range(1, 1506))


def test_metrics_and_a_new_attempt_that_begins_earlier(api: Api) -> None:
    job, _ = running(api)

    async def watch() -> dict[int, tuple[int, float]]:
        found: dict[int, tuple[int, float]] = {}
        async with streaming(api, f"/v1/jobs/{job.id}/metrics:stream") as stream:
            tell(api, job, 2, metrics=[{"step": s, "train_loss": 1.0 / s} for s in (1, 2, 3, 4)])
            for _ in range(4):
                message = await stream.data()
                assert message is not None
                found[message["data"]["step"]] = (message["data"]["attempt"], 0.0)
            api.store.queue.lost(job.id, 1, {"class": "lost", "code": "lost", "message": "gone"})
            api.store.db.clock = lambda: 1e12
            api.store.queue.requeue_due()
            again, _ = api.start()
            start = {"kind": "attempt_started", "from_step": 2}
            lines = [{"step": s, "train_loss": 1.0 / s} for s in (1, 2, 3, 4, 5)]
            tell(api, again, 1, events=[start], metrics=lines)
            tell(api, again, 2, end={"outcome": "completed"})
            for message in await stream.all("metric"):
                data = message["data"]
                for step in [s for s in found if s >= data["step"]]:
                    del found[step]
                found[data["step"]] = (data["attempt"], data["data"]["train_loss"])
        return found

    found = api.runner.run(watch())
    assert {step: attempt for step, (attempt, _) in found.items()} == {1: 1, 2: 1, 3: 2, 4: 2, 5: 2}
    rows = api.call("GET", f"/v1/jobs/{job.id}/metrics").json()["items"]
    assert [(row["step"], row["attempt"]) for row in rows] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]


def test_logs_and_progress(api: Api) -> None:
    job, _ = running(api)

    async def watch() -> None:
        async with streaming(api, f"/v1/jobs/{job.id}/logs:stream") as stream:
            tell(api, job, 2, log="epoch 1\n", progress={"step": 7})
            message = await stream.data()
            assert message is not None and message["data"]["text"] == "epoch 1\n"
            message = await stream.data()
            assert message == {"event": "progress", "data": {"step": 7}}

    api.runner.run(watch())
    assert api.call("GET", f"/v1/jobs/{job.id}/logs").json()["items"][0]["text"] == "epoch 1\n"
    assert api.call("GET", f"/v1/jobs/{job.id}").json()["progress"] == {"step": 7}


def test_a_silent_stream_says_that_it_is_there_until_the_token_is_revoked(api: Api) -> None:
    job, _ = running(api)
    made = api.call("POST", "/v1/tokens", json={"scopes": ["read"]}).json()

    async def watch() -> None:
        async with streaming(api, f"/v1/jobs/{job.id}/events:stream?after=4", made["secret"]) as stream:
            assert await stream.message() == {"retry": "1000"}
            assert await stream.message() == {"": "still here"}
            api.store.tokens.revoke("blue", made["token"]["id"])
            while (message := await stream.message()) is not None:
                assert message == {"": "still here"}

    api.runner.run(watch())


def test_a_deleted_job_ends_its_streams(api: Api) -> None:
    job, _ = running(api)

    async def watch() -> None:
        async with streaming(api, f"/v1/jobs/{job.id}/logs:stream") as stream:
            tell(api, job, 2, end={"outcome": "completed"})
            api.store.jobs.delete("blue", job.id)
            message = await stream.data()
            assert message is not None and message["event"] == "end"

    api.runner.run(watch())


def test_what_another_process_writes_is_found(api: Api, tmp_path: Path) -> None:
    job, _ = running(api)
    other = Store(f"sqlite:///{tmp_path}/service.db")

    async def watch() -> None:
        async with streaming(api, f"/v1/jobs/{job.id}/events:stream?after=4") as stream:
            await stream.message()
            report = Report.from_json({"attempt": 1, "seq": 2, "events": [{"kind": "epoch_ended"}]})
            await asyncio.to_thread(other.runs.report, job.id, report)
            message = await stream.data()
            assert message is not None and message["id"] == "5"

    api.runner.run(watch())
    other.close()


def test_streams_that_wait_for_the_same_share_a_query(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job, _ = running(api)
    asked = []
    original = api.store.journal.events

    def counted(*args: Any, **more: Any) -> Any:
        asked.append(1)
        return original(*args, **more)

    monkeypatch.setattr(api.store.journal, "events", counted)

    async def follow() -> list[dict[str, Any]]:
        async with streaming(api, f"/v1/jobs/{job.id}/events:stream") as stream:
            return await stream.all("event")

    async def watch() -> None:
        followers = [asyncio.create_task(follow()) for _ in range(30)]
        while api.app.state.service.streams.taken < 30:
            await asyncio.sleep(0)
        await asyncio.to_thread(tell, api, job, 2, events=[{"kind": "epoch_ended"}])
        await asyncio.to_thread(tell, api, job, 3, end={"outcome": "completed"})
        for found in await asyncio.gather(*followers):
            assert [int(m["id"]) for m in found] == [1, 2, 3, 4, 5, 6]

    api.runner.run(watch())
    assert len(asked) < 30 * 3
    assert api.app.state.service.streams.taken == 0


def test_there_are_only_so_many_streams(tmp_path: Path) -> None:
    api = make_api(tmp_path, Limits(streams=2, streams_per_token=1))
    job, _ = running(api)
    path = f"/v1/jobs/{job.id}/events:stream"

    async def watch() -> None:
        async with streaming(api, path):
            async with streaming(api, path) as second:
                assert second.status == 429
            async with streaming(api, path, "reads") as other:
                assert other.status == 200
        async with streaming(api, path) as again:
            assert again.status == 200

    api.runner.run(watch())
    api.runner.close()
    api.store.close()


def test_a_bad_last_event_id(api: Api) -> None:
    job, _ = running(api)
    path = f"/v1/jobs/{job.id}/events:stream"
    for bad in ("-1", "x", "1" * 19, "1 OR 1=1", "٣"):
        problem_of(api.call("GET", path, headers={"Last-Event-ID": bad.encode()}), 422)
