"""Gathers the final rows of one window, so that all its cohorts are judged together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from metering.costs import WindowRow


@dataclass(frozen=True, slots=True)
class Interval:
    """Every cohort of one window; ``last_offset`` is that of its newest row in the topic."""

    rows: tuple[WindowRow, ...]
    last_offset: int


@dataclass(slots=True)
class Intervals:
    """Rows of one length of window. An interval is whole when a later one begins or when no row
    of it has come for ``settle_s``; what comes after that is a correction and is not judged."""

    window_seconds: int
    settle_s: float = 1.5
    corrections: int = 0
    _start_ms: int | None = None
    _rows: dict[tuple[str, str], WindowRow] = field(default_factory=dict)
    _last_offset: int = -1
    _last_row_at_s: float = 0.0
    _judged_to_ms: int = -1

    def add(self, row: WindowRow, offset: int, now_s: float) -> list[Interval]:
        """``now_s`` is monotonic. Returns the interval that this row shows to be whole."""
        if row.window_seconds != self.window_seconds or not row.final:
            return []
        if row.window_start_ms <= self._judged_to_ms:
            self.corrections += 1
            return []
        done: list[Interval] = []
        if self._start_ms is not None and row.window_start_ms > self._start_ms:
            done = self._finish()
        elif self._start_ms is not None and row.window_start_ms < self._start_ms:
            self.corrections += 1
            return []
        self._start_ms = row.window_start_ms
        self._rows[row.tenant, row.model] = row
        self._last_offset = offset
        self._last_row_at_s = now_s
        return done

    def settle(self, now_s: float) -> list[Interval]:
        """The open interval, if it has been quiet for long enough."""
        if self._start_ms is None or now_s - self._last_row_at_s < self.settle_s:
            return []
        return self._finish()

    def _finish(self) -> list[Interval]:
        assert self._start_ms is not None  # noqa: S101  # both callers have looked
        rows: Sequence[WindowRow] = sorted(
            self._rows.values(), key=lambda row: (row.tenant, row.model)
        )
        self._judged_to_ms = self._start_ms
        self._start_ms = None
        self._rows = {}
        return [Interval(tuple(rows), self._last_offset)]
