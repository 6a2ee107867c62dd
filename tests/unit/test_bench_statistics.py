"""The arithmetic of the benchmark of metering: pairs, their change, its error, what holds."""

from __future__ import annotations

import math
from collections import Counter
from itertools import groupby
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.triton.statistics import Block, Change, change_of, plan, quantile

positive = st.floats(0.01, 1e6)
seeds = st.integers(0, 2**32)


def both_of(blocks: list[Block]) -> list[tuple[Block, Block]]:
    pairs = [tuple(both) for _, both in groupby(blocks, key=lambda b: b.pair)]
    return [(first, second) for first, second in pairs]


counts = st.integers(1, 20)


@given(counts, counts, seeds)
def test_a_pair_is_two_blocks_in_a_row_of_one_kind_of_which_one_is_compared(
    pairs: int, noise_pairs: int, seed: int
) -> None:
    both = both_of(list(plan(pairs, noise_pairs, seed)))
    assert [first.pair for first, _ in both] == list(range(pairs + noise_pairs))
    assert all(first.noise is second.noise for first, second in both)
    assert all(first.compared is not second.compared for first, second in both)
    assert Counter(first.noise for first, _ in both) == {False: pairs, True: noise_pairs}


@given(counts, counts, seeds)
def test_the_compared_block_comes_first_in_half_of_the_pairs_of_either_kind(
    pairs: int, noise_pairs: int, seed: int
) -> None:
    both = both_of(list(plan(pairs, noise_pairs, seed)))
    for noise, count in ((False, pairs), (True, noise_pairs)):
        first = sum(a.compared for a, _ in both if a.noise is noise)
        assert abs(2 * first - count) <= count % 2


@given(counts, counts, seeds)
def test_only_the_compared_block_of_a_pair_that_is_no_noise_is_on(
    pairs: int, noise_pairs: int, seed: int
) -> None:
    blocks = list(plan(pairs, noise_pairs, seed))
    assert sum(b.on for b in blocks) == pairs
    assert not any(b.on for b in blocks if b.noise or not b.compared)


def test_one_seed_gives_one_order_and_another_seed_another() -> None:
    assert list(plan(10, 5, 1)) == list(plan(10, 5, 1))
    assert list(plan(10, 5, 1)) != list(plan(10, 5, 2))


def test_a_change_is_of_the_mean_ratio_and_its_error_falls_with_the_root_of_the_pairs() -> None:
    change = change_of([(99.0, 100.0), (97.0, 100.0)])
    assert change.percent == pytest.approx(100 * (math.sqrt(0.99 * 0.97) - 1))
    logs = [math.log(0.99), math.log(0.97)]
    ratio = math.sqrt(0.99 * 0.97)
    assert change.standard_error == pytest.approx(100 * ratio * stdev(logs) / math.sqrt(2))
    fourfold = change_of([(99.0, 100.0), (97.0, 100.0)] * 4)
    assert fourfold.percent == pytest.approx(change.percent)
    assert fourfold.standard_error == pytest.approx(change.standard_error / math.sqrt(7))


@given(st.lists(positive, min_size=2, max_size=9), st.floats(0.5, 2.0))
def test_a_machine_that_is_slow_for_both_of_a_pair_changes_nothing(
    speeds: list[float], ratio: float
) -> None:
    change = change_of([(ratio * speed, speed) for speed in speeds])
    assert change.percent == pytest.approx(100 * (ratio - 1), abs=1e-6)
    assert change.standard_error == pytest.approx(0, abs=1e-6)


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=9))
def test_what_is_compared_the_other_way_round_is_the_reciprocal(
    pairs: list[tuple[float, float]],
) -> None:
    there = change_of(pairs)
    back = change_of([(b, a) for a, b in pairs])
    assert (1 + there.percent / 100) * (1 + back.percent / 100) == pytest.approx(1)


def test_of_one_pair_nothing_is_proved() -> None:
    change = change_of([(100.0, 100.0)])
    assert change.standard_error == math.inf
    assert not change.at_least(-1, 1)
    assert not change.at_most(1, 1)


@pytest.mark.parametrize(
    ("percent", "error", "at_least", "at_most"),
    [
        (0.0, 0.5, True, True),
        (-1.0, 1.0, True, True),
        (-1.01, 0.5, False, True),
        (3.0, 0.5, True, False),
        (0.0, 1.01, False, False),
    ],
    ids=["nothing", "just", "slower", "faster", "unclear"],
)
def test_a_target_holds_if_the_change_is_within_it_and_sure_enough(
    percent: float, error: float, at_least: bool, at_most: bool
) -> None:
    change = Change(percent, error, 10)
    assert change.at_least(-1, 1) is at_least
    assert change.at_most(1, 1) is at_most


@given(st.lists(positive, min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_the_least_value_that_so_many_do_not_exceed(
    values: list[float], q: float
) -> None:
    found = quantile(values, q)
    assert sum(v <= found for v in values) >= q * len(values)
    assert sum(v < found for v in values) < q * len(values)
