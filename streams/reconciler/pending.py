"""Heartbeats that are stored and not yet judged, and how far the topic is done with. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from metering.capacity import CapacityHeartbeat


@dataclass(slots=True)
class Pending:
    """A heartbeat is ripe when usage has had ``grace_ns`` to arrive. Counters only grow, so of
    several that are ripe the newest of each host says all."""

    grace_ns: int
    _waiting: dict[int, CapacityHeartbeat] = field(default_factory=dict)
    _next: int = 0

    def add(self, offset: int, beat: CapacityHeartbeat | None) -> None:
        """``None``: what lay there can't be read, and is done with."""
        if beat is not None:
            self._waiting[offset] = beat
        self._next = offset + 1

    def ripe(self, now_ns: int) -> list[CapacityHeartbeat]:
        """The newest of each host, in the order in which they came."""
        newest: dict[str, CapacityHeartbeat] = {}
        for beat in self._waiting.values():
            if self._is_ripe(beat, now_ns):
                newest.pop(beat.host, None)
                newest[beat.host] = beat
        return list(newest.values())

    def done(self, now_ns: int) -> int:
        """What was ripe then is done with; the offset that may be committed."""
        self._waiting = {o: b for o, b in self._waiting.items() if not self._is_ripe(b, now_ns)}
        return min(self._waiting, default=self._next)

    def _is_ripe(self, beat: CapacityHeartbeat, now_ns: int) -> bool:
        return now_ns - beat.asked_ns >= self.grace_ns
