"""Columns of money that may be large: whole dollars, and the attodollars beside them.

All of it in 64-bit integers, exactly; ``metering.money`` is the rule for one amount.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metering.money import ATTO_PER_USD, atto_quotient

_BASE = 10**9
"""Two digits of it are the attodollars of a dollar."""
_MOST_COUNT = 2**63 // _BASE
"""A rest below it and one more digit fit into 64 bits."""
_LOW = 2**32 - 1
_ATTO_HIGH, _ATTO_LOW = divmod(ATTO_PER_USD, 2**32)


@dataclass(frozen=True, slots=True)
class Amounts:
    """Row ``n`` is ``dollars[n] + atto[n] / 10**18``, at least 0 and ``atto`` below ``10**18``;
    where ``known`` is false there is no amount, and both are 0."""

    dollars: NDArray[np.int64]
    atto: NDArray[np.int64]
    known: NDArray[np.bool_] | None = None

    def tolist(self) -> list[int | None]:
        """In attodollars."""
        values = self.dollars.astype(object) * ATTO_PER_USD + self.atto
        known = [True] * len(values) if self.known is None else self.known.tolist()
        return [v if k else None for v, k in zip(values.tolist(), known, strict=True)]


def quotients(costs: Amounts, counts: NDArray[Any], per: int = 1) -> Amounts:
    """``metering.money.quotient`` of each row: ``per`` is up to ``10**6``, and ``per`` times a cost
    below ``2**63`` dollars. All costs are known; a count that is not is below 0."""
    known = (counts > 0).astype(np.bool_)
    large = np.flatnonzero(counts >= _MOST_COUNT)
    by = np.where(known, counts, 1)
    by[large] = 1
    by = by.astype(np.int64)
    digits = _times(costs, per)
    quotient, rest = [], np.zeros(len(by), np.int64)
    for digit in digits:
        whole, rest = np.divmod(rest * _BASE + digit, by)
        quotient.append(whole)
    up = (2 * rest > by) | ((2 * rest == by) & (quotient[-1] % 2 == 1))
    quotient[-1] = quotient[-1] + up
    for n in (3, 2, 1):
        carry, quotient[n] = np.divmod(quotient[n], _BASE)
        quotient[n - 1] = quotient[n - 1] + carry
    dollars = (quotient[0] * _BASE + quotient[1]) * known
    atto = (quotient[2] * _BASE + quotient[3]) * known
    for n in large.tolist():
        cost = int(costs.dollars[n]) * ATTO_PER_USD + int(costs.atto[n])
        dollars[n], atto[n] = divmod(atto_quotient(cost * per, int(counts[n])) or 0, ATTO_PER_USD)
    return Amounts(dollars, atto, None if known.all() else known)


def _times(costs: Amounts, per: int) -> list[NDArray[np.int64]]:
    """Four digits of base ``10**9``, the highest first."""
    upper = np.divmod(costs.dollars, _BASE)
    lower = np.divmod(costs.atto, _BASE)
    digits, carry = [], np.zeros(len(costs.atto), np.int64)
    for digit in (lower[1], lower[0], upper[1]):
        carry, product = np.divmod(digit * per + carry, _BASE)
        digits.append(product)
    digits.append(upper[0] * per + carry)
    return digits[::-1]


def words(column: Amounts) -> NDArray[np.uint64]:
    """Attodollars in 128 bits: two words a row, the low one first."""
    dollars, atto = column.dollars.astype(np.uint64), column.atto.astype(np.uint64)
    high, low = dollars >> 32, dollars & _LOW
    middle = low * np.uint64(_ATTO_HIGH) + high * np.uint64(_ATTO_LOW)
    product = low * np.uint64(_ATTO_LOW)
    found = np.empty((len(dollars), 2), np.uint64)
    partly = product + (middle << 32)
    found[:, 0] = partly + atto
    found[:, 1] = high * np.uint64(_ATTO_HIGH) + (middle >> 32)
    found[:, 1] += (partly < product).astype(np.uint64) + (found[:, 0] < atto).astype(np.uint64)
    return found
