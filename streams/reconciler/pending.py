"""Heartbeats that are stored and not yet judged, and how far the topic is done with. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from metering.capacity import CapacityHeartbeat


@dataclass(slots=True)
class Pending:
    """A heartbeat is ripe when usage has had ``grace_ns`` to arrive. Counters only grow, so of
    several that are ripe the newest of each host says all. None waits longer than ``grace_ns``
    after it was read, whatever its stamps say: those behind it wait for its offset."""

    grace_ns: int
    _waiting: dict[int, _Waiting] = field(default_factory=dict)
    _next: int = 0

    def add(self, offset: int, beat: CapacityHeartbeat | None, read_ns: int) -> None:
        """``None``: what lay there was refused, and is done with. It was read at ``read_ns``."""
        if beat is not None:
            due_ns = min(beat.asked_ns, read_ns) + self.grace_ns
            self._waiting[offset] = _Waiting(beat, due_ns)
        self._next = offset + 1

    def ripe(self, now_ns: int) -> list[CapacityHeartbeat]:
        """The newest of each host, in the order in which they came."""
        newest: dict[str, CapacityHeartbeat] = {}
        for beat, due_ns in self._waiting.values():
            if due_ns <= now_ns:
                newest.pop(beat.host, None)
                newest[beat.host] = beat
        return list(newest.values())

    def done(self, now_ns: int) -> int:
        """What was ripe then is done with; the offset that may be committed."""
        self._waiting = {o: w for o, w in self._waiting.items() if w.due_ns > now_ns}
        return min(self._waiting, default=self._next)


class _Waiting(NamedTuple):
    beat: CapacityHeartbeat
    due_ns: int
