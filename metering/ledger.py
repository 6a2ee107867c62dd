"""What the stream decides about usage messages: refuse, drop, price, count. No I/O.

One ledger belongs to one partition of the usage topic. What has changed in it is saved in one
transaction with everything that it decided (``metering.ledger_records``); so it never speaks of
what was not, and what it decided after the last save is decided again in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from metering.additions import NO_ADDITIONS, Additions, Mark
from metering.counting import additions_of, too_late_for
from metering.epochs import FIRST_EPOCH, Epoch
from metering.errors import UnreadableUsage
from metering.frame import Frame
from metering.lines import NO_LINES, CostLines
from metering.messages import Message, read
from metering.prices import PriceBook
from metering.pricing_columns import price
from metering.sources import Sources
from metering.watermark import Disorder, watermark
from metering.windows import NS_PER_SECOND, WINDOW_SECONDS


@dataclass(frozen=True, slots=True)
class Policy:
    """How much disorder is waited for, and for how long a window may still be corrected."""

    disorder: Disorder = field(default_factory=Disorder)
    retention_ns: int = 120 * NS_PER_SECOND
    quiet_ns: int = 3 * NS_PER_SECOND
    future_ns: int = 60 * NS_PER_SECOND
    source_retention_ns: int = 7 * 86_400 * NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message for the dead-letter topic. ``late`` ones were priced and stored all the same."""

    message: Message
    reason: str
    detail: str


@dataclass(slots=True)
class Decision:
    """What is to be written."""

    lines: CostLines = NO_LINES
    refusals: list[Refusal] = field(default_factory=list)
    additions: Additions = NO_ADDITIONS
    offsets: tuple[int, int] = (0, -1)  # the first and the last that were decided about
    batches: int = 0
    duplicates: int = 0
    replayed: int = 0


@dataclass(slots=True)
class Ledger:
    """``takes`` counts what was sent of the takes of which something was decided. Offsets here, and
    those of the messages, are positions in ``epoch``."""

    sources: Sources = field(default_factory=Sources)
    watermark_ns: int = 0
    counted_to: int = -1
    takes: int = 0
    last_arrival_ns: int = 0
    epoch: Epoch = FIRST_EPOCH


def take(
    ledger: Ledger, messages: Sequence[Message], book: PriceBook, policy: Policy, now_ns: int
) -> Decision:
    """Decide about messages in the order of their offsets. What is decided depends on the messages
    before them and the price book alone, not on ``now_ns`` (epoch), from which it is only reckoned
    how long the topic has been quiet."""
    decision = Decision()
    new = [m for m in messages if m.offset > ledger.counted_to]
    decision.replayed = len(messages) - len(new)
    if not new:
        return decision
    decision.offsets = new[0].offset, new[-1].offset
    accepted: list[int] = []
    reached_ns: list[int] = []
    came = read(new)
    stamp_ns = new[0].appended_ns
    for place, (message, found) in enumerate(zip(new, came.heads, strict=True)):
        if message.appended_ns != stamp_ns:  # those of one stamp came to the broker together
            stamp_ns = message.appended_ns
            _move_watermark(ledger, policy)
        if isinstance(found, UnreadableUsage):
            decision.refusals.append(Refusal(message, found.reason, found.detail))
            continue
        if _is_future(found.end_epoch_ns, message, policy):
            decision.refusals.append(_from_the_future(found.end_epoch_ns, message, policy))
            continue
        if ledger.sources.see(
            found.source, found.sequence, found.end_epoch_ns, message.appended_ns
        ):
            accepted.append(place)
            reached_ns.append(ledger.watermark_ns)
            behind_ns = policy.disorder.lag_ns + policy.disorder.within_ns
            ledger.watermark_ns = max(ledger.watermark_ns, found.end_epoch_ns - behind_ns)
        else:
            decision.duplicates += 1
    if accepted:
        frame = came.frame(accepted)
        decision.lines = price(frame, book)
        late = _count(decision, frame, [new[n] for n in accepted], reached_ns, policy)
        decision.refusals = sorted(decision.refusals + late, key=lambda r: r.message.offset)
        decision.batches = len(accepted)
    ledger.counted_to = max(m.offset for m in new)
    ledger.takes += 1
    ledger.last_arrival_ns = now_ns
    _move_watermark(ledger, policy)
    ledger.sources.forget(ledger.watermark_ns - policy.source_retention_ns)
    return decision


def lines_of(messages: Sequence[Message], book: PriceBook, policy: Policy) -> CostLines:
    """Of messages that were decided about before, whatever can be priced: of one that came twice
    twice the same lines."""
    came = read(messages)
    places = [
        n
        for n, (message, found) in enumerate(zip(messages, came.heads, strict=True))
        if not isinstance(found, UnreadableUsage)
        and not _is_future(found.end_epoch_ns, message, policy)
    ]
    return price(came.frame(places), book) if places else NO_LINES


def _move_watermark(ledger: Ledger, policy: Policy) -> None:
    living = ledger.sources.living(policy.disorder.silence_ns)
    ledger.watermark_ns = watermark(ledger.watermark_ns, living, policy.disorder)


def _is_future(end_epoch_ns: int, message: Message, policy: Policy) -> bool:
    return end_epoch_ns > message.appended_ns + policy.future_ns


def _from_the_future(end_epoch_ns: int, message: Message, policy: Policy) -> Refusal:
    return Refusal(
        message,
        "from-the-future",
        f"end_epoch_ns={end_epoch_ns} is more than {policy.future_ns / NS_PER_SECOND:g} s after "
        f"the broker's {message.appended_ns}: check the server's clock",
    )


def _count(
    decision: Decision,
    frame: Frame,
    accepted: Sequence[Message],
    reached_ns: Sequence[int],
    policy: Policy,
) -> list[Refusal]:
    """The refusals are of events that came too late for a window, by the watermark before them."""
    ends_ns = frame.of_batch("end_epoch_ns")
    levels = too_late_for(ends_ns, np.array(reached_ns, np.int64), policy.retention_ns)
    decision.additions = additions_of(decision.lines, frame.batch, ends_ns, levels)
    return [
        Refusal(
            accepted[n],
            "late",
            f"{frame.counts[n]} requests ended at {ends_ns[n]}, more than "
            f"{policy.retention_ns / NS_PER_SECOND:g} s before the watermark "
            f"{reached_ns[n]}: stored, but not counted in their windows of "
            f"{' s, '.join(map(str, WINDOW_SECONDS[: levels[n]]))} s",
        )
        for n in np.flatnonzero(levels).tolist()
    ]


def is_quiet(ledger: Ledger, policy: Policy, now_ns: int) -> bool:
    """Whether nothing has come for ``quiet_ns``."""
    return now_ns - ledger.last_arrival_ns > policy.quiet_ns


def mark_of(
    ledger: Ledger,
    policy: Policy,
    *,
    partition: int,
    partitions: int,
    idle_since_ns: int | None = None,
) -> Mark:
    """How far the partition is. One that is quiet and was read to its end at ``idle_since_ns``
    (epoch) does not hold windows open: they close by the clock; if more comes all the same, they
    are corrected."""
    closing_ns, sequence = ledger.watermark_ns, ledger.takes
    if idle_since_ns is not None:
        waits_ns = policy.disorder.within_ns + policy.quiet_ns
        closing_ns, sequence = max(closing_ns, idle_since_ns - waits_ns), -1
    return Mark(partition, partitions, sequence, ledger.counted_to, ledger.watermark_ns, closing_ns)
