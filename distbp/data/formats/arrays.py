"""Arrays in memory, given to `train()` from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.core.options import option
from distbp.data.checks import ANY, Allowed, BadRows
from distbp.data.given import as_array, columns_of
from distbp.data.named_inputs import checked, side_by_side
from distbp.data.sequences import with_lengths
from distbp.data.table import Table, build
from distbp.nn.named_inputs import NamedInput

_RAGGED = "give rows of equal length, or set data.truncated_bptt_steps, where each step of a row has a target"


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Data that is not in a file. `sha256` ties the job to its data, so that a resume with other arrays
    is noticed."""

    type: Literal["arrays"] = "arrays"
    sha256: str = option("", help="digest of the table, filled in by train()")

    def open(self, folder: Path, confined: bool = False) -> Table:
        raise DataError(
            "the data of this job was given as arrays in memory and is in no file; give the arrays again,"
            " from Python"
        )


def from_arrays(
    inputs: Any,
    targets: Any = None,
    weights: Any = None,
    *,
    bad_rows: BadRows | None = "refuse",
    name: str = "the arrays",
    allowed: Allowed = ANY,
    outputs: Sequence[str] = (),
    named: Sequence[NamedInput] = (),
) -> Table:
    """Makes a checked table of array-likes. Arrays of numbers are not copied. Raises DataError.

    inputs: (n, *features), or as `with_lengths` takes them, or a mapping from the names of several inputs.
    targets: (n,) labels (numbers, booleans, text) or values, or values (n, outputs), or a mapping from the
    names of several outputs. weights: (n,). Each may be a frame or a series; a frame of inputs gives its
    column names, and a frame of targets has a column for each of several `outputs`. named: the inputs of a
    network with several, or ()."""
    lengths = None
    if named and isinstance(inputs, Mapping):
        inputs = side_by_side(inputs, named, name)
    else:
        inputs, lengths = with_lengths(inputs, name)
    if isinstance(inputs, Mapping):
        raise DataError(
            f"{name}: the inputs are a mapping, but the network has none with names; give it layers of"
            " the type input, or one array"
        )
    columns = columns_of(inputs, name)
    table = build(
        as_array(inputs, f"{name}: inputs"),
        _given_targets(targets, name, outputs),
        None if weights is None else as_array(weights, f"{name}: weights"),
        None if lengths is None else as_array(lengths, f"{name}: lengths"),
        name=name,
        columns=columns,
    )
    return checked(table, named, bad_rows, allowed)


def _given_targets(targets: Any, name: str, outputs: Sequence[str]) -> Array | dict[str, Array] | None:
    if targets is None:
        return None
    names = getattr(getattr(targets, "dtype", None), "names", None)
    if outputs and not isinstance(targets, Mapping):
        names = names or columns_of(targets, f"{name}: targets")
    if names:  # as tables and frames have them
        targets = {output: targets[output] for output in names}
    if not isinstance(targets, Mapping):
        return as_array(targets, f"{name}: targets", labels=True, ragged=_RAGGED)
    found = {}
    for output, values in targets.items():
        if not isinstance(output, str):
            raise DataError(f"{name}: targets have the key {output!r}; keys are the names of outputs")
        found[output] = as_array(values, f"{name}: targets of {output!r}", labels=True, ragged=_RAGGED)
    return found
