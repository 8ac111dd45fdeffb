"""What a test run has left behind: processes, shared memory, files in the repository.

A program that a test starts, however indirectly and even if its parent died, carries the mark that `Watch`
puts into the environment; a forked child, which does not show it, is known by its parent.
"""

from __future__ import annotations

import os
import select
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_MEMORY = Path("/dev/shm")
MARK = "TEST_RUN_MARK"
GRACE_S = 10.0  # for processes that have been told to end
# Made by the tools themselves, and listed in .gitignore. Sources may be edited while tests run.
_IGNORED_FOLDERS = {".git", "__pycache__", ".hypothesis", "node_modules"}
_IGNORED_PARTS = ("_cache", ".egg-info", ".venv")
_SOURCES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".html", ".css", ".js", ".sh", ".sql", ".swp"}
_OURS = ("distbp", "psm_", "sem.", "plasma", "torch_")  # names in /dev/shm


class Watch:
    """Remembers how things were when it was made."""

    def __init__(self) -> None:
        self._value = uuid.uuid4().hex
        os.environ[MARK] = self._value  # a process that runs a part of the tests adds its own name
        self._memory = set(_memory())
        self._files = set(_files(REPOSITORY))

    def leftovers(self) -> list[str]:
        """One line for each thing that was not there before; waits up to GRACE_S for processes to end."""
        processes = [f"process {pid}: {name}" for pid, name in self._living(GRACE_S)]
        memory = [f"shared memory {name}" for name in sorted(set(_memory()) - self._memory)]
        files = [f"file {path}" for path in sorted(set(_files(REPOSITORY)) - self._files)]
        return [*processes, *memory, *files]

    def _living(self, grace_s: float) -> list[tuple[int, str]]:
        deadline = time.monotonic() + grace_s
        for pid, _ in self._marked():
            wait_for_end(pid, deadline - time.monotonic())
        return self._marked()

    def _marked(self) -> list[tuple[int, str]]:
        mark = f"{MARK}={self._value}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # ended meanwhile, or another user's
                continue
            ours = any(one.startswith(mark) for one in environment) or parent == os.getpid()
            # A zombie has no command; Python's own helper lives as long as this process.
            if ours and command and "multiprocessing.resource_tracker" not in command:
                found.append((int(entry.name), command.strip()[:200]))
        return sorted(found)


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Returns whether the process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s) * 1000))
    finally:
        os.close(handle)


def _memory() -> Iterator[str]:
    if SHARED_MEMORY.is_dir():
        yield from (name for name in os.listdir(SHARED_MEMORY) if name.startswith(_OURS))  # noqa: PTH208


def _files(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = [
            n for n in folders if n not in _IGNORED_FOLDERS and not any(p in n for p in _IGNORED_PARTS)
        ]
        yield from (
            str(Path(folder, name).relative_to(root)) for name in names if Path(name).suffix not in _SOURCES
        )
