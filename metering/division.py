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
    rest, by = b[segment] * weights, sums[segment]
    quotients = rest // by
    remainders = rest - quotients * by
    parts: Whole = a[segment] * weights + quotients
    # One unit each to the largest remainders, then weights, then the earlier rows.
    left = wholes - segment_sums(parts, starts)
    if left.any():
        # Below 2^63: neither remainders nor weights are larger than sums, and these than the root.
        _give(parts, left, remainders * int(sums.max()) + weights, starts)
    return parts


def _give(parts: Whole, left: Whole, keys: Whole, starts: NDArray[np.intp]) -> None:
    """One unit each, in place, to a segment's ``left`` rows with the largest keys, of those that
    are alike the earlier ones."""
    counts = np.diff(starts, append=len(parts))
    due = np.flatnonzero(left)
    for count in np.unique(counts[due]).tolist():
        own = due[counts[due] == count]
        rows = starts[own][:, None] + np.arange(count)
        order = np.argsort(-keys[rows], axis=1, kind="stable")
        first = np.arange(count) < left[own][:, None]
        parts[np.take_along_axis(rows, order, axis=1)[first]] += 1


def divide_in_two(wholes: Whole, first: Whole, second: Whole) -> Whole:
    """The first of two parts of each whole."""
    sums = first + second
    alike = sums == 0
    if alike.any():
        first, second = np.where(alike, 1, first), np.where(alike, 1, second)
        sums = first + second
    a = wholes // sums
    b = wholes - a * sums
    if int(sums.max()) > _ROOT or int(wholes.max()) >= SAFE:
        a, b, first, second = (x.astype(object) for x in (a, b, first, second))
    # What the second part is rounded down from is b * sums - one: so one division says all.
    one = b * first
    quotients = one // sums
    one_rest = one - quotients * sums
    other_rest = sums - one_rest
    is_left = one_rest != 0  # One unit, then, and else none.
    goes_first = (one_rest > other_rest) | ((one_rest == other_rest) & (first >= second))
    parts: Whole = a * first + quotients + (is_left & goes_first)
    return parts
