"""Runners as processes of this machine."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal

from distbp.core import settings
from distbp_service.launchers.base import Handle, LaunchError, Start, last_line

_TAIL = 1 << 13  # bytes of a log


class LocalProcess:
    """Runners as processes of this machine, each a session of its own. They outlive the dispatcher.

    folder: the work volume; a job's folder in it gets `runner-N.json` (its process) and `runner-N.log`. data:
    see `distbp_service.runner`. Runners start in `folder`, and import no modules from there (`-P`), so no
    file can replace a module of distbp. The token goes through a pipe, so it is in no argument, environment
    or file. A runner gets only the part of the environment that training needs (`settings.for_runners`).
    """

    wants: ClassVar[Literal["token", "claim"]] = "token"

    def __init__(
        self,
        folder: Path,
        *,
        data: Path | None = None,
        command: Sequence[str] = (sys.executable, "-P", "-m", "distbp_service.runner"),
    ) -> None:
        self._folder = folder.absolute()
        self._data = None if data is None else data.absolute()
        self._command = tuple(command)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def handle(self, job_id: str, attempt: int) -> Handle:
        return {"launcher": "local", "job": job_id, "attempt": attempt}

    def start(self, start: Start) -> Handle:
        handle = self.handle(start.job_id, start.attempt)
        path = self._pidfile(handle)
        if path.exists():
            return handle
        arguments = ["--job", start.job_id, "--attempt", str(start.attempt), "--api", start.api_url]
        arguments += ["--work", str(self._folder), "--token-fd", "0"]
        if self._data is not None:
            arguments += ["--data", str(self._data)]
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(path.with_suffix(".log"), "ab") as log:
                child = subprocess.Popen(
                    [*self._command, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                    start_new_session=True,
                    env=settings.for_runners(),
                )
            # The runner does nothing before it has its token, and ends if it gets none. So if this process is
            # killed before the pidfile is written, the runner ends, too.
            self._children[child.pid] = child
            temporary = path.with_suffix(".tmp")
            temporary.write_text(
                json.dumps({"pid": child.pid, "started": _started(child.pid), "boot": _boot()})
            )
            temporary.replace(path)
            assert child.stdin is not None
            with suppress(BrokenPipeError), child.stdin:
                child.stdin.write(start.secret.encode("ascii"))
        except OSError as error:
            raise LaunchError(f"the runner could not be started: {error}") from error
        return handle

    def alive(self, handle: Handle) -> bool:
        return self._pid(handle) is not None

    def last_words(self, handle: Handle) -> str:
        try:
            with open(self._pidfile(handle).with_suffix(".log"), "rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
                return last_line(log.read().decode(errors="replace"))
        except OSError:
            return ""

    def stop(self, handle: Handle) -> None:
        self._signal(handle, signal.SIGTERM)

    def kill(self, handle: Handle, timeout_s: float = 10.0) -> None:
        pid = self._pid(handle)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            gone = os.pidfd_open(pid)
            try:
                if self._pid(handle) != pid:
                    return
                os.killpg(pid, signal.SIGKILL)  # also kills its workers, because it leads its session
                poll = select.poll()
                poll.register(gone, select.POLLIN)
                if not poll.poll(timeout_s * 1000):
                    raise LaunchError(f"process {pid} does not end, although it was killed")
            finally:
                os.close(gone)
        self._reap(pid)

    def _signal(self, handle: Handle, number: signal.Signals) -> None:
        pid = self._pid(handle)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            same = os.pidfd_open(pid)
            try:
                # The number may have been reused, so the process is checked again once it is open.
                if self._pid(handle) == pid:
                    signal.pidfd_send_signal(same, number)
            finally:
                os.close(same)

    def _pid(self, handle: Handle) -> int | None:
        """The process id of a living runner; None if it has ended or was never started."""
        try:
            noted = json.loads(self._pidfile(handle).read_text())
        except FileNotFoundError:
            return None
        pid = int(noted["pid"])
        self._reap(pid)
        same = noted["boot"] == _boot() and noted["started"] is not None and noted["started"] == _started(pid)
        return pid if same else None

    def _reap(self, pid: int) -> None:
        child = self._children.get(pid)
        if child is not None and child.poll() is not None:
            del self._children[pid]

    def _pidfile(self, handle: Handle) -> Path:
        return self._folder / str(handle["job"]) / f"runner-{int(handle['attempt'])}.json"


def _started(pid: int) -> int | None:
    """The start time of a process, in clock ticks since boot; None if it is gone, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
