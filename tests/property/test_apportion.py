"""Laws of apportionment, for any batch."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.apportion import EQUAL_SPLIT, AffineShapley, Work, largest_remainder
from metering.errors import MeteringError

totals = st.integers(0, 10**15)
weights = st.lists(st.integers(0, 10**12), min_size=1, max_size=40)
works = st.lists(
    st.builds(Work, st.integers(0, 200_000), st.integers(0, 20_000)), min_size=1, max_size=64
)
rules = st.one_of(
    st.just(EQUAL_SPLIT),
    st.builds(
        AffineShapley,
        fixed_ps=st.integers(0, 10**12),
        input_token_ps=st.integers(0, 10**9),
        output_token_ps=st.integers(0, 10**9),
    ),
)


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


@given(rules, totals, works)
def test_shares_sum_to_the_batch_and_their_phases_to_each_share(
    rule: AffineShapley, gpu_ns: int, work: list[Work]
) -> None:
    shares = rule.split(gpu_ns, work)
    assert sum(share.gpu_ns for share in shares) == gpu_ns
    for share in shares:
        assert share.input_gpu_ns + share.output_gpu_ns == share.gpu_ns
        assert min(share.gpu_ns, share.input_gpu_ns, share.output_gpu_ns) >= 0


@given(
    st.integers(1, 10**6),
    st.integers(0, 10**4),
    st.integers(0, 10**4),
    st.lists(st.builds(Work, st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=5),
)
def test_affine_weights_are_the_shapley_value_of_an_affine_cost(
    fixed: int, per_input: int, per_output: int, work: list[Work]
) -> None:
    """The mean over all orders of arrival of what each request adds to the cost."""
    rule = AffineShapley(fixed, per_input, per_output)
    n = len(work)
    value = [Fraction(0)] * n
    orders = list(permutations(range(n)))
    for order in orders:
        for place, i in enumerate(order):
            own = per_input * work[i].input_tokens + per_output * work[i].output_tokens
            value[i] += Fraction(own + (fixed if place == 0 else 0), len(orders))
    whole = sum(value)
    gpu_ns = 10**9
    for share, worth in zip(rule.split(gpu_ns, work), value, strict=True):
        assert abs(share.gpu_ns - gpu_ns * worth / whole) < 1


def test_equal_split_ignores_tokens() -> None:
    shares = EQUAL_SPLIT.split(90, [Work(1, 1), Work(1000, 0), Work(0, 5)])
    assert [share.gpu_ns for share in shares] == [30, 30, 30]


def test_weights_that_are_all_zero_count_as_equal() -> None:
    assert largest_remainder(7, [0, 0, 0]) == [3, 2, 2]


@pytest.mark.parametrize(("total", "weights"), [(-1, [1]), (1, [-1, 2]), (1, [])])
def test_what_cannot_be_divided_is_refused(total: int, weights: list[int]) -> None:
    with pytest.raises(MeteringError):
        largest_remainder(total, weights)
