"""The detector over a real Kafka, where two writers tell windows in transactions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry

from detectors.spend import SpendDetector
from metering.costs import Anomaly, WindowRow
from metering.window_rows import WindowRows
from sinks.prometheus import DetectorMetrics
from streams.detection.app import Detection, Outlets
from streams.publisher import Publisher, window_records
from streams.settings import Settings
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.stack.topics_admin import ensure_topics
from streams.topics import COST_ANOMALIES
from tests.integration.topics import read_topic
from tests.unit.test_detect_regions import TWO_REGIONS, in_region
from tests.unit.test_detect_spend import FLEET, stream

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

WINDOWS, INCIDENT = 24, 20
APART_MS = 1200
CHANGE = in_region(INCIDENT, "eu", "acme", "llama_8b_sim", input_tokens=8.0)


@pytest.fixture
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("detection")
    async with Stack(StackConfig(folder, preferred_ports=False), only=("kafka",)) as stack:
        await ensure_topics(stack.settings, alter=True)
        yield stack


def lately(windows: Sequence[Sequence[WindowRow]]) -> list[list[WindowRow]]:
    """The same, half an hour ago: what is older than the topic keeps would go."""
    by_ms = int(time.time() - 1800) // 10 * 10_000 - windows[0][0].window_start_ms
    return [
        [row.model_copy(update={"window_start_ms": row.window_start_ms + by_ms}) for row in rows]
        for rows in windows
    ]


@asynccontextmanager
async def writer(settings: Settings, name: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(**settings.kafka_client(), transactional_id=name)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def tell(
    producer: AIOKafkaProducer, rows: Sequence[WindowRow], late_ms: int, *, abort: bool = False
) -> None:
    """In one transaction, so long after the end of the first one's window."""
    stamp_ms = rows[0].window_start_ms + rows[0].window_seconds * 1000 + late_ms
    await producer.begin_transaction()
    for row in rows:
        (record,) = window_records(WindowRows.of([row]))
        await producer.send(
            record.topic,
            key=record.key,
            value=record.value,
            headers=record.headers,
            timestamp_ms=stamp_ms,
        )
    await (producer.abort_transaction() if abort else producer.commit_transaction())


async def detect(settings: Settings, windows: int) -> list[Anomaly]:
    """One life of the detector, until it has judged so many windows."""
    stored: list[Anomaly] = []
    store = SimpleNamespace(write_anomalies=stored.extend)
    metrics, publisher = DetectorMetrics(CollectorRegistry()), Publisher(settings)
    outlets = Outlets(store, publisher, metrics)  # type: ignore[arg-type]  # a stand-in
    task = asyncio.create_task(Detection(settings, SpendDetector(), outlets).run())
    try:
        async with asyncio.timeout(60):
            while metrics.windows._value.get() < windows:
                assert not task.done(), task
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
        assert metrics.windows._value.get() == windows
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await publisher.stop()
    return stored


async def test_windows_of_two_writers_are_judged_whole_and_what_was_not_committed_is_not(
    kafka: Stack,
) -> None:
    settings = kafka.settings
    told = lately(stream(TWO_REGIONS, WINDOWS, 3, CHANGE))
    async with writer(settings, "first") as first, writer(settings, "second") as second:
        for rows in told:
            eu, us = ([row for row in rows if row.region == region] for region in ("eu", "us"))
            minute = [row.model_copy(update={"window_seconds": 60}) for row in eu]
            await tell(first, [row.model_copy(update={"final": False}) for row in eu], -2000)
            await tell(first, eu + minute, 2000)
            dear = [row.model_copy(update={"cost_usd": row.cost_usd * 100}) for row in us]
            await tell(second, dear, 2500, abort=True)
            await tell(second, us, 2000 + APART_MS)
    at_once = SpendDetector()
    expected = [anomaly for rows in told for anomaly in at_once.observe(rows)]
    assert [(a.tenant, a.model, a.region) for a in expected] == [("acme", "llama_8b_sim", "eu")]
    assert expected[0].causes[0].slice["region"] == "eu"

    assert await detect(settings, WINDOWS) == expected
    assert await detect(settings, WINDOWS) == [], "a restart sees all again and says nothing"
    published = [
        Anomaly.model_validate_json(v) for v, _ in await read_topic(settings, COST_ANOMALIES)
    ]
    assert published == expected


async def test_two_writers_that_catch_up_at_once_are_judged_together(kafka: Stack) -> None:
    """Each tells minutes at a stroke: the windows of the second come after all of the first."""
    settings = kafka.settings
    told = lately(stream(FLEET[:4], WINDOWS, 3))
    end_ms = told[-1][0].window_start_ms + 10_000
    async with writer(settings, "first") as first, writer(settings, "second") as second:
        for producer, tenant, behind_ms in ((first, "acme", 1000), (second, "beta", 3000)):
            for rows in told:
                own = [row for row in rows if row.tenant == tenant]
                late_ms = end_ms - rows[0].window_start_ms - 10_000 + behind_ms
                await tell(producer, own, late_ms)
    assert await detect(settings, WINDOWS) == []
