"""Seconds from `distbp train --workers 2` to its first step, on a Ray of its own and on a running one.

Beside each stands the least that Ray itself takes for as many processes: a program that imports Ray, starts
or joins it, and waits for an answer of three actors that do nothing. A first run is not counted: it compiles.

python -m benchmarks.first_step [--runs 5] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.table import replace_section

WORKERS = 2
# One step an epoch, so that the first event after the start tells of the first step.
JOB = """
name: first-step
data: {train: {format: blobs, samples: 1024, features: 64, classes: 10}}
model: {layers: [{type: dense, units: 64, activation: relu}, {type: dense, units: 10}]}
loss: softmax_cross_entropy
optimizer: {type: adam, learning_rate: 0.003}
batch_size: 1024
epochs: 2
shards: 4
"""
# What any program with a server and two workers does; the same options as `distbp.team.ray.session`.
BARE = f"""
import logging, sys
import ray
where = dict(address=sys.argv[1]) if len(sys.argv) > 1 else dict(
    address="local", num_cpus={WORKERS + 1}, include_dashboard=False)
ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
@ray.remote(num_cpus=0)
class Nothing:
    def answer(self):
        return 1
actors = [Nothing.remote() for _ in range({WORKERS + 1})]
ray.get([actor.answer.remote() for actor in actors])
print("ready", flush=True)
"""


def beside(program: str) -> str:
    """The program of this name in this environment."""
    return str(Path(sys.executable).with_name(program))


def until(command: list[str], ready: Callable[[str], bool]) -> float:
    """Seconds from starting `command` to the first line of its output that is `ready`; waits for its end."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = next((time.perf_counter() - began for line in process.stdout if ready(line)), None)
        process.stdout.read()
    if found is None or process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode} before it was ready")
    return found


def stepped(line: str) -> bool:
    event = json.loads(line)
    return event["event"] in ("progressed", "epoch_ended") and event["step"] >= 1


def of_distbp(job: Path, address: str | None) -> float:
    with tempfile.TemporaryDirectory() as folder:
        where = ["--address", address] if address else []
        command = ["train", str(job), "--workers", str(WORKERS), "--json", "--output", f"{folder}/run"]
        return until([beside("distbp"), *command, *where], stepped)


def of_bare_ray(address: str | None) -> float:
    return until([sys.executable, "-c", BARE, *([address] if address else [])], lambda line: "ready" in line)


@contextmanager
def running_ray() -> Iterator[str]:
    """A Ray of this machine in processes of its own; gives its address. Ended at the end."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    options = [f"--port={port}", f"--num-cpus={WORKERS + 1}", "--include-dashboard=false", "--block"]
    ray = [beside("ray"), "start", "--head", "--node-ip-address=127.0.0.1"]
    process = subprocess.Popen([*ray, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(15)  # its helpers go on starting for a while; a running one has none of that
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def measure(job: Path, address: str | None, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of distbp and of bare Ray, in turns."""
    pairs = [(of_distbp(job, address), of_bare_ray(address)) for _ in range(runs + 1)][1:]
    return [ours for ours, _ in pairs], [bare for _, bare in pairs]


def report(found: Mapping[str, tuple[list[float], list[float]]], command: str) -> str:
    lines = [
        f"Seconds: medians, lowest and highest; made by `{command}`.",
        "",
        "| Ray | distbp train --workers 2 | Ray alone, three empty actors |",
        "| --- | ---: | ---: |",
    ]
    for where, columns in found.items():
        cells = [f"{median(s):.1f} ({min(s):.1f}-{max(s):.1f})" for s in columns]
        lines.append(f"| {where} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    known = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known.add_argument("--runs", type=int, default=5, help="measurements of each (default 5)")
    known.add_argument("--write", type=Path, help="also put the table into this Markdown page")
    options = known.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        job, token = Path(folder) / "job.yaml", Path(folder) / "token"
        job.write_text(JOB)
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ.pop("RAY_ADDRESS", None)  # else the first of the two would join that Ray
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), RAY_USAGE_STATS_ENABLED="0")
        found = {"started with it": measure(job, None, options.runs)}
        with running_ray() as address:
            found["running"] = measure(job, address, options.runs)
    command = f"python -m benchmarks.first_step --runs {options.runs}"
    text = report(found, command)
    print(text)
    if options.write:
        replace_section(options.write, "first-step", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
