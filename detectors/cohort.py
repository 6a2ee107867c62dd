"""The model of one cohort: what it is expected to spend, through which factors, how noisily.

The expectation is an exponentially weighted mean of every factor; the noise an exponentially
weighted mean of squared one-step errors, each on a scale where it does not depend on the level:

- volume by Anscombe's root, ``2·√(n + 3/8)``, whose variance is 1 for Poisson arrivals and more
  for bursts (F. J. Anscombe, "The transformation of Poisson, binomial and negative-binomial
  data", Biometrika 35, 1948);
- lengths and GPU time per token by logarithms, whose variance falls with the number of requests;
- price by its logarithm;
- spend by ``ln(1 + USD per hour/scale)``, that stays finite for a cohort that is silent.

A variance that few windows have taught leans on a prior, as one after four windows may be too
small by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from river import stats

from detectors.readings import Judgement, Move, Reading
from metering.costs import Driver
from metering.drivers import CostFactors, decompose, log_mean

ARRIVALS_VARIANCE = 2.0
"""Prior of the volume's variance on Anscombe's scale: 1 is Poisson."""
REQUEST_VARIANCE = 1.0
"""Prior of the variance of one request's log length or log GPU time per token."""
PRICE_VARIANCE = 0.01
PRIOR_WINDOWS = 4.0
MIN_LOG_NOISE = 0.05
"""No logarithm is known better than this: 5 %."""
MAX_ERROR = 3.0
"""A noise learns no error of more than so many standard deviations (winsorised)."""
MIN_REQUEST_VARIANCE = 0.25
"""Nor is one request ever so like another that fewer would do."""
SPEND_VARIANCE = 2.0
"""Of one request's spend, relative to its square: arrival and size, each with 1."""
MIN_SCALE_USD_PER_HOUR = 0.01


class FadedMean:
    """River's exponentially weighted mean, begun at 0 and corrected for that beginning.

    River begins at the first value, which would then outweigh all later ones for long; divided by
    ``1 − (1 − f)ⁿ`` the first values weigh alike (Kingma and Ba 2015, section 3).
    """

    def __init__(self, half_life: float) -> None:
        self.count = 0
        self._keep = 0.5 ** (1.0 / half_life)
        self._mean = stats.EWMean(fading_factor=1.0 - self._keep)
        self._mean.update(0.0)

    def update(self, x: float) -> None:
        self.count += 1
        self._mean.update(x)

    def get(self) -> float:
        if self.count == 0:
            return 0.0
        return float(self._mean.get()) / (1.0 - math.pow(self._keep, self.count))


@dataclass(frozen=True, slots=True)
class _Error:
    """A one-step error ``value`` on its even scale; ``log_change`` is the same as a logarithm.

    The variance of ``value`` is the learned variance over ``weight``, and never below
    ``min_variance``.
    """

    value: float
    log_change: float
    weight: float
    min_variance: float


class CohortModel:
    """Learns calm windows; judges a window without learning it."""

    def __init__(self, half_life_windows: float, scale_usd_per_window: float) -> None:
        self.learned = 0
        self.learned_with_requests = 0
        self._scale = scale_usd_per_window
        self._means = [FadedMean(half_life_windows) for _ in Reading().values]
        noise = 3.0 * half_life_windows
        self._spend_noise = FadedMean(noise)
        self._noise: dict[Driver, FadedMean] = {d: FadedMean(noise) for d in _PRIORS}

    def expected(self) -> Reading:
        return Reading.from_values(tuple(max(0.0, m.get()) for m in self._means))

    def judge(self, observed: Reading, windows_per_hour: float, *, new: bool = False) -> Judgement:
        """Changes nothing. Whether enough was learned for it to mean anything, the caller knows."""
        expected = self.expected()
        before, after = expected.factors, observed.factors
        effects = decompose(before, after)
        moves: dict[Driver, Move] = {}
        for driver, error in _errors(before, after).items():
            sd = math.sqrt(self._variance(driver, error))
            per_log = math.sqrt(before.requests + 0.375) if driver == "volume" else 1.0
            moves[driver] = Move(
                effect_usd_per_hour=effects[driver] * windows_per_hour,
                log_change=error.log_change,
                log_noise=sd / per_log,
                z=error.value / sd,
            )
        spend_z = self._spend_error(before, after) / math.sqrt(self._spend_variance(before, after))
        return Judgement(expected, observed, windows_per_hour, spend_z, moves, new)

    def learn(self, observed: Reading) -> None:
        if self.learned > 0:
            before, after = self.expected().factors, observed.factors
            # The mean of n windows errs too: a one-step error has (n + 1)/n of the variance.
            known = self.learned / (self.learned + 1.0)
            for driver, error in _errors(before, after).items():
                most = MAX_ERROR**2 * self._variance(driver, error)
                squared = min(error.value**2 * known, most)
                self._noise[driver].update(squared * error.weight)
            most = MAX_ERROR**2 * self._spend_variance(before, after)
            squared = min(self._spend_error(before, after) ** 2 * known, most)
            self._spend_noise.update(squared)
        for mean, x in zip(self._means, observed.values, strict=True):
            mean.update(x)
        self.learned += 1
        self.learned_with_requests += observed.factors.requests > 0.0

    def _spend_error(self, before: CostFactors, after: CostFactors) -> float:
        return math.log1p(after.cost_usd / self._scale) - math.log1p(before.cost_usd / self._scale)

    def _variance(self, driver: Driver, error: _Error) -> float:
        learned = _blend(self._noise[driver], _PRIORS[driver])
        return max(learned / error.weight, error.min_variance)

    def _spend_variance(self, before: CostFactors, after: CostFactors) -> float:
        """A handful of requests may cost what they like: the fewer, the wider the noise."""
        prior = MIN_LOG_NOISE**2
        for side in (before, after):
            if side.requests > 0:
                damping = side.cost_usd / (side.cost_usd + self._scale)
                prior = max(prior, damping**2 * SPEND_VARIANCE / side.requests)
        return max(prior, _blend(self._spend_noise, prior))


_PRIORS: dict[Driver, float] = {
    "volume": ARRIVALS_VARIANCE,
    "input_length": REQUEST_VARIANCE,
    "output_length": REQUEST_VARIANCE,
    "gpu_time_per_token": REQUEST_VARIANCE,
    "price": PRICE_VARIANCE,
}


def scale_usd_per_hour(floor_usd_per_hour: float) -> float:
    """Below the floor spend counts as near to nothing; the scale itself can't be 0."""
    return max(floor_usd_per_hour, MIN_SCALE_USD_PER_HOUR)


def _blend(learned: FadedMean, prior: float) -> float:
    n = float(learned.count)
    return (PRIOR_WINDOWS * prior + n * learned.get()) / (PRIOR_WINDOWS + n)


def _errors(before: CostFactors, after: CostFactors) -> dict[Driver, _Error]:
    """A driver that has nothing on one side has no error: it can't be judged."""
    errors: dict[Driver, _Error] = {
        "volume": _Error(
            value=2.0 * (math.sqrt(after.requests + 0.375) - math.sqrt(before.requests + 0.375)),
            log_change=math.log((after.requests + 0.5) / (before.requests + 0.5)),
            weight=1.0,
            min_variance=1.0,
        )
    }
    if before.requests <= 0.0 or after.requests <= 0.0:
        return errors
    requests = min(before.requests, after.requests)
    least = max(MIN_LOG_NOISE**2, MIN_REQUEST_VARIANCE / requests)
    lengths: tuple[tuple[Driver, float, float], ...] = (
        ("input_length", before.input_tokens, after.input_tokens),
        ("output_length", before.output_tokens, after.output_tokens),
    )
    for driver, tokens0, tokens1 in lengths:
        change = math.log1p(tokens1 / after.requests) - math.log1p(tokens0 / before.requests)
        errors[driver] = _Error(change, change, requests, least)
    inputs = log_mean(after.input_cost_usd, before.input_cost_usd)
    outputs = log_mean(after.output_cost_usd, before.output_cost_usd)
    if inputs + outputs <= 0.0:
        return errors
    effects = decompose(
        _carried(before, inputs > 0.0, outputs > 0.0), _carried(after, inputs > 0.0, outputs > 0.0)
    )
    change = effects["gpu_time_per_token"] / (inputs + outputs)
    errors["gpu_time_per_token"] = _Error(change, change, requests, least)
    change = effects["price"] / (inputs + outputs)
    errors["price"] = _Error(change, change, 1.0, MIN_LOG_NOISE**2)
    return errors


def _carried(factors: CostFactors, inputs: bool, outputs: bool) -> CostFactors:
    """Only the terms that cost something before and after have a rate to compare."""
    return CostFactors(
        requests=factors.requests,
        input_tokens=factors.input_tokens if inputs else 0.0,
        output_tokens=factors.output_tokens if outputs else 0.0,
        input_gpu_ns=factors.input_gpu_ns if inputs else 0.0,
        output_gpu_ns=factors.output_gpu_ns if outputs else 0.0,
        input_cost_usd=factors.input_cost_usd if inputs else 0.0,
        output_cost_usd=factors.output_cost_usd if outputs else 0.0,
    )
