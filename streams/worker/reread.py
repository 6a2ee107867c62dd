"""Reads a stretch of a topic apart from Faust, for what Faust has passed over.

When Faust recovers while messages come in, it empties its queue after it has fetched into it and
before it seeks back (``_on_recovery_completed`` in 0.15.3), so that a message can be lost to it
for good. The offsets tell, or the messages' own numbers.
"""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from metering.messages import Message
from sinks.outages import OUTAGES
from streams.settings import Settings

MOST_MESSAGES = 500
MOST_BYTES = 8 * 1024**2
"""Of the values of one stretch: as much as is decided about together."""
POLL_MS = 500
RETRY_S = 1.0


async def read_stretch(
    settings: Settings, topic: str, partition: int, first: int, end: int
) -> tuple[list[Message], int]:
    """Up to ``MOST_MESSAGES`` from the offsets ``first`` to before ``end``, of which all but the
    last have fewer than ``MOST_BYTES``, and where to go on:
    ``end`` where there are no more, because the topic has deleted them or holds something else
    there. Waits for as long as Kafka is away.
    """
    while True:
        who = TopicPartition(topic, partition)
        try:
            found = await _read(settings, who, first, end)
        except KafkaError as exc:
            problem = (
                f"Kafka: offsets {first} to {end - 1} of {topic}/{partition} not read: {exc!r}"
            )
            OUTAGES.away("Kafka", who, problem)
            await asyncio.sleep(RETRY_S)
        else:
            OUTAGES.recovered(who)
            return found


async def _read(
    settings: Settings, partition: TopicPartition, first: int, end: int
) -> tuple[list[Message], int]:
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    try:
        await consumer.start()
        consumer.assign([partition])
        begin = max(first, (await consumer.beginning_offsets([partition]))[partition])
        stop = min(end, (await consumer.end_offsets([partition]))[partition])
        found: list[Message] = []
        size = 0
        if begin < stop:
            consumer.seek(partition, begin)
        while begin < stop and len(found) < MOST_MESSAGES and size < MOST_BYTES:
            # One by one: nobody knows before how large the next one is.
            records = await consumer.getmany(partition, timeout_ms=POLL_MS, max_records=1)
            for r in records.get(partition, []):
                if r.offset < stop:
                    value = r.value or b""
                    found.append(Message(r.offset, r.timestamp * 10**6, value, _headers(r.headers)))
                    size += len(value)
            begin = await consumer.position(partition)
        return found, end if begin >= stop else begin
    finally:
        await consumer.stop()


def _headers(headers: tuple[tuple[str, bytes | None], ...]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value or b"") for name, value in headers)
