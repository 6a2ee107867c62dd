"""Laws of the decomposition into drivers."""

from __future__ import annotations

import math
from dataclasses import astuple, replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from metering.costs import DRIVERS
from metering.drivers import CostFactors, decompose, log_mean

amount = st.one_of(st.just(0.0), st.floats(1e-9, 1e12))
positive = st.floats(1e-6, 1e9)
any_factors = st.builds(CostFactors, *[amount] * 7)
live_factors = st.builds(CostFactors, *[positive] * 7)
NOTHING = CostFactors()


def close(a: float, b: float, *scales: float) -> bool:
    """Equal but for the rounding of sums of numbers as large as ``scales``."""
    return math.isclose(
        a, b, rel_tol=1e-9, abs_tol=1e-11 * max((abs(s) for s in scales), default=0)
    )


@given(any_factors, any_factors)
@example(NOTHING, NOTHING)
@example(CostFactors(5, 10, 0, 7, 0, 1.0, 0), CostFactors(5, 10, 20, 7, 9, 1.0, 3.0))
@example(CostFactors(5, 10, 0, 7, 0, 0.0, 0), CostFactors(5, 10, 0, 7, 0, 2.0, 0))
def test_drivers_sum_to_the_change(expected: CostFactors, observed: CostFactors) -> None:
    effects = decompose(expected, observed)
    assert tuple(effects) == DRIVERS
    assert close(
        math.fsum(effects.values()),
        observed.cost_usd - expected.cost_usd,
        expected.cost_usd,
        observed.cost_usd,
        *effects.values(),
    )


@given(live_factors, live_factors)
def test_time_reversed_the_drivers_change_sign(a: CostFactors, b: CostFactors) -> None:
    there, back = decompose(a, b), decompose(b, a)
    scale = max(map(abs, there.values()))
    assert all(close(there[d], -back[d], scale) for d in DRIVERS)


@given(live_factors)
def test_a_new_cohort_is_all_volume_and_so_is_a_vanished_one(factors: CostFactors) -> None:
    came, went = decompose(NOTHING, factors), decompose(factors, NOTHING)
    assert close(came["volume"], factors.cost_usd)
    assert close(went["volume"], -factors.cost_usd)
    assert all(came[d] == went[d] == 0.0 for d in DRIVERS if d != "volume")


@given(live_factors, st.floats(0.01, 100.0))
def test_one_factor_that_changes_takes_the_whole_change(f: CostFactors, by: float) -> None:
    assume(abs(by - 1.0) > 1e-3)
    scaled = {
        "volume": CostFactors(*(x * by for x in astuple(f))),
        "input_length": replace(
            f,
            input_tokens=f.input_tokens * by,
            input_gpu_ns=f.input_gpu_ns * by,
            input_cost_usd=f.input_cost_usd * by,
        ),
        "output_length": replace(
            f,
            output_tokens=f.output_tokens * by,
            output_gpu_ns=f.output_gpu_ns * by,
            output_cost_usd=f.output_cost_usd * by,
        ),
        "gpu_time_per_token": replace(
            f,
            input_gpu_ns=f.input_gpu_ns * by,
            output_gpu_ns=f.output_gpu_ns * by,
            input_cost_usd=f.input_cost_usd * by,
            output_cost_usd=f.output_cost_usd * by,
        ),
        "price": replace(
            f,
            input_cost_usd=f.input_cost_usd * by,
            output_cost_usd=f.output_cost_usd * by,
        ),
    }
    for driver in DRIVERS:
        effects = decompose(f, scaled[driver])
        change = scaled[driver].cost_usd - f.cost_usd
        for other in DRIVERS:
            assert close(effects[other], change if other == driver else 0.0, f.cost_usd, change)


@given(live_factors)
def test_answers_where_there_were_none_are_output_length(f: CostFactors) -> None:
    without = replace(f, output_tokens=0.0, output_gpu_ns=0.0, output_cost_usd=0.0)
    effects = decompose(without, f)
    assert close(effects["output_length"], f.output_cost_usd)
    assert close(effects["input_length"], 0.0, f.cost_usd)


def test_the_limit_at_zero_is_what_small_numbers_tend_to() -> None:
    """Wood and Lenzen's limits, against the plain formula close to zero."""
    late = CostFactors(100, 5e4, 1e4, 1e12, 2e12, 3.0, 6.0)
    never = CostFactors(100, 5e4, 0.0, 1e12, 0.0, 3.0, 0.0)
    # The effect approaches its limit with 1/ln(ε): ε⁻¹ = 10³⁰⁰ is still some per cent away.
    hardly = replace(never, output_tokens=1e-296, output_gpu_ns=2e-288, output_cost_usd=6e-300)
    exact, near = decompose(never, late), decompose(hardly, late)
    for driver in DRIVERS:
        assert near[driver] == pytest.approx(exact[driver], abs=0.1)


@given(positive, positive)
def test_the_logarithmic_mean_lies_between_geometric_and_arithmetic(a: float, b: float) -> None:
    mean = log_mean(a, b)
    assert mean == log_mean(b, a)
    assert math.sqrt(a) * math.sqrt(b) <= mean * (1 + 1e-9)
    assert mean <= (a + b) / 2 * (1 + 1e-9)


@given(st.lists(live_factors, min_size=1, max_size=5))
def test_the_mean_of_windows_lies_among_them(spans: list[CostFactors]) -> None:
    mean = CostFactors.mean(spans)
    for value, *column in zip(astuple(mean), *map(astuple, spans), strict=True):
        assert min(column) * (1 - 1e-12) <= value <= max(column) * (1 + 1e-12)


def test_the_mean_of_no_windows_is_nothing() -> None:
    assert CostFactors.mean([]) == NOTHING
