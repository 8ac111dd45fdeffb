"""Predicts with stored models. A few models are kept in memory."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError, ModelError
from distbp.data.columns.rows import EncodedRows
from distbp.model.folder import load_model
from distbp.model.predictor import Model as Loaded
from distbp.nn.network import Network
from distbp_service.api.config import Limits
from distbp_service.api.csv_text import CsvBody, csv_rows
from distbp_service.api.errors import TooLargeError, log
from distbp_service.api.number_rows import array_of
from distbp_service.api.pictures import picture_row
from distbp_service.api.places import Places
from distbp_service.errors import BadValueError, ConflictError
from distbp_service.store import Model


@dataclass(frozen=True)
class Predicted:
    """`predictions`: one for each row. `probabilities`: a list or number for each row; None: not asked for.
    `unseen`: for each column the number of cells with levels that were not in training. `ignored`: columns
    that the model does not use."""

    predictions: list[Any]
    probabilities: list[Any] | None
    unseen: Mapping[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


class Predictions:
    def __init__(self, places: Places, limits: Limits) -> None:
        self._places, self._limits = places, limits
        self._kept: OrderedDict[str, Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def predict(self, model: Model, inputs: list[Any], probabilities: bool) -> Predicted:
        """Predicts for `inputs`: rows, or one CsvBody, or the bytes of one picture. Raises BadValueError if
        they do not fit the model, TooLargeError, and ConflictError if the model's files are gone or
        damaged."""
        if not 0 < len(inputs) <= self._limits.predict_rows:
            raise BadValueError(f"give 1 to {self._limits.predict_rows:,} rows", "inputs")
        loaded = self.loaded(model)
        if isinstance(inputs[0], CsvBody):
            inputs = csv_rows(inputs[0], self._limits.predict_rows, loaded.plan)
        try:
            x: Any
            if isinstance(inputs[0], bytes):
                x = picture_row(inputs[0], loaded.input_shape)
            elif loaded.network.lengths or loaded.network.named_inputs:
                if len(inputs) * _padded(loaded.network, inputs) > self._limits.predict_numbers:
                    raise TooLargeError("the rows would be too large, padded; send fewer rows", "inputs")
                x = loaded.checked(inputs)
            else:
                x = array_of(inputs, loaded.columns) if loaded.plan is None else loaded.encoded(inputs)
        except ModelError as error:
            raise BadValueError(str(error), "inputs") from None
        if len(x) * _numbers(loaded, x) > self._limits.predict_values:
            raise TooLargeError("the answer would be too large; send fewer rows", "inputs")
        try:
            with np.errstate(all="ignore"):  # outputs that are not finite are refused below
                y = loaded.predict(x)
                p = loaded.predict_proba(x) if probabilities else None
        except (ModelError, DataError) as error:
            raise BadValueError(str(error), "inputs") from None
        steps = None if loaded.network.carry is None else x.lengths
        for values in (*_arrays(y), *_arrays(p)):
            own = values if steps is None else values[np.arange(values.shape[1]) < steps[:, None]]
            if own.dtype.kind == "f" and not np.isfinite(own).all():
                raise BadValueError("the outputs for these inputs are not finite numbers", "inputs")
        found = _rows(y, steps), None if p is None else _rows(p, steps)
        return (
            Predicted(*found, x.seen.unseen, x.seen.extra)
            if isinstance(x, EncodedRows)
            else Predicted(*found)
        )

    def forget(self, model_id: str) -> None:
        with self._lock:
            self._kept.pop(model_id, None)

    def loaded(self, model: Model) -> Loaded:
        """Loads a model, or returns it from memory. Raises as `predict` does."""
        with self._lock:
            found = self._kept.get(model.id)
            if found is not None:
                self._kept.move_to_end(model.id)
                return found
        if model.bytes > self._limits.predict_model_bytes:
            raise TooLargeError("the model is too large to predict with here; download it", None)
        try:
            found = load_model(self._places.model(model.path))
        except ModelError as error:
            log.error("model %s: %s", model.id, error)
            raise ConflictError("the model's files are gone or damaged; train it again") from None
        with self._lock:
            self._kept[model.id] = found
            while len(self._kept) > self._limits.models_kept:
                self._kept.popitem(last=False)
        return found


def _padded(network: Network, inputs: list[Any]) -> int:
    """The numbers of a row after padding to the longest row."""
    longest = max((len(row) for row in inputs if isinstance(row, list)), default=0)
    steps = longest * math.prod(network.input_shape[1:]) if network.lengths else 0
    return max(steps, math.prod(network.row_shape))


def _arrays(found: Any) -> list[Array]:
    """The arrays of a prediction, one for each output; [] for None."""
    return [] if found is None else list(found.values()) if isinstance(found, dict) else [found]


def _rows(found: Any, steps: Array | None) -> list[Any]:
    """The values of each row: with several outputs a mapping from their names, for a series a list with its
    steps. steps: the length of each series."""
    if steps is not None:
        return [row[:count].tolist() for row, count in zip(found, steps, strict=True)]
    if not isinstance(found, dict):
        return found.tolist()  # type: ignore[no-any-return]
    columns = {name: values.tolist() for name, values in found.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _numbers(loaded: Loaded, x: Any) -> int:
    """The most numbers in the prediction of one row."""
    if loaded.network.carry is None:
        return int(np.prod(loaded.output_shape))
    return int(x.inputs.shape[1] * np.prod(loaded.network.answer_shapes[0]))
