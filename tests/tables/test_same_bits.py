"""The same rows give the same weights, whatever file held them, however it was cut, whoever computes."""

from __future__ import annotations

import json
from datetime import date, time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from houses import houses, job, write
from pyarrow import parquet

import distbp.data.columns.csv_text as csv_text
from distbp import JobError, resume, train
from distbp.core.errors import ArgumentError
from distbp.data.columns.cells import as_levels, as_numbers, cleaned
from distbp.data.columns.store import CHUNK_ROWS, MemoryRoom
from distbp.run.splits import open_splits

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".parquet", ".feather", ".arrow", ".jsonl")


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTBP_KERNELS", "numpy")
        return train(job(write(houses(), folder / "h.csv")), output=folder / "run").params_sha256


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_every_format(suffix: str, digest: str, tmp_path: Path) -> None:
    path = write(houses(), tmp_path / f"h{suffix}")
    assert train(job(path), output=tmp_path / "run").params_sha256 == digest


def test_instants_and_times_of_day_in_every_format(tmp_path: Path) -> None:
    """An instant is taken in UTC, however it is written; a time without a day is text, also where typed."""
    table = houses()
    built = table["built"].to_numpy().astype("datetime64[ns]") + np.arange(300) * 1_234_567_891_000
    table = table.append_column("sold", pa.array(built, pa.timestamp("ns", "Europe/Brussels")))
    opens = pa.array([time(8 + row % 3, 30) for row in range(300)])
    table = table.append_column("opens", opens)
    frame = table.to_pandas()
    frame.to_csv(tmp_path / "offsets.csv", index=False)  # 1996-03-01 13:00:00.891000+01:00
    frame["sold"] = frame["sold"].dt.tz_convert("UTC")
    frame.to_csv(tmp_path / "utc.csv", index=False)
    spelled = pa.array([str(one) for one in opens.to_pylist()])
    write(table.drop_columns("opens").append_column("opens", spelled), tmp_path / "nanoseconds.csv")
    for name in ("h.parquet", "h.feather"):
        write(table, tmp_path / name)
    lines = [json.dumps(row, default=str) for row in table.to_pylist()]
    (tmp_path / "h.jsonl").write_text("\n".join(lines))
    columns = {"opens": "category", "others": "auto"}
    found = {}
    for path in sorted(tmp_path.iterdir()):
        result = train(job(path, columns=columns).replace(epochs=1), output=tmp_path / f"run-{path.name}")
        model = result.model()
        assert model.plan is not None
        found[path.name] = result.params_sha256, model.predict(frame).tolist()
        kinds = {column.name: column.type for column in model.plan.columns}
        assert (kinds["sold"], kinds["opens"]) == ("date", "category")
    assert len(found) == 6 and len({str(one) for one in found.values()}) == 1


def test_a_folder_of_parts_in_another_order_of_columns(digest: str, tmp_path: Path) -> None:
    table, folder = houses(), tmp_path / "parts"
    folder.mkdir()
    parquet.write_table(table.slice(0, 100), folder / "a.parquet")
    names = table.column_names[::-1]
    parquet.write_table(table.slice(100).select(names), folder / "b.parquet")
    assert train(job(folder), output=tmp_path / "run").params_sha256 == digest
    assert train(job(f"{folder}/*.parquet"), output=tmp_path / "glob").params_sha256 == digest


def test_small_blocks_of_text(digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "_BLOCK", 512)
    assert train(job(write(houses(), tmp_path / "h.csv")), output=tmp_path / "run").params_sha256 == digest


def test_columns_that_are_mapped_from_files(
    digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader in ("opening", "loading"):
        monkeypatch.setattr(f"distbp.data.columns.{reader}.MemoryRoom", lambda: MemoryRoom(1000))
    monkeypatch.setenv("DISTBP_PREPARE_BYTES", "1000")
    splits = open_splits(job(write(houses(), tmp_path / "h.csv")), Path())
    assert isinstance(splits.tables["train"].inputs, np.memmap)
    assert train(job(write(houses(), tmp_path / "h.csv")), output=tmp_path / "run").params_sha256 == digest


@pytest.mark.heavy
def test_columns_of_several_pieces_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads free pieces of columns while others are read. The weight is an input, too."""
    path = write(houses(2 * CHUNK_ROWS + 1000), tmp_path / "h.parquet")
    wanted = job(path, weight="rooms", columns={"rooms": "number", "others": "auto"})
    in_memory = open_splits(wanted, Path()).tables
    monkeypatch.setattr("distbp.data.columns.opening.MemoryRoom", lambda: MemoryRoom(0))
    in_files = open_splits(wanted, Path()).tables
    for split, table in in_memory.items():
        for part in ("inputs", "targets", "weights"):
            assert np.array_equal(getattr(in_files[split], part), getattr(table, part)), (split, part)


@pytest.mark.heavy
@pytest.mark.parametrize("kept", ["2GiB", "1000"])
def test_any_number_of_workers(
    kept: str, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows stay in a file without a name."""
    monkeypatch.setenv("DISTBP_PREPARE_BYTES", kept)
    path = write(houses(), tmp_path / "h.parquet")
    assert train(job(path), workers=2, output=tmp_path / "run").params_sha256 == digest


def test_text_with_other_spellings_of_a_number() -> None:
    cells = cleaned(pa.array([" 3", "3.0", "+3", "3e0", "?"]), ("", "?"))
    assert as_numbers(cells)[0].tolist()[:4] == [3.0] * 4
    assert as_levels(cells, numeric=True)[0].to_pylist() == ["3", "3", "3", "3", None]


def test_decimals_are_the_numbers_that_their_text_says() -> None:
    texts = [f"{cents / 100:.2f}" for cents in range(-999, 1000)]
    for kind in (pa.decimal128(5, 2), pa.decimal128(38, 20), pa.decimal256(70, 40)):
        assert as_numbers(pa.array(texts).cast(kind))[0].tolist() == [float(text) for text in texts]


def with_dictionaries(table: pa.Table) -> pa.Table:
    """Text as frames may hold it: small unsigned codes, entries that nobody has, twice or missing ones."""
    for name in ("city", "code"):
        text = table.column(name).combine_chunks()
        words = sorted({one for one in text.to_pylist() if one is not None})
        entries = ["Atlantis", "?", None, *words, f" {words[0]} "]
        codes = [
            (1, 2, None)[row % 3]
            if one is None
            else len(entries) - 1
            if one == words[0] and row % 2
            else entries.index(one)
            for row, one in enumerate(text.to_pylist())
        ]
        coded = pa.DictionaryArray.from_arrays(pa.array(codes, pa.uint8()), pa.array(entries))
        table = table.set_column(table.column_names.index(name), name, coded)
    return table


def test_columns_without_a_cell() -> None:
    for cells in (pa.nulls(3), pa.nulls(3, pa.float64()), pa.array([], pa.int64())):
        assert np.isnan(as_numbers(cells)[0]).tolist() == [True] * len(cells)


@pytest.mark.parametrize("kind", ["pandas", "arrow", "batches", "dictionaries"])
def test_frames_from_python(kind: str, digest: str, tmp_path: Path) -> None:
    table = houses()
    frames = {
        "pandas": table.to_pandas(),
        "arrow": table,
        "dictionaries": with_dictionaries(table),
        "batches": pa.Table.from_batches(table.to_batches(70)),
    }
    of_frames = job("h.csv").replace(
        data={"target": {"column": "price", "scale": "standard"}, "split": {"validation": 0.2, "test": 0.2}}
    )
    result = train(of_frames, data=frames[kind], output=tmp_path / "run")
    assert result.params_sha256 == digest
    assert resume(tmp_path / "run", data=frames[kind]).params_sha256 == digest
    assert len(result.model().predict(frames[kind])) == 300
    with pytest.raises(JobError, match=r"data.target: is required for a table"):
        train(of_frames.replace(data={}), data={"train": frames[kind]}, output=tmp_path / "none")
    with pytest.raises(ArgumentError, match="data for 'test' must be a frame too, as that for 'train'"):
        train(of_frames, data={"train": frames[kind], "test": (1, 2)}, output=tmp_path / "none")
    given = of_frames.replace(data={"target": {"column": "price", "scale": "standard"}})
    splits = open_splits(given, Path(), {"train": frames[kind], "test": table.slice(3, 20)})
    assert splits.rows == {"train": 300, "test": 20}


def test_markers_that_are_numbers_and_dates(tmp_path: Path) -> None:
    """-999 in a typed file or a frame is as missing as its text in CSV is."""
    table = houses()
    rooms, area, built = (table[name].to_pylist() for name in ("rooms", "area", "built"))
    marked = {
        "rooms": pa.array([-999 if row % 9 == 0 else one for row, one in enumerate(rooms)]),
        "area": pa.array([-999.0 if one is None else one for one in area]),
        "built": pa.array([date(1900, 1, 1) if row % 7 == 0 else one for row, one in enumerate(built)]),
    }
    for name, column in marked.items():
        table = table.set_column(table.column_names.index(name), name, column)
    missing = ["", "-999", "1900-01-01"]
    found = []
    for suffix in (".csv", ".parquet", ".jsonl"):
        result = train(
            job(write(table, tmp_path / f"h{suffix}"), missing=missing), output=tmp_path / f"run{suffix}"
        )
        found.append((result.params_sha256, result.model().predict(table).tolist()))
    table.to_pandas().to_csv(tmp_path / "pandas.csv", index=False)  # -999.0 in a column of numbers
    result = train(job(tmp_path / "pandas.csv", missing=missing), output=tmp_path / "run-pandas")
    assert found[0] == found[1] == found[2] == (result.params_sha256, result.model().predict(table).tolist())
    plan = result.model().plan
    assert plan is not None
    numbers = {column.name: column for column in plan.columns}
    assert numbers["area"].indicator and numbers["rooms"].indicator and numbers["built"].indicator
    assert 20 < numbers["area"].center < 200
    every = pa.table({"a": [1.0, 2.0] * 20, "b": [-999] * 40, "price": range(40)})
    splits = open_splits(job(write(every, tmp_path / "e.parquet"), missing=missing), Path())
    assert splits.plan is not None and splits.plan.needs == ("a",)  # as in CSV


@pytest.mark.parametrize("column", ["garden", "built"])
def test_booleans_and_days_as_categories(column: str, tmp_path: Path) -> None:
    """Text of True and False, as pandas writes it, means the booleans of a typed file; so for days."""
    table = houses()
    days = pa.array([date(2024, 2, 1 + row % 5) for row in range(300)])
    table = table.set_column(table.column_names.index("built"), "built", days)
    frame = table.to_pandas()
    frame.to_csv(tmp_path / "h.csv", index=False)
    parquet.write_table(table, tmp_path / "h.parquet")
    found = []
    for name in ("h.csv", "h.parquet"):
        asked = job(tmp_path / name, columns={column: "category"})
        result = train(asked, output=tmp_path / f"run-{name}")
        model, others = result.model(), (table, frame, frame.astype({column: str}))
        found.append((result.params_sha256, *(model.predict(one).tolist() for one in others)))
        assert len({str(one) for one in found[-1][1:]}) == 1
    assert found[0] == found[1]


def test_numbers_with_a_dictionary(tmp_path: Path) -> None:
    """As pandas writes categories of numbers."""
    table = houses()
    coded = table.set_column(0, "rooms", table["rooms"].combine_chunks().dictionary_encode())
    plain, found = (
        open_splits(job(write(one, tmp_path / f"{name}.feather")), Path()).plan
        for name, one in (("plain", table), ("coded", coded))
    )
    assert plain is not None and found is not None
    assert found.to_json() == plain.to_json()
