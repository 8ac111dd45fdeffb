"""Arrays and structures of arrays by their addresses, for compiled code (Numba, optional).

Compiled functions take addresses in place of arrays. Code that unpacks thirty arrays takes longer to compile
than the rest of a function, and every function that passes arrays on contains such code.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, models, register_model
from numba.extending import lower_getattr_generic as _lower_getattr_generic
from numba.np import arrayobj as _arrayobj

from distbp.core.arrays import Array
from distbp.machine.pointers import allocate, emits, intrinsic

arrayobj: Any = _arrayobj
pack: Any = cgutils.pack_array
lowered: Any = _lower_getattr_generic
WORD = ir.IntType(64)


def _kind(dtype: Any, axes: int) -> Any:
    return types.Array(dtype, axes, "C")


# The types of a structure's fields: C-contiguous arrays with a dtype and a number of axes.
Wholes = Annotated[Array, _kind(types.int64, 1)]
WholeTable = Annotated[Array, _kind(types.int64, 2)]
Singles = Annotated[Array, _kind(types.float32, 2)]
Doubles = Annotated[Array, _kind(types.float64, 1)]
DoubleTable = Annotated[Array, _kind(types.float64, 2)]
DoubleSeries = Annotated[Array, _kind(types.float64, 4)]


def address(array: Array) -> int:
    """The address of an array's first value. Keep the array while the address is used."""
    return int(array.__array_interface__["data"][0])


class Placed(NamedTuple):
    """A structure in memory. Its words lie at the address `at`: the address and shape of each array, and the
    bits of each number. This object keeps the arrays alive."""

    at: int
    words: Array
    structure: tuple[Any, ...]


def placed(structure: Any) -> Placed:
    """A structure (a NamedTuple) for compiled code. Raises TypeError if an array does not have the dtype and
    the axes that the class names, or is not C-contiguous."""
    words: list[int] = []
    for name, value, kind in zip(structure._fields, structure, _kinds(structure.__class__), strict=True):
        if not isinstance(kind, types.Array):
            words.append(value if kind == types.int64 else int(np.float64(value).view(np.int64)))
        elif value.dtype != kind.dtype.name or value.ndim != kind.ndim or not value.flags.c_contiguous:
            raise TypeError(f"{name} is {value.dtype} {value.shape}; compiled code takes {kind}")
        else:
            words += (address(value), *value.shape)
    found = np.array(words, np.int64)
    return Placed(address(found), found, structure)


@functools.cache
def _kinds(structure: Any) -> list[Any]:
    hints = get_type_hints(structure, include_extras=True)
    plain = {int: types.int64, float: types.float64}
    return [plain[hint] if hint in plain else get_args(hint)[1] for hint in hints.values()]


class _Structure(types.Type):
    """Numba's type of a structure in memory. Compiled code has its address, and loads a field when it reads
    it. A tuple of thirty arrays would be copied whole at each use of one array."""

    bitwidth = 64

    def __init__(self, structure: Any) -> None:
        self.kinds = dict(zip(structure._fields, _kinds(structure), strict=True))
        super().__init__(f"{structure.__module__}.{structure.__qualname__}")


class _Fields(AttributeTemplate):
    key = _Structure

    def generic_resolve(self, value: Any, attr: str) -> Any:  # type: ignore[override]
        return value.kinds.get(attr)


_modelled: Any = register_model(_Structure)
_modelled(models.IntegerModel)
_inferred: Any = infer_getattr
_inferred(_Fields)


@lowered(_Structure)  # type: ignore[untyped-decorator]
def _field(context: Any, builder: Any, found: _Structure, value: Any, wanted: str) -> Any:
    place = 0
    for name, kind in found.kinds.items():
        axes = kind.ndim if isinstance(kind, types.Array) else 0
        if name == wanted:
            break
        place += 1 + axes
    if not isinstance(kind, types.Array):
        return load(builder, value, place, context.get_value_type(kind))
    start, *shape = (load(builder, value, place + i) for i in range(1 + axes))
    return array_at(context, builder, kind, start, shape)


def reader(structure: Any) -> Any:
    """An intrinsic that takes an address and returns the structure whose words (see `Placed`) lie there."""
    made = _Structure(structure)

    def read(context: Any, address: Any) -> Any:
        return made(types.int64), lambda context, builder, signature, values: values[0]

    return intrinsic(read)


def load(builder: Any, address: Any, number: int, kind: ir.Type = WORD) -> Any:
    """Loads the word with this number, from 0, at an address. kind: the type of the result."""
    place = builder.inttoptr(address, kind.as_pointer())
    return builder.load(builder.gep(place, [WORD(number)]) if number else place)


def array_at(context: Any, builder: Any, kind: Any, address: Any, shape: Any) -> Any:
    """The C-contiguous array of type `kind` at an address. shape: a value for each axis.

    Every op contains these instructions. Numba's own functions for this take longer to compile than the rest
    of an op."""
    size = WORD(kind.dtype.bitwidth // 8)
    strides, items = [size], shape[-1]
    for width in reversed(shape[1:]):
        strides.insert(0, builder.mul(width, strides[0]))
    for width in shape[:-1]:
        items = builder.mul(items, width)
    model = context.data_model_manager[kind]
    array = ir.Constant(model.get_value_type(), None)  # nobody owns the memory
    for name, value in (
        ("nitems", items),
        ("itemsize", size),
        ("data", builder.inttoptr(address, context.get_value_type(kind.dtype).as_pointer())),
        ("shape", pack(builder, shape)),
        ("strides", pack(builder, strides)),
    ):
        array = builder.insert_value(array, value, model.get_field_position(name))
    return array


@emits(types.int64, types.int64)
def word(builder: Any, address: Any) -> Any:
    """The int64 at an address."""
    return load(builder, address, 0)


@intrinsic  # type: ignore[untyped-decorator]
def address_of(context: Any, array: Any) -> Any:
    """The address of an array's first value, int64. Numba's own addresses are unsigned, so functions would be
    compiled twice, for both types. Keep the array while the address is used."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        found = arrayobj.make_array(signature.args[0])(context, builder, values[0])
        return builder.ptrtoint(found.data, WORD)

    return types.int64(array), code


def _vector(dtype: Any) -> Any:
    kind = types.Array(dtype, 1, "C")

    def view(context: Any, address: Any, count: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return array_at(context, builder, kind, values[0], values[1:])

        return kind(types.int64, types.int64), code

    return intrinsic(view)


# Intrinsics (address, count) that return the `count` numbers at an address as an array.
floats, doubles, wholes = _vector(types.float32), _vector(types.float64), _vector(types.int64)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def stack(context: Any, size: Any) -> Any:
    """The address of `size` bytes on the stack, which are valid until the function returns. size: a literal.
    Numba's own arrays would need its memory manager, which takes longer to compile."""
    if not isinstance(size, types.IntegerLiteral):
        return None

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        room = allocate(builder, ir.IntType(8), size=WORD(size.literal_value))
        room.align = 64
        return builder.ptrtoint(room, WORD)

    return types.int64(size), code
