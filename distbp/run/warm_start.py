"""Training that begins with a model (`init` in a job): fine-tuning, and training on other data.

The layers of the model that hold tensors are aligned with those of the job, in order. Layers of equal type
and shapes take over the model's tensors, with running statistics. All other layers begin fresh, and a note
names each. The run directory keeps the model in `init/`. So the run can be repeated and verified even if the
model is gone.

With `init_keeps: [preparation]` rows are prepared as for the model (`open_splits`), and nothing is fitted.
With `init_keeps: [optimizer]` the optimizer goes on with its state at the end of the model's run, if all of
the network and the optimizer's slots are the same; else its state begins anew. Steps and epochs of the
model's run then count (`Blueprint.past`): the count of updates and the positions of all draws go on, so
training on the same rows is like the next epoch. Schedules are those of the job, and begin with it. `init/`
keeps the state as a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError, Fault, JobError, ModelError
from distbp.core.storage import (
    DISK,
    Disk,
    explained,
    make_folder,
    read_file,
    remove_folder,
    sync_folder,
    write_durable,
)
from distbp.data.batches import Rows
from distbp.data.safety import resolve
from distbp.engine.blueprint import Blueprint, Past
from distbp.engine.starting import start_by_data
from distbp.nn.network import Network, Tensor
from distbp.nn.tape import ENTRY
from distbp.optim.parts import Rule
from distbp.run import checkpoint
from distbp.run.checkpoint import Checkpoint
from distbp.run.run_directory import is_run
from distbp.team.base import SLOTS, slots_in

if TYPE_CHECKING:
    from distbp.job import TrainingJob
    from distbp.model.predictor import Model
    from distbp.run.splits import Splits

INIT, CHECKPOINTS = "init", "checkpoints"
_MOST_BYTES = 1 << 40


def init_folder(job: TrainingJob, folder: Path, *, confined: bool = False) -> Path | None:
    """The folder of the model that the job begins with; None without one. `job.init` may also name a run
    directory. `folder`: what the job's paths are relative to. Raises JobError."""
    if job.init is None:
        return None
    from distbp.model.folder import model_folder

    try:
        place = resolve(folder / (job.data.folder or ""), job.init, confined)
    except DataError as error:
        raise JobError([Fault("init", str(error))]) from None
    return model_folder(place)


def check_init(blueprint: Blueprint, splits: Splits, folder: Path | None) -> list[str]:
    """Notes on what the job takes over from the model in `folder`, and what it does not. Raises JobError if
    there is no model, or if no layer of it fits."""
    if folder is None:
        return []
    model = _loaded(folder)
    network = blueprint.network()
    taken, notes = _taken(network, model.network)
    if not taken:
        text = f"no layer of the model in {folder} fits this network: {'; '.join(notes)}"
        raise JobError([Fault("init", text)])
    return [
        _summary(folder.name, taken, model), *notes, *_prepared(splits, model),
        *_begins_anew(blueprint, taken, folder),
    ]  # fmt: skip


def began_with(job: TrainingJob, folder: Path, init: Path | None, confined: bool) -> Model | None:
    """The model that a job in `folder`, or the run in `folder`, begins with; None without one. init: the
    model's folder, if it is not where the job says. Raises JobError."""
    kept = kept_init(folder) if is_run(folder) else None
    place = init or kept or init_folder(job, folder, confined=confined)
    return None if place is None else _loaded(place)


def _loaded(folder: Path) -> Model:
    """Loads a model to begin with. Raises JobError if there is none, or if it has several members."""
    from distbp.model.folder import load_model

    try:
        model = load_model(folder)
    except ModelError as error:
        raise JobError([Fault("init", str(error))]) from None
    if model.others:
        text = (
            f"the model in {folder} has {len(model.vectors)} members, and a network begins with one; name"
            " that of a member, such as RUN_DIR/members/0"
        )
        raise JobError([Fault("init", text)])
    return model


def kept_init(run_dir: Path) -> Path | None:
    """The folder in a run directory with the model that the run began with; None if there is none."""
    return run_dir / INIT if (run_dir / INIT).is_dir() else None


def keeps_optimizer(job: TrainingJob) -> bool:
    return "optimizer" in (job.init_keeps or ())


def keep_init(source: Path | None, run_dir: Path, *, optimizer: bool, disk: Disk = DISK) -> None:
    """Copies the model in `source` to the run directory, whole or not at all; does nothing if a copy is there
    already. optimizer: copies the optimizer's state too, if there is one beside the model."""
    target = run_dir / INIT
    if source is None or target.is_dir():
        return
    from distbp.model.archive import MODEL, WEIGHTS

    new = run_dir / f".new-{INIT}"
    with explained(target):
        if new.exists():
            remove_folder(new, disk)
        make_folder(new, disk)
        for name in (MODEL, WEIGHTS):
            write_durable(new / name, [read_file(source / name, most=_MOST_BYTES)], disk)
        state = _state_beside(source) if optimizer else None
        if state is not None:
            slots = {SLOTS + name: array for name, array in slots_in(state.arrays).items()}
            past = {"past": state.state["past"]}
            checkpoint.save(new / CHECKPOINTS, state.step, slots, past, disk=disk)
        sync_folder(new, disk)
        disk.rename(new, target)
        sync_folder(run_dir, disk)


ReadsTraining = Callable[[], tuple[Rows, int]]  # returns the training rows and their number


def first_arrays(blueprint: Blueprint, folder: Path | None, rows: ReadsTraining) -> dict[str, Array]:
    """The arrays of the snapshot that a run begins with. "vector" (size,) is drawn by the initializers, some
    of which look at the data; tensors of the model in `folder`, if any, then replace it in part. The
    optimizer's state is added if the run goes on with it."""
    network, seed = blueprint.network(), blueprint.job.seed
    vector = network.initialize(seed)
    start_by_data(network, vector, seed, rows)
    if folder is None:
        return {"vector": vector}
    from distbp.model.folder import load_model

    model = load_model(folder)
    taken = _taken(network, model.network)[0]
    for mine, theirs in taken:
        vector[mine.start : mine.stop] = model.vector[theirs.start : theirs.stop]
    state, _ = _state(blueprint, taken, folder)
    arrays = {"vector": vector}
    for name, values in {} if state is None else slots_in(state.arrays).items():
        arrays[SLOTS + name] = np.empty(network.parameter_count, network.dtype)
        for mine, theirs in taken:
            if mine.stop <= network.parameter_count:  # not a running statistic
                arrays[SLOTS + name][mine.start : mine.stop] = values[theirs.start : theirs.stop]
    return arrays


def going_on(blueprint: Blueprint, folder: Path | None) -> Blueprint:
    """The blueprint with the past of the model in `folder`, if the optimizer goes on with its state."""
    if folder is None or not keeps_optimizer(blueprint.job):
        return blueprint
    from distbp.model.folder import load_model

    taken = _taken(blueprint.network(), load_model(folder).network)[0]
    state, _ = _state(blueprint, taken, folder)
    return blueprint if state is None else replace(blueprint, past=Past(*state.state["past"]))


def past_after(blueprint: Blueprint, step: int) -> Past:
    """The past of a job that goes on with the optimizer's state after `step` steps of this one."""
    before = blueprint.past
    return Past(before.steps + step, before.epochs - (-step // blueprint.steps_per_epoch))


Taken = list[tuple[Tensor, Tensor]]  # pairs of a tensor of the job's network and one of the model's


def _state_beside(folder: Path) -> Checkpoint | None:
    """The last checkpoint of the run whose model is in `folder`, or the state that a run keeps in `init/`;
    None without one."""
    for run in (folder, folder.parent):
        steps = checkpoint.list_steps(run / CHECKPOINTS)
        if steps:
            state = checkpoint.load(run / CHECKPOINTS, steps[-1])
            return state if "past" in state.state else None  # older versions did not record it
    return None


def _state(blueprint: Blueprint, taken: Taken, folder: Path) -> tuple[Checkpoint | None, str]:
    """The state that the optimizer goes on with. If it begins anew: None, and the reason if the job asked for
    the state. Raises JobError if there is no state beside the model."""
    if not keeps_optimizer(blueprint.job):
        return None, ""
    state, network = _state_beside(folder), blueprint.network()
    if state is None:
        text = f"there is no state of an optimizer beside the model in {folder}"
        raise JobError([Fault("init_keeps", f"{text}; name the run directory that trained it in init")])
    theirs, mine = slots_in(state.arrays).keys(), Rule(blueprint.update_rule()).slots.keys()
    if theirs != mine:
        kept, wanted = (", ".join(sorted(names)) or "nothing" for names in (theirs, mine))
        return None, f"it kept {kept}, and {blueprint.job.optimizer.type} keeps {wanted}"
    if not {tensor.path for tensor in network.tensors} <= {tensor.path for tensor, _ in taken}:
        return None, "not all layers begin with those of the model"
    return state, ""


def _taken(network: Network, model: Network) -> tuple[Taken, list[str]]:
    """Pairs of tensors (the job's, the model's), and notes on the layers without a partner."""
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
    """Yields, for every layer that holds tensors, a key (its type, the names and shapes) and the tensors."""
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


def _summary(name: str, taken: Taken, model: Model) -> str:
    layers = len({mine.layer for mine, _ in taken})
    values = sum(mine.stop - mine.start for mine, _ in taken)
    made_by = f" of {model.facts['name']!r}" if model.facts.get("name") else ""
    return f"init: {layers} layers ({values:,} values) are those of the model{made_by} in {name}"


def _begins_anew(blueprint: Blueprint, taken: Taken, folder: Path) -> Iterator[str]:
    _, why = _state(blueprint, taken, folder)
    if why:
        yield f"init: the state of the optimizer begins anew: {why}"


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
