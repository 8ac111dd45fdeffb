"""The folder of a trained model: written at the end of training, loaded to predict.

    model.json            layers, shapes, loss, preprocessing, class names, origin; written last
    weights.safetensors   every tensor by name, such as `layers.0.dense.weight`; with several members such as
                          `members.0.layers.0.dense.weight`

The folder holds no code and no pickles. `load_model` trusts nothing: layers and loss pass the same checks as
in a job, every size must match the weights before memory is allocated, and digests reveal a single flipped
bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

import distbp
from distbp.core.arguments import MAX_MEMBERS, path_given
from distbp.core.arrays import Array, aligned_vector
from distbp.core.errors import DataError, JobError, ModelError
from distbp.core.sealed import decode_arrays, encode_arrays, sealed_json, unseal_json
from distbp.core.storage import (
    DISK,
    TEMPORARY,
    Disk,
    explained,
    make_folder,
    read_file,
    remove_folder,
    sync_folder,
    write_durable,
)
from distbp.data.columns.plan import Plan
from distbp.data.preprocessing import Preprocessing
from distbp.data.several_targets import AllClasses, plain_classes
from distbp.job.faults import details, located
from distbp.job.kinds import Kind, plain
from distbp.job.losses import LossKind, written
from distbp.job.shards import MAX_SHARDS
from distbp.job.tables import TABLES
from distbp.model.answers import task_of
from distbp.model.archive import MODEL, WEIGHTS, unpacked
from distbp.model.lists import check_list, classes_in, is_list
from distbp.model.predictor import Model
from distbp.nn.head_metrics import metrics_of
from distbp.nn.losses.base import Targets
from distbp.nn.losses.several import heads_of, names_of
from distbp.nn.network import Carry, Network, Tensor

if TYPE_CHECKING:
    from distbp.job import TrainingJob

FORMAT, VERSION = "distbp model", 1
_MAX_JSON_BYTES = 1 << 28
_MAX_LAYERS = 10_000
_FIELDS: Mapping[str, Any] = {
    "classes": (list, dict, type(None)),
    "class_weights": (list, type(None)),
    "columns": (list, type(None)),
    "dtype": str,
    "files": dict,
    "input_shape": list,
    "layers": list,
    "loss": dict,
    "metrics": (list, type(None)),
    "output_shape": list,
    "params_sha256": str,
    "preprocessing": dict,
    "table": (dict, type(None)),
    "task": str,
}


def save_model(
    path: Path,
    *,
    job: TrainingJob,
    network: Network,
    vector: Array,
    preprocessing: Preprocessing,
    numerics: Mapping[str, Any],
    classes: AllClasses = None,
    class_weights: Sequence[float] | None = None,
    columns: Sequence[str | int] | None = None,
    plan: Plan | None = None,
    kernels: str = "numpy",
    shards: int = 1,
    others: Sequence[Array] = (),
    disk: Disk = DISK,
) -> Path:
    """Writes the model of a finished job into the folder `path`, whole or not at all. Replaces a model there.

    `classes`: the names of the classes in the order of the outputs; with several outputs, by name. `columns`:
    the names of the inputs. `plan`: of the training table. `kernels`, `shards`: those of training. `others`:
    the vectors of further members, whose predictions are averaged with the first's. Raises StorageError, and
    ModelError if `path` holds other files than a model.
    """
    content = {
        "layers": plain([layer.as_written for layer in network.layers]),
        "input_shape": list(network.input_shape),
        **({"lengths": True} if network.lengths else {}),
        **({"series": True} if network.carry is not None else {}),
        **({} if job.data.targets is None else {"targets": job.data.targets}),
        "loss": written(job.loss),
        "metrics": None if job.metrics is None else list(job.metrics),
        "preprocessing": preprocessing.to_json(),
        "classes": plain_classes(classes),
        "class_weights": None if class_weights is None else [float(w) for w in class_weights],
        "columns": None if columns is None else list(columns),
        **({} if plan is None else {"table": plan.to_json()}),
        "kernels": kernels,
        "shards": shards,
        "name": job.name,
        "job_digest": job.digest,
        "numerics": dict(numerics),
    }
    return write_model(path, content, network, (vector, *others), disk=disk)


def write_model(
    path: Path, content: Mapping[str, Any], network: Network, vectors: Sequence[Array], *, disk: Disk = DISK
) -> Path:
    """Adds the fields that follow from `network` and the members' `vectors` to `content`, and writes the
    folder. Returns `path`. Raises as `save_model` does."""
    members = len(vectors)
    pieces = encode_arrays(
        {
            path: vector[tensor.start : tensor.stop].reshape(tensor.shape)
            for number, vector in enumerate(vectors)
            for path, tensor in _named(network, number, members)
        }
    )
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    text = sealed_json(
        {
            "format": FORMAT,
            "version": VERSION,
            "distbp": distbp.__version__,
            **content,
            **({"members": members} if members > 1 else {}),
            "output_shape": list(network.output_shape),
            "dtype": network.dtype.name,
            "task": task_of(heads_of(_LOSS.validate(content["loss"]), network.answer_shapes)),
            "params_sha256": params_digest(*(vector[: network.parameter_count] for vector in vectors)),
            "files": {WEIGHTS: {"bytes": sum(p.nbytes for p in pieces), "sha256": digest.hexdigest()}},
        }
    )
    new, old = path.with_name(f"{TEMPORARY}{path.name}"), path.with_name(f"{TEMPORARY}old-{path.name}")
    moved = False
    with explained(path):
        make_folder(path.parent, disk)
        names = disk.listdir(path.parent)
        if old.name in names and path.name not in names:  # a replacement was cut short
            disk.rename(old, path)
            names = disk.listdir(path.parent)
        if path.name in names and not {MODEL, WEIGHTS}.issuperset(disk.listdir(path)):
            raise ModelError(f"{path} holds other files than a model; choose another folder")
        try:
            for leftover in sorted({new.name, old.name}.intersection(names)):
                remove_folder(path.with_name(leftover), disk)
            disk.mkdir(new)
            write_durable(new / WEIGHTS, pieces, disk)
            write_durable(new / MODEL, [text], disk)
            sync_folder(new, disk)
            if path.name in names:
                disk.rename(path, old)
                moved = True
            disk.rename(new, path)
        except BaseException:
            with suppress(OSError):
                if moved:
                    disk.rename(old, path)
                remove_folder(new, disk)
            raise
        sync_folder(path.parent, disk)
        if moved:
            with suppress(OSError):  # the new model is in place; the next save removes the old one
                remove_folder(old, disk)
    return path


def model_folder(path: Path) -> Path:
    """The model's folder in `path` if that is a run directory with a model, else `path` itself."""
    inner = path / "model"
    return inner if inner.is_dir() and not (path / MODEL).exists() else path


def load_model(path: str | Path) -> Model:
    """Loads the model in the folder or run directory `path`, or in a service's .tar file, and checks it.
    Raises ModelError with the fault.

    It executes nothing from the folder, and takes memory only in proportion to the files' sizes.
    """
    path = path_given(path, "the model's folder")
    if path.is_file():
        with unpacked(path) as folder:
            return load_model(folder)
    path = model_folder(path)
    content = _read_json(path)
    layers, loss = _layers(path, content), _one(path, "loss", content["loss"], _LOSS)
    dtype, input_shape = content["dtype"], content["input_shape"]
    if dtype not in ("float32", "float64"):
        raise _bad(path, f"dtype is {dtype!r}, not float32 or float64")
    if not is_list(input_shape, (int,)) or not all(0 < n < 1 << 40 for n in input_shape):
        raise _bad(path, f"input_shape is {input_shape!r}, not a list of sizes")
    try:
        preprocessing = Preprocessing.from_json(content["preprocessing"])
        plan = None if content.get("table") is None else Plan.from_json(content["table"])
        entry = None if plan is None else plan.entry
        if plan is not None and plan.numbers != math.prod(input_shape):
            raise _bad(
                path, f"its table makes {plan.numbers} cells of a row, not inputs of shape {input_shape}"
            )
        lengths, carry = bool(content.get("lengths", False)), Carry() if content.get("series") else None
        network = Network(
            layers,
            tuple(input_shape),
            dtype,
            entry=entry,
            lengths=lengths,
            outputs=names_of(loss),
            carry=carry,
        )
        heads = heads_of(loss, network.answer_shapes)
        faults = [fault for head in heads for fault in head.loss.faults(head.shape, None, Targets())]
        if plan is not None and set(plan.targets) != {head.name for head in heads}:
            raise _bad(path, "its table has other targets than its loss has outputs")
        metrics = content["metrics"]
        if metrics is not None and not is_list(metrics, (str,)):
            raise _bad(path, "metrics is not a list of names")
        metrics_of(heads, metrics)
        columns = content.get("columns")
        check_list("class_weights", content["class_weights"], (int, float), sum(h.outputs[1] for h in heads))
        check_list("columns", columns, (str, int), math.prod(network.input_shape))
        classes = classes_in(content["classes"], heads)
    except (ValueError, OverflowError, TypeError, AttributeError, DataError, JobError) as error:
        raise _bad(path, str(error)) from None
    if faults:
        raise _bad(path, "; ".join(faults))
    if content["output_shape"] != list(network.output_shape) or content["task"] != task_of(heads):
        raise _bad(path, "output_shape or task does not follow from its layers and loss")
    if preprocessing.mean is not None and preprocessing.mean.size != math.prod(network.input_shape):
        raise _bad(path, "preprocessing is for inputs of another size")
    if content["class_weights"] is not None and (heads.several or not heads.all[0].is_label):
        raise _bad(path, f"class_weights is given, but the loss {heads.words!r} knows no classes")
    shards = content.get("shards", 1)
    if type(shards) is not int or not 0 < shards <= MAX_SHARDS:
        raise _bad(path, f"shards is {shards!r}, not a number from 1 to {MAX_SHARDS}")
    members = content.get("members", 1)
    if type(members) is not int or not 0 < members <= MAX_MEMBERS:
        raise _bad(path, f"members is {members!r}, not a number from 1 to {MAX_MEMBERS}")
    vector, *others = _read_vectors(path, content, network, members)
    return Model(
        network,
        vector,
        loss,
        preprocessing,
        classes,
        None if content["class_weights"] is None else tuple(map(float, content["class_weights"])),
        None if metrics is None else tuple(metrics),
        {name: v for name, v in content.items() if name not in _FIELDS or name == "params_sha256"},
        None if columns is None else tuple(columns),
        shards,
        str(content.get("kernels", "numpy")),
        plan,
        tuple(others),
    )


def params_digest(*members: Array) -> str:
    """The `params_sha256` of a model: the SHA-256 of the trained parameters as little-endian bytes, member by
    member."""
    digest = hashlib.sha256()
    for parameters in members:
        little = np.ascontiguousarray(parameters, parameters.dtype.newbyteorder("<"))
        digest.update(little.view(np.uint8).data)
    return digest.hexdigest()


def _named(network: Network, number: int, members: int) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a member with their names in the file."""
    for tensor in (*network.tensors, *network.statistics):
        yield (tensor.path if members == 1 else f"members.{number}.{tensor.path}"), tensor


def _bad(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is not a usable model: {what}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = unseal_json(read_file(path / MODEL, most=_MAX_JSON_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        what = "has no model.json" if path.is_dir() else "does not exist"
        raise ModelError(f"{path} {what}; give the model folder of a run directory") from None
    except ValueError as error:
        raise _bad(path, f"{MODEL} {error}") from None
    except OSError as error:
        raise _bad(path, f"{MODEL} cannot be read ({error.strerror})") from None
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise ModelError(
            f"{path} was written as {content.get('format')!r} version {content.get('version')!r}; this distbp"
            f" reads {FORMAT!r} version {VERSION}. Use the distbp that wrote it"
        )
    for name, kinds in _FIELDS.items():
        if not isinstance(content.get(name), kinds):
            raise _bad(path, f"{name} is missing in {MODEL} or of the wrong type")
    return content


def _layers(path: Path, content: Mapping[str, Any]) -> list[Any]:
    if not 0 < len(content["layers"]) <= _MAX_LAYERS:
        raise _bad(path, f"it has {len(content['layers'])} layers, where 1 to {_MAX_LAYERS:,} are allowed")
    return [_one(path, f"layers.{i}", layer, _LAYER) for i, layer in enumerate(content["layers"])]


def _one(path: Path, place: str, description: Any, kind: Kind) -> Any:
    """The layer or loss of a description, checked as in a job. Raises ModelError."""
    try:
        return kind.validate(description)
    except ValidationError as error:
        faults = located(details(error))
        text = "; ".join(f"{'.'.join(filter(None, (place, f.path)))}: {f.message}" for f in faults)
        raise _bad(path, text) from None


_LAYER, _LOSS = Kind("layers", "layer", TABLES), LossKind("losses", "loss", TABLES)


def _read_vectors(path: Path, content: Mapping[str, Any], network: Network, members: int) -> list[Array]:
    """The flat vectors of the members. Sizes are compared with the file's before memory is allocated. Raises
    ModelError."""
    entry = content["files"].get(WEIGHTS)
    if set(content["files"]) != {WEIGHTS} or not isinstance(entry, dict):
        raise _bad(path, f"{MODEL} must name the file {WEIGHTS} and no other")
    said = entry.get("bytes")
    if not isinstance(said, int) or said > members * network.size * network.dtype.itemsize + _MAX_JSON_BYTES:
        raise _bad(path, f"{MODEL} says that {WEIGHTS} has {said} bytes, which its layers do not fill")
    try:
        data = read_file(path / WEIGHTS, most=said)
        if len(data) != said:
            raise _bad(path, f"{WEIGHTS} has {len(data)} bytes; {MODEL} says {said}")
        if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
            raise _bad(path, f"{WEIGHTS} does not have the SHA-256 that {MODEL} says")
        arrays = decode_arrays(data)
    except OSError as error:
        raise _bad(path, f"{WEIGHTS} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise _bad(path, f"{WEIGHTS} is {error}") from None
    named = [dict(_named(network, number, members)) for number in range(members)]
    strange = sorted(arrays.keys() ^ {name for tensors in named for name in tensors})
    if strange:
        where = "has no" if strange[0] not in arrays else "has a strange"
        raise _bad(path, f"{WEIGHTS} {where} tensor {strange[0]!r}")
    for name, tensor in (one for tensors in named for one in tensors.items()):
        found = arrays[name]
        if found.shape != tensor.shape or found.dtype != network.dtype:
            raise _bad(
                path,
                f"{name} should be {network.dtype} of shape {tensor.shape}, but {WEIGHTS} holds"
                f" {found.dtype} of shape {found.shape}",
            )
    vectors = []
    for tensors in named:
        vector = aligned_vector(network.size, network.dtype)
        for name, tensor in tensors.items():
            vector[tensor.start : tensor.stop] = arrays[name].ravel()
        vector.setflags(write=False)
        vectors.append(vector)
    if params_digest(*(vector[: network.parameter_count] for vector in vectors)) != content["params_sha256"]:
        raise _bad(path, "the weights do not have the params_sha256 that it says")
    return vectors
