"""Training that begins with a model: `init` in a job. Fine-tuning, and training further on other data.

The layers of the model that hold tensors are laid beside those of the job, in order; where type and shapes
are equal the tensors are taken over, running statistics too. All else begins fresh, as without a model, and
every difference is told. The run directory keeps the model in `init/`, so that the run can be begun again,
and verified, whatever becomes of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distbp.core.arrays import Array
from distbp.core.errors import DataError, Fault, JobError, ModelError
from distbp.core.storage import explained, make_folder, read_file, remove_folder, sync_folder, write_durable
from distbp.data.batches import Rows
from distbp.data.safety import resolve
from distbp.engine.starting import start_by_data
from distbp.nn.network import Network, Tensor
from distbp.nn.tape import ENTRY

if TYPE_CHECKING:
    from distbp.engine.blueprint import Blueprint
    from distbp.job import TrainingJob
    from distbp.model.predictor import Model
    from distbp.run.splits import Splits

INIT = "init"
_MOST_BYTES = 1 << 40


def init_folder(job: TrainingJob, folder: Path, *, confined: bool = False) -> Path | None:
    """The folder of the model that the job begins with, which may be named by its run directory; None where
    it begins fresh. `folder`: what the job's paths are relative to. Raises JobError."""
    if job.init is None:
        return None
    try:
        place = resolve(folder / (job.data.folder or ""), job.init, confined)
    except DataError as error:
        raise JobError([Fault("init", str(error))]) from None
    return model_folder(place)


def model_folder(path: Path) -> Path:
    """`path`, or the model's folder in it where it is a run directory that has one."""
    inner = path / "model"
    return inner if inner.is_dir() and not (path / "model.json").exists() else path


def check_init(blueprint: Blueprint, splits: Splits, folder: Path | None) -> list[str]:
    """What the job takes over from the model in `folder`, and what not: notes. Raises JobError where that is
    no model, or nothing of it fits."""
    if folder is None:
        return []
    from distbp.model.folder import load_model

    try:
        model = load_model(folder)
    except ModelError as error:
        raise JobError([Fault("init", str(error))]) from None
    if model.others:
        text = (
            f"the model in {folder} has {len(model.vectors)} members, and a network begins with one: name"
            " that of a member, RUN_DIR/members/0"
        )
        raise JobError([Fault("init", text)])
    network = blueprint.network()
    taken, notes = _taken(network, model.network)
    if not taken:
        text = f"no layer of the model in {folder} fits this network: {'; '.join(notes)}"
        raise JobError([Fault("init", text)])
    return [_summary(folder.name, taken, model), *notes, *_prepared(splits, model)]


def keep_init(source: Path | None, run_dir: Path) -> None:
    """Copies the model in `source` to the run directory, whole or not at all; nothing where it is there."""
    target = run_dir / INIT
    if source is None or target.is_dir():
        return
    from distbp.model.folder import MODEL, WEIGHTS

    new = run_dir / f".new-{INIT}"
    with explained(target):
        if new.exists():
            remove_folder(new)
        make_folder(new)
        for name in (MODEL, WEIGHTS):
            write_durable(new / name, [read_file(source / name, most=_MOST_BYTES)])
        sync_folder(new)
        new.rename(target)
        sync_folder(run_dir)


TrainingRows = Callable[[], tuple[Rows, int]]  # the training rows, and how many they are


def first_weights(network: Network, seed: int, run_dir: Path, rows: TrainingRows) -> Array:
    """The flat vector that the run begins with: drawn, by the data where initializers look at them, and then
    what its `init/` gives."""
    return weights_from(network, seed, run_dir / INIT if (run_dir / INIT).is_dir() else None, rows)


def weights_from(network: Network, seed: int, folder: Path | None, rows: TrainingRows) -> Array:
    """The flat vector (size,): drawn, by the data, and then what the model in `folder` gives, if any."""
    vector = network.initialize(seed)
    start_by_data(network, vector, seed, rows)
    if folder is not None:
        from distbp.model.folder import load_model

        model = load_model(folder)
        for mine, theirs in _taken(network, model.network)[0]:
            vector[mine.start : mine.stop] = model.vector[theirs.start : theirs.stop]
    return vector


def _taken(network: Network, model: Network) -> tuple[list[tuple[Tensor, Tensor]], list[str]]:
    """Pairs of tensors (the job's, the model's), and what has no partner, in words."""
    mine, theirs = list(_layers(network)), list(_layers(model))
    matcher = SequenceMatcher(None, [key for key, _ in mine], [key for key, _ in theirs], autojunk=False)
    pairs, notes = [], []
    for what, i, stop, j, end in matcher.get_opcodes():
        if what == "equal":
            for (_, new), (_, old) in zip(mine[i:stop], theirs[j:end], strict=True):
                pairs += list(zip(new, old, strict=True))
                if new[0].layer != old[0].layer:
                    notes.append(f"init: layer {new[0].layer} begins with the model's layer {old[0].layer}")
            continue
        notes += [f"init: {_named(layer)} begins fresh" for layer in mine[i:stop]]
        notes += [f"init: the model's {_named(layer)} is not used" for layer in theirs[j:end]]
    return pairs, notes


def _layers(network: Network) -> Iterator[tuple[Any, list[Tensor]]]:
    """Of every layer that holds tensors: its type and their names and shapes, and the tensors."""
    tensors = (*network.tensors, *network.statistics)
    for number in (ENTRY, *range(len(network.layers))):
        held = [tensor for tensor in tensors if tensor.layer == number]
        if held:
            yield (network.layer(number).type, tuple((tensor.name, tensor.shape) for tensor in held)), held


def _named(layer: tuple[Any, list[Tensor]]) -> str:
    (kind, shapes), held = layer
    sizes = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in shapes)
    number = held[0].layer
    return f"{'entry' if number == ENTRY else f'layer {number}'} ({kind}: {sizes})"


def _summary(name: str, taken: list[tuple[Tensor, Tensor]], model: Model) -> str:
    layers = len({mine.layer for mine, _ in taken})
    values = sum(mine.stop - mine.start for mine, _ in taken)
    made_by = f" of {model.facts['name']!r}" if model.facts.get("name") else ""
    return f"init: {layers} layers ({values:,} values) are those of the model{made_by} in {name}"


def _prepared(splits: Splits, model: Model) -> Iterator[str]:
    if splits.preprocessing.to_json() != model.preprocessing.to_json():
        yield (
            "init: inputs are prepared as this job's data says (scale, standardize), which is not how they"
            " were prepared for the model"
        )
    mine, theirs = (None if plan is None else plan.to_json() for plan in (splits.plan, model.plan))
    if mine != theirs:
        yield (
            "init: the columns of the table become other inputs than they did for the model (other columns,"
            " levels or statistics of the training rows)"
        )
