"""Gathers the final rows of one window, so that all its cohorts are judged together."""

from __future__ import annotations

from dataclasses import dataclass, field

from metering.costs import WindowRow

LATER_WAITS_LONGER = 0.1
MOST_EXTRA_WAIT_S = 10.0
"""Writers that catch up are further apart than those that are at the present, and what comes late
may be judged later: a tenth of how late it comes, and no more than this."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Every cohort of one window; ``last_offset`` is that of its newest row in the topic. Once it
    has been judged, no row up to ``done_to`` waits for that any more."""

    rows: tuple[WindowRow, ...]
    last_offset: int
    done_to: int


@dataclass(slots=True)
class _Open:
    first_offset: int
    last_offset: int = -1
    quiet_since_ms: int = 0
    quiet_since_s: float = 0.0
    wait_s: float = 0.0
    rows: dict[tuple[str, str, str], WindowRow] = field(default_factory=dict)


@dataclass(slots=True)
class Intervals:
    """Rows of one length of window, from any number of writers that are a little apart.

    A window is whole when no row of it has come for ``settle_s``, and longer where it comes late:
    by the stamps in the topic as long as there is something to read, so that reading it again
    finds the same, and by the clock when there is not. Windows are judged in the order of event
    time: one that is whole waits for those before it. A row of a window that was judged, or of one
    before it, is a correction and is not judged.
    """

    window_seconds: int
    settle_s: float = 1.5
    corrections: int = 0
    _open: dict[int, _Open] = field(default_factory=dict)
    _stamp_ms: int = 0
    _last_offset: int = -1
    _judged_to_ms: int = -1

    def advance(self, stamp_ms: int) -> list[Interval]:
        """What is whole at the stamp of a record, whatever the record is; before :meth:`add`."""
        if stamp_ms <= self._stamp_ms:
            return []
        self._stamp_ms = stamp_ms
        return self._finish(
            [
                start_ms
                for start_ms, held in self._open.items()
                if stamp_ms - held.quiet_since_ms >= held.wait_s * 1000
            ]
        )

    def add(self, row: WindowRow, offset: int, now_s: float) -> None:
        """``now_s`` is monotonic. Of several rows of a cohort the one that counted furthest."""
        if row.window_seconds != self.window_seconds or not row.final:
            return
        self._last_offset = offset
        if row.window_start_ms <= self._judged_to_ms:
            self.corrections += 1
            return
        held = self._open.setdefault(row.window_start_ms, _Open(first_offset=offset))
        held.last_offset = offset
        held.quiet_since_ms, held.quiet_since_s = self._stamp_ms, now_s
        late_s = (self._stamp_ms - row.window_start_ms) / 1000 - self.window_seconds
        held.wait_s = self.settle_s + min(max(0.0, LATER_WAITS_LONGER * late_s), MOST_EXTRA_WAIT_S)
        cohort = (row.tenant, row.model, row.region)
        if cohort not in held.rows or held.rows[cohort].counted_to <= row.counted_to:
            held.rows[cohort] = row

    def settle(self, now_s: float) -> list[Interval]:
        """What is whole by the clock. Only while nothing is left to be read: what waits in the
        topic may be a part of it."""
        return self._finish(
            [
                start_ms
                for start_ms, held in self._open.items()
                if now_s - held.quiet_since_s >= held.wait_s
            ]
        )

    def _finish(self, whole: list[int]) -> list[Interval]:
        done: list[Interval] = []
        for start_ms in sorted(self._open):
            if start_ms not in whole:
                break
            held = self._open.pop(start_ms)
            self._judged_to_ms = start_ms
            waiting = min((o.first_offset for o in self._open.values()), default=None)
            done.append(
                Interval(
                    rows=tuple(held.rows[cohort] for cohort in sorted(held.rows)),
                    last_offset=held.last_offset,
                    done_to=self._last_offset if waiting is None else waiting - 1,
                )
            )
        return done
