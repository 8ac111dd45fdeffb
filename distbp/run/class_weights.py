"""The weight of each class in the loss, from a job and its data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distbp.data.targets import Meaning, shown
from distbp.job import TrainingJob
from distbp.job.data_checks import class_number


def class_weights(
    job: TrainingJob, meaning: Meaning, classes: int
) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """Returns one weight for each class (None: all are 1), and notes. "balanced" is, as in scikit-learn,
    rows / (number of classes with rows * rows of the class); a class without rows has weight 1."""
    given = job.class_weight
    names = meaning.classes or tuple(range(classes))
    if given is None:
        return None, ()
    if given == "balanced":
        counts = np.bincount(meaning.targets["train"], minlength=classes)
        there = counts > 0
        balanced = np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 1.0)
        absent = tuple(name for name, has in zip(names, there, strict=True) if not has)
        note = f"no training row is of class {shown(absent)}; class_weight: balanced gives it weight 1"
        return tuple(balanced.tolist()), (note,) if absent else ()
    if isinstance(given, Mapping):
        by_number = {class_number(label, names): float(weight) for label, weight in given.items()}
        return tuple(by_number.get(number, 1.0) for number in range(classes)), ()
    return tuple(float(w) for w in given), ()
