"""Ctrl-C and SIGTERM, asked for between steps instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupts:
    """Within the block, the first SIGINT or SIGTERM sets a flag; a second SIGINT interrupts at once.

    Outside the main thread of a process signals cannot be caught; then `request` is the only way.
    """

    def __init__(self) -> None:
        self._set = False
        self.name = ""
        self._former: dict[int, Any] = {}

    def is_set(self) -> bool:
        return self._set

    def request(self, name: str = "a request") -> None:
        """Asks to stop after the step in progress; `name` says who asked."""
        self._set, self.name = True, name

    def renew(self) -> None:
        """Catches the signals again, after a library (Ray, when it starts) has put handlers of its own."""
        if self._former and threading.current_thread() is threading.main_thread():
            for number in self._former:
                signal.signal(number, self._handle)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._set and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.request(signal.Signals(number).name)
