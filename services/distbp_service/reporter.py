"""A runner's connection to the API: sends spooled reports and heartbeats, and passes the answers on.

It has a thread of its own, so training never waits for the network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from distbp_service.errors import FencedError, OutOfOrderError
from distbp_service.reports import Answer
from distbp_service.spool import Spool
from distbp_service.transport import AwayError, RefusedError, Transport

HEARTBEAT_S = 1.0
PAUSE_S = 0.2  # after each report; reports that come meanwhile are sent as one
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 5.0


class Reporter:
    """heard: called with every answer, in the reporter's thread. over: called once, with the reason, if the
    service will take no more reports of this attempt; it should end the process."""

    def __init__(
        self,
        transport: Transport,
        spool: Spool,
        heard: Callable[[Answer], None],
        over: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._spool = spool
        self._heard = heard
        self._over = over
        self._clock = clock
        self._failures = 0
        self._spoken_at = float("-inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self.progress: Mapping[str, Any] | None = None  # sent with the next report or heartbeat
        self.disk: Callable[[], int | None] = lambda: None  # returns the bytes in the job's folder

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Waits until all reports are delivered, then ends the thread."""
        self._spool.wait_until_empty()
        self.stop()

    def stop(self) -> None:
        """Ends the thread. Undelivered reports stay in the spool."""
        self._stop.set()
        self._spool.wake()
        if self._thread.ident is not None:
            self._thread.join()

    def speak(self) -> bool:
        """Sends a report or, if one is due, a heartbeat; waits for the answer. False: nothing was sent."""
        report = self._spool.next()
        if report is None and self._clock() < self._spoken_at + HEARTBEAT_S:
            return False
        try:
            if report is not None:
                # Reports carry the progress, too: with short epochs a heartbeat is never due.
                answer = self._transport.report(replace(report, progress=self.progress, disk=self.disk()))
                self._spool.acknowledge(answer.received)
            else:
                answer = self._transport.heartbeat(self.progress, self.disk())
        except AwayError:
            self._failures += 1
            return False
        except (FencedError, RefusedError, OutOfOrderError) as error:
            # Reports are sent in order, one at a time. OutOfOrderError means that the service has lost some,
            # so the record of this attempt cannot be completed.
            self._stop.set()
            self._over(str(error))
            return False
        self._failures = 0
        self._spoken_at = self._clock()
        self._heard(answer)
        return True

    def backoff_s(self) -> float:
        """The time to wait after the failures so far; 0 without failures."""
        if self._failures == 0:
            return 0.0
        return float(min(BACKOFF_FIRST_S * 2.0 ** (min(self._failures, 16) - 1), BACKOFF_MOST_S))

    def _run(self) -> None:
        while not self._stop.is_set():
            if self.speak():
                self._stop.wait(PAUSE_S)
                continue
            pause = self.backoff_s()
            if pause:
                self._stop.wait(pause)
            else:
                self._spool.wait(max(0.01, self._spoken_at + HEARTBEAT_S - self._clock()))
