"""The canonical form of a job, and its digest.

Two spellings of the same job have the same digest: defaults written out or not, `1` or `1.0`, keys in any
order, a bare name or a mapping, other names of layers, YAML, JSON or Python. Fields that cannot change a bit
of the weights do not count: `name`, `workers`, `servers`, `audit`, `checkpoint`, and `data.folder`, the place
of the data on one machine. The paths of the data files count, as the job writes them; their contents do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

CANNOT_CHANGE_THE_BITS = ("name", "workers", "servers", "audit", "checkpoint")
FALSE_WHERE_LEFT_OUT = ("clip", "signed")  # fields of data.target and of a category; left out, they are false


def canonical(fields: Mapping[str, Any]) -> str:
    """The canonical form of a job: JSON text that is equal for all its spellings. `fields`: a validated job
    as plain values."""
    kept = {key: value for key, value in fields.items() if key not in CANNOT_CHANGE_THE_BITS}
    kept["data"] = {key: value for key, value in kept["data"].items() if key != "folder"}
    if "type" not in kept["loss"]:  # a mapping from the names of outputs to losses
        kept["loss"] = _placed(kept["loss"], kept["model"]["layers"])
    kept["model"] = {**kept["model"], "layers": _wired(kept["model"]["layers"])}
    for name, usual in (("members", 1), ("restarts", 1), ("bucket_by_length", True)):
        if kept.get(name) == usual:  # left out, so that digests from before these fields stay the same
            del kept[name]
    fold = (kept.get("early_stopping") or {}).get("fold")
    if fold == 0 or (fold == "each" and "members" not in kept):  # the validation set, as if it were left out
        kept["early_stopping"] = {**kept["early_stopping"], "fold": None}
    if kept.get("class_weight") is not None and kept["class_weight"] != "balanced":
        kept["class_weight"] = _by_class(kept["class_weight"])
    for name in ("metrics", "init_keeps"):  # their order does not matter
        if kept.get(name) is not None:
            kept[name] = sorted(set(kept[name]))
    return json.dumps(_normal(kept), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(fields: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical form, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(fields).encode("ascii")).hexdigest()


def _wired(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Layers without names. Inputs are numbers of layers, -1 the data; None stands for the layer above."""
    numbers, wired = {"input": -1}, []
    for index, layer in enumerate(layers):
        sources = [index - 1]
        if layer.get("inputs") is not None:
            sources = [numbers[name] for name in layer["inputs"]]
        numbers[layer.get("name", "")] = index
        inputs = None if sources == [index - 1] else sources
        wired.append({**layer, "name": None, "inputs": inputs})
    return wired


def _placed(losses: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each loss with the number of its layer. The names of outputs stay, because targets have them, too."""
    numbers = {layer.get("name", ""): index for index, layer in enumerate(layers)}
    return {name: {**loss, "layer": numbers[name]} for name, loss in losses.items()}


def _by_class(weights: Any) -> dict[str, float] | None:
    """Class weights by class, from a list or a mapping, without weights of 1; None if none is left."""
    pairs = weights.items() if isinstance(weights, Mapping) else enumerate(weights)
    return {str(label): weight for label, weight in pairs if weight != 1} or None


def _normal(value: Any) -> Any:
    """Plain values in one spelling, without empty options: a new field does not change old digests."""
    if isinstance(value, Mapping):
        said = {str(k): _normal(v) for k, v in value.items() if v is not None and v != {}}
        return {k: v for k, v in said.items() if v is not False or k not in FALSE_WHERE_LEFT_OUT}
    if isinstance(value, list | tuple):
        return [_normal(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1.0 and 1, -0.0 and 0
    return value
