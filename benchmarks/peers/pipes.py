"""The measuring side of the named pipes of ddp_loop.py."""

from __future__ import annotations

import json
import os
import select
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Measure

COMMANDS, ANSWERS = "commands", "answers"


@contextmanager
def pipes_folder() -> Iterator[Path]:
    """A temporary folder with the two pipes."""
    with tempfile.TemporaryDirectory(prefix="distbp-bench-") as name:
        folder = Path(name)
        os.mkfifo(folder / COMMANDS)
        os.mkfifo(folder / ANSWERS)
        yield folder


@contextmanager
def measuring(folder: Path, alive: Callable[[], bool]) -> Iterator[Measure]:
    """Measures through the pipes; at the end tells the ranks to stop.

    `alive` is asked while nobody has opened the pipes yet, so that ranks which died at their start are an
    error and not a wait without end.
    """
    # Opened for reading and writing, the calls do not wait for the other side.
    commands = os.open(folder / COMMANDS, os.O_RDWR)
    answers = os.open(folder / ANSWERS, os.O_RDWR)
    received = b""

    def one(seconds: float) -> dict[str, Any]:
        nonlocal received
        os.write(commands, f"{seconds}\n".encode())
        while b"\n" not in received:
            readable, _, _ = select.select([answers], [], [], 1.0)
            if readable:
                received += os.read(answers, 65_536)
            elif not alive():
                raise SystemExit("the training processes have ended; their own output says why")
        line, received = received.split(b"\n", 1)
        return dict(json.loads(line))

    try:
        yield one
    finally:
        os.write(commands, b"0\n")
        os.close(answers)
