"""A set of sequence numbers is a set, whatever the order in which they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metering.sequences import SequenceSet


@given(st.lists(st.integers(0, 60), max_size=120))
def test_it_answers_as_a_set_does(numbers: list[int]) -> None:
    sequences, plain = SequenceSet(), set[int]()
    for number in numbers:
        assert sequences.add(number) == (number not in plain)
        plain.add(number)
    assert {n for a, b in sequences.intervals for n in range(a, b + 1)} == plain
    assert sequences.missing == (max(plain) + 1 - len(plain) if plain else 0)


@given(st.lists(st.integers(0, 60), max_size=120))
def test_intervals_are_apart_and_ascending(numbers: list[int]) -> None:
    sequences = SequenceSet()
    for number in numbers:
        sequences.add(number)
    for (_, end), (start, _) in zip(sequences.intervals, sequences.intervals[1:], strict=False):
        assert start > end + 1


def test_a_source_in_order_takes_one_interval() -> None:
    sequences = SequenceSet()
    for number in range(10_000):
        assert sequences.add(number)
    assert sequences.intervals == [(0, 9_999)]
