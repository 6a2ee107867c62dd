"""One partition of the usage topic: from messages to durable costs, and additions to windows.

The order is the guarantee:

1. decide (pure): refuse, drop duplicates, price, count into additions;
2. hand the lines to the store, which writes them to ClickHouse with those of other partitions;
3. commit in one transaction: lines, refusals and additions, and the ledger, which says up to which
   offset all this is done;
4. acknowledge the messages, once 3 is done and the lines are stored.

A crash before 3 is done decides again. After it the ledger knows the offsets, so nothing is sent
again; lines of messages that were not acknowledged are stored again under the same identities, and
ClickHouse replaces them by equal ones. Nothing is acknowledged that is not stored, so nothing is
lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain

from metering.additions import NO_ADDITIONS, Mark
from metering.ledger import (
    Decision,
    Ledger,
    Policy,
    Refusal,
    is_quiet,
    lines_of,
    mark_of,
    take,
)
from metering.ledger_records import changed_records
from metering.lines import CostLines
from metering.messages import Message
from sinks.prometheus import WorkerMetrics
from streams.publisher import Record, lines_records, refusal_record
from streams.topics import LEDGERS
from streams.worker.additions_records import additions_records, pieces_of
from streams.worker.book import PriceBookFile
from streams.worker.counts import count_lines
from streams.worker.epochs import by_position, moved

log = logging.getLogger(__name__)

Commit = Callable[[Iterable[Record]], Awaitable[None]]
"""All of the records; or none of them, and Lost."""
Store = Callable[[CostLines], None]
"""Sees to it that the lines are stored before the messages that they come from are acknowledged."""
EndOffset = Callable[[int], Awaitable[int | None]]
"""The offset that the next message of a partition will get, as the broker says just now; ``None``:
nobody knows."""
Room = Callable[[], Awaitable[None]]
"""Returns when the store has room for the lines of another take; Lost: the partition is another's
by then."""
ReadStretch = Callable[[int, int], Awaitable[tuple[list[Message], int]]]
"""Messages from one offset to before another, not many bytes at once, and the offset to go on
from."""
STALLED_TICKS = 5
"""After so many in which nothing comes though something is there, it is read from the topic."""
TAKE_BYTES = 8 * 1024**2
"""Messages are decided about together up to that: read, they take up some ten times as much."""


class Pricing:
    """Handles one partition; ``handle`` and ``tick`` never run at the same time."""

    def __init__(
        self,
        partition: int,
        *,
        partitions: int,
        ways: int,
        ledger: Ledger,
        prices: PriceBookFile,
        store: Store,
        room: Room,
        commit: Commit,
        end_offset: EndOffset,
        read_stretch: ReadStretch,
        metrics: WorkerMetrics,
        policy: Policy | None = None,
    ) -> None:
        self.partition = partition
        self._partitions = partitions
        self._ways = ways
        self._ledger = ledger
        self._prices = prices
        self._store = store
        self._room = room
        self._commit = commit
        self._end_offset = end_offset
        self._read_stretch = by_position(read_stretch, ledger.epoch.begin)
        self._metrics = metrics
        self._policy = Policy() if policy is None else policy
        self._stalled_ticks = 0
        self._done_to = ledger.counted_to
        """Up to there all is committed; the ledger is ahead of it while a transaction is open."""
        self._closing_ns = 0

    async def handle(self, messages: Sequence[Message]) -> None:
        """Returns when all that follows from the messages is committed, and lines are with the
        store. Offsets that were passed over, before the messages or among them, are read from the
        topic first."""
        messages = moved(messages, self._ledger.epoch.begin)
        due: list[Message] = []
        size = 0
        next_offset = self._ledger.counted_to + 1
        for message in messages:
            if message.offset > next_offset or size >= TAKE_BYTES:
                await self._take(due)
                due, size = [], 0
                await self._reread(next_offset, message.offset)
            due.append(message)
            size += len(message.value)
            next_offset = max(next_offset, message.offset + 1)
        await self._take(due)

    async def store_again(self, first: int) -> None:
        """Lines of what is counted, from the offset ``first`` on: whoever counted it may have died
        before they were stored."""
        first, end = first + self._ledger.epoch.begin, self._ledger.counted_to + 1
        while first < end:
            await self._room()
            messages, first = await self._read_stretch(first, end)
            lines = lines_of(messages, self._prices.book, self._policy)
            log.info("%d lines may not have been stored, and are stored again", lines.count)
            self._store(lines)

    async def _take(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        await self._room()
        started = time.monotonic()
        self._prices.refresh()
        decision = take(self._ledger, messages, self._prices.book, self._policy, time.time_ns())
        if decision.replayed == len(messages):
            return
        pieces = pieces_of(decision.additions, self._ways)
        self._ledger.takes += len(pieces) - 1  # Each piece has a number of its own.
        records = [
            *(refusal_record(r, self.partition) for r in decision.refusals),
            *additions_records(self._mark(), pieces),
            *(
                Record(LEDGERS, key, value, [], self.partition)
                for key, value in changed_records(self._ledger)
            ),
        ]
        self._store(decision.lines)
        # Lines are much, and are made one by one as they are sent.
        lines = lines_records(decision.lines, self.partition, decision.offsets)
        await self._commit(chain(lines, records))
        self._done_to = self._ledger.counted_to
        self._metrics.write_seconds.observe(time.monotonic() - started)
        self._count(decision)

    async def _reread(self, first: int, end: int) -> None:
        """An offset that is counted is never read again: what is missing must come before."""
        while first < end:
            messages, first = await self._read_stretch(first, end)
            if messages:
                log.warning(
                    "%d messages had been passed over, from offset %d on",
                    len(messages),
                    messages[0].offset,
                )
                self._metrics.reread.inc(len(messages))
            await self._take(messages)
        self._ledger.counted_to = max(self._ledger.counted_to, end - 1)
        self._done_to = self._ledger.counted_to

    def _mark(self, idle_since_ns: int | None = None) -> Mark:
        return mark_of(
            self._ledger,
            self._policy,
            partition=self.partition,
            partitions=self._partitions,
            idle_since_ns=idle_since_ns,
        )

    async def tick(self) -> list[Record]:
        """What time alone brings about: to be published, that windows are not held open by a
        partition that is quiet."""
        now_ns = time.time_ns()
        self._metrics.price_book_ok.set(self._prices.ok)
        is_idle = await self._caught_up(now_ns)
        mark = self._mark(now_ns if is_idle else None)
        self._closing_ns = max(self._closing_ns, mark.closing_ns)
        return additions_records(mark, pieces_of(NO_ADDITIONS, self._ways)) if is_idle else []

    def measure(self, now_ns: int, end: int | None) -> None:
        """Set what the partition shows of itself, at any time, also while it is busy. ``end`` is
        where its topic ends; ``None``: Kafka has not said it yet."""
        partition = str(self.partition)
        if end is not None:
            next_offset = self._done_to + 1 - self._ledger.epoch.begin
            self._metrics.lag.labels(partition).set(max(0, end - next_offset))
        if self._done_to >= 0:
            self._metrics.counted_to.labels(partition).set(self._done_to)
        closing_ns = max(self._closing_ns, self._mark().closing_ns)
        if closing_ns:
            self._metrics.watermark_delay.labels(partition).set((now_ns - closing_ns) / 1e9)

    async def _caught_up(self, now_ns: int) -> bool:
        """Whether the topic is quiet and read to its end."""
        if not is_quiet(self._ledger, self._policy, now_ns):
            self._stalled_ticks = 0
            return False
        end = await self._end_offset(self.partition)
        if end is None:
            return False
        end += self._ledger.epoch.begin
        next_offset = self._ledger.counted_to + 1
        self._stalled_ticks = self._stalled_ticks + 1 if next_offset < end else 0
        if self._stalled_ticks >= STALLED_TICKS:
            self._stalled_ticks = 0
            await self._reread(next_offset, end)
        return next_offset >= end

    def _count(self, decision: Decision) -> None:
        metrics = self._metrics
        metrics.batches.inc(decision.batches)
        metrics.duplicates.inc(decision.duplicates)
        by_reason: dict[str, list[Refusal]] = {}
        for refusal in decision.refusals:
            metrics.refused.labels(refusal.reason).inc()
            by_reason.setdefault(refusal.reason, []).append(refusal)
        for reason, refusals in by_reason.items():  # All of them are dead letters.
            log.warning(
                "message at offset %d refused: %s: %s%s",
                refusals[0].message.offset,
                reason,
                refusals[0].detail,
                f" (and {len(refusals) - 1} more of this reason)" if len(refusals) > 1 else "",
            )
        count_lines(metrics, decision.lines)
        partition = str(self.partition)
        metrics.counted_to.labels(partition).set(self._ledger.counted_to)
        metrics.missing.labels(partition).set(self._ledger.sources.missing)
