"""Where partitions end, as the broker says just now.

Over a connection of its own: a broker answers the requests of a connection one after the other, so
on the one that messages come through a question waits behind a fetch, for half a second where
nothing comes. The consumer's own idea of the end (its high watermark) stands still while it
fetches nothing, which is when the worker is behind.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from metering.errors import SinkUnavailable
from sinks.outages import OUTAGES
from streams.settings import Settings

ANSWERS_WITHIN_MS = 5_000


class EndOffsets:
    """Asks in one request for all partitions that are wanted when it begins."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: Any = None
        self._wanted: set[TopicPartition] = set()
        self._next: asyncio.Task[dict[TopicPartition, int]] | None = None
        self._in_turn = asyncio.Lock()
        self._is_stopped = False

    async def of(self, topic: str, partition: int) -> int:
        """The offset that the next message will get; of a request that begins after this call. An
        open transaction ends the partition for readers of committed records, and so it does here.

        Raises:
            SinkUnavailable: Kafka does not answer, or does not know the partition.
        """
        where = TopicPartition(topic, partition)
        self._wanted.add(where)
        if self._next is None:
            self._next = asyncio.create_task(self._ask())
        ends = await asyncio.shield(self._next)
        if where not in ends:
            raise self._unavailable(f"{where} has no end")
        return ends[where]

    async def stop(self) -> None:
        self._is_stopped = True
        async with self._in_turn:
            await self._close()

    async def _ask(self) -> dict[TopicPartition, int]:
        async with self._in_turn:
            wanted, self._wanted, self._next = self._wanted, set(), None
            try:
                ends = await (await self._started()).end_offsets(list(wanted))
            except KafkaError as exc:
                await self._close()
                problem = self._unavailable(repr(exc))
                OUTAGES.failed(self, problem)
                raise problem from exc
            except BaseException:
                await self._close()
                raise
        OUTAGES.recovered(self, "Kafka")
        return {TopicPartition(*where): int(end) for where, end in ends.items()}

    async def _started(self) -> Any:
        """In turn only. One that does not start is closed by the caller."""
        if self._is_stopped:
            raise self._unavailable("the worker ends")
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                **self._settings.kafka_client(),
                enable_auto_commit=False,
                isolation_level="read_committed",
                request_timeout_ms=ANSWERS_WITHIN_MS,
            )
            await self._consumer.start()
        return self._consumer

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    def _unavailable(self, detail: str) -> SinkUnavailable:
        return SinkUnavailable(f"Kafka at {self._settings.kafka}", 0, detail)
