"""The common part of both estimators: settings, training, inputs. Settings that scikit-learn's MLPClassifier
has, too, have the same names."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from distbp.core.arrays import Array
from distbp.core.errors import ArgumentError
from distbp.core.words import counted
from distbp.job.recipes import BINS, BINS_COLUMNS
from distbp.model.predictor import Model
from distbp.sklearn.frames import categories_in, different_numbers, named, rows_of, with_targets
from distbp.sklearn.holding_back import apart, held_back
from distbp.sklearn.settings import data_of_table, job_of, stops_early, takes_all_rows
from distbp.sklearn.training import Before, Rows, trained, trained_on_arrays


def takes_batches(estimator: Any) -> bool:
    """Whether the estimator has `partial_fit`: its optimizer does not need all rows at once."""
    return not takes_all_rows(estimator.get_params(deep=False))


_OTHER = "training goes on from {}, and X is {} now; set warm_start=False"


class Estimator(BaseEstimator):  # type: ignore[misc]
    """A network of dense layers."""

    loss_curve_: list[float]
    n_iter_: int
    model_: Model
    _after: Before
    _targets: list[str]  # the names of the target columns, if it was trained on a table

    def __init__(
        self,
        hidden_layer_sizes: Any = "auto",
        activation: Any = "auto",
        *,
        solver: Any = "auto",
        alpha: float = 0.0,
        batch_size: int | str = "auto",
        learning_rate_init: float | str = "auto",
        max_iter: int | str = "auto",
        early_stopping: bool | str = "auto",
        validation_fraction: float | str = "auto",
        n_iter_no_change: int | str = "auto",
        shuffle: bool = True,
        momentum: float | str = "auto",
        beta_1: float | str = "auto",
        beta_2: float | str = "auto",
        epsilon: float | str = "auto",
        recipe: str | None = None,
        members: int = 1,
        bins: int | str = "auto",
        standardize: bool = True,
        warm_start: bool = False,
        verbose: bool = False,
        random_state: Any = None,
        workers: Any = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.shuffle = shuffle
        self.momentum = momentum
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.recipe = recipe
        self.members = members
        self.bins = bins
        self.standardize = standardize
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state
        self.workers = workers

    def _checked(
        self, x: Any, y: Any, sample_weight: Any, one_pass: bool, **kinds: Any
    ) -> tuple[Any, Array, Array | None]:
        """Inputs (an array, or a table of Arrow), targets and weights (or None). Leaves out rows of weight 0.
        Raises ValueError."""
        going_on = self._goes_on(one_pass)
        # The recipe codes numbers in bins, which need columns and one target.
        columns = self.model_.plan is not None if going_on else self.recipe == "table" and np.ndim(y) == 1
        x, table = rows_of(x, columns)
        reset = not (one_pass and going_on)
        if table:
            several = kinds.get("multi_output", False)
            y = check_array(y, ensure_2d=False, dtype="numeric" if several else None, input_name="y")
            check_consistent_length(x, y)
            if going_on and columns and not hasattr(self, "feature_names_in_"):
                raise ArgumentError(_OTHER.format("an array", "a frame"))
            if not going_on or self.model_.plan is None:
                self.n_features_in_ = x.num_columns
                self.feature_names_in_ = np.asarray(x.column_names, object)
        else:
            frame_before = going_on and hasattr(self, "feature_names_in_")
            x, y = validate_data(
                self,
                x,
                y,
                dtype=(np.float64, np.float32),
                reset=reset,
                ensure_all_finite="allow-nan",
                **kinds,
            )
            if (columns or np.isnan(x).any()) and not frame_before:  # a frame's columns stay
                x, table = named(x, self._names), True
        if sample_weight is None:
            return x, y, None
        weights = _check_sample_weight(
            sample_weight, np.empty((len(y), 1)), dtype=np.float64, ensure_non_negative=True
        )
        counted = weights > 0
        if not counted.any():
            raise ArgumentError("sample_weight is 0 for every row, so nothing can be learned")
        if table:
            return x.filter(counted), y[counted], weights[counted]
        return x[counted], y[counted], weights[counted]

    def _train(
        self,
        x: Any,
        y: Array,
        weights: Array | None,
        *,
        outputs: int,
        loss: str,
        one_pass: bool = False,
        names: Sequence[str] = ("target",),
    ) -> None:
        """Trains; waits. Sets `job_`, `result_`, `model_`, `n_iter_` and `loss_curve_`. names: of the target
        columns, if x is a table."""
        settings, values, table = self.get_params(deep=False), loss == "mse", not isinstance(x, np.ndarray)
        classes = y if loss == "softmax_cross_entropy" else None
        before = self._after if self._goes_on(one_pass) else None
        self._check_going_on(before, table)
        draws = check_random_state(self.random_state)
        integer = isinstance(self.random_state, Integral)
        seed = int(self.random_state) if integer else int(draws.randint(np.iinfo(np.int32).max))
        parts = [np.arange(len(y))]
        if stops_early(settings) and not one_pass:
            parts = list(apart(held_back(settings, len(y)), len(y), classes, draws))
        rows, keeps = len(parts[0]), None if before is None else before.keeps
        if table:
            plan = None if before is None else self.model_.plan
            if plan is not None and len(names) != len(self._targets):
                was = counted(len(self._targets), "output")
                raise ArgumentError(
                    f"training goes on from {was}, and y has {len(names)} now; set warm_start=False"
                )
            names = names if plan is None else self._targets
            categories, different = categories_in(x), different_numbers(x, BINS * BINS_COLUMNS)
            x, self._targets, weight = with_targets(x, y, weights, names, plan is not None)
            data = data_of_table(settings, self._targets, weight, not values, rows, different, categories)
            if plan is not None and keeps is not None:  # it keeps the plan of the table, too
                data, keeps = {key: data[key] for key in data if key != "columns"}, ("preparation", *keeps)
                if values and not plan.several:
                    data["target"] = {**data["target"], "clip": bool(plan.target.limits)}
            self.job_ = job_of(
                settings, outputs, loss, rows, seed, data=data, one_pass=one_pass, init_keeps=keeps,
                names=self._targets if len(self._targets) > 1 else (),
            )  # fmt: skip
            sets_of = zip(("train", "validation"), parts, strict=False)
            frames = {name: x.take(part) for name, part in sets_of}
            found = trained(self.job_, frames, before, shown=bool(self.verbose))
        else:
            self.job_ = job_of(
                settings, outputs, loss, rows, seed, dtype=x.dtype.name, one_pass=one_pass, init_keeps=keeps
            )
            sets = [Rows(x[i], y[i], None if weights is None else weights[i]) for i in parts]
            found = trained_on_arrays(
                self.job_,
                sets[0],
                sets[1] if len(sets) > 1 else None,
                before,
                standardize=bool(self.standardize),
                values=values,
                robust=self.recipe == "realmlp",
                shown=bool(self.verbose),
            )
        self.result_, self.model_, self._after = found.result, found.model, found.after
        losses = [float(loss) for loss in found.result.history["train_loss"]]
        more = one_pass and before is not None
        self.n_iter_ = int(found.result.epochs) + (self.n_iter_ if more else 0)
        self.loss_curve_ = [*self.loss_curve_, *losses] if more else losses

    def _goes_on(self, one_pass: bool) -> bool:
        """Whether training continues with the weights of the last training."""
        return bool(one_pass or self.warm_start) and hasattr(self, "_after")

    def _check_going_on(self, before: Any, table: bool) -> None:
        """Raises ArgumentError if training cannot continue with the weights of the last training."""
        if before is None:
            return
        if self.members != 1:
            raise ArgumentError(
                f"members is {self.members}, and training goes on with one network only; leave members, or"
                " warm_start and partial_fit"
            )
        was = self.model_.plan is not None
        if was != table:
            kinds = ("an array without holes", "a table (a frame, or an array with holes)")
            raise ArgumentError(_OTHER.format(kinds[was], kinds[table]))
        if before.inputs is not None and len(before.inputs[0]) != self.n_features_in_:
            raise ArgumentError(
                f"training goes on from {len(before.inputs[0])} features, and X has {self.n_features_in_};"
                " set warm_start=False"
            )

    def _inputs(self, x: Any) -> Any:
        check_is_fitted(self, "model_")
        if self.model_.plan is not None and hasattr(self, "feature_names_in_"):
            return named(x, self._names)
        x, _ = rows_of(x)
        found: Array = validate_data(
            self, x, dtype=(np.float64, np.float32), reset=False, ensure_all_finite="allow-nan"
        )
        if self.model_.plan is None and np.isnan(found).any():
            raise ArgumentError(
                "X has holes (NaN), and fit saw none, so the model has nothing in their place; fill"
                " them, or fit on rows with holes"
            )
        if self.model_.plan is not None:
            return named(found, self._names)
        return found.astype(self.model_.network.dtype, copy=False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @property
    def _names(self) -> Array:
        """The names of the columns of inputs; an array's columns are named by their numbers."""
        numbers = np.arange(self.n_features_in_).astype(str)
        return np.asarray(getattr(self, "feature_names_in_", numbers))
