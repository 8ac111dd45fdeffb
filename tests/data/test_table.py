from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from distbp.core.errors import DataError
from distbp.data.checks import Allowed, check_rows
from distbp.data.digest import PART_BYTES, PARTS, array_digest, table_digests, table_record
from distbp.data.formats import Npy, from_arrays, load
from distbp.data.preprocessing import Preprocessing, fit
from distbp.data.table import chunks

X = np.arange(12, dtype=np.float32).reshape(6, 2)


def test_digest_is_that_of_the_bytes():
    table = from_arrays(X, np.arange(6))
    part = hashlib.sha256(X.astype("<f4").tobytes()).digest()
    assert table_digests(table) == {
        "inputs": hashlib.sha256(b"<f4 (6, 2);" + part).hexdigest(),
        "targets": array_digest(np.arange(6).astype(">i8").astype("<i8")),
        "weights": None,
    }


def test_digest_of_many_parts_sees_every_value():
    """Whatever the storage; with several threads."""
    rows = np.random.default_rng(0).normal(size=(3 * PART_BYTES // 64 + 5, 8))
    digest = array_digest(rows)
    stored = {array_digest(rows.astype(">f8")), array_digest(np.asfortranarray(rows))}
    assert stored == {digest}
    for row in (0, PART_BYTES // 64, len(rows) - 1):
        other = rows.copy()
        other[row, 3] = np.nextafter(other[row, 3], 9)
        assert array_digest(other) != digest
    assert array_digest(rows[:-1]) != digest != array_digest(rows.reshape(-1, 4))


def test_a_record_is_believed_while_the_files_are_the_same(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", np.arange(6))
    source = Npy(inputs="x.npy", targets="y.npy")
    fresh = table_record(load(source, tmp_path))
    assert fresh["marks"] == []  # written just now: a change within the same tick would not show
    monkeypatch.setattr("distbp.data.digest._SETTLED_NS", -1)
    record = json.loads(json.dumps(table_record(load(source, tmp_path))))
    assert len(record["marks"]) == 2
    assert {part: record[part] for part in PARTS} == {part: fresh[part] for part in PARTS}
    monkeypatch.setattr("distbp.data.digest.array_digest", lambda array: "computed")
    assert table_record(load(source, tmp_path), record) == record
    before = (tmp_path / "y.npy").stat()
    np.save(tmp_path / "y.npy", np.arange(6)[::-1])
    os.utime(tmp_path / "y.npy", ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had happened
    assert table_record(load(source, tmp_path), record)["targets"] == "computed"


def test_digest_sees_every_part():
    digests = {
        tuple(table_digests(from_arrays(*arguments)).values())
        for arguments in [
            (X,),
            (X.astype(np.float64),),
            (X.reshape(6, 2, 1),),
            (X, np.zeros(6, int)),
            (X, np.zeros(6)),
            (X, np.zeros(6, int), np.ones(6)),
            (X[::-1],),
        ]
    }
    assert len(digests) == 7


def test_slices_are_views_with_the_rows_of_the_file():
    table = from_arrays(X, np.arange(6), np.ones(6))
    part = table.slice(2, 6).slice(1, 3)
    assert np.shares_memory(part.inputs, X)
    assert part.targets.tolist() == [3, 4]
    assert [part.row_number(i) for i in range(len(part))] == [3, 4]
    with pytest.raises(DataError, match=r"the arrays: rows \[5, 7\] go past the end; the data has 6 rows"):
        table.slice(5, 7)


def test_bad_rows_are_skipped_and_the_others_keep_their_numbers():
    inputs = X.copy()
    inputs[1, 0] = np.nan
    labels = np.array(["a", "b", "c", "", "e", "f"])
    weights = np.array([1, 1, 1, 1, np.inf, 0.5])
    table = from_arrays(inputs, labels, weights, bad_rows="skip")
    assert table.targets.tolist() == list("acf")
    assert table.weights.tolist() == [1, 1, 0.5]
    np.testing.assert_array_equal(table.inputs, X[[0, 2, 5]])
    assert [table.row_number(i) for i in range(3)] == [0, 2, 5]
    assert table.slice(1, 3).row_number(1) == 5
    again = check_rows(table, "skip")
    assert again is table


def test_skipped_rows_of_a_large_file_are_mapped(tmp_path, monkeypatch):
    inputs = np.random.default_rng(0).normal(size=(5000, 100))
    bad = [0, 17, 4999]
    inputs[bad, 3] = np.nan
    np.save(tmp_path / "x.npy", inputs)
    source = Npy(inputs="x.npy", rows=(10, 5000))
    in_memory = load(source, tmp_path, bad_rows="skip")
    monkeypatch.setenv("DISTBP_PREPARE_BYTES", "1MiB")
    mapped = load(source, tmp_path, bad_rows="skip")
    assert isinstance(mapped.inputs, np.memmap)
    whole = from_arrays(np.delete(inputs, bad, 0)[9:])
    assert table_digests(mapped) == table_digests(in_memory) == table_digests(whole)
    assert mapped.row_number(7) == 18
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_the_row_is_the_row_in_the_file(tmp_path):
    inputs = np.ones((9, 2))
    inputs[7, 1] = np.nan
    np.save(tmp_path / "x.npy", inputs)
    with pytest.raises(DataError, match=r"x.npy: row 7, column 1 of the inputs is NaN. 1 of 4 rows are bad"):
        load(Npy(inputs="x.npy", rows=(5, 9)), tmp_path)
    assert len(load(Npy(inputs="x.npy", rows=(0, 7)), tmp_path)) == 7


def test_rows_that_are_left_out_are_counted_by_the_first_reason():
    inputs, targets = np.ones((7, 2)), np.zeros((7, 1))
    inputs[1, 1], inputs[2, 0], inputs[2, 1], inputs[3, 0] = np.nan, np.inf, np.nan, -1e39
    targets[1], targets[4] = np.nan, np.nan  # row 1 counts once
    weights = np.array([1, 1, 1, 1, 1, -1, 1.0])
    table = from_arrays(
        inputs, targets, weights, bad_rows="skip", allowed=Allowed(np.dtype(np.float32), split="validation")
    )
    assert dict(table.skipped) == {
        "NaN in the inputs": 1,
        "Inf in the inputs": 1,
        "too large inputs": 1,
        "NaN in the targets": 1,
        "weights below 0": 1,
    }
    assert [table.row_number(i) for i in range(len(table))] == [0, 6]


X39, SINGLE = np.where(np.eye(4, 3) > 0, 1e39, 1.0), np.dtype(np.float32)


@pytest.mark.parametrize(
    ("arguments", "allowed", "text"),
    [
        (
            (X39, np.zeros(4)),
            Allowed(SINGLE, split="validation"),
            "row 0, column 0 of the validation inputs is 1e+39. 3 of 4 rows are bad; mend them, or set"
            " bad_rows: skip. A float32 job takes numbers from -3.4e+38 to 3.4e+38",
        ),
        (
            (np.ones((4, 1)), X39),
            Allowed(SINGLE, split="test"),
            "row 0, column 0 of the test targets is 1e+39.",
        ),
        ((np.ones((4, 1)), np.zeros(4), X39[:, 2]), Allowed(SINGLE), "row 2 of the weights is 1e+39."),
        (
            (np.array([[1], [2]]),),
            Allowed(SINGLE, Preprocessing(scale=4e-39)),
            "row 1, column 0 of the inputs is 2. 1 of 2 rows are bad.*once they are preprocessed",
        ),
        (
            (np.array([[1.0], [2e300]]),),
            Allowed(SINGLE, Preprocessing(1.0, np.zeros(1), np.ones(1))),
            "row 1, column 0 of the inputs is 2e.300.*once they are preprocessed",
        ),
    ],
)
def test_numbers_that_the_job_cannot_hold_are_refused(arguments, allowed, text):
    with pytest.raises(DataError, match=text.replace("+", ".")):
        from_arrays(*arguments, allowed=allowed)
    if "once" not in text:
        assert not from_arrays(*arguments).skipped  # a float64 job can
    else:
        scaled = [np.asarray(a) * 1e-300 for a in arguments]
        assert len(from_arrays(*scaled, allowed=allowed)) == len(scaled[0])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            (np.full((2, 2), np.nan),),
            "row 0, column 0 of the inputs is NaN. All 2 rows are bad, so none is left",
        ),
        (
            (X, np.zeros(6), np.array([0, 0, 0, 0, 0, np.nan])),
            "all weights are 0, so nothing can be learned",
        ),
    ],
)
def test_skipping_must_leave_something(arguments, text):
    with pytest.raises(DataError, match=text):
        from_arrays(*arguments, bad_rows="skip")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            (np.array([[1, None]]),),
            "values of type object cannot be trained on; .* .convert it to numbers first; objects are"
            " never read from files.",
        ),
        (
            ([["a", "b"]],),
            "the arrays: values of type <U1 cannot be trained on; .* .convert it to numbers first.",
        ),
        ((X.astype(np.longdouble),), "values of type float128 cannot be trained on"),
        ((X[:, 0],), r"the arrays: the inputs have shape \(6,\), but must be \(rows, features\)"),
        ((np.float32(3),), r"the inputs have shape \(\), but must be"),
        ((X[:0],), r"the inputs have shape \(0, 2\), which holds no data; give at least one row"),
        ((X[:, :0],), r"shape \(6, 0\), which holds no data; give at least one number for each row"),
        (
            (X, np.zeros(5)),
            "the targets of the arrays: 5 targets for the 6 rows of inputs in the arrays; give one",
        ),
        (
            (X, [[1, 2], [1]] * 3),
            "give rows of equal length, or set data.truncated_bptt_steps, where each step of a row has a",
        ),
        ((X, 3), "the targets of the arrays: no targets for the 6 rows of inputs"),
        ((X, np.zeros((6, 0))), r"targets of shape \(6, 0\) hold no data; give at least one column"),
        ((X, np.array([list("ab")] * 6)), r"text of shape \(6, 2\); give one label for each row, shape"),
        (
            (X, ["a", "b", "", "a", "b", "a"]),
            "the targets of the arrays: row 2 of the targets is missing. 1 of",
        ),
        ((X, [b"\xff"] * 6), "the labels are bytes that are not UTF-8; write them as text"),
        (
            (X, np.array(["a", 1, "b", 2, "a", "b"], dtype=object)),
            "targets hold number and text; give numbers,",
        ),
        ((X, [{}] * 6), "the arrays: targets hold dict; give numbers, booleans or text, all of one kind"),
        (
            (X, np.zeros(6), list("abcdef")),
            "the weights of the arrays: values of type <U1 cannot be trained on",
        ),
        ((X, np.zeros(6), np.ones(5)), "the weights of the arrays: 5 weights for the 6 rows"),
        (
            (np.ma.masked_equal(X, 3),),
            "inputs are a masked array; give a plain one, with values for the masked",
        ),
    ],
)
def test_bad_arrays(arguments, text):
    with pytest.raises(DataError, match=text):
        from_arrays(*arguments)


def test_a_sparse_matrix_is_refused():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(DataError, match=r"inputs are a sparse matrix; give a dense one: inputs\.toarray\(\)"):
        from_arrays(sparse.csr_array(X))


def test_arrays_are_not_copied_and_lists_are_fine():
    assert np.shares_memory(from_arrays(X).inputs, X)
    table = from_arrays([[1, 2], [3, 4]], [True, False])
    assert table.targets.tolist() == [1, 0]
    assert from_arrays([[True, False]]).inputs.dtype == np.uint8


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="utf-8").split()
    return int(fields[1]) * 4096


def test_streaming_a_large_file_needs_little_memory(tmp_path):
    """Checks, digest and statistics of 96 MiB: neither the heap nor the resident pages grow with it."""
    rows, width = 48 * 1024, 512
    large = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (rows, width))
    large[:: rows // 16] = 1
    large.flush()
    del large
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc to read the resident size from")
    before = resident_bytes()
    most = before
    tracemalloc.start()
    try:
        table = load(Npy(inputs="x.npy"), tmp_path)
        for _, _ in chunks(table.inputs):
            most = max(most, resident_bytes())
        table_digests(table)
        fit(table, standardize=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20
    assert max(most, resident_bytes()) - before < 32 * 2**20


def test_chunks_of_private_memory_are_left_alone():
    """Giving pages back is right for files only: other mappings would lose what they hold."""
    import mmap

    array = np.frombuffer(mmap.mmap(-1, 4096), dtype=np.uint8).reshape(64, 64)
    array[:] = 7
    assert all((chunk == 7).all() for _, chunk in chunks(array))
    assert (array == 7).all()


def test_changes_of_a_writable_map_are_left_alone(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    mapped[:] = 7
    table_digests(from_arrays(mapped))
    assert (mapped == 7).all()
