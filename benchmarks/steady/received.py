"""What a consumer of our topics receives, kept as it came with the moment of its receipt: it is
read when the load is over, so that reading does not delay what comes next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from pydantic_core import from_json

from benchmarks.steady.match import Counted, Group, Lines
from benchmarks.steady.templates import COHORT
from streams.kafka_admin import partitions_of
from streams.settings import Settings
from streams.topics import COST_REQUESTS, COST_WINDOWS


class Received:
    """Both topics, each through a consumer of its own that reads what is committed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumers: list[AIOKafkaConsumer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.requests: list[tuple[int, bytes]] = []
        self.windows: list[tuple[int, bytes]] = []

    async def __aenter__(self) -> Received:
        for topic, kept in ((COST_REQUESTS, self.requests), (COST_WINDOWS, self.windows)):
            consumer = AIOKafkaConsumer(
                **self._settings.kafka_client(),
                isolation_level="read_committed",
                enable_auto_commit=False,
                max_partition_fetch_bytes=16 * 1024**2,
            )
            await consumer.start()
            self._consumers.append(consumer)
            partitions = await partitions_of(self._settings, topic)
            consumer.assign(partitions)
            await consumer.seek_to_end(*partitions)
            self._tasks.append(asyncio.create_task(_keep(consumer, kept)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for consumer in self._consumers:
            await consumer.stop()

    def check(self) -> None:
        """Raises what a consumer has failed with."""
        for task in self._tasks:
            if task.done():
                task.result()


async def _keep(consumer: AIOKafkaConsumer, kept: list[tuple[int, bytes]]) -> None:
    while True:
        came = await consumer.getmany(timeout_ms=1000)
        now_ns = time.time_ns()
        kept.extend((now_ns, m.value) for messages in came.values() for m in messages)


def lines_of(received: list[tuple[int, bytes]]) -> Lines:
    """From messages of ``cost.requests.v1``."""
    lines = Lines()
    for at_ns, value in received:
        document = from_json(value)
        count = document["lines"]
        columns = [_column(document[name], count) for name in ("source", "sequence", "position")]
        of: dict[tuple[str, int], list[int]] = {}
        for source, sequence, position in zip(*columns, strict=True):
            of.setdefault((source, sequence), []).append(position)
        for identity, positions in of.items():
            lines.add(identity, positions, at_ns)
    return lines


def _column(column: Any, count: int) -> list[Any]:
    if isinstance(column, Mapping):
        return [column["values"][code] for code in column["codes"]]
    return column if isinstance(column, list) else [column] * count


def windows_of(received: list[tuple[int, bytes]], window_s: int) -> dict[Group, Counted]:
    """From messages of ``cost.windows.v1``, by (start in s, cohort)."""
    found: dict[Group, Counted] = {}
    for at_ns, row in _rows(received):
        if row["window_seconds"] == window_s:
            group = (row["window_start_ms"] // 1000, *(row[name] for name in COHORT))
            found.setdefault(group, Counted()).add(row["requests"], at_ns)
    return found


def _rows(received: list[tuple[int, bytes]]) -> Iterator[tuple[int, dict[str, Any]]]:
    for at_ns, value in received:
        if value:  # compaction may be told by an empty one
            yield at_ns, from_json(value)
