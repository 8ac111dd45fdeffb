"""The recipes for tables against gradient boosting and a plain net, on small tables and fixed splits.

    python -m benchmarks.table_accuracy --abalone PATH/abalone.csv --write docs/benchmarks.md
    python -m benchmarks.table_accuracy --parts --abalone PATH/abalone.csv --write docs/benchmarks.md

The second measures the recipe `table` without its folds, without its bins, and with bins coded from 0 to 1.

Needs the extra `sklearn`. Nobody sees the test rows before the end: early stopping and the search take their
rows from the training rows.
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.table import replace_section
from distbp.job import recipes
from distbp.sklearn import DistbpClassifier, DistbpRegressor

Table = tuple[Any, Any, bool]  # inputs, targets, whether these are classes
TEST_SHARE, MEMBERS = 0.25, 5
GRID = {"learning_rate": [0.03, 0.1], "max_leaf_nodes": [8, 31]}
PLAIN, MANY = "recipe table, 1 network", f"recipe table, {MEMBERS} members"
REALMLP = "recipe realmlp, 1 network"
BOOSTED, TUNED, NET = "boosting", "boosting, tuned", "scikit-learn's MLP"
COLUMNS = (PLAIN, MANY, REALMLP, BOOSTED, TUNED, NET)
NO_FOLDS, NO_BINS, FROM_0 = "one validation set for all members", "no bins", "bins from 0 to 1"
PARTS = (MANY, NO_FOLDS, NO_BINS, FROM_0)


def tables(abalone: Path | None) -> dict[str, Callable[[], Table]]:
    """By name, each loaded when it is called."""
    from sklearn import datasets

    def bundled(name: str, classes: bool) -> Callable[[], Table]:
        return lambda: (*getattr(datasets, f"load_{name}")(return_X_y=True), classes)

    found = {name: bundled(name, True) for name in ("breast_cancer", "wine", "digits")}
    found["diabetes"] = bundled("diabetes", False)
    if abalone is not None:
        found["abalone"] = lambda: _abalone(abalone)
    return found


def _abalone(path: Path) -> Table:
    """Sex one-hot; rings are values."""
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    sexes = [[float(row[0] == sex) for sex in "MFI"] for row in rows]
    numbers = np.array([[float(cell) for cell in row[1:]] for row in rows])
    return np.hstack([sexes, numbers[:, :-1]]), numbers[:, -1], False


def divided(table: Table, seed: int) -> Any:
    """Inputs to train and to test, then targets to train and to test."""
    from sklearn.model_selection import train_test_split

    x, y, classes = table
    return train_test_split(x, y, test_size=TEST_SHARE, random_state=seed, stratify=y if classes else None)


def scores_of_parts(table: Table, seed: int) -> dict[str, float]:
    """The score of the recipe `table` on the test rows of one split: as it is, and without each part."""
    train_x, test_x, train_y, test_y = divided(table, seed)
    ours: Any = DistbpClassifier if table[2] else DistbpRegressor

    def score(**settings: Any) -> float:
        net = ours(recipe="table", members=MEMBERS, random_state=seed, **settings)
        net.fit(train_x.astype(np.float32), train_y)
        return float(net.score(test_x.astype(np.float32), test_y))

    found = {MANY: score(), NO_BINS: score(bins=0)}
    with mock.patch.object(recipes, "BIN_HEIGHT", None):
        found[FROM_0] = score()
    with mock.patch.object(recipes, "FOLDS_ROWS", 0):
        return {**found, NO_FOLDS: score()}


def scores(table: Table, seed: int) -> dict[str, float]:
    """Of each method on the test rows of one split: accuracy, for values R2."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train_x, test_x, train_y, test_y = divided(table, seed)
    classes = table[2]
    ours: Any = DistbpClassifier if classes else DistbpRegressor
    boosted: Any = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    mlp: Any = MLPClassifier if classes else MLPRegressor
    narrow = train_x.astype(np.float32)  # float64 inputs would be trained on in float64
    net = ours(recipe="table", members=MEMBERS, random_state=seed).fit(narrow, train_y)
    found = {MANY: net.score(test_x.astype(np.float32), test_y)}
    net.model_ = replace(net.model_, others=())  # network 0 is the job without members
    found[PLAIN] = net.score(test_x.astype(np.float32), test_y)
    net = ours(recipe="realmlp", random_state=seed).fit(narrow, train_y)
    found[REALMLP] = net.score(test_x.astype(np.float32), test_y)
    others = {
        BOOSTED: boosted(random_state=seed),
        TUNED: GridSearchCV(boosted(random_state=seed), GRID, cv=3),
        NET: make_pipeline(StandardScaler(), mlp(max_iter=500, random_state=seed)),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations that were not enough
        for name, method in others.items():
            found[name] = method.fit(train_x, train_y).score(test_x, test_y)
    return found


def markdown(
    found: Mapping[str, list[dict[str, float]]], values: set[str], columns: Sequence[str] = COLUMNS
) -> str:
    """A row for each table: means over the splits, and their deviations. `values`: tables measured by R2."""
    lines = ["| table | measure | " + " | ".join(columns) + " |", "| --- " * (2 + len(columns)) + "|"]
    for name, runs in found.items():
        best = max(np.mean([run[column] for run in runs]) for column in columns)
        cells = []
        for column in columns:
            scored = [run[column] for run in runs]
            text = f"{np.mean(scored):.3f} ± {np.std(scored):.3f}"
            cells.append(f"**{text}**" if np.mean(scored) == best else text)
        lines.append(f"| {name} | {'R2' if name in values else 'accuracy'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--abalone", type=Path, help="abalone.csv of the UCI repository, without a header")
    parser.add_argument("--tables", help="names, divided by commas; left out: all")
    parser.add_argument("--splits", type=int, default=5, help="how many, by the seeds 0, 1, ...")
    parser.add_argument("--parts", action="store_true", help="the recipe without its parts only")
    parser.add_argument("--write", type=Path, help="the page to put the table into")
    given = parser.parse_args()
    known = tables(given.abalone)
    names = [*known] if given.tables is None else given.tables.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{unknown[0]!r} is not known; known: {', '.join(known)} (abalone with --abalone)")
    loaded = {name: known[name]() for name in names}
    values = {name for name, table in loaded.items() if not table[2]}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in loaded}
    measure, columns, section = scores, COLUMNS, "table-accuracy"
    if given.parts:
        measure, columns, section = scores_of_parts, PARTS, "table-parts"
    for seed in range(given.splits):
        for name, table in loaded.items():
            found[name].append(measure(table, seed))
            told = ", ".join(f"{column} {found[name][-1][column]:.3f}" for column in columns)
            print(f"split {seed}, {name}: {told}", file=sys.stderr, flush=True)
        text = markdown(found, values, columns)
        if given.write is not None:  # after every round, for it takes minutes
            replace_section(given.write, section, f"Splits: {seed + 1}.\n\n{text}")
    print(text)


if __name__ == "__main__":
    main()
