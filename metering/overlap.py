"""Busy time of an accelerator on which several model instances run at once.

Two batches that overlap can't both have had the whole accelerator: it was busy for the union of
their intervals, and where ``k`` of them ran together, each gets ``1/k`` of that time. This is the
Shapley value of the length of the union (every moment is a public good of those who are in it).
The shares are integers and sum to the union exactly.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from fractions import Fraction
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
    """What an interval got of the accelerator's busy time.

    ``late_ns`` is the part of it that lay in time that had been divided when it was added; it has
    no share in ``busy_ns``.
    """

    interval: Interval
    busy_ns: int
    late_ns: int = 0


def divide_busy_time(intervals: Iterable[Interval]) -> list[Settled]:
    """Share each moment among the intervals that are in it; in the order of ends.

    ``O(n log n)``. The shares don't depend on the order in which the intervals are given.

    Raises:
        MeteringError: an interval ends before it starts.
    """
    sharing = OverlapSharing()
    for interval in intervals:
        sharing.add(interval)
    return sharing.settle_all()


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


class OverlapSharing:
    """The same, as intervals come in: in any order, and settled once nothing can change them.

    Whoever calls :meth:`settle` vouches that intervals which start before ``before_ns`` have been
    added: with intervals that are reported at their ends, ``before_ns`` lies as far behind the
    newest end as the longest batch lasts, plus their disorder. One that comes later all the same
    shares in the time from ``before_ns`` on; what lies before is told as ``late_ns``, so no
    nanosecond is given out twice.

    The state is the intervals that are not settled yet, two numbers, and no more. An interval
    that is added twice counts twice: remove duplicates first.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Interval]] = []  # a heap by the start that counts
        self._active: list[tuple[int, Interval, int, Fraction]] = []  # a heap by end
        self._settled_to_ns: int | None = None
        self._at_ns = 0
        self._per_interval = Fraction(0)  # the integral of 1/k since the busy period began
        self._carry = Fraction(0)  # of all that is settled, what was not given out: below 1 ns

    def __len__(self) -> int:
        """How many intervals are not settled."""
        return len(self._waiting) + len(self._active)

    @property
    def settled_to_ns(self) -> int | None:
        """The time before this has been divided; ``None`` at first."""
        return self._settled_to_ns

    def add(self, interval: Interval) -> None:
        """Raises MeteringError: it ends before it starts."""
        start_ns, end_ns, key = interval
        if end_ns < start_ns:
            raise MeteringError(f"batch {key}: end_ns={end_ns} before start_ns={start_ns}")
        if self._settled_to_ns is not None and start_ns < self._settled_to_ns:
            start_ns = min(end_ns, self._settled_to_ns)
        heapq.heappush(self._waiting, (start_ns, interval))

    def settle(self, before_ns: int) -> list[Settled]:
        """Divide the time before ``before_ns``; returns the intervals that end by then, each
        once, in the order of their ends. An earlier ``before_ns`` than the last changes nothing.
        """
        if self._settled_to_ns is None or before_ns > self._settled_to_ns:
            self._settled_to_ns = before_ns
        return self._sweep(self._settled_to_ns)

    def settle_all(self) -> list[Settled]:
        """Divide everything that was added: nothing more is to come."""
        ends_ns = [i.end_ns for _, i in self._waiting] + [entry[0] for entry in self._active]
        return self.settle(max(ends_ns)) if ends_ns else []

    def _sweep(self, to_ns: int) -> list[Settled]:
        settled: list[Settled] = []
        while True:
            end_ns = self._active[0][0] if self._active else to_ns + 1
            if self._waiting and self._starts_next(to_ns, end_ns):
                self._begin()
            elif end_ns <= to_ns:
                settled.append(self._end())
            else:
                self._move(to_ns)
                return settled

    def _starts_next(self, to_ns: int, end_ns: int) -> bool:
        start_ns, interval = self._waiting[0]
        # One of no length at to_ns is over by then, though it does not start before.
        return start_ns <= end_ns and (start_ns < to_ns or interval.end_ns <= to_ns)

    def _begin(self) -> None:
        counts_from_ns, interval = heapq.heappop(self._waiting)
        self._move(counts_from_ns)
        late_ns = counts_from_ns - interval.start_ns
        entry = (interval.end_ns, interval, late_ns, self._per_interval)
        heapq.heappush(self._active, entry)

    def _end(self) -> Settled:
        end_ns, interval, late_ns, began = heapq.heappop(self._active)
        self._move(end_ns, running=len(self._active) + 1)
        # Of the exact sum of all shares so far, the whole nanoseconds are given out: so each
        # share is off by less than one, and the sum is exact whenever nothing runs.
        exact = self._carry + self._per_interval - began
        busy_ns = exact.numerator // exact.denominator
        self._carry = exact - busy_ns
        if not self._active:
            self._per_interval = Fraction(0)
        return Settled(interval, busy_ns, late_ns)

    def _move(self, to_ns: int, running: int | None = None) -> None:
        if running is None:
            running = len(self._active)
        if running and to_ns > self._at_ns:
            self._per_interval += Fraction(to_ns - self._at_ns, running)
        self._at_ns = max(self._at_ns, to_ns)
