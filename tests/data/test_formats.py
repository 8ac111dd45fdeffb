"""Every format: what is written comes back, for random arrays and for MNIST itself."""

from __future__ import annotations

import gzip
import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import pytest
from data_files import IDX_CODES, idx_bytes, write_idx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distbp.core.errors import DataError
from distbp.data.digest import table_digests
from distbp.data.formats import (
    FORMATS,
    Arrays,
    Blobs,
    Digits,
    Idx,
    Moons,
    Npy,
    Npz,
    Spirals,
    Teacher,
    from_arrays,
    load,
)

DTYPES = ["u1", "i1", "<i2", ">i4", "<i8", "<u2", "<f2", "<f4", ">f4", "<f8", ">f8", "?"]
SYNTHETIC = [
    Blobs(samples=6000, features=5, classes=4, seed=3),
    Moons(samples=6000, seed=3),
    Spirals(samples=6000, classes=3, seed=3),
    Teacher(samples=6000, features=6, outputs=2, noise=0.1, seed=3),
    Teacher(samples=6000, features=6, outputs=3, task="classification", seed=3),
]


@st.composite
def data(draw, dtypes):
    """(inputs, targets, weights or None, rows or None)"""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=4, max_side=6))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    inputs = draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, **finite)))
    labels = hnp.arrays(np.uint8, shape[0])
    values = hnp.arrays(np.float64, (shape[0], 2), elements=st.floats(-1e9, 1e9))
    targets = draw(st.one_of(labels, values))
    weights = draw(st.none() | hnp.arrays(np.float64, shape[0], elements=st.floats(0.5, 2)))
    start = draw(st.integers(0, shape[0] - 1))
    rows = draw(st.none() | st.tuples(st.just(start), st.integers(start + 1, shape[0])))
    return inputs, targets, weights, rows


def expect(table, inputs, targets, weights, rows):
    start, stop = rows or (0, len(inputs))
    want = from_arrays(
        inputs[start:stop],
        None if targets is None else targets[start:stop],
        None if weights is None else weights[start:stop],
    )
    assert len(table) == stop - start
    assert table.features == inputs.shape[1:]
    assert table.row_number(0) == start
    np.testing.assert_array_equal(table.inputs, inputs[start:stop])
    assert table_digests(table) == table_digests(want)
    if targets is not None:
        np.testing.assert_array_equal(table.targets, targets[start:stop])
        assert table.targets.dtype == (np.intp if targets.ndim == 1 else np.float64)
    else:
        assert table.targets is None
    if weights is not None:
        np.testing.assert_array_equal(table.weights, weights[start:stop])


@given(data(DTYPES), st.booleans())
def test_npy_round_trip(case, fortran):
    inputs, targets, weights, rows = case
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "x.npy", np.asarray(inputs, order="F" if fortran else "C"))
        np.save(folder / "y.npy", targets)
        if weights is not None:
            np.save(folder / "w.npy", weights)
        source = Npy(
            inputs="x.npy", targets="y.npy", weights="w.npy" if weights is not None else None, rows=rows
        )
        table = load(source, folder)
        assert isinstance(table.inputs, np.memmap) or inputs.dtype.kind == "b"
        expect(table, inputs, targets, weights, rows)


@given(data(DTYPES), st.booleans(), st.booleans())
def test_npz_round_trip(case, fortran, compressed):
    inputs, targets, weights, rows = case
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arrays = {"inputs": np.asarray(inputs, order="F" if fortran else "C"), "targets": targets}
        if weights is not None:
            arrays["w"] = weights
        (np.savez_compressed if compressed else np.savez)(folder / "d.npz", **arrays)
        source = Npz(path="d.npz", weights="w" if weights is not None else None, rows=rows)
        expect(load(source, folder, confined=True), inputs, targets, weights, rows)


@given(data([f"<{name}" for name in IDX_CODES]), st.booleans(), st.booleans())
def test_idx_round_trip(case, packed, labelled):
    inputs, _, _, rows = case
    labels = np.arange(len(inputs), dtype=np.uint8) if labelled else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images_name, labels_name = ("x.gz", "y.gz") if packed else ("x", "y")
        write_idx(folder / images_name, inputs)
        if labelled:
            write_idx(folder / labels_name, labels)
        source = Idx(images=images_name, labels=labels_name if labelled else None, rows=rows)
        expect(load(source, folder), inputs, labels, None, rows)


def test_gzip_of_several_members(tmp_path):
    """As bgzip and pigz write them: members one after the other, also empty ones."""
    array = np.arange(600, dtype=np.uint8).reshape(200, 3)
    data = idx_bytes(array)
    parts = [data[:7], b"", data[7:100], data[100:], b""]
    (tmp_path / "x.gz").write_bytes(b"".join(gzip.compress(part) for part in parts))
    np.testing.assert_array_equal(load(Idx(images="x.gz"), tmp_path).inputs, array)


def test_npy_versions_2_and_3(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    for version in ((2, 0), (3, 0)):
        with (tmp_path / "x.npy").open("wb") as file:
            np.lib.format.write_array(file, array, version=version)
        np.testing.assert_array_equal(load(Npy(inputs="x.npy"), tmp_path).inputs, array)


def test_mnist(test_data):
    """The published files (GOLDEN.md, section 5): shapes, label counts, mean of the training bytes."""
    folder = test_data / "data" / "mnist"
    train = load(Idx(images="train-images-idx3-ubyte.gz", labels="train-labels-idx1-ubyte.gz"), folder)
    test = load(Idx(images="t10k-images-idx3-ubyte.gz", labels="t10k-labels-idx1-ubyte.gz"), folder)
    assert train.inputs.shape == (60000, 28, 28)
    assert test.inputs.shape == (10000, 28, 28)
    assert train.inputs.dtype == np.uint8
    assert train.targets.dtype == np.intp
    assert train.inputs.mean() == pytest.approx(33.318421, abs=5e-7)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(train.targets).tolist() == counts
    assert np.bincount(test.targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    rows = Idx(images="train-images-idx3-ubyte.gz", labels="train-labels-idx1-ubyte.gz", rows=(50000, 50100))
    some = load(rows, folder)
    assert table_digests(some) == table_digests(train.slice(50000, 50100))
    assert some.row_number(7) == 50007


def test_digits_splits_part_the_images_and_mix_the_classes():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    parts = [Digits(split=split).open(Path()) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [1257, 270, 270]
    numbers = np.concatenate([part.row_numbers for part in parts])
    assert sorted(numbers) == list(range(1797))
    np.testing.assert_array_equal(Digits().open(Path()).row_numbers, numbers)
    for part in parts:
        np.testing.assert_array_equal(part.inputs, pixels[part.row_numbers])
        np.testing.assert_array_equal(part.targets, labels[part.row_numbers])
        share = np.bincount(part.targets, minlength=10) / len(part)
        assert 0.05 < share.min() < share.max() < 0.16
    assert parts[2].inputs.dtype == np.uint8
    some = Digits(split="test", rows=(10, 20)).open(Path())
    assert table_digests(some) == table_digests(parts[2].slice(10, 20))
    assert some.row_number(0) == parts[2].row_number(10)


def test_the_shuffle_of_the_digits_never_changes():
    assert Digits().open(Path()).row_numbers[:5].tolist() == [834, 1042, 475, 1512, 1163]


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = (
        r"^the format digits needs scikit-learn, which is not installed; run: pip install 'distbp\[digits\]'$"
    )
    with pytest.raises(DataError, match=message):
        Digits().open(Path())


@pytest.mark.parametrize("source", SYNTHETIC, ids=lambda s: f"{s.type}-{getattr(s, 'task', '')}")
def test_synthetic_rows_depend_on_options_and_seed_alone(source):
    kind = type(source)
    options = {name: getattr(source, name) for name in source.__dataclass_fields__}
    table = load(source, Path())
    assert len(table) == 6000
    assert table.inputs.dtype == np.float32
    assert table_digests(table) == table_digests(load(source, Path()))
    more = load(kind(**options | {"samples": 9000}), Path())
    assert table_digests(more.slice(0, 6000)) == table_digests(table)
    part = load(kind(**options | {"rows": (4000, 4200)}), Path())
    assert table_digests(part) == table_digests(table.slice(4000, 4200))
    assert part.row_number(1) == 4001
    other = load(kind(**options | {"seed": 4}), Path())
    assert table_digests(other) != table_digests(table)
    # Blocks do not repeat each other.
    assert not np.array_equal(table.inputs[:1000], table.inputs[4096:5096])


def test_blobs_lie_around_their_centers():
    table = Blobs(samples=4000, features=3, classes=3, noise=0.5, seed=1).open(Path())
    for label in range(3):
        cloud = table.inputs[table.targets == label]
        assert 1200 < len(cloud) < 1470
        assert cloud.std(axis=0) == pytest.approx([0.5] * 3, rel=0.08)


def test_moons_without_noise_are_half_circles():
    table = Moons(samples=500, noise=0).open(Path())
    x, y = table.inputs.T
    upper = table.targets == 0
    assert np.hypot(x[upper], y[upper]) == pytest.approx(1, abs=1e-6)
    assert (y[upper] > -1e-6).all()
    assert np.hypot(x[~upper] - 1, y[~upper] - 0.5) == pytest.approx(1, abs=1e-6)
    assert (y[~upper] < 0.5 + 1e-6).all()


def test_spirals_without_noise_follow_their_arm():
    table = Spirals(samples=500, classes=3, turns=1.5, noise=0).open(Path())
    x, y = table.inputs.T.astype(float)
    radius = np.hypot(x, y)
    angle = 2 * np.pi * (1.5 * radius + table.targets / 3)
    assert x == pytest.approx(radius * np.cos(angle), abs=1e-5)
    assert y == pytest.approx(radius * np.sin(angle), abs=1e-5)


def test_teacher_tasks_agree():
    values = Teacher(samples=300, outputs=4).open(Path())
    labels = Teacher(samples=300, outputs=4, task="classification").open(Path())
    np.testing.assert_array_equal(values.inputs, labels.inputs)
    np.testing.assert_array_equal(values.targets.argmax(axis=1), labels.targets)
    assert len(set(labels.targets.tolist())) == 4
    assert (values.targets.shape, labels.targets.shape) == ((300, 4), (300,))


def test_arrays_are_given_and_not_opened():
    with pytest.raises(DataError, match="given as arrays in memory and is in no file; give the arrays again"):
        Arrays().open(Path())


def test_formats_is_read_only_and_every_source_names_itself():
    assert set(FORMATS) == {
        "arrays",
        "blobs",
        "digits",
        "idx",
        "images",
        "moons",
        "npy",
        "npz",
        "spirals",
        "table",
        "teacher",
    }
    assert all(kind.__dataclass_fields__["type"].default == name for name, kind in FORMATS.items())
    with pytest.raises(TypeError):
        FORMATS["csv"] = Npy
