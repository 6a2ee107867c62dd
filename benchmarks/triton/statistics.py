"""Paired comparisons: the order of the blocks, the change between the two of a pair, what holds.

Pure. A change is the mean over pairs of the logarithm of a ratio: a machine that is slow for both
blocks of a pair leaves it as it is, and "twice" and "half" weigh the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True, slots=True)
class Block:
    """``pair`` counts all pairs. ``compared``: of its pair, the block that is compared with the
    other; where ``noise`` is looked for, both are off, and which one that is has been drawn."""

    pair: int
    noise: bool
    compared: bool

    @property
    def on(self) -> bool:
        return self.compared and not self.noise


@dataclass(frozen=True, slots=True)
class Change:
    """In percent; with fewer than two pairs the error is infinite."""

    percent: float
    standard_error: float
    pairs: int

    def at_least(self, percent: float, standard_error: float) -> bool:
        return self.percent >= percent and self.standard_error <= standard_error

    def at_most(self, percent: float, standard_error: float) -> bool:
        return self.percent <= percent and self.standard_error <= standard_error


def plan(pairs: int, noise_pairs: int, seed: int) -> Iterator[Block]:
    """``pairs`` of on and off, and ``noise_pairs`` of off and off, in drawn order.

    Of either kind the compared block comes first in one half of the pairs (the odd one is drawn),
    so that a drift of the machine cancels out.
    """
    drawn = random.Random(seed)
    counts = {False: pairs, True: noise_pairs}
    firsts = {noise: _halves(count, drawn) for noise, count in counts.items()}
    kinds = [False] * pairs + [True] * noise_pairs
    drawn.shuffle(kinds)
    for pair, noise in enumerate(kinds):
        first = firsts[noise].pop()
        yield Block(pair, noise, compared=first)
        yield Block(pair, noise, compared=not first)


def change_of(pairs: Sequence[tuple[float, float]]) -> Change:
    """Of the first value of each pair against the second; all are above 0."""
    logs = [math.log(compared / other) for compared, other in pairs]
    ratio = math.exp(fmean(logs))
    error = stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    return Change(100 * (ratio - 1), 100 * ratio * error, len(logs))


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least a part ``q`` of them does not exceed; of none, NaN."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


def _halves(count: int, drawn: random.Random) -> list[bool]:
    firsts = [n % 2 == 0 for n in range(count - count % 2)]
    firsts += [drawn.random() < 0.5] * (count % 2)
    drawn.shuffle(firsts)
    return firsts
