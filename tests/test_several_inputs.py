"""Networks with several inputs from the data to predictions; their layers are in nn/test_named_inputs.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import distbp
from distbp import JobError, TrainingJob
from distbp.cli.main import group
from distbp.core.arrays import Array
from distbp.core.errors import DataError, ModelError
from distbp.data.batches import ShardReader
from distbp.data.formats import Npz, from_arrays, load
from distbp.data.named_inputs import fit_each
from distbp.model.given import rows_of_inputs
from distbp.nn.named_inputs import NamedInput, named_inputs
from distbp.run.blueprints import make_blueprint
from distbp.run.splits import open_splits

LAYERS: list[dict[str, Any]] = [
    {"type": "input", "name": "image", "shape": [1, 4, 4], "scale": 255},
    {"type": "input", "name": "facts", "shape": [3]},
    {"type": "input", "name": "words", "shape": [5]},
    {"type": "input", "name": "series", "shape": [7, 2], "ragged": True},
    {"type": "conv2d", "filters": 2, "kernel_size": 3, "activation": "tanh", "inputs": ["image"]},
    {"type": "flatten", "name": "seen"},
    {"type": "embedding", "entries": 9, "size": 3, "inputs": ["words"]},
    {"type": "average_steps", "name": "said"},
    {"type": "gru", "units": 4, "inputs": ["series"], "name": "heard"},
    {"type": "concatenate", "inputs": ["seen", "said", "heard", "facts"]},
    {"type": "dense", "units": 8, "activation": "tanh"},
    {"type": "dense", "units": 1},
]
NAMES = ["image", "facts", "words", "series"]


@pytest.fixture(autouse=True)
def _runs_lie_in_a_folder_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def job(**fields: Any) -> TrainingJob:
    usual: dict[str, Any] = {
        "model": {"layers": LAYERS},
        "data": {"standardize": True},
        "loss": "mse",
        "optimizer": {"type": "adam", "learning_rate": 0.01},
        "epochs": 4,
        "batch_size": 16,
        "shards": 2,
        "workers": 0,
    }
    return TrainingJob(**{**usual, **fields})


def given(rows: int = 60) -> tuple[dict[str, Any], Array]:
    draw = np.random.default_rng(0)
    x = {
        "series": [draw.normal(size=(draw.integers(0, 7), 2)) for _ in range(rows)],
        "image": draw.integers(0, 256, (rows, 1, 4, 4)).astype(np.uint8),
        "words": draw.integers(0, 9, (rows, 5)),
        "facts": draw.normal(50, 10, (rows, 3)),
    }
    y = x["facts"][:, 0] / 10 + (x["words"] == 3).sum(1) + np.array([s.sum() for s in x["series"]])
    return x, y - 5


def padded(x: dict[str, Any]) -> dict[str, Any]:
    lengths = np.array([len(row) for row in x["series"]])
    steps = np.full((len(lengths), 6, 2), np.nan)
    for row, own in zip(steps, x["series"], strict=True):
        row[: len(own)] = own
    return {**x, "series": {"inputs": steps, "lengths": lengths}}


def saved(path: Path, x: dict[str, Any], y: Array) -> dict[str, Any]:
    """An archive, and the source that a job has in it."""
    x = padded(x)
    series = x.pop("series")
    np.savez(path, **x, series=series["inputs"], series_lengths=series["lengths"], targets=y)
    inputs = {name: name for name in ("words", "series", "image", "facts")}  # in any order
    return {"format": "npz", "path": path.name, "inputs": inputs, "lengths": {"series": "series_lengths"}}


def test_every_way_to_give_them_trains_the_same_model(tmp_path: Path) -> None:
    x, y = given()
    source = saved(tmp_path / "data.npz", x, y)
    rows = load(Npz(**{k: v for k, v in source.items() if k != "format"}), tmp_path, named=named())
    assert rows.inputs.shape == (60, 16 + 3 + 5 + 15)
    found = [
        distbp.train(job(), data=(x, y)),
        distbp.train(job(), data=(padded(x), y)),
        distbp.train(job(), data=(rows.inputs, y)),
        distbp.train(job(data={"train": source, "standardize": True}), folder=tmp_path),
    ]
    assert len({result.params_sha256 for result in found}) == 1


def named() -> Any:
    return named_inputs(job().model.layers)


def test_each_input_is_scaled_by_itself(tmp_path: Path) -> None:
    x, y = given()
    source = saved(tmp_path / "data.npz", x, y)
    table = load(Npz(**{k: v for k, v in source.items() if k != "format"}), tmp_path, named=named())
    out = np.empty(table.inputs.shape)
    fit_each(table, named(), True).apply(table.inputs, out)
    image, facts, words, series, lengths = np.split(out, np.cumsum([16, 3, 5, 14]), axis=1)
    np.testing.assert_allclose(image, x["image"].reshape(60, -1) / 255)
    np.testing.assert_allclose(facts.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(facts.std(0), 1)
    np.testing.assert_array_equal(words, x["words"])
    own = np.concatenate(
        [steps[: int(n)] for steps, n in zip(series.reshape(60, 7, 2), lengths[:, 0], strict=True)]
    )
    np.testing.assert_allclose(own.mean(0), 0, atol=1e-12)  # of all steps that are not padding
    np.testing.assert_allclose(own.std(0), 1)
    np.testing.assert_array_equal(lengths[:, 0], [len(row) for row in x["series"]])


def test_a_model_takes_them_by_name_by_row_and_side_by_side(tmp_path: Path) -> None:
    x, y = given()
    result = distbp.train(job(), data={"train": (x, y), "test": (x, y)}, output=tmp_path / "run")
    model = distbp.load_model(tmp_path / "run" / "model")
    assert "0 input 'image'   1 x 4 x 4" in model.summary()
    predicted = model.predict(x)
    rows = [{name: x[name][i] for name in NAMES} for i in range(60)]
    as_json = json.loads(json.dumps(rows[:5], default=lambda array: array.tolist()))
    np.testing.assert_array_equal(model.predict(padded(x)), predicted)
    np.testing.assert_array_equal(model.predict(rows), predicted)
    np.testing.assert_allclose(model.predict(as_json), predicted[:5], rtol=1e-5)
    assert model.evaluate(x, y)["loss"] == result.metrics["test_loss"]


def test_the_command_line_takes_an_archive_with_their_names(tmp_path: Path) -> None:
    x, y = given()
    source = saved(tmp_path / "data.npz", x, y)
    mapping = job(data={"train": source, "test": source, "standardize": True}).to_yaml()
    (tmp_path / "job.yaml").write_text(mapping)
    run = CliRunner()
    assert run.invoke(group, ["train", "job.yaml", "--output", "run"]).exit_code == 0
    split, archive = (run.invoke(group, ["predict", "run", *words]) for words in ([], ["data.npz"]))
    assert split.exit_code == archive.exit_code == 0
    assert split.stdout == archive.stdout
    drawn = run.invoke(group, ["describe", "job.yaml"]).stdout
    assert "input 'image' (shape 1 x 4 x 4, scale 255)" in drawn
    assert "input 'series' (shape 7 x 2, ragged)" in drawn


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing": (
        {"facts": None},
        "has no input 'facts'; the network's inputs are 'image', 'facts', 'words', 'series'",
    ),
    "unknown": ({"fact": np.ones((60, 3))}, "has an input 'fact'; the network's inputs are"),
    "another shape": (
        {"image": np.ones((60, 4, 4))},
        "input 'image': has the shape (60, 4, 4), but the layer takes (rows, 1, 4, 4)",
    ),
    "too long": (
        {"series": np.ones((60, 8, 2))},
        "input 'series': has the shape (60, 8, 2), but the layer takes (rows, 7, 2), or fewer steps",
    ),
    "other rows": (
        {"facts": np.ones((59, 3))},
        "the inputs have different numbers of rows (60 of 'image', 59 of 'facts', 60 of 'words', 60 of"
        " 'series')",
    ),
    "no id": ({"words": np.full((60, 5), 9)}, "input 'words': row 0, column 0 of the inputs is 9"),
    "text": ({"facts": np.full((60, 3), "a")}, "input 'facts': values of type <U1 cannot be trained on"),
    "lengths": (
        {"facts": [np.ones(2)] * 59 + [np.ones(3)]},
        "input 'facts': has rows of different lengths; give the layer ragged: true",
    ),
    "a single row": (
        {"image": np.ones((1, 4, 4))},
        "input 'image': has the shape (1, 4, 4), but the layer takes (rows, 1, 4, 4); put a single row into a"
        " list",
    ),
    "nothing": (
        {"facts": [[1, None, 2]] * 60},
        "input 'facts': holds values that are not all numbers of 64 bits (NoneType, int); give numbers",
    ),
    "a masked array": (
        {"facts": np.ma.masked_array(np.ones((60, 3)))},
        "input 'facts' are a masked array; give a plain one",
    ),
    "no number": (
        {"image": np.full((60, 1, 4, 4), np.nan)},
        "row 0, column (0, 0, 0) of the train input 'image' is NaN",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name: str) -> None:
    change, message = WRONG[name]
    x, y = given()
    x = {key: value for key, value in {**x, **change}.items() if value is not None}
    with pytest.raises(DataError) as caught:
        distbp.train(job(), data=(x, y))
    assert message in str(caught.value)


def test_a_frame_is_no_one_of_several_inputs() -> None:
    frame = pytest.importorskip("pandas", reason="pandas is not installed").DataFrame(np.ones((60, 3)))
    x, y = given()
    message = (
        r"input 'facts': is a frame, and columns of one of several inputs are not found by name; give an"
        r" array, as by to_numpy\(\)"
    )
    with pytest.raises(DataError, match=message):
        distbp.train(job(), data=({**x, "facts": frame}, y))


def test_other_faults_of_the_data_are_named(tmp_path: Path) -> None:
    x, y = given()
    with pytest.raises(DataError, match=r"a row has 38 numbers, but the inputs .* take 39; give a mapping"):
        distbp.train(job(), data=(np.zeros((60, 38)), y))
    one = {"model": {"layers": [{"type": "dense", "units": 1}]}}
    with pytest.raises(DataError, match="the inputs are a mapping, but the network has none with names"):
        distbp.train(job(**one), data=({"facts": x["facts"]}, y))
    source = saved(tmp_path / "data.npz", x, y)
    with pytest.raises(DataError, match="has inputs with names, but the network has none; give it layers"):
        distbp.train(job(**one, data={"train": source}), folder=tmp_path)
    with pytest.raises(DataError, match="has lengths of 'seris', which is none of the inputs"):
        distbp.train(job(data={"train": {**source, "lengths": {"seris": "series_lengths"}}}), folder=tmp_path)
    with pytest.raises(DataError, match="of inputs and lengths one is a mapping and the other is not"):
        distbp.train(job(data={"train": {**source, "inputs": "facts"}}), folder=tmp_path)
    with pytest.raises(DataError, match="the mapping of inputs is empty; name an array for each input"):
        distbp.train(job(data={"train": {**source, "inputs": {}, "lengths": None}}), folder=tmp_path)
    with pytest.raises(DataError, match="columns are those of one array of inputs; leave them out"):
        distbp.train(job(data={"train": {**source, "columns": "targets"}}), folder=tmp_path)
    with pytest.raises(JobError) as caught:
        job(data={"train": {**source, "lengths": "series_lengths"}})
    assert [fault.path for fault in caught.value.faults] == ["data.train.lengths"]
    assert "the network has several; write a mapping from ragged inputs to names" in str(caught.value)


def test_rows_that_hold_them_side_by_side_are_checked() -> None:
    x, y = given()
    model = distbp.train(job(), data=(x, y)).model()
    rows = model.checked(x).inputs
    for length in (8, -1, 2.5):
        rows[3, -1] = length
        message = f"input 'series': the length of row 3 is {float(length)}, but lengths are whole numbers"
        with pytest.raises(ModelError, match=message):
            model.predict(rows)
        with pytest.raises(DataError, match=message):
            distbp.train(job(), data=(rows, y))
    rows[3, 19] = 9  # an id
    with pytest.raises(ModelError, match="input 'words': row 3, column 0 of the inputs is 9"):
        model.predict(rows.reshape(60, 1, -1))


def test_rows_whose_longest_inputs_are_alike_share_a_batch() -> None:
    layers = [
        {"type": "input", "name": "one", "shape": [6, 1], "ragged": True, "scale": 7},
        {"type": "input", "name": "two", "shape": [9], "ragged": True},
        {"type": "embedding", "entries": 4, "size": 2, "inputs": ["two"]},
        {"type": "lstm", "units": 2, "name": "told"},
        {"type": "gru", "units": 2, "inputs": ["one"], "name": "heard"},
        {"type": "concatenate", "inputs": ["told", "heard"]},
        {"type": "dense", "units": 1},
    ]
    lengths = np.random.default_rng(1).integers(0, (7, 10), (64, 2))
    x = {"one": [np.ones((n, 1)) for n, _ in lengths], "two": [np.ones(n, int) for _, n in lengths]}
    found = {}
    for together in (True, False):
        wanted = job(model={"layers": layers}, data={}, batch_size=8, bucket_by_length=together)
        splits = open_splits(wanted, Path(), {"train": (x, np.zeros(64))})
        blueprint = make_blueprint(wanted, splits)
        sharding, (rows, dealt) = blueprint.sharding(), splits.ready(blueprint).train(1)
        reader = ShardReader(rows, dealt, sharding, 1, np.dtype("f4"))
        slices = [lengths.max(axis=1)[reader.rows(step)] for step in range(8)]
        assert sorted(np.concatenate(slices)) == sorted(lengths.max(axis=1)[dealt])
        found[together] = [int(one.max() - one.min()) for one in slices]
    assert max(found[True]) <= 2 < max(found[False])


def test_rows_may_all_have_no_steps() -> None:
    x, y = given()
    nothing = np.zeros((60, 0, 2))
    for series in ([[]] * 60, list(nothing), nothing):
        result = distbp.train(job(data={}), data=({**x, "series": series}, y))
        assert len(result.model().predict({**x, "series": series})) == 60
    assert not len(result.model().predict({name: values[:0] for name, values in x.items()}))


def test_large_inputs_are_joined_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 MiB of bytes beside numbers of 64 bits are 96 MiB of rows, in a file."""
    monkeypatch.setenv("DISTBP_PREPARE_BYTES", "1000000")
    inputs = (NamedInput("image", (1, 64, 64)), NamedInput("facts", (3,), first=4096))
    x = {"image": np.ones((3072, 1, 64, 64), np.uint8), "facts": np.ones((3072, 3))}
    before = resident_bytes()
    table = from_arrays(x, np.ones(3072), named=inputs)
    for model_rows in (table.inputs, rows_of_inputs(inputs, None, x)):
        assert isinstance(model_rows, np.memmap)
        assert resident_bytes() - before < 48 * 2**20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_lengths_have_room_in_any_dtype() -> None:
    layers = [
        {"type": "input", "name": "words", "shape": [300], "ragged": True},
        {"type": "embedding", "entries": 5, "size": 2},
        "average_steps",
        {"type": "dense", "units": 1},
    ]
    draw = np.random.default_rng(0)
    words = [draw.integers(0, 2, 250 + i) for i in range(30)]
    found = {
        distbp.train(
            job(model={"layers": layers}, data={}),
            data=({"words": [own.astype(dtype) for own in words]}, np.ones(30)),
        ).params_sha256
        for dtype in (bool, np.uint8, np.float16, np.int64)
    }
    assert len(found) == 1


def test_bad_rows_of_one_input_are_left_out() -> None:
    x, y = given()
    words = np.where(np.arange(60)[:, None] == 3, np.nan, x["words"])
    with pytest.raises(DataError, match=r"row 3, column 0 of the train input 'words' is NaN"):
        distbp.train(job(), data=({**x, "words": words}, y))
    skip = {"bad_rows": "skip", "standardize": True}
    left = distbp.train(job(data=skip), data=({**x, "words": words}, y))
    kept = {name: [row for i, row in enumerate(values) if i != 3] for name, values in x.items()}
    assert left.params_sha256 == distbp.train(job(), data=(kept, np.delete(y, 3))).params_sha256


def test_inputs_may_have_the_names_of_lengths() -> None:
    x, y = given()
    layers = [
        {"type": "input", "name": "inputs", "shape": [3]},
        {"type": "input", "name": "lengths", "shape": [1]},
        {"type": "concatenate", "inputs": ["inputs", "lengths"]},
        {"type": "dense", "units": 1},
    ]
    result = distbp.train(
        job(model={"layers": layers}), data=({"inputs": x["facts"], "lengths": np.arange(60)}, y)
    )
    assert result.status == "completed"


def test_a_model_refuses_what_does_not_fit() -> None:
    x, y = given()
    model = distbp.train(job(), data=(x, y)).model()
    rows = [{name: x[name][i] for name in NAMES} for i in range(3)]
    with pytest.raises(ModelError, match="row 2 names other inputs than row 0; name all in each"):
        model.predict([*rows[:2], {"facts": x["facts"][0]}])
    with pytest.raises(ModelError, match="has no input 'words'; the network's inputs are"):
        model.predict({name: x[name] for name in NAMES if name != "words"})
    with pytest.raises(ModelError, match="input 'words': row 0, column 0 of the inputs is 9"):
        model.predict({**x, "words": np.full((60, 5), 9)})
    with pytest.raises(ModelError, match=r"expected inputs of shape \(rows, 39\), got \(1, 38\)"):
        model.predict(np.zeros((1, 38)))
    with pytest.raises(ModelError, match="has several inputs; give lengths with their input"):
        model.predict(x, lengths=np.ones(60))
