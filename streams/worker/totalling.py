"""One partition of the additions: from what usage adds to windows, to rows that tell of them.

Additions are added as they come, in memory. Twice a second the changed windows are published:

1. their rows are inserted into ClickHouse, and the insert is retried until ClickHouse takes them;
2. one transaction commits the rows to their topic and the changed totals to theirs;
3. the additions are acknowledged.

A crash between 1 and 2 inserts the same rows again: a row depends on the additions up to its
``counted_to`` alone, which is its version in ClickHouse. No transaction is open during 1, so an
outage of ClickHouse stops no reader of the topic.

A transaction that is lost takes the totals in memory with it. What they had added is not lost: it
stays in ``untold``, which outlives them, and is added again to the totals that Kafka has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from metering.additions import decode
from metering.errors import UnreadableUsage
from metering.ledger import Refusal
from metering.messages import Message
from metering.totals import Keeping, Totals, add, expected, forget, tell
from metering.totals_records import changed_records
from metering.window_rows import WindowRows
from metering.windows import WINDOW_SECONDS
from sinks.prometheus import WorkerMetrics
from streams.publisher import Record, refusal_record, window_records
from streams.topics import ADDITIONS, TOTALS
from streams.worker.additions_records import TOO_LARGE, late_letter, too_large_letter
from streams.worker.epochs import by_position, moved

log = logging.getLogger(__name__)

ReadStretch = Callable[[int, int], Awaitable[tuple[list[Message], int]]]
WriteRows = Callable[[WindowRows], Awaitable[None]]
Commit = Callable[[Sequence[Record]], Awaitable[None]]
"""All of the records; or none of them, and Lost."""
Untold = list[tuple[Sequence[Message], Callable[[], object]]]
"""Messages that are added but not yet acknowledged, in their order, each lot with the function that
acknowledges it."""
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
        untold: Untold | None = None,
    ) -> None:
        """``untold`` is what an owner before this one, in the same process, left unacknowledged; it
        must be the same list for each owner that follows."""
        self.partition = partition
        self._totals = totals
        self._write_rows = write_rows
        self._commit = commit
        self._read_stretch = by_position(read_stretch, totals.epoch.begin)
        self._metrics = metrics
        self._keeping = Keeping() if keeping is None else keeping
        self._letters: list[Record] = []
        self._untold: Untold = [] if untold is None else untold
        self._has_inherited = bool(self._untold)
        self._turns = 0
        self._saved_at = 0.0

    async def handle(self, messages: Sequence[Message], acknowledge: Callable[[], object]) -> None:
        """Add them; those that were passed over are read from the topic first. ``acknowledge`` is
        called once what they add is told, and they need not come again."""
        await self._add_inherited()
        positioned = moved(messages, self._totals.epoch.begin)
        for message in positioned:
            await self._add(message, reread=True)
        self._untold.append((positioned, acknowledge))

    async def _add_inherited(self) -> None:
        """What is in the totals already, because the lost transaction was committed after all, is
        passed over by its offset."""
        if self._has_inherited:
            for messages, _ in list(self._untold):
                for message in messages:
                    await self._add(message, reread=True)
            self._has_inherited = False

    async def _add(self, message: Message, *, reread: bool) -> None:
        if message.offset <= self._totals.counted_to:
            return
        try:
            mark, sums = decode(message.value)
        except UnreadableUsage as exc:
            self._totals.counted_to = message.offset
            refusal = Refusal(message, exc.reason, exc.detail)
            letter = refusal_record(refusal, self.partition, topic=ADDITIONS)
            self._refuse(exc.reason, letter)
            return
        if reread and not expected(self._totals, mark):
            await self._reread(message.offset)
        not_added = add(self._totals, message.offset, mark, sums, self._keeping)
        if len(not_added.late.cohorts):
            self._refuse("late", late_letter(mark, not_added.late, self.partition, message.offset))
        for seconds, parts in not_added.too_large:
            letter = too_large_letter(mark, parts, seconds, self.partition, message.offset)
            self._refuse(TOO_LARGE, letter)

    def _refuse(self, reason: str, letter: Record) -> None:
        self._letters.append(letter)
        self._metrics.refused.labels(reason).inc()
        log.warning("%s: %s", reason, dict(letter.headers)["meter_detail"].decode())

    async def _reread(self, end: int) -> None:
        first = self._totals.counted_to + 1
        log.warning("additions had been passed over, from offset %d to %d", first, end)
        while first < end:
            found, first = await self._read_stretch(first, end)
            self._metrics.reread.inc(len(found))
            for message in found:
                await self._add(message, reread=False)

    async def tell(self) -> None:
        """Returns when all that was added is durable and told.

        Raises:
            Lost: nothing was told, or nobody knows; an owner that is made anew goes on.
        """
        await self._add_inherited()
        self._turns += 1
        slow = self._turns % SLOW_EVERY == 0
        rows = tell(self._totals, WINDOW_SECONDS if slow else QUICK_SECONDS)
        is_due = time.monotonic() >= self._saved_at + SAVE_EVERY_S
        if not (rows or self._letters or (self._untold and is_due)):
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
        await self._write_rows(rows)
        await self._commit(records)
        for _, acknowledge in self._untold:
            acknowledge()
        self._untold.clear()
        self._letters, self._saved_at = [], time.monotonic()
        self._metrics.window_rows.inc(len(rows))
        self._metrics.tell_seconds.observe(time.monotonic() - started)
