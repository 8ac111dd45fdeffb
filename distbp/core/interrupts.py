"""Requests to a run: to stop, or to use another number of workers. Ctrl-C, SIGTERM, the service's runner and
callers all use a `Control`. The run obeys between two steps, never in the middle of one.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Self

from distbp.core.arguments import workers_given
from distbp.core.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Control:
    """Controls one run of `train` or `resume`. Its methods may be called from any thread, or from a signal
    handler, while the run goes on.

    Calls do not wait. A `TeamChanged` event tells the number of workers after a change. A request to stop is
    final: a run that starts with a stopped `Control` raises Interrupted before its first step.
    """

    # There is no lock, as a signal handler may interrupt the very call that holds it. Each access is a single
    # atomic operation.

    def __init__(self) -> None:
        self._scales: deque[int] = deque(maxlen=1)
        self.stopped_by = ""  # who asked to stop; "": nobody yet

    def scale(self, workers: int) -> None:
        """Asks for another number of workers, which changes the time, never the result. Raises
        ArgumentError."""
        self._scales.append(workers_given(workers))

    def stop(self, by: str = "a call of stop()") -> None:
        """Asks the run to write a checkpoint and stop: `train` then raises Interrupted, and `resume` can go
        on later. `by`: who asks, for the error's text; the first call counts."""
        self.stopped_by = self.stopped_by or by

    @property
    def stopping(self) -> bool:
        return bool(self.stopped_by)

    def asked(self) -> int | None:
        """The number of workers requested last since the previous call; None: no request. For the trainer."""
        try:
            return self._scales.pop()
        except IndexError:
            return None


class Terminated(KeyboardInterrupt):
    """Raised for SIGTERM when nothing must be finished first. Code that handles Ctrl-C handles it, too."""


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """The SIGTERM handler of a command: raises Terminated. Further SIGTERMs are ignored, so that the command
    can print its last message."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


class Interrupts:
    """Within this block, SIGINT and SIGTERM call `control.stop`. A second SIGINT also raises
    KeyboardInterrupt at once.

    Python handles signals in the main thread only. In other threads this block changes nothing, and
    `control` is the only way to stop.
    """

    def __init__(self, control: Control) -> None:
        self._control = control
        self._at_once = False
        self._former: dict[int, Any] = {}

    @contextmanager
    def at_once(self, run_dir: str = "") -> Iterator[None]:
        """Within this block, a signal interrupts at once. For work that may take long and leaves nothing
        behind. Raises Interrupted if the run is to stop. run_dir: the directory to resume, for the error."""
        self._check(run_dir)
        try:
            self._at_once = True
            yield
        except KeyboardInterrupt:
            if not self._control.stopping:  # not raised by `_handle`
                raise
        finally:
            self._at_once = False
        self._check(run_dir)

    def _check(self, run_dir: str) -> None:
        if self._control.stopping:
            raise Interrupted(run_dir, None, self._control.stopped_by)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        # A command that was stopped only prints its last message: no signal may interrupt that.
        leaving = self._control.stopping and self._former.get(signal.SIGTERM) is terminate
        for number, handler in self._former.items():
            signal.signal(number, signal.SIG_IGN if leaving else handler)
        self._former.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:  # many signals in a row would nest handlers without end
            signal.signal(number, signal.SIG_IGN)
        again = self._control.stopping
        self._control.stop(signal.Signals(number).name)
        if self._at_once or (again and number == signal.SIGINT):
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
