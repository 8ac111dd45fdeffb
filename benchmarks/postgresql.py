"""A PostgreSQL server in a folder of its own, on a unix socket; for measurements and for tests.

Its programs come from the package `postgresql` (see CONTRIBUTING.md).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psycopg

START_S = 60.0


class PostgreSQL:
    """`url`: of its database `postgres`. folder: empty; short, for the socket's sake. options: of the server,
    as on its command line."""

    def __init__(self, bin_dir: Path, folder: Path, *options: str) -> None:
        self.url = f"postgresql://distbp@/postgres?host={folder}"
        self._programs, self._folder, self._options = bin_dir, folder, options
        self._user = "nobody" if os.geteuid() == 0 else None  # the server refuses to run as root
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        fresh = ["-U", "distbp", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]
        self._run(bin_dir / "initdb", "-D", folder / "data", *fresh).wait()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        listen = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self._folder}"]
        program = self._programs / "postgres"
        self._process = self._run(program, "-D", self._folder / "data", *listen, *self._options)
        deadline = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(host=str(self._folder), user="distbp", dbname="postgres").close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL did not start in time"
                time.sleep(0.02)

    def kill(self) -> None:
        """kill -9 of the server and of every process that serves a client."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.kill()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self._process.wait()
        # They share memory, which the next server asks for: none of them may be left.
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # "fast": ends its clients
            self._process.wait(timeout=20)

    def _run(self, *command: str | Path) -> subprocess.Popen[bytes]:
        with open(self._folder / "log", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, user=self._user, cwd=self._folder)


def programs() -> Path | None:
    """The folder of the server's programs; None where it is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb")
    return installed[-1].parent if installed else Path(found).parent if found else None
