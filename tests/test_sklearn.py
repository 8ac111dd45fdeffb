"""The estimators keep the conventions of scikit-learn, and are a job's training underneath."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import distbp
from distbp.core.errors import ArgumentError
from distbp.job import TrainingJob
from distbp.optim import OPTIMIZERS
from distbp.sklearn import DistbpClassifier, DistbpRegressor
from distbp.sklearn.settings import job_of

QUICK: dict[str, Any] = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.02, "max_iter": 60}
ESTIMATORS = [DistbpClassifier, DistbpRegressor]


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


def check(estimator: Any) -> None:
    """Every check of scikit-learn: none fails, none is expected to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some checks warn of themselves
        found = check_estimator(estimator, expected_failed_checks={}, on_skip=None, on_fail=None)
    states = [(one["check_name"], one["status"], one["exception"]) for one in found]
    assert not [state for state in states if state[1] not in ("passed", "skipped")]
    # It asks whether NumPy-like arrays of other libraries are taken, where the environment says so; and for a
    # method that networks do not have.
    skipped = {one["check_name"] for one in found if one["status"] == "skipped"}
    absent = "check_classifiers_multilabel_output_format_decision_function"
    assert skipped <= {"check_array_api_input", absent}
    assert len(found) > 50


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_every_check_of_scikit_learn_passes(kind: Any) -> None:
    check(kind(**QUICK))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_every_check_passes_with_lbfgs(kind: Any) -> None:
    check(kind(**QUICK, solver="lbfgs"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_every_check_passes_with_the_defaults(kind: Any) -> None:
    check(kind())


def test_a_classifier_is_a_job_with_the_names_of_scikit_learn() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    x, y = load_iris(return_X_y=True, as_frame=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    net = DistbpClassifier(**QUICK, random_state=7).fit(x, names)
    assert net.score(x, names) > 0.95
    assert list(net.classes_) == sorted(set(names)) and net.n_features_in_ == 4
    assert list(net.feature_names_in_) == list(x.columns)
    np.testing.assert_allclose(net.predict_proba(x).sum(axis=1), 1)
    np.testing.assert_array_equal(net.predict_log_proba(x), np.log(net.predict_proba(x)))
    assert isinstance(net.job_, distbp.TrainingJob) and net.job_.seed == 7
    assert net.n_iter_ == net.job_.epochs == 60 == len(net.result_.history["train_loss"])
    assert net.result_.model() is net.model_
    assert net.model_.score(x.to_numpy(), y.to_numpy()) == net.score(x, names)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_seed_gives_the_same_bits_and_pickling_keeps_them(kind: Any) -> None:
    x, y = load_iris(return_X_y=True)
    first, again, other = (kind(**QUICK, random_state=seed).fit(x, y) for seed in (1, 1, 2))
    assert first.result_.params_sha256 == again.result_.params_sha256 != other.result_.params_sha256
    copy = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(copy.predict(x), first.predict(x))
    assert copy.result_.history.rows == first.result_.history.rows


def test_values_come_back_in_their_own_unit() -> None:
    x, y = load_diabetes(return_X_y=True)
    both = np.column_stack([1e6 + 1000 * y, y / 1000])
    net = DistbpRegressor(**QUICK, random_state=0).fit(x, both)
    assert net.predict(x).shape == both.shape and net.score(x, both) > 0.5
    np.testing.assert_allclose(net.predict(x), net.model_.predict(x))
    one = DistbpRegressor(**QUICK, random_state=0).fit(x, y)
    assert one.predict(x).shape == y.shape and one.score(x, y) > 0.5
    column = DistbpRegressor(**QUICK, random_state=0).fit(x, y[:, None])
    np.testing.assert_array_equal(column.predict(x)[:, 0], one.predict(x))


def test_early_stopping_holds_rows_back_and_keeps_the_best() -> None:
    x, y = load_iris(return_X_y=True)
    stopping: dict[str, Any] = {**QUICK, "max_iter": 500, "early_stopping": True, "n_iter_no_change": 3}
    weights = np.linspace(1, 2, len(x))
    for net in (DistbpClassifier(**stopping, random_state=0), DistbpRegressor(**stopping, random_state=0)):
        net.fit(x, y, sample_weight=weights)
        assert net.n_iter_ < 500 and net.result_.status == "stopped early"
        assert net.result_.model_epoch == int(np.argmin(net.result_.history["validation_loss"])) + 1


def test_they_work_in_pipelines_and_searches() -> None:
    x, y = load_iris(return_X_y=True)
    net = DistbpClassifier(**{**QUICK, "max_iter": 20}, random_state=0)
    assert cross_val_score(make_pipeline(StandardScaler(), net), x, y, cv=3).mean() > 0.9
    search = GridSearchCV(
        net, {"hidden_layer_sizes": [(4,), (16, 8)], "max_iter": np.array([2, 20])}, cv=2
    ).fit(x, y)
    assert search.best_params_["max_iter"] == 20 and search.best_estimator_.job_.epochs == 20


def test_class_weight_and_sample_weight_multiply() -> None:
    x, y = np.zeros((90, 1)), np.repeat([0, 1], [60, 30])
    share = DistbpClassifier(**QUICK, class_weight="balanced", random_state=0).fit(x, y).predict_proba(x[:1])
    np.testing.assert_allclose(share, [[0.5, 0.5]], atol=0.02)
    weights = np.where(y == 1, 3.0, 1.0)
    net = DistbpClassifier(**QUICK, class_weight={1: 2}, random_state=0).fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(net.predict_proba(x[:1]), [[0.25, 0.75]], atol=0.02)


@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")  # of old versions of scikit-learn
def test_lbfgs_comes_as_low_as_scikit_learns() -> None:
    x, y = load_iris(return_X_y=True)
    ours = DistbpClassifier((8,), activation="tanh", solver="lbfgs", random_state=5).fit(x, y)
    theirs = MLPClassifier((8,), activation="tanh", solver="lbfgs", alpha=0, max_iter=200, random_state=5)
    theirs.fit(StandardScaler().fit_transform(x), y)
    assert ours.job_.batch_size == "full" and ours.n_iter_ <= 200
    assert ours.result_.metrics["train_loss"] == pytest.approx(float(theirs.loss_), rel=0.01)
    assert ours.result_.notes[-1].startswith("converged after ") and ours.score(x, y) >= 0.99
    twice = DistbpClassifier((8,), solver="lbfgs", max_iter=20, random_state=0)
    weighted = twice.fit(x, y, sample_weight=np.full(len(y), 2.0)).predict_proba(x)
    np.testing.assert_allclose(twice.fit(x, y).predict_proba(x), weighted, atol=1e-6)


def test_what_cannot_be_is_said() -> None:
    x, y = load_iris(return_X_y=True)
    with pytest.raises(ArgumentError, match=r"^y has one class only, 0; a classifier needs two classes$"):
        DistbpClassifier().fit(x[:50], y[:50] * 0)
    labels = np.array(["no", None, "yes", None] + ["no"] * 146, object)
    with pytest.raises(ArgumentError, match=r"^y is None in 2 rows \(1, 3\); leave such rows out$"):
        DistbpClassifier().fit(x, labels)
    # Newer versions of scikit-learn say it themselves.
    message = r"^(sample_weight is 0 for every row, so nothing can be learned$|Sample weights must)"
    with pytest.raises(ValueError, match=message):
        DistbpRegressor().fit(x, y, sample_weight=np.zeros(len(x)))
    with pytest.raises(distbp.JobError, match=r"(?s)the estimator's settings.*layers\.0\.activation.*rellu"):
        DistbpClassifier(activation="rellu").fit(x, y)
    for settings, message in (
        ({"max_iter": 0}, r"settings has 1 fault:\n  max_iter: "),
        ({"learning_rate_init": -1}, r"\n  learning_rate_init: "),
        ({"early_stopping": True, "n_iter_no_change": -1}, r"\n  n_iter_no_change: "),
        ({"solver": "adamm"}, r"\n  solver.*adam"),
        ({"solver": {"type": "momentum", "learning_rate": 0.1, "momentum": 2}}, r"\n  solver\.momentum: "),
        ({"solver": "momentum", "momentum": 2}, r"\n  momentum: "),
        ({"beta_1": 1.5, "epsilon": -1}, r"settings has 2 faults:\n  beta_1: .*\n  epsilon: "),
        (
            {"solver": "sgd", "momentum": 0.9, "max_iter": 0},
            r"settings has 2 faults:\n  momentum: is not an option of the solver 'sgd'; leave it out, or"
            r" take one that has it: momentum, nesterov, rmsprop\n  max_iter: ",
        ),
        ({"solver": 5}, r"\n  solver: must be the name of an optimizer, .*, not 5"),
        ({"shuffle": "often"}, r"\n  shuffle: "),
    ):
        with pytest.raises(distbp.JobError, match=message):
            DistbpClassifier(**settings).fit(x, y)
    for alpha in (-1, "0.1", float("nan"), True):
        with pytest.raises(ArgumentError, match=rf"^alpha is {alpha!r}; give a number of at least 0$"):
            DistbpClassifier(alpha=alpha).fit(x, y)


def test_options_of_the_solver() -> None:
    """Under scikit-learn's names; "auto" leaves what the solver has by itself."""
    given = {"beta_1": 0.8, "beta_2": np.float64(0.99), "epsilon": 1e-6, "shuffle": False}
    job = job_of(DistbpClassifier(**given).get_params(), 3, "softmax_cross_entropy", 150, 0)
    found = job.optimizer
    assert (found.type, found.beta1, found.beta2, found.epsilon, job.shuffle) == (
        "adam",
        0.8,
        0.99,
        1e-6,
        False,
    )
    whole = {"type": "nesterov", "learning_rate": 0.02}
    found = job_of(DistbpRegressor(solver=whole, momentum=0.5).get_params(), 1, "mse", 150, 0).optimizer
    assert (found.type, found.learning_rate, found.momentum) == ("nesterov", 0.02, 0.5)


def test_an_optimizer_as_solver() -> None:
    """As an object it is what it is as a mapping, in `partial_fit`, too."""
    x, y = load_iris(return_X_y=True)
    net = DistbpClassifier(solver=OPTIMIZERS["adam"](learning_rate=0.01), max_iter=2, random_state=0)
    given = {"type": "adam", "learning_rate": 0.01}
    as_mapping = clone(net).set_params(solver=given).fit(x, y)
    assert clone(net).fit(x, y).result_.params_sha256 == as_mapping.result_.params_sha256
    assert net.partial_fit(x, y, classes=[0, 1, 2]).job_.optimizer.learning_rate == 0.01


def test_without_scikit_learn_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['sklearn'] = None\nfrom distbp import DistbpClassifier"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    wanted = (
        "ImportError: an estimator needs scikit-learn 1.6 or later, which is not installed;"
        " run: pip install 'distbp[sklearn]'"
    )
    assert done.stderr.strip().endswith(wanted)


def test_recipe_and_members() -> None:
    pytest.importorskip("pyarrow", reason="arrays with a recipe are tables, which need pyarrow")
    x, y = load_iris(return_X_y=True)
    small = {"hidden_layer_sizes": (16,), "max_iter": 20, "learning_rate_init": 0.02}
    net = DistbpClassifier(**small, recipe="table", members=np.int64(2), random_state=0).fit(x, y)
    assert [layer.type for layer in net.job_.model.layers] == ["dense", "dropout", "dense"]
    assert (net.job_.optimizer.type, net.job_.optimizer.schedule.type) == ("adamw", "warm_up")
    assert (net.job_.optimizer.learning_rate, net.job_.batch_size, net.job_.members) == (0.02, 32, 2)
    assert (net.job_.early_stopping.patience, net.job_.early_stopping.fold) == (20, "each")
    assert len(net.model_.vectors) == 2
    assert net.score(x, y) > 0.9
    values = DistbpRegressor(**small, members=2, random_state=0).fit(x, x[:, :2] * 50 + 7)
    assert values.job_.early_stopping is None
    assert values.score(x, x[:, :2] * 50 + 7) > 0.5  # in the unit of the targets
    whole = job_of(DistbpClassifier(recipe="table").get_params(), 3, "softmax_cross_entropy", 150, 0)
    recipe = {"model": {"recipe": "table", "outputs": 3, "rows": 150}, "loss": "softmax_cross_entropy"}
    assert whole.model == TrainingJob.from_mapping(recipe).model
    assert whole.optimizer == TrainingJob.from_mapping(recipe).optimizer
    assert (whole.epochs, whole.batch_size) == (100, 32)
    with pytest.raises(ValueError, match="recipe is 'tabel', not None or one of 'table', 'realmlp'"):
        DistbpClassifier(recipe="tabel").fit(x, y)


@pytest.mark.parametrize("standardize", [True, False])
def test_bins_of_numbers(standardize: bool) -> None:
    pytest.importorskip("pyarrow", reason="arrays with a recipe are tables, which need pyarrow")
    x, y = load_iris(return_X_y=True)
    brief = {"hidden_layer_sizes": (4,), "max_iter": 1, "standardize": standardize, "random_state": 0}
    for bins, width in ((0, 4), (8, 4 * 9), (np.int64(8), 4 * 9)):  # values of a column: 22 at least
        net = DistbpClassifier(**brief, recipe="table", bins=bins).fit(x, y)
        assert sum(cell.width for cell in net.model_.plan.entry.cells) == width
    with pytest.raises(distbp.JobError, match=r"settings has 1 fault:\n  bins: must be a whole number"):
        DistbpClassifier(**brief, recipe="table", bins=-1).fit(x, y)
    text = r"(?s)bins: is for recipe='table', with frames or one target; leave it out.*max_iter: must be"
    for fields, target in (({}, y), ({"recipe": "realmlp"}, y), ({"recipe": "table"}, x[:, :2])):
        with pytest.raises(distbp.JobError, match=text):
            DistbpRegressor(**{**brief, **fields, "max_iter": 0}, bins=8).fit(x, target)


def test_realmlp() -> None:
    x, y = load_iris(return_X_y=True)
    net = DistbpClassifier(recipe="realmlp", hidden_layer_sizes=(24, 24), max_iter=30, random_state=0).fit(
        x, y
    )
    job = net.job_
    assert (job.optimizer.type, job.optimizer.learning_rate, job.batch_size) == ("adamw", 0.04, 256)
    assert job.loss.label_smoothing == 0.1
    assert (job.early_stopping.metric, job.early_stopping.patience) == ("validation_accuracy", 30)
    assert [layer.type for layer in job.model.layers[:4]] == [
        "smooth_clip", "periodic_embedding", "scale", "dense"
    ]  # fmt: skip
    assert net.score(x, y) > 0.9
    rare = np.column_stack([x, np.where(np.arange(len(x)) < 9, 8.0, 0.0)])  # whose quartiles are one
    brief = DistbpClassifier(recipe="realmlp", hidden_layer_sizes=(8,), max_iter=1, early_stopping=False).fit(
        rare, y
    )
    low, median, high = np.quantile(rare, [0.25, 0.5, 0.75], axis=0)
    scaled = brief.model_.preprocessing
    assert scaled.mean.tolist() == median.tolist()
    assert scaled.std.tolist() == [*(high - low)[:4], 4.0]
    target = x[:, 0] * 50 + 7
    values = DistbpRegressor(recipe="realmlp", hidden_layer_sizes=(24,), max_iter=120, random_state=0).fit(
        x, target
    )
    assert {
        layer.function for layer in values.job_.model.layers if layer.type == "parametric_activation"
    } == {"mish"}
    assert values.score(x, target) > 0.9
    far = values.predict(x * 100)
    assert target.min() <= far.min() and far.max() <= target.max()
    said = DistbpClassifier(
        recipe="realmlp", activation="relu", learning_rate_init=0.1, hidden_layer_sizes=(8,), max_iter=2
    )
    fields = said.get_params()
    whole = job_of(fields, 3, "softmax_cross_entropy", 150, 0)
    assert (whole.optimizer.learning_rate, whole.model.layers[4].function) == (0.1, "relu")


@pytest.mark.parametrize(
    ("recipe", "rows", "given", "held"),
    [(None, 80, "auto", 8), ("table", 80, "auto", 16), ("table", 80, 0.1, 8)],
)
def test_rows_that_early_stopping_measures_on(recipe: Any, rows: int, given: Any, held: int) -> None:
    """Of few rows a recipe holds a fifth back."""
    from distbp.sklearn.holding_back import FEW_ROWS, held_back

    settings = {"recipe": recipe, "validation_fraction": given}
    assert round(held_back(settings, rows) * rows) == held
    assert held_back({**settings, "validation_fraction": "auto"}, FEW_ROWS) == 0.1


@pytest.mark.parametrize("size", [2.0**1000, 2.0**-700])
def test_numbers_of_any_size(size: float) -> None:
    """Their squares leave float64."""
    x, y = load_iris(return_X_y=True)
    usual = DistbpRegressor(**QUICK, random_state=0).fit(x, y)
    inputs = DistbpRegressor(**QUICK, random_state=0).fit(x * [size, 1, 1, 1], y)
    np.testing.assert_array_equal(inputs.predict(x * [size, 1, 1, 1]), usual.predict(x))
    targets = DistbpRegressor(**QUICK, random_state=0).fit(x, y * size)
    np.testing.assert_allclose(targets.predict(x), usual.predict(x) * size, rtol=1e-9)


@pytest.mark.parametrize("recipe", [None, "table", "realmlp"])
def test_an_array_with_holes_is_a_table(recipe: Any) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="arrays with holes are tables, which need pyarrow")
    x = np.random.default_rng(0).normal(size=(60, 3))
    y, holes = x[:, 0], np.where(np.arange(180).reshape(60, 3) % 7, x, np.nan)
    settings = {"recipe": recipe, "hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0}
    net = DistbpRegressor(**settings).fit(holes, y)
    assert net.model_.plan.columns[1].indicator
    same = DistbpRegressor(**settings).fit(pd.DataFrame(holes, columns=["0", "1", "2"]), y)
    assert net.result_.params_sha256 == same.result_.params_sha256
    np.testing.assert_array_equal(
        net.predict(holes), same.predict(pd.DataFrame(holes, columns=["0", "1", "2"]))
    )
    assert np.isfinite(net.predict(x)).all()
    with pytest.raises(ValueError, match="infinity"):
        DistbpRegressor(**settings).fit(np.where(np.isnan(holes), np.inf, holes), y)
    whole = DistbpRegressor(**settings).fit(x, y)
    if recipe == "table":
        assert np.isfinite(whole.predict(holes)).all()
    else:
        with pytest.raises(ArgumentError, match=r"X has holes \(NaN\), and fit saw none, so the model"):
            whole.predict(holes)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize(
    "y", [np.r_[np.arange(99) % 3, 7], np.arange(100) % 40, np.arange(100)], ids=["one", "40", "all"]
)
def test_early_stopping_with_rare_classes(y: Any) -> None:
    pytest.importorskip("pyarrow", reason="arrays with a recipe are tables, which need pyarrow")
    x = np.random.default_rng(0).normal(size=(100, 2))
    net = DistbpClassifier(recipe="table", hidden_layer_sizes=(4,), max_iter=2, random_state=0).fit(x, y)
    assert len(net.classes_) == len(set(y.tolist()))
    assert "validation_loss" in net.result_.history


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"validation_fraction": 1.5},
            "validation_fraction is 1.5; give a share between 0 and 1, or a number",
        ),
        (
            {"validation_fraction": "x"},
            "validation_fraction is 'x'; give a share between 0 and 1, or a number",
        ),
        ({"early_stopping": "yes"}, "early_stopping is 'yes'; give True, False or 'auto'"),
    ],
)
def test_settings_of_early_stopping_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    x, y = load_iris(return_X_y=True)
    with pytest.raises(ArgumentError, match=said):
        DistbpClassifier(**{**QUICK, "early_stopping": True, **settings}).fit(x, y)
