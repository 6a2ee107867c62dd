"""One partition of the additions: from what usage adds to windows, to rows that tell of them.

Additions are added as they come, in memory. Now and then what has changed is told: rows to
ClickHouse, and in one transaction, which is committed once these are stored, rows to their topic
and the totals to theirs; then what was added is acknowledged. A crash in between tells the same
rows again: a row depends on the additions up to its ``counted_to`` alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from metering.additions import decode
from metering.messages import Message
from metering.totals import Keeping, Totals, add, expected, forget, tell
from metering.totals_records import changed_records
from metering.window_rows import WindowRows
from metering.windows import WINDOW_SECONDS
from sinks.prometheus import WorkerMetrics
from streams.publisher import Record, window_records
from streams.topics import TOTALS
from streams.worker.additions_records import late_letter
from streams.worker.epochs import by_position, moved

log = logging.getLogger(__name__)

ReadStretch = Callable[[int, int], Awaitable[tuple[list[Message], int]]]
WriteRows = Callable[[WindowRows], Awaitable[None]]
Commit = Callable[[Sequence[Record], Awaitable[None]], Awaitable[None]]
"""All of the records, once what is done beside them is done; or none of them, and Lost."""
QUICK_SECONDS = tuple(s for s in WINDOW_SECONDS if s <= 60)
SLOW_EVERY = 10
"""Longer windows that are open are told of every so many times."""
SAVE_EVERY_S = 5.0
"""How far the partition is, where nothing else has changed."""


class Totalling:
    """Handles one partition; ``handle`` and ``tell`` never run at the same time."""

    def __init__(
        self,
        partition: int,
        *,
        totals: Totals,
        write_rows: WriteRows,
        commit: Commit,
        read_stretch: ReadStretch,
        metrics: WorkerMetrics,
        keeping: Keeping | None = None,
    ) -> None:
        self.partition = partition
        self._totals = totals
        self._write_rows = write_rows
        self._commit = commit
        self._read_stretch = by_position(read_stretch, totals.epoch.begin)
        self._metrics = metrics
        self._keeping = Keeping() if keeping is None else keeping
        self._letters: list[Record] = []
        self._open: list[Callable[[], object]] = []
        self._turns = 0
        self._saved_at = 0.0

    async def handle(self, messages: Sequence[Message], acknowledge: Callable[[], object]) -> None:
        """Add them; those that were passed over are read from the topic first. ``acknowledge`` is
        called once what they add is told, and they need not come again."""
        for message in moved(messages, self._totals.epoch.begin):
            await self._add(message, reread=True)
        self._open.append(acknowledge)

    async def _add(self, message: Message, *, reread: bool) -> None:
        if message.offset <= self._totals.counted_to:
            return
        mark, sums = decode(message.value)
        if reread and not expected(self._totals, mark):
            await self._reread(message.offset)
        late = add(self._totals, message.offset, mark, sums, self._keeping)
        if len(late.cohorts):
            self._letters.append(late_letter(mark, late, self.partition, message.offset))
            self._metrics.refused.labels("late").inc()

    async def _reread(self, end: int) -> None:
        first = self._totals.counted_to + 1
        log.warning("additions had been passed over, from offset %d to %d", first, end)
        while first < end:
            found, first = await self._read_stretch(first, end)
            self._metrics.reread.inc(len(found))
            for message in found:
                await self._add(message, reread=False)

    async def tell(self) -> None:
        """Returns when all that was added is durable and told."""
        self._turns += 1
        slow = self._turns % SLOW_EVERY == 0
        rows = tell(self._totals, WINDOW_SECONDS if slow else QUICK_SECONDS)
        is_due = time.monotonic() >= self._saved_at + SAVE_EVERY_S
        if not (rows or self._letters or (self._open and is_due)):
            return
        started = time.monotonic()
        forget(self._totals, self._keeping)
        records = [
            *window_records(rows),
            *self._letters,
            *(
                Record(TOTALS, key, value, [], self.partition)
                for key, value in changed_records(self._totals)
            ),
        ]
        await self._commit(records, self._write_rows(rows))
        for acknowledge in self._open:
            acknowledge()
        self._open, self._letters, self._saved_at = [], [], time.monotonic()
        self._metrics.window_rows.inc(len(rows))
        self._metrics.tell_seconds.observe(time.monotonic() - started)
