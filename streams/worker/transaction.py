"""What a partition's owner sends, whole or not at all, and from one owner only.

A transactional producer whose id is the partition's: to start one takes the id from whoever had it
before, whose transactions fail from then on. After any failure nobody can say what is there; so
the producer is given up, and its owner begins again with what Kafka has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterable, Sequence

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
"""Kafka ends a transaction of that age by itself; readers don't see beyond an open one."""


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
        except (KafkaError, SinkUnavailable) as exc:
            await _stop(producer)
            raise SinkUnavailable(f"Kafka at {self._settings.kafka}", 0, repr(exc)) from exc
        self._producer = producer

    async def stop(self) -> None:
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

    async def commit(
        self, records: Iterable[Record], beside: Awaitable[None] | None = None
    ) -> None:
        """Send the records, while ``beside`` is done; they count once both are.

        Raises:
            Lost: see there; nothing more can be sent by this one.
            What ``beside`` raises: then the records do not count, and nothing more can be sent.
        """
        producer = self._producer
        doing = None if beside is None else asyncio.ensure_future(beside)
        try:
            if producer is None:
                raise Lost(f"{self._id} has ended")
            await self._send(producer, records)
            if doing is not None:
                await doing
            await self._end(producer)
        except BaseException:
            if doing is not None:
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)
            await self.stop()
            raise

    async def _send(self, producer: AIOKafkaProducer, records: Iterable[Record]) -> None:
        try:
            await producer.begin_transaction()
            batches = await _batches_of(producer, records)
            for where in batches:
                # One by one, as each is first sent to, they would be as many requests.
                producer._txn_manager.maybe_add_partition_to_txn(where)
            for done in await asyncio.gather(
                *(_send_to(producer, where, own) for where, own in batches.items()),
                return_exceptions=True,
            ):
                if done is not None:
                    raise done
        except KafkaError as exc:
            raise Lost(f"{self._id}: {exc!r}") from exc

    async def _end(self, producer: AIOKafkaProducer) -> None:
        try:
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
