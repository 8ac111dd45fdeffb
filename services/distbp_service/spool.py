"""A runner's reports on disk until the service has them: nothing is lost while the API is away.

One line of JSON for each report, flushed to the disk before anyone acts on it. Where they come faster than
the API takes them, many travel as one.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from distbp.core.storage import explained
from distbp_service.reports import End, Report, joined

MOST_BYTES = 2**19  # of JSON in one report, where it joins several: the API takes it in a moment


class Spool:
    """The reports of one attempt, in the file `path`, which must not exist. Safe between threads."""

    def __init__(self, path: Path, attempt: int) -> None:
        self.path = path
        self._attempt = attempt
        self._seq = 0
        self._pending: deque[tuple[Report, int]] = deque()  # with its bytes of JSON
        self._offered = 0  # how many of them `next` gives as one until they are acknowledged
        self._changed = threading.Condition()
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(
        self,
        *,
        events: tuple[Mapping[str, Any], ...] = (),
        metrics: tuple[Mapping[str, Any], ...] = (),
        log: str = "",
        end: End | None = None,
    ) -> Report:
        """Makes a report, durable. Raises StorageError, and the report is then not made."""
        with self._changed:
            report = Report(self._attempt, self._seq + 1, events, metrics, log, None, end)
            line = (json.dumps(report.to_json(), allow_nan=False) + "\n").encode()
            length = len(line)
            with explained(self.path):
                size = os.fstat(self._fd).st_size
                try:
                    while line:
                        line = line[os.write(self._fd, line) :]
                    os.fsync(self._fd)
                except OSError:
                    os.ftruncate(self._fd, size)
                    raise
            self._seq = report.seq
            self._pending.append((report, length))
            self._changed.notify_all()
            return report

    def next(self) -> Report | None:
        """All that was not acknowledged, as one report, but no more than `MOST_BYTES`; the oldest alone
        where that is longer. It stays the same until it is acknowledged: the service may have it already."""
        with self._changed:
            if not self._offered:
                room = MOST_BYTES
                for _, length in self._pending:
                    room -= length
                    if room < 0 and self._offered:
                        break
                    self._offered += 1
            reports = [report for report, _ in islice(self._pending, self._offered)]
            return joined(reports) if reports else None

    def acknowledge(self, received: int) -> None:
        """The service has all reports up to `received`."""
        with self._changed:
            while self._pending and self._pending[0][0].seq <= received:
                self._pending.popleft()
                self._offered = 0
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Until there is a report to send, but no longer than `timeout_s`."""
        with self._changed:
            if not self._pending:
                self._changed.wait(timeout_s)

    def wait_until_empty(self) -> None:
        """Until all reports are acknowledged, however long that takes."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending)

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def left_over(path: Path, received: int) -> list[Report]:
    """The reports in a spool above number `received`, oldest first; [] where there is no file. A last line
    that was not finished is left out: nobody acted on it."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    reports = [Report.from_json(json.loads(line)) for line in lines]
    return [report for report in reports if report.seq > received]
