"""A topic as a reader of committed records sees it, read to its end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from streams.settings import Settings

SILENT_S = 5.0
"""An end is reached, too, when a living broker has nothing more for so long: markers of
transactions take up offsets that no reader sees."""


async def read_topic(settings: Settings, topic: str) -> AsyncIterator[ConsumerRecord]:
    """Every record that is committed at the time of the call.

    Raises:
        KafkaError: the broker does not answer.
    """
    consumer = AIOKafkaConsumer(
        topic,  # without a group: all of its partitions
        **settings.kafka_client(),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 * 1024**2,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        partitions = sorted(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        heard = time.monotonic()
        while left := [p for p in partitions if await consumer.position(p) < ends[p]]:
            found = await consumer.getmany(*left, timeout_ms=500)
            for records in found.values():
                for record in records:
                    yield record
            if found:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENT_S:
                return
    finally:
        await consumer.stop()
