"""Uploaded data, brought to a runner."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from distbp_service.fetching import fetch_data

from distbp.core.errors import DataError, JobError
from distbp.job import TrainingJob

TABLE, ARRAYS = f"dataset:ds_{'a' * 64}", f"dataset:ds_{'b' * 64}"


def zipped(**files: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return out.getvalue()


class Transport:
    """Hands out one archive, and counts."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[str] = []

    def fetch_dataset(self, dataset_id: str, path: Path) -> None:
        self.asked.append(dataset_id)
        path.write_bytes(self.content)


def job(**data: Any) -> TrainingJob:
    layers = {"layers": [{"type": "dense", "units": 1}]}
    return TrainingJob.from_mapping({"data": data, "model": layers, "loss": "mse"})


def tables(path: str, **more: Any) -> TrainingJob:
    source = {"format": "table", "path": path}
    return job(train=source, validation={**source, "path": f"{TABLE}/y.csv"}, target="y", **more)


def fetch(wanted: TrainingJob, folder: Path, transport: Transport, *, stop: bool = False) -> bool:
    return fetch_data(wanted, folder, transport, 2, lambda call: call(), lambda: stop)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_table_lies_in_a_folder_of_its_name_and_is_fetched_once(tmp_path: Path) -> None:
    transport = Transport(zipped(**{"x.csv": "y\n1\n", "y.csv": "y\n2\n"}))
    (tmp_path / f".{TABLE}.1.files").mkdir()
    (tmp_path / f".{TABLE}.1.files" / "x.csv").write_text("half")
    (tmp_path / f"..{TABLE}.1.zip.1").write_text("half")
    for _ in range(2):
        assert fetch(tables(f"{TABLE}/x.csv"), tmp_path, transport)
    assert transport.asked == [TABLE.removeprefix("dataset:")]
    assert names(tmp_path) == [f"{TABLE}/x.csv", f"{TABLE}/y.csv"]
    assert [path.name for path in tmp_path.iterdir()] == [TABLE]


def test_arrays_are_a_file_of_their_name(tmp_path: Path) -> None:
    transport = Transport(b"arrays")
    assert fetch(job(train={"format": "npz", "path": ARRAYS}), tmp_path, transport)
    assert (tmp_path / ARRAYS).read_bytes() == b"arrays"
    with pytest.raises(JobError, match=r"data.train: 'dataset:ds_b+/x' is not an uploaded dataset"):
        fetch(job(train={"format": "npz", "path": f"{ARRAYS}/x"}), tmp_path, transport)


def test_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^dataset:ds_a+: this is not a sound archive of table files"):
        fetch(tables(TABLE), tmp_path, Transport(b"PK damaged"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_fetched_that_is_not_wanted(tmp_path: Path) -> None:
    transport = Transport(b"")
    assert not fetch(job(train={"format": "npz", "path": "x.npz"}), tmp_path, transport)
    assert fetch(tables(TABLE), tmp_path, transport, stop=True)
    assert transport.asked == []
