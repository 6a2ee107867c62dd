"""Into the topic, in whole batches, so that the broker's offset of every message is known."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from benchmarks.fuzz.journal import Entry, Journal
from benchmarks.fuzz.kinds import Kind, Made
from streams.settings import Settings
from streams.topics import USAGE_BATCHES

BATCH_BYTES = 512 * 1024
MOST_ON_THEIR_WAY = 4
_MOST_BYTES = 64 * 1024 * 1024


async def send(settings: Settings, messages: Iterable[tuple[Kind, Made]], journal: Journal) -> None:
    """Returns when all are acknowledged and in the journal.

    Raises:
        KafkaError: the broker did not take a message.
    """
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(_producer(settings, None))
        packing = await stack.enter_async_context(_producer(settings, "gzip"))
        odd = await stack.enter_async_context(_producer(settings, None, _OddProducer))
        way = _Way(journal)
        for kind, made in messages:
            producer = packing if made.packed else odd if made.odd else plain
            if way.is_of(producer) and way.fits(producer, kind, made):
                continue
            await way.close()
            if not way.is_of(producer):
                await way.arrived(0)  # Else one could overtake the other.
            way.fits(producer, kind, made)
        await way.close()
        await way.arrived(0)


class _OddProducer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka has no types
    """Writes names as they encode themselves, which aiokafka's builder in C does not."""

    def create_batch(self) -> Any:
        batch = super().create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(
            magic=2,
            compression_type=0,
            is_transactional=0,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=0,
            batch_size=BATCH_BYTES,
        )
        return batch


def _producer(
    settings: Settings, compression: str | None, kind: type[AIOKafkaProducer] = AIOKafkaProducer
) -> AIOKafkaProducer:
    return kind(
        **settings.kafka_client(),
        acks="all",
        compression_type=compression,
        max_batch_size=BATCH_BYTES,
        max_request_size=_MOST_BYTES,
    )


class _Way:
    """One batch that is being filled, and those whose offset is not known yet."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._producer: AIOKafkaProducer | None = None
        self._batch: Any = None
        self._entries: list[Entry] = []
        self._sent: deque[tuple[asyncio.Future[Any], list[Entry]]] = deque()

    def is_of(self, producer: AIOKafkaProducer) -> bool:
        return self._producer in (None, producer)

    def fits(self, producer: AIOKafkaProducer, kind: Kind, made: Made) -> bool:
        """Whether the message is in the batch now; the first one always is."""
        if self._batch is None:
            self._producer, self._batch = producer, producer.create_batch()
        taken = self._batch.append(
            key=made.key,
            value=made.value,
            timestamp=int(time.time() * 1000),
            headers=list(made.headers),
        )
        if taken is None:
            return False
        self._entries.append(self._journal.note(kind, made))
        return True

    async def close(self) -> None:
        """Off with the batch."""
        if self._batch is None or self._producer is None:
            return
        sent = await self._producer.send_batch(self._batch, USAGE_BATCHES, partition=0)
        self._sent.append((sent, self._entries))
        self._batch, self._entries = None, []
        await self.arrived(MOST_ON_THEIR_WAY)

    async def arrived(self, most: int) -> None:
        """Until no more than ``most`` are on their way."""
        while len(self._sent) > most:
            future, entries = self._sent.popleft()
            self._journal.place((await future).offset, entries)
