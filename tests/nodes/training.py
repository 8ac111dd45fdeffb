"""`distbp train` on a host, watched through its events."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hosts import PORT, Host

Event = dict[str, Any]
PATIENCE_S = 90.0


class Training:
    """A run of the command on `host`, on the cluster of `head`. `events`: all that came so far."""

    def __init__(self, host: Host, head: Host, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", "distbp.cli.main", *arguments, "--json"]
        self.process = host.start(
            [*command, "--address", f"{head.address}:{PORT}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.host = host
        self.events: list[Event] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, wanted: Callable[[Event], bool], within_s: float = PATIENCE_S) -> Event:
        """The next event that is wanted. Fails with all that was said where none comes in time."""
        until = time.monotonic() + within_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"nothing within {within_s:g} s, after\n{self.said()}") from None
            assert line is not None, f"it ended with {self.process.wait()} after\n{self.said()}"
            if not line.startswith("{"):
                self.events.append({"event": "said", "text": line.rstrip()})
                continue
            self.events.append(json.loads(line))
            if wanted(self.events[-1]):
                return self.events[-1]

    def wait_for_steps(self, count: int = 1) -> None:
        """Until so many more steps are done."""
        first = max((e["step"] for e in self.events if e["event"] == "progressed"), default=0)
        self.wait_for(lambda e: e["event"] == "progressed" and e["step"] >= first + count)

    def wait_for_change(self, text: str, within_s: float = PATIENCE_S) -> str:
        """Until the team changes for a reason that holds `text`; gives the reason."""
        found = self.wait_for(lambda e: e["event"] == "team_changed" and text in e["reason"], within_s)
        return str(found["reason"])

    def stop(self) -> int:
        """Asks it to stop after a checkpoint; the exit status."""
        for pid in self._own():
            os.kill(pid, signal.SIGTERM)
        return self.end()

    def end(self, within_s: float = PATIENCE_S) -> int:
        """Waits for the end; the exit status."""
        status = self.process.wait(within_s)
        self._reader.join()
        return status

    def said(self) -> str:
        return "\n".join(json.dumps(e)[:500] for e in self.events if e["event"] != "progressed")

    def close(self) -> None:
        for pid in self._own():
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _own(self) -> list[int]:
        """The numbers of the command itself (`process` is nsenter, which waits for it)."""
        return [
            pid
            for pid, command in self.host.processes()
            if command.startswith(sys.executable) and "distbp.cli" in command
        ]

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)


def write_job(folder: Path, job: Any) -> Path:
    path = folder / "job.yaml"
    path.write_text(job.to_yaml())
    return path
