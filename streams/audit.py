"""Counts what went over the topics, apart from the code that put it there.

Reads the messages themselves, whole: for a demo and for tests, not for production's volumes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from metering.errors import MeteringError
from streams.settings import Settings
from streams.topics import COST_REQUESTS, USAGE_BATCHES, USAGE_DLQ


@dataclass(frozen=True, slots=True)
class Audit:
    """What the topics hold of the requests whose id begins with a prefix, each once.

    ``mismatches`` are batches whose requests do not sum to them exactly.
    """

    metered: int
    priced: int
    batches: int
    batch_rows: int
    mismatches: int
    refused: int


async def audit(settings: Settings, prefix: str) -> Audit:
    metered = batches = rows = mismatches = 0
    seen: set[tuple[str, int]] = set()
    for _, value in await _read_all(settings, USAGE_BATCHES):
        try:
            batch = json.loads(value)
            identity = (batch["source"], batch["sequence"])
            own = [r for r in batch["requests"] if r["request_id"].startswith(prefix)]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # What can't be read is among the refused.
        if identity in seen or not own:
            continue
        seen.add(identity)
        metered += len(own)
        batches += 1
        rows += batch["batch_size"]
        mismatches += sum(r["gpu_ns"] for r in batch["requests"]) != batch["gpu_ns"]
    priced = set()
    for identity_of_line, value in await _read_all(settings, COST_REQUESTS):
        line = json.loads(value)
        if line["pricing_status"] == "priced" and line["request_id"].startswith(prefix):
            priced.add(identity_of_line)
    refused = len(await _read_all(settings, USAGE_DLQ))
    return Audit(metered, len(priced), batches, rows, mismatches, refused)


async def _read_all(settings: Settings, topic: str) -> list[tuple[tuple[bytes, bytes], bytes]]:
    """((ce_source, ce_id), value) of every message that is in the topic now."""
    partitions = await _partitions(settings, topic)
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        found = []
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    headers = dict(record.headers)
                    identity = (headers.get("ce_source", b""), headers.get("ce_id", b""))
                    found.append((identity, record.value or b""))
        return found
    finally:
        await consumer.stop()


async def _partitions(settings: Settings, topic: str) -> list[TopicPartition]:
    """Raises MeteringError: there is no such topic."""
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    await admin.start()
    try:
        (described,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    if described["error_code"] != 0:
        raise MeteringError(f"Kafka at {settings.kafka} has no topic {topic!r}")
    return [TopicPartition(topic, p["partition"]) for p in described["partitions"]]
