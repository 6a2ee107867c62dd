"""Calibration: known coefficients are found again, and what can't be told is refused by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import nnls as reference_nnls  # type: ignore[import-untyped]  # has none

from metering.calibration import (
    COSTS,
    FEWEST_BATCHES,
    MeasuredBatch,
    NotEnoughBatches,
    NotIdentifiable,
    calibrate,
)
from metering.errors import MeteringError
from metering.leastsquares import Floats, nnls

SEEDS = range(25)
FIXED_NS, INPUT_NS, OUTPUT_NS, STEP_NS = 3_000_000, 22_000, 60_000, 300_000


def workload(
    seed: int,
    *,
    batches: int = 300,
    rule: str = "affine-shapley",
    noise: float = 0.03,
    outliers: float = 0.15,
    true_ns: Mapping[str, float] | None = None,
) -> list[MeasuredBatch]:
    """Batches of 1 to 8 rows; a share of them took up to ten times as long as they should."""
    random = np.random.default_rng(seed)
    true = true_ns or {
        "fixed_ps": FIXED_NS,
        "input_token_ps": INPUT_NS,
        "step_ps": STEP_NS,
        "output_token_ps": OUTPUT_NS,
    }
    found = []
    for _ in range(batches):
        rows = int(random.integers(1, 9))
        inputs = (random.uniform(0, 1, rows) ** 2 * 200).astype(int) + 1
        outputs = (random.uniform(0, 1, rows) ** 2 * 60).astype(int) + 1
        batch = MeasuredBatch(
            0, rows, int(inputs.sum()), int(outputs.sum()), int(inputs.max()), int(outputs.max())
        )
        took = sum(true[name] * of(batch) for name, of in COSTS[rule].items())
        took *= 1 + random.normal(0, noise)
        if random.random() < outliers:
            took *= random.uniform(1.5, 10)
        found.append(batch._replace(gpu_ns=max(0, round(took))))
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rule", ["affine-shapley", "padded-length", "run-to-longest"])
def test_known_coefficients_are_found_within_five_percent_among_outliers(
    rule: str, seed: int
) -> None:
    fit = calibrate(workload(seed, rule=rule, batches=500), rule)
    true = {
        "fixed_ps": FIXED_NS,
        "input_token_ps": INPUT_NS,
        "step_ps": STEP_NS,
        "output_token_ps": OUTPUT_NS,
    }
    assert {n: ps / 1000 for n, ps in fit.coefficients_ps.items()} == {
        n: pytest.approx(true[n], rel=0.05) for n in COSTS[rule]
    }
    assert fit.batches == 500
    assert 0.05 < fit.outliers / fit.batches < 0.2
    assert fit.robust_r_squared is not None
    assert fit.r_squared is not None
    assert fit.robust_r_squared > 0.98 > fit.r_squared


def test_a_third_of_outliers_does_not_drag_the_fit_away() -> None:
    for seed in SEEDS:
        fit = calibrate(workload(seed, batches=400, outliers=0.35))
        assert fit.coefficients_ps["input_token_ps"] == pytest.approx(1000 * INPUT_NS, rel=0.05)


def test_the_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = []
    for seed in range(60):
        fit = calibrate(workload(seed, batches=200))
        for name, true in (("fixed_ps", FIXED_NS), ("output_token_ps", OUTPUT_NS)):
            low, high = fit.coefficients[name].interval_ps
            held.append(low <= 1000 * true <= high)
    assert 0.88 <= np.mean(held) <= 0.995


def test_without_noise_the_fit_is_exact() -> None:
    fit = calibrate(workload(1, noise=0, outliers=0))
    assert fit.coefficients_ps["fixed_ps"] == pytest.approx(1000 * FIXED_NS, rel=1e-6)
    assert fit.r_squared == pytest.approx(1.0)
    assert fit.outliers == 0


@pytest.mark.parametrize("factor", [10**-2, 10**3, 10**6])
def test_the_unit_of_time_changes_nothing_but_the_unit(factor: float) -> None:
    batches = workload(3)
    scaled = [b._replace(gpu_ns=round(b.gpu_ns * factor)) for b in batches]
    one, other = calibrate(batches), calibrate(scaled)
    assert other.coefficients_ps == {
        n: pytest.approx(ps * factor, rel=1e-3) for n, ps in one.coefficients_ps.items()
    }
    assert other.outliers == one.outliers
    assert other.condition == pytest.approx(one.condition)


def test_the_unit_of_tokens_changes_nothing_but_the_unit() -> None:
    batches = workload(4)
    scaled = [b._replace(input_tokens=1000 * b.input_tokens) for b in batches]
    one, other = calibrate(batches).coefficients_ps, calibrate(scaled).coefficients_ps
    assert other["input_token_ps"] == pytest.approx(one["input_token_ps"] / 1000, rel=1e-3)
    assert other["fixed_ps"] == pytest.approx(one["fixed_ps"], rel=1e-3)


def test_too_few_batches_are_refused_with_the_numbers() -> None:
    with pytest.raises(NotEnoughBatches, match=f"29 batches.*{FEWEST_BATCHES}") as refused:
        calibrate(workload(1, batches=29))
    assert (refused.value.batches, refused.value.needed) == (29, FEWEST_BATCHES)
    calibrate(workload(1, batches=FEWEST_BATCHES, noise=0.01, outliers=0))


def noisy(batches: list[MeasuredBatch]) -> list[MeasuredBatch]:
    random = np.random.default_rng(5)
    return [b._replace(gpu_ns=round(b.gpu_ns * random.lognormal(0, 0.05))) for b in batches]


def test_a_constant_workload_is_refused() -> None:
    constant = noisy([MeasuredBatch(50_000_000, 4, 400, 80, 100, 20)] * 500)
    with pytest.raises(NotIdentifiable) as refused:
        calibrate(constant)
    assert refused.value.coefficients == ("fixed_ps", "input_token_ps", "output_token_ps")


def test_requests_that_are_all_alike_tell_the_fixed_part_but_not_input_from_output() -> None:
    alike = [
        MeasuredBatch(FIXED_NS + n * 5_000_000, n, 100 * n, 20 * n, 100, 20)
        for n in (1 + k % 8 for k in range(200))
    ]
    with pytest.raises(NotIdentifiable, match="input_token_ps from output_token_ps") as refused:
        calibrate(noisy(alike))
    assert refused.value.coefficients == ("input_token_ps", "output_token_ps")


def test_a_prompt_of_one_length_in_batches_of_one_is_not_told_from_the_fixed_part() -> None:
    batches = [
        MeasuredBatch(FIXED_NS + 60_000 * (k % 40), 1, 100, k % 40, 100, k % 40) for k in range(200)
    ]
    with pytest.raises(NotIdentifiable) as refused:
        calibrate(noisy(batches))
    assert refused.value.coefficients == ("fixed_ps", "input_token_ps")


def test_a_workload_that_hardly_varies_is_refused_where_noise_hides_it() -> None:
    random = np.random.default_rng(8)
    batches = [
        MeasuredBatch(0, 1, 1000 + int(random.integers(0, 12)), int(random.integers(1, 60)), 0, 0)
        for _ in range(60)
    ]
    measured = [
        b._replace(
            gpu_ns=round(
                (FIXED_NS + INPUT_NS * b.input_tokens + OUTPUT_NS * b.output_tokens)
                * (1 + random.normal(0, 0.03))
            )
        )
        for b in batches
    ]
    with pytest.raises(NotIdentifiable, match="uncertain") as refused:
        calibrate(measured)
    assert refused.value.coefficients == ("fixed_ps", "input_token_ps")


def test_variety_that_is_in_outliers_alone_tells_nothing() -> None:
    constant = [MeasuredBatch(50_000_000, 1, 100, 20, 100, 20)] * 200
    odd = [MeasuredBatch(900_000_000, 1, 3000, 7, 3000, 7), MeasuredBatch(1, 1, 500, 90, 500, 90)]
    with pytest.raises(NotIdentifiable, match="outliers"):
        calibrate(constant + odd)


def test_what_never_occurs_costs_nothing_and_is_said_to_be_unknown() -> None:
    """An embedder makes no output tokens."""
    true = {"fixed_ps": FIXED_NS, "input_token_ps": INPUT_NS, "output_token_ps": 0}
    embeddings = [b._replace(output_tokens=0) for b in workload(2, true_ns=true)]
    fit = calibrate(embeddings)
    assert fit.coefficients["output_token_ps"].ps == 0
    assert fit.coefficients["output_token_ps"].stderr_ps is None
    assert fit.coefficients_ps["input_token_ps"] == pytest.approx(1000 * INPUT_NS, rel=0.05)


def test_a_part_that_costs_nothing_is_never_negative() -> None:
    for seed in SEEDS:
        true = {"fixed_ps": FIXED_NS, "input_token_ps": INPUT_NS, "output_token_ps": 0}
        fit = calibrate(workload(seed, true_ns=true))
        assert 0 <= fit.coefficients["output_token_ps"].ps < 1000 * INPUT_NS / 10


def test_the_order_of_batches_changes_nothing_that_matters() -> None:
    batches = workload(6)
    one, other = calibrate(batches), calibrate(batches[::-1])
    assert other.coefficients_ps == {
        n: pytest.approx(ps, rel=1e-3) for n, ps in one.coefficients_ps.items()
    }


def test_rules_without_coefficients_and_negative_numbers_are_refused() -> None:
    with pytest.raises(MeteringError, match="equal-split"):
        calibrate(workload(1), "equal-split")
    with pytest.raises(MeteringError, match="-1"):
        calibrate([*workload(1), MeasuredBatch(1, 1, -1, 0, 0, 0)])


numbers = st.floats(-100, 100, allow_subnormal=False).map(lambda x: round(x, 3))


@given(
    st.integers(1, 4).flatmap(
        lambda columns: st.integers(columns, 12).flatmap(
            lambda rows: st.tuples(
                arrays(np.float64, (rows, columns), elements=numbers),
                arrays(np.float64, rows, elements=numbers),
            )
        )
    )
)
def test_non_negative_least_squares_are_as_good_as_scipys(problem: tuple[Floats, Floats]) -> None:
    matrix, target = problem
    x = nnls(matrix, target)
    _, best = reference_nnls(matrix, target)
    assert (x >= 0).all()
    assert np.linalg.norm(matrix @ x - target) == pytest.approx(best, rel=1e-6, abs=1e-6)
