"""Usage at its bounds through the real Kafka and the real worker into ClickHouse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from metering.money import atto_usd, usd
from metering.prices import parse_price_book
from metering.pricing import price_batch
from metering.usage import UsageBatch
from metering.usage_columns import encode_columns
from sinks.clickhouse.queries import ClickHouseReader
from streams.publisher import MAX_REQUEST_BYTES
from streams.settings import Settings
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.targets import clickhouse_target
from streams.topics import USAGE_BATCHES, USAGE_DLQ
from tests.waiting import until

pytestmark = pytest.mark.stack
MakeBatch = Callable[..., UsageBatch]
LARGEST = 2**53 - 1
PRICES = """
[[gpu_hour]]
id = "dearest"
accelerator = "cpu"
region = "*"
usd_per_gpu_hour = "999999.999999999"
effective_from = 1970-01-01T00:00:00Z
"""
ROWS = """
SELECT tenant, window_seconds, sum(requests), sum(cost_usd) FROM cost_windows
GROUP BY tenant, window_seconds ORDER BY tenant, window_seconds
"""


async def test_usage_that_no_window_holds_stops_nothing_and_all_else_is_counted(
    tmp_path: Path, batch_of: MakeBatch
) -> None:
    book = tmp_path / "book.toml"
    book.write_text(PRICES)
    now_ns = time.time_ns()

    def of(tenant: str, sequence: int, gpu_ns: int, **request: Any) -> UsageBatch:
        return batch_of(
            sequence,
            source=tenant,
            gpu_ns=gpu_ns,
            end_epoch_ns=now_ns,
            requests=[{"tenant": tenant, **request}],
        )

    dear = [of("dear", n, LARGEST) for n in range(4)]
    many = [of("many", n, 0, input_tokens=LARGEST) for n in range(2_049)]
    after = [of("other", n, 1) for n in range(3)]
    lines = [line for batch in dear for line in price_batch(batch, parse_price_book(PRICES, "b"))]
    cost = usd(sum(atto_usd(line.cost_usd or Decimal(0)) for line in lines))

    config = StackConfig(tmp_path / "stack", price_book=book, preferred_ports=False)
    async with Stack(config, lambda _: None, only=("worker",)) as stack:
        await produce(stack.settings, [*dear, *many, *after])
        reader = await asyncio.to_thread(ClickHouseReader, clickhouse_target(stack.settings))

        async def told() -> dict[tuple[str, int], tuple[int, Decimal]]:
            rows = await asyncio.to_thread(reader.rows, ROWS)
            return {(row[0], row[1]): (row[2], row[3]) for row in rows}

        async def is_counted() -> bool:
            rows = await told()
            return all(rows.get(("other", seconds), (0,))[0] == 3 for seconds in (10, 86_400))

        await until(is_counted, 120)
        rows = await told()
        stored = await asyncio.to_thread(
            reader.rows, "SELECT count() FROM cost_requests WHERE tenant = 'many'"
        )
        letters = await letters_of(stack.settings)
        reader.close()
        assert stack.restarts.get("worker", 0) == 0
    assert {rows["dear", seconds] for seconds in (10, 60, 3600, 86_400)} == {(4, cost)}
    assert stored == [(2_049,)]
    assert letters
    assert {letter["meter_reason"] for letter in letters} == {b"too-large"}
    # What fits is counted; takes are as large as they happened to come.
    assert all(count <= 2_048 for (tenant, _), (count, _) in rows.items() if tenant == "many")


async def produce(settings: Settings, batches: list[UsageBatch]) -> None:
    producer = AIOKafkaProducer(
        **settings.kafka_client(), enable_idempotence=True, max_request_size=MAX_REQUEST_BYTES
    )
    async with producer:
        for batch in batches:
            await producer.send(USAGE_BATCHES, encode_columns(batch), partition=0)
        await producer.flush()


async def letters_of(settings: Settings) -> list[dict[str, bytes | None]]:
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(), enable_auto_commit=False, isolation_level="read_committed"
    )
    async with consumer:
        partition = TopicPartition(USAGE_DLQ, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[dict[str, bytes | None]] = []
        while await consumer.position(partition) < end:
            records = await consumer.getmany(partition, timeout_ms=200)
            found += [dict(record.headers) for record in records.get(partition, [])]
    return found
