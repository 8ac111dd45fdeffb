"""All ops by name. The contract is in `distbp.nn.ops.base`."""

from __future__ import annotations

from collections.abc import Mapping

from distbp.nn.ops.activations import ACTIVATION_OPS
from distbp.nn.ops.attention import ATTENTION
from distbp.nn.ops.base import Op, table
from distbp.nn.ops.cells import CELL_OPS
from distbp.nn.ops.checks import CHECKS
from distbp.nn.ops.columns import COLUMN_OPS
from distbp.nn.ops.convolution import CONVOLUTION
from distbp.nn.ops.elements import ELEMENTS
from distbp.nn.ops.lengths import LENGTHS
from distbp.nn.ops.losses import LOSS_OPS
from distbp.nn.ops.normalization import NORMALIZATION
from distbp.nn.ops.periodic import PERIODIC
from distbp.nn.ops.picks import PICKS
from distbp.nn.ops.products import PRODUCTS
from distbp.nn.ops.states import STATES
from distbp.nn.ops.units import UNITS
from distbp.nn.ops.windows import WINDOWS

OPS: Mapping[str, Op] = table(
    PRODUCTS,
    ELEMENTS,
    ACTIVATION_OPS,
    NORMALIZATION,
    LOSS_OPS,
    CHECKS,
    WINDOWS,
    CONVOLUTION,
    PICKS,
    CELL_OPS,
    ATTENTION,
    LENGTHS,
    STATES,
    COLUMN_OPS,
    UNITS,
    PERIODIC,
)
