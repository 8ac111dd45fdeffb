"""The keeper of an embedded Ray: a small process that makes Ray's folder, and removes Ray and the folder at
the end.

    python -I -S ray_keeper.py FOLDER PID        PID: of the trainer, which is the parent

The end is when the trainer asks for it, or when the trainer is gone for any reason. The keeper then kills all
processes of that Ray, because some of them would notice the death of their driver only after minutes. The
keeper finds them by their open log files below FOLDER, to which no other user has access.

It prints an empty line when the folder is there, else the reason why it cannot be made. It imports nothing of
distbp: an interpreter that loads almost nothing runs it as a file.
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

END_S = 10.0  # the most time to wait until killed processes are gone
LOOK_S = 0.02  # between two looks for processes that are left


def main(folder: str, trainer: int) -> None:
    """Makes `folder`, waits for the end of the trainer, and cleans up. Raises nothing."""
    # Ctrl-C in the terminal and the shutdown of the machine are for the trainer to answer.
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
        # The trainer and children that it forked have files of the driver open; they are spared.
        _end(folder, f"_{trainer}.log" if lives else "")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _say(text: str) -> None:
    with suppress(BrokenPipeError):
        os.write(1, f"{text}\n".encode(errors="replace"))


def _await_end(trainer: int) -> bool:
    """Waits until the trainer closes or writes to this process's standard input (returns True), or has ended
    (returns False)."""
    try:
        gone = os.pidfd_open(trainer)
    except ProcessLookupError:
        return False
    if os.getppid() != trainer:
        return False
    ready, _, _ = select.select([gone, 0], [], [])
    return gone not in ready


def _end(folder: str, spared: str) -> None:
    """Kills the `holders` of `folder` until there are none, for at most END_S."""
    deadline = time.monotonic() + END_S
    while (found := list(holders(folder, spared))) and time.monotonic() < deadline:
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(LOOK_S)


def holders(folder: str, spared: str) -> Iterator[int]:
    """The ids of processes with an open file below `folder` whose name does not end in `spared`, except this
    process. If `spared` is empty, all names count."""
    for name in os.listdir("/proc"):  # noqa: PTH208
        with suppress(OSError):  # the process has ended meanwhile, or is another user's
            if name.isdigit() and int(name) != os.getpid() and _holds(f"/proc/{name}/fd", folder, spared):
                yield int(name)


def _holds(files: str, folder: str, spared: str) -> bool:
    links = [os.readlink(f"{files}/{fd}") for fd in os.listdir(files)]  # noqa: PTH115, PTH208
    mine = [link for link in links if link.startswith(f"{folder}/")]
    return any(not (spared and link.endswith(spared)) for link in mine)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
