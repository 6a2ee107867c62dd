"""How far a side is, as it has told others: each is asked in the way that is true of it.

- The bare loop and Quix Streams: by the offsets they commit. A checkpoint of Quix Streams is made
  of changelog, outputs and offset together.
- Plain Faust: by its table's changelog, which has a record for each request. Its commits say
  little: one that began under load was seen half a minute later.
- The worker: by its counter of batches, which moves when all that follows from them is stored.
"""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.settings import Settings
from streams.stack.probes import quiet_aiokafka
from streams.topics import USAGE_BATCHES

_BATCHES = re.compile(rb"^meter_batches_total (\S+)$", re.MULTILINE)
ASK_S = 2.0


class Asked:
    """One connection to Kafka for all questions of a measurement; counts are in requests."""

    def __init__(self, settings: Settings, batch_size: int) -> None:
        self._settings = settings
        self._batch_size = batch_size

    async def __aenter__(self) -> Asked:
        self._admin = AIOKafkaAdminClient(**self._settings.kafka_client())
        self._consumer = AIOKafkaConsumer(**self._settings.kafka_client())
        await self._admin.start()
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def in_topic(self) -> int:
        """All that there is to read."""
        return await self._end(USAGE_BATCHES) * self._batch_size

    async def committed(self, group: str) -> int:
        """0 while the broker does not know the group."""
        try:
            with quiet_aiokafka():
                offsets = await self._admin.list_consumer_group_offsets(group)
        except KafkaError as exc:
            if not exc.retriable:
                raise
            return 0
        done = sum(max(0, o.offset) for tp, o in offsets.items() if tp.topic == USAGE_BATCHES)
        return int(done) * self._batch_size

    async def in_changelog(self, topic: str) -> int:
        """0 while there is no such topic."""
        if topic not in await self._admin.list_topics():
            return 0
        return await self._end(topic)

    async def counted(self, port: int) -> int:
        """0 while the worker does not answer."""
        with suppress(OSError):
            told = _BATCHES.search(await asyncio.to_thread(_metrics, port))
            return 0 if told is None else int(float(told.group(1))) * self._batch_size
        return 0

    async def _end(self, topic: str) -> int:
        partitions = (await self._admin.describe_topics([topic]))[0]["partitions"]
        tps = [TopicPartition(topic, p["partition"]) for p in partitions]
        return int(sum((await self._consumer.end_offsets(tps)).values()))


HowFar = Callable[[Asked], Awaitable[int]]


def _metrics(port: int) -> bytes:
    url = f"http://127.0.0.1:{port}/metrics?name[]=meter_batches_total"
    with urllib.request.urlopen(url, timeout=ASK_S) as answer:
        return bytes(answer.read())
