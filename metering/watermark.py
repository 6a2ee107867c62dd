"""How far a partition of the usage topic has come in event time: as far as its slowest source."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

from metering.windows import NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Disorder:
    """How much of it is waited for.

    A source's own events may be ``within_ns`` out of order. One that lags behind the newest is
    waited for up to ``lag_ns``; one that has sent nothing for ``silence_ns``, by the broker's
    stamps, is not waited for at all.
    """

    within_ns: int = 2 * NS_PER_SECOND
    lag_ns: int = 30 * NS_PER_SECOND
    silence_ns: int = 10 * NS_PER_SECOND


class Living:
    """The sources that are not silent, ordered by how far each has come in event time.

    A source's event time and stamp never go back. So the slowest source stands in a heap with one
    entry for each source, which is brought up to date only once it is the lowest; and the newest
    event time stands in a list of those (stamp, event time) that no other pair surpasses in both.
    Each message costs O(log sources), and the bounds cost nothing beside it.
    """

    def __init__(self, sources: Iterable[tuple[str, int, int]], silence_ns: int) -> None:
        """``sources``: each with its name, its newest event time and the stamp of its last
        message."""
        known = list(sources)
        self.silence_ns = silence_ns
        self._newest_stamp_ns = max((stamp for *_, stamp in known), default=0)
        alive_ns = self._newest_stamp_ns - silence_ns
        living = [source for source in known if source[2] >= alive_ns]
        self._last_ns = {name: last for name, last, _ in living}
        self._slowest = [(last, name) for name, last, _ in living]
        self._stamp_ns = {name: stamp for name, _, stamp in living}
        heapify(self._slowest)
        self._front: list[tuple[int, int]] = []
        for _, last, stamp in living:
            self._note(stamp, last)

    def __contains__(self, name: str) -> bool:
        """Whether the source is held here; some that have gone silent still are."""
        return name in self._last_ns

    def see(self, name: str, last_ns: int, stamp_ns: int) -> None:
        """A message of a source came: its newest event time, and its newest stamp."""
        self._newest_stamp_ns = max(self._newest_stamp_ns, stamp_ns)
        if stamp_ns < self._newest_stamp_ns - self.silence_ns:
            return
        if name not in self._last_ns:
            heappush(self._slowest, (last_ns, name))
        self._last_ns[name], self._stamp_ns[name] = last_ns, stamp_ns
        self._note(stamp_ns, last_ns)

    def bounds_ns(self) -> tuple[int, int] | None:
        """The newest event times of the slowest and of the foremost source; ``None`` if there is
        none."""
        alive_ns = self._newest_stamp_ns - self.silence_ns
        slowest = self._slowest
        while slowest:
            last_ns, name = slowest[0]
            if self._stamp_ns[name] < alive_ns:
                heappop(slowest)
                del self._last_ns[name], self._stamp_ns[name]
            elif self._last_ns[name] > last_ns:
                heapreplace(slowest, (self._last_ns[name], name))
            else:
                break
        del self._front[: bisect_left(self._front, (alive_ns,))]
        return (slowest[0][0], self._front[0][1]) if slowest else None

    def _note(self, stamp_ns: int, last_ns: int) -> None:
        """The front is ascending by stamp and descending by event time."""
        front = self._front
        at = end = bisect_left(front, (stamp_ns,))
        if at < len(front):
            if front[at][1] >= last_ns:
                return
            end += front[at][0] == stamp_ns
        while at and front[at - 1][1] <= last_ns:
            at -= 1
        front[at:end] = [(stamp_ns, last_ns)]


def watermark(before_ns: int, living: Living, disorder: Disorder) -> int:
    """It depends on what came alone, not on a clock, and never goes back."""
    bounds_ns = living.bounds_ns()
    if bounds_ns is None:
        return before_ns
    slowest_ns, foremost_ns = bounds_ns
    reached_ns = max(slowest_ns, foremost_ns - disorder.lag_ns)
    return max(before_ns, reached_ns - disorder.within_ns)
