"""Asks the runners of this container to leave checkpoints and end, and waits for them.

    python -S end_runners.py [SECONDS]

For before Ray is stopped: when it ends it kills runners with SIGKILL. Those that have not ended after so many
seconds are left to that. Says how many there were.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

# For a checkpoint, and for the last words to the API. `stop_grace_period` and the like have to be longer.
WAIT_S = 60.0
LOOK_S = 0.1
MODULE = b"distbp_service.runner"
PROC = Path("/proc")


def runners(proc: Path = PROC) -> set[int]:
    """The processes that run `python -m distbp_service.runner`. (In the shell by which Ray starts one, it
    is only a part of an argument.)"""
    found = set()
    for folder in proc.iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                if MODULE in (folder / "cmdline").read_bytes().split(b"\0"):
                    found.add(int(folder.name))
    return found


def end(wait_s: float = WAIT_S, proc: Path = PROC) -> tuple[int, int]:
    """Sends SIGTERM to the runners that there are now, and waits until they have ended, for at most so long.
    Returns how many there were, and how many are left. One that starts meanwhile is not heeded: a dispatcher
    that goes on would send them without end."""
    asked = runners(proc)
    for pid in asked:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + wait_s
    while (left := asked & runners(proc)) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return len(asked), len(left)


def main(wait_s: float = WAIT_S) -> None:
    """`end`, and a line that says what was done."""
    began = time.monotonic()
    asked, left = end(wait_s)
    late = f"; {left} had not ended by then" if left else ""
    print(f"runners asked to end: {asked}; waited {time.monotonic() - began:.1f} s{late}", flush=True)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
