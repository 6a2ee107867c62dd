"""A client for the cluster's own matters: topics, their partitions and settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from metering.errors import MeteringError
from streams.settings import Settings


@asynccontextmanager
async def kafka_admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Raises KafkaError: no broker answers."""
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def partitions_of(settings: Settings, topic: str) -> list[TopicPartition]:
    """Raises MeteringError: there is no such topic."""
    async with kafka_admin(settings) as admin:
        (described,) = await admin.describe_topics([topic])
    if described["error_code"] != 0:
        raise MeteringError(f"Kafka at {settings.kafka} has no topic {topic!r}")
    return [TopicPartition(topic, p["partition"]) for p in described["partitions"]]
