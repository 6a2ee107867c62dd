"""What one can do something about: a driver's likely mechanism, in words.

A quotient that has one mechanism is compared by its size, a rate (retries, cached tokens) by a
binomial likelihood ratio, so that a few requests can't accuse anybody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from detectors.readings import Reading
from metering.costs import Driver
from metering.figures import money, percentage

MIN_BATCH_FALL = 0.3
MIN_RATE_CHANGE = 0.05
MIN_CACHE_FALL = 0.1
LIKELIHOOD_RATIO = 10.83
"""Twice the log likelihood ratio: the 0.999 quantile of χ² with one degree of freedom."""

_UP: dict[Driver, str] = {
    "volume": "more requests",
    "input_length": "longer prompts",
    "output_length": "longer answers",
    "gpu_time_per_token": "slower per token",
    "price": "GPU-hour price",
}
_DOWN: dict[Driver, str] = {
    "volume": "fewer requests",
    "input_length": "shorter prompts",
    "output_length": "shorter answers",
    "gpu_time_per_token": "faster per token",
    "price": "GPU-hour price",
}


def mechanism(driver: Driver, expected: Reading, observed: Reading, *, rise: bool) -> str:
    """``batch under-fill``, ``retries`` …; the driver's plain words where nothing more is known."""
    if not rise:
        return _DOWN[driver]
    if driver == "volume" and _rate_rose(
        _share(expected.retries, expected.factors.requests),
        _share(observed.retries, observed.factors.requests),
        observed.factors.requests,
        MIN_RATE_CHANGE,
    ):
        return "retries"
    if driver == "gpu_time_per_token":
        if _batches_fell(expected, observed):
            return "batch under-fill"
        if _cache_fell(expected, observed):
            return "lower cache hits"
    if driver == "input_length" and _cache_fell(expected, observed):
        return "longer prompts, lower cache hits"
    return _UP[driver]


def lever(
    driver: Driver, words: str, where: Mapping[str, str], share: float, change_usd_per_hour: float
) -> str:
    """``gpu_time_per_token ▸ batch under-fill ▸ {model=llama-8b, tenant=eu} ▸ 83 % of +$41/h``."""
    place = ", ".join(f"{name}={where[name]}" for name in sorted(where))
    change = signed_usd(change_usd_per_hour)
    return f"{driver} ▸ {words} ▸ {{{place}}} ▸ {percentage(share)} of {change}/h"


def signed_usd(amount: float) -> str:
    """``+$41``, ``−$1.20``, ``+$0.0040``: cents below 10 dollars, and what is below cents."""
    return money(amount, decimals=0 if abs(amount) >= 10 else 2, signed=True)


def _share(part: float, whole: float) -> float:
    """With half a case on either side: a share of few is never quite 0 or 1 (Jeffreys). A part that
    is larger than its whole, or below 0, counts as the whole, or nothing."""
    return (min(max(part, 0.0), whole) + 0.5) / (whole + 1.0)


def _rate_rose(before: float, after: float, cases: float, min_rise: float) -> bool:
    """Whether a rate rose: by enough to matter, and by more than chance in so many cases."""
    if after - before < min_rise:
        return False
    divergence = after * math.log(after / before)
    if after < 1.0:
        divergence += (1.0 - after) * math.log((1.0 - after) / (1.0 - before))
    return 2.0 * cases * divergence >= LIKELIHOOD_RATIO


def _cache_fell(expected: Reading, observed: Reading) -> bool:
    """Tokens of a request hit or miss together: cases are requests, not tokens."""
    before, after = expected.factors, observed.factors
    if before.input_tokens <= 0.0 or after.input_tokens <= 0.0:
        return False
    missed_before = 1.0 - expected.cached_input_tokens / before.input_tokens
    missed_after = 1.0 - observed.cached_input_tokens / after.input_tokens
    return _rate_rose(
        _share(missed_before * before.requests, before.requests),
        _share(missed_after * after.requests, after.requests),
        after.requests,
        MIN_CACHE_FALL,
    )


def _batches_fell(expected: Reading, observed: Reading) -> bool:
    before, after = expected.factors.requests, observed.factors.requests
    if before <= 0.0 or after <= 0.0 or expected.batch_size_sum <= 0.0:
        return False
    usual = expected.batch_size_sum / before
    return observed.batch_size_sum / after < (1.0 - MIN_BATCH_FALL) * usual
