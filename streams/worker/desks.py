"""What a partition needs beside its own logic: transactions, and a way into ClickHouse."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from aiokafka import TopicPartition

from metering.epochs import Epoch, epoch_of
from metering.errors import MeteringError, SinkUnavailable
from metering.ledger import Ledger
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
from streams.worker.epochs import TopicWatch, end, tell_epoch
from streams.worker.line_store import LineStore
from streams.worker.pricing import EndOffset, Pricing
from streams.worker.reread import read_stretch
from streams.worker.retries import until_written
from streams.worker.stored_state import Reach, reach_of, read_state
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
    """Makes them. ``is_mine`` says whether a partition of a topic is this worker's; ``rewind``
    makes it read the partition from its beginning."""

    def __init__(
        self,
        settings: Settings,
        app_id: str,
        metrics: WorkerMetrics,
        is_mine: Callable[[str, int], bool],
        end_offset: EndOffset,
        *,
        rewind: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self.settings = settings
        self.app_id = app_id
        self.metrics = metrics
        self.is_mine = is_mine
        self.end_offset = end_offset
        self.rewind = rewind
        self.topics = TopicWatch(settings)
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
        async with self._begun(USAGE_BATCHES, state, reaches) as transactions:
            return Desk(await self._pricing(number, transactions), transactions)

    async def _pricing(self, number: int, transactions: Transactions) -> Pricing:
        partitions, ledgers = await _partitions_of(transactions, USAGE_BATCHES, LEDGERS)
        if ledgers < partitions:
            raise MeteringError(
                f"{LEDGERS} has fewer partitions than {USAGE_BATCHES} ({partitions}): "
                f"give it as many"
            )
        ways, _ = await _partitions_of(transactions, ADDITIONS, TOTALS)
        stored = await read_state(self.settings, LEDGERS, number)
        ledger = ledger_of(stored)
        if not stored:  # Those who add up may know of an earlier ledger's takes.
            ledger.takes = time.time_ns() // 10**6
        reach = await self._reach(USAGE_BATCHES, number, LEDGERS, stored)
        ledger.epoch = await self._epoch(
            USAGE_BATCHES, number, ledger.epoch, ledger.counted_to, reach
        )
        log.info("usage, partition %d: counted to %d", number, ledger.counted_to)
        work = Pricing(
            number,
            partitions=partitions,
            ways=ways,
            ledger=ledger,
            prices=self.prices,
            store=partial(self.lines.put, number),
            room=partial(self._room, number),
            commit=transactions.commit,
            end_offset=self.end_offset,
            read_stretch=partial(read_stretch, self.settings, USAGE_BATCHES, number),
            metrics=self.metrics,
        )
        await work.store_again(_first_unstored(reach.acknowledged, ledger))
        return work

    async def totalling(self, number: int) -> Desk[Totalling]:
        """Raises SinkUnavailable: Kafka does not answer."""
        state = TopicPartition(TOTALS, number)
        reaches = (COST_WINDOWS, USAGE_DLQ)
        async with self._begun(ADDITIONS, state, reaches) as transactions:
            return Desk(await self._totalling(number, transactions), transactions)

    async def _totalling(self, number: int, transactions: Transactions) -> Totalling:
        await _partitions_of(transactions, ADDITIONS, TOTALS)
        stored = await read_state(self.settings, TOTALS, number)
        totals = totals_of(stored)
        reach = await self._reach(ADDITIONS, number, TOTALS, stored)
        totals.epoch = await self._epoch(ADDITIONS, number, totals.epoch, totals.counted_to, reach)
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

    async def _room(self, number: int) -> None:
        """Returns when not too many lines wait; Lost: the partition is another worker's by then."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    return await self.lines.room()
            except TimeoutError:
                if not self.is_mine(USAGE_BATCHES, number):
                    raise Lost(f"{USAGE_BATCHES}, partition {number}, is another's") from None

    @asynccontextmanager
    async def _begun(
        self, topic: str, state: TopicPartition, reaches: Sequence[str]
    ) -> AsyncIterator[Transactions]:
        """From here on no other worker can add to what is stored of the topic's partition. Ended
        where what follows fails."""
        await self.topics.check_or_end(topic, state.topic)
        name = f"{self.app_id}/{topic}/{state.partition}"
        transactions = Transactions(self.settings, name, state, reaches)
        await transactions.start()
        try:
            yield transactions
        except BaseException:
            await transactions.stop()
            raise

    async def _reach(
        self, topic: str, number: int, state: str, stored: Mapping[bytes, bytes]
    ) -> Reach:
        """Ends the process where something was acknowledged, and what is stored of it is gone."""
        reach = await reach_of(self.settings, self.app_id, topic, number)
        if reach.acknowledged and not stored:
            end(
                f"{state}, partition {number}, is empty, but {topic} was acknowledged up to offset "
                f"{reach.acknowledged}: {state} was deleted, created again or emptied, and what it "
                f"said is already counted would be counted again. Put the topic back; or, to count "
                f"anew whatever {topic} still has, stop all workers and delete what the group has "
                f"acknowledged: kafka-consumer-groups.sh --delete-offsets --group {self.app_id} "
                f"--topic {topic}"
            )
        return reach

    async def _epoch(
        self, topic: str, number: int, known: Epoch, counted_to: int, reach: Reach
    ) -> Epoch:
        """Of the topic that is there now, which is read from its beginning where it is new."""
        epoch = epoch_of(known, self.topics.id_of(topic), counted_to, reach.end)
        tell_epoch(topic, number, known, epoch)
        if epoch.begin != known.begin or reach.acknowledged > reach.end:
            await self.rewind(topic, number)
        return epoch


def _first_unstored(acknowledged: int, ledger: Ledger) -> int:
    """The offset from which on lines may not be stored. What was acknowledged last may be of the
    topic before: then that says nothing."""
    begin = ledger.epoch.begin
    return 0 if begin and begin + acknowledged > ledger.counted_to + 1 else acknowledged


async def _partitions_of(transactions: Transactions, topic: str, state: str) -> tuple[int, int]:
    """Of both. A broker that is asked for a topic which was deleted may create it by itself, with
    one partition: cohorts would move then, and windows wait for ever.

    Raises:
        SinkUnavailable: the topic has fewer than what is stored of it, or Kafka does not answer.
    """
    found, stored = await transactions.partitions_of(topic), await transactions.partitions_of(state)
    if found < stored:
        raise SinkUnavailable(
            f"Kafka topic {topic}",
            0,
            f"it has {found} partitions and {state} has {stored}. Was it deleted, and created by "
            f"the broker? Delete it once more and create it with {stored}: meter topics apply",
        )
    return found, stored
