"""Laws of the busy time: against a sweep that looks at every nanosecond."""

from __future__ import annotations

import random
import time
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import MeteringError
from metering.overlap import Interval, Settled, divide_busy_time, union_ns


@st.composite
def intervals(draw: st.DrawFn) -> list[Interval]:
    spans = draw(
        st.lists(
            st.tuples(st.integers(0, 120), st.integers(0, 40), st.integers(0, 2)),
            max_size=12,
        )
    )
    return [
        Interval(start, start + length, (f"gpu0_{instance}", n))
        for n, (start, length, instance) in enumerate(spans)
    ]


def by_brute_force(given_intervals: list[Interval]) -> tuple[int, list[Fraction]]:
    """The union's length and each exact share, one nanosecond after the other."""
    shares = [Fraction(0)] * len(given_intervals)
    union = 0
    for moment in range(max((i.end_ns for i in given_intervals), default=0)):
        running = [n for n, i in enumerate(given_intervals) if i.start_ns <= moment < i.end_ns]
        union += bool(running)
        for n in running:
            shares[n] += Fraction(1, len(running))
    return union, shares


@given(intervals())
def test_shares_sum_to_the_union_and_each_is_within_a_nanosecond(
    given_intervals: list[Interval],
) -> None:
    union, exact = by_brute_force(given_intervals)
    wanted = {i.key: share for i, share in zip(given_intervals, exact, strict=True)}
    settled = divide_busy_time(given_intervals)
    assert sum(s.busy_ns for s in settled) == union == union_ns(given_intervals)
    assert Counter(s.interval for s in settled) == Counter(given_intervals)
    for s in settled:
        assert abs(s.busy_ns - wanted[s.interval.key]) < 1
        assert 0 <= s.busy_ns <= s.interval.end_ns - s.interval.start_ns


@given(intervals(), st.randoms())
def test_the_order_in_which_intervals_are_given_changes_nothing(
    given_intervals: list[Interval], shuffling: random.Random
) -> None:
    shuffled = list(given_intervals)
    shuffling.shuffle(shuffled)
    assert divide_busy_time(shuffled) == divide_busy_time(given_intervals)


@given(intervals(), st.integers(-50, 1000))
def test_the_clocks_origin_changes_nothing(given_intervals: list[Interval], shift: int) -> None:
    moved = [
        Interval(i.start_ns + shift + 50, i.end_ns + shift + 50, i.key) for i in given_intervals
    ]
    assert [s.busy_ns for s in divide_busy_time(moved)] == [
        s.busy_ns for s in divide_busy_time(given_intervals)
    ]


def test_two_instances_that_overlap_share_the_time_in_common() -> None:
    one, two = Interval(0, 100, ("m_0", 0)), Interval(60, 200, ("m_1", 0))
    assert divide_busy_time([two, one]) == [Settled(one, 80), Settled(two, 120)]


def test_a_hundred_thousand_intervals_are_no_quadratic_matter() -> None:
    """Four times as many take about four times as long, and far less than sixteen times. The
    shortest of some, for the machine may be busy."""

    def seconds(n: int) -> float:
        draws = random.Random(n)
        spans = []
        for k in range(n):
            start = draws.randrange(n * 50)
            spans.append(Interval(start, start + draws.randrange(300), ("m", k)))
        began = time.process_time()
        settled = divide_busy_time(spans)
        took = time.process_time() - began
        assert sum(s.busy_ns for s in settled) == union_ns(spans)
        return took

    seconds(1000)
    few, many = zip(*((seconds(10_000), seconds(40_000)) for _ in range(3)), strict=True)
    assert min(many) < 10 * min(few)


def test_an_interval_that_ends_before_it_starts_is_refused_by_name() -> None:
    with pytest.raises(MeteringError, match="m_0"):
        divide_busy_time([Interval(5, 4, ("m_0", 0))])
