"""Busy time of an accelerator on which several model instances run at once.

Two batches that overlap can't both have had the whole accelerator: it was busy for the union of
their intervals, and where ``k`` of them ran together, each gets ``1/k`` of that time. This is the
Shapley value of the length of the union (every moment is a public good of those who are in it).
The shares are integers and sum to the union exactly.

This is the form for whole intervals, to check by: :mod:`metering.occupancy` divides the same time
as the batches run.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import inf
from typing import NamedTuple

from metering.errors import MeteringError

BatchKey = tuple[str, int]
"""``(source, sequence)``"""


class Interval(NamedTuple):
    """From ``start_ns`` until just before ``end_ns``, on the clock of one accelerator's host."""

    start_ns: int
    end_ns: int
    key: BatchKey


class Settled(NamedTuple):
    """What an interval got of the accelerator's busy time."""

    interval: Interval
    busy_ns: int


def divide_busy_time(intervals: Iterable[Interval]) -> list[Settled]:
    """Share each moment among the intervals that are in it; in the order of ends.

    ``O(n log n)``. The shares don't depend on the order in which the intervals are given.

    Raises:
        MeteringError: an interval ends before it starts.
    """
    sweep = _Sweep()
    for interval in sorted(intervals):
        sweep.end_those_before(interval.start_ns)
        sweep.begin(interval)
    sweep.end_those_before(inf)
    return sweep.settled


def union_ns(intervals: Sequence[Interval]) -> int:
    """For how long at least one of the intervals ran."""
    busy_ns, until_ns = 0, 0
    for start_ns, end_ns, _ in sorted(intervals):
        if busy_ns == 0 or start_ns > until_ns:
            until_ns = start_ns
        if end_ns > until_ns:
            busy_ns += end_ns - until_ns
            until_ns = end_ns
    return busy_ns


class _Sweep:
    """Goes through time, from one begin or end to the next."""

    def __init__(self) -> None:
        self.settled: list[Settled] = []
        self._active: list[tuple[int, Interval, Fraction]] = []  # a heap by end
        self._at_ns = 0
        self._per_interval = Fraction(0)  # the integral of 1/k since the busy period began
        self._carry = Fraction(0)  # of all that is settled, what was not given out: below 1 ns

    def begin(self, interval: Interval) -> None:
        start_ns, end_ns, key = interval
        if end_ns < start_ns:
            raise MeteringError(f"batch {key}: end_ns={end_ns} before start_ns={start_ns}")
        self._move(start_ns)
        heapq.heappush(self._active, (end_ns, interval, self._per_interval))

    def end_those_before(self, now_ns: float) -> None:
        while self._active and self._active[0][0] < now_ns:
            self._move(self._active[0][0])
            _, interval, began = heapq.heappop(self._active)
            # Of the exact sum of all shares so far, the whole nanoseconds are given out: so each
            # share is off by less than one, and the sum is exact whenever nothing runs.
            exact = self._carry + self._per_interval - began
            busy_ns = exact.numerator // exact.denominator
            self._carry = exact - busy_ns
            self.settled.append(Settled(interval, busy_ns))
            if not self._active:
                self._per_interval = Fraction(0)

    def _move(self, to_ns: int) -> None:
        if self._active:
            self._per_interval += Fraction(to_ns - self._at_ns, len(self._active))
        self._at_ns = to_ns
