"""Everything that a topic holds just now; and its replacement by another of the same name."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from streams.kafka_admin import kafka_admin
from streams.settings import Settings
from streams.topic_ids import topic_ids
from streams.topics import TOPICS


async def read_topic(settings: Settings, topic: str) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
    """Value and headers of each message of a topic with one partition, the oldest first."""
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        found = []
        while await consumer.position(partition) < end:
            for message in (await consumer.getmany(partition, timeout_ms=500)).get(partition, []):
                found.append((message.value or b"", list(message.headers)))
        return found
    finally:
        await consumer.stop()


async def replace(settings: Settings, topic: str) -> None:
    """Delete it and create it again, and once more where the broker was quicker: it creates one
    with a single partition for a reader that asks."""
    (wanted,) = [t for t in TOPICS if t.name == topic]
    new = NewTopic(topic, wanted.partitions, 1, topic_configs=wanted.configs)
    async with kafka_admin(settings) as admin:
        while True:
            await admin.delete_topics([topic])
            ((_, code, *_),) = (await admin.create_topics([new])).topic_errors
            if code == 0:
                break
            assert for_code(code) is TopicAlreadyExistsError
    while topic not in await topic_ids(settings, [topic]):  # noqa: ASYNC110
        await asyncio.sleep(0.05)  # Brokers hear of it a moment later.
