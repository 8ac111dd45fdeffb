"""All tables of kinds, by the name that `option(..., choices=...)` uses."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from distbp.data.columns.kinds import COLUMNS
from distbp.data.formats import FORMATS
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.initializers import INITIALIZERS
from distbp.nn.layers import LAYERS
from distbp.nn.losses import LOSSES
from distbp.optim import OPTIMIZERS
from distbp.optim.schedules import SCHEDULES

TABLES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "activations": ACTIVATIONS,
        "columns": COLUMNS,
        "formats": FORMATS,
        "initializers": INITIALIZERS,
        "layers": LAYERS,
        "losses": LOSSES,
        "optimizers": OPTIMIZERS,
        "schedules": SCHEDULES,
    }
)
