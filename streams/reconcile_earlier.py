"""What earlier servers had counted and nothing stored tells of: a restart begins counters anew, and
the comparison of today does not see it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from metering.counted import Question
from metering.reconciliation import SLACK_NS, Bounds, Snapshot, Tally, Verdict, judge
from sinks.clickhouse.capacity import CapacityReader
from streams.settings import Settings
from streams.targets import clickhouse_target

MOST = 50


async def earlier_losses(settings: Settings, now: Sequence[Verdict]) -> list[Verdict]:
    """Of servers, and of models that were loaded again since: where the last heartbeat's counters
    do not agree with what is stored today. The newest first, and ``MOST`` at most; what ``now``
    speaks of is left out.

    Raises:
        MeteringError: ClickHouse does not answer.
    """
    return await asyncio.to_thread(_earlier, settings, {_stretch(v) for v in now})


def _earlier(settings: Settings, living: set[tuple[object, ...]]) -> list[Verdict]:
    reader = CapacityReader(clickhouse_target(settings))
    try:
        last = [v for v in reader.disagreed(MOST + len(living)) if _stretch(v) not in living]
        return [v for v in (_again(reader, each) for each in last[:MOST]) if not v.agrees]
    finally:
        reader.close()


def _stretch(verdict: Verdict) -> tuple[object, ...]:
    return (*verdict.key, verdict.counted_after_ns)


def _again(reader: CapacityReader, verdict: Verdict) -> Verdict:
    """On what has come since then, too: usage that was on its way when its server ended."""
    counters = reader.counters_of(verdict)
    if counters is None:
        return verdict
    asked = Question(
        after_ns=verdict.counted_after_ns,
        before_ns=verdict.counted_before_ns,
        settles_ns=verdict.counted_before_ns,
        early_ns=max(0, verdict.time_ns - SLACK_NS),
        asked_ns=verdict.asked_ns,
    )
    stored = reader.stored_of(verdict.boot_id, {verdict.model: verdict.version}, asked)
    found, none = stored.get((verdict.model, verdict.version), {}), Tally()
    early, late = found.get("early", none), found.get("late", none)
    if counters.failures is not None:
        since = counters.failures.since(verdict.failures_before)
        counters = counters.model_copy(update={"failures": since})
    snapshot = Snapshot(**{name: getattr(verdict, name) for name in Snapshot.model_fields})
    return judge(snapshot, counters, Bounds(early, found.get("between", none) + early + late))
