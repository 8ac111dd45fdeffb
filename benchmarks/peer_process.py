"""A peer's process, and those that it starts: they run while the peer is measured, and are stopped meanwhile.

A Ray that waits takes processor time (heartbeats, logs, metrics), and there are four of them in the two-core
comparison: whoever is measured would pay for those who wait.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from benchmarks.peers import Peer
from benchmarks.peers.common import THREAD_VARIABLES
from benchmarks.rows import AnyRow

ANSWER_TIMEOUT_S = 240.0
SETTLE_S = 0.3  # after a pause, for all that came due in it
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2): who loses his parent becomes this process's child


class PeerError(Exception):
    """A peer's process ended or hung; the text says what it wrote last."""


class PeerProcess:
    """One peer measuring one row. Between measurements it is stopped."""

    def __init__(self, peer: Peer, row: AnyRow, cores: Sequence[int]) -> None:
        environment = dict(os.environ)
        environment.update({variable: str(len(cores)) for variable in THREAD_VARIABLES})
        command = [sys.executable, "-W", "ignore", "-m", peer.module, *peer.arguments]
        command += ["--row", row.name, "--cores", ",".join(map(str, cores)), "--serve"]
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - close() closes it
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
            preexec_fn=lambda: _prepare(cores),
        )
        try:
            self._answer("ready")
        except BaseException:
            self._process.kill()
            self.close()
            raise
        self._stop()

    def measure(self, seconds: float) -> dict[str, Any]:
        """One measurement of about `seconds`."""
        assert self._process.stdin is not None
        self._go_on()
        time.sleep(SETTLE_S)
        with suppress(BrokenPipeError):  # a process that is gone is reported by the reading below
            print(seconds, file=self._process.stdin, flush=True)
        measured = self._answer("samples_per_second")
        self._stop()
        return measured

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._go_on()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def _stop(self) -> None:
        stopped: set[int] = set()
        # A process may start another before it is stopped itself.
        while new := [pid for pid in family(self._process.pid) if pid not in stopped]:
            _signal(new, signal.SIGSTOP)
            stopped.update(new)

    def _go_on(self) -> None:
        # Children first: who waits for another's sign of life is not to find that it has been silent.
        _signal(family(self._process.pid)[::-1], signal.SIGCONT)

    def _answer(self, key: str) -> dict[str, Any]:
        """The next line that is a JSON object with `key`; libraries may print what they like before it."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(ANSWER_TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                with suppress(json.JSONDecodeError):
                    found = json.loads(line)
                    if isinstance(found, dict) and key in found:
                        return found
        finally:
            watchdog.cancel()
        code = self._process.wait()
        self._errors.seek(0)
        last = " / ".join(self._errors.read().strip().splitlines()[-2:])
        raise PeerError(f"ended with exit code {code}: {last}")


def family(pid: int) -> list[int]:
    """A process and those that descend from it, parents before their children."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            # The name, in parentheses, may hold anything; behind it are the state and the parent.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _prepare(cores: Sequence[int]) -> None:
    """In the new process: its cores, and that none of its descendants leaves its family."""
    os.sched_setaffinity(0, cores)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
