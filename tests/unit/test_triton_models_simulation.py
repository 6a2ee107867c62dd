"""The simulated Llamas: the formula, what follows from it, and how it was fitted."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import MeteringError
from triton_models.simulation import (
    LLAMA_8B,
    LLAMA_70B,
    REFERENCE_BATCH_SIZE,
    REFERENCE_OUTPUT_TOKENS,
    LlamaTiming,
    SimulatedRequest,
)

ROOT = Path(__file__).resolve().parents[2]
TIMINGS = {"llama_8b_sim": LLAMA_8B, "llama_70b_sim": LLAMA_70B}
requests = st.builds(
    lambda given_tokens, cached, output: SimulatedRequest(
        given_tokens, min(given_tokens, cached), output
    ),
    st.integers(1, 2_000),
    st.integers(0, 2_000),
    st.integers(1, 60),
)
batches = st.lists(requests, min_size=1, max_size=8)


@given(batches, st.sampled_from([LLAMA_8B, LLAMA_70B]))
def test_the_closed_form_is_the_sum_over_the_steps(
    batch: list[SimulatedRequest], timing: LlamaTiming
) -> None:
    longest = max(r.output_tokens for r in batch)
    steps_us = [
        timing.step_us
        + timing.step_sequence_us * len(batch)
        + timing.step_context_token_us
        * sum(r.input_tokens + min(step, r.output_tokens) for r in batch)
        for step in range(1, longest)
    ]
    assert timing.decode_ns(batch) == pytest.approx(1_000 * sum(steps_us), abs=1)


@given(batches, requests)
def test_a_request_more_never_makes_a_batch_shorter(
    batch: list[SimulatedRequest], more: SimulatedRequest
) -> None:
    together_ns = LLAMA_70B.batch_ns([*batch, more])
    assert together_ns >= max(LLAMA_70B.batch_ns(batch), LLAMA_70B.batch_ns([more]))


def test_eight_together_are_far_cheaper_than_one_by_one() -> None:
    one = SimulatedRequest(200, 0, 100)
    assert LLAMA_70B.batch_ns([one] * 8) < 2 * LLAMA_70B.batch_ns([one])


def test_cached_tokens_are_not_computed_again() -> None:
    cold, warm = SimulatedRequest(2_000, 0, 10), SimulatedRequest(2_000, 1_900, 10)
    saved_ns = LLAMA_8B.batch_ns([cold]) - LLAMA_8B.batch_ns([warm])
    assert saved_ns == LLAMA_8B.prefill_ns(2_000) - LLAMA_8B.prefill_ns(100)
    assert saved_ns > 30_000_000


def test_no_request_takes_no_time_and_one_token_takes_no_step() -> None:
    assert LLAMA_8B.batch_ns([]) == 0
    assert LLAMA_8B.decode_ns([SimulatedRequest(9, 0, 1)]) == 0


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (SimulatedRequest(0, 0, 1), "INPUT_TOKENS=0"),
        (SimulatedRequest(1, 0, -5), "OUTPUT_TOKENS=-5"),
        (SimulatedRequest(5, 6, 1), "CACHED_INPUT_TOKENS=6"),
        (SimulatedRequest(131_000, 0, 73), "context of 131072"),
    ],
)
def test_what_no_llama_could_be_asked_is_refused(request_: SimulatedRequest, field: str) -> None:
    with pytest.raises(MeteringError, match=field):
        LLAMA_8B.check(request_)
    LLAMA_8B.check(SimulatedRequest(131_000, 131_000, 72))


@pytest.mark.parametrize("model", TIMINGS)
def test_a_models_apportionment_is_what_its_formula_gives(model: str) -> None:
    config = (ROOT / "triton_models" / model / "config.pbtxt").read_text()
    found = dict(re.findall(r'key: "(\w+)" value { string_value: "([^"]+)" }', config))
    expected = TIMINGS[model].apportionment_ps(
        batch_size=REFERENCE_BATCH_SIZE, output_tokens=REFERENCE_OUTPUT_TOKENS
    )
    assert tuple(int(found[k]) for k in ("fixed_ps", "input_token_ps", "output_token_ps")) == (
        expected
    )


@pytest.fixture(scope="module")
def fit() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "fit_llama.py"))


def test_the_fit_finds_the_coefficients_that_made_the_data(fit: dict[str, Any]) -> None:
    made = LlamaTiming(4_096, 9_000.0, 400.0, 30.0, 5_000.0, 70.0, 0.2)
    prefills = {n: made.prefill_ns(n) / 1_000 for n in (64, 128, 512, 1_024, 4_096)}
    floor, base, token, error = fit["fit_prefill"](prefills)
    assert (floor, base, token) == pytest.approx((9_000, 400, 30), rel=1e-3)
    assert error < 1e-3
    steps = [
        fit["Step"](b, c, p, 5_000 + 70 * b + 0.2 * c + 30 * p)
        for b, c, p in ((1, 200, 0), (8, 9_000, 50), (32, 5_000, 9), (64, 40_000, 100))
    ]
    free = fit["fit_steps"](steps, prefill_token_us=30.0)
    held = fit["fit_steps"](steps, prefill_token_us=30.0, context_token_us=0.2)
    assert free[:3] == pytest.approx((5_000, 70, 0.2))
    assert held[:3] == pytest.approx((5_000, 70, 0.2))
