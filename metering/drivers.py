"""Why a cohort's cost changed: a product of factors, decomposed into five drivers.

``cost = Σ over input, output of  requests × tokens/request × GPU ns/token × USD/GPU ns``.

The additive LMDI-I decomposition (B. W. Ang, "The LMDI approach to decomposition analysis: a
practical guide", Energy Policy 33, 2005) gives each factor ``x`` of a term ``C`` the effect
``L(C₁, C₀)·ln(x₁/x₀)`` with the logarithmic mean ``L(a, b) = (a − b)/ln(a/b)``. The effects sum to
``C₁ − C₀`` without a residual. Zeros are taken to their analytical limits (R. Wood and M. Lenzen,
"Zero-value problems of the logarithmic mean divisia index decomposition method", Energy Policy
34, 2006). Floats begin here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

from metering.costs import DRIVERS, Driver, WindowRow

_Levels = tuple[float, float, float, float]
"""requests, tokens, GPU ns, USD: each divided by the one before it is a factor of the cost."""


@dataclass(frozen=True, slots=True)
class CostFactors:
    """What a cohort's cost is made of, all for the same span of time; none is negative.

    Requests without a price are in every count but in no cost: where their part grows, USD per
    GPU ns falls. Prompt caching shows as GPU time per token, as ``input_tokens`` has the cached.
    """

    requests: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    input_gpu_ns: float = 0.0
    output_gpu_ns: float = 0.0
    input_cost_usd: float = 0.0
    output_cost_usd: float = 0.0

    @classmethod
    def from_window(cls, row: WindowRow) -> Self:
        """The sums of one window, for the window's span."""
        return cls(*(float(getattr(row, f.name)) for f in fields(cls)))

    @classmethod
    def mean(cls, spans: Sequence[Self]) -> Self:
        """The average of equally long spans; of none of them, nothing was spent."""
        if not spans:
            return cls()
        return cls(
            *(math.fsum(getattr(s, f.name) for s in spans) / len(spans) for f in fields(cls))
        )

    @property
    def cost_usd(self) -> float:
        return self.input_cost_usd + self.output_cost_usd

    @property
    def input_levels(self) -> _Levels:
        return (self.requests, self.input_tokens, self.input_gpu_ns, self.input_cost_usd)

    @property
    def output_levels(self) -> _Levels:
        return (self.requests, self.output_tokens, self.output_gpu_ns, self.output_cost_usd)


def log_mean(a: float, b: float) -> float:
    """``(a − b)/ln(a/b)``, its limit ``a`` where they are equal, 0 where one of them is."""
    if a <= 0.0 or b <= 0.0:
        return 0.0
    low, high = min(a, b), max(a, b)
    if low == high:
        return a
    if high < 2.0 * low:  # near 1 the logarithm of the quotient loses its digits
        return (high - low) / math.log1p((high - low) / low)
    return (high - low) / (math.log(high) - math.log(low))


def decompose(expected: CostFactors, observed: CostFactors) -> dict[Driver, float]:
    """The effect of each driver in USD; together they are ``observed − expected`` cost.

    A new or vanished cohort is all ``volume``. Decompose leaves and add their effects up, rather
    than decompose a sum: a sum's change of mix would look like a change of rates.
    """
    effects: dict[Driver, float] = dict.fromkeys(DRIVERS, 0.0)
    terms: tuple[tuple[Driver, _Levels, _Levels], ...] = (
        ("input_length", expected.input_levels, observed.input_levels),
        ("output_length", expected.output_levels, observed.output_levels),
    )
    for length, before, after in terms:
        drivers: tuple[Driver, ...] = ("volume", length, "gpu_time_per_token", "price")
        for driver, effect in zip(drivers, _effects(before, after), strict=True):
            effects[driver] += effect
    return effects


def _effects(before: _Levels, after: _Levels) -> list[float]:
    old, new = before[-1], after[-1]
    effects = [0.0, 0.0, 0.0, 0.0]
    if old > 0.0 and new > 0.0:
        weight = log_mean(new, old)
        below = 0.0
        for k, (x0, x1) in enumerate(zip(before, after, strict=True)):
            if x0 > 0.0 and x1 > 0.0:
                growth = math.log(x1) - math.log(x0)
                effects[k] = weight * (growth - below)
                below = growth
            # A level that is 0 under a cost that is not says nothing: the next factor bears it.
    elif old != new:
        effects[_first_zero(before if old <= 0.0 else after)] = new - old
    return effects


def _first_zero(levels: _Levels) -> int:
    """The factor that makes a cost 0: the first of the zeros that reach up to the cost."""
    k = len(levels) - 1
    while k > 0 and levels[k - 1] <= 0.0:
        k -= 1
    return k
