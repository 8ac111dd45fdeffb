"""The rows that early stopping measures on."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from distbp.core.arrays import Array
from distbp.core.errors import ArgumentError, DataError
from distbp.data.columns.splitting import split_rows
from distbp.sklearn.settings import Settings, said

FEW_ROWS = 1000


def held_back(settings: Settings, rows: int) -> Any:
    """The share of the rows that early stopping measures on, or their number. A tenth of few rows says too
    little to choose an epoch."""
    few = settings["recipe"] is not None and rows < FEW_ROWS
    return said(settings["validation_fraction"], 0.2 if few else 0.1)


def apart(share: Any, rows: int, classes: Array | None, draws: Any) -> tuple[Array, Array]:
    """The numbers of the rows that train, and of those that early stopping measures on. classes: (rows,),
    whole numbers from 0; each class is split by itself. If scikit-learn cannot do that, because classes are
    many or rare, all rows of the rare classes train. Raises ValueError."""
    most = rows if isinstance(share, Integral) else 1
    if not isinstance(share, int | float | np.number) or not 0 < share < most:
        raise ArgumentError(
            f"validation_fraction is {share!r}; give a share between 0 and 1, or a number of rows below the"
            f" {rows:,} that there are"
        )
    if classes is not None:
        part = float(share) if share < 1 else int(share) / rows
        fewest, held = np.bincount(classes).min(), math.ceil(part * rows - 1e-9)
        if fewest < 2 or min(held, rows - held) <= classes.max():
            try:
                seed = int(draws.randint(2**31))
                owner = split_rows(rows, {"validation": part}, "stratified", seed, classes=classes)
                return np.flatnonzero(owner == 0), np.flatnonzero(owner)
            except DataError:  # no class has enough rows to be split
                classes = None
    training, held_out = train_test_split(
        np.arange(rows), test_size=share, random_state=draws, stratify=classes
    )
    return training, held_out
