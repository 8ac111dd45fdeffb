"""Jobs that must be refused, with every fault word for word: the table is `bad_jobs.txt` in this folder."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from distbp.core.errors import Fault, JobError
from distbp.job import TrainingJob
from distbp.job.data_checks import check_against_data, notes_about
from distbp.job.text import MAX_BYTES, read_json
from distbp.nn.losses.base import Targets

NET = "model: {layers: [{type: dense, units: 8, activation: relu}, {type: dense, units: 3}]}\n"


def _table() -> list[tuple[str, list[str]]]:
    blocks = (Path(__file__).parent / "bad_jobs.txt").read_text().split("====================\n")[1:]
    found = []
    for block in blocks:
        text, _, faults = block.partition("\n>>>\n")
        found.append((text.replace("NET\n", NET) + "\n", faults.splitlines()))
    return found


TABLE = _table()


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 60
    assert len({text for text, _ in TABLE}) == len(TABLE)


@pytest.mark.parametrize(
    ("text", "faults"), TABLE, ids=[f"{i}-{f[0][:40]}" for i, (_, f) in enumerate(TABLE)]
)
def test_every_fault_is_named(text: str, faults: list[str]) -> None:
    with pytest.raises(JobError) as caught:
        TrainingJob.from_yaml(text)
    assert [str(fault) for fault in caught.value.faults] == faults


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1', "is not valid JSON: expecting ',' delimiter (line 1, column 8)"),
        ('{"a": 1, "a": 2}', "the key 'a' is written twice in one mapping; keep one of them"),
        ('{"seed": NaN}', "NaN is not a number that a job can use"),
        ('{"seed": -Infinity}', "-Infinity is not a number that a job can use"),
        ("[" * 100_000, "is nested deeper than 32 levels"),
        ('{"x":' * 40 + "1" + "}" * 40, "is nested deeper than 32 levels"),
        ("{" + " " * MAX_BYTES + "}", "is larger than 1048576 bytes, the most that a job may have"),
    ],
)
def test_json_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(JobError) as caught:
        read_json(text)
    assert caught.value.faults == (Fault("", message),)


def test_a_very_long_number_in_json() -> None:
    with pytest.raises(JobError, match="has a number of 10000 digits"):
        read_json('{"seed": ' + "9" * 10_000 + "}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("big.yaml", b" " * (MAX_BYTES + 1), "is larger than 1048576 bytes, the most that a job may have"),
        ("latin.yaml", b"name: caf\xe9", "is not UTF-8 text (byte 9)"),
        ("bad.json", b"[1,", "is not valid JSON: expecting value (line 1, column 4)"),
        ("missing.yaml", None, "cannot be read: no such file or directory"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JobError) as caught:
        TrainingJob.from_file(path)
    assert str(caught.value) == f"{path} has 1 fault:\n  {message}"


def test_a_folder_is_no_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be read: is a directory"):
        TrainingJob.from_file(tmp_path)


def test_billion_laughs_cost_nothing() -> None:
    text = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(JobError, match="uses an anchor or alias"):
        TrainingJob.from_yaml(text)


def test_the_faults_of_a_file_name_the_file_and_pickle(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("loss: mse\nmodel: {layers: [relu]}\nepochs: 0\n")
    with pytest.raises(JobError) as caught:
        TrainingJob.from_file(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path} has 2 faults:"
    assert pickle.loads(pickle.dumps(caught.value)).faults == caught.value.faults


# Against the data -----------------------------------------------------------------------------------------


def _job(layers: str, loss: str, more: str = "") -> TrainingJob:
    return TrainingJob.from_yaml(f"model: {{layers: [{layers}]}}\nloss: {loss}\n{more}")


TEN = "{type: dense, units: 10}"
LABELS = Targets("labels", classes=10)


@pytest.mark.parametrize(
    ("job", "shape", "targets", "faults"),
    [
        (_job(TEN, "softmax_cross_entropy"), (784,), LABELS, []),
        (
            _job(TEN, "softmax_cross_entropy"),
            (28, 28),
            LABELS,
            [
                "model.layers.0: a dense layer takes one row of numbers for each sample, but is given shape"
                " (28, 28); put a {type: flatten} layer before it, or take {type: dense_steps} for each step"
                " on its own"
            ],
        ),
        (_job("flatten, " + TEN, "softmax_cross_entropy"), (28, 28), LABELS, []),
        (
            _job("{type: dense, units: 8}", "softmax_cross_entropy"),
            (784,),
            Targets("labels", classes=10, labels="10 classes: 0, 1, 2, 3, 4, 5, ..., 9"),
            [
                "model.layers.0: the last layer has 8 outputs, but the labels are of 10 classes: 0, 1, 2, 3,"
                " 4, 5, ..., 9; give the last layer 10 units, or number the classes from 0 to 7"
            ],
        ),
        (
            _job(TEN, "softmax_cross_entropy"),
            (784,),
            Targets("values", columns=2),
            [
                "loss: softmax_cross_entropy takes one class label for each row, but the targets are"
                " values; for values use 'mse' or 'mae', for yes-or-no values 'sigmoid_cross_entropy'"
            ],
        ),
        (_job(TEN, "sigmoid_cross_entropy"), (784,), Targets("values"), []),
        (
            _job("{type: dense, units: 8}", "mse"),
            (4,),
            Targets("values", columns=10),
            [
                "model.layers.0: the last layer has 8 outputs, but the targets have 10 columns;"
                " give the last layer 10 units"
            ],
        ),
        (
            _job("{type: dense, units: 1}", "mse"),
            (4,),
            Targets("values", columns=2),
            [
                "model.layers.0: the last layer has 1 output, but the targets have 2 columns;"
                " give the last layer 2 units"
            ],
        ),
        (
            _job(TEN, "softmax_cross_entropy", "class_weight: {4: 2, 7: 3}\n"),
            (4,),
            Targets("labels", classes=5),
            ["class_weight.7: is not a class of the training set, which has 0, 1, 2, 3, 4"],
        ),
        (
            _job(TEN, "softmax_cross_entropy", "class_weight: {no: 2, '10': 3, maybe: 1}\n"),
            (4,),
            Targets("labels", classes=10, names=("no", "10", *"abcdefgh")),
            ["class_weight.maybe: is not a class of the training set, which has no, 10, a, b, c, d, ..., h"],
        ),
    ],
)
def test_against_the_data(
    job: TrainingJob, shape: tuple[int, ...], targets: Targets, faults: list[str]
) -> None:
    found = [str(fault) for fault in check_against_data(job, shape, targets)]
    assert found == faults


def test_early_stopping_without_the_validation_set_it_watches() -> None:
    job = _job(TEN, "softmax_cross_entropy", "early_stopping: {}\n")
    assert check_against_data(job, (4,), LABELS, {"train": 10, "validation": 5}) == []
    assert check_against_data(job, (4,), LABELS, {"train": 10}) == [
        Fault(
            "early_stopping.metric",
            "watches 'validation_loss', but there is no validation set; give one, or watch 'train_loss'",
        )
    ]


@pytest.mark.parametrize(
    ("more", "rows", "notes"),
    [
        ("batch_size: 50\n", 100, []),
        ("batch_size: 50\n", 110, ["the last batch of every epoch has 10 rows instead of 50"]),
        (
            "batch_size: 50\ndrop_last: true\n",
            110,
            ["drop_last leaves out 10 of 110 rows in every epoch (others each time)"],
        ),
        (
            "batch_size: 128\n",
            100,
            ["batch_size is 128, but the training set has 100 rows: every epoch is one step of 100 rows"],
        ),
    ],
)
def test_no_limit_is_silent(more: str, rows: int, notes: list[str]) -> None:
    job = _job(TEN, "softmax_cross_entropy", more)
    assert notes_about(job, {"train": rows}, 4) == notes


@pytest.mark.parametrize(
    ("more", "notes"),
    [
        ("members: 3\nworkers: 12\n", []),
        (
            "restarts: 3\nworkers: 13\n",
            [
                "13 workers were asked for, but only 12 workers have work: the job has 4 shards for each of 3"
                " networks"
            ],
        ),
        (
            "members: 3\nworkers: 2\naudit: 0.1\n",
            ["audit compares two workers of one network; it does nothing with several networks"],
        ),
    ],
)
def test_notes_on_several_networks(more: str, notes: list[str]) -> None:
    assert notes_about(_job(TEN, "softmax_cross_entropy", more), {"train": 320}, 4) == notes


@pytest.mark.parametrize(
    ("job_workers", "given", "shards", "notes"),
    [
        ("auto", None, 1, []),
        ("2", None, 4, []),
        ("2", None, 1, ["2 workers were asked for, but only 1 worker has work: the job has 1 shard"]),
        ("auto", 8, 4, ["8 workers were asked for, but only 4 workers have work: the job has 4 shards"]),
        ("8", 2, 4, []),
    ],
)
def test_a_note_on_workers_without_work(
    job_workers: str, given: int | None, shards: int, notes: list[str]
) -> None:
    job = _job(TEN, "softmax_cross_entropy", f"workers: {job_workers}\n")
    assert notes_about(job, {"train": 320}, shards, given) == notes


def test_a_note_on_one_row_slices_under_batch_normalization() -> None:
    job = _job("batch_normalization, " + TEN, "softmax_cross_entropy", "batch_size: 50\n")
    assert notes_about(job, {"train": 105}, 4) == [
        "the last batch of every epoch has 5 rows instead of 50",
        "some slices of that last batch have one row, which batch_normalization turns into its shift alone;"
        " drop_last: true leaves that batch out",
    ]


# As large as a job may be -----------------------------------------------------------------------------------

MANY = 65_000
LAYER = {"type": "dense", "units": 2}
GOOD = {"data": {"train": {"format": "moons"}}, "model": {"layers": [LAYER]}, "loss": "softmax_cross_entropy"}


@pytest.mark.parametrize(
    ("changes", "left_out"),
    [
        ({f"unknown_{i}": 1 for i in range(MANY)}, MANY - 50),
        ({f"batch_siz{i}": 1 for i in range(MANY)}, MANY - 50),
        ({"model": {"layers": [LAYER], **{f"layer{i}": 1 for i in range(MANY)}}}, MANY - 50),
        ({"model": {"layers": [{**LAYER, **{f"unit{i}": 1 for i in range(MANY)}}]}}, MANY - 50),
        ({"model": {"layers": [{**LAYER, "a": 1, "b": 2}] * 1000}}, 1950),
        ({"model": {"layers": [LAYER] * MANY}}, 0),
        ({"model": {"layers": ["dens"] * MANY}}, 0),
        ({"metrics": [f"metric{i}" for i in range(MANY)]}, 0),
        ({"class_weight": {f"x{i}": "a" for i in range(MANY)}}, 0),
        ({"class_weight": ["a"] * MANY}, 0),
        ({"x" * 1_000_000: 1}, 0),
        ({"metrics": ["x" * 1_000_000]}, 0),
        ({"metrics": ["top_" + "1" * 100_000]}, 0),
        ({"early_stopping": {"metric": "x" * 1_000_000}}, 0),
        ({"model": {"layers": [{"type": "reshape", "shape": [1] * MANY}, LAYER]}}, 0),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_page_of_faults_is_answered_shortly_and_soon(changes: dict[str, Any], left_out: int) -> None:
    began = time.process_time()
    with pytest.raises(JobError) as caught:
        TrainingJob.from_mapping({**GOOD, **changes})
    assert time.process_time() - began < 2
    faults = caught.value.faults
    assert len(str(caught.value)) < 30_000 and len(faults) <= 51
    if left_out:
        assert faults[-1] == Fault("", f"and {left_out:,} more faults; mend these first")
        assert str(caught.value).startswith("the job has more than 50 faults:\n")
        assert JobError(faults).faults == faults  # as a client has them from a service
    else:
        assert len(faults) == 1


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"{i * (2**61 - 1)}: 1" for i in range(30_000)),  # one hash
        "&" + "x" * 900_000 + " 1",
        "!" + "x" * 900_000 + " 1",
        f'{{"{"x" * 400_000}": 1, "{"x" * 400_000}": 2}}',
    ],
    ids=["numbers", "anchor", "tag", "twice"],
)
def test_a_page_of_text_is_refused_shortly_and_soon(text: str) -> None:
    began = time.process_time()
    with pytest.raises(JobError) as caught:
        TrainingJob.from_yaml(text)
    assert time.process_time() - began < 2
    assert len(str(caught.value)) < 3000
