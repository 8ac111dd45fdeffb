"""How many threads share a step: as many as are fastest, by a clock that the test turns."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from distbp.engine.thread_choice import LONGEST_PAUSE_S, SURELY_SLOWER, ThreadChoice

CALL_S = 0.05  # between two looks at the clock


def chosen(choice: ThreadChoice, took: Callable[[int, float], float], calls: int, now: float) -> list[int]:
    """The number of threads of each call, from `now` on. took: seconds of a step at a number of threads and a
    time."""
    found = []
    for call in range(calls):
        at = now + CALL_S * call
        which = choice.next(at)
        found.append(choice.counts[which])
        choice.took(which, took(choice.counts[which], at), at)
    return found


@pytest.mark.parametrize(
    ("most", "counts"), [(1, [1]), (2, [2, 1]), (3, [3, 1]), (8, [8, 4, 2, 1]), (12, [12, 6, 3, 1])]
)
def test_the_numbers_that_it_chooses_from(most: int, counts: list[int]) -> None:
    assert ThreadChoice(most).counts == counts


def test_one_thread_is_never_tried_against_another() -> None:
    assert set(chosen(ThreadChoice(1), lambda threads, now: 1.0, 50, 0.0)) == {1}


def test_a_quiet_machine_keeps_all_threads() -> None:
    """A trial of fewer threads costs less and less."""
    choice = ThreadChoice(8)
    numbers = chosen(choice, lambda threads, now: 1 / threads, 1000, 0.0)
    assert numbers[:3] == [8, 4, 8]
    assert set(numbers) == {8, 4}
    assert numbers.count(4) < 15


@pytest.mark.parametrize("best", [8, 4, 2, 1])
def test_it_finds_the_fastest(best: int) -> None:
    numbers = chosen(ThreadChoice(8), lambda threads, now: 1 + abs(threads - best), 20, 0.0)
    assert numbers[7:].count(best) > 8


def test_it_follows_a_machine_that_becomes_busy_and_quiet_again() -> None:
    choice = ThreadChoice(2)

    def busy_for_a_minute(threads: int, now: float) -> float:
        return (50.0 if 60 <= now < 120 else 0.6) if threads == 2 else 1.0

    numbers = chosen(choice, busy_for_a_minute, 3600, 0.0)
    quiet, busy, after = numbers[: round(60 / CALL_S)], numbers[round(60 / CALL_S) : round(120 / CALL_S)], []
    after = numbers[round(120 / CALL_S) :]
    assert quiet.count(1) < 20
    assert busy.count(2) < 20
    first = after.index(2)
    assert first * CALL_S <= LONGEST_PAUSE_S + CALL_S
    assert after[first:].count(1) < 20


def test_a_trial_ends_early_where_it_is_slower() -> None:
    choice = ThreadChoice(2)
    assert choice.limit_s(choice.next(0.0)) == math.inf
    choice.took(0, 0.01, 0.0)
    trial = choice.next(0.0)
    assert choice.counts[trial] == 1
    assert choice.limit_s(trial) == SURELY_SLOWER * 0.01
