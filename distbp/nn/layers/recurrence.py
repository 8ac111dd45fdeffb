"""Recurrence: a loop that runs a cell over the steps, from a state of zeros, and a table of cells.

The gates of step t come from a_t = W x_t + R h_(t-1) + b. W, R and b have `units` rows for each gate of the
cell. s is the logistic function:

    elman   h_t = f(a_t)                            Elman, Cognitive Science 14, 1990
    lstm    i, f, g, o = s, s, tanh, s of a_t       Hochreiter and Schmidhuber, Neural Computation 9, 1997;
            c_t = f c_(t-1) + i g                   with the forget gate f: Gers et al., same journal 12, 2000
            h_t = o tanh(c_t)
    gru     r, z = s of a_t                         Cho et al., EMNLP 2014, with the reset gate r outside of
            n = tanh(W_n x_t + b_n + r q_t)         the product, as PyTorch and cuDNN have it
            q_t = R_n h_(t-1) + b_q
            h_t = (1 - z) n + z h_(t-1)

The network is unrolled over the steps: this is backpropagation through time. The cell's backward op
(`distbp.nn.ops.cells`) computes da_t, the gradient of a_t. Then

    dh_t = dy_t + da_(t+1) R                        from the outputs and from the next step
    dW = sum of da_t^T x_t, dR = sum of da_t^T h_(t-1), db = sum of da_t, dx_t = da_t W

In the GRU, the products of da with R and with h have r dn in place of dn, and z dh_(t+1) is added to dh_t.

Inside, all samples of one step lie together, then those of the next step. So the gradient of each weight
matrix is one product, and so is W x for all steps. If W x has many numbers of few terms each, it is computed
step by step, like R h, and used while it lies in a near cache. The second direction of a bidirectional layer
has its own parameters and takes the steps from last to first, without moving data (Schuster and Paliwal,
IEEE Transactions on Signal Processing 45, 1997).

If rows have lengths, the carry past a row's end is 0, and so is its gradient. So the second direction begins
at each row's end with zeros, and padding has no influence. The last state of the first direction is that of
each row's last step; for length 0 it is 0. Steps that no row of the slice has are left out.

If rows are windows of series, the state before the first step is the last state of the previous window. It
counts as a constant, so gradients end there. This is truncated backpropagation through time (Williams and
Peng, Neural Computation 2, 1990), with as many steps forward as back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from distbp.nn.layers.base import ABSENT, Lowering
from distbp.nn.tape import Ref, Tape

Parameters = Mapping[str, Ref]
# W x is computed step by step if it has at least MANY_NUMBERS numbers and W has at most FEW_INPUTS inputs.
# With more inputs, one product for all steps is faster, because it reads W less often.
MANY_NUMBERS, FEW_INPUTS = 1 << 18, 96


class CellStep(NamedTuple):
    """The places of the numbers of one step, each a matrix with the slice's rows. a: W x_t + R h_(t-1), or
    W x_t if the cell is `apart`. u: R h_(t-1) if the cell is `apart`, else the same place as a. h, c: the
    carry after the step. h_before, c_before: the carry before the step."""

    a: Ref
    u: Ref
    h_before: Ref
    c_before: Ref
    h: Ref
    c: Ref


@dataclass(frozen=True)
class RecurrentCell:
    """A row of the table of cells. A cell turns the carry (h, c) and a_t into the carry of the next step.

    `forward` emits this op. `backward` takes dh and dc and emits the gradient of a_t, which overwrites `a`,
    or dh if the state lies in `a` (`in_place`). The gradient of the memory before the step overwrites dc.
    `memory`: whether the cell has c. `apart`: R h is not added to W x, because the last gate adds
    `recurrent_bias` to it. Then the gradient of R h overwrites `u`, and the direct part of the gradient of
    the state before the step overwrites dh.
    """

    gates: int
    forward: Callable[[Tape, CellStep, Parameters], None]
    backward: Callable[[Tape, CellStep, Ref, Ref], None]
    in_place: bool = False
    memory: bool = False
    apart: bool = False

    @property
    def states(self) -> tuple[str, ...]:
        """The names of the states that it carries."""
        return ("h", "c") if self.memory else ("h",)


def _elman(name: str) -> RecurrentCell:
    return RecurrentCell(
        1,
        lambda tape, s, p: tape.emit(name, s.a, p["bias"], s.h, ABSENT),
        lambda tape, s, dh, dc: tape.emit(f"{name}_backward", ABSENT, s.h, dh, ABSENT),
        in_place=True,
    )


CELLS: Mapping[str, RecurrentCell] = MappingProxyType(
    {
        "tanh": _elman("tanh"),
        "relu": _elman("relu"),
        "lstm": RecurrentCell(
            4,
            lambda tape, s, p: tape.emit("lstm_step", s.a, p["bias"], s.c_before, s.c, s.h),
            lambda tape, s, dh, dc: tape.emit("lstm_step_backward", s.a, s.c_before, s.c, dh, dc),
            memory=True,
        ),
        "gru": RecurrentCell(
            3,
            lambda tape, s, p: tape.emit(
                "gru_step", s.a, s.u, p["bias"], p["recurrent_bias"], s.h_before, s.h
            ),
            lambda tape, s, dh, dc: tape.emit("gru_step_backward", s.a, s.u, s.h_before, dh),
            apart=True,
        ),
    }
)


class Direction:
    """Emits a cell over the steps in one order. inputs: (steps * rows, features). ends: the lengths of the
    rows, (rows, 1); None: rows have no lengths. parameters, gradients: places by name. h: the states,
    (steps * rows, units).
    """

    def __init__(
        self,
        low: Lowering,
        cell: RecurrentCell,
        inputs: Ref,
        order: Sequence[int],
        parameters: Parameters,
        gradients: Parameters,
        ends: Ref | None = None,
    ) -> None:
        self._ends = ends
        self._low, self._cell, self._inputs, self._order = low, cell, inputs, order
        self._parameters, self._gradients = parameters, gradients
        tape, steps, self._units = low.tape, len(order), parameters["recurrent_weight"].columns
        before = int(low.carried is not None)  # 1: the carry before the first step lies first
        self._most = inputs.most
        self._hs, self._cs = (tape.work(self._units, before + steps) for _ in range(2))
        self.h, self._c = (self._ending(one.steps(before, steps)) for one in (self._hs, self._cs))
        self._a = self.h if cell.in_place else self._ending(tape.work(cell.gates * self._units, steps))
        self._u = tape.like(self._a) if cell.apart else self._a
        nothing = tape.work(self._units)
        self._first = (self._hs.step(0), self._cs.step(0)) if before else (nothing, nothing)

    @property
    def _backwards(self) -> bool:
        """Whether steps are taken from last to first."""
        return self._order[0] > self._order[-1]

    @property
    def _ends_apart(self) -> bool:
        """Whether the last states of rows may lie at different steps."""
        return self._ends is not None and len(self._order) > 1 and not self._backwards

    def last(self) -> Ref:
        """The last state of each row, (rows, units). Emits the op that picks it, if one is needed."""
        return self._last_of(self.h)

    def _last_of(self, states: Ref) -> Ref:
        if self._ends is None or not self._ends_apart:
            return states.step(self._order[-1])
        out = self._low.tape.work(self._units)
        self._low.tape.emit("take_last", self._ends, states, out)
        return out

    def _ending(self, ref: Ref) -> Ref:
        """A matrix of all steps; if rows have lengths, it ends with the longest row of the slice."""
        return ref._replace(most=self._most)

    def _every_step(self) -> Ref:
        """A new buffer for one number for each unit, row and step."""
        return self._ending(self._low.tape.work(self._units, len(self._order)))

    def _only(self, t: int, *, past: bool = False) -> AbstractContextManager[None]:
        """Ops emitted in this block run only if a row (with `past`: no row) has step t; see `Tape.where`."""
        return self._low.tape.where(t if self._most else None, past=past)

    def _end(self, t: int, *carry: Ref) -> None:
        """Emits carry <- 0 in the rows for which step t is past their end."""
        if self._ends is not None:
            for one in carry:
                self._low.tape.emit("end_rows", self._ends, one, whole=(t,))

    @property
    def _enters_by_steps(self) -> bool:
        """Whether W x is computed step by step: it does not fit in a near cache, and has so few terms that
        writing and reading takes longer than computing."""
        rows, numbers = self._a.shape(self._low.tape.most_rows)
        return len(self._order) > 1 and rows * numbers >= MANY_NUMBERS and self._inputs.columns <= FEW_INPUTS

    def forward(self) -> None:
        tape, order, recur, carried = self._low.tape, self._order, None, self._low.carried
        enter = None
        if self._enters_by_steps:
            enter = self._low.product_with(self._parameters["weight"], tape.most_rows, len(order))
        else:
            self._low.product(self._inputs, self._parameters["weight"], self._a)
        if len(order) > 1 or carried is not None:
            weight = self._parameters["recurrent_weight"]
            recur = self._low.product_with(weight, tape.most_rows, len(order))
        if carried is not None:
            for name, place in zip(self._cell.states, self._first, strict=False):
                carried.load(name, place)
        elif not self._cell.in_place:
            tape.emit("fill", self._first[0], real=(0.0,))
        if self._cell.apart and carried is None:
            tape.emit("fill", self._u.step(order[0]), real=(0.0,))
        for number, t in enumerate(order):
            step = self._step(number)
            carry = (step.h, step.c) if self._cell.memory else (step.h,)
            with self._only(t):
                if enter is not None:
                    enter(self._inputs.step(t), step.a)
                if recur is not None and (number or carried is not None):
                    recur(step.h_before, step.u, add=not self._cell.apart)
                self._cell.forward(tape, step, self._parameters)
                self._end(t, *carry)
            if self._backwards and self._most:
                # This direction begins at the end of the longest row. The state of the step behind it is 0.
                with self._only(t, past=True):
                    for one in carry:
                        tape.emit("fill", one, real=(0.0,))
        if carried is not None:
            for name, states in zip(self._cell.states, (self.h, self._c), strict=False):
                carried.store(name, self._last_of(states))

    def _step(self, number: int) -> CellStep:
        t = self._order[number]
        before = self._first
        if number:
            before = self.h.step(self._order[number - 1]), self._c.step(self._order[number - 1])
        return CellStep(self._a.step(t), self._u.step(t), *before, self.h.step(t), self._c.step(t))

    def backward(self, put: Callable[[Ref], None], every: bool) -> Ref:
        """Emits the backward pass. put: emits the copy of the gradient of the states to a place; of all steps
        if `every`, else of the last step.

        Returns the gradient of W x, (steps * rows, gates * units)."""
        tape, cell, order = self._low.tape, self._cell, self._order
        if self._ends is not None and self._ends_apart and not every:
            put, every = self._put_last(put, self._ends), True
        d = self._every_step() if every or cell.in_place else tape.work(self._units)
        put(d.step(order[-1]) if cell.in_place and not every else d)
        da = d if cell.in_place else self._a
        du = self._u if cell.apart else da
        dc = tape.work(self._units)
        if cell.memory:
            tape.emit("fill", dc, real=(0.0,))
        for number in reversed(range(len(order))):
            t = order[number]
            dh = d.step(t) if every or cell.in_place else d
            if number + 1 < len(order):
                after = order[number + 1]
                with self._only(max(t, after)):
                    if cell.apart and every:
                        tape.emit("add", dh, d.step(after), dh)
                    weight, add = self._parameters["recurrent_weight"], int(every or cell.apart)
                    tape.emit("product_nn", du.step(after), weight, dh, whole=(add,))
            with self._only(t):
                self._end(t, dh, *((dc,) if cell.memory else ()))
                cell.backward(tape, self._step(number), dh, dc)
        self._parameters_backward(da, du)
        return da

    def _put_last(self, put: Callable[[Ref], None], ends: Ref) -> Callable[[Ref], None]:
        """Returns a function that emits the gradient of the states of all steps to a place. put: emits the
        gradient of each row's last state."""

        def all_steps(place: Ref) -> None:
            last = self._low.tape.work(self._units)
            put(last)
            self._low.tape.emit("put_last", ends, last, place)

        return all_steps

    def _parameters_backward(self, da: Ref, du: Ref) -> None:
        tape, low, gradients, steps = self._low.tape, self._low, self._gradients, len(self._order)
        tape.emit("sum_rows", da, gradients["bias"], whole=(0,))
        low.weight_gradient(gradients["weight"], da, self._inputs)
        if low.carried is not None:
            low.weight_gradient(gradients["recurrent_weight"], du, self._ending(self._hs.steps(0, steps)))
        elif steps > 1:
            rows = du.steps(1 - self._backwards, steps - 1)
            before = self.h.steps(int(self._backwards), steps - 1)
            low.weight_gradient(gradients["recurrent_weight"], rows, before)
        else:
            tape.emit("fill", gradients["recurrent_weight"], real=(0.0,))
        if self._cell.apart:
            sums = tape.work(du.columns, 0, 1)
            tape.emit("sum_rows", du, sums, whole=(0,))
            last = (du.columns - self._units, 0, self._units)
            tape.emit("copy_columns", sums, gradients["recurrent_bias"], whole=last)
