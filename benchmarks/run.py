"""Runs the peers side by side: `python -m benchmarks.run --help`.

Every peer of a row has a process of its own, started and warmed up before the first measurement. Then
the peers take turns, round after round (A B C, A B C, ...), so that a slow minute of the machine hits all of
them; a peer that waits is stopped, with all its processes. Results are medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import bars, machine, table
from benchmarks.networks import NETWORK_ROWS
from benchmarks.peer_process import PeerError, PeerProcess
from benchmarks.peers import (
    ANY_JOB,
    ANY_JOB_TWO_CORE,
    NETWORKS,
    NETWORKS_TWO_CORE,
    ONE_CORE,
    PEERS,
    TWO_CORE,
    Peer,
    with_base,
)
from benchmarks.rows import ALL_ROWS, ANY_ROWS, ROWS, AnyRow, Row
from benchmarks.table import Results

# For each comparison the rows, the length of a measurement, and the cores.
COMPARISONS: dict[str, tuple[Mapping[str, AnyRow], float, int]] = {
    ONE_CORE: (ROWS, 1.5, 1),
    TWO_CORE: (ROWS, 1.0, 2),
    ANY_JOB: (ANY_ROWS, 1.0, 1),
    ANY_JOB_TWO_CORE: (ANY_ROWS, 1.0, 2),
    NETWORKS: (NETWORK_ROWS, 1.0, 1),
    NETWORKS_TWO_CORE: (NETWORK_ROWS, 1.0, 2),
}


def run_row(
    row: AnyRow, peers: Sequence[Peer], cores: Sequence[int], rounds: int, seconds: float, results: Results
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


def _note_failure(results: Results, name: str, row: AnyRow, error: PeerError) -> None:
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
        elif peer.refused:
            results.absent[peer.name] = f"cannot be here: {peer.refused}"
    return [peer for peer in peers if peer.name not in results.absent]


def report(
    comparison: str, rows: Sequence[AnyRow], peers: Sequence[Peer], results: Results, command: str
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
    names = ", ".join(ALL_ROWS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--rows", help=f"comma-separated, of: {names} (default: all of the comparison)")
    parser.add_argument("--peers", help=f"comma-separated, of: {', '.join(PEERS)} (default: all that apply)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each peer (default 5)")
    parser.add_argument(
        "--seconds", type=float, help="length of one measurement (default 1.5 on one core, else 1)"
    )
    which = parser.add_mutually_exclusive_group()
    for name in COMPARISONS:
        which.add_argument(f"--{name}", dest="comparison", action="store_const", const=name)
    parser.add_argument("--base", type=Path, help="a checkout of another commit, as one more column")
    parser.add_argument("--write", type=Path, help="also put the tables into this Markdown page")
    parser.set_defaults(comparison=ONE_CORE)
    return parser.parse_args(arguments)


def chosen(names: str | None, known: dict[str, Any], what: str) -> list[Any]:
    """The entries of `known` that the comma-separated names pick, or all. A name may have a comma itself."""
    if names is None:
        return list(known.values())
    picked: list[str] = []
    for part in names.split(","):
        name = part.strip()
        if picked and f"{picked[-1]}, {name}" in known:
            name = f"{picked.pop()}, {name}"
        picked.append(name)
    unknown = [name for name in picked if name not in known]
    if unknown:
        raise SystemExit(f"{what}: not known: {', '.join(unknown)}; allowed: {', '.join(known)}")
    return [known[name] for name in picked]


def commit_of(checkout: Path) -> str:
    """`distbp at` its commit. Raises SystemExit where the folder is not a checkout."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode or not (checkout / "distbp").is_dir():
        raise SystemExit(f"--base {checkout}: not a checkout of distbp; make one with `git worktree add`")
    return f"distbp at {found.stdout.strip()}"


def scikit_can(row: AnyRow) -> bool:
    """Whether scikit-learn's networks can do what the row asks for."""
    if not isinstance(row, Row):
        return False
    beyond = row.normalized or row.dropout or row.clip_norm or row.class_weights or row.l1
    return not beyond and row.activation != "gelu" and row.optimizer in ("sgd", "adam")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one comparison; the exit code is 1 when a peer that is installed failed."""
    options = parse(arguments)
    usual, usual_seconds, core_count = COMPARISONS[options.comparison]
    rows = chosen(options.rows, ALL_ROWS if options.rows else usual, "--rows")
    applying = {name: p for name, p in PEERS.items() if options.comparison in p.comparisons}
    peers = chosen(options.peers, applying, "--peers")
    if options.base:
        peers = with_base(peers, str(options.base.resolve()), commit_of(options.base))
    results = Results()
    installed = note_missing(peers, results)
    available = sorted(os.sched_getaffinity(0))
    # The last core is the one measured: the first one usually serves the machine's interrupts.
    cores = available[-core_count:]
    seconds = options.seconds or usual_seconds
    for row in rows:
        able = [peer for peer in installed if peer.name != "scikit-learn" or scikit_can(row)]
        run_row(row, able, cores, options.rounds, seconds, results)
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
