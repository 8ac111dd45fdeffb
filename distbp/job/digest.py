"""The canonical form of a job, and its digest.

Two spellings of the same job have the same digest: defaults written out or not, `1` or `1.0`, keys in any
order, a bare name or a mapping, other names of layers, YAML, JSON or Python. Left out, as they cannot change
a bit of the weights: `name`, `workers`, `servers`, `audit`, `checkpoint`, and `data.folder`, which says where
the data lies on one machine. What the data files hold is not part of it; their paths, as the job writes them,
are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

CANNOT_CHANGE_THE_BITS = ("name", "workers", "servers", "audit", "checkpoint")
FALSE_WHERE_LEFT_OUT = ("clip", "signed")  # of data.target, of a category


def canonical(fields: Mapping[str, Any]) -> str:
    """JSON text that is the same for every spelling. `fields`: a validated job as plain values."""
    kept = {key: value for key, value in fields.items() if key not in CANNOT_CHANGE_THE_BITS}
    kept["data"] = {key: value for key, value in kept["data"].items() if key != "folder"}
    if "type" not in kept["loss"]:  # of several outputs, which have names
        kept["loss"] = _placed(kept["loss"], kept["model"]["layers"])
    kept["model"] = {**kept["model"], "layers": _wired(kept["model"]["layers"])}
    for name, usual in (("members", 1), ("restarts", 1), ("bucket_by_length", True)):
        if kept.get(name) == usual:  # so that jobs from before these fields keep their digests
            del kept[name]
    if kept.get("class_weight") is not None and kept["class_weight"] != "balanced":
        kept["class_weight"] = _by_class(kept["class_weight"])
    for name in ("metrics", "init_keeps"):  # in any order
        if kept.get(name) is not None:
            kept[name] = sorted(set(kept[name]))
    return json.dumps(_normal(kept), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(fields: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical form, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(fields).encode("ascii")).hexdigest()


def _wired(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Layers without names: their inputs by number, -1 the data, and only where it is not the layer above."""
    numbers, found = {"input": -1}, []
    for index, layer in enumerate(layers):
        sources = [index - 1]
        if layer.get("inputs") is not None:
            sources = [numbers[name] for name in layer["inputs"]]
        numbers[layer.get("name", "")] = index
        inputs = None if sources == [index - 1] else sources
        found.append({**layer, "name": None, "inputs": inputs})
    return found


def _placed(losses: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each loss with the number of its layer. The names stay: they are those of targets."""
    numbers = {layer.get("name", ""): index for index, layer in enumerate(layers)}
    return {name: {**loss, "layer": numbers[name]} for name, loss in losses.items()}


def _by_class(weights: Any) -> dict[str, float] | None:
    """A list and a mapping of class weights say the same; a weight of 1 says nothing."""
    pairs = weights.items() if isinstance(weights, Mapping) else enumerate(weights)
    return {str(label): weight for label, weight in pairs if weight != 1} or None


def _normal(value: Any) -> Any:
    if isinstance(value, Mapping):
        # Without what says nothing, so that a new field that may be left out does not change old digests.
        said = {str(k): _normal(v) for k, v in value.items() if v is not None and v != {}}
        return {k: v for k, v in said.items() if v is not False or k not in FALSE_WHERE_LEFT_OUT}
    if isinstance(value, list | tuple):
        return [_normal(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1.0 and 1, -0.0 and 0
    return value
