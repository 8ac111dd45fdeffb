"""Whose turn it is to train, where several networks wait."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from distbp.team.training_turns import TrainingTurns

COUNT = 6
CALLS = ("next", "next", "next", "enter", "pause", "end", "resize")


@given(
    st.integers(1, 7),
    st.lists(st.tuples(st.sampled_from(CALLS), st.integers(0, COUNT - 1)), max_size=30),
)
def test_the_lowest_numbers_that_are_left_train(may_train: int, calls: list[tuple[str, int]]) -> None:
    turns, training, left = TrainingTurns(COUNT, may_train), set[int](), set(range(COUNT))
    for call, number in calls:
        if call == "next":  # which most calls for
            call, number = "enter", min(left - training, default=COUNT)
        if call == "resize":
            turns.resize(may_train := number + 1)
        elif call == "enter" and number in left:
            first = number == min(left - training, default=None) and len(training) < may_train
            assert turns.enter(number, 0) == (number in training or first)
            training |= {number} if first else set()
        elif call == "pause":
            turns.pause(number)
            training.discard(number)
        elif call == "end":
            turns.end(number)
            training.discard(number)
            left.discard(number)
        assert (turns.training, turns.left) == (len(training), len(left))
        assert turns.at_a_time == min(may_train, len(left))
        assert [n for n in training if not turns.over(n)] == sorted(training)[:may_train]
        assert turns.most_at_a_time >= len(training)


def test_one_that_waits_hears_of_its_turn() -> None:
    turns, trained = TrainingTurns(3, 1), list[int]()

    def train(number: int) -> None:
        assert turns.enter(number, 60)
        trained.append(number)
        turns.end(number)

    threads = [threading.Thread(target=train, args=(number,)) for number in (2, 1)]
    assert turns.enter(0, 0)
    for thread in threads:
        thread.start()
    assert not trained
    turns.end(0)
    for thread in threads:
        thread.join()
    assert trained == [1, 2]
    assert turns.most_at_a_time == 1
