"""Which sighting is of which message, and how long it took. Pure; times are epoch ns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Identity = tuple[str, int]
"""(source, sequence) of a message."""
Group = tuple[object, ...]
"""A window and a cohort."""


class Lines:
    """When all lines of a message had been seen. A line that is seen again is not counted again
    unless it comes with others for the first time, so repeats are told by their position."""

    def __init__(self) -> None:
        self._seen: dict[Identity, set[int]] = {}
        self._last_ns: dict[Identity, int] = {}
        self.repeated = 0

    def add(self, identity: Identity, positions: Iterable[int], at_ns: int) -> None:
        seen = self._seen.setdefault(identity, set())
        before = len(seen)
        came = list(positions)
        seen.update(came)
        self.repeated += before + len(came) - len(seen)
        if len(seen) > before:
            self._last_ns[identity] = max(at_ns, self._last_ns.get(identity, 0))

    def complete_ns(self, identity: Identity, lines: int) -> int | None:
        """``None``: not all of its ``lines`` were seen."""
        complete = len(self._seen.get(identity, ())) == lines
        return self._last_ns[identity] if complete else None


@dataclass(slots=True)
class Counted:
    """The rows of one window and cohort as they were received: at which moment the count that a
    reader had seen had grown to what."""

    at_ns: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)

    def add(self, requests: int, at_ns: int) -> None:
        if not self.requests or requests > self.requests[-1]:
            self.at_ns.append(at_ns)
            self.requests.append(requests)


@dataclass(frozen=True, slots=True)
class Appended:
    """A message's requests of one window and cohort."""

    at_ns: int
    requests: int
    measured: bool


def window_delays(
    appended: Mapping[Group, Sequence[Appended]], counted: Mapping[Group, Counted]
) -> tuple[list[tuple[int, int]], int]:
    """(delay in ns, requests) of what is measured, and how many requests were in no row.

    Requests of a window and cohort that were appended up to a moment are n; the first row that
    counts n or more is taken to be the one that counts the last of them. Within a partition,
    which is counted in order, that is so. Of several partitions a row may count a later request of
    one before an earlier one of another: single delays may then be taken for each other's, while
    their mean stays what it is.
    """
    delays: list[tuple[int, int]] = []
    missing = 0
    for group, events in appended.items():
        told = counted.get(group, Counted())
        ordered = sorted(events, key=lambda event: event.at_ns)
        upto = np.cumsum([event.requests for event in ordered])
        places = np.searchsorted(np.asarray(told.requests, np.int64), upto)
        for event, place in zip(ordered, places.tolist(), strict=True):
            if not event.measured:
                continue
            if place == len(told.at_ns):
                missing += event.requests
            else:
                delays.append((told.at_ns[place] - event.at_ns, event.requests))
    return delays, missing


def appended_by_group(
    messages: Iterable[tuple[int, int, bool, Sequence[Group]]], window_s: int
) -> dict[Group, list[Appended]]:
    """Of messages as (appended at, event's end, whether it is measured, its requests' cohorts)."""
    found: dict[Group, list[Appended]] = {}
    for at_ns, end_ns, measured, cohorts in messages:
        second = end_ns // 10**9
        start_s = second - second % window_s
        for cohort, requests in Counter(cohorts).items():
            found.setdefault((start_s, *cohort), []).append(Appended(at_ns, requests, measured))
    return found


def percentiles(
    delays_ns: NDArray[np.int64] | Sequence[int],
    weights: Sequence[int] | None = None,
    of: Sequence[float] = (50, 95, 99, 100),
) -> list[float]:
    """In ms, by nearest rank: each is a delay that was seen, and ``weights`` says how often."""
    values = np.asarray(delays_ns, np.int64)
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    counts = np.ones(len(values), np.int64) if weights is None else np.asarray(weights)[order]
    upto = np.cumsum(counts)
    ranks = np.ceil(np.asarray(of) / 100 * upto[-1]).clip(1)
    return [float(ns) / 1e6 for ns in ranked[np.searchsorted(upto, ranks)]]
