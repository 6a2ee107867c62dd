"""Laws of the largest remainder, by which every rule rounds."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.apportion import EQUAL_SPLIT, Work, largest_remainder
from metering.errors import MeteringError

totals = st.integers(0, 10**15)
weights = st.lists(st.integers(0, 10**12), min_size=1, max_size=40)


@given(totals, weights)
def test_parts_sum_to_the_whole(total: int, weights: list[int]) -> None:
    parts = largest_remainder(total, weights)
    assert sum(parts) == total
    assert all(part >= 0 for part in parts)


@given(totals, weights)
def test_no_part_is_a_unit_away_from_its_quota(total: int, weights: list[int]) -> None:
    whole = sum(weights)
    quotas = [
        Fraction(total * w, whole) if whole else Fraction(total, len(weights)) for w in weights
    ]
    for part, quota in zip(largest_remainder(total, weights), quotas, strict=True):
        assert abs(part - quota) < 1


@given(totals, st.lists(st.integers(0, 10**6), min_size=2, max_size=12, unique=True), st.randoms())
def test_permuting_weights_permutes_parts(total: int, weights: list[int], random: object) -> None:
    shuffled = list(range(len(weights)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    straight = largest_remainder(total, weights)
    permuted = largest_remainder(total, [weights[i] for i in shuffled])
    assert permuted == [straight[i] for i in shuffled]


def test_equal_split_ignores_tokens() -> None:
    shares = EQUAL_SPLIT.split(90, [Work(1, 1), Work(1000, 0), Work(0, 5)])
    assert [share.gpu_ns for share in shares] == [30, 30, 30]


def test_weights_that_are_all_zero_count_as_equal() -> None:
    assert largest_remainder(7, [0, 0, 0]) == [3, 2, 2]


@pytest.mark.parametrize(("total", "weights"), [(-1, [1]), (1, [-1, 2]), (1, [])])
def test_what_cannot_be_divided_is_refused(total: int, weights: list[int]) -> None:
    with pytest.raises(MeteringError):
        largest_remainder(total, weights)
