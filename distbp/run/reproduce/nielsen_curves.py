"""Compares the curves of `nielsen` with those that came with the book."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distbp.core import settings
from distbp.core.errors import DataError
from distbp.run.explain.figures import Figure
from distbp.run.reproduce.figures import Curve, Folders, Reproduction, Tell
from distbp.run.reproduce.nielsen import Curves, overfitting, weight_initialization

SOURCE = "M. Nielsen, Neural Networks and Deep Learning (2015), chapter 3, and the data of its figures"
THREE = (4, 3, 3)  # rows of a batch for each of three shards
COSTS = 1e-12  # relative tolerance: costs are sums of thousands of terms, added here in another order


def golden(folders: Folders, name: str) -> Any:
    """The content of a file of the book's curves. Raises DataError, which names the expected place."""
    if folders.golden is None and not settings.get("DISTBP_TEST_DATA"):
        raise DataError(
            f"the published curve {name} is needed: give its folder by --golden DIR (the one with nielsen/),"
            " or set DISTBP_TEST_DATA"
        )
    path = (folders.golden or Path(settings.get("DISTBP_TEST_DATA")) / "golden") / "nielsen" / name
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise DataError(f"{path}: {reason}; name the folder with nielsen/{name} by --golden DIR") from None
    except ValueError as error:
        raise DataError(f"{path} is not sound JSON ({error})") from None


def mnist(folders: Folders) -> Path:
    """The folder with MNIST's four files. Raises DataError."""
    if folders.mnist is not None:
        return folders.mnist
    if settings.get("DISTBP_TEST_DATA"):
        return Path(settings.get("DISTBP_TEST_DATA")) / "data" / "mnist"
    if folders.golden is not None and (folders.golden.parent / "data" / "mnist").is_dir():
        return folders.golden.parent / "data" / "mnist"
    raise DataError(
        "MNIST's four files are needed (train-images-idx3-ubyte.gz and so on): give their folder by"
        " --mnist DIR, or set DISTBP_TEST_DATA"
    )


def _points(values: Sequence[float], share: float = 1.0) -> list[tuple[float, float]]:
    return [(float(epoch), value * share) for epoch, value in enumerate(values, start=1)]


def _figures(name: str, told: Sequence[float], ours: Sequence[float], exact: bool) -> list[Figure]:
    """The figures of the first and the last entry, and of the entry that differs most."""

    def one(at: int) -> Figure:
        tolerance = 0.0 if exact else COSTS * abs(told[at])
        return Figure(f"{name}, epoch {at + 1}", repr(told[at]), float(ours[at]), tolerance)

    off = [abs(a - b) / (1.0 if exact else abs(b)) for a, b in zip(ours, told, strict=True)]
    worst = max(range(len(off)), key=off.__getitem__)
    return [one(at) for at in sorted({0, worst, len(told) - 1})]


def reproduce_overfitting(folders: Folders, tell: Tell) -> Reproduction:
    """[784, 30, 10], 1,000 images, 400 epochs without regularization: the training cost falls to 0, and the
    test cost rises. Takes about a minute."""
    published, place = golden(folders, "overfitting.json"), mnist(folders)
    epochs = min(400, folders.epochs or 400)
    ours = overfitting(place, epochs, tell=tell)
    return _overfitting("Overfitting", published, ours, _partial(epochs, 400))


def reproduce_three_shards(folders: Folders, tell: Tell) -> Reproduction:
    """Like `reproduce_overfitting`, with each batch of ten split into slices of 4, 3 and 3, whose sums are
    joined: the curve is the same. It also shows the error if shards send means, as if they had equally many
    rows. Takes a few minutes."""
    published, place = golden(folders, "overfitting.json"), mnist(folders)
    epochs = min(400, folders.epochs or 400)
    ours = overfitting(place, epochs, slices=THREE, tell=tell)
    tell("the same with the mean of the means of the shards")
    wrong = overfitting(place, epochs, slices=THREE, mean_of_means=True, tell=tell)
    off, name, epoch = max(
        (abs(mean / right - 1), f"{kind} cost", epoch)
        for kind, curve in (("test", 0), ("training", 2))
        for epoch, (mean, right) in enumerate(zip(wrong[curve], published[curve], strict=False), start=1)
    )
    note = (
        "Where shards send means in place of sums, as if their slices had equally many rows, the curve is"
        f" missed: the {name} of epoch {epoch} by {off:.1%}."
    )
    notes = (*_partial(epochs, 400), note)
    return _overfitting("Overfitting, on three shards of 4, 3 and 3 rows", published, ours, notes)


def _overfitting(
    title: str, published: Sequence[Sequence[float]], ours: Curves, notes: tuple[str, ...]
) -> Reproduction:
    epochs = len(ours[0])
    names = ("test cost", "test images right", "training cost", "training images right")
    rows = (10_000.0, 1000.0)
    figures: list[Figure] = []
    curves = []
    for number, (name, mine) in enumerate(zip(names, ours, strict=True)):
        told = published[number][:epochs]
        figures += _figures(name, told, mine, exact=number % 2 == 1)
        share = 1.0 if number % 2 == 0 else 1 / rows[number // 2]
        panel = name if number % 2 == 0 else name.replace("images right", "accuracy")
        curves.append(Curve(panel, "epoch", _points(told, share), _points(mine, share)))
    return Reproduction(title, SOURCE, tuple(figures), tuple(curves), notes)


def reproduce_weight_initialization(folders: Folders, tell: Tell) -> Reproduction:
    """[784, 30, 10], 50,000 images, 30 epochs: weights scaled by 1 / sqrt(fan in) compared with N(0, 1).
    Takes a few minutes."""
    published, place = golden(folders, "weight_initialization_30.json"), mnist(folders)
    epochs = min(30, folders.epochs or 30)
    figures: list[Figure] = []
    curves = []
    for kind in ("default", "large"):
        told = published[f"{kind}_weight_initialization"][1][:epochs]
        mine = weight_initialization(place, kind, epochs, tell)
        figures += _figures(f"{kind} weights, right", told, mine, exact=True)
        curves.append(
            Curve(f"validation accuracy, {kind} weights", "epoch", _points(told, 1e-4), _points(mine, 1e-4))
        )
    return Reproduction(
        "Weight initialization, 30 hidden units", SOURCE, tuple(figures), tuple(curves), _partial(epochs, 30)
    )


def _partial(epochs: int, whole: int) -> tuple[str, ...]:
    every = (
        "Every epoch was compared. Of each curve the table shows the first, the last and the one that differs"
        " most."
    )
    return (every,) if epochs == whole else (every, f"The first {epochs} of {whole} epochs.")
