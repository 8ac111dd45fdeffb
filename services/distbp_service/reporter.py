"""A runner's voice and ear: sends what is spooled, says that it lives, and hears what it is told.

A thread of its own, so that training waits for no network.
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
PAUSE_S = 0.2  # after each report: what comes meanwhile travels as one
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 5.0


class Reporter:
    """heard: is told every answer, in the reporter's thread. over: is called, once, where the service
    will take nothing more of this attempt; it is given the reason, and should end the process."""

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
        self.progress: Mapping[str, Any] | None = None  # told with the next heartbeat; the last one counts
        self.disk: Callable[[], int | None] = lambda: None  # bytes that the job's folder has

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Waits until all is delivered, then ends the thread."""
        self._spool.wait_until_empty()
        self.stop()

    def stop(self) -> None:
        """Ends the thread; what was not delivered stays in the spool."""
        self._stop.set()
        self._spool.wake()
        if self._thread.ident is not None:
            self._thread.join()

    def speak(self) -> bool:
        """Sends one report or, where that is due, a heartbeat. False: there is no more to say now."""
        report = self._spool.next()
        if report is None and self._clock() < self._spoken_at + HEARTBEAT_S:
            return False
        try:
            if report is not None:
                # With it goes how far the run is: where epochs are short, no heartbeat ever has its turn.
                answer = self._transport.report(replace(report, progress=self.progress, disk=self.disk()))
                self._spool.acknowledge(answer.received)
            else:
                answer = self._transport.heartbeat(self.progress, self.disk())
        except AwayError:
            self._failures += 1
            return False
        except (FencedError, RefusedError, OutOfOrderError) as error:
            # Reports are sent in order, one at a time, so the service waits for another one only if it has
            # forgotten some: then this attempt cannot be told as it was.
            self._stop.set()
            self._over(str(error))
            return False
        self._failures = 0
        self._spoken_at = self._clock()
        self._heard(answer)
        return True

    def backoff_s(self) -> float:
        """How long to wait after the failures so far; 0 where there are none."""
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
