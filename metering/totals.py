"""The totals of windows: additions from every partition of the usage topic, added up. No I/O.

One ``Totals`` belongs to one partition of the topic of additions. What it holds depends on that
topic's messages up to ``counted_to`` alone, so a row that was told of them is always the same row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from metering.additions import NO_ADDITIONS, Additions, Mark
from metering.epochs import FIRST_EPOCH, Epoch
from metering.window_rows import Told, WindowRows
from metering.window_sums import WindowSums, words_of
from metering.windows import NS_PER_SECOND, WINDOW_SECONDS, WindowKey


@dataclass(frozen=True, slots=True)
class Keeping:
    """Windows are kept for corrections until ``retention_ns`` after their end; a partition whose
    events are more than ``idle_ns`` behind the newest partition's does not keep them longer."""

    retention_ns: int = 120 * NS_PER_SECOND
    idle_ns: int = 3_600 * NS_PER_SECOND


@dataclass(slots=True)
class Totals:
    windows: dict[WindowKey, WindowSums] = field(default_factory=dict)
    marks: dict[int, Mark] = field(default_factory=dict)
    counted_to: int = -1
    horizon_ns: int = 0
    """Windows whose retention ended by then are gone."""
    gone: list[tuple[WindowKey, int]] = field(default_factory=list)
    """Forgotten since they were last saved, with the number of their chunks."""
    epoch: Epoch = FIRST_EPOCH
    """``counted_to`` is a position in it."""


@dataclass(frozen=True, slots=True)
class NotAdded:
    """What could not be added, of one message.

    ``late`` came for windows that are gone: its ``level`` is for how many lengths, shorter ones
    first. ``too_large`` would have taken a sum of a window of so many seconds beyond what can be
    stored.
    """

    late: Additions = NO_ADDITIONS
    too_large: Sequence[tuple[int, Additions]] = ()


ALL_ADDED = NotAdded()


def expected(totals: Totals, mark: Mark) -> bool:
    """Whether the message is the next one of its partition; if not, some before it were missed."""
    last = totals.marks.get(mark.partition)
    if mark.sequence < 0 or last is None:
        return True
    return mark.sequence <= max(last.sequence, 0) + 1  # a quiet partition's marks have none


def add(
    totals: Totals, offset: int, mark: Mark, additions: Additions, keeping: Keeping
) -> NotAdded:
    """Add the message at ``offset``. A message that was added before changes nothing."""
    if offset <= totals.counted_to:
        return ALL_ADDED
    totals.counted_to = offset
    last = totals.marks.get(mark.partition)
    if mark.sequence >= 0 and last is not None and mark.sequence <= last.sequence:
        return ALL_ADDED
    not_added = _add(totals, additions, keeping)
    totals.marks[mark.partition] = _later(last, mark)
    totals.horizon_ns = max(totals.horizon_ns, _horizon_ns(totals, keeping))
    return not_added


def _add(totals: Totals, additions: Additions, keeping: Keeping) -> NotAdded:
    if not len(additions.cohorts):
        return ALL_ADDED
    sums = words_of(additions.values)
    late = np.zeros(len(additions.cohorts), np.int64)
    too_large: dict[int, list[int]] = {}
    for begin_s in np.unique(additions.start_s).tolist():
        rows = np.flatnonzero(additions.start_s == begin_s)
        cohorts = [additions.cohorts[r] for r in rows.tolist()]
        levels, words = additions.level[rows], sums[rows]
        for n, seconds in enumerate(WINDOW_SECONDS):
            takes_it = levels <= n
            key = WindowKey(begin_s - begin_s % seconds, seconds)
            if key.end_ns + keeping.retention_ns <= totals.horizon_ns:
                late[rows[takes_it]] = n + 1
            elif takes_it.any():
                takers, some, own = rows, cohorts, words
                if not takes_it.all():
                    some = list(compress(cohorts, takes_it.tolist()))
                    takers, own = rows[takes_it], words[takes_it]
                refused = _window_of(totals, key).add(some, own)
                if refused.any():
                    too_large.setdefault(seconds, []).extend(takers[refused].tolist())
    return NotAdded(
        _late(additions, late),
        [(seconds, additions.take(own)) for seconds, own in sorted(too_large.items())],
    )


def _late(additions: Additions, levels: NDArray[np.int64]) -> Additions:
    if not levels.any():
        return NO_ADDITIONS
    rows = np.flatnonzero(levels)
    late = additions.take(rows.tolist())
    return Additions(late.cohorts, late.start_s, levels[rows], late.values)


def _window_of(totals: Totals, key: WindowKey) -> WindowSums:
    window = totals.windows.get(key)
    if window is None:
        window = totals.windows[key] = WindowSums()
    return window


def _later(last: Mark | None, mark: Mark) -> Mark:
    if last is None:
        return mark
    return Mark(
        mark.partition,
        mark.partitions,
        max(last.sequence, mark.sequence),
        max(last.counted_to, mark.counted_to),
        max(last.watermark_ns, mark.watermark_ns),
        max(last.closing_ns, mark.closing_ns),
    )


def _horizon_ns(totals: Totals, keeping: Keeping) -> int:
    """By event time only: whoever is cut off altogether finds the windows as they were."""
    known = [m.watermark_ns for m in totals.marks.values() if m.watermark_ns]
    return max(min(known), max(known) - keeping.idle_ns) if known else 0


def closing_ns(totals: Totals) -> int:
    """Windows that end by then are final: as the slowest partition says. A partition that has not
    said anything yet holds all of them open."""
    if not totals.marks:
        return 0
    partitions = max(m.partitions for m in totals.marks.values())
    if len(totals.marks) < partitions:
        return 0
    return min(m.closing_ns for m in totals.marks.values())


def tell(totals: Totals, lengths: Sequence[int]) -> WindowRows:
    """Rows that are due, in order: every cohort of windows that became final, the changed ones of
    windows that were, and the changed ones of open windows of these ``lengths``."""
    closes_ns = closing_ns(totals)
    rows = []
    for key in sorted(totals.windows):
        window = totals.windows[key]
        if not window.final and key.end_ns <= closes_ns:
            window.close()
        if window.final or key.seconds in lengths:
            cohorts, words = window.tell()
            if cohorts:
                rows.append(Told(key, window.final, totals.counted_to, cohorts, words))
    return WindowRows(rows)


def forget(totals: Totals, keeping: Keeping) -> None:
    """Drop the windows that nothing may change any more, once they are final."""
    for key in [
        k
        for k, w in totals.windows.items()
        if w.final and not w.has_news and k.end_ns + keeping.retention_ns <= totals.horizon_ns
    ]:
        totals.gone.append((key, totals.windows.pop(key).chunks))
