"""What rows of unequal length cost together: the levels between one length and the next.

With lengths in ascending order, level ``k`` is the stretch ``Δ_k = l_k - l_(k-1)``, which the
``m = n - k + 1`` longest rows reach. All costs below are sums over levels, and so are their
Shapley values (additivity).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache


@lru_cache(maxsize=1024)
def scale_of(rows: int) -> int:
    """What makes every quotient below an integer: ``lcm(1 … rows + 1)``."""
    return math.lcm(*range(1, rows + 2))


def airport(lengths: Sequence[int]) -> list[int]:
    """The Shapley value of ``v(S) = max(S)``, times :func:`scale_of`.

    Each level is shared equally by those who reach it (S. C. Littlechild and G. Owen, "A simple
    expression for the Shapley value in a special case", Management Science 20, 1973: landing
    fees, where a runway is as long as its largest aircraft needs).
    """
    scale = scale_of(len(lengths))
    values, so_far = [0] * len(lengths), 0
    for i, step, reaching in _levels(lengths):
        so_far += step * (scale // reaching)
        values[i] = so_far
    return values


def size_times_longest(lengths: Sequence[int]) -> list[int]:
    """The Shapley value of ``v(S) = |S|·max(S)``, times :func:`scale_of`.

    On one level, ``v(S) = |S|`` if one of the ``m`` who reach it is in ``S``, else 0. Who does
    not reach it adds 1 if one of the ``m`` came before: ``m/(m+1)``. The ``m`` share the rest of
    ``n`` equally: ``(n + m²)/(m(m+1)) = 1 + (n-m)/(m(m+1))``.
    """
    n = len(lengths)
    scale = scale_of(n)
    levels = list(_levels(lengths))
    above = sum(step * (scale // (m + 1)) * m for _, step, m in levels)
    values, so_far = [0] * n, 0
    for i, step, m in levels:
        # 1/(m(m+1)) = 1/m - 1/(m+1), so that no divisor is larger than n + 1
        so_far += step * (scale + (n - m) * (scale // m - scale // (m + 1)))
        above -= step * (scale // (m + 1)) * m
        values[i] = so_far + above
    return values


def _levels(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Position, ``Δ`` and ``m`` of every level, from the shortest row to the longest."""
    levels, below = [], 0
    for rank, i in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        levels.append((i, lengths[i] - below, len(lengths) - rank))
        below = lengths[i]
    return levels
