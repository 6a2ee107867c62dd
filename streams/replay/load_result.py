"""What a load did: counts per cohort, latencies, and how far behind its schedule it fell."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

_REASONS_KEPT = 20
_REASON_CHARS = 160
_ID = re.compile(r"\[request id: [^\]]*\]|\b[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
_NUMBER = re.compile(r"\b(0x)?[0-9a-f]*\d[0-9a-f.]*")


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
    """A load on its way; ``at_s``, ``phase`` and ``lag_s`` (its delay) are of the last sent, and
    ``worst`` is the most frequent reason of a failure."""

    elapsed_s: float
    at_s: float
    phase: str
    sent: int
    answered: int
    failed: int
    in_flight: int
    lag_s: float
    worst: str = ""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A load that is over: everything sent was either answered or failed. ``interrupted``: it was
    stopped before everything was sent; what was not answered then has failed as ``CANCELLED``.

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
    interrupted: bool = False

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
    """Counts by code and message; messages beyond the first twenty are counted by code alone.

    Messages that differ only in an id or a number are of one kind, which has the text of the
    first. An id is not shown.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._kinds: dict[str, str] = {}

    def add(self, code: str, message: str, request_id: str = "") -> None:
        if request_id:
            message = message.replace(request_id, "…")
        text = " ".join(_ID.sub(" ", message).split())
        reason = f"{code}: {text}"
        if len(reason) > _REASON_CHARS:
            reason = reason[: _REASON_CHARS - 3] + "..."
        kind = _NUMBER.sub("#", reason)
        if kind not in self._kinds and len(self._kinds) >= _REASONS_KEPT:
            reason = kind = f"{code}: (other messages)"
            self._counts[reason] += 1
            return
        self._counts[self._kinds.setdefault(kind, reason)] += 1

    def by_reason(self) -> dict[str, int]:
        """The most frequent first."""
        return dict(self._counts.most_common())


_SENTENCES = {
    "UNAVAILABLE": "Triton could not be reached, or could not take the request",
    "DEADLINE_EXCEEDED": "there was no answer in time",
    "INVALID_ARGUMENT": "Triton refused the request as invalid",
    "NOT_FOUND": "Triton has no such model",
    "RESOURCE_EXHAUSTED": "Triton had no room for the request",
    "CANCELLED": "the request was cancelled",
    "UNUSABLE_ANSWER": "the answer lacks what was asked for",
    "INTERNAL": "Triton or the model failed",
}


def sentence(reason: str, count: int) -> str:
    """A failure for people: ``3,088 requests failed: Triton could not be reached (…)``."""
    code, _, detail = reason.partition(": ")
    what = _SENTENCES.get(code, code)
    requests = "1 request" if count == 1 else f"{count:,} requests"
    return f"{requests} failed: {what}" + (f" ({detail})" if detail else "")


def quantiles(values: Iterable[float], levels: Sequence[float]) -> list[float | None]:
    """Nearest-rank quantiles, levels in 0 < level <= 1; ``None`` where there are no values."""
    ordered = sorted(values)
    if not ordered:
        return [None] * len(levels)
    return [ordered[max(0, math.ceil(level * len(ordered)) - 1)] for level in levels]
