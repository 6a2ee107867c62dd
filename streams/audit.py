"""Counts what went over the topics, apart from the code that put it there.

Reads the messages themselves, whole: for a demo and for tests, not for production's volumes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer

from streams.kafka_admin import partitions_of
from streams.settings import Settings
from streams.spread import lines_in, requests_in
from streams.topics import COST_REQUESTS, USAGE_BATCHES, USAGE_DLQ

_LINE = ("pricing_status", "request_id", "source", "sequence", "position")


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
    for value in await _read_all(settings, USAGE_BATCHES):
        try:
            batch = json.loads(value)
            identity = (batch["source"], batch["sequence"])
            requests = requests_in(batch, ["request_id", "gpu_ns"])
            own = [name for name, _ in requests if name.startswith(prefix)]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            continue  # What can't be read is among the refused.
        if identity in seen or not own:
            continue
        seen.add(identity)
        metered += len(own)
        batches += 1
        rows += batch["batch_size"]
        mismatches += sum(gpu_ns for _, gpu_ns in requests) != batch["gpu_ns"]
    priced = set()
    for value in await _read_all(settings, COST_REQUESTS):
        for status, name, *identity_of_line in lines_in(json.loads(value), _LINE):
            if status == "priced" and name.startswith(prefix):
                priced.add(tuple(identity_of_line))
    refused = len(await _read_all(settings, USAGE_DLQ))
    return Audit(metered, len(priced), batches, rows, mismatches, refused)


async def _read_all(settings: Settings, topic: str) -> list[bytes]:
    """Every message's value that is in the topic now."""
    partitions = await partitions_of(settings, topic)
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        found: list[bytes] = []
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [record.value or b"" for record in records]
        return found
    finally:
        await consumer.stop()
