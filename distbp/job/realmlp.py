"""The recipe `realmlp`: the defaults RealMLP-TD of D. Holzmueller, L. Grinsztajn and I. Steinwart, "Better by
Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular Data", NeurIPS 2024 (arXiv 2407.04491), section 3
and the table of defaults in its appendix. Where it departs from them stands in docs/tables.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distbp.job.recipe_columns import completed, is_table

HIDDEN, DROPOUT = (256, 256, 256), 0.15
EPOCHS, BATCH_SIZE, SMOOTHING = 256, 256, 0.1
PERIODIC = {"frequencies": 16, "dimension": 4, "std": 0.1}
ACTIVATIONS = {True: "selu", False: "mish"}  # of classes, of values
RATES = {True: 0.04, False: 0.2}
GROUPS = {
    "*.dense.bias": {"rate": 0.1, "decays": False},
    "*.scale.scale": {"rate": 6.0, "decays": True},
    "*.parametric_activation.alpha": {"rate": 0.1, "decays": True},
    "input.columns.periodic_embedding.*": {"rate": 0.1, "decays": True},
    "layers.*.periodic_embedding.*": {"rate": 0.1, "decays": True},
}
COLUMNS = {
    "kind": "auto",
    "number": {"kind": "number", "scale": "robust", "clip": "smooth", **PERIODIC},
    "category": {"kind": "category", "one_hot": 8, "signed": True, "dimension": 8, "std": 1.0},
}


def entered() -> list[dict[str, Any]]:
    """The first layers for arrays. They transform inputs as `COLUMNS` transform the columns of a table."""
    return [{"type": "smooth_clip"}, {"type": "periodic_embedding", **PERIODIC}]


def layers(
    outputs: int, hidden: Sequence[int], classes: bool, activation: str | None = None
) -> list[dict[str, Any]]:
    """The layers from `scale` on. activation: in place of that of `ACTIVATIONS`."""
    layers: list[dict[str, Any]] = [{"type": "scale"}]
    for units in hidden:
        layers.append(_dense(units))
        layers.append({"type": "parametric_activation", "function": activation or ACTIVATIONS[classes]})
        layers.append({"type": "dropout", "rate": DROPOUT, "schedule": "flat_cosine"})
    return [*layers, _dense(outputs)]


def _dense(units: int) -> dict[str, Any]:
    return {
        "type": "dense",
        "units": units,
        "parametrization": "ntk",
        "initializer": "unit_variance",
        "bias_initializer": "data_points",
    }


def optimizer(classes: bool) -> dict[str, Any]:
    """Adam with decoupled weight decay."""
    return {
        "type": "adamw",
        "learning_rate": RATES[classes],
        "beta2": 0.95,
        "weight_decay": 0.02,
        "decay_schedule": "flat_cosine",
        "schedule": "cosine_log",
    }


def stopping(epochs: int, classes: bool) -> dict[str, Any]:
    """Early stopping that never stops: it keeps the best epoch, of equally good epochs the last."""
    metric = "validation_accuracy" if classes else "validation_loss"
    return {"metric": metric, "patience": epochs, "ties": "last"}


def smoothed(loss: Any) -> Any:
    """The loss with label smoothing, if the loss has this option and the job does not set it."""
    if loss == "softmax_cross_entropy":
        return {"type": loss, "label_smoothing": SMOOTHING}
    if isinstance(loss, Mapping) and loss.get("type") == "softmax_cross_entropy":
        return {"label_smoothing": SMOOTHING, **loss}
    return loss


def prepared(data: Any, target: Mapping[str, Any], fits: bool = True) -> tuple[Any, bool]:
    """Returns the data with the recipe's kinds of columns or, for arrays, standardized; and whether it is a
    table. target: options of a table's target. fits: False if inputs are prepared as those of another model,
    so that nothing is fitted."""
    if not isinstance(data, Mapping):
        return data, False
    if is_table(data):
        return completed(data, COLUMNS if fits else None, target), True
    plain = fits and data.get("targets") is None and data.get("scale", 1) == 1
    return ({"standardize": True, **data} if plain else data), False
