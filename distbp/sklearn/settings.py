"""Turns the settings of an estimator into a job."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from distbp.core.errors import ArgumentError, Fault, JobError
from distbp.core.options import choosing
from distbp.data.columns.choosing import OTHERS
from distbp.job import TrainingJob, realmlp, recipes
from distbp.job.method_checks import takes_whole_batches
from distbp.optim import OPTIMIZERS

ACTIVATIONS = MappingProxyType({"identity": "linear", "logistic": "sigmoid"})  # scikit-learn's names
# Settings of the estimators, and the options of optimizers that they set.
_OPTIONS = MappingProxyType(
    {"momentum": "momentum", "beta_1": "beta1", "beta_2": "beta2", "epsilon": "epsilon"}
)
# Fields of a job, and the settings that decide them.
_SETTINGS = MappingProxyType(
    {
        "epochs": "max_iter",
        "early_stopping.patience": "n_iter_no_change",
        "optimizer.learning_rate": "learning_rate_init",
        "optimizer": "solver",
        "data.columns.others.number.bins": "bins",
    }
)
Settings = Mapping[str, Any]
TRUNK = "trunk"  # the name of the layer below several outputs
TAKEN = ("input", "column", "type", TRUNK)  # words of a job, which no output may have as its name


def job_of(
    settings: Settings,
    outputs: int,
    loss: str,
    rows: int,
    seed: int,
    *,
    dtype: str = "float32",
    data: Mapping[str, Any] | None = None,
    one_pass: bool = False,
    init_keeps: Sequence[str] | None = None,
    names: Sequence[str] = (),
) -> TrainingJob:
    """The job of an estimator's settings. data: the job's `data` for a table; None: the rows are arrays.
    one_pass: train one epoch at a constant rate. init_keeps: the job's `init_keeps`, if it continues earlier
    training; None: it begins. names: of the targets of a table, if there are several; each has its own
    output. Raises ArgumentError, JobError."""
    usual = usual_settings(settings)
    hidden = said(settings["hidden_layer_sizes"], usual["hidden_layer_sizes"])
    units = [*map(_plain, hidden if isinstance(hidden, Sequence | np.ndarray) else (hidden,))]
    epochs = 1 if one_pass else _plain(said(settings["max_iter"], usual["max_iter"]))
    batch_size = settings["batch_size"]
    update, faults = _with_options(_optimizer(settings, epochs, loss != "mse"), settings)
    if said(settings["bins"], None) is not None and (settings["recipe"] != "table" or data is None):
        text = "is for recipe='table', with frames or one target; leave it out"
        faults.append(Fault("bins", text))
    whole = takes_whole_batches(update) and isinstance(batch_size, str)
    batch = None if whole else _plain(said(batch_size, usual["batch_size"](rows)))
    if one_pass and isinstance(update, Mapping):
        changing = {name for kind in OPTIMIZERS.values() for name in choosing(kind, "schedules")}
        update = {name: value for name, value in update.items() if name not in changing}
    alpha = _plain(settings["alpha"])
    if type(alpha) not in (int, float) or not 0 <= alpha < np.inf:
        raise ArgumentError(f"alpha is {alpha!r}; give a number of at least 0")
    in_batch = batch if type(batch) is int and batch > 0 else rows
    penalties = {"regularization": {"l2": alpha / in_batch}} if alpha else {}
    stops = stops_early(settings) and not one_pass
    layers = _layers(settings, outputs, units, loss != "mse", data is not None)
    losses: Any = {name: {"type": loss, "factor": 1 / len(names)} for name in names} or loss
    fields_ = {
        "name": "estimator",
        "data": {} if data is None else data,
        "model": {"layers": _apart(layers, names) if names else layers},
        "loss": losses,
        "optimizer": update,
        **({} if whole else {"batch_size": batch}),
        "epochs": epochs,
        "shuffle": _plain(settings["shuffle"]),
        "early_stopping": _stopping(settings, usual, epochs, loss, rows) if stops else None,
        "seed": seed,
        "members": _plain(settings["members"]),
        "workers": _plain(settings["workers"]),
        "dtype": dtype,
        "checkpoint": {"every_seconds": None},
        **penalties,
        **({} if init_keeps is None else {"init": "the model before"}),
        **({} if init_keeps is None else {"init_keeps": _kept(init_keeps, takes_whole_batches(update))}),
    }
    if settings["recipe"] == "realmlp":
        fields_ |= {
            "drop_last": not one_pass and rows > in_batch,
            "parameter_groups": realmlp.GROUPS,
            "loss": realmlp.smoothed(losses),
        }
    drawing = ""
    try:
        job = TrainingJob.from_mapping(fields_)
    except JobError as error:
        faults += [Fault(_setting(fault.path, settings), fault.message) for fault in error.faults]
        drawing = error.drawing
    if faults:
        raise JobError(faults, "the estimator's settings", drawing=drawing)
    return job


def _kept(init_keeps: Sequence[str], whole: bool) -> list[str]:
    """The entries of `init_keeps` that the optimizer can use. whole: it takes all rows at once, and so has no
    state to continue with."""
    return [one for one in init_keeps if not (whole and one == "optimizer")]


def _setting(path: str, settings: Settings) -> str:
    """The path of a fault in words of the estimator: with the name of the setting that decides the field."""
    own = next((name for name, option in _OPTIONS.items() if path == f"optimizer.{option}"), None)
    if own is not None and said(settings[own], None) is not None:
        return own
    found = next((field for field in _SETTINGS if f"{path}.".startswith(f"{field}.")), None)
    return path if found is None else _SETTINGS[found] + path[len(found) :]


def data_of_table(
    settings: Settings,
    targets: Sequence[str],
    weight: str | None,
    classes: bool,
    rows: int,
    different: Sequence[int],
    categories: Sequence[str] = (),
) -> dict[str, Any]:
    """The job's `data` for a frame. targets, weight: the names of their columns. rows: the number of training
    rows. different: the number of different values in each column of numbers. categories: columns that are
    categories, whatever their cells look like."""
    number: dict[str, Any] = {"kind": "number"}
    bins = _plain(said(settings["bins"], None))
    if not settings["standardize"]:
        number["scale"] = "none"
    if bins is not None:
        number |= recipes.binned(bins)
    elif settings["standardize"] and settings["recipe"] == "table":
        number = recipes.number(rows, different)
    scaled = {} if classes else {"scale": "standard"}
    each = {name: {"column": name, **scaled} for name in targets}
    target = each if len(targets) > 1 else targets[0] if classes else each[targets[0]]
    data: dict[str, Any] = {"target": target}
    if weight is not None:
        data["weight"] = weight
    real = settings["recipe"] == "realmlp"
    kind = realmlp.COLUMNS["category"] if real else {"kind": "category"}
    named = {_pattern(name): kind for name in categories}
    if real:
        target_options = {} if classes else {"scale": "standard", "clip": True}
        return dict(realmlp.prepared({**data, "columns": named}, target_options)[0])
    return {**data, "columns": {**named, "others": {"kind": "auto", "number": number}}}


def _pattern(name: str) -> str:
    """A pattern that matches only this name, as a key of the job's `data.columns`."""
    return "[o]thers" if name == OTHERS else glob.escape(name)


def usual_settings(settings: Settings) -> dict[str, Any]:
    """The values of settings that are "auto", which depend on the recipe. Raises ArgumentError for an unknown
    recipe."""
    if settings["recipe"] is None:
        batch_size: Any = partial(min, 200)
        return {
            "hidden_layer_sizes": (100,), "max_iter": 200, "n_iter_no_change": 10, "early_stopping": False,
            "batch_size": batch_size,
        }  # fmt: skip
    if settings["recipe"] not in recipes.RECIPES:
        known = ", ".join(map(repr, recipes.RECIPES))
        raise ArgumentError(f"recipe is {settings['recipe']!r}, not None or one of {known}")
    if settings["recipe"] == "realmlp":
        epochs = said(settings["max_iter"], realmlp.EPOCHS)
        return {
            "hidden_layer_sizes": realmlp.HIDDEN, "max_iter": realmlp.EPOCHS, "n_iter_no_change": epochs,
            "early_stopping": True, "batch_size": lambda rows: realmlp.BATCH_SIZE,
        }  # fmt: skip
    return {
        "hidden_layer_sizes": recipes.HIDDEN,
        "max_iter": recipes.EPOCHS,
        "n_iter_no_change": recipes.PATIENCE,
        "early_stopping": True,
        "batch_size": recipes.batch_size,
    }


def stops_early(settings: Settings) -> bool:
    """Whether training stops early. Raises ArgumentError for a value other than True, False and "auto"."""
    found = said(settings["early_stopping"], usual_settings(settings)["early_stopping"])
    if isinstance(found, str):
        raise ArgumentError(f"early_stopping is {found!r}; give True, False or 'auto'")
    return bool(found)


def takes_all_rows(settings: Settings) -> bool:
    """Whether the optimizer needs all rows at once, as "lbfgs" does."""
    solver = settings["solver"]
    return bool(takes_whole_batches({"type": solver} if isinstance(solver, str) else solver))


def said(value: Any, usual: Any) -> Any:
    """A setting, or `usual` if it is "auto"."""
    return usual if isinstance(value, str) and value == "auto" else value


def _layers(
    settings: Settings, outputs: int, units: list[Any], classes: bool, table: bool
) -> list[dict[str, Any]]:
    own = said(settings["activation"], None)
    if isinstance(own, str):
        own = ACTIVATIONS.get(own, own)
    if settings["recipe"] == "realmlp":
        return [*([] if table else realmlp.entered()), *realmlp.layers(outputs, units, classes, own)]
    activation = "relu" if own is None else own
    if settings["recipe"] is not None:
        return recipes.layers(outputs, units, activation)
    layers = [{"type": "dense", "units": n, "activation": activation} for n in units]
    return [*layers, {"type": "dense", "units": outputs}]


def _apart(layers: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The layers with the last one replaced by one output for each name."""
    *below, last = layers
    if below:
        below[-1] = {**below[-1], "name": TRUNK}
    one = {**last, "units": 1, "inputs": [TRUNK if below else "input"]}
    return [*below, *({**one, "name": name} for name in names)]


def _optimizer(settings: Settings, epochs: Any, classes: bool) -> Any:
    rate, update = _plain(said(settings["learning_rate_init"], 1e-3)), settings["solver"]
    if is_dataclass(update) and type(update) in OPTIMIZERS.values():
        return asdict(update)  # type: ignore[arg-type]
    if isinstance(update, str) and update == "auto" and settings["recipe"] is not None:
        if settings["recipe"] == "realmlp":
            update = realmlp.optimizer(classes)
            rate = _plain(said(settings["learning_rate_init"], update["learning_rate"]))
        else:
            update = recipes.optimizer(epochs if type(epochs) is int else recipes.EPOCHS)
        return {**update, "learning_rate": rate}
    if isinstance(update, str):
        update = {"type": said(update, "adam")}
        kind = OPTIMIZERS.get(update["type"])  # None for an unknown name, which is a fault of the job
        if kind is not None and _has(kind, "learning_rate"):
            update["learning_rate"] = rate
    return update


def _with_options(update: Any, settings: Settings) -> tuple[Any, list[Fault]]:
    """An optimizer with the options that settings give, and a fault for each setting that is not an option of
    it."""
    given = {name: value for name in _OPTIONS if (value := said(_plain(settings[name]), None)) is not None}
    wanted = update.get("type") if isinstance(update, Mapping) else None
    kind = OPTIMIZERS.get(wanted) if isinstance(wanted, str) else None
    if kind is None:  # a fault of the job
        return update, []
    lacking = [name for name in given if not _has(kind, _OPTIONS[name])]
    own = {_OPTIONS[name]: value for name, value in given.items() if name not in lacking}
    return {**update, **own}, [Fault(name, _not_of(kind, name)) for name in lacking]


def _has(kind: Any, option: str) -> bool:
    return any(field.name == option for field in fields(kind))


def _not_of(kind: Any, name: str) -> str:
    having = ", ".join(other for other, one in OPTIMIZERS.items() if _has(one, _OPTIONS[name]))
    return f"is not an option of the solver {kind.type!r}; leave it out, or take one that has it: {having}"


def _stopping(settings: Settings, usual: Settings, epochs: Any, loss: str, rows: int) -> dict[str, Any]:
    patience = {"patience": _plain(said(settings["n_iter_no_change"], usual["n_iter_no_change"]))}
    if settings["recipe"] == "table":
        return {**recipes.stopping(recipes.suits_folds(_plain(settings["members"]), rows)), **patience}
    if settings["recipe"] == "realmlp":
        return {**realmlp.stopping(epochs, loss == "softmax_cross_entropy"), **patience}
    return patience


def _plain(value: Any) -> Any:
    """The value as a plain number if it is one of NumPy, as searches over parameters give."""
    return value.item() if isinstance(value, np.generic) else value
