"""What targets mean: labels of every kind, values, their names and limits, and frames."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distbp import TrainingJob
from distbp.core.errors import DataError
from distbp.data.formats import from_arrays
from distbp.data.given import arranged, columns_of
from distbp.data.targets import Meaning, as_taken, shown, understand
from distbp.nn.losses import LOSSES
from distbp.nn.losses.base import Targets
from distbp.run.splits import open_splits

X = np.arange(12, dtype=np.float32).reshape(6, 2)
SOFTMAX = LOSSES["softmax_cross_entropy"]()
F32 = np.dtype(np.float32)
WORDS = ["cat", "dog", "cat", "ant", "dog", "ant"]


def meaning(loss: str, outputs: int, train: Any, **others: Any) -> Meaning:
    tables = {
        split: from_arrays(X, targets, name=f"the {split} arrays")
        for split, targets in {"train": train, **others}.items()
    }
    return understand(tables, LOSSES[loss](), outputs, F32)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 1, 2, 0, 1, 2], None),
        ([0, 1, 1, 0, 1, 1], None),
        (np.array([0, 1, 2, 0, 1, 2], np.uint8), None),
        (np.array([0, 1, 2, 0, 1, 2], ">i4"), None),
        ([0.0, 1, 2, 0, 1, 2], None),
        ([[0], [1], [2], [0], [1], [2]], None),
        ([-1, 0, 1, -1, 0, 1], (-1, 0, 1)),
        ([-1.0, 0, 1, -1, 0, 1], (-1, 0, 1)),
        ([10, 30, 20, 10, 30, 20], (10, 20, 30)),
        (np.array([0, 2**63 - 1, 7, 0, 7, 7], np.uint64), (0, 7, 2**63 - 1)),
        (WORDS, ("ant", "cat", "dog")),
        ([[word] for word in WORDS], ("ant", "cat", "dog")),
        (np.array(WORDS, dtype=object), ("ant", "cat", "dog")),
        (np.array(WORDS, dtype="S"), ("ant", "cat", "dog")),
        (np.array(WORDS, dtype=np.dtypes.StringDType()), ("ant", "cat", "dog")),
        ([*"äöü"] * 2, ("ä", "ö", "ü")),
        (["1", "2", "10", "1", "2", "10"], ("1", "10", "2")),
        (np.array([1, 2, 3, 1, 2, 3], dtype=object), (1, 2, 3)),
    ],
)
def test_labels_of_every_kind(labels: Any, classes: Any) -> None:
    found = meaning("softmax_cross_entropy", 3, labels)
    assert found.classes == classes
    numbers = found.targets["train"]
    assert numbers.dtype == np.intp
    plain = np.ravel(np.array(labels)).tolist()
    plain = [p.decode() if isinstance(p, bytes) else p for p in plain]
    assert [n if classes is None else classes[n] for n in numbers.tolist()] == plain
    if np.array(labels).dtype.kind != "f" and np.shape(numbers) == np.shape(labels):
        one_hot = meaning("mse", 3, labels).targets["train"]
        np.testing.assert_array_equal(one_hot, np.eye(3, dtype=F32)[numbers])
        assert one_hot.dtype == F32


def test_booleans_are_classes_to_some_losses_and_numbers_to_others() -> None:
    yes = np.array([True, False, True, True, False, False])
    found = meaning("softmax_cross_entropy", 2, yes)
    assert found.classes == (False, True)
    np.testing.assert_array_equal(found.targets["train"], yes)
    assert meaning("softmax_cross_entropy", 2, yes[:, None]).classes == (False, True)
    for labels, classes in ((yes, (False, True)), (np.where(yes, "spam", "ham"), ("ham", "spam"))):
        found = meaning("sigmoid_cross_entropy", 1, labels)
        assert found.classes == classes
        np.testing.assert_array_equal(found.targets["train"], yes[:, None].astype(F32))
    found = meaning("mse", 1, yes)
    assert found.classes is None
    np.testing.assert_array_equal(found.targets["train"], yes[:, None].astype(F32))


def test_whole_numbers_are_values_to_a_loss_on_values() -> None:
    whole = np.array([-7, 0, 3, 2**40, -1, 5])
    as_floats = meaning("mse", 1, whole.astype(float)).targets["train"]
    np.testing.assert_array_equal(meaning("mse", 1, whole).targets["train"], as_floats)
    huge = np.full(6, 2**64 - 1, np.uint64)
    np.testing.assert_array_equal(meaning("mse", 1, huge).targets["train"], np.full((6, 1), 2.0**64, F32))


def test_a_class_that_only_another_split_has() -> None:
    """It counts where an output is left for it."""
    found = meaning("nll", 3, ["a", "b"] * 3, validation=["a", "b", "c"] * 2)
    assert found.classes == ("a", "b", "c")
    assert found.targets["validation"].tolist() == [0, 1, 2] * 2
    found = meaning("nll", 3, [1, 2] * 3, test=[1, 2, 3] * 2)
    assert found.classes == (1, 2, 3)
    assert meaning("nll", 3, [0, 1] * 3, test=[0, 1, 2] * 2).classes is None


@pytest.mark.parametrize(
    ("loss", "outputs", "train", "others", "text"),
    [
        (
            "nll", 2, ["a", "b"] * 3, {"validation": ["a", "b", "c"] * 2},
            "the targets of the validation arrays: row 2: c is a class that the model does not have; it"
            " has a, b",
        ),
        (
            "nll", 2, ["<=50K", ">50K"] * 3, {"test": ["<=50K.", ">50K.", "c"] * 2},
            "the targets of the test arrays: row 0: <=50K. is a class that the model does not have; it has"
            " <=50K, >50K; where it means one of these, say so of its table: replace: {'<=50K.': '<=50K',"
            " '>50K.': '>50K'}",
        ),
        (
            "nll", 3, [0, 1, 2] * 2, {"test": [0, 1, 2, 3, 0, 0]},
            "the targets of the test arrays: row 3: label 3, but the 3 outputs of the last layer allow 0"
            " to 2; give it 4 units, or mend the labels",
        ),
        (
            "nll", 3, [0, 1, 2] * 2, {"test": [0, -1, 2, 2, 0, 0]},
            "the targets of the test arrays: row 1: label -1, but the 3 outputs of the last layer allow 0"
            " to 2",
        ),
        (
            "nll", 2, [0, 1] * 3, {"validation": ["0", "1"] * 3},
            "the labels of the validation set are text, but those of the training set are whole numbers; give"
            " labels of one kind",
        ),
        (
            "nll", 2, [0, 1, 0.5, 1, 0, 0], {},
            "row 2: 0.5 is not a label; labels are whole numbers, text or booleans. For values, use a"
            " loss such",
        ),
        ("mse", 1, WORDS, {}, "mse takes numbers, but the targets are text ('cat'); for classes use a loss"),
        (
            "sigmoid_cross_entropy", 1, WORDS, {},
            "sigmoid_cross_entropy with one output tells two classes apart, but the labels are of 3 classes:"
            " ant, cat, dog; use 'softmax_cross_entropy' and give the last layer 3 units",
        ),
        ("nll", 2, None, {}, "the train arrays: the data has no targets, which training and evaluation need"),
        (
            "mse", 1, np.zeros(6), {"test": np.zeros((6, 2))},
            "the targets of the test arrays: 2 target columns, but the last layer has 1 output; give it"
            " 2 units",
        ),
        (
            "sigmoid_cross_entropy", 1, np.zeros(6), {"validation": [0, 1, 1, -2, 3, 0]},
            "the targets of the validation arrays: row 3, column 0: sigmoid_cross_entropy takes targets from"
            " 0 to 1, but this one is -2; rescale the targets; for labels -1 and 1 give (y + 1) / 2",
        ),
        (
            "binary_cross_entropy", 2, np.zeros((6, 2)), {"test": [[0, 1]] * 5 + [[0, 1.5]]},
            "the targets of the test arrays: row 5, column 1: binary_cross_entropy takes targets from 0 to 1",
        ),
        (
            "poisson", 1, [0, 1, 2, 3, -2, 9], {},
            "row 4, column 0: poisson takes targets of 0 or more, but this one is -2; rescale the targets",
        ),
    ],
)  # fmt: skip
def test_targets_that_do_not_fit(loss: str, outputs: int, train: Any, others: Any, text: str) -> None:
    with pytest.raises(DataError) as caught:
        meaning(loss, outputs, train, **others)
    assert text in str(caught.value)


def test_text_that_is_not_unicode() -> None:
    broken = np.frombuffer(b"\xff\xff\xff\x7f" * 6, "<U1")
    with pytest.raises(DataError, match="the labels hold text that is not Unicode; write them again as text"):
        meaning("nll", 2, broken)
    with pytest.raises(DataError, match="the labels hold text that is not Unicode"):
        meaning("nll", 2, ["\ud800", "a"] * 3)


@pytest.mark.parametrize(
    ("loss", "outputs", "train", "facts"),
    [
        ("nll", 3, [0, 1, 1, 0, 1, 1], Targets("labels", classes=2)),
        ("nll", 3, WORDS, Targets("labels", classes=3, names=("ant", "cat", "dog"))),
        ("nll", 2, [-1, 0, 7, 7, 7, 0], Targets("labels", classes=3, labels="3 classes: -1, 0, 7")),
        ("nll", 2, [5, 5, 5, 5, 5, 5], Targets("labels", classes=1, labels="1 class: 5")),
        ("nll", 3, [True, False] * 3, Targets("labels", classes=2, labels="2 classes: false, true")),
        ("nll", 3, np.zeros((6, 3)), Targets("values", columns=3)),
        ("mse", 2, WORDS, Targets("values", columns=3)),
        ("mse", 2, np.zeros((6, 3)), Targets("values", columns=3)),
        ("mse", 1, np.zeros(6), Targets("values", columns=1)),
    ],
)
def test_facts_for_the_checks_of_a_job(loss: str, outputs: int, train: Any, facts: Targets) -> None:
    assert meaning(loss, outputs, train).facts == facts


def test_many_classes_are_shown_in_few_words() -> None:
    assert shown(tuple(range(100))) == "0, 1, 2, 3, 4, 5, ..., 99"
    assert shown((False, "x" * 50)) == f"false, {'x' * 37}..."


def test_the_row_is_the_row_in_the_file() -> None:
    table = from_arrays(X, [0, 1, 2, 3, 0, 0]).slice(2, 6)
    with pytest.raises(DataError, match="the targets of the arrays: row 3: label 3, but the 3 outputs"):
        as_taken(table, SOFTMAX, 3, F32, None)


def test_values_that_fit_are_not_copied() -> None:
    targets = np.random.default_rng(0).normal(size=(6, 2))
    table = from_arrays(X, targets)
    assert np.shares_memory(as_taken(table, LOSSES["mse"](), 2, np.dtype(np.float64), None), targets)


def test_missing_labels_are_bad_rows() -> None:
    labels = np.array(["a", None, "b", float("nan"), "a", "b"], dtype=object)
    with pytest.raises(DataError, match=r"row 1 of the targets is missing. 2 of 6 rows are bad; mend them"):
        from_arrays(X, labels)
    assert from_arrays(X, labels, bad_rows="skip").targets.tolist() == ["a", "b", "a", "b"]
    numbers = np.array([3, None, 4, 3, Decimal(4), 3], dtype=object)
    assert from_arrays(X, numbers, bad_rows="skip").targets.tolist() == [[3], [4], [3], [4], [3]]


# Frames -----------------------------------------------------------------------------------------------------


class Frame:
    """What distbp asks of a frame."""

    def __init__(self, **columns: Any) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        found = np.column_stack([np.asarray(c, dtype=object) for c in self._columns.values()])
        kinds = {np.asarray(c).dtype.kind for c in self._columns.values()}
        return found.astype(float) if kinds <= set("if") else found


def test_a_frame_keeps_its_names() -> None:
    table = from_arrays(Frame(age=[1, 2], pay=[0.5, 0.25]))
    assert table.columns == ("age", "pay")
    assert table.inputs.tolist() == [[1, 0.5], [2, 0.25]]
    mixed = from_arrays(Frame(age=[1, 2], old=[True, False], pay=np.array([1, Decimal(2)], dtype=object)))
    assert mixed.inputs.tolist() == [[1, 1, 1], [2, 0, 2]]
    with pytest.raises(DataError, match=r"column 'who' hold text; give numbers; or keep .*data=frame"):
        from_arrays(Frame(age=[1, 2], who=["a", "b"]))
    with pytest.raises(DataError, match="row 1, column 1 of the inputs is NaN"):
        from_arrays(Frame(age=[1, 2], pay=np.array([True, None], dtype=object)))
    assert columns_of(X, "x") is None


def test_columns_are_found_by_name() -> None:
    x = np.array([[1, 2, 3]])
    assert arranged(x, ("c", "a", "b"), ("a", "b", "c"), "f").tolist() == [[2, 3, 1]]
    assert arranged(x, None, ("a", "b", "c"), "f") is x
    assert arranged(x, ("a", "b", "c"), None, "f") is x
    for columns, what in (
        (("a", "b"), "has no column 'c'; training had the columns 'a', 'b', 'c'. Give these, in any order"),
        (("a", "b", "z"), "has no column 'c' and has a column 'z'; training"),
        (("a", "b", "c", "z"), "has a column 'z'; training"),
    ):
        with pytest.raises(DataError) as caught:
            arranged(x, columns, ("a", "b", "c"), "the frame")
        assert f"the frame {what}" in str(caught.value)


def test_a_name_that_two_columns_have() -> None:
    frame = Frame(a=[1], b=[2])
    frame.columns = ["a", "a"]
    with pytest.raises(DataError, match="the arrays: two columns are named 'a'; give each a name of its own"):
        from_arrays(frame)


def test_what_pandas_gives() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {"a": pd.array([1, 2, 3], dtype="Int64"), "b": [0.5, 1, 2], "c": [True, False, True]}
    )
    table = from_arrays(frame, pd.Series(["x", "y", "x"], dtype="category"))
    assert table.columns == ("a", "b", "c")
    assert table.inputs.tolist() == [[1, 0.5, 1], [2, 1, 0], [3, 2, 1]]
    for series, wanted in (
        (pd.Series(["x", "y", "x"], dtype="category"), ["x", "y", "x"]),
        (pd.Categorical(["x", "y", "x"]), ["x", "y", "x"]),
        (pd.Series(["x", "y", "x"], dtype="string"), ["x", "y", "x"]),
        (pd.Series(["x", "y", "x"]), ["x", "y", "x"]),
        (pd.Series([3, 1, 3], dtype="category"), [3, 1, 3]),
        (pd.Series([3, 1, 3], dtype="Int64"), [3, 1, 3]),
        (pd.Series([True, False, True], dtype="boolean"), [True, False, True]),
        (pd.DataFrame({"y": ["x", "y", "x"]}), ["x", "y", "x"]),
    ):
        assert from_arrays(frame, series).targets.tolist() == wanted
    gaps = pd.Series(["x", None, "y"], dtype="category")
    assert from_arrays(frame, gaps, bad_rows="skip").targets.tolist() == ["x", "y"]
    gaps = pd.Series([3, None, 1], dtype="Int64")
    assert from_arrays(frame, gaps, bad_rows="skip").targets.tolist() == [[3], [1]]
    assert from_arrays(frame, weights=pd.array([1, 2, 3], dtype="Int64")).weights.tolist() == [1, 2, 3]
    intervals = pd.cut(pd.Series([1, 2, 3]), 2)
    with pytest.raises(DataError, match="targets hold Interval; give numbers, booleans or text, all of one"):
        from_arrays(frame, intervals)


@pytest.mark.parametrize("prepared", [{"scale": 4}, {"standardize": True}], ids=str)
def test_targets_that_are_the_inputs(prepared: Any) -> None:
    """Of every split, as the first layer takes them; targets in the data are left alone."""
    draw = np.random.default_rng(0)
    train, test = (draw.integers(0, 200, (rows, 2, 3)) for rows in (7, 4))
    model = {"layers": ["flatten", {"type": "dense", "units": 6}]}
    job = TrainingJob(data={"targets": "inputs", **prepared}, model=model, loss="mse")
    splits = open_splits(job, Path(), {"train": (train, None), "test": (test, np.arange(4))})
    for name, rows in splits.prepare(job).items():
        inputs = np.empty((len(rows), 2, 3), np.float32)
        rows.gather(np.arange(len(rows)), inputs)
        np.testing.assert_array_equal(splits.meaning.targets[name], inputs.reshape(len(rows), 6))
    assert splits.meaning.facts == Targets("values", columns=6)
