"""Arrays and JSON as bytes. A reader gets exactly the content that was written, or an error.

Arrays are stored as safetensors files. JSON has one exact spelling and a digest of itself, so a flipped bit
is found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from distbp.core.arrays import Array

# NumPy's names of the format's dtypes, in the order in which the library puts tensors of different dtypes.
_DTYPES: Mapping[str, str] = MappingProxyType(
    {f"{kind}64": f"{kind[0].upper()}64" for kind in ("uint", "int", "float")}
    | {f"{kind}32": f"{kind[0].upper()}32" for kind in ("float", "uint", "int")}
    | {f"{kind}16": f"{kind[0].upper()}16" for kind in ("float", "uint", "int")}
    | {"int8": "I8", "uint8": "U8", "bool": "BOOL"}
)
_ORDER = tuple(_DTYPES)


def encode_arrays(arrays: Mapping[str, Array]) -> list[memoryview]:
    """The pieces, in order, of a safetensors file that holds the arrays, little-endian.

    An array that is little-endian and C-contiguous is not copied. The format: the header's length as 8 bytes,
    the header as JSON, then the tensors, the widest dtypes first. The safetensors library reads these files;
    its writer is not used, as it copies everything twice. Raises TypeError for a dtype that the format does
    not have.
    """
    ready = {}
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES or name == "__metadata__":
            raise TypeError(f"array {name!r} of dtype {array.dtype} cannot be stored")
        ready[name] = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    header, pieces, stop = {}, [], 0
    for name in sorted(ready, key=lambda name: (_ORDER.index(ready[name].dtype.name), name)):
        array = ready[name]
        start, stop = stop, stop + array.nbytes
        code = _DTYPES[array.dtype.name]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [start, stop]}
        pieces.append(array.reshape(-1).view(np.uint8).data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return [memoryview(len(text).to_bytes(8, "little") + text), *pieces]


def decode_arrays(data: bytes) -> dict[str, Array]:
    """The arrays of a safetensors file, by name; copy one before you write to it. Raises ValueError."""
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"not a safetensors file that holds NumPy arrays: {error}") from None


def canonical_json(content: Mapping[str, Any]) -> bytes:
    """The only spelling of a JSON object that distbp writes, and accepts, in files that it verifies."""
    return (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()


def sealed_json(content: Mapping[str, Any]) -> bytes:
    """`canonical_json` with a `digest` added: the SHA-256 of the text without it."""
    return canonical_json({**content, "digest": hashlib.sha256(canonical_json(content)).hexdigest()})


def unseal_json(data: bytes) -> dict[str, Any]:
    """The object that `sealed_json` wrote, without its digest. Raises ValueError if any bit differs."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(content, dict) or canonical_json(content) != data:
        raise ValueError("was changed after it was written")
    digest = content.pop("digest", None)
    if digest != hashlib.sha256(canonical_json(content)).hexdigest():
        raise ValueError("does not match its own digest")
    return content
