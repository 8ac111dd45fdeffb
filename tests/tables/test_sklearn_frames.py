"""Estimators of scikit-learn on frames as they are, and training that goes on."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")
pytest.importorskip("pandas", reason="pandas is not installed")
import pandas as pd
import pyarrow as pa
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score

import distbp
from distbp import train
from distbp.core.errors import ArgumentError, DataError, ModelError
from distbp.job import recipes
from distbp.sklearn import DistbpClassifier, DistbpRegressor

QUICK: dict[str, Any] = {
    "hidden_layer_sizes": (16,), "learning_rate_init": 0.02, "max_iter": 30, "random_state": 0
}  # fmt: skip


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


def frame(rows: int = 300) -> pd.DataFrame:
    """Text, holes, dates, booleans; and columns with the names that targets and weights would have."""
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "city": draw.choice(["Bonn", "Köln", "Ulm", None], rows),
            "size": np.where(draw.random(rows) < 0.1, np.nan, draw.normal(size=rows)),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(draw.integers(0, 500, rows), "D"),
            "target": draw.random(rows) < 0.5,
            "weight": draw.integers(0, 5, rows),
        }
    )


X = frame()
CLASSES = np.where((X.city == "Ulm") | (X["size"] > 0.5), "yes", "no")
VALUES = np.where(X.city == "Ulm", 5000.0, 1000.0) + 100 * X["size"].fillna(0)


def as_arrow(x: pd.DataFrame) -> Any:
    return pa.Table.from_pandas(x, preserve_index=False)


def as_polars(x: pd.DataFrame) -> Any:
    return pytest.importorskip("polars", reason="polars is not installed").from_pandas(x)


@pytest.mark.parametrize("recipe", [None, "table", "realmlp"])
@pytest.mark.parametrize("levels", [[10, 2, 7, None], ["10", "2", "007", None], [1.5, 2.0, 3.0, None]])
def test_numbers_that_are_stored_as_categories_are_such(levels: list[object], recipe: str | None) -> None:
    codes = np.arange(60) % 4
    x = pd.DataFrame({"n": np.arange(60.0), "a?": codes, "others": codes, "as": codes + 0.5})
    x[["a?", "others"]] = x[["a?", "others"]].apply(lambda one: one.map(dict(enumerate(levels))))
    x = x.astype({"a?": "category", "others": "category"})
    net = DistbpRegressor(**{**QUICK, "max_iter": 2}, recipe=recipe).fit(x, codes * 1.0)
    assert [code.type for code in net.model_.plan.columns] == ["number", "category", "category", "number"]
    assert [len(net.model_.plan.columns[i].levels) for i in (1, 2)] == [3, 3]
    plain = x.astype({"a?": object, "others": object})  # found by their values, however they are stored
    np.testing.assert_array_equal(net.predict(plain), net.predict(x))


@pytest.mark.parametrize("made", [lambda x: x, as_arrow, as_polars], ids=["pandas", "arrow", "polars"])
def test_frames_are_taken_as_they_are(made: Any) -> None:
    x = made(X)
    net = DistbpClassifier(**QUICK).fit(x, CLASSES)
    assert net.score(x, CLASSES) > 0.97 and list(net.classes_) == ["no", "yes"]
    assert list(net.feature_names_in_) == list(X.columns) and net.n_features_in_ == 5
    likely = net.predict_proba(X)
    np.testing.assert_array_equal(likely, DistbpClassifier(**QUICK).fit(X, CLASSES).predict_proba(X))
    np.testing.assert_array_equal(net.predict_proba(made(X[X.columns[::-1]])), likely)  # found by names
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(net)).predict_proba(X), likely)
    np.testing.assert_array_equal(net.predict_proba(X.to_numpy(object)), likely)  # as searches may give it
    values = DistbpRegressor(**QUICK).fit(x, VALUES)
    assert values.score(x, VALUES) > 0.97 and values.predict(x).shape == VALUES.shape


def test_a_frame_is_the_job_of_a_table(tmp_path: Path) -> None:
    """What the estimator trains is what `distbp.train` does with the same frame, weights and job."""
    weights = np.linspace(1, 2, len(X))
    net = DistbpRegressor(**QUICK, recipe="table", early_stopping=False, alpha=0.5)
    net.fit(X, VALUES, sample_weight=weights)
    assert net.job_.data.target.column == "target_" and net.job_.data.weight == "weight_"
    assert net.job_.regularization.l2 == 0.5 / net.job_.batch_size
    again = train(net.job_, data=X.assign(target_=VALUES, weight_=weights), output=tmp_path / "run")
    assert again.params_sha256 == net.result_.params_sha256
    np.testing.assert_allclose(net.predict(X), again.model().predict(X))
    some = DistbpRegressor(**QUICK).fit(X, VALUES, sample_weight=np.r_[np.zeros(100), np.ones(200)])
    rest = DistbpRegressor(**QUICK).fit(X[100:], VALUES[100:], sample_weight=np.ones(200))
    np.testing.assert_array_equal(some.predict(X), rest.predict(X))


@pytest.mark.heavy
@pytest.mark.parametrize("recipe", ["table", "realmlp"])
def test_recipes_and_members(recipe: str) -> None:
    settings = {**QUICK, "recipe": recipe, "members": 2, "max_iter": 80}
    net = DistbpClassifier(**settings).fit(X, CLASSES)
    assert net.score(X, CLASSES) > 0.9 and len(net.model_.vectors) == 2
    assert "validation_loss" in net.result_.history
    values = DistbpRegressor(**settings).fit(X, VALUES)
    assert values.score(X, VALUES) > 0.7
    if recipe == "realmlp":
        assert VALUES.min() <= values.predict(X).min() and values.predict(X).max() <= VALUES.max()


@pytest.mark.parametrize(("rows", "bins"), [(499, 0), (500, 32)])
def test_the_recipe_codes_numbers_where_rows_are_enough(rows: int, bins: int) -> None:
    settings = {**QUICK, "recipe": "table", "max_iter": 1, "early_stopping": False}
    net = DistbpRegressor(**settings).fit(frame(rows), np.arange(rows) % 7.0)
    assert net.job_.data.columns["others"].number.bins == bins


@pytest.mark.parametrize(("columns", "bins"), [(15, 32), (16, 0)])
def test_the_recipe_has_no_more_bins_than_rows(columns: int, bins: int) -> None:
    """Columns of text count for nothing, and those of 7 values for 7."""
    settings = {**QUICK, "recipe": "table", "max_iter": 1, "early_stopping": False}
    x = pd.DataFrame(
        np.random.default_rng(0).normal(size=(500, columns)), columns=[*map(str, range(columns))]
    )
    net = DistbpRegressor(**settings).fit(x.assign(text=["a", "b"] * 250), x["0"])
    assert net.job_.data.columns["others"].number.bins == bins
    few = DistbpRegressor(**settings).fit(np.arange(500 * 60).reshape(500, 60) % 7, x["0"])
    assert few.job_.data.columns["others"].number.bins == 32
    assert ["bins" in recipes.number(100_000, [9] * many) for many in (100, 101)] == [True, False]


def test_the_recipe_takes_numbers_as_a_table() -> None:
    """So that they are coded in bins. The columns of an array have numbers for names."""
    x, y = load_iris(return_X_y=True, as_frame=True)
    net = DistbpClassifier(**QUICK, recipe="table").fit(x, y)
    assert net.model_.plan is not None and net.score(x, y) > 0.9
    wanted = net.predict_proba(x)
    np.testing.assert_array_equal(wanted, net.predict_proba(x.to_numpy()))
    np.testing.assert_array_equal(wanted, net.predict_proba(x[x.columns[::-1]]))
    array = DistbpClassifier(**QUICK, recipe="table").fit(x.to_numpy(), y)
    np.testing.assert_array_equal(wanted, array.predict_proba(x.to_numpy()))
    assert array.n_features_in_ == 4 and not hasattr(array, "feature_names_in_")
    with pytest.warns(UserWarning, match="X has feature names"):
        np.testing.assert_array_equal(wanted, array.predict_proba(x))
    with pytest.raises(ValueError, match="X has 3 features"):
        array.predict(x.to_numpy()[:, :3])
    array.partial_fit(x.to_numpy(), y)
    net.partial_fit(x, y)
    with pytest.raises(ArgumentError, match="goes on from an array, and X is a frame now"):
        array.partial_fit(x, y)
    np.testing.assert_array_equal(net.predict_proba(x), array.predict_proba(x.to_numpy()))
    two = DistbpRegressor(**QUICK, recipe="table").fit(x, np.column_stack([y, y]))
    assert two.model_.plan is None and two.predict(x).shape == (150, 2)


def test_they_are_validated_and_searched() -> None:
    net = DistbpClassifier(**QUICK)
    assert cross_val_score(net, X, CLASSES, cv=3).min() > 0.9
    search = GridSearchCV(net, {"max_iter": [1, 30], "recipe": [None]}, cv=2).fit(X, CLASSES)
    assert search.best_params_["max_iter"] == 30


def test_a_frame_of_numbers_is_an_array() -> None:
    x, y = load_iris(return_X_y=True, as_frame=True)
    one, other = (DistbpClassifier(**QUICK).fit(given, y) for given in (x, x.to_numpy()))
    assert one.result_.params_sha256 == other.result_.params_sha256 and one.model_.plan is None


@pytest.mark.parametrize("recipe", [None, "table", "realmlp"])
def test_several_values_of_a_frame_are_several_targets(recipe: str | None) -> None:
    size = X["size"].fillna(0)
    y = pd.DataFrame({"price": VALUES, "size": 10 * size, "input": VALUES / 100 - size})  # X has a size, too
    net = DistbpRegressor(**{**QUICK, "max_iter": 40}, recipe=recipe, early_stopping=False).fit(X, y)
    assert net.score(X, y) > 0.6 and net.predict(X).shape == y.shape
    found = net.model_.predict(X)
    assert list(found) == ["input_", "price", "size_"]
    for number, name in enumerate(("price", "size_", "input_")):
        assert (net.predict(X)[:, number] == found[name].ravel()).all() or recipe == "realmlp"
    plain = DistbpRegressor(**{**QUICK, "max_iter": 1}, recipe=recipe, early_stopping=False)
    plain.fit(X, y.to_numpy())
    assert sorted(plain.model_.predict(X)) == ["y0", "y1", "y2"]


def test_several_values_of_a_frame_go_on() -> None:
    y = np.column_stack([VALUES, -VALUES])
    usual = {**QUICK, "max_iter": 3}
    whole, parts = DistbpRegressor(**usual).fit(X, y), DistbpRegressor(**usual)
    for _ in range(3):
        parts.partial_fit(X, y)
    assert parts.result_.params_sha256 == whole.result_.params_sha256
    said = r"^training goes on from 2 outputs, and y has 1 now; set warm_start=False$"
    with pytest.raises(ArgumentError, match=said):
        parts.partial_fit(X, VALUES)


@pytest.mark.heavy
def test_the_first_rows_may_be_of_one_class() -> None:
    net = DistbpClassifier(**QUICK).partial_fit(X[:20], ["b"] * 20, classes=["a", "b"])
    assert net.predict_proba(X).shape == (len(X), 2)
    for _ in range(40):
        net.partial_fit(X, np.where(X.city == X.city[0], "a", "b"))
    assert net.score(X, np.where(X.city == X.city[0], "a", "b")) > 0.9


def test_columns_and_levels_that_do_not_fit() -> None:
    net = DistbpClassifier(**QUICK).fit(X, CLASSES)
    with pytest.raises(ModelError, match=r"has no column 'city'"):
        net.predict(X.drop(columns="city"))
    with pytest.raises(ArgumentError, match=r"^X has 4 features, and fit saw 5$"):
        net.predict(X.to_numpy(object)[:, :4])
    with pytest.warns(UserWarning, match=r"'city' \(1\)"):
        net.predict(X.assign(city=["Rom", *X.city[1:]]))


@pytest.mark.parametrize("kind", [DistbpClassifier, DistbpRegressor])
@pytest.mark.parametrize(("table", "solver"), [(False, "sgd"), (False, "adam"), (True, "adam")])
def test_a_warm_start_goes_on(kind: Any, table: bool, solver: str) -> None:
    x, y = load_iris(return_X_y=True)
    if table:
        x, y = X, CLASSES if kind is DistbpClassifier else VALUES
    net = kind(**{**QUICK, "max_iter": 5}, solver=solver, warm_start=True)
    first = net.fit(x, y).loss_curve_
    for _ in range(3):
        net.fit(x, y)
    assert net.loss_curve_[-1] < first[-1] and net.n_iter_ == len(net.loss_curve_) == 5
    cold = clone(net).set_params(warm_start=False).fit(x, y)
    assert cold.fit(x, y).loss_curve_ == first
    whole = clone(net).set_params(max_iter=20).fit(x, y)
    assert net.result_.params_sha256 == whole.result_.params_sha256  # as many epochs, to the bit


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "made"),
    [(DistbpClassifier, lambda x: x), (DistbpRegressor, as_arrow), (DistbpClassifier, as_polars)],
    ids=["pandas", "arrow", "polars"],
)
def test_frames_come_piece_by_piece(kind: Any, made: Any) -> None:
    """What the first rows show of the columns stays, whatever later ones hold."""
    y = CLASSES if kind is DistbpClassifier else VALUES
    more = {"classes": ["no", "yes"]} if kind is DistbpClassifier else {}
    net = kind(**QUICK, batch_size=10).partial_fit(made(X[:100]), y[:100], **more)
    plan = net.model_.plan.to_json()
    later = X[100:][X.columns[::-1]].assign(city="Rom")
    pieces = [
        (later, y[100:]),  # a level that nobody knows, other columns in front
        (X[X.city.notna() & X["size"].notna()].drop(columns="day").assign(day=X.day), None),  # no holes
        (X[CLASSES == "no"].assign(target_=1, more="x"), None),  # one class; columns that are not known
    ]
    for x, own in pieces:
        net.partial_fit(made(x), y[x.index] if own is None else own)
        assert net.model_.plan.to_json() == plan
    for _ in range(20):
        net.partial_fit(made(X), y, sample_weight=np.linspace(1, 2, len(X)))
    assert net.score(X, y) > 0.95 and net.n_iter_ == 24
    with pytest.raises(DataError, match="has no column 'city'"):
        net.partial_fit(made(X.drop(columns="city")), y)


def test_a_warm_start_keeps_the_columns() -> None:
    net = DistbpClassifier(**{**QUICK, "max_iter": 5}, warm_start=True).fit(X, CLASSES)
    plan = net.model_.plan.to_json()
    net.fit(X[:200].assign(city="Rom"), CLASSES[:200])
    assert net.model_.plan.to_json() == plan and list(net.feature_names_in_) == list(X.columns)
    with pytest.warns(UserWarning, match=r"'city' \(300\)"):
        assert net.score(X.assign(city="Rom"), CLASSES) > 0.4


def test_values_whose_scale_is_1() -> None:
    y = np.where(np.arange(300) % 2, 1.0, -1.0)
    net = DistbpRegressor(**QUICK).partial_fit(X, y).partial_fit(X, y)
    assert net.n_iter_ == 2 and not net.model_.plan.target.scaled


def test_realmlp_keeps_the_range_of_the_first_values() -> None:
    x, y = load_iris(return_X_y=True)
    net = DistbpRegressor(**{**QUICK, "recipe": "realmlp"}).partial_fit(x, y)
    assert net.partial_fit(x[y == 0], y[y == 0]).predict(x).max() > 0.5
    frame = DistbpRegressor(**{**QUICK, "max_iter": 1, "recipe": "realmlp"}, warm_start=True).fit(X, VALUES)
    frame.set_params(recipe="table").fit(X, VALUES)
    assert VALUES.min() < frame.model_.plan.target.limits[1] <= VALUES.max()  # of the rows that trained first


@pytest.mark.heavy
def test_partial_fit_of_a_classifier() -> None:
    x, y = load_iris(return_X_y=True)
    names, order = np.array(["a", "b", "c"])[y], np.random.default_rng(0).permutation(150)
    settings = {**QUICK, "batch_size": 10}
    net = DistbpClassifier(**settings)
    with pytest.raises(ArgumentError, match=r"^the first call of partial_fit needs classes"):
        net.partial_fit(x, names)
    for some in np.array_split(order, 3):
        net.partial_fit(x[some], names[some], classes=["c", "b", "a"])
    assert net.n_iter_ == 3 == len(net.loss_curve_) and list(net.classes_) == ["a", "b", "c"]
    mean = net.model_.preprocessing.mean
    np.testing.assert_allclose(mean, x[np.array_split(order, 3)[0]].mean(axis=0))  # of the first rows
    for _ in range(20):
        net.partial_fit(x, names)
    assert net.score(x, names) > 0.95 and net.loss_curve_[-1] < net.loss_curve_[0] / 2
    again = DistbpClassifier(**settings)
    for some in np.array_split(order, 3):
        again.partial_fit(x[some], names[some], classes=["a", "b", "c"])
    for _ in range(20):
        again.partial_fit(x, names)
    assert again.result_.params_sha256 == net.result_.params_sha256
    only = DistbpClassifier(**settings).partial_fit(x[:50], names[:50], classes=["a", "b", "c"])
    assert only.predict_proba(x).shape == (150, 3)  # of classes that no row had
    for given, message in (
        ({"y": np.repeat("d", 150)}, "y has ['d'], which is not among classes, ['a', 'b', 'c']"),
        ({"y": names, "classes": ["a", "b"]}, "classes is ['a', 'b'], and was ['a', 'b', 'c'] in an earlier"),
    ):
        with pytest.raises(ArgumentError, match=re.escape(message)):
            net.partial_fit(x, **given)
    with pytest.raises(ArgumentError, match=r"class_weight='balanced' needs all rows"):
        DistbpClassifier(class_weight="balanced").partial_fit(x, names, classes=["a", "b", "c"])


@pytest.mark.parametrize("recipe", [None, "table"])
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("kind", [DistbpClassifier, DistbpRegressor])
def test_passes_over_the_same_rows_are_one_training(kind: Any, table: bool, recipe: Any) -> None:
    """Also of an estimator that was pickled between. A clone begins anew."""
    x, y = load_iris(return_X_y=True)
    if table:
        x, y = X, CLASSES if kind is DistbpClassifier else VALUES
    more = {"classes": np.unique(y)} if kind is DistbpClassifier else {}
    settings = {**QUICK, "batch_size": 16, "max_iter": 4, "early_stopping": False, "recipe": recipe}
    whole = kind(**settings, solver="adam").fit(x, y)
    net = kind(**settings, solver="adam")
    for _ in range(4):
        net = pickle.loads(pickle.dumps(net)).partial_fit(x, y, **more)
    assert net.result_.params_sha256 == whole.result_.params_sha256
    np.testing.assert_array_equal(net.predict(x), whole.predict(x))
    assert net.n_iter_ == 4 and net.loss_curve_ == whole.loss_curve_
    first = clone(net).partial_fit(x, y, **more)
    assert first.loss_curve_ == whole.loss_curve_[:1]
    other = net.set_params(solver="rmsprop").partial_fit(x, y, **more)  # which keeps something else
    assert any("begins anew" in note for note in other.result_.notes)


def test_what_converged_goes_on_with_another_solver() -> None:
    x, y = load_iris(return_X_y=True)
    net = DistbpClassifier(**{**QUICK, "max_iter": 5}, warm_start=True, solver="lbfgs").fit(x, y)
    before = net.loss_curve_
    assert net.fit(x, y).loss_curve_[-1] < before[-1]
    net.set_params(solver="adam", learning_rate_init=1e-6).fit(x, y)
    assert net.loss_curve_[-1] == pytest.approx(net.fit(x, y).loss_curve_[0], rel=1e-3)


def test_partial_fit_of_values() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 3))
    y = 1e4 + 100 * x[:, 0]
    net = DistbpRegressor(**{**QUICK, "batch_size": 10})
    for number in range(12):
        net.partial_fit(x[number % 2 :: 2], y[number % 2 :: 2], sample_weight=np.ones(200))
    assert net.score(x, y) > 0.95 and net.n_iter_ == 12


def test_what_cannot_go_on_is_said() -> None:
    x, y = load_iris(return_X_y=True)
    assert not hasattr(DistbpClassifier(solver="lbfgs"), "partial_fit")
    assert not hasattr(DistbpRegressor(solver={"type": "conjugate_gradient"}), "partial_fit")
    net = DistbpClassifier(**{**QUICK, "max_iter": 1}, warm_start=True).fit(x, y)
    with pytest.raises(ArgumentError, match=r"goes on from 4 features, and X has 3; set warm_start=False$"):
        net.fit(x[:, :3], y)
    with pytest.raises(ArgumentError, match=r"goes on with the classes \[0, 1, 2\], and y has \[0, 1\]"):
        net.fit(x[y < 2], y[y < 2])
    several = DistbpClassifier(**{**QUICK, "max_iter": 1}, warm_start=True, members=2).fit(x, y)
    with pytest.raises(ArgumentError, match=r"^members is 2, and training goes on with one network only"):
        several.fit(x, y)
    mixed = DistbpRegressor(**{**QUICK, "max_iter": 1}, warm_start=True).fit(X, VALUES)
    with pytest.raises(
        ArgumentError, match=r"goes on from a table \(.*\), and X is an array without holes now"
    ):
        mixed.fit(x, y)
    holes = np.where(x > 6, np.nan, x)
    plain = DistbpClassifier(**{**QUICK, "max_iter": 1}).partial_fit(x, y, classes=[0, 1, 2])
    with pytest.raises(ArgumentError, match=r"from an array without holes, and X is a table \(.*holes\) now"):
        plain.partial_fit(holes, y)


def test_the_names_are_found_on_demand() -> None:
    assert distbp.sklearn.DistbpClassifier is DistbpClassifier is distbp.DistbpClassifier


@pytest.mark.parametrize("recipe", [None, "table", "realmlp"])
@pytest.mark.parametrize("two", [False, True])
def test_values_that_are_all_one(recipe: str | None, two: bool) -> None:
    """As with arrays, and as scikit-learn's regressors take them."""
    y = np.full(len(X), 5.0)
    y = np.column_stack([y, VALUES]) if two else y
    net = DistbpRegressor(**QUICK, recipe=recipe).fit(X, y)
    found = net.predict(X)
    assert found.shape == y.shape
    np.testing.assert_allclose(found.reshape(len(X), -1)[:, 0], 5, atol=0.3)


def test_the_first_values_may_be_all_one() -> None:
    net = DistbpRegressor(**QUICK).partial_fit(X[:9], np.full(9, 1000.0)).partial_fit(X, VALUES)
    assert np.isfinite(net.predict(X)).all()
    note = "the target 'target_' is 5 in all training rows"
    assert note in DistbpRegressor(**QUICK).fit(X, np.full(len(X), 5.0)).result_.notes
