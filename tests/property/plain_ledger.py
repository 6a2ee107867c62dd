"""The ledger by its plain rule: whatever it needs of its sources it asks all of them for.

The rule that :mod:`metering.ledger` keeps up with step by step; too slow for many sources, and
right by reading it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from metering.errors import UnreadableUsage
from metering.ledger import Policy
from metering.messages import Message, read


@dataclass
class PlainSource:
    seen: set[int] = field(default_factory=set)
    last_ns: int = 0
    appended_ns: int = 0


@dataclass
class PlainLedger:
    sources: dict[str, PlainSource] = field(default_factory=dict)
    watermark_ns: int = 0
    missing: int = 0


@dataclass
class PlainDecision:
    """Offsets of what was counted, each with the watermark before it; and of the duplicates."""

    counted: list[tuple[int, int]] = field(default_factory=list)
    duplicates: list[int] = field(default_factory=list)


def plain_take(ledger: PlainLedger, messages: Sequence[Message], policy: Policy) -> PlainDecision:
    decision = PlainDecision()
    stamp_ns = messages[0].appended_ns
    for message, found in zip(messages, read(messages).heads, strict=True):
        if message.appended_ns != stamp_ns:
            stamp_ns = message.appended_ns
            _move(ledger, policy)
        assert not isinstance(found, UnreadableUsage)
        if found.end_epoch_ns > message.appended_ns + policy.future_ns:
            continue
        source = ledger.sources.setdefault(found.source, PlainSource())
        if found.sequence in source.seen:
            decision.duplicates.append(message.offset)
            continue
        source.seen.add(found.sequence)
        source.last_ns = max(source.last_ns, found.end_epoch_ns)
        source.appended_ns = max(source.appended_ns, message.appended_ns)
        decision.counted.append((message.offset, ledger.watermark_ns))
        behind_ns = policy.disorder.lag_ns + policy.disorder.within_ns
        ledger.watermark_ns = max(ledger.watermark_ns, found.end_epoch_ns - behind_ns)
    _move(ledger, policy)
    horizon_ns = ledger.watermark_ns - policy.source_retention_ns
    ledger.sources = {n: s for n, s in ledger.sources.items() if s.last_ns >= horizon_ns}
    ledger.missing = sum(max(s.seen) + 1 - len(s.seen) for s in ledger.sources.values())
    return decision


def _move(ledger: PlainLedger, policy: Policy) -> None:
    if not ledger.sources:
        return
    known = ledger.sources.values()
    alive_ns = max(s.appended_ns for s in known) - policy.disorder.silence_ns
    living = [s.last_ns for s in known if s.appended_ns >= alive_ns]
    slowest_ns = max(min(living), max(living) - policy.disorder.lag_ns)
    ledger.watermark_ns = max(ledger.watermark_ns, slowest_ns - policy.disorder.within_ns)
