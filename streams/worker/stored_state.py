"""The last committed record of each key of a partition: what a new owner begins with."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from metering.errors import SinkUnavailable
from streams.settings import Settings

log = logging.getLogger(__name__)

POLL_MS = 100


async def read_state(settings: Settings, topic: str, partition: int) -> dict[bytes, bytes]:
    """Start the partition's transactions before, or its last owner may still add to it.

    Raises:
        SinkUnavailable: Kafka does not answer.
    """
    try:
        return await _read(settings, TopicPartition(topic, partition))
    except KafkaError as exc:
        raise SinkUnavailable(f"Kafka at {settings.kafka}", 0, repr(exc)) from exc


class Reach(NamedTuple):
    """``acknowledged`` is the offset from which on messages were not, ``end`` what the next one
    gets. The first may be the larger in a topic that was deleted and created again."""

    acknowledged: int
    end: int


async def reach_of(settings: Settings, group: str, topic: str, partition: int) -> Reach:
    """How far a partition goes, and how far the group has come.

    Raises:
        SinkUnavailable: Kafka does not answer.
    """
    consumer = AIOKafkaConsumer(**settings.kafka_client(), group_id=group, enable_auto_commit=False)
    where = TopicPartition(topic, partition)
    try:
        await consumer.start()
        consumer.assign([where])
        end = (await consumer.end_offsets([where]))[where]
        return Reach(await consumer.committed(where) or 0, end)
    except KafkaError as exc:
        raise SinkUnavailable(f"Kafka at {settings.kafka}", 0, repr(exc)) from exc
    finally:
        await consumer.stop()


async def _read(settings: Settings, partition: TopicPartition) -> dict[bytes, bytes]:
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(),
        enable_auto_commit=False,
        isolation_level="read_committed",
        fetch_max_bytes=50 * 1024**2,
        max_partition_fetch_bytes=16 * 1024**2,
    )
    found: dict[bytes, bytes] = {}
    started, count = time.monotonic(), 0
    try:
        await consumer.start()
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            records = await consumer.getmany(partition, timeout_ms=POLL_MS)
            for record in records.get(partition, []):
                count += 1
                if record.value is None:
                    found.pop(record.key, None)
                else:
                    found[record.key] = record.value
    finally:
        await consumer.stop()
    log.info(
        "%s, partition %d: %d keys of %d records in %.1f s",
        partition.topic,
        partition.partition,
        len(found),
        count,
        time.monotonic() - started,
    )
    return found
