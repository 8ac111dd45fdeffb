"""Keeps a runner's reports on disk until the service has them, so nothing is lost while the API is away.

Each report is a line of JSON, flushed to the disk before it is sent. If reports come faster than the API
takes them, several are sent as one.
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

MOST_BYTES = 2**19  # of JSON in a report that joins several; the API takes a report of this size quickly


class Spool:
    """The reports of one attempt, in the file `path`, which must not exist. Thread-safe. Raises
    StorageError."""

    def __init__(self, path: Path, attempt: int) -> None:
        self.path = path
        self._attempt = attempt
        self._seq = 0
        self._pending: deque[tuple[Report, int]] = deque()  # each with the bytes of its JSON
        self._offered = 0  # the number of reports that `next` joins until they are acknowledged
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
        """Makes a report and flushes it to the disk. Raises StorageError; then there is no report."""
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
        """The oldest reports that are not acknowledged, joined into one of at most `MOST_BYTES` (or the
        oldest alone if it is longer); None if there are none. The result stays the same until it is
        acknowledged, because the service may have it already."""
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
        """Removes all reports up to number `received`: the service has them."""
        with self._changed:
            while self._pending and self._pending[0][0].seq <= received:
                self._pending.popleft()
                self._offered = 0
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Waits until there is a report to send, at most `timeout_s` seconds."""
        with self._changed:
            if not self._pending:
                self._changed.wait(timeout_s)

    def wait_until_empty(self) -> None:
        """Waits until all reports are acknowledged, without a limit."""
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
    """The reports in a spool file above number `received`, oldest first; [] if there is no file. An
    unfinished last line is left out: it was never sent."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    reports = [Report.from_json(json.loads(line)) for line in lines]
    return [report for report in reports if report.seq > received]
