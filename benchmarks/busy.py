"""Training on two cores that other programs use too: ours beside every peer.

Other programs are loops that never wait, pinned to the same two cores. On a fair machine, two threads beside
one such program get two thirds of the cores' time, and beside two of them half.

python -m benchmarks.busy [--rows mnist-256-256,...] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks import machine
from benchmarks.peer_process import PeerProcess
from benchmarks.peers import PEERS, TWO_CORE, Peer
from benchmarks.rows import ROWS, Row
from benchmarks.run import note_missing
from benchmarks.table import Results, replace_section

PROGRAMS = (0, 1, 2)  # how many others there are
Speeds = dict[tuple[str, int], list[float]]  # (peer, others) -> samples per second, round by round


@contextmanager
def programs(count: int, cores: Sequence[int]) -> Iterator[None]:
    """So many programs that always compute, on these cores, for the time of the block."""
    command = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {set(cores)})\nwhile True: pass"]
    with ExitStack() as stack:
        for _ in range(count):
            stack.callback(stack.enter_context(subprocess.Popen(command)).kill)
        yield


def speeds(row: Row, peers: Sequence[Peer], rounds: int, seconds: float) -> Speeds:
    """In turns: every peer alone, then every peer beside one program, and so on. Raises PeerError if a peer's
    process ends or hangs."""
    cores = sorted(os.sched_getaffinity(0))[-2:]
    found: Speeds = defaultdict(list)
    with ExitStack() as stack:
        processes: dict[str, PeerProcess] = {}
        for peer in peers:
            processes[peer.name] = PeerProcess(peer, row, cores)
            stack.callback(processes[peer.name].close)
        for _ in range(rounds):
            for others in PROGRAMS:
                with programs(others, cores):
                    for name, process in processes.items():
                        measured = process.measure(seconds)
                        found[name, others].append(float(measured["samples_per_second"]))
    return found


def lines(row: Row, peers: Sequence[Peer], found: Speeds) -> list[str]:
    """The table of a row: medians, and what is left of the speed alone."""
    made = [
        f"{row.label}:",
        "",
        "| | alone | beside one program | beside two |",
        "| --- | ---: | ---: | ---: |",
    ]
    for peer in peers:
        alone, *beside = (median(found[peer.name, others]) for others in PROGRAMS)
        cells = [f"{alone:,.0f}", *(f"{each:,.0f} ({each / alone:.2f})" for each in beside)]
        made.append(f"| {peer.name} | {' | '.join(cells)} |")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__)
    parser.add_argument("--rows", default="mnist-256-256,covertype-256")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    results = Results()
    peers = note_missing([peer for peer in PEERS.values() if TWO_CORE in peer.comparisons], results)
    page = [f"- {name} {why}" for name, why in results.absent.items()]
    print("\n".join(page))
    for name in options.rows.split(","):
        row = ROWS[name]
        found = lines(row, peers, speeds(row, peers, options.rounds, options.seconds))
        print("\n".join(found), flush=True)
        page += ["", *found]
    if options.write:
        command = f"python -m benchmarks.busy --rounds {options.rounds}"
        words = (
            f"Samples per second, medians, on {machine.facts()['CPU']}; in brackets the part of the speed"
            f" alone. Made by `{command}`."
        )
        replace_section(options.write, "busy", "\n".join([words, *page]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
