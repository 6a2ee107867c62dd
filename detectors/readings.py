"""What a cohort's model sees in a window, and what it says about it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Self

from metering.costs import Driver, WindowRow
from metering.drivers import CostFactors


@dataclass(frozen=True, slots=True)
class Reading:
    """The sums of one cohort in one window, observed or expected."""

    factors: CostFactors = field(default_factory=CostFactors)
    retries: float = 0.0
    batch_size_sum: float = 0.0
    cached_input_tokens: float = 0.0

    @classmethod
    def from_window(cls, row: WindowRow) -> Self:
        return cls(
            CostFactors.from_window(row),
            float(row.retries),
            float(row.batch_size_sum),
            float(row.cached_input_tokens),
        )

    @classmethod
    def from_values(cls, values: tuple[float, ...]) -> Self:
        """The inverse of :attr:`values`."""
        return cls(CostFactors(*values[:7]), *values[7:])

    def towards(self, other: Self, part: float) -> Self:
        """``part`` of the way to another reading."""
        return self.from_values(
            tuple(a + part * (b - a) for a, b in zip(self.values, other.values, strict=True))
        )

    @classmethod
    def total(cls, parts: Iterable[Self]) -> Self:
        columns = zip(*(p.values for p in parts), strict=True)
        return cls.from_values(tuple(math.fsum(c) for c in columns))

    @property
    def values(self) -> tuple[float, ...]:
        return (
            *astuple(self.factors),
            self.retries,
            self.batch_size_sum,
            self.cached_input_tokens,
        )


@dataclass(frozen=True, slots=True)
class Move:
    """How far one driver of one cohort moved, and how sure that is.

    ``effect_usd_per_hour`` is its LMDI effect; ``log_change`` the logarithm of observed over
    expected; ``log_noise`` the standard deviation of such logarithms in calm windows; ``z`` the
    move in standard deviations, on the scale on which this driver's noise is even.
    """

    effect_usd_per_hour: float
    log_change: float
    log_noise: float
    z: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """One cohort in one window against its expectation. ``new``: it never spent before.

    A driver is not in ``moves`` where it can't be judged, as a price without a cost.
    """

    expected: Reading
    observed: Reading
    windows_per_hour: float
    spend_z: float
    moves: Mapping[Driver, Move]
    new: bool = False

    @property
    def expected_usd_per_hour(self) -> float:
        return self.expected.factors.cost_usd * self.windows_per_hour

    @property
    def observed_usd_per_hour(self) -> float:
        return self.observed.factors.cost_usd * self.windows_per_hour

    @property
    def change_usd_per_hour(self) -> float:
        return self.observed_usd_per_hour - self.expected_usd_per_hour

    def confirmed_by(self, before: Self | None) -> Self:
        """With the evidence of the window before: two windows in a row that are ``z`` off are as
        good as one that is ``√2·z`` off (Stouffer). The lesser of the two counts for both, so
        that a lone spike has no echo in the window after it.
        """
        if before is None:
            return self
        moves = {
            driver: replace(move, z=_pooled(move.z, before.moves[driver].z))
            if driver in before.moves
            else move
            for driver, move in self.moves.items()
        }
        return replace(self, spend_z=_pooled(self.spend_z, before.spend_z), moves=moves)


def _pooled(now: float, before: float) -> float:
    if now * before <= 0.0:
        return now
    both = math.copysign(math.sqrt(2.0) * min(abs(now), abs(before)), now)
    return both if abs(both) > abs(now) else now
