"""Since when a server's counters count, and how little of what is stored must be counted again.

A model that is loaded again begins its counters anew within the same server, all but those of
failures: then a counter falls, or its processes are younger ones. What was stored in between
belongs to either: it is in no lower bound and in every upper one, so that no alarm is false.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from metering.capacity import MOST_COUNT, CapacityHeartbeat, Failures, ModelCounters
from metering.reconciliation import (
    SLACK_NS,
    Bounds,
    Quantity,
    Snapshot,
    Tally,
    Verdict,
    confirm,
    counted,
    judge,
)

HEALS_NS = 600 * 10**9
"""What both sides agreed on, and is older, is not counted again: nothing of it can still come."""
KEEPS_NS = 86_400 * 10**9
"""While they disagree, usage that comes late heals it for so long; what is older is settled."""

YOUNGER_NS = 10**9
"""By so much more than what asking takes, processes have begun later than others."""
_BEGIN_ANEW: tuple[Quantity, ...] = ("executions", "rows", "gpu_ns", "answered", "cache_hits")

Part = Literal["between", "settled", "early", "late"]
"""A stored batch ended while the counters may have begun anew; so long ago that it is settled;
before the snapshot for certain; or about when it was taken."""


@dataclass(frozen=True, slots=True)
class Counting:
    """One model of one server. The counters began after ``after_ns`` and before ``before_ns``;
    ``settled`` is what is stored from then up to ``settled_ns``. The oldest process of the model
    that lives began at ``oldest_ns``, 0 where that is not known.
    Triton's counters of failures don't begin anew; ``failures`` are from before."""

    after_ns: int = 0
    before_ns: int = 0
    settled_ns: int = 0
    settled: Bounds = field(default_factory=Bounds)
    last: Verdict | None = None
    oldest_ns: int = 0
    failures: Failures = field(default_factory=Failures)


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be counted anew: batches that ended after ``after_ns`` and not after
    ``asked_ns``, by part; see ``Part``."""

    after_ns: int
    before_ns: int
    settles_ns: int
    early_ns: int
    asked_ns: int


def resume(last: Verdict) -> Counting:
    """After a restart, from the last verdict that was stored. All is counted again once."""
    return Counting(
        last.counted_after_ns,
        last.counted_before_ns,
        last.counted_after_ns,
        last=last,
        failures=last.failures_before,
    )


def look(counting: Counting, beat: CapacityHeartbeat, counters: ModelCounters) -> Counting:
    """Whether the counters began anew since the last look."""
    last = counting.last
    oldest_ns = _oldest_ns(beat, counters.model)
    if last is None and counting.before_ns == 0:
        return replace(counting, before_ns=oldest_ns, oldest_ns=oldest_ns)
    known_ns = counting.oldest_ns or (0 if last is None else last.time_ns)
    others = oldest_ns > known_ns + YOUNGER_NS
    counting = replace(counting, oldest_ns=oldest_ns or counting.oldest_ns)
    if last is not None and _fell(last, counters):
        after_ns = max(counting.after_ns, last.time_ns - SLACK_NS)
        return Counting(
            after_ns=after_ns,
            before_ns=beat.asked_ns,
            settled_ns=after_ns,
            oldest_ns=counting.oldest_ns,
            failures=_failures_of(last),
        )
    if others:  # They may have, and outgrown what they were.
        return replace(
            counting,
            before_ns=beat.asked_ns,
            settled_ns=counting.after_ns,
            settled=Bounds(),
        )
    return counting


def question(counting: Counting, beat: CapacityHeartbeat) -> Question:
    last, early_ns = counting.last, max(0, beat.time_ns - SLACK_NS)
    settles_ns = beat.time_ns - KEEPS_NS
    if last is not None and last.agrees:
        settles_ns = max(settles_ns, min(beat.time_ns - HEALS_NS, last.time_ns - SLACK_NS))
    return Question(
        after_ns=counting.settled_ns,
        before_ns=counting.before_ns,
        settles_ns=max(counting.settled_ns, settles_ns),
        early_ns=early_ns,
        asked_ns=beat.asked_ns,
    )


def answer(
    counting: Counting,
    asked: Question,
    beat: CapacityHeartbeat,
    counters: ModelCounters,
    found: Mapping[Part, Tally],
) -> Counting:
    """Its ``last`` is the verdict; what is settled need not be counted again."""
    none = Tally()
    between, old = found.get("between", none), found.get("settled", none)
    settled = counting.settled + Bounds(old, between + old)
    early, late = found.get("early", none), found.get("late", none)
    snapshot = Snapshot(
        host=beat.host,
        boot_id=beat.boot_id or "",
        time_ns=beat.time_ns,
        asked_ns=beat.asked_ns,
        counted_after_ns=counting.after_ns,
        counted_before_ns=counting.before_ns,
        failures_before=counting.failures,
    )
    if counters.failures is not None:
        since = counters.failures.since(counting.failures)
        counters = counters.model_copy(update={"failures": since})
    verdict = judge(snapshot, counters, settled + Bounds(early, early + late))
    counting = replace(counting, last=confirm(verdict, counting.last))
    if asked.settles_ns < counting.before_ns:
        return counting
    return replace(counting, settled_ns=asked.settles_ns, settled=settled)


def _oldest_ns(beat: CapacityHeartbeat, model: str) -> int:
    walls_ns = [i.wall_ns for i in beat.instances if i.model == model]
    return max(0, beat.asked_ns - max(walls_ns)) if walls_ns else 0


def _fell(before: Verdict, now: ModelCounters) -> bool:
    told = counted(now)
    return any(told[name] < before.part(name, "server") for name in _BEGIN_ANEW)


def _failures_of(last: Verdict) -> Failures:
    """As Triton told them."""
    before = last.failures_before

    def both(known: int, quantity: Quantity) -> int:
        return min(known + last.part(quantity, "server"), MOST_COUNT)

    return Failures(
        rejected=both(before.rejected, "timed_out"),
        cancelled=both(before.cancelled, "cancelled_in_queue"),
        backend=both(before.backend, "failed"),
        other=both(before.other, "other"),
    )
