"""The bare loop: messages are read and decoded, and that is all. No worker can be faster."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer

from benchmarks.stream.decode import Message, decode
from benchmarks.stream.given import TOPIC, Given

COMMIT_MS = 200
"""It is through the topic in seconds."""


async def read(given: Given) -> None:
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=given.kafka,
        group_id=given.group,
        auto_offset_reset="earliest",
        auto_commit_interval_ms=COMMIT_MS,
    )
    await consumer.start()
    while True:
        for messages in (await consumer.getmany(timeout_ms=500, max_records=500)).values():
            decode([Message(m.offset, m.timestamp, m.value, m.headers) for m in messages])


if __name__ == "__main__":
    asyncio.run(read(Given.from_env()))
