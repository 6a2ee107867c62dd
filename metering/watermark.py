"""How far a partition of the usage topic has come in event time: as far as its slowest source."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from metering.windows import NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Disorder:
    """How much of it is waited for.

    A source's own events may be ``within_ns`` out of order. One that lags behind the newest is
    waited for up to ``lag_ns``; one that has sent nothing for ``silence_ns``, by the broker's
    stamps, is not waited for at all.
    """

    within_ns: int = 2 * NS_PER_SECOND
    lag_ns: int = 30 * NS_PER_SECOND
    silence_ns: int = 10 * NS_PER_SECOND


def watermark(before_ns: int, sources: Iterable[tuple[int, int]], disorder: Disorder) -> int:
    """Of sources, each with the newest event time and the broker's stamp of its last message. It
    depends on what came alone, not on a clock, and never goes back."""
    known: Collection[tuple[int, int]] = list(sources)
    if not known:
        return before_ns
    alive_ns = max(stamp for _, stamp in known) - disorder.silence_ns
    living = [newest for newest, stamp in known if stamp >= alive_ns]
    slowest = max(min(living), max(living) - disorder.lag_ns)
    return max(before_ns, slowest - disorder.within_ns)
