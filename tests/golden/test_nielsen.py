"""GOLDEN.md, case 2: the training curves that come with M. Nielsen, "Neural Networks and Deep Learning".

`distbp.run.reproduce.nielsen` has the book's random numbers; forward, backward, loss, tree and update are the
engine's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distbp.run.reproduce import nielsen
from distbp.run.reproduce.nielsen import BATCH, Curves, weight_initialization


def golden(folder: Path, name: str) -> Any:
    return json.loads((folder / "golden/nielsen" / name).read_text())


def overfitting(folder: Path, epochs: int, **options: Any) -> Curves:
    return nielsen.overfitting(folder / "data/mnist", epochs, **options)


def assert_met(found: Curves, published: Curves, start: int, stop: int, tolerance: float) -> None:
    expected = [curve[start:stop] for curve in published]
    np.testing.assert_allclose(found[0], expected[0], rtol=tolerance)
    assert found[1] == expected[1]
    np.testing.assert_allclose(found[2], expected[2], rtol=tolerance)
    assert found[3] == expected[3]


def largest_miss(found: Curves, published: Curves) -> float:
    """The largest relative error of a cost."""
    return max(float(np.max(np.abs(np.array(found[i]) / published[i][: len(found[i])] - 1))) for i in (0, 2))


THREE = (4, 3, 3)


@pytest.mark.heavy
@pytest.mark.parametrize("slices", [(BATCH,), THREE], ids=["one shard", "three shards"])
def test_overfitting_begins_as_published(test_data: Path, slices: tuple[int, ...]) -> None:
    found = overfitting(test_data, 20, slices=slices)
    assert_met(found, golden(test_data, "overfitting.json"), 0, 20, 1e-13)


@pytest.mark.heavy
def test_mean_of_means_misses_the_curve(test_data: Path) -> None:
    found = overfitting(test_data, 20, slices=THREE, mean_of_means=True)
    assert largest_miss(found, golden(test_data, "overfitting.json")) > 0.005


def test_the_curves_here_begin_and_end_as_they_are_quoted(test_data: Path) -> None:
    """So what is compared with them is compared with these figures."""
    cost, right, training_cost, _ = golden(test_data, "overfitting.json")
    assert (cost[0], cost[-1]) == (2.0762772323329082, 1.7731493757222807)
    assert (right[0], right[-1], len(right)) == (5887, 8223, 400)
    assert (training_cost[0], training_cost[-1]) == (1.8433647860328504, 0.0042016444290295845)
    ends = {kind: published(test_data, kind) for kind in ("default", "large")}
    assert {kind: (right[0], right[-1], len(right)) for kind, right in ends.items()} == {
        "default": (9270, 9650, 30),
        "large": (8643, 9637, 30),
    }


@pytest.mark.slow
@pytest.mark.parametrize("slices", [(BATCH,), THREE], ids=["one shard", "three shards"])
def test_overfitting_in_full(test_data: Path, slices: tuple[int, ...]) -> None:
    found = overfitting(test_data, 400, slices=slices)
    published = golden(test_data, "overfitting.json")
    assert_met(found, published, 0, 400, 1e-13)
    assert published[1][-1] == found[1][-1] == 8223


@pytest.mark.slow
def test_mean_of_means_misses_the_whole_curve_by_nine_percent(test_data: Path) -> None:
    found = overfitting(test_data, 400, slices=THREE, mean_of_means=True)
    assert largest_miss(found, golden(test_data, "overfitting.json")) == pytest.approx(0.094, abs=5e-4)


def published(folder: Path, kind: str) -> list[int]:
    curves = golden(folder, "weight_initialization_30.json")[f"{kind}_weight_initialization"]
    return list(curves[1])


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["default", "large"])
def test_weight_initialization_begins_as_published(test_data: Path, kind: str) -> None:
    assert weight_initialization(test_data / "data/mnist", kind, 1) == published(test_data, kind)[:1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["default", "large"])
def test_weight_initialization_in_full(test_data: Path, kind: str) -> None:
    found = weight_initialization(test_data / "data/mnist", kind, 30)
    assert found == published(test_data, kind)
    assert found[-1] == {"default": 9650, "large": 9637}[kind]
