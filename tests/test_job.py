"""The job: reading, writing, the digest, the JSON Schema, and the reference page."""

from __future__ import annotations

import dataclasses
import json
import pickle
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from distbp.core.errors import JobError
from distbp.job import TrainingJob
from distbp.job.digest import canonical
from distbp.job.reference import reference
from distbp.job.schema import KINDS, job_schema
from distbp.job.text import read_yaml, write_yaml
from distbp.nn.initializers import HeNormal, Normal
from distbp.nn.layers import Dense
from distbp.nn.losses import SoftmaxCrossEntropy
from distbp.nn.network import Network
from distbp.optim.recipes import SGD, Adam
from distbp.optim.schedules import Cosine, WarmUp

ROOT = Path(__file__).resolve().parents[1]
MNIST = """
name: mnist
data:
  train:      {format: idx, images: train-images.gz, labels: train-labels.gz, rows: [0, 50000]}
  validation: {format: idx, images: train-images.gz, labels: train-labels.gz, rows: [50000, 60000]}
  test:       {format: idx, images: t10k-images.gz, labels: t10k-labels.gz}
  scale: 255
model:
  layers:
    - {type: dense, units: 30, activation: sigmoid}
    - {type: dense, units: 10}
loss: softmax_cross_entropy
optimizer: {type: momentum, learning_rate: 0.1, momentum: 0.9}
batch_size: 128
epochs: 10
shards: 4
workers: auto
seed: 7
"""
FULL = """
data: {train: digits, validation: {format: digits, split: validation}, standardize: true, bad_rows: skip}
model:
  layers:
    - flatten
    - {type: dense, units: 16, initializer: {type: normal, std: 0.1}, bias_initializer: zeros}
    - batch_normalization
    - relu
    - {type: dropout, rate: 0.25}
    - {type: dense, units: 10, activation: linear, initializer: he_normal}
loss: {type: softmax_cross_entropy, label_smoothing: 1e-1}
optimizer:
  type: adamw
  learning_rate: 1e-3
  schedule: {type: warm_up, warmup_epochs: 1.5, then: {type: cosine, minimum_rate: 1e-5}}
batch_size: 64
epochs: 4
max_steps: 1000
shards: auto
workers: {min: 1, max: 4}
metrics: [accuracy, top_3]
class_weight: {0: 2, 3: 0.5}
regularization: {l2: 1e-4}
clip: {norm: 1}
early_stopping: {metric: validation_accuracy, patience: 3}
checkpoint: {every_steps: 100, every_seconds: null}
evaluate_every: 2
dtype: float64
"""
BASE = {"model": {"layers": [{"type": "dense", "units": 3}]}, "loss": "softmax_cross_entropy"}


@pytest.mark.parametrize("text", [MNIST, FULL])
def test_a_job_goes_through_yaml_json_and_pickle(text: str) -> None:
    job = TrainingJob.from_yaml(text)
    assert TrainingJob.from_yaml(job.to_yaml()) == job
    assert TrainingJob.from_json(json.dumps(job.to_mapping())) == job
    assert TrainingJob.from_mapping(job.to_mapping()) == job
    assert TrainingJob(**dict(job)) == job
    assert pickle.loads(pickle.dumps(job)) == job
    assert TrainingJob.model_validate(job) == job


def test_a_null_is_written_only_where_it_is_not_the_default() -> None:
    plain = {"format": "npz", "path": "a.npz"}
    given = {**BASE, "data": {"train": plain, "test": {**plain, "targets": None}}, "metrics": None}
    job = TrainingJob.from_mapping({**given, "checkpoint": {"every_seconds": None, "every_steps": None}})
    found = job.to_mapping()
    assert found["data"]["test"].pop("targets", "") is None
    assert found["checkpoint"].pop("every_seconds", "") is None
    assert "null" not in json.dumps(found)
    assert TrainingJob.from_mapping(job.to_mapping()) == job


def test_fields_hold_the_dataclasses_of_the_tables() -> None:
    job = TrainingJob.from_yaml(FULL)
    assert job.model.layers[1] == Dense(units=16, initializer=Normal(std=0.1))
    assert job.loss == SoftmaxCrossEntropy(label_smoothing=0.1)
    assert job.optimizer.schedule == WarmUp(warmup_epochs=1.5, then=Cosine(minimum_rate=1e-5))
    assert job.class_weight == {0: 2.0, 3: 0.5}
    assert job.optimizer.learning_rate == 0.001  # 1e-3 is a number in YAML 1.2, text in 1.1


def test_names_mappings_and_instances_say_the_same() -> None:
    spelled = [
        TrainingJob(model={"layers": layers}, loss=loss, optimizer=optimizer)
        for layers, loss, optimizer in (
            ([{"type": "dense", "units": 3, "initializer": "he_normal"}], "softmax_cross_entropy", "adam"),
            (
                [{"type": "dense", "units": 3, "initializer": {"type": "he_normal"}}],
                {"type": "softmax_cross_entropy"},
                {"type": "adam", "schedule": "constant"},
            ),
            ([Dense(units=3, initializer=HeNormal())], SoftmaxCrossEntropy(), Adam()),
            ((Dense(units=np.int64(3), initializer=HeNormal()),), SoftmaxCrossEntropy(), Adam(beta1=0.9)),
        )
    ]
    assert len({job.digest for job in spelled}) == 1
    assert all(job == spelled[0] for job in spelled)


def test_the_options_of_an_instance_are_checked() -> None:
    with pytest.raises(JobError, match=r"optimizer\.learning_rate: must be a number greater than 0, not -1"):
        TrainingJob(**BASE, optimizer=SGD(learning_rate=-1))
    with pytest.raises(
        JobError, match=r"model\.layers\.0\.units: must be a whole number greater than 0, not 0"
    ):
        TrainingJob(model={"layers": [Dense(units=0)]}, loss="mse")


def test_a_job_does_not_change() -> None:
    job = TrainingJob(**BASE)
    for part, name in ((job, "epochs"), (job.model, "layers"), (job.data, "train")):
        with pytest.raises(
            AttributeError, match=rf"^{name} cannot be set: .* job.replace\(...\) gives another"
        ):
            setattr(part, name, 3)
    changed = job.replace(epochs=3, workers=0)
    assert (changed.epochs, changed.workers, job.epochs) == (3, 0, 10)
    with pytest.raises(JobError, match="epochs: must be a whole number at least 1, not 0"):
        job.replace(epochs=0)


def test_replace_gives_fields_that_nobody_gave_their_defaults_anew() -> None:
    layers = [{"type": "dense", "units": 2}]
    job = TrainingJob(model={"layers": layers}, loss="mse")
    assert job.batch_size == 32
    assert job.replace(optimizer="conjugate_gradient").batch_size == "full"
    with pytest.raises(JobError, match="batch_size"):
        job.replace(batch_size=16).replace(optimizer="conjugate_gradient")


def test_the_length_is_ten_epochs_only_where_nothing_is_said() -> None:
    assert (TrainingJob(**BASE).epochs, TrainingJob(**BASE).max_steps) == (10, None)
    assert (TrainingJob(**BASE, max_steps=5).epochs, TrainingJob(**BASE, max_steps=5).max_steps) == (None, 5)


def test_files_are_yaml_or_json(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("\ufeff" + MNIST, encoding="utf-8")
    (tmp_path / "job.json").write_text(json.dumps(yaml.safe_load(MNIST)))
    first, second = (TrainingJob.from_file(tmp_path / name) for name in ("job.yaml", "job.json"))
    assert first == second and first.digest == second.digest


# The digest -------------------------------------------------------------------------------------------------


def test_digests_do_not_drift() -> None:
    """A digest is in every run directory: an accidental change would orphan all of them."""
    job = TrainingJob(**BASE)
    assert canonical(job.to_mapping()) == (
        '{"batch_size":32,"data":{"bad_rows":"refuse","scale":1,"standardize":false},"drop_last":false,'
        '"dtype":"float32","epochs":10,"evaluate_every":1,'
        '"loss":{"label_smoothing":0,"type":"softmax_cross_entropy"},'
        '"model":{"layers":[{"activation":"linear","bias_initializer":{"type":"zeros"},'
        '"initializer":{"type":"glorot_uniform"},"type":"dense","units":3}]},'
        '"optimizer":{"beta1":0.9,"beta2":0.999,"epsilon":1e-08,"epsilon_hat":false,"learning_rate":0.001,'
        '"schedule":{"type":"constant"},"type":"adam","weight_decay":0},'
        '"regularization":{"biases":false,"l1":0,"l2":0},"seed":0,"shards":"auto","shuffle":true}'
    )
    assert job.digest == "919794977502094c5928b5b2d23cc7c11eeb967bc2cea60b21cca6458c37ca07"


def _respelled(value: Any, draw: random.Random) -> Any:
    """The same job otherwise: keys in another order, whole floats as ints and back, short names."""
    if isinstance(value, dict):
        keys = list(value)
        draw.shuffle(keys)
        if keys == ["type"] and draw.random() < 0.5:
            return value["type"]
        return {key: _respelled(value[key], draw) for key in keys}
    if isinstance(value, list):
        return [_respelled(v, draw) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) < 2**50 and draw.random() < 0.5:
        return float(value)
    return int(value) if isinstance(value, float) and value.is_integer() and draw.random() < 0.5 else value


def _without_defaults(job: TrainingJob, draw: random.Random) -> dict[str, Any]:
    """The job's fields, with some of those left out that have their default."""
    plain = TrainingJob(**BASE).to_mapping()
    fields = job.to_mapping()
    return {k: v for k, v in fields.items() if k in BASE or plain.get(k) != v or draw.random() < 0.5}


@given(
    st.sampled_from([MNIST, FULL]),
    st.randoms(use_true_random=False),
    st.sampled_from(["yaml", "json", "python"]),
)
def test_every_spelling_of_a_job_has_one_digest(text: str, draw: random.Random, form: str) -> None:
    job = TrainingJob.from_yaml(text)
    fields = _respelled(_without_defaults(job, draw), draw)
    if form == "yaml":
        again = TrainingJob.from_yaml(write_yaml(fields))
    elif form == "json":
        again = TrainingJob.from_json(json.dumps(fields))
    else:
        again = TrainingJob(**fields)
    assert again == job
    assert again.digest == job.digest


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"workers": 3},
        {"servers": 2},
        {"checkpoint": {"keep_last": 9}},
        {"data": {"train": "digits", "folder": "/elsewhere"}},
    ],
)
def test_what_cannot_change_the_bits_is_not_in_the_digest(change: dict[str, Any]) -> None:
    fields = {**BASE, "data": {"train": "digits"}, "shards": 4}
    assert TrainingJob(**{**fields, **change}).digest == TrainingJob(**fields).digest


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"batch_size": 33},
        {"shards": 8},
        {"dtype": "float64"},
        {"shuffle": False},
        {"drop_last": True},
        {"loss": {"type": "softmax_cross_entropy", "label_smoothing": 0.1}},
        {"optimizer": "sgd"},
        {"optimizer": {"type": "adam", "schedule": "cosine"}},
        {"data": {"train": "digits", "scale": 16}},
        {"clip": {"norm": 1}},
        {"regularization": {"l2": 0.1}},
        {"class_weight": [1, 1, 2]},
        {"max_steps": 10},
        {"metrics": ["accuracy", "f1"]},
    ],
)
def test_what_can_change_the_result_is_in_the_digest(change: dict[str, Any]) -> None:
    fields = {**BASE, "data": {"train": "digits"}, "shards": 4}
    assert TrainingJob(**{**fields, **change}).digest != TrainingJob(**fields).digest


def test_what_is_spelled_out_as_it_is_where_left_out_has_no_digest_of_its_own() -> None:
    table: dict[str, Any] = {"train": {"format": "table", "path": "a.csv"}, "target": "y"}
    said = {
        "target": {"column": "y", "clip": False},
        "columns": {"x": {"kind": "category", "signed": False}},
    }
    fields = {**BASE, "loss": "mse"}
    short = TrainingJob(**fields, data={**table, "columns": {"x": "category"}})
    assert TrainingJob(**fields, data={**table, **said}, parameter_groups={}).digest == short.digest
    told = {**said, "columns": {"x": {"kind": "category", "signed": True}}}
    assert TrainingJob(**fields, data={**table, **told}).digest != short.digest
    assert (
        TrainingJob(**fields, data={**table, "columns": {}}).digest
        == TrainingJob(**fields, data=table).digest
    )


def test_class_weights_have_one_digest_as_a_list_or_a_mapping() -> None:
    spelled = [[1, 2, 1], [1.0, 2.0, 1], {1: 2}, {"1": 2.0}, {0: 1, 1: 2, 2: 1}]
    assert len({TrainingJob(**BASE, class_weight=weights).digest for weights in spelled}) == 1
    assert TrainingJob(**BASE, class_weight=[1, 1, 1]).digest == TrainingJob(**BASE).digest


# YAML -------------------------------------------------------------------------------------------------------

_words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
_tricky = st.sampled_from(
    ["1e3", "1e-3", "on", "null", "~", "0x1F", ".5", ".inf", "12:30", "010", "1_000", "y", "-", ""]
)
_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _words | _tricky


@given(
    st.recursive(
        _scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words | _tricky, inner, max_size=3),
        max_leaves=12,
    )
)
def test_what_is_written_as_yaml_is_read_back(value: Any) -> None:
    again = read_yaml(write_yaml(value))
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-7", -7),
        ("010", 10),
        ("0x1F", 31),
        ("12:30", "12:30"),
        ("2001-01-01", "2001-01-01"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("1_000", "1_000"),
        ("-.inf", float("-inf")),
    ],
)
def test_plain_words_are_read_as_yaml_1_2(text: str, value: Any) -> None:
    assert read_yaml(text) == value
    assert type(read_yaml(text)) is type(value)


# Shards and places ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "sizes", "shards"),
    [
        (10, (784, 30, 10), 1),  # too few rows
        (128, (784, 256, 256, 10), 4),  # 32 rows a slice
        (512, (1024, 2048, 2048, 10), 8),
        (256, (54, 128, 64, 7), 4),  # 24 M operations
        (2048, (54, 128, 64, 7), 8),
        (1 << 19, (1, 1), 1),  # next to no work
    ],
)
def test_automatic_shards_follow_from_the_job_alone(
    batch_size: int, sizes: tuple[int, ...], shards: int
) -> None:
    network = Network([Dense(units=units) for units in sizes[1:]], (sizes[0],))
    assert TrainingJob(**BASE, batch_size=batch_size).resolved_shards(network) == shards
    assert TrainingJob(**BASE, batch_size=max(3, batch_size), shards=3).resolved_shards(network) == 3


def test_a_located_job_finds_its_data_from_anywhere(tmp_path: Path) -> None:
    job = TrainingJob.from_yaml(MNIST)
    located = job.located(tmp_path)
    assert located.data.folder == str(tmp_path)
    assert located.digest == job.digest
    assert located.located(tmp_path / "elsewhere") == located
    inner = job.replace(data=job.data.model_copy(update={"folder": "data"})).located(tmp_path)
    assert inner.data.folder == str(tmp_path / "data")


# The JSON Schema, the reference page, the examples ----------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return job_schema()


def test_the_schema_is_a_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "distbp.invalid" not in json.dumps(schema)
    references = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))
    assert references <= set(schema["$defs"])


def test_every_property_has_a_description(schema: dict[str, Any]) -> None:
    missing = []

    def look(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for name, field in value.get("properties", {}).items():
                if not field.get("description"):
                    missing.append(f"{path}.{name}")
            for key, inner in value.items():
                look(inner, f"{path}.{key}")

    look(schema, "")
    assert not missing


@pytest.mark.parametrize("text", [MNIST, FULL])
def test_the_schema_takes_good_jobs(schema: dict[str, Any], text: str) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(json.loads(json.dumps(read_yaml(text))))
    validator.validate(json.loads(json.dumps(TrainingJob.from_yaml(text).to_mapping())))


@pytest.mark.parametrize(
    "change",
    [
        {"optimzer": "adam"},
        {"optimizer": "momentom"},
        {"optimizer": {"type": "sgd", "learning_rate": 0}},
        {"epochs": 0},
        {"shards": 0},
        {"workers": {"min": 0, "max": 2}},
        {"model": {"layers": []}},
        {"model": {"layers": [{"type": "dense"}]}},
        {"model": {"layers": ["dense"]}},
        {"loss": 3},
    ],
)
def test_the_schema_refuses_bad_jobs(schema: dict[str, Any], change: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(schema).is_valid({**BASE, **change})


def test_every_row_of_every_table_has_a_model_and_round_trips() -> None:
    needed: dict[str, Any] = {
        "units": 3,
        "rate": 0.1,
        "shape": [2],
        "value": 1.0,
        "values": [1.0, 2.0],
        "function": "relu",
        "filters": 2,
        "kernel_size": 3,
        "entries": 5,
        "size": 2,
        "path": "a.npz",
    }
    needed |= {"images": "a.gz", "inputs": "a.npy", "warmup_steps": 5}
    for kind in KINDS.values():
        for name, cls in kind.table.items():
            fields = {f.name for f in dataclasses.fields(cls)}
            options = {k: v for k, v in needed.items() if k in fields} if name not in kind.short else {}
            if name == "warm_up":
                options = {"warmup_steps": 5}
            if kind is KINDS["layers"]:
                options.pop("inputs", None)  # of a file format
            value = kind.validate({kind.key: name, **options})
            assert type(value) is cls
            assert kind.validate(value) == value


def test_the_reference_page_is_current() -> None:
    page = ROOT / "docs" / "job.md"
    assert page.read_text() == reference(), "run: python -m distbp.job.reference > docs/job.md"


def _examples() -> list[tuple[str, str]]:
    found = [
        (str(path.relative_to(ROOT)), path.read_text()) for path in sorted(ROOT.glob("examples/**/*.yaml"))
    ]
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]:
        if page.exists():
            blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
            found += [(f"{page.name}-{i}", block) for i, block in enumerate(blocks) if "model:" in block]
    return found


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in _examples()])
def test_every_example_is_a_good_job(schema: dict[str, Any], text: str) -> None:
    TrainingJob.from_yaml(text)
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(read_yaml(text))))
