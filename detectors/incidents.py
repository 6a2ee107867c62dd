"""Which anomalous windows are told: the first of an incident, then few."""

from __future__ import annotations

from dataclasses import dataclass, field

from metering.costs import Driver


@dataclass(slots=True)
class Incident:
    """Anomalous windows of one cohort in one direction, short calms between them included.

    ``told`` are the top drivers that somebody has heard of.
    """

    rise: bool
    told: set[Driver] = field(default_factory=set)
    since_told: int | None = None
    calm: int = 0

    def anomalous(self, top: Driver | None, repeat_after_windows: int) -> bool:
        """One more window; whether it is news: the first, a new top driver, or that it lasts."""
        self.calm = 0
        news = (
            self.since_told is None
            or self.since_told + 1 >= repeat_after_windows
            or (top is not None and top not in self.told)
        )
        self.since_told = 0 if news or self.since_told is None else self.since_told + 1
        if news and top is not None:
            self.told.add(top)
        return news

    def calmed(self, close_after_windows: int) -> bool:
        """One calm window; whether the incident is over."""
        self.calm += 1
        if self.since_told is not None:
            self.since_told += 1
        return self.calm >= close_after_windows
