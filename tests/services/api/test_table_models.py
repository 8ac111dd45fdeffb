"""A model of a table behind the API: raw rows as JSON and CSV, what was noticed, and what it takes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from api_kit import Api, make_api, problem_of
from distbp_service.api.model_form import columns_of

import distbp
from distbp.core import settings
from distbp.data.columns.fitting import fit_column
from distbp.data.columns.kinds import Number
from distbp.data.columns.plan import Plan, TargetCode
from distbp.data.columns.store import Column

CSV = {"Content-Type": "text/csv"}
ROW = {"rooms": 3, "area": 60.5, "city": "Oslo", "built": "1999-02-03", "garden": "yes", "code": "00001"}


def table(rows: int = 90) -> str:
    cities = ("Oslo", "Oslo", "Ghent", "Porto")
    lines = ["rooms,area,city,built,garden,code,price,size"]
    for n in range(rows):
        city, area = cities[n % 4], 30 + (7 * n) % 91
        built = f"{1970 + n % 50}-0{1 + n % 9}-11"
        price = 3 * area + 40 * (city == "Oslo")
        cells = (
            1 + n % 5,
            f"{area}.5" if n % 9 else "",
            city,
            built,
            ("yes", "no")[n % 2],
            f"0000{n % 3}",
            price,
        )
        lines.append(",".join(map(str, (*cells, "large" if area > 60 else "small"))))
    return "\n".join(lines) + "\n"


def fit(folder: Path, name: str, **fields: Any) -> distbp.Model:
    """A run in folder/name."""
    (folder / "homes.csv").write_text(table())
    columns = {
        "rooms": {"kind": "number", "bins": 8},
        "code": {"kind": "category", "encode": "hash", "buckets": 4},
    }
    columns |= dict.fromkeys(fields.pop("drop"), "drop")
    source = {"format": "table", "path": "homes.csv"}
    data = {
        "train": source,
        "target": fields.pop("target"),
        "columns": {**columns, "others": "auto"},
        "split": {},
    }
    if reading := fields.pop("reading", {}):
        (folder / "lines.csv").write_text("# of houses\n" + table().replace("Oslo", "OSLO"))
        data["train"] = {**source, "path": "lines.csv", **reading}
    job = distbp.TrainingJob.from_mapping({"data": data, "epochs": 3, "workers": 0, **fields})
    with settings.environment({"DISTBP_KERNELS": "numpy"}):
        return distbp.train(job, folder=folder, output=folder / name).model()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Folders of runs, and their models: of prices, of sizes."""
    folder = tmp_path_factory.mktemp("trained")
    price = fit(
        folder,
        "price",
        target={"column": "price", "scale": "standard"},
        drop=["size"],
        model={"layers": [{"type": "dense", "units": 1}]},
        loss="mse",
    )
    size = fit(
        folder,
        "size",
        target="size",
        drop=["price"],
        model={"layers": [{"type": "dense", "units": 2}]},
        loss="softmax_cross_entropy",
    )
    lines = fit(
        folder,
        "lines",
        reading={"skip_lines": 1, "replace": {"OSLO": "Oslo"}},
        target={"column": "price", "scale": "standard"},
        drop=["size"],
        model={"layers": [{"type": "dense", "units": 1}]},
        loss="mse",
    )
    return {"folder": folder, "price": price, "size": size, "lines": lines}


@pytest.fixture(scope="module")
def api(trained: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """With all models; nothing here changes them."""
    api = make_api(tmp_path_factory.mktemp("api"))
    for name in ("price", "size", "lines"):
        job_id = api.submit(name=name)
        job, token = api.start()
        shutil.copytree(trained["folder"] / name, api.work / job_id / "run")
        end = {"outcome": "completed", "model": {"path": f"{job_id}/run/model", "bytes": 1}}
        assert api.report(job, token, 1, end=end).status_code == 200
    yield api
    api.runner.close()
    api.store.close()


def path(api: Api, name: str = "price") -> str:
    items = api.call("GET", "/v1/models").json()["items"]
    return "/v1/models/" + next(item["id"] for item in items if item["name"] == name)


def predict(api: Api, inputs: Any, name: str = "price", **more: Any) -> Any:
    return api.call("POST", f"{path(api, name)}:predict", json={"inputs": inputs, **more})


def test_what_was_noticed_is_in_the_answer(api: Api, trained: dict[str, Any]) -> None:
    rows = [ROW, {**ROW, "city": "Rome", "note": 1}, {**ROW, "city": "Lima", "area": None, "price": 7}]
    found = predict(api, rows).json()
    assert found["unseen"] == {"city": 2}
    assert (found["ignored"], found["ignored_count"]) == (["note"], 1)
    with pytest.warns(UserWarning):
        assert found["predictions"] == trained["price"].predict(rows).tolist()
    assert predict(api, [ROW]).json()["unseen"] == {}
    many = predict(api, [{**ROW, **{f"x{n}": n for n in range(150)}}]).json()
    assert (len(many["ignored"]), many["ignored_count"]) == (100, 150)


def test_classes_have_probabilities(api: Api) -> None:
    found = predict(api, [ROW], "size", probabilities=True).json()
    assert found["predictions"][0] in ("large", "small")
    assert sum(found["probabilities"][0]) == pytest.approx(1)


def test_csv_is_read_as_a_file_would_be(api: Api) -> None:
    rows = [ROW, {**ROW, "city": "Rome", "area": ""}]
    names = list(reversed(ROW))
    wanted = predict(api, rows).json()
    for delimiter in (",", ";"):
        lines = [names, *([str(row[name]) for name in names] for row in rows)]
        text = "\ufeff" + "\r\n".join(delimiter.join(line) for line in lines)
        answer = api.call("POST", f"{path(api)}:predict", content=text.encode(), headers=CSV)
        assert answer.json() == wanted
    asked = f"{path(api, 'size')}:predict?probabilities=true"
    assert api.call("POST", asked, content=text.encode(), headers=CSV).json()["probabilities"]
    assert not list(Path(tempfile.gettempdir()).glob("distbp-rows-*"))


def test_csv_is_read_as_that_of_training_was(api: Api, trained: dict[str, Any]) -> None:
    text = "\n".join(
        ["# another line", ",".join(ROW), ",".join(map(str, ROW.values())).replace("Oslo", "OSLO")]
    )
    answer = api.call("POST", f"{path(api, 'lines')}:predict", content=text.encode(), headers=CSV).json()
    assert answer["predictions"] == trained["lines"].predict([ROW]).tolist()
    assert answer["unseen"] == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the rows: the file is empty"),
        (" \n", "there is no text in the file"),
        ("rooms,area\n", "has no row|no rows"),
        (
            "rooms,area\n1,2\n",
            "the data has no column 'city', 'built', 'garden', 'code'; the model needs 'rooms'",
        ),
        ("rooms,area\n1,2\n3\n4,5\n6,7\n8,9\n1,2\n", "the rows: line 3: 1 cell where"),
        ("rooms,area\n" + "1,2\n" * 10_001, "give 1 to 10,000 rows"),
        (",".join(f"x{n}" for n in range(1000)) + ("\n" + "," * 999) * 2001, "of 2,000,000 cells at most"),
        ("PK\x03\x04\x00\x00", "no text"),
        ("\xff\xfe\xfd,\x80\n\xff,2\n", "not utf-8 text"),
    ],
)
def test_csv_that_cannot_be_taken(api: Api, text: str, said: str) -> None:
    body = text.encode("latin-1")
    answer = api.call("POST", f"{path(api)}:predict", content=body, headers=CSV)
    message = problem_of(answer, 422)["message"]
    assert any(part in message for part in said.split("|")), message


@pytest.mark.heavy
def test_rows_that_cannot_be_taken(api: Api) -> None:
    for inputs, said in (
        ([{"rooms": 1}], "the data has no column 'area', 'city', 'built', 'garden', 'code'"),
        ([ROW, {**ROW, "area": "x"}], "row 1, column 'area': 'x' is not a number"),
        ([{**ROW, "area": "x", "built": "soon", "garden": 3}], "column 'built': 'soon' is not a date; row 0"),
        ([{**ROW, "area": 10**300}], "' is too large for numbers of type float32"),
        (
            [ROW, {**ROW, "area": 1e300}],
            "row 1, column 'area': 1e+300 is too large for numbers of type float32",
        ),
        ([{**ROW, "area": [1]}], "row 0, column 'area'"),
        ([{**ROW, "city": {"a": {"b": 1}}}], "row 0, column 'city'"),
        ([ROW, [1, 2]], "row 1 is not a mapping"),
        ([ROW] * 10_001, "give 1 to 10,000 rows"),
    ):
        assert said in problem_of(predict(api, inputs), 422)["message"]
    unlike = [
        {f"x{n}.{k}": 0 for k in range(60)} for n in range(9_999)
    ]  # 600,000 columns, of none that count
    assert "has no column" in problem_of(predict(api, unlike), 422)["message"]
    found = predict(api, [{**row, **ROW} for row in unlike[:2000]]).json()
    assert found["ignored_count"] == 120_000


def test_bodies_have_a_limit_and_a_type(api: Api) -> None:
    large = b"x" * (16 * 2**20 + 1)
    problem_of(api.call("POST", f"{path(api)}:predict", content=large, headers=CSV), 413, "too_large")
    plain = {"Content-Type": "text/plain"}
    body = problem_of(api.call("POST", f"{path(api)}:predict", content=b"a,b", headers=plain), 415)
    assert "send JSON (or CSV, as text/csv, or a picture, as image/png or image/jpeg)" in body["message"]
    problem_of(api.call("POST", "/v1/jobs", content=b"a,b", headers=CSV), 415)


def test_what_a_model_takes(api: Api) -> None:
    found = api.call("GET", f"{path(api)}/inputs").json()
    columns = {one["name"]: one for one in found.pop("columns")}
    assert found.pop("shape")[0] > 6
    assert found == {
        "task": "regression",
        "classes": None,
        "target": "price",
        "is_table": True,
        "parts": [],
        "rows": 1,
    }
    names = ("levels", "low", "high", "deviation", "missing", "example")
    none = {**dict.fromkeys(names), "timed": False}
    rooms, area = columns["rooms"], columns["area"]
    assert (rooms["low"], rooms["high"], rooms["example"]) == (1, 5, 3)
    assert (area["low"], area["high"]) == (None, None) and 60 < area["example"] < 90
    assert 20 < area["deviation"] < 30 and area["missing"] == pytest.approx(area["example"], rel=1e-3)
    assert columns["city"] == {
        **none, "name": "city", "kind": "category", "levels": ["Oslo", "Ghent", "Porto"], "example": "Oslo",
    }  # fmt: skip
    assert columns["code"] == {**none, "name": "code", "kind": "category"}
    assert columns["garden"]["levels"] == ["yes", "no"]
    assert columns["built"]["kind"] == "date" and columns["built"]["example"][:2] == "19"
    # What it proposes can be predicted; where it proposes nothing, the cell is missing.
    example = {name: one["example"] for name, one in columns.items()}
    assert predict(api, [example]).json()["unseen"] == {}
    sizes = api.call("GET", f"{path(api, 'size')}/inputs").json()
    assert (sizes["task"], sizes["classes"]) == ("classification", ["large", "small"])
    problem_of(api.call("GET", f"{path(api)}/inputs", "other"), 404)


@pytest.mark.parametrize("scale", ["standard", "min_max", "robust", "log", "quantile", "none"])
def test_the_ends_of_training_are_found_however_numbers_are_scaled(scale: str) -> None:
    r = np.random.default_rng(1)
    values = np.concatenate([[-7.25, 900.5], r.normal(40, 100, 300).clip(-7, 900)])
    kind = Number(scale=scale, bins=8)  # type: ignore[arg-type]
    plan = Plan((fit_column("x", kind, Column(values), None),), {"": TargetCode("y")}, ())
    one = columns_of(plan.to_json())[0]
    assert (one.low, one.high) == pytest.approx((-7.25, 900.5), rel=1e-6)
    assert one.missing == pytest.approx(values.mean())
    assert one.deviation == (pytest.approx(values.std()) if scale == "standard" else None)


@pytest.mark.parametrize("scale", ["standard", "min_max", "robust", "log", "quantile", "none"])
def test_a_zero_that_training_saw_is_within_the_range(scale: str) -> None:
    """Though it is scaled, float32, and far below the deviation, as gains of capital are."""
    values = np.concatenate([np.zeros(300), np.arange(1.0, 30) * 3448.0])
    kind = Number(scale=scale, bins=8)  # type: ignore[arg-type]
    plan = Plan((fit_column("x", kind, Column(values), None),), {"": TargetCode("y")}, ())
    one = columns_of(plan.to_json())[0]
    assert one.low == 0
    assert one.high == pytest.approx(99992, rel=1e-6) and one.high >= 99992


def test_a_model_of_arrays_has_no_columns(api: Api, tmp_path: Path) -> None:
    job_id = api.submit(name="arrays")
    job, token = api.start()
    fields = {"data": {"train": {"format": "blobs", "samples": 30}}, "epochs": 1, "workers": 0}
    layers = {"layers": [{"type": "dense", "units": 3}]}
    arrays = distbp.TrainingJob.from_mapping({**fields, "model": layers, "loss": "softmax_cross_entropy"})
    distbp.train(arrays, output=api.work / job_id / "run")
    end = {"outcome": "completed", "model": {"path": f"{job_id}/run/model", "bytes": 1}}
    assert api.report(job, token, 1, end=end).status_code == 200
    found = api.call("GET", f"{path(api, 'arrays')}/inputs").json()
    assert found["is_table"] is False and found["columns"] is None and found["target"] is None
    csv = api.call("POST", f"{path(api, 'arrays')}:predict", content=b"a,b\n1,2\n", headers=CSV)
    said = problem_of(csv, 422)["message"]
    assert said.startswith(
        "the model's inputs have no names; send JSON in which each row is a list of numbers: {"
    )
    numbers = predict(api, [[0.0] * found["shape"][0]], "arrays").json()
    assert (numbers["unseen"], numbers["ignored"], numbers["ignored_count"]) == ({}, [], 0)
