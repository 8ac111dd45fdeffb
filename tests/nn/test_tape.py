"""The tape: memory that is planned once and used again, places within a slice, and both executors on both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbp.core.arrays import aligned_vector
from distbp.nn.kernels import NUMPY, Kernels
from distbp.nn.program import executor
from distbp.nn.run_tape import matrix
from distbp.nn.tape import LINE, LONGEST, TOTALS, PlannedTape, Ref, Space, Tape, position

COLUMNS = 3
UNIT = LINE // 4  # float32 numbers in a cache line
INPUTS = Ref(Space.INPUTS, 0, COLUMNS, 1)

Emitted = tuple[Tape, list[Ref]]


def random_tape(draw: Any, most_rows: int) -> Emitted:
    """Ops on random buffers of several sizes; some write in place, some results are never read again."""
    tape, buffers = Tape(most_rows, np.dtype(np.float32), training=True), []
    start = tape.work(COLUMNS)
    tape.emit("copy", INPUTS, start)
    buffers.append(start)
    for _ in range(draw(st.integers(1, 25))):
        a = draw(st.sampled_from(buffers))
        alike = [
            one for one in buffers if one.shape(most_rows) == a.shape(most_rows) and one.times == a.times
        ]
        kind = draw(st.sampled_from(["add", "multiply", "in place", "sum_rows", "columns", "fill"]))
        if kind in ("add", "multiply"):
            out = tape.like(a)
            tape.emit(kind, a, draw(st.sampled_from(alike)), out)
        elif kind == "in place":
            out = a
            tape.emit("add", a, draw(st.sampled_from(alike)), a)
        elif kind == "sum_rows":
            out = tape.work(a.columns, 0, 1)
            tape.emit("sum_rows", a, out, whole=(0,))
        elif kind == "columns":
            out = tape.work(a.columns + 2, a.times, a.plus)
            tape.emit("fill", out, real=(0.5,))
            tape.emit("copy_columns", a, out, whole=(0, 1, a.columns))
        else:
            out = tape.work(draw(st.integers(1, 20)), draw(st.integers(0, 2)), 1)
            tape.emit("fill", out, real=(0.25,))
        if out not in buffers:
            buffers.append(out)
    return tape, buffers


def results(tape: Tape, read: list[Ref], rows: int, kernels: Kernels) -> list[bytes]:
    plan = tape.planned()
    work = aligned_vector(plan.work, np.float32)
    work[:] = np.nan
    x = np.random.default_rng(rows).normal(size=(rows, COLUMNS)).astype(np.float32)
    executor(plan.rows, rows, {Space.WORK: work}, kernels, np.dtype(np.float32)).run(rows, x)
    found = [matrix(work, plan.place(ref), rows) for ref in read]
    assert not any(np.isnan(one).any() for one in found)
    return [one.tobytes() for one in found]


@given(st.data())
def test_a_run_in_planned_memory_is_a_run_with_every_buffer_apart(data: st.DataObject) -> None:
    most_rows = data.draw(st.integers(1, 9))
    rows = data.draw(st.integers(1, most_rows))
    tape, buffers = random_tape(data.draw, most_rows)
    read = data.draw(st.lists(st.sampled_from(buffers), min_size=1, unique=True))
    tape.keep(*read)
    planned = results(tape, read, rows, NUMPY)
    size = tape.planned().work
    tape.keep(*buffers)
    assert results(tape, read, rows, NUMPY) == planned
    assert tape.planned().work >= size


@given(st.data())
def test_living_buffers_never_overlap(data: st.DataObject) -> None:
    most_rows = data.draw(st.integers(1, 9))
    tape, buffers = random_tape(data.draw, most_rows)
    kept = data.draw(st.lists(st.sampled_from(buffers), unique=True))
    tape.keep(*kept)
    plan = tape.planned()
    lives = []
    for buffer in buffers:
        named = [i for i, row in enumerate(tape.rows) if any(ref.buffer == buffer.buffer for ref in row.refs)]
        first, last = named[0], len(tape.rows) if buffer in kept else named[-1]
        m, n = buffer.shape(most_rows)
        start = plan.place(buffer).start
        assert start % UNIT == 0
        assert 0 <= start <= start + m * n <= plan.work
        lives.append((first, last, start, start + m * n))
    for i, (first, last, start, stop) in enumerate(lives):
        for other_first, other_last, other_start, other_stop in lives[:i]:
            together = first <= other_last and other_first <= last
            assert not together or stop <= other_start or other_stop <= start


def chain(length: int) -> Tape:
    tape = Tape(8, np.dtype(np.float32), training=True)
    last = INPUTS
    for _ in range(length):
        out = tape.work(COLUMNS)
        tape.emit("add", last, last, out)
        last = out
    tape.keep(last)
    return tape


def test_memory_is_used_again() -> None:
    assert chain(50).planned().work == chain(2).planned().work == 2 * -(-8 * COLUMNS // UNIT) * UNIT


def test_live_rows_have_a_place_each_among_the_totals() -> None:
    tape = Tape(8, np.dtype(np.float32), training=True)
    places = [tape.watch(units) for units in (5, 2)]
    assert [(ref.start, ref.columns) for ref in places] == [(TOTALS, 5), (TOTALS + 5, 2)]
    assert [one.total for one in tape.planned().watched] == places


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_steps_of_a_sequence_are_places_in_a_slice(rows: int, kernels: Kernels) -> None:
    """All samples of one step stand together, in slices of any size; a sample's own numbers as rows."""
    steps, features = 4, 3
    tape = Tape(5, np.dtype(np.float32), training=True)
    x = Ref(Space.INPUTS, 0, steps * features, 1)
    ordered, sums = tape.work(features, steps), tape.work(features, steps)
    tape.emit("steps_first", x, ordered)
    tape.emit("copy", ordered.step(0), sums.step(0))
    for step in range(1, steps):
        tape.emit("add", sums.step(step - 1), ordered.step(step), sums.step(step))
    last, flat = tape.work(features, 2), tape.work(1, 2 * features)
    tape.emit("copy", sums.steps(2, 2), last)
    tape.emit("copy", last.reshaped(1, 2 * features), flat)
    tape.keep(sums, last, flat)
    plan: PlannedTape = tape.planned()
    work = aligned_vector(plan.work, np.float32)
    given = np.random.default_rng(0).normal(size=(rows, steps * features)).astype(np.float32)
    executor(plan.rows, rows, {Space.WORK: work}, kernels, np.dtype(np.float32)).run(rows, given)
    expected = given.reshape(rows, steps, features).swapaxes(0, 1).cumsum(axis=0)
    np.testing.assert_array_equal(
        matrix(work, plan.place(sums), rows).reshape(steps, rows, features), expected
    )
    for ref in (last, flat):
        np.testing.assert_array_equal(matrix(work, plan.place(ref), rows).ravel(), expected[2:].ravel())


def test_compiled_code_and_the_tape_agree_on_the_spaces() -> None:
    pytest.importorskip("numba", reason="Numba is not installed")
    from distbp.nn.ops import rows

    assert len(Space) == rows.SPACES
    assert (Space.POSITION, LONGEST.start) == (rows.POSITION, rows.LONGEST)
    assert position(1, 2, 3, 4, 5).tolist()[: rows.LONGEST] == [1, 2, 3, 4, 5]


def test_mistakes_of_a_layer() -> None:
    tape = Tape(8, np.dtype(np.float32), training=True)
    with pytest.raises(ValueError, match="add takes 3 operands, got 1"):
        tape.emit("add", INPUTS)
    with pytest.raises(KeyError, match="subtract"):
        tape.emit("subtract", INPUTS)
