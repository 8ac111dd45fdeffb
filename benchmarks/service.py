"""The service under load: submits and pages with many jobs in the store, 200 screens that follow a job.

    python -m benchmarks.service [--write docs/benchmarks.md]

`distbp serve --only api` in a process of its own, on loopback, over SQLite and (where it is installed) over
PostgreSQL, as anybody would start it; both commit to the disk. The clients are this process, on the same
machine, so their work counts against the numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from distbp_service.store import Store
from distbp_service.store.records import new_id
from distbp_service.store.schema import jobs

from benchmarks import machine
from benchmarks.postgresql import PostgreSQL, programs
from benchmarks.service_screens import screens
from benchmarks.table import replace_section

JOB = {
    "data": {"train": {"format": "blobs"}},
    "model": {"layers": [{"type": "dense", "units": 3}]},
    "loss": "softmax_cross_entropy",
}
SUBMITS, PAGES, SCREENS = 500, 50, 200
FEW, MANY = 10_000, 100_000
SECTION = "service"


@dataclass(frozen=True)
class Line:
    """One measurement: milliseconds, and the most that they may be (None: only told)."""

    what: str
    times_ms: list[float]
    bar_ms: float | None

    @property
    def p99(self) -> float:
        return sorted(self.times_ms)[min(len(self.times_ms) - 1, int(0.99 * len(self.times_ms)))]

    @property
    def verdict(self) -> str:
        if self.bar_ms is None:
            return ""
        return f"{self.bar_ms:g}: {'met' if self.p99 < self.bar_ms else 'NOT met'}"


@contextmanager
def served(folder: Path, database: str) -> Iterator[tuple[str, str, Store]]:
    """The address of an API, a token of the project "main", and its store."""
    command = [str(Path(sys.executable).with_name("distbp")), "serve", "--only", "api", "--port", "0"]
    command += ["--data", str(folder), *(["--database", database] if database else [])]
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    try:
        assert server.stdout is not None
        first = server.stdout.readline()
        assert first.startswith("distbp serves at "), first
        store = Store(database or f"sqlite:///{folder}/distbp.db")
        try:
            yield first.split()[-1], (folder / "token").read_text().strip(), store
        finally:
            store.close()
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()


def fill(store: Store, count: int) -> None:
    """Adds ended and waiting jobs until the project has `count`, as copies of one that was submitted."""
    with store.db.write() as conn:
        pattern = dict(conn.execute(jobs.select().limit(1)).one()._mapping)
        have = len(conn.execute(jobs.select().with_only_columns(jobs.c.id)).all())
        states = ("completed", "failed", "queued", "cancelled")
        for first in range(have, count, 5000):
            rows = [
                {**pattern, "id": new_id("job_", pattern["created_at"] - n), "name": f"job {n}",
                 "state": states[n % 4]}
                for n in range(first, min(count, first + 5000))
            ]  # fmt: skip
            conn.execute(jobs.insert(), rows)
    if not store.db.sqlite:
        with store.db.write() as conn:
            conn.exec_driver_sql("ANALYZE")  # PostgreSQL does that by itself, some time later


def timed(call: Callable[[], httpx.Response], times: int) -> list[float]:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call().raise_for_status()
        found.append(1000 * (time.perf_counter() - began))
    return found


async def crowd(url: str, headers: dict[str, str], clients: int, each: int) -> list[float]:
    """Milliseconds of every submit of clients that all submit at once."""
    found: list[float] = []

    async def one() -> None:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
            for _ in range(each):
                began = time.perf_counter()
                (await client.post("/v1/jobs", json={"job": JOB})).raise_for_status()
                found.append(1000 * (time.perf_counter() - began))

    await asyncio.gather(*(one() for _ in range(clients)))
    return found


def measure(database: str, folder: Path) -> list[Line]:
    lines = []
    with served(folder, database) as (url, token, store):
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:

            def submit() -> httpx.Response:
                return client.post("/v1/jobs", json={"job": JOB})

            timed(submit, 20)  # first calls import and connect
            fill(store, FEW)
            lines.append(Line(f"submit, {FEW:,} jobs in the store", timed(submit, SUBMITS), 100))
            time.sleep(2.0)  # the token's allowance of requests fills up again
            many = asyncio.run(crowd(url, headers, 20, 15))
            lines.append(Line("the same, 20 clients at once without a pause", many, None))
            heard = asyncio.run(screens(url, headers, store, 1))
            lines.append(Line("metric: from the runner's report to the screen of 1 client", heard, 500))
            heard = asyncio.run(screens(url, headers, store, SCREENS))
            lines.append(Line(f"the same, {SCREENS} clients at once", heard, 500))
            fill(store, MANY)
            deep = client.get("/v1/jobs?limit=1000").json()["cursor"]
            for what, path in {
                "first page": "?limit=50",
                "page by a cursor": f"?limit=50&cursor={deep}",
                "page of one state": "?limit=50&state=running",
                "page of a name that hardly any has": "?limit=50&name=9999",
            }.items():
                times = timed(lambda path=path: client.get(f"/v1/jobs{path}"), PAGES)  # type: ignore[misc]
                lines.append(Line(f"list, {MANY:,} jobs: {what}", times, 100))
    return lines


def markdown(found: dict[str, list[Line]], command: str) -> str:
    text = f"Milliseconds; made by `{command}`.\n"
    for name, lines in found.items():
        text += f"\n| {name} | median | p99 | worst | bar for p99 |\n| --- | ---: | ---: | ---: | --- |\n"
        for line in lines:
            middle, worst = statistics.median(line.times_ms), max(line.times_ms)
            text += f"| {line.what} | {middle:.1f} | {line.p99:.1f} | {worst:.1f} | {line.verdict} |\n"
    facts = "\n".join(f"- {name}: {value}" for name, value in machine.facts().items())
    return f"{text}\nThe machine:\n\n{facts}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, help="also put the tables into this Markdown page")
    given = parser.parse_args()
    found = {}
    with ExitStack() as stack:

        def fresh() -> Path:
            folder = Path(tempfile.mkdtemp(prefix="distbp-bench-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            return folder

        found["SQLite"] = measure("", fresh())
        bin_dir = programs()
        if bin_dir is None:
            print("PostgreSQL is not installed; it is left out", file=sys.stderr)
        else:
            server = PostgreSQL(bin_dir, fresh())
            server.start()
            stack.callback(server.stop)
            found["PostgreSQL"] = measure(server.url, fresh())
    command = shlex.join(["python", "-m", "benchmarks.service", *sys.argv[1:]])
    text = markdown(found, command)
    print(text)
    if given.write:
        replace_section(given.write, SECTION, text)


if __name__ == "__main__":
    main()
