"""`DistbpClassifier` and `DistbpRegressor`: networks of dense layers as estimators of scikit-learn."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import ArgumentError, DataError
from distbp.core.imports import missing
from distbp.data.columns.splitting import split_rows
from distbp.run.estimator_training import Rows, fitted, held_back, job_of, stops_early, whole

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state, column_or_1d, compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(missing("an estimator", "scikit-learn 1.6 or later", "distbp[sklearn]")) from error


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What both have in common: settings, training, inputs."""

    def __init__(
        self,
        hidden: Any = "auto",
        *,
        recipe: str | None = None,
        members: int = 1,
        activation: Any = "auto",
        optimizer: Any = "auto",
        learning_rate: float | str = "auto",
        batch_size: int | str = "auto",
        epochs: int | str = "auto",
        standardize: bool = True,
        early_stopping: bool | str = "auto",
        validation_fraction: float | str = "auto",
        patience: int | str = "auto",
        random_state: Any = None,
        workers: Any = 0,
    ) -> None:
        self.hidden = hidden
        self.recipe = recipe
        self.members = members
        self.activation = activation
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.standardize = standardize
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.workers = workers

    def _checked(self, x: Any, y: Any, sample_weight: Any, **kinds: Any) -> tuple[Array, Array, Array | None]:
        """Inputs, targets and weights without the rows that weigh nothing. Raises ValueError."""
        x, y = validate_data(self, whole(x), y, dtype=(np.float64, np.float32), **kinds)
        if sample_weight is None:
            return x, y, None
        weights = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        counted = weights > 0
        if not counted.any():
            raise ArgumentError("sample_weight is 0 for every row, so that nothing can be learned")
        return x[counted], y[counted], weights[counted]

    def _train(self, x: Array, y: Array, weights: Array | None, *, outputs: int, loss: str) -> None:
        """Sets `job_`, `result_`, `model_`."""
        settings, values = self.get_params(deep=False), loss == "mse"
        draws = check_random_state(self.random_state)
        integer = isinstance(self.random_state, Integral)
        seed = int(self.random_state) if integer else int(draws.randint(np.iinfo(np.int32).max))
        validation = None
        if stops_early(settings):
            indices = _apart(held_back(settings, len(x)), len(x), None if values else y, draws)
            training, validation = (
                Rows(x[i], y[i], None if weights is None else weights[i]) for i in indices
            )
        else:
            training = Rows(x, y, weights)
        self.job_ = job_of(settings, outputs, loss, len(training.x), x.dtype.name, seed)
        self.result_, self.model_ = fitted(
            self.job_,
            training,
            validation,
            standardize=bool(self.standardize),
            values=values,
            robust=self.recipe == "realmlp",
        )
        self.n_epochs_ = int(self.result_.epochs)

    def _inputs(self, x: Any) -> Array:
        check_is_fitted(self, "model_")
        found: Array = validate_data(self, whole(x), dtype=(np.float64, np.float32), reset=False)
        return found.astype(self.model_.network.dtype, copy=False)


def _apart(share: Any, rows: int, classes: Array | None, draws: Any) -> tuple[Array, Array]:
    """The rows that train, and those that early stopping measures on. classes: (rows,) from 0, each of which
    is split by itself; where they are too many or too rare for scikit-learn, those with few rows train.
    Raises ValueError."""
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
            except DataError:  # none of them has rows enough
                classes = None
    training, held_out = train_test_split(
        np.arange(rows), test_size=share, random_state=draws, stratify=classes
    )
    return training, held_out


class DistbpClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A network that chooses between classes, trained with the cross-entropy.

    hidden: units of each hidden layer. recipe: "table" or "realmlp" is a network with all that belongs
    to it (`distbp.job.recipes`); None: a small one. What is "auto" follows from it: without one `hidden` is
    (100,), `activation` "relu", `optimizer` "adam", `learning_rate` 0.001, `batch_size` min(200, rows),
    `epochs` 200, without early stopping, `patience` 10.
    members: networks of different seeds, whose predictions are averaged. activation: of the hidden layers, as
    `distbp.TrainingJob` names it. optimizer: a name, or a whole one with its own learning rate. With "lbfgs"
    and "conjugate_gradient" `batch_size` "auto" is all rows: an epoch then is one evaluation, and training
    ends where it converges. standardize: inputs get mean 0 and deviation 1 (with "realmlp" median 0 and
    quartiles 1 apart). early_stopping: measures on the part `validation_fraction` of the rows ("auto": a
    tenth; with a recipe a fifth of fewer than 1,000), stops after `patience` epochs without improvement, and
    keeps the best. class_weight: "balanced" or {class: weight}. random_state: the seed of the job, so the
    same one gives the same bits. workers: processes, which never change the result.

    Fitted: `classes_`, `n_features_in_`, `feature_names_in_`, `n_epochs_`, `job_` (the TrainingJob),
    `result_` (with `history` and `plot()`), `model_`. float32 inputs are trained on in float32, all
    others in float64.
    """

    def __init__(
        self,
        hidden: Any = "auto",
        *,
        recipe: str | None = None,
        members: int = 1,
        activation: Any = "auto",
        optimizer: Any = "auto",
        learning_rate: float | str = "auto",
        batch_size: int | str = "auto",
        epochs: int | str = "auto",
        standardize: bool = True,
        early_stopping: bool | str = "auto",
        validation_fraction: float | str = "auto",
        patience: int | str = "auto",
        class_weight: Any = None,
        random_state: Any = None,
        workers: Any = 0,
    ) -> None:
        super().__init__(
            hidden,
            recipe=recipe,
            members=members,
            activation=activation,
            optimizer=optimizer,
            learning_rate=learning_rate,
            batch_size=batch_size,
            epochs=epochs,
            standardize=standardize,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            patience=patience,
            random_state=random_state,
            workers=workers,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DistbpClassifier:
        """X: (n, features) numbers. y: (n,) classes, of any kind. Raises ValueError, JobError."""
        x, y, weights = self._checked(X, y, sample_weight)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        classes, numbers = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ArgumentError(f"y has one class only, {classes[0]}; a classifier needs two classes")
        if self.class_weight is not None:
            by_class = compute_sample_weight(self.class_weight, y)
            weights = by_class if weights is None else weights * by_class
        self.classes_ = classes
        self._train(x, numbers, weights, outputs=len(classes), loss="softmax_cross_entropy")
        return self

    def predict(self, X: Any) -> Array:
        """(n,) classes."""
        numbers = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[numbers])

    def predict_proba(self, X: Any) -> Array:
        """(n, classes) probabilities, in the order of `classes_`."""
        x = self._inputs(X)
        return np.asarray(self.model_.predict_proba(x))


class DistbpRegressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """A network that predicts one value or several, trained with the squared error.

    The settings are those of `DistbpClassifier`; standardize: targets, too, get mean 0 and deviation 1 while
    training, and predictions come back in their own unit; with "realmlp" within the range of y.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DistbpRegressor:
        """X: (n, features) numbers. y: (n,) or (n, outputs) values. Raises ValueError, JobError."""
        x, y, weights = self._checked(X, y, sample_weight, multi_output=True, y_numeric=True)
        self._one_dimensional = y.ndim == 1
        y = y.reshape(len(y), -1).astype(x.dtype)
        self._limits = (y.min(axis=0), y.max(axis=0)) if self.recipe == "realmlp" else None
        self._train(x, y, weights, outputs=y.shape[1], loss="mse")
        return self

    def predict(self, X: Any) -> Array:
        """(n,) or (n, outputs) values, as y was."""
        x = self._inputs(X)
        y = np.asarray(self.model_.predict(x)).reshape(len(x), -1)
        if self._limits is not None:
            y = np.clip(y, *self._limits)
        return y[:, 0] if self._one_dimensional else y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
