"""The recipe realmlp beside the program of its authors, pytabkit, on values: R2 on a quarter of the rows.

    python -m benchmarks.realmlp ours --abalone PATH/abalone.csv
    python -m benchmarks.realmlp theirs --abalone PATH/abalone.csv

The second takes an environment with pytabkit, on one thread; nothing of distbp is imported there. Each
chooses its own validation rows among those that train.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = {"diabetes": 20, "abalone": 3}
Array = np.ndarray[Any, np.dtype[Any]]


def abalone(path: Path) -> tuple[Array, Array]:
    """Sex one-hot; rings are values."""
    rows = [row for row in csv.reader(path.read_text().splitlines()) if row]
    sexes = [[float(row[0] == sex) for sex in "MFI"] for row in rows]
    numbers = np.array([[float(cell) for cell in row[1:]] for row in rows])
    return np.hstack([sexes, numbers[:, :-1]]), numbers[:, -1]


def network(whose: str, seed: int) -> Any:
    """An estimator that is not fitted yet."""
    if whose == "ours":
        from distbp.sklearn import DistbpRegressor

        return DistbpRegressor(recipe="realmlp", random_state=seed)
    import torch
    from pytabkit import RealMLP_TD_Regressor

    torch.set_num_threads(1)
    return RealMLP_TD_Regressor(random_state=seed, device="cpu", n_threads=1, n_cv=1, n_refit=0, verbosity=0)


def main() -> None:
    parser = argparse.ArgumentParser(description="RealMLP, ours or theirs, on two tables of values")
    parser.add_argument("whose", choices=("ours", "theirs"))
    parser.add_argument("--abalone", type=Path, required=True, help="abalone.csv, without a header")
    given = parser.parse_args()

    from sklearn.datasets import load_diabetes
    from sklearn.metrics import r2_score
    from sklearn.model_selection import train_test_split

    tables = {"diabetes": load_diabetes(return_X_y=True), "abalone": abalone(given.abalone)}
    for name, (x, y) in tables.items():
        found, began = [], time.process_time()
        for seed in range(SPLITS[name]):
            rows, held, targets, right = train_test_split(x, y, test_size=0.25, random_state=seed)
            fitted = network(given.whose, seed).fit(rows.astype(np.float32), targets)
            found.append(float(r2_score(right, np.ravel(fitted.predict(held.astype(np.float32))))))
        took = time.process_time() - began
        print(
            f"{name}: R2 {np.mean(found):.4f}, deviation {np.std(found):.3f} over {len(found)} splits,"
            f" {took:.0f} s of processors",
            flush=True,
        )


if __name__ == "__main__":
    main()
