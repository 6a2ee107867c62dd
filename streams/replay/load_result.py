"""What a load did: counts per cohort, latencies, and how far behind its schedule it fell."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

_REASONS_KEPT = 20
_REASON_CHARS = 160


class Cohort(NamedTuple):
    """What the counts are told apart by."""

    model: str
    tenant: str
    phase: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Tokens are those that the server reported in its answers, not those that were asked for."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.sent + other.sent,
            self.answered + other.answered,
            self.failed + other.failed,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """A load on its way; ``at_s``, ``phase`` and ``lag_s`` (its delay) are of the last sent."""

    elapsed_s: float
    at_s: float
    phase: str
    sent: int
    answered: int
    failed: int
    in_flight: int
    lag_s: float


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A load that is over: everything sent was either answered or failed.

    ``failures`` counts by ``CODE: message``. Latencies are from the sending to the answer, of
    answered requests only, and ``None`` without any; what waited to be sent is in ``max_lag_s``.
    ``latencies_s`` has each of them, in the order of the answers, and ``sent_s`` when its request
    was sent, counted from the start.
    """

    by_cohort: Mapping[Cohort, Tally]
    failures: Mapping[str, int]
    latency_p50_s: float | None
    latency_p99_s: float | None
    max_lag_s: float
    elapsed_s: float
    sent_s: Sequence[float] = ()
    latencies_s: Sequence[float] = ()

    @property
    def total(self) -> Tally:
        return sum(self.by_cohort.values(), Tally())

    @property
    def sent(self) -> int:
        return self.total.sent

    @property
    def answered(self) -> int:
        return self.total.answered

    @property
    def failed(self) -> int:
        return self.total.failed

    def by(self, dimension: Literal["model", "tenant", "phase"]) -> dict[str, Tally]:
        """The same counts along one dimension; they sum to ``total``."""
        rolled: dict[str, Tally] = defaultdict(Tally)
        for cohort, tally in self.by_cohort.items():
            rolled[getattr(cohort, dimension)] += tally
        return dict(sorted(rolled.items()))


class FailureCounts:
    """Counts by code and message; messages beyond the first twenty are counted by code alone."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, code: str, message: str) -> None:
        reason = f"{code}: {' '.join(message.split())}"
        if len(reason) > _REASON_CHARS:
            reason = reason[: _REASON_CHARS - 3] + "..."
        if reason not in self._counts and len(self._counts) >= _REASONS_KEPT:
            reason = f"{code}: (other messages)"
        self._counts[reason] += 1

    def by_reason(self) -> dict[str, int]:
        """The most frequent first."""
        return dict(self._counts.most_common())


def quantiles(values: Iterable[float], levels: Sequence[float]) -> list[float | None]:
    """Nearest-rank quantiles, levels in 0 < level <= 1; ``None`` where there are no values."""
    ordered = sorted(values)
    if not ordered:
        return [None] * len(levels)
    return [ordered[max(0, math.ceil(level * len(ordered)) - 1)] for level in levels]
