"""`distbp serve` as a user starts it: a process of its own, with its own folders."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

WAIT_S = 60.0
# A runner may take a moment longer to end than the service that has heard its last report.
WARNINGS = ("-W", "error", "-W", "ignore::ResourceWarning")
ROOT = Path(__file__).resolve().parents[1]
# No compiled kernels to load in hundreds of processes, each of which trains for a second. Who compares their
# bits with a run of his own trains with the same.
QUICK = {"DISTBP_KERNELS": "numpy"}


class Served:
    """A service below `folder`. `environment`: for its clients, which find it by what it wrote down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "data" / "distbp"
        self.environment = environment(folder)
        self.url = ""
        self.port = 0
        self.said = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str | Path) -> None:
        """Returns when it serves; the second time at the same port."""
        given = [str(word) for word in (*words, "--port", self.port)]
        with open(self.folder / "serve.err", "ab") as err:
            self._process = subprocess.Popen(
                [sys.executable, *WARNINGS, "-m", "distbp.cli.main", "serve", *given],
                stdout=subprocess.PIPE,
                stderr=err,
                env=self.environment,
                cwd=self.folder,
            )
        self.said = self._read_until("Ctrl-C stops it")
        found = re.search(r"^distbp serves at (http://.+:(\d+))$", self.said, re.MULTILINE)
        if found is not None:
            self.url, self.port = found[1], int(found[2])

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    @property
    def errors(self) -> str:
        return (self.folder / "serve.err").read_text()

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end, and waits; returns its exit code."""
        return self._end(number)

    def _end(self, number: int) -> int:
        process = self._process
        if process is None:
            return 0
        process.send_signal(number)
        code = process.wait(WAIT_S)
        assert process.stdout is not None
        process.stdout.close()
        self._process = None
        return code

    def _read_until(self, text: str) -> str:
        assert self._process is not None and self._process.stdout is not None
        pipe, said, deadline = self._process.stdout, "", time.monotonic() + WAIT_S
        while text not in said:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"it did not start in time:\n{said}\n{self.errors}"
            piece = os.read(pipe.fileno(), 4096)
            assert piece, f"it ended:\n{said}\n{self.errors}"
            said += piece.decode()
        return said


def environment(folder: Path) -> dict[str, str]:
    """In which distbp keeps everything below `folder`."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("DISTBP_")}
    return {
        **mine,
        **QUICK,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'services'}",
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_DATA_HOME": str(folder / "data"),
    }


@contextmanager
def serving(folder: Path, *words: str | Path):
    """A service for the time of the block; then its runners are gone too."""
    served = Served(folder)
    try:
        served.start(*words)
        yield served
    finally:
        served.stop()


def run(served: Served, *words: str | Path, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    """A command of distbp, as a client of the service."""
    return command(served.environment | more, *words, code=code)


def command(
    env: Mapping[str, str], *words: str | Path, code: int | None = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "distbp.cli.main", *map(str, words)],
        env=dict(env),
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S * 2,
    )
    assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done
