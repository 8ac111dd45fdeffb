"""The keeper of an embedded Ray: a small process that makes Ray's folder, and that ends all of that Ray and
removes the folder when the trainer asks for it, or is gone, however that came about.

    python -I -S ray_keeper.py FOLDER PID        PID: of the trainer, which is the parent

Ray leaves some of its processes to notice by themselves that their driver was killed, which takes up to
minutes. All of them write logs below FOLDER, to which nobody else has access; by that they are known.

It says an empty line when the folder is there, else what is in the way. Imports nothing of distbp: it is
started as a file, by an interpreter that loads next to nothing.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

END_S = 10.0  # for processes that were killed to be gone
LOOK_S = 0.02


def main(folder: str, trainer: int) -> None:
    # What is meant for the trainer (Ctrl-C in its terminal, a machine that shuts down) is its to answer.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        os.mkdir(folder, 0o700)  # noqa: PTH102 - no pathlib: this process starts in milliseconds
        folder = os.path.realpath(folder)
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}")
        return
    try:
        _say("")
        lives = _await_end(trainer)
        # The trainer itself, and children it has forked, have files of the driver open.
        _end(folder, f"_{trainer}.log" if lives else "")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _say(text: str) -> None:
    with suppress(BrokenPipeError):
        os.write(1, f"{text}\n".encode(errors="replace"))


def _await_end(trainer: int) -> bool:
    """Until the trainer closes or writes to our input (True), or has ended."""
    try:
        gone = os.pidfd_open(trainer)
    except ProcessLookupError:
        return False
    if os.getppid() != trainer:
        return False
    ready, _, _ = select.select([gone, 0], [], [])
    return gone not in ready


def _end(folder: str, spared: str) -> None:
    """Kills, again and again, whoever has a file open below `folder` whose name does not end in `spared`."""
    deadline = time.monotonic() + END_S
    while (found := list(holders(folder, spared))) and time.monotonic() < deadline:
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(LOOK_S)


def holders(folder: str, spared: str) -> Iterator[int]:
    for name in os.listdir("/proc"):  # noqa: PTH208
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            if name.isdigit() and int(name) != os.getpid() and _holds(f"/proc/{name}/fd", folder, spared):
                yield int(name)


def _holds(files: str, folder: str, spared: str) -> bool:
    links = [os.readlink(f"{files}/{fd}") for fd in os.listdir(files)]  # noqa: PTH115, PTH208
    mine = [link for link in links if link.startswith(f"{folder}/")]
    return any(not (spared and link.endswith(spared)) for link in mine)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
