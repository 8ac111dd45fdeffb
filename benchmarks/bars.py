"""What distbp promises against its peers, as data, and which of it a run met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers import (
    ANY_JOB,
    ANY_JOB_TWO_CORE,
    NETWORKS,
    NETWORKS_TWO_CORE,
    ONE_CORE,
    PEERS,
    TWO_CORE,
)
from benchmarks.rows import ANY_ROWS, ROWS, AnyRow
from benchmarks.table import Results, medians_of

ALL = tuple(ROWS)
BEST = "the best peer"


@dataclass(frozen=True, slots=True)
class Bar:
    """`ours` is at least `ratio` times `other` (a peer's name, or BEST) on the named rows."""

    comparison: str
    ours: str
    other: str
    ratio: float
    rows: tuple[str, ...]


# Of each network: on one core, and on two.
_NETWORKS = {
    "lenet": (1.3, 1.1),
    "resnet8": (0.6, 0.6),
    "lstm": (1.3, 1.2),
    "elman": (1.4, 1.8),
    "embedding": (1.0, 1.0),
    "transformer": (0.8, 0.8),
}

BARS = (
    *(Bar(NETWORKS, "distbp", BEST, one, (name,)) for name, (one, _) in _NETWORKS.items()),
    *(Bar(NETWORKS_TWO_CORE, "distbp auto", BEST, two, (name,)) for name, (_, two) in _NETWORKS.items()),
    Bar(ONE_CORE, "distbp", BEST, 1.0, ALL),
    Bar(ONE_CORE, "distbp", "PyTorch eager", 4.0, ("mnist-30", "mnist-100")),
    Bar(ANY_JOB, "distbp", BEST, 1.0, tuple(ANY_ROWS)),
    Bar(ANY_JOB, "distbp", BEST, 1.2, ("mse-sgd", "mse-adam")),
    Bar(ANY_JOB_TWO_CORE, "distbp auto", BEST, 1.0, tuple(ANY_ROWS)),
    Bar(ANY_JOB_TWO_CORE, "distbp auto", BEST, 1.2, ("mse-sgd", "mse-adam")),
    Bar(TWO_CORE, "distbp auto", BEST, 1.0, ALL),
    Bar(TWO_CORE, "distbp auto", "PyTorch DDP", 3.0, tuple(name for name in ALL if name != "wide-2048")),
    Bar(TWO_CORE, "distbp auto", "PyTorch DDP", 1.05, ("wide-2048",)),
    # The rows whose step takes more than a millisecond on one core.
    Bar(
        TWO_CORE,
        "distbp 2 workers",
        "distbp 1 worker",
        1.6,
        ("mnist-256-256", "wide-2048", "covertype-2048"),
    ),
)


def verdicts(comparison: str, rows: Sequence[AnyRow], results: Results) -> list[str]:
    """One line for each bar and row that the run can judge: met or not, and the ratio."""
    lines = []
    for bar in BARS:
        for row in rows:
            found = medians_of(row, results)
            others = {
                n: r
                for n, r in found.items()
                if (n in PEERS and not PEERS[n].ours if bar.other == BEST else n == bar.other)
            }
            if (
                bar.comparison != comparison
                or row.name not in bar.rows
                or not others
                or bar.ours not in found
            ):
                continue
            other = max(others, key=others.__getitem__)
            ratio = found[bar.ours] / others[other]
            met = "met" if ratio >= bar.ratio else "NOT met"
            lines.append(f"{met}: {row.label}: {bar.ours} is {ratio:.2f} times {other} (bar {bar.ratio:g})")
    return lines
