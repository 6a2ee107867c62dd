"""A straight line through samples, and whether it is flat. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Line:
    """Least squares. ``r2`` is the part of the variance that the line explains: 1 for points on a
    line, and for points that are all the same."""

    slope: float
    intercept: float
    r2: float


def line_through(x: Sequence[float], y: Sequence[float]) -> Line:
    """Raises ValueError: fewer than two different ``x``."""
    if len(set(x)) < 2:
        raise ValueError("a line needs two points")
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    from_mean = xs - xs.mean()
    slope = float(from_mean @ (ys - ys.mean()) / (from_mean @ from_mean))
    intercept = float(ys.mean() - slope * xs.mean())
    off = ys - (slope * xs + intercept)
    spread = float(((ys - ys.mean()) ** 2).sum())
    return Line(slope, intercept, 1.0 if spread == 0 else 1 - float(off @ off) / spread)


@dataclass(frozen=True, slots=True)
class Trend:
    """``change`` is what the fitted line rises or falls by from first to last, as a part of the
    mean; ``per_s`` is its slope."""

    mean: float
    change: float
    per_s: float


def trend_of(seconds: Sequence[float], values: Sequence[float]) -> Trend:
    line = line_through(seconds, values)
    mean = float(np.mean(values))
    return Trend(mean, line.slope * (max(seconds) - min(seconds)) / mean, line.slope)


def last_part(
    seconds: Sequence[float], values: Sequence[float], *, from_s: float
) -> tuple[list[float], list[float]]:
    kept = [(s, v) for s, v in zip(seconds, values, strict=True) if s >= from_s]
    return [s for s, _ in kept], [v for _, v in kept]


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Means of as many stretches as there is ``width`` for, between the smallest and the largest of
    them."""
    count = min(width, len(values))
    bounds = [round(n * len(values) / count) for n in range(count + 1)] if count else []
    means = [float(np.mean(values[a:b])) for a, b in pairwise(bounds)]
    if not means:
        return ""
    low, high = min(means), max(means)
    step = (high - low) / (len(BLOCKS) - 1) or 1.0
    return "".join(BLOCKS[round((mean - low) / step)] for mean in means)
