"""An ASGI application under uvicorn, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import uvicorn


class Serving:
    """Listens on a free port of this machine when made. `address`: where. `loop`: on which it runs."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
        config.timeout_graceful_shutdown = 0
        self.server = uvicorn.Server(config)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10), "the service did not start"
        self.address = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    @property
    def stopping(self) -> bool:
        return self.server.should_exit

    def stop(self) -> None:
        self.server.force_exit = self.server.should_exit = True
        self._thread.join(10)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        serving = asyncio.ensure_future(self.server.serve())
        while not self.server.started and not serving.done():
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving
