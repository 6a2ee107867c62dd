"""What a partition needs beside its own logic: transactions, and a way into ClickHouse."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from aiokafka import TopicPartition

from metering.errors import MeteringError
from metering.ledger_records import ledger_of
from metering.totals_records import totals_of
from metering.window_rows import WindowRows
from sinks.clickhouse.writer import ClickHouseWriter
from sinks.prometheus import WorkerMetrics
from streams.settings import Settings
from streams.targets import clickhouse_target
from streams.topics import (
    ADDITIONS,
    COST_REQUESTS,
    COST_WINDOWS,
    LEDGERS,
    TOTALS,
    USAGE_BATCHES,
    USAGE_DLQ,
)
from streams.worker.book import PriceBookFile
from streams.worker.line_store import LineStore
from streams.worker.pricing import EndOffset, Pricing
from streams.worker.reread import read_stretch
from streams.worker.retries import until_written
from streams.worker.stored_state import acknowledged_to, read_state
from streams.worker.together import Together
from streams.worker.totalling import Totalling, Untold
from streams.worker.transaction import Lost, Transactions

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""While ClickHouse does not store, a partition may become another worker's."""
Work = TypeVar("Work")


@dataclass(slots=True)
class Desk(Generic[Work]):
    """``work`` with what it sends through."""

    work: Work
    transactions: Transactions

    async def close(self) -> None:
        await self.transactions.stop()


class Desks:
    """Makes them. ``is_mine`` says whether a partition of a topic is this worker's."""

    def __init__(
        self,
        settings: Settings,
        app_id: str,
        metrics: WorkerMetrics,
        is_mine: Callable[[str, int], bool],
        end_offset: EndOffset,
    ) -> None:
        self.settings = settings
        self.app_id = app_id
        self.metrics = metrics
        self.is_mine = is_mine
        self.end_offset = end_offset
        self.prices = PriceBookFile(settings.price_book)
        self._writers = [ClickHouseWriter(clickhouse_target(settings)) for _ in range(2)]
        self.lines = LineStore(self._writers[0].write_all_lines, metrics)
        self._rows = Together(self._write_rows)
        self._untold: defaultdict[int, Untold] = defaultdict(list)

    def _write_rows(self, parts: Sequence[WindowRows]) -> None:
        self._writers[1].write_windows(*parts)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    def let_go(self) -> None:
        """Forget what was added, and not acknowledged, of partitions that are another worker's."""
        for number, untold in self._untold.items():
            if not self.is_mine(ADDITIONS, number):
                untold.clear()

    async def pricing(self, number: int) -> Desk[Pricing]:
        """Raises SinkUnavailable: Kafka does not answer."""
        state = TopicPartition(LEDGERS, number)
        reaches = (COST_REQUESTS, USAGE_DLQ, ADDITIONS)
        transactions = await self._begin(f"{USAGE_BATCHES}/{number}", state, reaches)
        return await _desk(transactions, self._pricing(number, transactions))

    async def _pricing(self, number: int, transactions: Transactions) -> Pricing:
        partitions = await transactions.partitions_of(USAGE_BATCHES)
        if await transactions.partitions_of(LEDGERS) < partitions:
            raise MeteringError(
                f"{LEDGERS} has fewer partitions than {USAGE_BATCHES} ({partitions}): "
                f"give it as many"
            )
        ledger = ledger_of(await read_state(self.settings, LEDGERS, number))
        log.info("usage, partition %d: counted to %d", number, ledger.counted_to)

        work = Pricing(
            number,
            partitions=partitions,
            ways=await transactions.partitions_of(ADDITIONS),
            ledger=ledger,
            prices=self.prices,
            store=partial(self.lines.put, number),
            room=partial(self._room, number),
            commit=transactions.commit,
            end_offset=self.end_offset,
            read_stretch=partial(read_stretch, self.settings, USAGE_BATCHES, number),
            metrics=self.metrics,
        )
        await work.store_again(
            await acknowledged_to(self.settings, self.app_id, USAGE_BATCHES, number)
        )
        return work

    async def _room(self, number: int) -> None:
        """Returns when not too many lines wait; Lost: the partition is another worker's by then."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    return await self.lines.room()
            except TimeoutError:
                if not self.is_mine(USAGE_BATCHES, number):
                    raise Lost(f"{USAGE_BATCHES}, partition {number}, is another's") from None

    async def totalling(self, number: int) -> Desk[Totalling]:
        """Raises SinkUnavailable: Kafka does not answer."""
        state = TopicPartition(TOTALS, number)
        reaches = (COST_WINDOWS, USAGE_DLQ)
        transactions = await self._begin(f"{ADDITIONS}/{number}", state, reaches)
        return await _desk(transactions, self._totalling(number, transactions))

    async def _totalling(self, number: int, transactions: Transactions) -> Totalling:
        totals = totals_of(await read_state(self.settings, TOTALS, number))
        log.info("additions, partition %d: counted to %d", number, totals.counted_to)

        async def write(rows: WindowRows) -> None:
            if rows:
                mine = partial(self.is_mine, ADDITIONS, number)
                who = f"rows of partition {number}"
                await until_written(partial(self._rows, rows), self.metrics, who, mine)

        return Totalling(
            number,
            totals=totals,
            write_rows=write,
            commit=transactions.commit,
            read_stretch=partial(read_stretch, self.settings, ADDITIONS, number),
            metrics=self.metrics,
            untold=self._untold[number],
        )

    async def _begin(
        self, name: str, state: TopicPartition, reaches: Sequence[str]
    ) -> Transactions:
        """From here on no other worker can add to what is stored of the partition."""
        transactions = Transactions(self.settings, f"{self.app_id}/{name}", state, reaches)
        await transactions.start()
        return transactions


async def _desk(transactions: Transactions, making: Awaitable[Work]) -> Desk[Work]:
    """Stop the transactions where the work that sends through them can't be made."""
    try:
        return Desk(await making, transactions)
    except BaseException:
        await transactions.stop()
        raise
