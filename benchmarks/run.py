"""Runs the peers side by side: `python -m benchmarks.run --help`.

Every peer of a row has a process of its own, started and warmed up before the first measurement. Then
the peers take turns, round after round (A B C, A B C, ...), so that a slow minute of the machine hits all of
them; a peer that waits sleeps on its standard input. Results are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from benchmarks import bars, machine, table
from benchmarks.peers import ONE_CORE, PEERS, TWO_CORE, Peer
from benchmarks.peers.common import THREAD_VARIABLES
from benchmarks.rows import ROWS, Row
from benchmarks.table import Results

ANSWER_TIMEOUT_S = 240.0
SECONDS = {ONE_CORE: 1.5, TWO_CORE: 1.0}


class PeerError(Exception):
    """A peer's process ended or hung; the text says what it wrote last."""


class PeerProcess:
    """One peer measuring one row."""

    def __init__(self, peer: Peer, row: Row, cores: Sequence[int]) -> None:
        environment = dict(os.environ)
        environment.update({variable: str(len(cores)) for variable in THREAD_VARIABLES})
        command = [sys.executable, "-W", "ignore", "-m", peer.module, *peer.arguments]
        command += ["--row", row.name, "--cores", ",".join(map(str, cores)), "--serve"]
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - close() closes it
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        try:
            self._answer("ready")
        except BaseException:
            self._process.kill()
            self.close()
            raise

    def measure(self, seconds: float) -> dict[str, Any]:
        """One measurement of about `seconds`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # a process that is gone is reported by the reading below
            print(seconds, file=self._process.stdin, flush=True)
        return self._answer("samples_per_second")

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def _answer(self, key: str) -> dict[str, Any]:
        """The next line that is a JSON object with `key`; libraries may print what they like before it."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(ANSWER_TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                with suppress(json.JSONDecodeError):
                    found = json.loads(line)
                    if isinstance(found, dict) and key in found:
                        return found
        finally:
            watchdog.cancel()
        code = self._process.wait()
        self._errors.seek(0)
        last = " / ".join(self._errors.read().strip().splitlines()[-2:])
        raise PeerError(f"ended with exit code {code}: {last}")


def run_row(
    row: Row, peers: Sequence[Peer], cores: Sequence[int], rounds: int, seconds: float, results: Results
) -> None:
    """Adds the measurements of one row to `results`."""
    rates = results.rates.setdefault(row.name, {})
    with ExitStack() as stack:
        running: dict[str, PeerProcess] = {}
        for peer in peers:
            try:
                running[peer.name] = PeerProcess(peer, row, cores)
                stack.callback(running[peer.name].close)
            except PeerError as error:
                _note_failure(results, peer.name, row, error)
        for number in range(rounds):
            for name, process in list(running.items()):
                try:
                    measured = process.measure(seconds)
                except PeerError as error:
                    _note_failure(results, name, row, error)
                    del running[name]
                    rates.pop(name, None)
                    continue
                rates.setdefault(name, []).append(measured["samples_per_second"])
                print(
                    f"{row.label:24} round {number + 1} {name:16} {measured['samples_per_second']:>12,.0f}/s"
                    f"  loss {measured['loss_before']:.3f} -> {measured['loss_after']:.3f}"
                    f"  {measured.get('exchange', '')}",
                    file=sys.stderr,
                    flush=True,
                )


def _note_failure(results: Results, name: str, row: Row, error: PeerError) -> None:
    results.absent[name] = f"failed on {row.label}: {error}"
    print(f"{name} {results.absent[name]}", file=sys.stderr, flush=True)


def note_missing(peers: Sequence[Peer], results: Results) -> list[Peer]:
    """The peers that can run; the others are named in `results.absent`."""
    for peer in peers:
        if peer.missing:
            results.absent[peer.name] = (
                f"is missing: {', '.join(peer.missing)} not installed;"
                " `pip install -c constraints.txt -e '.[bench]'`"
            )
    return [peer for peer in peers if not peer.missing]


def report(
    comparison: str, rows: Sequence[Row], peers: Sequence[Peer], results: Results, command: str
) -> str:
    """The section of a comparison, as Markdown."""
    facts = "\n".join(f"- {name}: {value}" for name, value in machine.facts().items())
    verdicts = "\n".join(f"- {line}" for line in bars.verdicts(comparison, rows, results))
    return (
        f"Samples per second, medians; made by `{command}`.\n\n"
        f"{table.markdown(rows, peers, results)}\n"
        f"{table.multiples(rows, peers, results)}\n"
        f"Lowest and highest round:\n\n{table.spread(rows, peers, results)}\n"
        f"The bars:\n\n{verdicts or '- none could be judged'}\n\n"
        f"The machine:\n\n{facts}\n"
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    names = ", ".join(ROWS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--rows", help=f"comma-separated, of: {names} (default: all)")
    parser.add_argument("--peers", help=f"comma-separated, of: {', '.join(PEERS)} (default: all that apply)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each peer (default 5)")
    parser.add_argument("--seconds", type=float, help="length of one measurement (default 1.5, two-core 1)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--one-core", dest="comparison", action="store_const", const=ONE_CORE)
    which.add_argument("--two-core", dest="comparison", action="store_const", const=TWO_CORE)
    parser.add_argument("--write", type=Path, help="also put the tables into this Markdown page")
    parser.set_defaults(comparison=ONE_CORE)
    return parser.parse_args(arguments)


def chosen(names: str | None, known: dict[str, Any], what: str) -> list[Any]:
    """The entries of `known` that the comma-separated names pick, or all."""
    if names is None:
        return list(known.values())
    picked = [name.strip() for name in names.split(",")]
    unknown = [name for name in picked if name not in known]
    if unknown:
        raise SystemExit(f"{what}: not known: {', '.join(unknown)}; allowed: {', '.join(known)}")
    return [known[name] for name in picked]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one comparison; the exit code is 1 when a peer that is installed failed."""
    options = parse(arguments)
    rows = chosen(options.rows, ROWS, "--rows")
    applying = {name: p for name, p in PEERS.items() if options.comparison in p.comparisons}
    peers = chosen(options.peers, applying, "--peers")
    results = Results()
    installed = note_missing(peers, results)
    available = sorted(os.sched_getaffinity(0))
    # The last core is the one measured: the first one usually serves the machine's interrupts.
    cores = available[-1:] if options.comparison == ONE_CORE else available[-2:]
    seconds = options.seconds or SECONDS[options.comparison]
    for row in rows:
        run_row(row, installed, cores, options.rounds, seconds, results)
    command = shlex.join(
        ["python", "-m", "benchmarks.run", *(sys.argv[1:] if arguments is None else arguments)]
    )
    text = report(options.comparison, rows, peers, results, command)
    print(text)
    if options.write:
        table.replace_section(options.write, options.comparison, text)
    return int(any("failed" in why for why in results.absent.values()))


if __name__ == "__main__":
    sys.exit(main())
