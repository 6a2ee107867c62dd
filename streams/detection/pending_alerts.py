"""Which alerts of one target wait, which is to be tried next, and how far all are done. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from metering.costs import Anomaly

MOST = 100
"""So many are held in memory; the others wait in their topic."""
FIRST_DELAY_S = 0.5
MOST_DELAY_S = 60.0
Place = tuple[int, int]
"""Partition and offset."""


@dataclass(slots=True)
class Alert:
    """``published_ms`` is the topic's stamp; ``due_s`` (monotonic) when it is to be tried."""

    place: Place
    anomaly: Anomaly
    published_ms: int
    due_s: float
    tries: int = 0


@dataclass(slots=True)
class PendingAlerts:
    """Alerts are tried in the order in which they came; one that fails waits for longer each time,
    and meanwhile the others are tried. So an alert that its receiver can't digest holds up none
    behind it, as long as there are fewer than ``MOST`` of those."""

    part: Callable[[], float]
    """Drawn anew for each delay, from 0 to 1: full jitter, over the upper half."""
    _waiting: dict[Place, Alert] = field(default_factory=dict)
    _next: dict[int, int] = field(default_factory=dict)
    _told: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= MOST

    def add(self, alert: Alert) -> None:
        self._waiting[alert.place] = alert
        self.pass_over(alert.place)

    def pass_over(self, place: Place) -> None:
        """Nothing there is to be delivered."""
        self._next[place[0]] = place[1] + 1

    def next(self) -> Alert | None:
        """The one that is due first; of several the one that came first."""
        return min(self._waiting.values(), key=lambda a: (a.due_s, a.place), default=None)

    def done(self, alert: Alert) -> None:
        """It was delivered, or refused for good. The target answers: all others are due."""
        del self._waiting[alert.place]
        for other in self._waiting.values():
            other.due_s = min(other.due_s, alert.due_s)

    def failed(self, alert: Alert, now_s: float, retry_after_s: float | None) -> float:
        """How long it waits. What the target has asked for holds for every alert."""
        bound_s = min(FIRST_DELAY_S * 2.0 ** min(alert.tries, 20), MOST_DELAY_S)
        delay_s = bound_s * (0.5 + 0.5 * self.part())
        alert.tries += 1
        if retry_after_s is not None:
            delay_s = max(delay_s, min(retry_after_s, MOST_DELAY_S))
            for other in self._waiting.values():
                other.due_s = max(other.due_s, now_s + delay_s)
        alert.due_s = now_s + delay_s
        return delay_s

    def offsets(self) -> dict[int, int]:
        """By partition, the offset that may be committed, where it is another than the last time:
        the first that is not done."""
        waiting = sorted(self._waiting)
        found = {}
        for partition, following in self._next.items():
            first = next((offset for p, offset in waiting if p == partition), following)
            if self._told.get(partition) != first:
                found[partition] = first
        return found

    def committed(self, offsets: dict[int, int]) -> None:
        self._told |= offsets
