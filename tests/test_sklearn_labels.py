"""`DistbpClassifier` on rows that have any number of labels (multi-label)."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from scipy.sparse import csr_matrix
from sklearn.datasets import make_multilabel_classification
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score

from distbp.core.errors import ArgumentError
from distbp.sklearn import DistbpClassifier

QUICK: dict[str, Any] = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.02, "max_iter": 60}


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


LABELS_X, LABELS_Y = make_multilabel_classification(300, 12, n_classes=4, random_state=0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"early_stopping": True}, {"recipe": "table", "members": 2}, {"recipe": "realmlp"}],
    ids=["plain", "early stopping", "table", "realmlp"],
)
@pytest.mark.parametrize("holes", [False, True], ids=["array", "table"])
def test_rows_with_several_labels(settings: dict[str, Any], holes: bool) -> None:
    if holes or settings.get("recipe") == "table":
        pytest.importorskip("pyarrow", reason="these arrays are tables, which need pyarrow")
    x = np.where(LABELS_X > 12, np.nan, LABELS_X) if holes else LABELS_X
    settings = {**QUICK, "random_state": 0, **settings}
    net = DistbpClassifier(**settings).fit(x, LABELS_Y)
    assert net.classes_.tolist() == [0, 1, 2, 3]
    likely, found = net.predict_proba(x), net.predict(x)
    assert likely.shape == found.shape == (300, 4)
    assert (found == (likely > 0.5)).all() and found.dtype == np.int64
    assert roc_auc_score(LABELS_Y, likely) > 0.8
    assert net.score(x, LABELS_Y) == (found == LABELS_Y).all(axis=1).mean()


def test_labels_of_several_kinds() -> None:
    """A constant label is learned, too."""
    y = LABELS_Y.copy()
    y[:, 1] = 1
    net = DistbpClassifier(**{**QUICK, "max_iter": 30}, random_state=0).fit(LABELS_X, y)
    assert net.predict(LABELS_X)[:, 1].all()
    for same in (y.astype(bool), y.astype(float), y.tolist(), csr_matrix(y)):
        other = DistbpClassifier(**{**QUICK, "max_iter": 30}, random_state=0).fit(LABELS_X, same)
        assert other.predict_proba(LABELS_X).tobytes() == net.predict_proba(LABELS_X).tobytes()
    folds = cross_val_score(net, LABELS_X, LABELS_Y, cv=2, scoring="roc_auc")
    assert folds.mean() > 0.7


def test_columns_of_a_frame_name_the_outputs() -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame(LABELS_X[:, :2], columns=["a", "b"]).assign(c="text")
    labels = pd.DataFrame(LABELS_Y[:, :3], columns=["b", "red", "round"])
    named = DistbpClassifier(**QUICK, random_state=0).fit(frame, labels)
    assert sorted(named.model_.predict_proba(frame)) == ["b_", "red", "round"]


def test_labels_in_pieces_have_the_bits_of_one_fit() -> None:
    settings = {**QUICK, "max_iter": 3, "random_state": 0}
    whole, pieces = DistbpClassifier(**settings).fit(LABELS_X, LABELS_Y), DistbpClassifier(**settings)
    for _ in range(3):
        pieces.partial_fit(LABELS_X, LABELS_Y)
    assert pieces.predict_proba(LABELS_X).tobytes() == whole.predict_proba(LABELS_X).tobytes()
    with pytest.raises(ArgumentError, match=r"^y has 3 labels, and there are 4$"):
        pieces.partial_fit(LABELS_X, LABELS_Y[:, :3])
    message = r"^training goes on from columns of 0 and 1 for labels, and y is classes now; make a new"
    with pytest.raises(ArgumentError, match=message):
        pieces.partial_fit(LABELS_X, LABELS_Y[:, 0])
    classes = DistbpClassifier(**settings, warm_start=True).fit(LABELS_X, LABELS_Y[:, 0])
    with pytest.raises(ArgumentError, match=r"^training goes on from classes, and y is columns of 0 and 1"):
        classes.fit(LABELS_X, LABELS_Y)


@pytest.mark.parametrize("y", [LABELS_Y * 2, LABELS_Y.astype(str), LABELS_Y - 0.5])
def test_columns_that_are_no_labels(y: Any) -> None:
    message = (
        r"^y has several columns, and not all are 0 and 1; give \(n,\) classes, or a column for each label"
    )
    with pytest.raises(ArgumentError, match=message):
        DistbpClassifier(**QUICK).fit(LABELS_X, y)


def test_a_classifier_that_an_older_version_pickled() -> None:
    """It knew no labels, and says nothing of them."""
    net = DistbpClassifier(**QUICK, random_state=0).fit(LABELS_X, LABELS_Y[:, 0])
    before = net.predict(LABELS_X)
    del net.__dict__["_labelled"]
    again = pickle.loads(pickle.dumps(net))
    assert (again.predict(LABELS_X) == before).all()
    again.partial_fit(LABELS_X, LABELS_Y[:, 0])
