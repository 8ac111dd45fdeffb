"""The tape: a network as one list of simple operations over flat memory.

A layer emits ops (`distbp.nn.ops`) onto the tape; everything that computes runs the list. An op's operands
are matrices, each at a place in one of a few flat memories, the spaces. The number of rows of a matrix is a
linear function of the rows in the slice, so one tape serves slices of any size up to `most_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops import OPS
from distbp.nn.ops.base import Op

ANY_LENGTH = 1 << 32  # more steps than any row has
LINE = 64  # bytes: every buffer begins at a multiple of it, as the last bits of a product may depend on that


class Space(IntEnum):
    """The flat memories that ops address. All but totals, position and labels are of the network's dtype."""

    PARAMETERS = 0
    GRADIENT = 1
    WORK = 2
    INPUTS = 3  # the rows of the slice
    WEIGHTS = 4  # of the rows in the loss; absent: all are 1
    TARGETS = 5  # int64 labels or values
    TOTALS = 6  # float64
    POSITION = 7  # int64: step, shard, seed, steps of the job, and those of the longest row of the slice
    CONSTANTS = 8  # numbers that stand with the tape
    LABELS = 9  # int64, of the outputs that have labels, where there are several outputs
    STATE = 10  # what recurrent layers carry from window to window, where nothing is trained


class Ref(NamedTuple):
    """A matrix of (rows * times + plus, columns) elements in a space, for slices of `rows` rows.

    It begins at element `start + rows * per_row`: of the space, or of the buffer with the number `buffer`
    in the work space, whose place is planned when the tape is complete.

    `most`: the most steps that a row can have, for a matrix with all rows of step 0, then those of step 1.
    Such a matrix ends with the longest row of the slice: `times` is less by the steps that no row has. 0: the
    matrix has all steps.
    """

    space: int
    start: int
    columns: int
    times: int = 0
    plus: int = 0
    per_row: int = 0
    buffer: int = -1
    most: int = 0

    def shape(self, rows: int, longest: int = ANY_LENGTH) -> tuple[int, int]:
        """longest: the steps of the longest row of the slice."""
        times = self.times - max(0, self.most - longest) if self.most else self.times
        return rows * times + self.plus, self.columns

    def reshaped(self, columns: int, times: int) -> Ref:
        """The same elements of every row as `times` rows of `columns`."""
        return self._replace(columns=columns, times=times)

    def step(self, number: int) -> Ref:
        """Of a matrix that holds one matrix of the slice's rows after the other, the one with this number."""
        return self._replace(times=1, per_row=self.per_row + number * self.columns, most=0)

    def steps(self, first: int, count: int) -> Ref:
        """The matrices `first` to `first + count - 1` of such a matrix."""
        return self._replace(times=count, per_row=self.per_row + first * self.columns)


ABSENT = Ref(Space.WORK, 0, 1)  # an operand that is not there: a matrix without rows
LOSS_TOTAL, WEIGHT_TOTAL, BOUND_TOTAL = (Ref(Space.TOTALS, at, 1, plus=1) for at in range(3))
TOTALS = 3  # then the live rows of each unit that can saturate, then what `Tape.total` gave
POSITION = Ref(Space.POSITION, 0, 5, plus=1)  # step, shard, seed, steps of the job, and those before it
LONGEST = Ref(Space.POSITION, 5, 1, plus=1)
SHARD = Ref(Space.POSITION, 1, 1, plus=1)
LOSS, ENTRY = -1, -2  # in place of the number of a layer: of the loss, and of what the data enter by


def position(step: int = 0, shard: int = 0, seed: int = 0, steps: int = 0, past: int = 0) -> Array:
    """The space POSITION, (6,) int64; an op writes the steps of the longest row. past: steps before the
    job."""
    return np.array([step, shard, seed, steps, past, 0], np.int64)


class Row(NamedTuple):
    """One op on the tape. `layer`: the number of the layer that emitted it, or LOSS or ENTRY. `deferred`: a
    product into the gradient that may be computed later. `when`: 0: it always runs; t + 1: only where a row
    of the slice has a step t; -(t + 1): only where none has."""

    op: Op
    refs: tuple[Ref, ...]
    whole: tuple[int, ...]
    real: tuple[float, ...]
    layer: int
    deferred: bool = False
    measured: bool = False
    when: int = 0

    def runs(self, longest: int) -> bool:
        """Whether it runs on a slice whose longest row has so many steps."""
        return self.when == 0 or (self.when <= longest if self.when > 0 else -self.when > longest)

    def of_all_steps(self) -> Row:
        """The same on slices whose longest row has all steps."""
        return self._replace(refs=tuple(ref._replace(most=0) for ref in self.refs), when=0)


class Watched(NamedTuple):
    """The units of a layer whose activation function can saturate, and where their live rows stand in
    TOTALS."""

    layer: int
    units: int
    total: Ref


class PlannedTape(NamedTuple):
    """A complete tape: its rows with the place of every buffer, the elements of the work space, `place`
    from a Ref as emitted to its place, the outputs of activation functions, the space of constants, and the
    elements of the spaces of labels and totals."""

    rows: list[Row]
    work: int
    place: Callable[[Ref], Ref]
    watched: list[Watched]
    constants: Array
    labels: int
    totals: int


@dataclass
class Tape:
    """Collects ops. `most_rows`: of a slice."""

    most_rows: int
    dtype: np.dtype[Any]
    training: bool
    rows: list[Row] = field(default_factory=list)
    layer: int = LOSS
    when: int = 0  # of the rows that are emitted, see `Row`
    watched: list[Watched] = field(default_factory=list)
    _constants: list[Array] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)  # of the buffers, in elements
    _kept: set[int] = field(default_factory=set)
    _labels: int = 0  # columns of them
    _totals: int = 0  # of `total`

    def work(self, columns: int, times: int = 1, plus: int = 0) -> Ref:
        """A new buffer of (rows * times + plus, columns) elements of the network's dtype."""
        self._sizes.append(columns * (self.most_rows * times + plus))
        return Ref(Space.WORK, 0, columns, times, plus, 0, len(self._sizes) - 1)

    def constant(self, values: Array) -> Ref:
        """The place of a matrix (rows, columns) that stands with the tape, in the network's dtype."""
        start = sum(one.size for one in self._constants)
        self._constants.append(np.asarray(values, self.dtype).reshape(-1))
        rows, columns = values.shape
        return Ref(Space.CONSTANTS, start, columns, plus=rows)

    def like(self, ref: Ref) -> Ref:
        """A new buffer of the same shape."""
        return self.work(ref.columns, ref.times, ref.plus)._replace(most=ref.most)

    @contextmanager
    def where(self, step: int | None, *, past: bool = False) -> Iterator[None]:
        """Ops that are emitted within this block run only if a row of the slice has this step, or with
        `past`, if none has. None: they always run."""
        before, self.when = self.when, 0 if step is None else -(step + 1) if past else step + 1
        try:
            yield
        finally:
            self.when = before

    def emit(
        self,
        name: str,
        *refs: Ref,
        whole: Sequence[int] = (),
        real: Sequence[float] = (),
        deferred: bool = False,
        measured: bool = False,
    ) -> None:
        """Appends an op. Raises KeyError for an unknown one, ValueError for a wrong number of operands."""
        op = OPS[name]
        if len(refs) != len(op.operands):
            raise ValueError(f"{name} takes {len(op.operands)} operands, got {len(refs)}")
        self.rows.append(Row(op, refs, tuple(whole), tuple(real), self.layer, deferred, measured, self.when))

    def keep(self, *refs: Ref) -> None:
        """Keeps the contents of these buffers until the end of the tape, where they are read."""
        self._kept.update(ref.buffer for ref in refs if ref.buffer >= 0)

    def watch(self, units: int) -> Ref:
        """A place in TOTALS for the live rows of each of so many units, for the health report."""
        assert not self._totals
        self.watched.append(Watched(self.layer, units, Ref(Space.TOTALS, self._live, units, plus=1)))
        return self.watched[-1].total

    def total(self) -> Ref:
        """A new place in TOTALS, behind those of watched units. After the first call no unit may be
        watched."""
        self._totals += 1
        return Ref(Space.TOTALS, self._live + self._totals - 1, 1, plus=1)

    @property
    def _live(self) -> int:
        """Where the live rows of the watched units end in TOTALS."""
        return TOTALS + sum(one.units for one in self.watched)

    def labels(self) -> Ref:
        """A new column of labels, (rows, 1) int64."""
        self._labels += 1
        return Ref(Space.LABELS, (self._labels - 1) * self.most_rows, 1, 1)

    def planned(self) -> PlannedTape:
        """Where everything stands.

        A buffer is free after the last op that names it, and its place is used again by later ones.
        """
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for number, row in enumerate(self.rows):
            for ref in row.refs:
                if ref.buffer >= 0:
                    first.setdefault(ref.buffer, number)
                    last[ref.buffer] = number
        for buffer in self._kept:
            last[buffer] = len(self.rows)
        starts, size = _places(self._sizes, first, last, LINE // self.dtype.itemsize)

        def placed(ref: Ref) -> Ref:
            return ref if ref.buffer < 0 else ref._replace(start=ref.start + starts[ref.buffer], buffer=-1)

        rows = [row._replace(refs=tuple(placed(ref) for ref in row.refs)) for row in self.rows]
        constants = np.concatenate([np.empty(0, self.dtype), *self._constants])
        totals = self._live + self._totals
        return PlannedTape(
            rows, size, placed, list(self.watched), constants, self._labels * self.most_rows, totals
        )


def _places(
    sizes: Sequence[int], first: dict[int, int], last: dict[int, int], unit: int
) -> tuple[dict[int, int], int]:
    """The start of each buffer, and the size of the space, in elements. In the order of their first ops, each
    buffer gets the first place, a multiple of `unit`, that no buffer in use at the same time has."""
    starts: dict[int, int] = {}
    living: list[tuple[int, int, int]] = []  # (start, stop, last)
    size = 0
    for buffer in sorted(first, key=lambda b: first[b]):
        living = [one for one in living if one[2] >= first[buffer]]
        wanted = -(-sizes[buffer] // unit) * unit
        start = 0
        for begin, end, _ in sorted(living):
            if start + wanted <= begin:
                break
            start = max(start, end)
        starts[buffer] = start
        living.append((start, start + wanted, last[buffer]))
        size = max(size, start + wanted)
    return starts, size


def merged(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The stretches (start, stop) in order, with those that touch joined."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(stretches):
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], stop
        else:
            found.append((start, stop))
    return found
