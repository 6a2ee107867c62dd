"""Whether a p99 was hurt, on a machine whose latencies vary by themselves.

Latencies come in bursts: requests of the same second share what was wrong with it. So chance is
reckoned by whole seconds (a block bootstrap: Künsch 1989, Annals of Statistics 17(3), here with
blocks that don't overlap), and not by requests, which would promise far more than is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.1
"""Of the p99 without the fault."""
DRAWS = 1000
_CHANCE = 0.01
Seconds = list[NDArray[np.float64]]
"""Latencies in ms, by the second in which their requests were sent."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The p99 with and without a fault; and their difference, as far as chance lets it be known:
    it is at least ``least_ms`` and at most ``most_ms``, each with 99 %."""

    without_ms: float
    with_ms: float
    least_ms: float
    most_ms: float

    @property
    def tolerated_ms(self) -> float:
        return TOLERANCE * self.without_ms

    @property
    def unhurt(self) -> bool:
        """``False``: it is worse by more than is tolerated, and not by chance. ``True`` says no
        more than the range does: on a noisy machine, or in a short run, that is little."""
        return self.least_ms <= self.tolerated_ms


def by_second(
    sent_at: Sequence[float], latencies_s: Sequence[float], stretches: Sequence[tuple[float, float]]
) -> Seconds:
    """Of the requests that were sent within one of the stretches of time."""
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    for at, latency_s in zip(sent_at, latencies_s, strict=True):
        for number, (begin, end) in enumerate(stretches):
            if begin <= at < end:
                found[number, int(at - begin)].append(latency_s * 1000)
    return [np.array(latencies) for _, latencies in sorted(found.items())]


def compare(without: Seconds, with_fault: Seconds, seed: int) -> Comparison:
    """Both need at least one second with an answer."""
    drawn = np.random.default_rng(seed)
    differences = np.array(
        [p99_ms(_again(with_fault, drawn)) - p99_ms(_again(without, drawn)) for _ in range(DRAWS)]
    )
    least_ms, most_ms = np.quantile(differences, (_CHANCE, 1 - _CHANCE))
    return Comparison(p99_ms(without), p99_ms(with_fault), float(least_ms), float(most_ms))


def _again(seconds: Seconds, drawn: np.random.Generator) -> Seconds:
    return [seconds[n] for n in drawn.integers(len(seconds), size=len(seconds))]


def p99_ms(seconds: Seconds) -> float:
    return float(np.quantile(np.concatenate(seconds), 0.99))


def worst_ms(seconds: Seconds) -> float:
    """What a p99 does not show: the fault's own moment may be one second of sixty."""
    return max(float(latencies.max()) for latencies in seconds)
