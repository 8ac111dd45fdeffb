"""Asking a run to stop, or for another number of workers: by a `Control`, which Ctrl-C and SIGTERM, the
service's runner and everybody else use alike. It is done between steps, never in the middle of one.
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
    """Give it to `train` or `resume`, and call it from any thread, or from a signal handler, while they wait.

    Calls return at once; what came of them is told as a `TeamChanged` event. It serves one run: once it was
    told to stop it stays so, and a run that it is given to afterwards stops before it begins.
    """

    # Without a lock: a signal handler may interrupt the very call that holds it. Each access is one operation
    # that no thread can be in the middle of.

    def __init__(self) -> None:
        self._scales: deque[int] = deque(maxlen=1)
        self.stopped_by = ""  # who asked for the end; empty while nobody has

    def scale(self, workers: int) -> None:
        """Asks for another number of workers. It changes the time, never the result. Raises ArgumentError."""
        self._scales.append(workers_given(workers))

    def stop(self, by: str = "a call of stop()") -> None:
        """Asks for a checkpoint and an end: `train` raises Interrupted, and `resume` goes on later. `by`: who
        asks, for the error's text."""
        self.stopped_by = self.stopped_by or by

    @property
    def stopping(self) -> bool:
        return bool(self.stopped_by)

    def asked(self) -> int | None:
        """The workers asked for since the last call; None: nobody asked. For the trainer."""
        try:
            return self._scales.pop()
        except IndexError:
            return None


class Terminated(KeyboardInterrupt):
    """SIGTERM where nothing has to be finished first. It ends whatever Ctrl-C ends."""


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """What SIGTERM does to a command: once. Then its last words are not interrupted."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


class Interrupts:
    """Within the block SIGINT and SIGTERM stop `control`, however often they come; a second SIGINT also
    interrupts at once.

    Outside the main thread of a process signals cannot be caught; then `control` is the only way.
    """

    def __init__(self, control: Control) -> None:
        self._control = control
        self._at_once = False
        self._former: dict[int, Any] = {}

    @contextmanager
    def at_once(self, run_dir: str = "") -> Iterator[None]:
        """For work that leaves nothing behind, and may take long: within the block a signal interrupts it.
        Raises Interrupted where the run is to stop. run_dir: that can be gone on with."""
        self._check(run_dir)
        try:
            self._at_once = True
            yield
        except KeyboardInterrupt:
            if not self._control.stopping:  # it came from elsewhere
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
        # A command that was stopped has only its last words to say.
        leaving = self._control.stopping and self._former.get(signal.SIGTERM) is terminate
        for number, handler in self._former.items():
            signal.signal(number, signal.SIG_IGN if leaving else handler)
        self._former.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:  # a storm of them would nest handlers without end
            signal.signal(number, signal.SIG_IGN)
        again = self._control.stopping
        self._control.stop(signal.Signals(number).name)
        if self._at_once or (again and number == signal.SIGINT):
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
