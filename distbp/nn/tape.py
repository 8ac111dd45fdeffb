"""The tape: a network as one list of simple operations over flat memory.

Layers and losses emit ops (`distbp.nn.ops`) onto the tape; an executor runs the list (`run_tape`). The
operands of an op are matrices. Each matrix lies at a place in one of a few flat memories, the spaces. The
number of its rows is a linear function of the rows in the slice, so one tape serves slices of any size up to
`most_rows`.
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
LINE = 64  # bytes; every buffer begins at a multiple of LINE, because a product's last bits may depend on it


class Space(IntEnum):
    """The flat memories that ops address. They have the network's dtype unless a comment names another."""

    PARAMETERS = 0
    GRADIENT = 1
    WORK = 2
    INPUTS = 3  # the rows of the slice; int64 if they are ids
    WEIGHTS = 4  # the weight of each row in the loss; absent: all weights are 1
    TARGETS = 5  # int64 if they are labels of the only output
    TOTALS = 6  # float64
    POSITION = 7  # int64, see `position`
    CONSTANTS = 8  # numbers that belong to the tape
    LABELS = 9  # int64: for a network with several outputs, the labels of those that have labels
    STATE = 10  # in prediction, the states that recurrent layers carry from window to window


class Ref(NamedTuple):
    """A matrix of (rows * times + plus, columns) elements in a space, for slices of `rows` rows.

    The matrix begins at element `start + rows * per_row`. If `buffer` is -1, elements count from the
    beginning of the space; else from the beginning of this buffer in the work space. `Tape.planned` gives
    each buffer its place.

    `most`: the most steps that a row can have, for a matrix that holds all rows of step 0, then all rows of
    step 1, and so on. Such a matrix leaves out the steps that no row of the slice has: `times` shrinks by
    their number. 0: the matrix has all steps.
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
        """The shape (rows, columns) for a slice. longest: the steps of the longest row of the slice."""
        times = self.times - max(0, self.most - longest) if self.most else self.times
        return rows * times + self.plus, self.columns

    def reshaped(self, columns: int, times: int) -> Ref:
        """The same elements in another shape: `times` rows of `columns` numbers for each row of the slice."""
        return self._replace(columns=columns, times=times)

    def step(self, number: int) -> Ref:
        """Part `number`, (rows, columns), of a matrix that holds such parts one after the other."""
        return self._replace(times=1, per_row=self.per_row + number * self.columns, most=0)

    def steps(self, first: int, count: int) -> Ref:
        """The parts `first` to `first + count - 1`, see `step`, as one matrix."""
        return self._replace(times=count, per_row=self.per_row + first * self.columns)


ABSENT = Ref(Space.WORK, 0, 1)  # an operand that is left out: a matrix without rows
LOSS_TOTAL, WEIGHT_TOTAL, BOUND_TOTAL = (Ref(Space.TOTALS, at, 1, plus=1) for at in range(3))
TOTALS = 3  # these totals; then live rows of each unit that can saturate, then the places of `Tape.total`
POSITION = Ref(Space.POSITION, 0, 5, plus=1)  # step, shard, seed, steps of the job, steps before the job
LONGEST = Ref(Space.POSITION, 5, 1, plus=1)
SHARD = Ref(Space.POSITION, 1, 1, plus=1)
LOSS, ENTRY = -1, -2  # stand for the loss and for the entry of the data, in place of a layer's number


def position(step: int = 0, shard: int = 0, seed: int = 0, steps: int = 0, past: int = 0) -> Array:
    """The space POSITION, (6,) int64: step, shard, seed, steps of the job, steps before the job (`past`), and
    the steps of the slice's longest row, which the op `longest` writes."""
    return np.array([step, shard, seed, steps, past, 0], np.int64)


class Row(NamedTuple):
    """One op on the tape. `layer`: the number of the layer that emitted it, or LOSS or ENTRY. `deferred`:
    whether it is a product into the gradient that may be computed later. `when`: 0: the op always runs;
    t + 1: it runs only if a row of the slice has a step t; -(t + 1): only if no row has a step t."""

    op: Op
    refs: tuple[Ref, ...]
    whole: tuple[int, ...]
    real: tuple[float, ...]
    layer: int
    deferred: bool = False
    when: int = 0

    def runs(self, longest: int) -> bool:
        """Whether the op runs on a slice whose longest row has `longest` steps."""
        return self.when == 0 or (self.when <= longest if self.when > 0 else -self.when > longest)

    def of_all_steps(self) -> Row:
        """The op as it runs on slices whose longest row has all steps."""
        return self._replace(refs=tuple(ref._replace(most=0) for ref in self.refs), when=0)


class Watched(NamedTuple):
    """The units of a layer whose activation can saturate. `total`: the place of their counts of live rows."""

    layer: int
    units: int
    total: Ref


class PlannedTape(NamedTuple):
    """A complete tape. `rows`: the ops, with a place for every buffer. `place`: turns a Ref as emitted into a
    Ref with its place. `constants`: the space CONSTANTS. `work`, `labels`, `totals`: the number of elements
    of these spaces."""

    rows: list[Row]
    work: int
    place: Callable[[Ref], Ref]
    watched: list[Watched]
    constants: Array
    labels: int
    totals: int


@dataclass
class Tape:
    """Collects ops. `most_rows`: the most rows of a slice. `training`: whether the ops are those of training.
    `layer`, `when`: those of the rows that are emitted next, see `Row`."""

    most_rows: int
    dtype: np.dtype[Any]
    training: bool
    rows: list[Row] = field(default_factory=list)
    layer: int = LOSS
    when: int = 0
    watched: list[Watched] = field(default_factory=list)
    _constants: list[Array] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)  # of the buffers, in elements
    _kept: set[int] = field(default_factory=set)
    _labels: int = 0  # the number of columns given by `labels`
    _totals: int = 0  # the number of places given by `total`

    def work(self, columns: int, times: int = 1, plus: int = 0) -> Ref:
        """A new buffer of (rows * times + plus, columns) elements of the network's dtype."""
        self._sizes.append(columns * (self.most_rows * times + plus))
        return Ref(Space.WORK, 0, columns, times, plus, 0, len(self._sizes) - 1)

    def constant(self, values: Array) -> Ref:
        """Keeps a matrix (rows, columns) with the tape, in the network's dtype. Returns its place."""
        start = sum(one.size for one in self._constants)
        self._constants.append(np.asarray(values, self.dtype).reshape(-1))
        rows, columns = values.shape
        return Ref(Space.CONSTANTS, start, columns, plus=rows)

    def like(self, ref: Ref) -> Ref:
        """A new buffer with the shape of `ref`."""
        return self.work(ref.columns, ref.times, ref.plus)._replace(most=ref.most)

    @contextmanager
    def where(self, step: int | None, *, past: bool = False) -> Iterator[None]:
        """Ops emitted in this block run only if a row (with `past`: no row) has this step; None: always."""
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
    ) -> None:
        """Appends an op. Raises KeyError for an unknown name, ValueError for a wrong number of operands."""
        op = OPS[name]
        if len(refs) != len(op.operands):
            raise ValueError(f"{name} takes {len(op.operands)} operands, got {len(refs)}")
        self.rows.append(Row(op, refs, tuple(whole), tuple(real), self.layer, deferred, self.when))

    def keep(self, *refs: Ref) -> None:
        """Keeps the contents of these buffers until the end of the tape, so that they can be read then."""
        self._kept.update(ref.buffer for ref in refs if ref.buffer >= 0)

    def watch(self, units: int) -> Ref:
        """A place in TOTALS for the live rows of each unit, for the health report. Call it before `total`."""
        assert not self._totals
        self.watched.append(Watched(self.layer, units, Ref(Space.TOTALS, self._live, units, plus=1)))
        return self.watched[-1].total

    def total(self) -> Ref:
        """A new place in TOTALS, behind those of watched units."""
        self._totals += 1
        return Ref(Space.TOTALS, self._live + self._totals - 1, 1, plus=1)

    @property
    def _live(self) -> int:
        """The place in TOTALS at which the live rows of the watched units end."""
        return TOTALS + sum(one.units for one in self.watched)

    def labels(self) -> Ref:
        """A new column of labels, (rows, 1) int64."""
        self._labels += 1
        return Ref(Space.LABELS, (self._labels - 1) * self.most_rows, 1, 1)

    def planned(self) -> PlannedTape:
        """Gives every buffer its place.

        A buffer is free after the last op that names it. Later buffers then use its place.
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
    """Returns the start of each buffer, and the size of the space, in elements. In the order of their first
    ops, each buffer gets the first place, a multiple of `unit`, that overlaps no buffer in use at that
    time. sizes: by buffer. first, last: the numbers of the first and the last op that use a buffer."""
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
    """The stretches (start, stop) in order. Stretches that touch are joined."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(stretches):
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], stop
        else:
            found.append((start, stop))
    return found
