"""What is on the topics: the batches as they came, their priced lines, and what was refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.faults.stored import Batch, Part
from streams.settings import Settings
from streams.spread import lines_in, requests_in
from streams.topics import COST_REQUESTS, TOPICS, USAGE_BATCHES, USAGE_DLQ

Line = tuple[str, str]
"""Source, and ``sequence/position``."""


@dataclass(slots=True)
class Published:
    batches: dict[Batch, list[Part]] = field(default_factory=dict)
    unequal: set[Batch] = field(default_factory=set)
    """Batches that came again and were not the same, or whose parts are not their whole."""
    lines: set[Line] = field(default_factory=set)
    refused: int = 0

    @property
    def gaps(self) -> int:
        """Batches that are missing in the sequences, which count from 0."""
        last: dict[str, int] = {}
        for source, sequence in self.batches:
            last[source] = max(last.get(source, 0), sequence)
        return sum(sequence + 1 for sequence in last.values()) - len(self.batches)


async def read_published(settings: Settings) -> Published:
    """What lies on the topics at the time of the call.

    Raises:
        KafkaError: the broker does not answer.
    """
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=20,
    )
    try:
        await consumer.start()
        partitions = [
            TopicPartition(topic.name, number)
            for topic in TOPICS
            if topic.name in (USAGE_BATCHES, COST_REQUESTS)
            for number in range(topic.partitions)
        ]
        refused = TopicPartition(USAGE_DLQ, 0)
        ends = await consumer.end_offsets([*partitions, refused])
        consumer.assign(partitions)
        found = Published(refused=ends[refused])
        while left := [p for p in partitions if await consumer.position(p) < ends[p]]:
            for partition, records in (await consumer.getmany(*left, timeout_ms=500)).items():
                for record in records:
                    if partition.topic == USAGE_BATCHES:
                        _take_batch(found, json.loads(record.value))
                    else:
                        _take_lines(found, json.loads(record.value))
        return found
    finally:
        await consumer.stop()


def _take_lines(found: Published, message: dict[str, Any]) -> None:
    for source, sequence, position in lines_in(message, ["source", "sequence", "position"]):
        found.lines.add((source, f"{sequence}/{position}"))


def _take_batch(found: Published, batch: dict[str, Any]) -> None:
    identity = (batch["source"], batch["sequence"])
    parts: list[Part] = [
        (name, tenant, gpu_ns, gpu_ns)  # In columns, input and output are its parts by the format.
        for name, tenant, gpu_ns in requests_in(batch, ["request_id", "tenant", "gpu_ns"])
    ]
    again = found.batches.setdefault(identity, parts) != parts
    if again or sum(part[2] for part in parts) != batch["gpu_ns"]:
        found.unequal.add(identity)
