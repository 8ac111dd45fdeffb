from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbp.core.streams import Purpose, Stream, generator

words = st.integers(0, 2**64 - 1)
positions = st.lists(words, max_size=3)


@given(words, st.sampled_from(Purpose), positions)
def test_the_position_in_the_counter_is_philox_itself(
    seed: int, purpose: Purpose, position: list[int]
) -> None:
    # Key (seed, purpose), position in the upper words, the last first: NumPy's own constructor says the same.
    counter = [0, *reversed([*position, 0, 0, 0][:3])]
    reference = np.random.Philox(
        key=np.array([seed, purpose], np.uint64), counter=np.array(counter, np.uint64)
    ).random_raw(9)
    np.testing.assert_array_equal(generator(seed, purpose, *position).bit_generator.random_raw(9), reference)


@given(words, positions, positions, st.integers(0, 9))
def test_a_draw_depends_on_nothing_drawn_before(
    seed: int, first: list[int], then: list[int], odd: int
) -> None:
    stream = Stream(seed, Purpose.ORDER)
    before = stream.at(*first)
    before.random(odd, dtype=np.float32)  # leaves half a word buffered
    before.bit_generator.random_raw(odd)
    again, fresh = stream.at(*then), generator(seed, Purpose.ORDER, *then)
    np.testing.assert_array_equal(again.permutation(20), fresh.permutation(20))
    np.testing.assert_array_equal(again.integers(0, 9, 5, np.uint32), fresh.integers(0, 9, 5, np.uint32))


def test_positions_seeds_and_purposes_are_different_streams() -> None:
    places = [
        generator(1, Purpose.ORDER),
        generator(1, Purpose.ORDER, 1),
        generator(1, Purpose.ORDER, 0, 1),
        generator(1, Purpose.ORDER, 0, 0, 1),
        generator(1, Purpose.ORDER, 2**64 - 1),
        generator(2, Purpose.ORDER),
        generator(1, Purpose.DEAL),
    ]
    assert len({int(place.bit_generator.random_raw()) for place in places}) == len(places)


def test_purposes_keep_their_numbers() -> None:
    # They are in every published result: added to, never renumbered.
    first = ["INITIALIZE", "DEAL", "ORDER", "DROPOUT", "SYNTHETIC", "AUGMENT"]
    assert [p.name for p in Purpose][:6] == first
    assert [int(p) for p in Purpose] == list(range(1, len(Purpose) + 1))


def test_the_first_numbers_stay() -> None:
    found = generator(7, Purpose.DROPOUT, 3, 1, 2).bit_generator.random_raw(2)
    np.testing.assert_array_equal(found, np.array([2564091822812008758, 11930303285855696198], np.uint64))


def test_positions_are_whole_numbers_that_fit() -> None:
    with pytest.raises((OverflowError, ValueError)):
        generator(0, Purpose.ORDER, -1)
    with pytest.raises(OverflowError):
        generator(0, Purpose.ORDER, 2**64)
