"""An Elman network forecasts sunspots: python examples/sunspots.py [FILE [MONTHS ...]]

Every month two networks forecast the number of sunspots of the next one, from the numbers of the last
months. The dense one sees these months alone. The Elman one goes through the months in order, and carries its
state from one to the next: it is trained by truncated backpropagation through time. Both learn by how much
the square root of the number changes, as counts vary the more, the larger they are. Of each kind five
networks of different seeds are trained, and their forecasts averaged. Linear autoregression of the same
months, by least squares, stands beside them.

How many months they see (MONTHS, or 12, 24 and 36) is chosen by the errors on the validation set, months
1,692 to 2,255 of 2,820. Then all are trained once more, on all months before the test set, which is looked at
once, at the end.

FILE is monthly-sunspots.csv of https://github.com/jbrownlee/Datasets (2,820 months from 1749-01). Without it,
the file is taken from $DISTBP_TEST_DATA/data, or from shared/data beside the repository. It takes a minute on
one core, and prints:

    RMSE in sunspots of the 564 months of the validation set, by the months that are seen:

                     12     24     36
    linear        14.00  13.77  13.74
    dense         14.05  13.78  13.61
    elman         13.82  13.69  13.53
    persistence   15.33

    RMSE of the 564 months of the test set, of each network, and of the averaged forecast:

    linear                                             18.34
    dense         18.28  18.52  18.11  18.34  18.12    18.13
    elman         18.57  18.52  19.20  18.72  19.33    18.27
    persistence                                        20.09

On the validation set the Elman network is ahead of all. On the test set, whose cycles are the highest of all,
it is hardly ahead of the linear forecast, and behind the dense network by less than one percent.
"""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import distbp

SHARED = os.environ.get("DISTBP_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared"
MONTHS, SEEDS = (12, 24, 36), (1, 2, 3, 4, 5)
NETWORKS = {
    "dense": {
        "model": {
            "layers": [{"type": "dense", "units": 16, "activation": "tanh"}, {"type": "dense", "units": 1}]
        },
        "batch_size": 32,
        "epochs": 20,
    },
    "elman": {
        "model": {
            "layers": [
                {"type": "elman", "units": 16, "return_sequences": True},
                {"type": "dense_steps", "units": 1},
            ]
        },
        "data": {"truncated_bptt_steps": 12},
        "batch_size": 4,
        "epochs": 30,
    },
}


def forecast(name: str, months: int, seed: int, spots: np.ndarray, known: int) -> np.ndarray:
    """Learns from the first `known` months, and forecasts every month from those before it; NaN for the first
    ones."""
    roots = np.sqrt(spots)
    mean, size = roots[:known].mean(), roots[:known].std()
    changes = np.diff(roots)
    unit = changes[: known - 1].std()
    x = np.lib.stride_tricks.sliding_window_view((roots - mean) / size, months)[:-1].astype(np.float32)
    y = (changes[months - 1 :, None] / unit).astype(np.float32)
    learned = slice(known - months)
    if name == "linear":
        x = np.column_stack([x, np.ones(len(x))])
        change = x @ np.linalg.lstsq(x[learned], y[learned], rcond=None)[0]
    else:
        change = trained(name, seed, x, y, learned)
    return np.r_[np.full(months, np.nan), (roots[months - 1 : -1] + change.reshape(-1) * unit) ** 2]


def trained(name: str, seed: int, x: np.ndarray, y: np.ndarray, learned: slice) -> np.ndarray:
    """What a network gives for all windows after it was trained on those that are `learned`."""
    if name == "elman":  # the whole is one series
        x, y = x[None], y[None]
    part = (..., learned, slice(None))
    job = distbp.TrainingJob(
        name="sunspots",
        loss="mse",
        optimizer={"type": "adam", "learning_rate": 0.003, "schedule": {"type": "cosine"}},
        clip={"norm": 1.0},
        seed=seed,
        workers=0,
        **NETWORKS[name],
    )
    with tempfile.TemporaryDirectory() as folder:
        result = distbp.train(job, data=(x[part], y[part]), output=Path(folder) / "run", draws=False)
        return result.model().predict(x)


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(SHARED) / "data" / "monthly-sunspots.csv"
    with path.open(encoding="utf-8", newline="") as file:
        spots = np.array([float(number) for _, number in list(csv.reader(file))[1:]])
    tried = tuple(map(int, sys.argv[2:])) or MONTHS
    held = round(0.2 * len(spots))
    test, validation = slice(len(spots) - held, None), slice(len(spots) - 2 * held, len(spots) - held)

    def error(found: np.ndarray, months: slice) -> float:
        return float(np.sqrt(np.mean((found[months] - spots[months]) ** 2)))

    def average(name: str, months: int, known: int, told: Callable[[np.ndarray], None]) -> np.ndarray:
        seeds = SEEDS if name in NETWORKS else SEEDS[:1]
        found = [forecast(name, months, seed, spots, known) for seed in seeds]
        for one in found:
            told(one)
        return np.mean(found, axis=0)

    persistence = np.r_[np.nan, spots[:-1]]
    print(f"RMSE in sunspots of the {held} months of the validation set, by the months that are seen:\n")
    print("            ", *(f"{months:6}" for months in tried))
    chosen = {}
    for name in ("linear", *NETWORKS):
        forecasts = [average(name, months, validation.start, lambda one: None) for months in tried]
        errors = [error(one, validation) for one in forecasts]
        chosen[name] = tried[int(np.argmin(errors))]
        print(f"{name:12}", *(f"{one:6.2f}" for one in errors), flush=True)
    print(f"persistence  {error(persistence, validation):6.2f}")
    print(f"\nRMSE of the {held} months of the test set, of each network, and of the averaged forecast:\n")
    for name, months in chosen.items():
        single: list[float] = []
        joined = average(name, months, test.start, lambda one, to=single: to.append(error(one, test)))
        shown = " ".join(f"{one:6.2f}" for one in single) if len(single) > 1 else ""
        print(f"{name:12} {shown:34}   {error(joined, test):6.2f}", flush=True)
    print(f"{'persistence':12} {'':34}   {error(persistence, test):6.2f}")


if __name__ == "__main__":
    main()
