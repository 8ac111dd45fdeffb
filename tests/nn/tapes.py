"""Tapes for tests: one op, one layer or one loss on its own, run by NumPy's definitions or compiled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from operands import exact

from distbp.core.arrays import Array, Shape, aligned_vector
from distbp.nn.kernels import NUMPY, Kernels, load
from distbp.nn.layers.base import Backward, Layer, Lowering, Value
from distbp.nn.layers.layouts import arranged, turned
from distbp.nn.losses.base import Loss, lower_loss
from distbp.nn.ops import OPS
from distbp.nn.ops.base import Op
from distbp.nn.program import executor
from distbp.nn.run_tape import NumpyExecutor, matrix
from distbp.nn.tape import BOUND_TOTAL, LONGEST, TOTALS, PlannedTape, Ref, Row, Space, Tape

ROOM = 16  # elements between operands that nobody may write to; with float32 64 bytes
_SPACES = {"f": Space.WORK, "i": Space.POSITION, "d": Space.TOTALS}


def run_op(
    op: Op, operands: Sequence[Array | int], whole: Any = (), real: Any = (), compiled: bool = False
) -> list[Array]:
    """What the operands hold after one call. A whole number instead of one: it is the same as that operand.

    Operands stand apart, between NaN: whoever reads beyond one gets NaN. Raises AssertionError where anything
    was written that the op does not say it writes.
    """
    letters = op.operands
    dtypes = {"i": np.int64, "d": np.float64}
    dtypes["f"] = next(one.dtype for one, at in zip(operands, letters, strict=True) if at in "fF")
    sizes, refs = dict.fromkeys(dtypes, ROOM), []
    for letter, one in zip(letters.lower(), operands, strict=True):
        if isinstance(one, int):
            refs.append(refs[one])
            continue
        rows, columns = one.shape
        refs.append(Ref(_SPACES[letter], sizes[letter], columns, plus=rows))
        sizes[letter] += -(-one.size // ROOM) * ROOM + ROOM
    memory = {letter: aligned_vector(size, dtypes[letter]) for letter, size in sizes.items()}
    for letter, space in memory.items():
        space[:] = -12345 if letter == "i" else np.nan
    views = [matrix(memory[letter], ref, 1) for letter, ref in zip(letters.lower(), refs, strict=True)]
    for view, one in zip(views, operands, strict=True):
        if not isinstance(one, int):
            view[:] = one
    before = {letter: space.copy() for letter, space in memory.items()}
    rows_ = [Row(op, tuple(refs), tuple(whole), tuple(real), 0)]
    spaces = {_SPACES[letter]: space for letter, space in memory.items()}
    if compiled:
        from distbp.nn.run_compiled import CompiledExecutor

        gemm = load("numba").gemm
        assert gemm is not None
        CompiledExecutor(rows_, spaces, gemm(np.dtype(np.float32))).run(1, memory["f"][:1])
    else:
        with np.errstate(all="ignore"):
            NumpyExecutor(rows_, spaces).run(1, memory["f"][:1])
    found = [view.copy() for view in views]
    for letter, ref in zip(letters, refs, strict=True):
        if letter.isupper():
            part = slice(ref.start, ref.start + ref.plus * ref.columns)
            memory[letter.lower()][part] = before[letter.lower()][part]
    for letter, space in memory.items():
        assert space.tobytes() == before[letter].tobytes(), f"{op.name} wrote to what it does not write"
    return found


def tape_product(kernels: Kernels, kind: str, a: Array, b: Array, added: Array | None = None) -> Array:
    """By a tape of one op, as a network's."""
    shape = exact(kind, a, b).shape
    space, refs = aligned_vector(3 * (max(a.size, b.size, math.prod(shape)) + 16), a.dtype), []
    for number, (rows, columns) in enumerate((a.shape, b.shape, shape)):
        refs.append(Ref(Space.WORK, number * len(space) // 3 // 16 * 16, columns, plus=rows))
    views = [space[r.start : r.start + r.plus * r.columns].reshape(r.plus, r.columns) for r in refs]
    views[0][:], views[1][:] = a, b
    views[2][:] = np.nan if added is None else added
    row = Row(OPS[f"product_{kind}"], tuple(refs), (int(added is not None), shape[0]), (), 0)
    executor([row], 1, {Space.WORK: space}, kernels, a.dtype).run(1, space[:1])
    return views[2]


class _Tape:
    """A complete tape with the memory that it works in."""

    def __init__(
        self, plan: PlannedTape, most_rows: int, spaces: dict[Space, Array], dtype: Any, kernels: Kernels
    ) -> None:
        self.plan = plan
        self.work = aligned_vector(plan.work, dtype)
        self.totals = np.zeros(TOTALS + sum(one.units for one in plan.watched))
        self.work[:] = np.nan
        self.position = np.array([0, 0, 7, 10, 0, 0], np.int64)
        changing = {Space.WORK: self.work, Space.TOTALS: self.totals, Space.POSITION: self.position}
        every = {**spaces, **changing}
        self.run = executor(plan.rows, most_rows, every, kernels, np.dtype(dtype)).run

    def read(self, ref: Ref, x: Array) -> Array:
        """A view, valid until the next run."""
        place = self.plan.place(ref)
        return matrix(self.work if place.space == Space.WORK else x.reshape(-1), place, len(x))


class Rig:
    """A layer lowered on its own, over random parameters and running statistics. `index`: its number.
    `lengths`: of the rows."""

    def __init__(
        self,
        layer: Layer,
        input_shape: Shape,
        *,
        rows: int = 6,
        dtype: Any = np.float64,
        training: bool = True,
        wanted: bool = True,
        kernels: Kernels = NUMPY,
        index: int = 2,
        lengths: Array | None = None,
    ) -> None:
        self._lengths = None if lengths is None else np.ascontiguousarray(lengths, dtype)
        rng = np.random.default_rng(12)
        specs, statistics = layer.parameters(input_shape), layer.statistics(input_shape)
        self.output_shape = layer.output_shape(input_shape)
        size = sum(math.prod(s.shape) for s in (*specs, *statistics))
        self.vector, self.gradient = aligned_vector(size, dtype), aligned_vector(size, dtype)
        self.gradient[:] = np.nan
        place, groups = 0, []
        for group in (specs, statistics):
            refs = {}
            for spec in group:
                rows_ = math.prod(spec.shape[:-1])
                refs[spec.name] = Ref(Space.PARAMETERS, place, spec.shape[-1], plus=rows_)
                place += math.prod(spec.shape)
            groups.append((refs, {spec.name: spec.shape for spec in group}))
        self.parameters, self.statistics = (self._views(self.vector, *group) for group in groups)
        self.gradients, self.statistic_sums = (self._views(self.gradient, *group) for group in groups)
        for array in self.parameters.values():
            array[:] = rng.normal(size=array.shape) + 0.1
        for array in self.statistics.values():
            array[:] = rng.random(array.shape) + 0.5
        self._layer, self._input_shape, self._groups = layer, input_shape, [refs for refs, _ in groups]
        self._facts: Any = (rows, np.dtype(dtype), training, wanted, kernels, index)
        self._forward = self._lowered(back=False)
        self._both = self._lowered(back=True) if training else None

    def _views(self, vector: Array, refs: dict[str, Ref], shapes: dict[str, Shape]) -> dict[str, Array]:
        return {name: matrix(vector, ref, 0).reshape(shapes[name]) for name, ref in refs.items()}

    def _lowered(self, back: bool) -> tuple[_Tape, Ref, Ref | None]:
        rows, dtype, training, wanted, kernels, index = self._facts
        tape = Tape(rows, dtype, training)
        parameters, statistics = self._groups
        into = [{n: r._replace(space=Space.GRADIENT) for n, r in group.items()} for group in self._groups]
        low = Lowering(tape, index, (wanted,), parameters, into[0], statistics, into[1], BOUND_TOTAL)
        ends = None if self._lengths is None else Ref(Space.WEIGHTS, 0, 1, 1)
        x = Value(Ref(Space.INPUTS, 0, math.prod(self._input_shape), 1), self._input_shape, ends)
        if ends is not None:
            tape.emit("longest", ends, LONGEST, whole=(self._input_shape[0], 0))
        (given,) = arranged(tape, self._layer, [x])
        made, backward = self._layer.lower(low, given)
        assert made.shape == self.output_shape
        y = turned(tape, made, last=False)
        tape.keep(y.ref)
        dx = self._emit_backward(tape, y, made, given, backward) if back else None
        spaces = {Space.PARAMETERS: self.vector, Space.GRADIENT: self.gradient}
        return _Tape(tape.planned(), rows, spaces, dtype, kernels), y.ref, dx

    def _emit_backward(
        self, tape: Tape, y: Value, made: Value, given: Value, backward: Backward
    ) -> Ref | None:
        dy = tape.work(y.ref.columns)
        tape.emit("copy", Ref(Space.TARGETS, 0, y.ref.columns, 1), dy)
        (d,) = backward(turned(tape, y._replace(ref=dy), made.channels_last).ref)
        if d is None:
            return None
        dx = turned(tape, given._replace(ref=d), last=False).ref
        tape.keep(dx)
        return dx

    @property
    def rows(self) -> list[Row]:
        """Of the tape: forward alone, as for evaluation, where it was lowered for that, else with
        backward."""
        return (self._both or self._forward)[0].plan.rows

    def forward(self, x: Array, step: int = 0, shard: int = 0) -> Array:
        """A view, valid until the next forward."""
        tape, y, _ = self._forward
        tape.position[:2] = step, shard
        tape.run(len(x), x, None, self._lengths)
        return tape.read(y, x).reshape(len(x), *self.output_shape)

    def both(self, x: Array, dy: Array, step: int = 0, shard: int = 0) -> tuple[Array, Array | None]:
        """(y, dx): forward and backward in one run. Views, valid until the next."""
        assert self._both is not None
        tape, y, dx = self._both
        tape.position[:2] = step, shard
        tape.run(len(x), x, dy, self._lengths)
        out = tape.read(y, x).reshape(len(x), *self.output_shape)
        return out, None if dx is None else tape.read(dx, x).reshape(x.shape)

    def live(self) -> list[Array]:
        """The rows in which each unit was not saturated, of each activation that can be, in all runs of
        `both`."""
        assert self._both is not None
        tape = self._both[0]
        return [matrix(tape.totals, one.total, 0)[0] for one in tape.plan.watched]


class LossRig:
    """A loss lowered on its own."""

    def __init__(
        self, loss: Loss, rows: int, outputs: int, dtype: Any = np.float64, kernels: Kernels = NUMPY
    ) -> None:
        tape = Tape(rows, np.dtype(dtype), training=True)
        self._d, self._losses = lower_loss(tape, loss, Ref(Space.INPUTS, 0, outputs, 1))
        tape.keep(self._d, self._losses)
        self._tape = _Tape(tape.planned(), rows, {}, dtype, kernels)

    def __call__(self, y: Array, targets: Array, weights: Array | None = None) -> float:
        """The weighted sum of the rows' losses."""
        self._tape.totals[:] = 0
        with np.errstate(over="ignore"):
            self._tape.run(len(y), y, targets, weights)
        self.gradient = self._tape.read(self._d, y)
        self.losses = self._tape.read(self._losses, y)
        self.weight = float(self._tape.totals[1])
        return float(self._tape.totals[0])
