"""What every peer's process does: pin its threads, warm up, then measure when told.

Alone:          python -m benchmarks.peers.jax_scan --row mnist-30 --seconds 2
Under run.py:   --serve: warm up, print a ready line, then answer each line on stdin (a number of seconds)
                with one measurement; end of input ends the process.

Each answer is one line of JSON: row, samples_per_second, steps, seconds, loss_before, loss_after.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from benchmarks.rows import ALL_ROWS, AnyRow

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Net:
    """A peer's net, ready to train.

    train(order) trains one epoch on an order (steps, batch) of row numbers and returns when the work is
    done; loss() is the mean loss over the first rows of the table.
    """

    train: Callable[[Any], None]
    loss: Callable[[], float]


Measure = Callable[[float], dict[str, Any]]


def fix_threads(cores: list[int], threads: int) -> None:
    """Ties this process to `cores` and its math libraries to `threads`; call before they load."""
    os.sched_setaffinity(0, cores)
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)


def measure(row: AnyRow, net: Net, orders: Iterator[Any], seconds: float) -> dict[str, Any]:
    """Trains whole epochs, shuffling included, until `seconds` have passed."""
    before = net.loss()
    steps, start, passed = 0, time.perf_counter(), 0.0
    while passed < seconds:
        order = next(orders)
        net.train(order)
        steps += len(order)
        passed = time.perf_counter() - start
    return answer(row, steps, passed, before, net.loss())


def answer(row: AnyRow, steps: int, seconds: float, before: float, after: float) -> dict[str, Any]:
    """One measurement as the JSON object that run.py reads."""
    return {
        "row": row.name,
        "samples_per_second": steps * row.batch / seconds,
        "steps": steps,
        "seconds": seconds,
        "loss_before": before,
        "loss_after": after,
    }


def build_and_warm(row: AnyRow, build: Callable[[Any], Net]) -> Measure:
    """Builds the net and trains one untimed epoch: compilation, caches and lazy set-up happen here."""
    from benchmarks.synthetic import orders

    net, epochs = build(row), orders(row)
    net.train(next(epochs))
    return lambda seconds: measure(row, net, epochs, seconds)


def parser() -> argparse.ArgumentParser:
    """The options of every peer's process."""
    known = argparse.ArgumentParser()
    known.add_argument("--row", choices=sorted(ALL_ROWS), required=True)
    known.add_argument("--seconds", type=float, default=2.0, help="length of the one measurement")
    known.add_argument("--cores", default="0", help="core numbers, as 0 or 0,1")
    known.add_argument("--first-cores", type=int, metavar="N", help="use only the first N of --cores")
    known.add_argument("--serve", action="store_true", help="measure for each number read from stdin")
    return known


def parse(known: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """The command line's options, `cores` as a list of numbers."""
    options = (known or parser()).parse_args()
    options.cores = [int(core) for core in options.cores.split(",")][: options.first_cores]
    return options


def parse_ours(workers: str | None = None) -> argparse.Namespace:
    """The same for distbp's own processes. Chooses the kernels, and where `distbp` comes from."""
    known = parser()
    known.add_argument("--kernels", default="auto", help="as DISTBP_KERNELS")
    known.add_argument("--package", help="a checkout to import distbp from, instead of this one")
    if workers is not None:
        known.add_argument(
            "--workers", default=workers, type=lambda text: text if text == "auto" else int(text)
        )
    options = parse(known)
    os.environ["DISTBP_KERNELS"] = options.kernels
    if options.package:
        sys.path.insert(0, options.package)
        os.environ["PYTHONPATH"] = options.package  # of Ray's workers
    return options


def serve(options: argparse.Namespace, one: Measure) -> None:
    """Prints one measurement, or with --serve one for each line on stdin."""
    if not options.serve:
        print(json.dumps(one(options.seconds)), flush=True)
        return
    print(json.dumps({"ready": options.row}), flush=True)
    for line in sys.stdin:
        print(json.dumps(one(float(line))), flush=True)


def main(build: Callable[[Any], Net], threads: int | None = None) -> None:
    """A peer in one process, one thread for each core unless `threads` says otherwise."""
    options = parse()
    fix_threads(options.cores, threads or len(options.cores))
    serve(options, build_and_warm(ALL_ROWS[options.row], build))


def main_session(session: Callable[[argparse.Namespace, Any], AbstractContextManager[Measure]]) -> None:
    """A peer that starts processes of its own: `session` starts and ends them and measures in between."""
    options = parse()
    fix_threads(options.cores, 1)
    with session(options, ALL_ROWS[options.row]) as one:
        serve(options, one)
