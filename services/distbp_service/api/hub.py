"""Wakes streams that wait for changes of a job.

Commits of this process are noticed at once (`Store.listen`). Those of other processes are found by one query
for all watched jobs, every `poll_s` seconds. Streams that need the same data share one query.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

from distbp_service.api.errors import log
from distbp_service.store import Pulse, Store

T = TypeVar("T")


class Watch:
    """The wait of one stream for changes of its job."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    async def changed(self, timeout_s: float) -> bool:
        """Waits for a change since the last call, at most `timeout_s` seconds. Returns whether there was
        one."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Hub:
    """Belongs to one event loop. It polls the store only while there are watches."""

    def __init__(self, store: Store, poll_s: float) -> None:
        self._store, self._poll_s = store, poll_s
        self._watches: dict[str, set[Watch]] = {}
        self._generation: dict[str, int] = {}
        self._seen: dict[str, Pulse | None] = {}
        self._shared: dict[Any, asyncio.Task[Any]] = {}
        self._poller: asyncio.Task[None] | None = None
        self._deaf: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.ended = False

    def end(self) -> None:
        """Ends all streams and lets no new ones begin, because the service stops. May be called from any
        thread."""
        self.ended = True
        if self._loop is not None:
            _tell(self._loop, lambda: self._wake(frozenset(self._watches)))

    @asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watch]:
        watch = Watch()
        self._watches.setdefault(job_id, set()).add(watch)
        if self._poller is None:
            self._loop = loop = asyncio.get_running_loop()
            self._deaf = self._store.listen(lambda ids: _tell(loop, self._wake, ids))
            self._poller = loop.create_task(self._poll())
        try:
            yield watch
        finally:
            self._watches[job_id].discard(watch)
            if not self._watches[job_id]:
                for table in (self._watches, self._generation, self._seen):
                    table.pop(job_id, None)
            if not self._watches:
                self._stop()

    async def shared(self, job_id: str, what: str, after: int, ask: Callable[[], T]) -> T:
        """Returns `ask()`, called in a thread. Simultaneous calls with the same arguments share one result.

        A result is not shared with calls made after a later change of the job.
        """
        key = (job_id, self._generation.get(job_id, 0), what, after)
        task = self._shared.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(run_in_threadpool(ask))
            self._shared[key] = task
            task.add_done_callback(lambda done: self._shared.pop(key, None))
        found: T = await asyncio.shield(task)
        return found

    def _wake(self, job_ids: frozenset[str]) -> None:
        for job_id in job_ids & self._watches.keys():
            self._generation[job_id] = self._generation.get(job_id, 0) + 1
            for watch in self._watches[job_id]:
                watch.wake()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            ids = tuple(self._watches)
            try:
                found = await run_in_threadpool(self._store.jobs.pulses, ids)
            except Exception as error:  # the database is away: the next round asks again
                log.warning("streams cannot look for news: %s", type(error).__name__)
                continue
            changed = frozenset(i for i in ids if i in self._seen and self._seen[i] != found.get(i))
            new = frozenset(i for i in ids if i not in self._seen)  # these may have changed before
            self._seen.update({i: found.get(i) for i in ids if i in self._watches})
            self._wake(changed | new)

    def _stop(self) -> None:
        if self._deaf is not None:
            self._deaf()
        if self._poller is not None:
            self._poller.cancel()
        self._deaf = self._poller = None


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: Any) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *args)
