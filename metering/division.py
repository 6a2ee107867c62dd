"""Largest remainders of many wholes at once; the rule is ``metering.apportion.largest_remainder``.

Every whole is divided among the rows of its own segment. No segment is empty.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metering.columns import SAFE, Whole, segment_sums

_ROOT = 3_037_000_499
"""The largest integer whose square fits into 64 bits."""


def divide(
    wholes: Whole, weights: Whole, starts: NDArray[np.intp], segment: NDArray[np.intp]
) -> Whole:
    """The parts, row by row; those of a segment sum to its whole exactly.

    ``wholes`` has a value for each segment, ``weights`` one for each row, neither negative;
    ``segment`` says in which segment a row is.
    """
    sums = segment_sums(weights, starts)
    if not sums.all():  # Weights that are all 0 count as equal ones.
        weights = np.where((sums == 0)[segment], 1, weights)
        sums = segment_sums(weights, starts)
    # whole * weight = (a * sum + b) * weight, so that no product is larger than it must be.
    a, b = wholes // sums, wholes % sums
    if int(sums.max()) > _ROOT or int(wholes.max()) >= SAFE:
        a, b, weights = a.astype(object), b.astype(object), weights.astype(object)
    rest = b[segment] * weights
    quotients, remainders = rest // sums[segment], rest % sums[segment]
    parts: Whole = a[segment] * weights + quotients
    # One unit each to the largest remainders, then weights, then the earlier rows.
    left = wholes - segment_sums(parts, starts)
    if left.any():
        order = _order(remainders, weights, segment, int(sums.max()))
        rank = np.arange(len(parts)) - starts[segment]  # Segments keep their places there.
        parts[order] += (rank < left[segment]).astype(parts.dtype)
    return parts


def _order(
    remainders: Whole, weights: Whole, segment: NDArray[np.intp], above: int
) -> NDArray[np.intp]:
    """Segment by segment, the largest remainders first, then the largest weights, then the earlier
    rows. All remainders are below ``above``."""
    if remainders.dtype != object and (int(segment[-1]) + 1) * above < SAFE:
        keys = segment * above - remainders  # Sorted as numbers, in an eighth of the time,
        order = np.argsort(keys)
        sorted_keys = keys[order]
        if (sorted_keys[1:] != sorted_keys[:-1]).all():  # if no two remainders are alike.
            return order
    return np.lexsort((-weights, -remainders, segment))


def divide_in_two(wholes: Whole, first: Whole, second: Whole) -> Whole:
    """The first of two parts of each whole."""
    sums = first + second
    alike = sums == 0
    if alike.any():
        first, second = np.where(alike, 1, first), np.where(alike, 1, second)
        sums = first + second
    a, b = wholes // sums, wholes % sums
    if int(sums.max()) > _ROOT or int(wholes.max()) >= SAFE:
        a, b, first, second = (x.astype(object) for x in (a, b, first, second))
    one, other = b * first, b * second
    parts: Whole = a * first + one // sums
    left = b - one // sums - other // sums  # 0 or 1
    one_rest, other_rest = one % sums, other % sums
    goes_first = (one_rest > other_rest) | ((one_rest == other_rest) & (first >= second))
    result: Whole = parts + np.where(goes_first, left, 0)
    return result
