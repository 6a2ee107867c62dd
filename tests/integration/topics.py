"""Everything that a topic holds just now."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.settings import Settings


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
