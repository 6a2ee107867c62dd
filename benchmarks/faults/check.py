"""What is in ClickHouse after the faults, against what the clients, the topic and sums say.

Nothing here is counted by the code that is tested: ids come from the clients, a batch's time from
its message in the topic, and windows are summed anew from the lines.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from benchmarks.faults.load import Answers
from metering.errors import MeteringError
from sinks.clickhouse.queries import ClickHouseReader
from streams.settings import Settings
from streams.targets import clickhouse_target
from streams.topics import USAGE_BATCHES, USAGE_DLQ

_POLL_S = 0.5
_FROM_LINES = """
SELECT toUnixTimestamp(toStartOfInterval(time, toIntervalSecond({seconds:UInt32}))) AS start,
    tenant, model, count(), sum(batch_size), sum(input_tokens), sum(cached_input_tokens),
    sum(output_tokens), sum(gpu_ns), sum(input_gpu_ns), sum(output_gpu_ns),
    ifNull(sum(cost_usd), 0), ifNull(sum(input_cost_usd), 0), ifNull(sum(output_cost_usd), 0)
FROM cost_requests GROUP BY start, tenant, model
"""
_FROM_WINDOWS = """
SELECT toUnixTimestamp(window_start), tenant, model, requests, batch_size_sum, input_tokens,
    cached_input_tokens, output_tokens, gpu_ns, input_gpu_ns, output_gpu_ns,
    cost_usd, input_cost_usd, output_cost_usd
FROM cost_windows WHERE window_seconds = {seconds:UInt32}
"""


@dataclass(frozen=True, slots=True)
class Findings:
    """Empty and 0 wherever all is well. ``extra`` are stored without an answer: allowed."""

    stored: int
    missing: list[str]
    twice: list[str]
    extra: int
    refused: int
    unconserved: list[tuple[str, int]]
    """(source, sequence) of batches whose lines differ from their message in number or time."""
    windows: list[str] = field(default_factory=list)
    """Windows that differ from the sum of their lines."""

    @property
    def problems(self) -> list[str]:
        counts: dict[str, Sequence[object]] = {
            "answered requests are not stored": self.missing,
            "requests are stored twice": self.twice,
            "batches are not conserved": self.unconserved,
            "windows differ from the sum of their lines": self.windows,
        }
        told = [f"{len(what)} {text}: {what[:3]}" for text, what in counts.items() if what]
        return told + ([f"{self.refused} messages were refused"] if self.refused else [])


async def settled(
    settings: Settings, answers: Answers, prefix: str, timeout_s: float
) -> tuple[Findings, float]:
    """The findings once there is nothing to complain of, or as they are when time is up; and how
    long that took. ClickHouse and Kafka may be away meanwhile."""
    begun = time.monotonic()
    while True:
        waited_s = time.monotonic() - begun
        try:
            findings = await look(settings, answers, prefix)
        except (MeteringError, KafkaError):
            if waited_s > 2 * timeout_s:
                raise
        else:
            if not findings.problems or waited_s > timeout_s:
                return findings, waited_s
        await asyncio.sleep(_POLL_S)


async def look(settings: Settings, answers: Answers, prefix: str) -> Findings:
    stored, windows = await asyncio.to_thread(_ask, settings, _stored_and_windows(prefix))
    missing = sorted(answers.answered - stored.keys())
    if missing:  # The rest has no sense yet.
        return Findings(len(stored), missing, [], 0, 0, [])
    batches, refused = await _batches(settings)
    lines = await asyncio.to_thread(_ask, settings, _lines_by_batch)
    return Findings(
        stored=len(stored),
        missing=missing,
        twice=sorted(name for name, count in stored.items() if count > 1),
        extra=len(stored.keys() - answers.answered),
        refused=refused,
        unconserved=sorted(
            identity
            for identity in batches.keys() | lines.keys()
            if batches.get(identity) != lines.get(identity)
        ),
        windows=windows,
    )


def _ask(settings: Settings, question: Callable[[ClickHouseReader], Any]) -> Any:
    reader = ClickHouseReader(clickhouse_target(settings))
    try:
        return question(reader)
    finally:
        reader.close()


def _stored_and_windows(prefix: str) -> Callable[[ClickHouseReader], Any]:
    def ask(reader: ClickHouseReader) -> tuple[dict[str, int], list[str]]:
        rows = reader.rows(
            "SELECT request_id, count() FROM cost_requests "
            "WHERE startsWith(request_id, {prefix:String}) GROUP BY request_id",
            {"prefix": f"{prefix}-"},
        )
        return {str(name): int(count) for name, count in rows}, _differing_windows(reader)

    return ask


def _differing_windows(reader: ClickHouseReader) -> list[str]:
    differing = []
    for seconds in (10, 60):
        summed, told = (
            {row[:3]: row[3:] for row in reader.rows(sql, {"seconds": seconds})}
            for sql in (_FROM_LINES, _FROM_WINDOWS)
        )
        differing += [
            f"{seconds} s at {start} of {tenant} × {model}"
            for start, tenant, model in sorted(summed.keys() | told.keys())
            if summed.get((start, tenant, model)) != told.get((start, tenant, model))
        ]
    return differing


def _lines_by_batch(reader: ClickHouseReader) -> dict[tuple[str, int], tuple[int, int, int]]:
    rows = reader.rows(
        "SELECT source, sequence, count(), sum(gpu_ns), sum(input_gpu_ns + output_gpu_ns) "
        "FROM cost_requests GROUP BY source, sequence"
    )
    return {(str(r[0]), int(r[1])): (int(r[2]), int(r[3]), int(r[4])) for r in rows}


async def _batches(settings: Settings) -> tuple[dict[tuple[str, int], tuple[int, int, int]], int]:
    """By identity: how many requests, and the batch's time (twice: input and output sum to it);
    and how many messages were refused."""
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        await consumer.start()
        usage, refused = TopicPartition(USAGE_BATCHES, 0), TopicPartition(USAGE_DLQ, 0)
        ends = await consumer.end_offsets([usage, refused])
        consumer.assign([usage])
        found: dict[tuple[str, int], tuple[int, int, int]] = {}
        while await consumer.position(usage) < ends[usage]:
            for record in (await consumer.getmany(usage, timeout_ms=500)).get(usage, []):
                batch = json.loads(record.value)
                gpu_ns = batch["gpu_ns"]
                found[batch["source"], batch["sequence"]] = (
                    len(batch["requests"]),
                    gpu_ns,
                    gpu_ns,
                )
        return found, ends[refused]
    finally:
        await consumer.stop()
