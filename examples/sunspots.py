"""An Elman network forecasts sunspots: python examples/sunspots.py [FILE]

From some months, windows of the table, it forecasts the number of sunspots of the next month. A dense network
gets the same windows, and persistence says the same number again. Both networks learn by how much the number
changes (`difference`), and give the number itself.

How many months a window has is chosen by the errors on the validation set, months 1,692 to 2,255 of 2,820.
Then both networks are trained once more, on all months before the test set, which is looked at once, at the
end.

FILE is monthly-sunspots.csv of https://github.com/jbrownlee/Datasets (2,820 months from 1749-01). Without it,
the file is taken from $DISTBP_TEST_DATA/data, or from shared/data beside the repository. It needs pyarrow
(`pip install 'distbp[tables]'`), and takes ten seconds on one core. It prints:

    RMSE in sunspots of the 564 months of the validation set, by months in a window:

                     12     36
    dense         14.19  14.14
    elman         14.07  14.12
    persistence   15.33

    RMSE of the 564 months of the test set, for seeds (1, 2, 3), and their average:

    persistence   20.09  20.09  20.09    20.09
    dense         18.55  18.38  18.29    18.41
    elman         19.31  19.43  19.38    19.37

The validation set hardly tells the two networks apart, and the test set, whose cycles are the highest of all,
does: there the dense one is better.
"""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import distbp

SHARED = os.environ.get("DISTBP_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared"
LENGTHS, SEEDS = (12, 36), (1, 2, 3)
NETWORKS = {
    "dense": [{"type": "dense", "units": 16, "activation": "tanh"}, {"type": "dense", "units": 1}],
    "elman": [{"type": "elman", "units": 16}, {"type": "dense", "units": 1}],
}


def forecast(
    path: Path, spots: np.ndarray, name: str, length: int, seed: int, validation: float
) -> np.ndarray:
    """Trains on the months before validation and test set, and forecasts every month from those before it;
    NaN for the first ones."""
    job = distbp.TrainingJob(
        name="sunspots",
        data={
            "train": {"format": "table", "path": str(path.resolve())},
            "target": {"column": "Sunspots", "scale": "standard"},
            "time": "Month",
            "windows": {"length": length, "difference": True},
            "split": {"validation": validation, "test": 0.2},
        },
        model={"layers": NETWORKS[name]},
        loss="mse",
        optimizer={"type": "adam", "learning_rate": 0.003, "schedule": {"type": "cosine"}},
        clip={"norm": 1.0},
        epochs=20,
        seed=seed,
        workers=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        model = distbp.train(job, output=Path(folder) / "run").model()
    found = np.full(len(spots) + 1, np.nan)
    found[length:] = model.predict({"Sunspots": spots})  # the last one is of the month to come
    return found[:-1]


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(SHARED) / "data" / "monthly-sunspots.csv"
    with path.open(encoding="utf-8", newline="") as file:
        spots = np.array([float(number) for _, number in list(csv.reader(file))[1:]])
    held = round(0.2 * len(spots))
    test, validation = slice(len(spots) - held, None), slice(len(spots) - 2 * held, len(spots) - held)

    def error(found: np.ndarray, months: slice) -> float:
        return float(np.sqrt(np.mean((found[months] - spots[months]) ** 2)))

    persistence = np.r_[np.nan, spots[:-1]]
    print(f"RMSE in sunspots of the {held} months of the validation set, by months in a window:\n")
    print("            ", *(f"{length:6}" for length in LENGTHS))
    chosen = {}
    for name in NETWORKS:
        errors = [error(forecast(path, spots, name, n, SEEDS[0], 0.2), validation) for n in LENGTHS]
        chosen[name] = LENGTHS[int(np.argmin(errors))]
        print(f"{name:12}", *(f"{one:6.2f}" for one in errors), flush=True)
    print(f"persistence  {error(persistence, validation):6.2f}")
    print(f"\nRMSE of the {held} months of the test set, for seeds {SEEDS}, and their average:\n")
    found = {name: [forecast(path, spots, name, n, seed, 0) for seed in SEEDS] for name, n in chosen.items()}
    for name, forecasts in {"persistence": [persistence] * len(SEEDS), **found}.items():
        errors = [error(one, test) for one in forecasts]
        print(f"{name:12}", *(f"{one:6.2f}" for one in errors), f"  {np.mean(errors):6.2f}")


if __name__ == "__main__":
    main()
