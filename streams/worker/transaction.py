"""What a partition's owner sends, whole or not at all, and from one owner only.

A transactional producer whose id is the partition's: to start one takes the id from whoever had it
before, whose transactions fail from then on. After any failure nobody can say what is there; so
the producer is given up, and its owner begins again with what Kafka has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from metering.errors import MeteringError, SinkUnavailable
from streams.partitioner import partition_of
from streams.publisher import PRODUCER, Record
from streams.settings import Settings
from streams.worker.hanging import end_hanging
from streams.zstd import use_quick_zstd

log = logging.getLogger(__name__)

RETRY_MS = 20
"""The one before may not have ended yet when the next one begins."""
TIMEOUT_MS = 60_000
"""Kafka aborts a transaction of that age by itself. Readers of committed records don't see beyond
an open one, so nothing but Kafka is waited for in one."""
ENDS_WITHIN_S = 5.0
"""A transaction that is under way when its owner stops gets so long to end."""


class Lost(MeteringError):
    """The partition is another's now, or what was sent may or may not be there."""


class Transactions:
    """Start before use; not for two at once."""

    def __init__(
        self,
        settings: Settings,
        transactional_id: str,
        state: TopicPartition,
        reaches: Sequence[str],
    ) -> None:
        """``state`` is the partition that nobody else writes to; ``reaches`` are the other topics
        that these transactions write to."""
        self._settings = settings
        self._id = transactional_id
        self._state = state
        self._reaches = reaches
        self._producer: AIOKafkaProducer | None = None
        self._in_turn = asyncio.Lock()

    async def start(self) -> None:
        """From here on no other owner's transaction succeeds.

        Raises:
            SinkUnavailable: no broker answers.
        """
        use_quick_zstd()
        producer = AIOKafkaProducer(
            **self._settings.kafka_client(),
            **PRODUCER,
            transactional_id=self._id,
            transaction_timeout_ms=TIMEOUT_MS,
            retry_backoff_ms=RETRY_MS,
        )
        try:
            await producer.start()
            await end_hanging(self._settings, producer, self._state, self._reaches)
        except BaseException as exc:
            await _stop(producer)
            if isinstance(exc, KafkaError | SinkUnavailable):
                raise SinkUnavailable(f"Kafka at {self._settings.kafka}", 0, repr(exc)) from exc
            raise
        self._producer = producer

    async def stop(self) -> None:
        """Stop the producer. A transaction that is under way may end first, within
        ``ENDS_WITHIN_S``: readers would stand still before it until somebody aborts it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDS_WITHIN_S), self._in_turn:
                pass
        await self._give_up()

    async def _give_up(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await _stop(producer)

    async def partitions_of(self, topic: str) -> int:
        """Raises SinkUnavailable: there is no such topic, or no broker answers."""
        assert self._producer is not None  # noqa: S101  # started
        try:
            return len(await self._producer.partitions_for(topic))
        except KafkaError as exc:
            raise SinkUnavailable(f"Kafka topic {topic}", 0, repr(exc)) from exc

    async def commit(self, records: Iterable[Record]) -> None:
        """Send the records in one transaction; they are there when this returns.

        Raises:
            Lost: see there; nothing more can be sent by this one.
        """
        async with self._in_turn:
            try:
                if self._producer is None:
                    raise Lost(f"{self._id} has ended")
                await self._commit(self._producer, records)
            except BaseException:
                await self._give_up()
                raise

    async def _commit(self, producer: AIOKafkaProducer, records: Iterable[Record]) -> None:
        try:
            # Made before the transaction begins, which is then open for as long as Kafka takes.
            batches = await _batches_of(producer, records)
            await producer.begin_transaction()
            for where in batches:
                # One by one, as each is first sent to, they would be as many requests.
                producer._txn_manager.maybe_add_partition_to_txn(where)
            for done in await asyncio.gather(
                *(_send_to(producer, where, own) for where, own in batches.items()),
                return_exceptions=True,
            ):
                if done is not None:
                    raise done
            await producer.commit_transaction()
        except KafkaError as exc:
            raise Lost(f"{self._id}: {exc!r}") from exc


async def _batches_of(
    producer: AIOKafkaProducer, records: Iterable[Record]
) -> dict[TopicPartition, list[BatchBuilder]]:
    """By where each record belongs; those of one partition keep their order. Whole batches cost a
    tenth of the same records handed over one by one."""
    known: dict[str, list[int]] = {}
    found: dict[tuple[str, int], list[BatchBuilder]] = {}
    for r in records:
        partition = r.partition
        if partition is None:
            if r.topic not in known:
                known[r.topic] = sorted(await producer.partitions_for(r.topic))
            partition = partition_of(r.key or None, known[r.topic], known[r.topic])
        batches = found.setdefault((r.topic, partition), [])
        if not batches or not _append(batches[-1], r):
            batches.append(producer.create_batch())
            _append(batches[-1], r)
    return {TopicPartition(*where): batches for where, batches in found.items()}


def _append(batch: BatchBuilder, record: Record) -> bool:
    """``False``: it is full. The first record is taken whatever its size."""
    appended = batch.append(
        timestamp=None, key=record.key or None, value=record.value, headers=record.headers
    )
    return appended is not None


async def _send_to(
    producer: AIOKafkaProducer, where: TopicPartition, batches: Sequence[BatchBuilder]
) -> None:
    """Returns when all are acknowledged."""
    sent = [
        await producer.send_batch(batch, where.topic, partition=where.partition)
        for batch in batches
    ]
    await asyncio.gather(*sent)


async def _stop(producer: AIOKafkaProducer) -> None:
    with contextlib.suppress(KafkaError):
        await producer.stop()
