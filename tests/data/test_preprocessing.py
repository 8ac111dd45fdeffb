from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distbp.core.errors import DataError
from distbp.data.formats import from_arrays
from distbp.data.preprocessing import Preprocessing, fit

RAW = ["u1", "i2", "<i8", "<f2", "<f4", ">f4", "<f8"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_are_divided_with_one_rounding(dtype):
    raw = np.arange(256, dtype=np.uint8).reshape(64, 4)
    out = np.empty(raw.shape, dtype)
    Preprocessing(scale=255.0).apply(raw, out)
    np.testing.assert_array_equal(out, raw.astype(dtype) / dtype(255))


def test_standardize_by_hand():
    """Column 0: 1, 2, 6 has mean 3 and variance (4 + 1 + 9) / 3 = 14/3. Column 1 is constant: std 1."""
    raw = np.array([[1.0, 7.0], [2.0, 7.0], [6.0, 7.0]])
    fitted = fit(from_arrays(raw), standardize=True)
    np.testing.assert_allclose(fitted.mean, [3, 7], rtol=1e-15)
    np.testing.assert_allclose(fitted.std, [np.sqrt(14 / 3), 1], rtol=1e-15)
    out = np.empty((3, 2))
    fitted.apply(raw, out)
    np.testing.assert_allclose(out[:, 0], np.array([-2, -1, 3]) / np.sqrt(14 / 3), rtol=1e-15)
    np.testing.assert_array_equal(out[:, 1], 0)


def test_constant_columns_are_exactly_zero_where_a_plain_mean_would_round():
    raw = np.full((1000, 2), 0.1)
    raw[:, 1] = 1e15
    fitted = fit(from_arrays(raw), standardize=True)
    out = np.empty(raw.shape)
    fitted.apply(raw, out)
    assert fitted.std.tolist() == [1, 1]
    assert not out.any()


def test_large_offsets_keep_their_digits():
    rng = np.random.default_rng(0)
    raw = 1.6e9 + rng.normal(size=(5000, 1))
    fitted = fit(from_arrays(raw), standardize=True)
    out = np.empty(raw.shape, np.float32)
    fitted.apply(raw, out)
    np.testing.assert_allclose(out, (raw - raw.mean()) / raw.std(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1e-50, 1e-200, 1e-306, 1e200, 8e306])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_of_any_size_become_what_they_are_at_size_one(size, dtype):
    raw = np.random.default_rng(0).normal(3, 2, size=(200, 3))
    want, found = np.empty(raw.shape, dtype), np.empty(raw.shape, dtype)
    fit(from_arrays(raw), standardize=True).apply(raw, want)
    scaled = raw * [size, 1, size]
    with np.errstate(all="raise"):
        fit(from_arrays(scaled), standardize=True).apply(scaled, found)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    assert found.std(axis=0) == pytest.approx([1, 1, 1])


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 40), st.integers(1, 4)),
        elements=st.integers(-(10**12), 10**12).map(lambda n: n / 1e6),
    )
)
def test_statistics_match_numpy(raw):
    fitted = fit(from_arrays(raw), standardize=True)
    size = np.abs(raw).max() + 1e-300
    np.testing.assert_allclose(fitted.mean, raw.mean(axis=0), rtol=1e-12, atol=1e-13 * size)
    spread = np.ptp(raw, axis=0) > 1e-9 * size
    np.testing.assert_allclose(fitted.std[spread], raw.std(axis=0)[spread], rtol=1e-6)
    assert (fitted.std > 0).all()


def test_statistics_of_many_chunks_and_of_any_storage_are_the_same_bits():
    rng = np.random.default_rng(1)
    raw = rng.normal(3, 5, size=(3000, 20, 30)).astype(np.float32)
    want = fit(from_arrays(raw), standardize=True)
    np.testing.assert_allclose(want.mean, raw.mean(axis=0, dtype=np.float64), rtol=1e-10)
    np.testing.assert_allclose(want.std, raw.std(axis=0, dtype=np.float64), rtol=1e-10)
    for other in (np.asfortranarray(raw), raw.astype(">f4"), raw.astype(np.float64)):
        got = fit(from_arrays(other), standardize=True)
        np.testing.assert_array_equal(got.mean, want.mean)
        np.testing.assert_array_equal(got.std, want.std)


@pytest.mark.parametrize("raw_dtype", RAW)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_bits_do_not_depend_on_chunks(raw_dtype, dtype, standardize, scale):
    rng = np.random.default_rng(2)
    raw = rng.integers(0, 100, (500, 7)).astype(raw_dtype)
    fitted = fit(from_arrays(raw), scale, standardize)
    whole = np.empty(raw.shape, dtype)
    fitted.apply(raw, whole)
    pieces = np.empty(raw.shape, dtype)
    for start, stop in ((0, 1), (1, 4), (4, 333), (333, 500)):
        fitted.apply(raw[start:stop], pieces[start:stop])
    assert whole.tobytes() == pieces.tobytes()
    order = rng.permutation(500)
    shuffled = np.empty(raw.shape, dtype)
    fitted.apply(raw[order], shuffled)
    assert shuffled.tobytes() == whole[order].tobytes()


def test_the_scale_cancels_when_standardizing():
    raw = np.array([[1.0, 7.0], [2.0, 7.0], [6.0, 7.0]])
    plain, scaled = np.empty((3, 2)), np.empty((3, 2))
    fit(from_arrays(raw), standardize=True).apply(raw, plain)
    fit(from_arrays(raw), scale=4, standardize=True).apply(raw, scaled)
    np.testing.assert_array_equal(plain, scaled)


@pytest.mark.parametrize("standardize", [False, True])
def test_json_and_pickle_keep_every_bit(standardize):
    raw = np.random.default_rng(3).normal(size=(50, 2, 3))
    fitted = fit(from_arrays(raw), 0.1, standardize)
    for again in (
        Preprocessing.from_json(json.loads(json.dumps(fitted.to_json()))),
        pickle.loads(pickle.dumps(fitted)),
    ):
        assert again.scale == 0.1
        a, b = np.empty(raw.shape), np.empty(raw.shape)
        fitted.apply(raw, a)
        again.apply(raw, b)
        assert a.tobytes() == b.tobytes()
    assert "mean" in fitted.to_json() or not standardize


def test_is_identity():
    plain = Preprocessing()
    assert plain.is_identity(np.float32)
    assert plain.is_identity(np.float64)
    assert not plain.is_identity(np.uint8)
    assert not plain.is_identity(">f4")
    assert not Preprocessing(scale=2.0).is_identity(np.float32)
    assert not fit(from_arrays(np.eye(3)), standardize=True).is_identity(np.float64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fit(from_arrays(np.eye(3)), scale=0), "scale is 0, but must be a number above 0"),
        (lambda: fit(from_arrays(np.eye(3)), scale=float("nan")), "scale is nan, but must be a number above"),
        (
            lambda: fit(from_arrays(np.array([[1.7e308], [-1.7e308]])), standardize=True),
            "the arrays: values are too large to standardize in float64; scale the data down",
        ),
        (lambda: Preprocessing.from_json({}), r"the model's preprocessing is damaged \('scale'\)"),
        (lambda: Preprocessing.from_json({"scale": -1}), "scale is -1.0, but must be a number above 0"),
        (
            lambda: Preprocessing.from_json({"scale": 1, "mean": [1, 2], "std": [1, 1], "features": [3]}),
            "the model's preprocessing is damaged .*save the model again",
        ),
        (
            lambda: Preprocessing.from_json({"scale": 1, "mean": [1], "std": [0], "features": [1]}),
            "preprocessing is damaged .a mean or std is not a number.; save it again",
        ),
        (
            lambda: fit(from_arrays(np.eye(3)), standardize=True).check((4,), "x.npy"),
            r"x.npy: one row has the shape \(4,\), but the model was trained on \(3,\); give the"
            r" same columns",
        ),
    ],
)
def test_bad_preprocessing(make, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=message):
            make()
