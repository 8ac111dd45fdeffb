"""`DistbpClassifier` and `DistbpRegressor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets

from distbp.core.arrays import Array
from distbp.core.errors import ArgumentError
from distbp.core.words import counted
from distbp.data.frames import names_of
from distbp.sklearn.base import Estimator, takes_batches


class DistbpClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """A network that chooses between classes, trained with the cross-entropy; or one that finds which labels
    a row has (multi-label), trained with the sigmoid cross-entropy, where y has a column of 0 and 1 for each.

    hidden_layer_sizes: units of each hidden layer. activation: of these layers, as `distbp.TrainingJob` or
    scikit-learn names it. recipe: "table" or "realmlp" is a network with all that belongs to it
    (`distbp.job.recipes`); None: a small one. What is "auto" follows from it: without one
    `hidden_layer_sizes` is (100,), `activation` "relu", `solver` "adam", `learning_rate_init` 0.001,
    `batch_size` min(200, rows), `max_iter` 200 epochs, without early stopping, `n_iter_no_change` 10.
    solver: the name of an optimizer of a job, or a whole one with its own learning rate. With "lbfgs" and
    "conjugate_gradient" `batch_size` "auto" is all rows: an epoch then is one evaluation, and training ends
    where it converges. momentum, beta_1, beta_2, epsilon: options of the solver; "auto": those that it has
    by itself. shuffle: deals the rows anew in every epoch. alpha: the penalty alpha / 2 times the sum of the
    squared weights, over the rows of a batch. members: networks of different seeds, whose predictions are
    averaged. bins: with recipe "table", of the piecewise-linear code of each number; "auto": 32, none for few
    rows or many columns; 0: none. standardize: inputs get mean 0 and deviation 1 (with "realmlp" median 0 and
    quartiles 1 apart).
    early_stopping: measures on the part `validation_fraction` of the rows ("auto": a tenth; with a recipe a
    fifth of fewer than 1,000), stops after `n_iter_no_change` epochs without improvement, and keeps the best.
    class_weight: "balanced" or {class: weight}. warm_start: `fit` goes on with the weights, and the
    optimizer, that it left. verbose: shows how training goes. random_state: the seed of the job, so the same
    one gives the same bits. workers: processes, which never change the result.

    Fitted: `classes_` (of labels their numbers), `n_features_in_`, `feature_names_in_`, `n_iter_` (epochs),
    `loss_curve_` (the loss of each), `job_` (the TrainingJob), `result_` (with `history` and `plot()`),
    `model_`. float32 arrays are trained on in float32, others in float64; frames with text or dates, rows
    with holes, and with recipe "table" all rows of one target, as tables in float32.
    """

    classes_: Array
    _labelled = False  # whether y has a column for each label; pickles of older versions do not say

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
        class_weight: Any = None,
        warm_start: bool = False,
        verbose: bool = False,
        random_state: Any = None,
        workers: Any = 0,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            shuffle=shuffle,
            momentum=momentum,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            recipe=recipe,
            members=members,
            bins=bins,
            standardize=standardize,
            warm_start=warm_start,
            verbose=verbose,
            random_state=random_state,
            workers=workers,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DistbpClassifier:
        """X: (n, features) numbers, or a frame, whose columns may be text, dates and booleans; with holes.
        y: (n,) classes, of any kind; or (n, labels) of 0 and 1, also sparse. Waits. Raises ValueError,
        DistbpError."""
        names = names_of(y)
        y, labelled = _dense(y)
        x, y, weights = self._checked(X, y, sample_weight, False, multi_output=labelled)
        y, classes = _indicators(y) if labelled else _classes(y)
        if len(classes) < 2:
            raise ArgumentError(f"y has one class only, {classes[0]}; a classifier needs two classes")
        if self.warm_start and hasattr(self, "model_"):
            self._check_kind(labelled)
            if not np.array_equal(classes, self.classes_):
                raise ArgumentError(
                    f"warm_start goes on with the classes {self.classes_.tolist()}, and y has"
                    f" {classes.tolist()}; set warm_start=False"
                )
        if self.class_weight is not None:
            by_class = compute_sample_weight(self.class_weight, y)
            weights = by_class if weights is None else weights * by_class
        self.classes_, self._labelled = classes, labelled
        self._learn(x, y, weights, names)
        return self

    @available_if(takes_batches)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> DistbpClassifier:
        """One epoch on some rows, with the weights and the state of the optimizer that the calls before have
        left. So k calls with the same rows and an integer as `random_state` leave the bits of one `fit` of k
        epochs, where the rate is constant and nothing stops early: orders of rows, and what dropout draws, go
        on, too. X, y: as in `fit`. classes: all that there will be, in the first call; not needed where y
        has columns. Later rows are prepared as those of the first call: by their scales, and levels of a
        frame. Waits. Raises ValueError, DistbpError."""
        names = names_of(y)
        y, labelled = _dense(y)
        first = not hasattr(self, "model_")
        if not first:
            self._check_kind(labelled)
        elif classes is None and labelled:
            classes = np.arange(y.shape[1])
        if first and classes is None:
            raise ArgumentError("the first call of partial_fit needs classes: all that y will ever hold")
        every = np.unique(classes) if first else self.classes_
        if not first and classes is not None and not np.array_equal(np.unique(classes), every):
            raise ArgumentError(
                f"classes is {np.unique(classes).tolist()}, and was {every.tolist()} in an earlier call"
            )
        x, y, weights = self._checked(X, y, sample_weight, True, multi_output=labelled)
        y, found = _indicators(y) if labelled else _classes(y)
        if labelled and len(found) != len(every):
            raise ArgumentError(f"y has {len(found)} labels, and there are {len(every)}")
        unknown = np.setdiff1d(found, every)
        if unknown.size:
            raise ArgumentError(f"y has {unknown.tolist()}, which is not among classes, {every.tolist()}")
        if isinstance(self.class_weight, str):
            raise ArgumentError(
                "class_weight='balanced' needs all rows, which partial_fit never sees; give {class: weight}"
            )
        if self.class_weight is not None:
            by_class = compute_sample_weight(self.class_weight, y)
            weights = by_class if weights is None else weights * by_class
        self.classes_, self._labelled = every, labelled
        self._learn(x, y, weights, names, one_pass=True)
        return self

    def _learn(self, x: Any, y: Array, weights: Any, names: Sequence[Any] | None, **more: Any) -> None:
        """Trains on checked rows; waits. names: of the columns of y if it is a frame, else None."""
        outputs, loss = len(self.classes_), "softmax_cross_entropy"
        if self._labelled:
            loss, y = "sigmoid_cross_entropy", y.astype(np.int64)
            names = [f"label{number}" for number in range(outputs)] if names is None else names
        else:
            y, names = np.searchsorted(self.classes_, y), ["target"]
        self._train(x, y, weights, outputs=outputs, loss=loss, names=[*map(str, names)], **more)

    def _check_kind(self, labelled: bool) -> None:
        """Raises ArgumentError where y is of another kind than before."""
        if labelled != self._labelled:
            kinds = ("classes", "columns of 0 and 1 for labels")
            raise ArgumentError(
                f"training goes on from {kinds[self._labelled]}, and y is {kinds[labelled]} now; make a new"
                " estimator, or set warm_start=False"
            )

    def predict(self, X: Any) -> Array:
        """(n,) classes; or (n, labels), 1 where a row likely has the label, else 0."""
        likely = self.predict_proba(X)
        if self._labelled:
            return np.asarray(likely > 0.5).astype(np.int64)
        return np.asarray(self.classes_[likely.argmax(axis=1)])

    def predict_proba(self, X: Any) -> Array:
        """(n, classes) probabilities, in the order of `classes_`; or (n, labels), of having each label."""
        x = self._inputs(X)
        found = self.model_.predict_proba(x)
        several = isinstance(found, dict)
        return np.column_stack([found[name] for name in self._targets]) if several else np.asarray(found)

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _dense(y: Any) -> tuple[Any, bool]:
    """Returns y, and whether it has a column for each label; if so, as a dense array (n, labels)."""
    if hasattr(y, "toarray"):  # sparse
        y = y.toarray()
    array = np.asarray(y)
    labelled = array.ndim == 2 and array.shape[1] > 1
    return (array if labelled else y), labelled


def _indicators(y: Array) -> tuple[Array, Array]:
    """Returns y, (n, labels), and the numbers of the labels. Raises ArgumentError if not all are 0 and 1."""
    y = np.asarray(y)
    if not np.isin(y, (0, 1)).all():
        raise ArgumentError(
            "y has several columns, and not all are 0 and 1; give (n,) classes, or a column for each label,"
            " 1 where a row has it. DistbpRegressor predicts several values"
        )
    return y, np.arange(y.shape[1])


def _classes(y: Any) -> tuple[Array, Array]:
    """Returns y as an array, (n,), and its classes in order. Raises ValueError."""
    y = column_or_1d(y, warn=True)
    if y.dtype == object and (gone := np.flatnonzero([one is None for one in y]).tolist()):
        shown = ", ".join(map(str, gone[:8])) + (", ..." if len(gone) > 8 else "")
        raise ArgumentError(f"y is None in {counted(len(gone), 'row')} ({shown}); leave such rows out")
    check_classification_targets(y)
    return np.asarray(y), np.unique(y)


class DistbpRegressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """A network that predicts one value or several, trained with the squared error.

    The settings are those of `DistbpClassifier`; standardize: targets, too, get mean 0 and deviation 1 while
    training, and predictions come back in their own unit; with "realmlp" within the range of y.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DistbpRegressor:
        """X: (n, features) numbers, or a frame, whose columns may be text, dates and booleans; with holes.
        y: (n,) values, or (n, outputs). Waits. Raises ValueError, DistbpError."""
        self._learn(X, y, sample_weight, one_pass=False)
        return self

    @available_if(takes_batches)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> DistbpRegressor:
        """One epoch on some rows, with the weights and the state of the optimizer that the calls before have
        left, as of `DistbpClassifier`. X, y: as in `fit`. Later ones are prepared as those of the first call.
        Waits. Raises ValueError, DistbpError."""
        self._learn(X, y, sample_weight, one_pass=True)
        return self

    def _learn(self, x: Any, y: Any, sample_weight: Any, one_pass: bool) -> None:
        names = names_of(y)
        x, y, weights = self._checked(x, y, sample_weight, one_pass, multi_output=True, y_numeric=True)
        one_dimensional = y.ndim == 1
        table = not isinstance(x, np.ndarray)
        y = y.reshape(len(y), -1).astype(np.float64 if table else x.dtype)
        outputs = y.shape[1]
        if outputs == 1:
            names = ["target"]
        elif names is None:
            names = [f"y{number}" for number in range(outputs)]
        self._one_dimensional = one_dimensional
        if self.recipe != "realmlp":
            self._limits = None
        elif not self._goes_on(one_pass) or self._limits is None:
            self._limits = (y.min(axis=0), y.max(axis=0))
        self._train(x, y, weights, outputs=outputs, loss="mse", one_pass=one_pass, names=[*map(str, names)])

    def predict(self, X: Any) -> Array:
        """(n,) or (n, outputs) values, as y was."""
        x = self._inputs(X)
        found = self.model_.predict(x)
        several = isinstance(found, dict)
        y: Array = np.column_stack([found[name] for name in self._targets] if several else [found])
        if self._limits is not None:
            y = np.clip(y, *self._limits)
        return y[:, 0] if self._one_dimensional else y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
