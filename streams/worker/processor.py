"""One partition's way from messages to durable costs.

The order is the guarantee:

1. decide (pure): refuse, drop duplicates, price, count into windows;
2. write lines and windows to ClickHouse, publish lines, windows and refusals to Kafka;
3. save the ledger, which says up to which offset all this is done;
4. acknowledge the messages.

A crash before 3 repeats 1 and 2 with the same identities: ClickHouse replaces rows by equal ones,
consumers of the topics see an event again under the same ``ce_source`` and ``ce_id``. A crash
between 3 and 4 repeats nothing: the ledger knows the offsets. Nothing is acknowledged that is
not written, so nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from metering.errors import SinkUnavailable
from metering.ledger import Decision, Ledger, Policy, Refusal, is_quiet, take, tell, to_bytes
from metering.messages import Message
from sinks.clickhouse.writer import ClickHouseWriter
from sinks.prometheus import WorkerMetrics
from streams.publisher import Publisher, lines_records, refusal_record, window_record
from streams.worker.book import PriceBookFile
from streams.worker.counts import count_lines

log = logging.getLogger(__name__)

SaveLedger = Callable[[int, bytes], Awaitable[None]]
EndOffset = Callable[[int], Awaitable[int | None]]
"""The offset that the next message of a partition will get, as the broker says just now; ``None``:
nobody knows."""
ReadStretch = Callable[[int, int, int], Awaitable[tuple[list[Message], int]]]
"""Messages of a partition from one offset to before another, and the offset to go on from."""
STALLED_TICKS = 5
"""After so many in which nothing comes though something is there, it is read from the topic."""
TAKE_BYTES = 8 * 1024**2
"""Messages are decided about together up to that: read, they take up some ten times as much."""
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0


class Processor:
    """Handles one partition; ``handle`` and ``tick`` never run at the same time."""

    def __init__(
        self,
        partition: int,
        *,
        ledger: Ledger,
        prices: PriceBookFile,
        writer: ClickHouseWriter,
        publisher: Publisher,
        save: SaveLedger,
        end_offset: EndOffset,
        read_stretch: ReadStretch,
        metrics: WorkerMetrics,
        policy: Policy | None = None,
    ) -> None:
        self.partition = partition
        self._ledger = ledger
        self._prices = prices
        self._writer = writer
        self._publisher = publisher
        self._save = save
        self._end_offset = end_offset
        self._read_stretch = read_stretch
        self._metrics = metrics
        self._policy = Policy() if policy is None else policy
        self._turn = asyncio.Lock()
        self._stalled_ticks = 0

    async def handle(self, messages: Sequence[Message]) -> None:
        """Returns when all that follows from the messages is durable. Offsets that were passed
        over, before the messages or among them, are read from the topic first."""
        async with self._turn:
            due: list[Message] = []
            size = 0
            next_offset = self._ledger.windows.counted_to + 1
            for message in messages:
                if message.offset > next_offset or size >= TAKE_BYTES:
                    await self._take(due)
                    due, size = [], 0
                    await self._reread(next_offset, message.offset)
                due.append(message)
                size += len(message.value)
                next_offset = max(next_offset, message.offset + 1)
            await self._take(due)

    async def _take(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        now_ns = time.time_ns()
        self._prices.refresh()
        decision = take(self._ledger, messages, self._prices.book, self._policy, now_ns)
        decision.rows = tell(self._ledger, self._policy, now_ns, provisional=False)
        await self._make_durable(decision)

    async def _reread(self, first: int, end: int) -> None:
        """An offset that is counted is never read again: what is missing must come before."""
        while first < end:
            messages, first = await self._read_stretch(self.partition, first, end)
            if messages:
                log.warning(
                    "%d messages had been passed over, from offset %d on",
                    len(messages),
                    messages[0].offset,
                )
                self._metrics.reread.inc(len(messages))
            await self._take(messages)
        windows = self._ledger.windows
        windows.counted_to = max(windows.counted_to, end - 1)

    async def tick(self) -> None:
        """What time alone brings about: provisional rows, and the closing of quiet windows."""
        async with self._turn:
            now_ns = time.time_ns()
            self._prices.refresh()
            caught_up = await self._caught_up(now_ns)
            decision = Decision(
                rows=tell(self._ledger, self._policy, now_ns, provisional=True, caught_up=caught_up)
            )
            if decision.rows:
                await self._make_durable(decision)
            self._metrics.price_book_ok.set(self._prices.ok)
            if self._ledger.windows.watermark_ns:
                delay_ns = now_ns - self._ledger.windows.watermark_ns
                self._metrics.watermark_delay.set(delay_ns / 1e9)

    async def _caught_up(self, now_ns: int) -> bool:
        """Whether the topic is quiet and read to its end."""
        if not is_quiet(self._ledger, self._policy, now_ns):
            self._stalled_ticks = 0
            return False
        end = await self._end_offset(self.partition)
        if end is None:
            return False
        next_offset = self._ledger.windows.counted_to + 1
        self._stalled_ticks = self._stalled_ticks + 1 if next_offset < end else 0
        if self._stalled_ticks >= STALLED_TICKS:
            self._stalled_ticks = 0
            await self._reread(next_offset, end)
        return next_offset >= end

    async def _make_durable(self, decision: Decision) -> None:
        delay_s = RETRY_FIRST_S
        started = time.monotonic()
        while True:
            try:
                await self._write(decision)
                break
            except SinkUnavailable as exc:
                self._metrics.write_failures.inc()
                log.warning("%s; trying again in %.1f s", exc, delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MOST_S)
        await self._save(self.partition, to_bytes(self._ledger))
        self._metrics.write_seconds.observe(time.monotonic() - started)
        self._count(decision)

    async def _write(self, decision: Decision) -> None:
        await asyncio.to_thread(self._writer.write_lines, decision.lines)
        await asyncio.to_thread(self._writer.write_windows, decision.rows)
        await self._publisher.publish(
            [
                *lines_records(decision.lines, self.partition, decision.offsets),
                *map(window_record, decision.rows),
                *(refusal_record(r, self.partition) for r in decision.refusals),
            ]
        )

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
        counted_to = self._ledger.windows.counted_to
        metrics.counted_to.labels(str(self.partition)).set(counted_to)
        metrics.missing.set(sum(s.seen.missing for s in self._ledger.sources.values()))
